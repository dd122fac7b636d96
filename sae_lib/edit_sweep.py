"""RIEBench's sweep: every method at every setting on exactly the same cases, each case's scores kept under its id."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor, nn

from sae_lib.clip import Clip
from sae_lib.denoising import CallSettings
from sae_lib.editing import Change, Masks, Pass, draw_edited, run_pass, scores, select_units, transport
from sae_lib.injection import encode_tokens, inject_tokens
from sae_lib.judges import judge_edit
from sae_lib.masks import CaseMasks, Finder, masks_of_cases
from sae_lib.perceptual import LPIPS, Distances, EncoderDistance
from sae_lib.pictures import draw_pictures
from sae_lib.riebench import Case
from sae_lib.store import write_if_changed
from sae_lib.units import Basis


@dataclass(frozen=True)
class Method:
    """A way to edit, apart from how many units and how strongly."""

    basis: str
    """"SAE", "neurons", "update", "random" or "PCA"."""
    aggregate: str = "first"
    """Steps over which units are scored: "first" or "mean"."""
    normalised: bool = False
    """Whether units are divided by their norm over the region before they are scored (neurons)."""
    absolute: bool = False
    """Whether their shares are of the sum of absolute values (neurons): see `editing.scores`."""
    subtract: bool = True
    """False: nothing is taken off, as in the results of v3 and v4."""
    shuffled_masks: bool = False
    """True: units are selected in as many cells as the masks have, but in random places; they are put where they belong."""


METHODS = {
    "SAE": Method("SAE"),
    "SAE, add only": Method("SAE", subtract=False),
    "neurons": Method("neurons", normalised=True),
    "neurons, mean": Method("neurons", aggregate="mean", normalised=True),
    "neurons, corrected": Method("neurons", normalised=True, absolute=True),
    "steering": Method("update"),
    "random features": Method("random"),
    "shuffled masks": Method("SAE", shuffled_masks=True),
    "principal components": Method("PCA"),
}
"""The paper's methods; neurons with the sign of their score mended; v4's; and controls that the paper does not have."""


class Setting(NamedTuple):
    """One point of a method's curve."""

    method: str
    units: int
    """Added, and as many taken off; 0: all there are (steering, and the references)."""
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


REFERENCES = ORIGINAL, EDIT_PROMPT, INJECTION = tuple(
    Setting(name, 0, 0.0) for name in ("original", "edit prompt", "injection")
)
"""What every edit is compared with: the untouched picture; the edit prompt's own; and the original prompt's while the editor's blocks
read the edit prompt's tokens, which shows what these blocks can make of an edit when nothing is selected or masked."""


class Editor(NamedTuple):
    """All that a sweep needs."""

    pipe: object
    blocks: tuple[str, ...]
    """Whose units are moved, in the order of selection."""
    call: CallSettings
    """Its seed is 0: a case's generator is seeded with `seed` and the case's own number."""
    bases: Mapping[str, Basis]
    """By the names of `Method.basis`."""
    finder: Finder
    distance: LPIPS | EncoderDistance
    clip: Clip
    judge: nn.Module | None
    """Known only in the pocket world."""
    seed: int
    """Of the noise (the authors: 42 for all cases) and of the shuffled masks."""
    at_once: int
    """Cases whose passes are kept at the same time; no number depends on it."""
    dilate: bool
    """Whether masks are blurred before they are put on the grid; see `masks.to_grid`."""

    def noise_of(self, cases: Sequence[Case]) -> list[int]:
        """Whose noise the cases are drawn from."""
        return [self.seed + case.noise for case in cases]


def run_sweep(editor: Editor, cases: Sequence[Case], settings: Sequence[Setting], folder: Path) -> "Sweep":
    """Every setting on every case; what is in the folder already is not done again, so that a killed sweep goes on.

    The reference passes, the masks and what is scored of the references are made once per case, never once per setting. A
    case without masks, or of which one method makes no finite picture (16 bit), is counted as failed for all, with the reason.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for start in range(0, len(cases), editor.at_once):
        path = folder / f"cases_{start:05}.json"
        if not path.is_file():
            part = _edit(cases[start : start + editor.at_once], editor, settings)
            write_if_changed(path, json.dumps(part).encode())
    return read_sweep(folder)


def read_sweep(folder: Path) -> "Sweep":
    """What `run_sweep` left in a folder."""
    return Sweep.join([json.loads(path.read_text()) for path in sorted(folder.glob("cases_*.json"))])


READINGS = {"judge": ("rest", "success"), "text": ("distance", "text edited"), "image": ("distance", "image edited")}
"""Ways to read a sweep, each by the scores that say what an edit cost and what it did: by the judge (pocket), or by perceptual distance
and CLIP's cosine with the edit prompt or with its picture."""


