"""RIEBench's sweep: every method at every setting on exactly the same cases, each case's scores kept under its id."""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor, nn

from sae_lib.activations.denoising import CallSettings, stream_updates
from sae_lib.activations.drawing import draw_pictures
from sae_lib.activations.updates import to_vectors
from sae_lib.assets import Assets
from sae_lib.editing.bases import Basis, Neurons, PrincipalComponents, SAEFeatures, WholeUpdate
from sae_lib.editing.cases import Case
from sae_lib.editing.masks import CaseMasks, Finder, load_finder, masks_of_cases
from sae_lib.editing.settings import METHODS, REFERENCES, Setting, untrained_of
from sae_lib.editing.transport import Change, Masks, Pass, draw_edited, run_pass, scores, select_units, transport
from sae_lib.features.injection import encode_tokens, inject_tokens
from sae_lib.judges.attributes import judge_edit
from sae_lib.judges.clip import SCORES, Clip, load_clip
from sae_lib.judges.perceptual import LPIPS, Distances, EncoderDistance
from sae_lib.models.blocks import AUTHORS_ORDER
from sae_lib.saes.controls import PCA, untrained


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
    """The original prompts' pictures while the editor's blocks read the edit prompts' tokens,
    everywhere: see INJECTION."""
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

    distance, distance to edited: perceptual, to the pictures of the two prompts. text original, text edited: CLIP's
    cosine with the prompts; image original, image edited: with the two pictures. Pocket: success and rest, as
    `judge_edit` says, in the region that both masks cover on the coarsest grid.
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


PCA_PROMPTS = 256
"""Training prompts that the principal components are fitted on."""


def load_editor(assets: Assets, seed: int = 42, batch: int = 0, dilate: bool = True) -> Editor:
    """Four-step Turbo with SAEs of an eighth of their width kept (paper: k = 160), the neurons,
    and the controls' bases.

    Units of the assets' blocks are moved, in the order of the assets; of the paper's four in the authors' order. seed:
    of the noise (the authors' 42) and of the random features. batch: cases at a time, 0 for the scale's; the neurons of
    one take 0.8 GB per pass at sdxl scale. Raises what the assets' loaders raise.
    """
    pipe, loaded = assets.pipe(), assets.saes("transfer")
    blocks = AUTHORS_ORDER if set(assets.blocks) == set(AUTHORS_ORDER) else assets.blocks
    saes = {block: loaded[block] for block in blocks}
    bases = {
        "SAE": lambda: SAEFeatures(saes),
        "neurons": Neurons,
        "update": WholeUpdate,
        "PCA": lambda: fit_components(assets, blocks, seed),
        "random": lambda: SAEFeatures.random(saes, seed),
        "untrained": lambda: SAEFeatures({block: untrained(sae, seed) for block, sae in saes.items()}),
    }
    return Editor(
        pipe,
        blocks,
        CallSettings(4, 0.0, 0, assets.counts.transfer_batch),
        _Bases(bases),
        load_finder(assets.scale, assets.rehearsal, pipe.device),
        assets.distance,
        load_clip(assets.scale, assets.clip_source or SCORES, pipe.device),
        assets.judge if assets.known else None,
        seed,
        batch or (20 if assets.scale != "sdxl" else 2),
        dilate,
    )


class _Bases(dict[str, Basis]):
    """By the names of `Method.basis`, each made when first asked for: principal components take a run of the model."""

    def __init__(self, makers: Mapping[str, Callable[[], Basis]]):
        super().__init__()
        self._makers = makers

    def __missing__(self, name: str) -> Basis:
        self[name] = self._makers[name]()
        return self[name]


def fit_components(assets: Assets, blocks: Sequence[str], seed: int) -> PrincipalComponents:
    """All principal components of the blocks' one-step updates."""
    prompts = assets.prompts(min(PCA_PROMPTS, assets.counts.train_prompts), "train")
    call = CallSettings(1, 0.0, seed, assets.counts.harvest_batch)
    stream = ({b: to_vectors(u[b]) for b in blocks} for _, u in stream_updates(assets.pipe(), prompts, blocks, call))
    fits = PCA.fit_blocks(stream, {block: sae.d_model for block, sae in assets.saes("transfer").items()})
    means = {block: fits[block].mean for block in blocks}
    return PrincipalComponents(means, {block: fits[block].components.T for block in blocks})
