"""RIEBench's sweep: every method at every setting on exactly the same cases, each case's scores kept under its id."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from sae_lib.clip import Clip
from sae_lib.denoising import CallSettings
from sae_lib.editing import Pass, draw_edited, run_pass, scores, select_units, transport
from sae_lib.judges import judge_edit
from sae_lib.masks import Finder, masks_of_cases
from sae_lib.riebench import Case
from sae_lib.store import write_if_changed
from sae_lib.units import ORDER, Basis


@dataclass(frozen=True)
class Method:
    """A way to edit, apart from how many units and how strongly."""

    basis: str
    """"SAE", "neurons", "update", "random" or "PCA"."""
    aggregate: str = "first"
    """Steps over which units are scored: "first" or "mean"."""
    normalised: bool = False
    """Whether units are divided by their norm over the region before they are scored (neurons)."""
    subtract: bool = True
    """False: nothing is taken off, as in the results of v3 and v4."""
    shuffled_masks: bool = False
    """True: units are selected in as many cells of the grid as the masks have, anywhere; they are put where they belong."""


METHODS = {
    "SAE": Method("SAE"),
    "SAE, add only": Method("SAE", subtract=False),
    "neurons": Method("neurons", normalised=True),
    "neurons, mean": Method("neurons", aggregate="mean", normalised=True),
    "steering": Method("update"),
    "random features": Method("random"),
    "shuffled masks": Method("SAE", shuffled_masks=True),
    "principal components": Method("PCA"),
}
"""The paper's methods, v4's, and controls that the paper does not have."""


class Setting(NamedTuple):
    """One point of a method's curve."""

    method: str
    units: int
    """Added, and as many taken off; 0: all there are (steering)."""
    strength: float

    def __str__(self) -> str:
        return f"{self.method}, {self.units or 'all'} units, strength {self.strength:g}"


PAPER_SETTINGS = (
    *(Setting("SAE", k, m) for k in (80, 160, 320, 640) for m in (1.0, 2.0)),
    *(Setting("steering", 0, m) for m in (0.25, 0.5, 1.0, 2.0)),
    *(
        Setting(method, k, m)
        for method in ("neurons", "neurons, mean")
        for k in (5_000, 10_000, 20_000, 40_000, 80_000)
        for m in (1.0, 2.0)
    ),
)
"""The authors' sweep [riebench]; SAEs with k = 160."""


class Editor(NamedTuple):
    """All that a sweep needs."""

    pipe: object
    call: CallSettings
    bases: Mapping[str, Basis]
    """By the names of `Method.basis`."""
    finder: Finder
    distance: Callable[[Tensor, Tensor], Tensor]
    clip: Clip
    judge: nn.Module | None
    """Known only in the pocket world."""