class Sweep(NamedTuple):
    """What came out, case by case."""

    ids: list[str]
    """Of the cases that have scores, in one order for everything."""
    categories: Float[Tensor, " cases"]
    failed: dict[str, str]
    """By id, why a case has none."""
    specks: int
    """Instances too small for the grid, which got the cell that they cover most."""
    scores: dict[Setting, dict[str, Float[Tensor, " cases"]]]
    """By setting and name of the score; see `score_pictures`. REFERENCES are there too."""
    selected: dict[Setting, dict[str, Float[Tensor, " cases"]]]
    """Of SAE settings, by block: how many features were added. `untrained_of` a setting is there too: how many of an untrained SAE's
    features would have been."""

    def of_method(self, name: str) -> list[Setting]:
        """A method's settings, by their number of units."""
        return sorted(each for each in self.scores if each.method == name and each not in REFERENCES)

    def gain(self, setting: Setting, reading: str) -> Float[Tensor, " cases"]:
        """What an edit did beyond the untouched picture, by one of READINGS."""
        score = READINGS[reading][1]
        return self.scores[setting][score] - self.scores[ORIGINAL][score]

    def points(self, settings: Sequence[Setting], reading: str) -> Float[Tensor, "cases settings 2"]:
        """Of each case and setting the cost and the gain; the untouched picture comes first, for it is a setting of every method."""
        cost = READINGS[reading][0]
        return torch.stack(
            [torch.stack([self.scores[s][cost], self.gain(s, reading)], 1) for s in (ORIGINAL, *settings)], 1
        )

    @classmethod
    def join(cls, parts: Sequence[dict]) -> "Sweep":
        done = [part for part in parts if part["ids"]]

        def joined(table: str) -> dict:
            return {
                _key(key): {
                    name: torch.cat([torch.tensor(part[table][key][name]).float() for part in done]) for name in of
                }
                for key, of in (done[0][table] if done else {}).items()
            }

        failed = {name: why for part in parts for name, why in part["failed"].items()}
        ids = [name for part in parts for name in part["ids"]]
        categories = torch.tensor([number for part in parts for number in part["categories"]])
        specks = sum(part["specks"] for part in parts)
        return cls(ids, categories, failed, specks, joined("scores"), joined("selected"))


def _key(text: str):
    method, units, strength = json.loads(text)
    return Setting(method, units, strength)


def untrained_of(setting: Setting) -> Setting:
    """Under which an untrained SAE's selection stands that has as many units as this setting; nothing is drawn with it."""
    return Setting("untrained SAE", setting.units, 0.0)


class Prepared(NamedTuple):
    """Some cases, and all of them that no setting changes."""

    cases: list[Case]
    source: Pass
    """Of the edit prompts."""
    target: Pass
    """Of the original prompts, the passes that are edited."""
    masks: Masks
    """On the grids of the editor's blocks."""
    near: dict[str, Float[Tensor, "cases dimensions"]]
    """What CLIP compares a picture with, by the name of the score."""
    distances: Distances
    """Perceptual, to the original pictures and to those of the edit prompts."""
    before: list
    """What the judge sees in the original pictures; empty without a judge."""

    @property
    def finest(self) -> int:
        """Side of the finest grid."""
        return max(self.masks)


