"""How good the pocket models are: `python -m notebooks.experiments.pocket.quality` recomputes the model card's tables.

The judge is measured on held-out renders, whole ones and broken ones, where the truth is exact; then the judge measures
the models: the share of a caption's stated attributes that it finds on the stated object, on captions of scenes that no
model was trained on. Where it abstains, the attribute does not count as found.
"""

import argparse
import functools
import itertools
import json
import random
from collections import Counter
from dataclasses import replace

import torch
from torch import Tensor

from notebooks.experiments.pocket.broken import KINDS, break_scenes, whole
from sae_lib.activations.denoising import CallSettings
from sae_lib.activations.drawing import draw_pictures
from sae_lib.cache.artefact import ROOT, write_if_changed
from sae_lib.cache.results import result_path
from sae_lib.judges.clip import Clip, load_clip
from sae_lib.models.pipelines import load_pipeline
from sae_lib.pocket import weights
from sae_lib.pocket.captions import Caption, attribute_words, sample_captions, write_caption
from sae_lib.pocket.judge import JUDGED, NONE, Judge, judge_images
from sae_lib.pocket.statements import caption_agreement, nearest_position
from sae_lib.pocket.world import (
    ATTRIBUTES,
    OBJECT_ATTRIBUTES,
    SCENE_ATTRIBUTES,
    has_attribute,
    object_masks,
    render,
    sample_scenes,
)

SETTINGS = {
    "base, 20 steps": ("base", CallSettings(20, guidance_scale=4.0, batch_size=50)),
    "turbo, 4 steps": ("turbo", CallSettings(4, guidance_scale=0.0, batch_size=50)),
    "turbo, 1 step": ("turbo", CallSettings(1, guidance_scale=0.0, batch_size=50)),
    "FLUX, 4 steps": ("flux", CallSettings(4, guidance_scale=0.0, batch_size=50)),
    "FLUX, 1 step": ("flux", CallSettings(1, guidance_scale=0.0, batch_size=50)),
}
"""The ways in which the paper's models are run."""

AMONG = 50
"""Number of captions that CLIP chooses from."""

VARIED = (40, 4)
"""Numbers of captions and seeds on which we measure how what a caption leaves open varies."""

CARD = ROOT / "sae_lib" / "pocket" / "MODEL_CARD.md"
_START, _END = "<!-- quality: written by `python -m notebooks.experiments.pocket.quality` -->", "<!-- /quality -->"


@torch.inference_mode()
def see_through(vae, images: Tensor) -> Tensor:
    """Pictures, encoded and decoded by the autoencoder."""
    parts = [vae.decode(vae.encode(2 * part - 1).latent_dist.mean).sample for part in images.split(50)]
    return ((torch.cat(parts) + 1) / 2).clamp(0, 1)


def judge_accuracy(judge: Judge, count: int, seed: int, vae=None) -> dict[str, tuple[int, int]]:
    """`{attribute: (right, asked)}` on held-out renders, seen through the autoencoder if one is given.

    "object" counts the objects that the judge sees at all.
    """
    scenes = sample_scenes(count, seed, "test")
    images = render(scenes)
    if vae is not None:
        images = see_through(vae, images)
    right, asked = Counter(), Counter()

    def count_one(name: str, correct: bool) -> None:
        asked[name] += 1
        right[name] += correct

    for scene, masks, judgement in zip(scenes, object_masks(scenes), judge_images(judge, images), strict=True):
        for name in SCENE_ATTRIBUTES:
            count_one(name, judgement.scene[name] == getattr(scene, name))
        for thing, mask in zip(scene.objects, masks, strict=False):
            seen = max(judgement.objects, key=lambda one: (one.mask & mask).sum().item(), default=None)
            hit = seen is not None and (seen.mask & mask).sum() > 0.5 * mask.sum()
            count_one("object", bool(hit))
            for name in OBJECT_ATTRIBUTES:
                if hit and has_attribute(thing, name):
                    seen_value = nearest_position(seen.centre) if name == "position" else seen.attributes[name]
                    count_one(name, seen_value == getattr(thing, name))
    return {name: (right[name], asked[name]) for name in asked}