def run_sweep(
    editor: Editor, cases: Sequence[Case], settings: Sequence[Setting], folder: Path, at_once: int = 20
) -> "Sweep":
    """Every setting on every case; what is in the folder already is not done again, so that a killed sweep goes on.

    Cases are done some at a time; the two reference passes and the masks once a case. A case without masks is counted
    as failed for all methods, with the reason. Noise is that of the case's place in the list.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for start in range(0, len(cases), at_once):
        path = folder / f"cases_{start:05}.json"
        if not path.is_file():
            indices = range(start, min(start + at_once, len(cases)))
            rows = _edit([cases[i] for i in indices], editor, settings, list(indices))
            write_if_changed(path, json.dumps(rows).encode())
    parts = [json.loads(path.read_text()) for path in sorted(folder.glob("cases_*.json"))]
    return Sweep.join(parts)


class Sweep(NamedTuple):
    """What came out, case by case."""

    ids: list[str]
    """Of the cases that have scores, in one order for everything."""
    categories: Float[Tensor, " cases"]
    failed: dict[str, str]
    """By id, why a case has none."""
    scores: dict[Setting, dict[str, Float[Tensor, " cases"]]]
    """By setting and name of the score; see `score_pictures`. "original" and "edit prompt" stand for the two references."""
    selected: dict[Setting, dict[str, Float[Tensor, " cases"]]]
    """Of SAE settings, by block: how many features were added."""

    @classmethod
    def join(cls, parts: Sequence[dict]) -> "Sweep":
        def joined(table: str) -> dict:
            keys = parts[0][table]
            return {
                _key(key): {name: torch.cat([torch.tensor(part[table][key][name]) for part in parts]) for name in of}
                for key, of in keys.items()
            }

        failed = {name: why for part in parts for name, why in part["failed"].items()}
        ids = [name for part in parts for name in part["ids"]]
        categories = torch.tensor([number for part in parts for number in part["categories"]])
        return cls(ids, categories, failed, joined("scores"), joined("selected"))


def _key(text: str):
    method, units, strength = json.loads(text)
    return Setting(method, units, strength)


def _edit(cases: list[Case], editor: Editor, settings: Sequence[Setting], indices: list[int]) -> dict:
    neurons = any(METHODS[setting.method].basis == "neurons" for setting in settings)
    source = run_pass(editor.pipe, [case.editing_prompt for case in cases], editor.call, indices, neurons)
    target = run_pass(editor.pipe, [case.original_prompt for case in cases], editor.call, indices, neurons)
    side = target.maps[ORDER[0]].shape[-1]
    found = masks_of_cases(cases, editor.finder, source.pictures, target.pictures, side)
    failed = {case.id: why for case, why in zip(cases, found, strict=True) if isinstance(why, str)}
    kept = [place for place, each in enumerate(found) if not isinstance(each, str)]
    cases, indices = ([of[place] for place in kept] for of in (cases, indices))
    out = {"ids": [case.id for case in cases], "categories": [case.category for case in cases], "failed": failed}
    out |= {"scores": {}, "selected": {}}
    source, target = (
        Pass(each.pictures[kept], {s: m[:, kept] for s, m in each.maps.items()}) for each in (source, target)
    )
    masks = tuple(torch.stack([found[place][which] for place in kept]) for which in (0, 1)) if kept else ()
    references = {"original": target.pictures, "edit prompt": source.pictures}
    for name, pictures in references.items():
        told = score_pictures(editor, cases, pictures, source.pictures, target.pictures, masks)
        out["scores"][json.dumps((name, 0, 0.0))] = told
    for setting, pictures, change, chosen in _edited(editor, cases, indices, source, target, masks, settings):
        told = score_pictures(editor, cases, pictures, source.pictures, target.pictures, masks)
        told |= {"units": change.active_units.tolist(), "numbers": change.numbers.tolist()}
        out["scores"][json.dumps(setting)] = told
        if chosen is not None:
            out["selected"][json.dumps(setting)] = chosen
    return out


def _edited(editor, cases, indices, source, target, masks, settings):
    """Setting by setting the edited pictures; those that differ in strength alone share everything but the drawing."""
    generator = torch.Generator().manual_seed(indices[0] if indices else 0)
    anywhere = tuple(_shuffle(mask, generator) for mask in masks)
    prompts, encoded = [case.original_prompt for case in cases], {}
    for name, units in dict.fromkeys((setting.method, setting.units) for setting in settings):
        method = METHODS[name]
        basis = editor.bases[method.basis]
        if method.basis not in encoded:
            encoded = {
                method.basis: tuple(
                    {s: basis.encode(s, p.maps[s]) for s in basis.sites(p.maps)} for p in (source, target)
                )
            }
        first, second = encoded[method.basis]
        chosen = by_block = None
        if units:
            where = anywhere if method.shuffled_masks else masks
            chosen = select_units(scores(first, second, where, method.aggregate, method.normalised), units)
            if method.basis == "SAE":
                widths = [each.shape[2] for each in first.values()]
                counts = [part.sum(1).tolist() for part in chosen[0].split(widths, 1)]
                by_block = dict(zip(first, counts, strict=True))
        change = transport(basis, first, second, chosen, masks, method.subtract)
        for setting in settings:
            if (setting.method, setting.units) == (name, units):
                maps = {site: setting.strength * each for site, each in change.maps.items()}
                yield setting, draw_edited(editor.pipe, prompts, editor.call, indices, maps), change, by_block


def _shuffle(mask: Tensor, generator: torch.Generator) -> Tensor:
    """Each case's mask with its cells in another place."""
    order = torch.rand(mask.flatten(1).shape, generator=generator).argsort(1)
    return mask.flatten(1).gather(1, order).view_as(mask)


def score_pictures(editor: Editor, cases, pictures, edited, original, masks) -> dict[str, list[float]]:
    """Each case's scores of some pictures.

    distance, distance to edited: perceptual, to the pictures of the two prompts. text original, text edited: CLIP's cosine with
    the prompts; image original, image edited: with the two pictures. Pocket: success and rest, as `judge_edit` says.
    """
    told = {"distance": editor.distance(pictures, original), "distance to edited": editor.distance(pictures, edited)}
    own = editor.clip.embed_images(pictures)
    for name, prompts, reference in (
        ("original", [case.original_prompt for case in cases], original),
        ("edited", [case.editing_prompt for case in cases], edited),
    ):
        told[f"text {name}"] = (own * editor.clip.embed_texts(prompts)).sum(1)
        told[f"image {name}"] = (own * editor.clip.embed_images(reference)).sum(1)
    if editor.judge is not None:
        region = F.interpolate((masks[0] | masks[1])[:, None].float(), pictures.shape[-2:])[:, 0] > 0
        judged = [judge_edit(editor.judge, *each) for each in zip(cases, original, pictures, region, strict=True)]
        told |= {"success": torch.tensor([float(done) for done, _ in judged])}
        told |= {"rest": torch.tensor([rest for _, rest in judged])}
    return {name: values.tolist() for name, values in told.items()}