def prepare(editor: Editor, cases: Sequence[Case], neurons: bool = True) -> tuple[Prepared | None, dict[str, str], int]:
    """Both passes and the masks of some cases; of those that have no masks, by id, why; and the number of specks.

    None if no case has masks. neurons: whether the passes keep them.
    """
    call, noise = editor.call, editor.noise_of(cases)
    source = run_pass(editor.pipe, [case.editing_prompt for case in cases], call, noise, editor.blocks, neurons)
    target = run_pass(editor.pipe, [case.original_prompt for case in cases], call, noise, editor.blocks, neurons)
    sides = sorted({target.maps[block].shape[-1] for block in editor.blocks})
    found = masks_of_cases(cases, editor.finder, source.pictures, target.pictures, sides, editor.dilate)
    failed = {case.id: why for case, why in zip(cases, found, strict=True) if isinstance(why, str)}
    kept = [place for place, each in enumerate(found) if not isinstance(each, str)]
    if not kept:
        return None, failed, 0
    cases, found = ([of[place] for place in kept] for of in (cases, found))
    if failed:
        source, target = (
            Pass(each.pictures[kept], {site: maps[:, kept] for site, maps in each.maps.items()})
            for each in (source, target)
        )
    masks = stack_masks(found, editor.pipe.device)
    near = {
        "text original": editor.clip.embed_texts([case.original_prompt for case in cases]),
        "text edited": editor.clip.embed_texts([case.editing_prompt for case in cases]),
        "image original": editor.clip.embed_images(target.pictures),
        "image edited": editor.clip.embed_images(source.pictures),
    }
    distances = editor.distance.against(target.pictures, source.pictures)
    before = _judge(editor, target.pictures)
    return Prepared(cases, source, target, masks, near, distances, before), failed, sum(each.specks for each in found)


def stack_masks(found: Sequence[CaseMasks], device: str | torch.device = "cpu") -> Masks:
    """The masks of some cases in one tensor for each grid and side of the edit."""
    return {
        side: tuple(torch.stack([each.cells[side][which] for each in found]).to(device) for which in (0, 1))
        for side in found[0].cells
    }


def draw_injected_edit(editor: Editor, cases: Sequence[Case]) -> Float[Tensor, "cases 3 picture_height picture_width"]:
    """The original prompts' pictures while the editor's blocks read the edit prompts' tokens, everywhere: see INJECTION."""
    parts, noise = [], editor.noise_of(cases)
    for start in range(0, len(cases), editor.call.batch_size):
        some = cases[start : start + editor.call.batch_size]
        tokens = encode_tokens(editor.pipe, [case.editing_prompt for case in some])
        with inject_tokens(editor.pipe, dict.fromkeys(editor.blocks, tokens)):
            prompts, numbers = [case.original_prompt for case in some], noise[start : start + len(some)]
            parts.append(draw_pictures(editor.pipe, prompts, editor.call, numbers))
    return torch.cat(parts)


def _judge(editor: Editor, pictures: Tensor) -> list:
    if editor.judge is None:
        return []
    from sae_lib.pocket.judge import judge_images

    return judge_images(editor.judge, pictures)


def _edit(cases: Sequence[Case], editor: Editor, settings: Sequence[Setting]) -> dict:
    """One part of the sweep, in the form of its file."""
    neurons = any(METHODS[setting.method].basis == "neurons" for setting in settings)
    ready, failed, specks = prepare(editor, cases, neurons)
    if ready is None:
        return {"ids": [], "categories": [], "failed": failed, "specks": 0, "scores": {}, "selected": {}}
    told, selected, broken = {}, {}, {}
    injected = draw_injected_edit(editor, ready.cases)
    references = zip(REFERENCES, (ready.target.pictures, ready.source.pictures, injected), strict=True)
    for setting, pictures in references:
        told[setting] = score_pictures(editor, ready, pictures)
    for setting, edited in edit_all(editor, ready, settings):
        for place in (~edited.pictures.flatten(1).isfinite().all(1)).nonzero().flatten().tolist():
            broken.setdefault(place, f"no finite picture by {setting}")
        told[setting] = score_pictures(editor, ready, edited.pictures.nan_to_num())
        told[setting] |= {"units": edited.change.active_units, "numbers": edited.change.numbers}
        if edited.chosen is not None and METHODS[setting.method].basis == "SAE":
            selected[setting] = count_by_block(editor, edited.chosen[0])
    selected |= _untrained_selection(editor, ready, {untrained_of(setting) for setting in selected})
    kept = [place for place in range(len(ready.cases)) if place not in broken]
    failed |= {ready.cases[place].id: why for place, why in broken.items()}

    def lists(table: dict) -> dict:
        return {json.dumps(key): {name: of[kept].tolist() for name, of in each.items()} for key, each in table.items()}

    return {
        "ids": [ready.cases[place].id for place in kept],
        "categories": [ready.cases[place].category for place in kept],
        "failed": failed,
        "specks": specks,
        "scores": lists(told),
        "selected": lists(selected),
    }