def judge_abstentions(
    judge: Judge, images: Tensor, none: Tensor | None = None, broken: bool = False
) -> dict[str, tuple[int, int]]:
    """`{attribute: (abstained, asked)}` over the objects that the judge sees, and the scenes; "all" for the total.

    none: where each attribute is none of its values (`notebooks.experiments.pocket.broken`). Then only those are asked
    of which most pixels have no value (`broken`), or of which most have one. Without it everything is asked.
    """
    abstained, asked = Counter(), Counter()
    none = torch.zeros(len(images), len(JUDGED), *images.shape[-2:]) if none is None else none
    for lost, judgement in zip(none, judge_images(judge, images), strict=True):
        parts = [(thing.mask, thing.attributes) for thing in judgement.objects]
        ground = ~torch.stack([torch.zeros_like(lost[0]).bool(), *(mask for mask, _ in parts)]).any(0)
        for mask, said in [*parts, (ground, judgement.scene)]:
            for name, value in said.items():
                if (lost[list(JUDGED).index(name)][mask] == broken).float().mean() > 0.5:
                    asked[name] += 1
                    abstained[name] += value == NONE
    return {"all": (abstained.total(), asked.total())} | {name: (abstained[name], asked[name]) for name in asked}


def seed_variation(
    judge: Judge, name: str, settings: CallSettings, captions: int = VARIED[0], seeds: int = VARIED[1]
) -> dict[str, tuple[int, int]]:
    """`{attribute: (pairs that differ, pairs)}` over pairs of seeds, for what a caption of one object leaves open."""
    chosen = [caption for caption in sample_captions(400, 7, "test") if len(caption.objects) == 1][:captions]
    pipe, texts = load_pipeline(name), [caption.text for caption in chosen]
    judged = [judge_images(judge, draw_pictures(pipe, texts, replace(settings, seed=100 + at))) for at in range(seeds)]
    differ, pairs = Counter(), Counter()
    for row, caption in enumerate(chosen):
        seen = [judgements[row] for judgements in judged if len(judgements[row].objects) == 1]
        for attribute in ("colour", "material", "size", "background", "style"):
            if attribute in caption.objects[0] or attribute in caption.scene:
                continue
            values = [
                one.scene[attribute] if attribute in SCENE_ATTRIBUTES else one.objects[0].attributes[attribute]
                for one in seen
            ]
            for first, second in itertools.combinations([value for value in values if value != NONE], 2):
                pairs[attribute] += 1
                differ[attribute] += first != second
    return {name: (differ[name], pairs[name]) for name in pairs}


def clip_accuracy(clip: Clip, count: int, seed: int, vae=None) -> dict[str, tuple[int, int]]:
    """`{attribute: (right, asked)}` on held-out renders of one object.

    CLIP chooses the value whose words are nearest to the picture. "all": whether the nearest of `AMONG` captions
    is the picture's own.
    """
    rng, right, asked = random.Random(seed), Counter(), Counter()
    scenes = [scene for scene in sample_scenes(3 * count, seed, "test") if len(scene.objects) == 1][:count]
    embedded = clip.embed_images(render(scenes) if vae is None else see_through(vae, render(scenes)))
    for start in range(0, len(scenes), AMONG):
        captions = [write_caption(scene, rng, stated=1.0).text for scene in scenes[start : start + AMONG]]
        nearest = (embedded[start : start + AMONG] @ clip.embed_texts(captions).T).argmax(1)
        right["all"] += sum(captions[i] == caption for i, caption in zip(nearest.tolist(), captions, strict=True))
        asked["all"] += len(captions)
    for name, values in ATTRIBUTES.items():
        sayable = [value for value in values if value != "no eye"]
        nearest = (embedded @ clip.embed_texts([attribute_words(name, value) for value in sayable]).T).argmax(1)
        for scene, i in zip(scenes, nearest.tolist(), strict=True):
            owner = scene if name in SCENE_ATTRIBUTES else scene.objects[0]
            if getattr(owner, name) in sayable and (owner is scene or has_attribute(owner, name)):
                asked[name] += 1
                right[name] += getattr(owner, name) == sayable[i]
    return {name: (right[name], asked[name]) for name in asked}