def count_by_block(editor: Editor, chosen: Bool[Tensor, "cases all_features"]) -> dict[str, Float[Tensor, " cases"]]:
    """Of some features marked case by case, how many are of each block."""
    parts = chosen.split([editor.bases["SAE"].saes[block].n_f for block in editor.blocks], 1)
    return {block: part.sum(1).float() for block, part in zip(editor.blocks, parts, strict=True)}


def _untrained_selection(editor: Editor, ready: Prepared, settings: set[Setting]) -> dict:
    """`Sweep.selected` of untrained SAEs."""
    if not settings:
        return {}
    score = scores(*encode_passes(editor.bases["untrained"], ready), ready.masks)
    return {each: count_by_block(editor, select_units(score, each.units)[0]) for each in sorted(settings)}


def encode_passes(basis: Basis, ready: Prepared) -> list[dict[str, Tensor]]:
    """The units of both passes, the source's and the target's, by site."""
    return [
        {site: basis.encode(site, each.maps[site]) for site in basis.sites(each.maps)}
        for each in (ready.source, ready.target)
    ]


class Edited(NamedTuple):
    """Some cases edited at one setting."""

    pictures: Float[Tensor, "cases 3 picture_height picture_width"]
    change: Change
    chosen: tuple[Bool[Tensor, "cases all_units"], Bool[Tensor, "cases all_units"]] | None
    """The units added and taken off; None where nothing is selected."""


def edit_all(editor: Editor, ready: Prepared, settings: Sequence[Setting]) -> Iterator[tuple[Setting, Edited]]:
    """Setting by setting the edited pictures; those that differ in strength alone share everything but the drawing."""
    prompts, noise = [case.original_prompt for case in ready.cases], editor.noise_of(ready.cases)
    anywhere = {side: tuple(_shuffle(mask, noise) for mask in both) for side, both in ready.masks.items()}
    groups: dict[tuple[str, int], list[Setting]] = {}
    for setting in settings:
        groups.setdefault((setting.method, setting.units), []).append(setting)
    encoded, of_basis = None, ""
    for (name, units), same in groups.items():
        method = METHODS[name]
        basis = editor.bases[method.basis]
        if of_basis != method.basis:
            of_basis = method.basis
            encoded = encode_passes(basis, ready)
        chosen = None
        if units:
            where = anywhere if method.shuffled_masks else ready.masks
            chosen = select_units(scores(*encoded, where, method.aggregate, method.normalised, method.absolute), units)
        change = transport(basis, *encoded, chosen, ready.masks, method.subtract)
        for setting in same:
            maps = {site: setting.strength * each for site, each in change.maps.items()}
            yield setting, Edited(draw_edited(editor.pipe, prompts, editor.call, noise, maps), change, chosen)


def _shuffle(masks: Bool[Tensor, "cases side side"], seeds: Sequence[int]) -> Bool[Tensor, "cases side side"]:
    """Each case's mask with its cells in another place."""
    cells = masks[0].numel()
    order = [torch.randperm(cells, generator=torch.Generator().manual_seed(seed)) for seed in seeds]
    return masks.flatten(1).gather(1, torch.stack(order).to(masks.device)).view_as(masks)


def score_pictures(editor: Editor, ready: Prepared, pictures: Tensor) -> dict[str, Float[Tensor, " cases"]]:
    """Each case's scores of some pictures.

    distance, distance to edited: perceptual, to the pictures of the two prompts. text original, text edited: CLIP's cosine
    with the prompts; image original, image edited: with the two pictures. Pocket: success and rest, as `judge_edit` says, in the region
    that both masks cover on the coarsest grid.
    """
    told = dict(zip(("distance", "distance to edited"), ready.distances(pictures), strict=True))
    own = editor.clip.embed_images(pictures)
    told |= {name: (own * other).sum(1) for name, other in ready.near.items()}
    if editor.judge is not None:
        one, other = ready.masks[min(ready.masks)]
        region = F.interpolate((one | other)[:, None].float(), pictures.shape[-2:])[:, 0] > 0
        each = zip(ready.cases, ready.before, _judge(editor, pictures), region.cpu(), strict=True)
        done, rest = zip(*(judge_edit(*one) for one in each), strict=True)
        told |= {"success": torch.tensor(done).float(), "rest": torch.tensor(rest)}
    return told