def measure(count: int, seed: int, before: dict, only: str = "") -> dict[str, dict[str, tuple[int, int]]]:
    """Every table of the model card; tables whose title does not contain `only` are taken from
    `before` if it has them."""
    judge, vae, flux_vae = (weights.load(part) for part in ("judge", "vae", "flux_vae"))

    @functools.cache
    def drawn(title: str, split: str) -> tuple[Tensor, list[Caption]]:
        name, settings = SETTINGS[title]
        captions = sample_captions(count if split == "test" else count // 5, seed, split)
        texts = [caption.text for caption in captions]
        return draw_pictures(load_pipeline(name), texts, replace(settings, seed=seed)), captions

    def abstentions(through: bool, broken: bool, kind: str | None = None) -> dict[str, tuple[int, int]]:
        scenes = sample_scenes(count, seed, "test")
        images, none = break_scenes(scenes, seed, vae, kind) if broken else whole(scenes)
        return judge_abstentions(judge, see_through(vae, images) if through else images, none, broken)

    ways = {
        "judge on renders": lambda: judge_accuracy(judge, count, seed),
        "judge on renders through the autoencoder": lambda: judge_accuracy(judge, count, seed, vae),
        "judge on renders through FLUX's autoencoder": lambda: judge_accuracy(judge, count, seed, flux_vae),
        "judge abstains, renders through the autoencoder": lambda: abstentions(True, broken=False),
        "judge abstains, broken renders": lambda: abstentions(False, broken=True),
        "judge abstains, broken renders through the autoencoder": lambda: abstentions(True, broken=True),
        **{f"judge abstains, {kind}": lambda kind=kind: abstentions(True, broken=True, kind=kind) for kind in KINDS},
        f"CLIP on renders (all: own caption among {AMONG})": lambda: clip_accuracy(load_clip(), count, seed),
        "CLIP on renders through the autoencoder": lambda: clip_accuracy(load_clip(), count, seed, vae),
    }
    for title, (name, settings) in SETTINGS.items():
        ways[title] = lambda title=title: caption_agreement(judge, *drawn(title, "test"))
        ways[f"{title} (unseen pairs)"] = lambda title=title: caption_agreement(judge, *drawn(title, "unseen"))
        ways[f"{title}: the judge abstains"] = lambda title=title: judge_abstentions(judge, drawn(title, "test")[0])
        ways[f"{title}: open attributes that differ between seeds"] = lambda name=name, settings=settings: (
            seed_variation(judge, name, settings)
        )
    kept = {title: way for title, way in ways.items() if only in title or title in before}
    return {title: way() if only in title else before[title] for title, way in kept.items()}


def as_markdown(tables: dict[str, dict[str, tuple[int, int]]], count: int, seed: int) -> str:
    """The tables as one markdown table, in per cent; a dash where an attribute is not asked."""
    columns = ["all", "number", "object", *OBJECT_ATTRIBUTES, *SCENE_ATTRIBUTES]
    lines = ["| | " + " | ".join(columns) + " |", "|---" * (len(columns) + 1) + "|"]
    for title, table in tables.items():
        cells = [
            f"{100 * table[name][0] / table[name][1]:.1f}" if table.get(name, (0, 0))[1] else "–" for name in columns
        ]
        lines.append(f"| {title} | " + " | ".join(cells) + " |")
    parts = f"unseen pairs: {count // 5}; seeds: {VARIED[0]} captions, {VARIED[1]} seeds"
    note = f"Per cent; {count} held-out scenes or captions ({parts}), seed {seed}."
    return "\n".join([*lines, "", note])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=500, help="held-out captions")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", default="", help="measure only tables with this in their title, and keep the others")
    arguments = parser.parse_args()
    results = result_path("pocket_quality")
    before = json.loads(results.read_text())["tables"] if arguments.only else {}
    tables = measure(arguments.count, arguments.seed, before, arguments.only)
    text = as_markdown(tables, arguments.count, arguments.seed)
    print(text)
    record = {
        "command": f"python -m notebooks.experiments.pocket.quality --count {arguments.count} --seed {arguments.seed}",
        "tables": tables,
    }
    write_if_changed(results, (json.dumps(record, indent=1) + "\n").encode())
    before, rest = CARD.read_text().split(_START)
    write_if_changed(CARD, f"{before}{_START}\n{text}\n{_END}{rest.split(_END)[1]}".encode())


if __name__ == "__main__":
    main()
