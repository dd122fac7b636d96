"""RIEBench's edits: what they need, how some cases are prepared and edited at several settings, and the scores."""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from diffusers import DiffusionPipeline
from jaxtyping import Bool, Float
from torch import Tensor, nn

from sae_lib.activations.denoising import CallSettings, stream_updates
from sae_lib.activations.drawing import draw_pictures
from sae_lib.activations.updates import to_vectors
from sae_lib.assets import Assets
from sae_lib.editing.bases import Basis, Neurons, PrincipalComponents, SAEFeatures, WholeUpdate
from sae_lib.editing.cases import Case
from sae_lib.editing.masks import CaseMasks, Finder, load_finder, masks_of_cases
from sae_lib.editing.settings import METHODS, REFERENCES, Setting, edited_kind, untrained_of
from sae_lib.editing.transport import Change, Masks, Pass, draw_edited, run_pass, scores, select_units, transport
from sae_lib.features.injection import encode_tokens, inject_tokens
from sae_lib.judges.attributes import judge_edit
from sae_lib.judges.clip import SCORES, Clip, load_clip
from sae_lib.judges.perceptual import LPIPS, Distances, EncoderDistance
from sae_lib.models.blocks import AUTHORS_ORDER
from sae_lib.saes.controls import PCA, untrained


class Editor(NamedTuple):
    """All that a sweep needs."""

    pipe: DiffusionPipeline
    blocks: tuple[str, ...]
    """The blocks whose units are moved, in the order of selection."""
    call: CallSettings
    """Its seed is 0: a case's generator is seeded with `seed` and the case's own number."""
    bases: Mapping[str, Basis]
    """By the names of `Method.basis`."""
    finder: Finder
    distance: LPIPS | EncoderDistance
    clip: Clip
    judge: nn.Module | None
    """What sees attributes in pictures; there is one in the pocket world only."""
    seed: int
    """Seed of the noise (the authors: 42 for all cases) and of the shuffled masks."""
    at_once: int
    """Number of cases whose passes are kept at the same time; no result depends on it."""
    dilate: bool
    """Whether masks are blurred before they are put on the grid; see `masks.to_grid`."""

    def noise_of(self, cases: Sequence[Case]) -> list[int]:
        """The number of each case's noise."""
        return [self.seed + case.noise for case in cases]


class Prepared(NamedTuple):
    """Some cases, with everything about them that no setting changes."""

    cases: list[Case]
    source: Pass
    """The passes of the edit prompts."""
    target: Pass
    """The passes of the original prompts, which are edited."""
    masks: Masks
    """The cases' masks on the grids of the editor's blocks."""
    near: dict[str, Float[Tensor, "cases dimensions"]]
    """By the name of the score, the embeddings that CLIP compares a picture with."""
    distances: Distances
    """Perceptual distances to the original pictures and to those of the edit prompts."""
    before: list
    """What the judge sees in the original pictures; empty without a judge."""

    @property
    def finest(self) -> int:
        """Side of the finest grid."""
        return max(self.masks)


def prepare(editor: Editor, cases: Sequence[Case], neurons: bool = True) -> tuple[Prepared | None, dict[str, str], int]:
    """Runs both passes of some cases and makes their masks.

    Returns the cases that have masks, or None if there are none; by id, why a case has no masks; and the number of
    specks (`CaseMasks.specks`). neurons: whether the passes keep them.
    """
    call, noise = editor.call, editor.noise_of(cases)
    source = run_pass(editor.pipe, [case.editing_prompt for case in cases], call, noise, editor.blocks, neurons)
    target = run_pass(editor.pipe, [case.original_prompt for case in cases], call, noise, editor.blocks, neurons)
    sides = sorted({target.maps[block].shape[-1] for block in editor.blocks})
    made = masks_of_cases(cases, editor.finder, source.pictures, target.pictures, sides, editor.dilate)
    failed = {case.id: why for case, why in zip(cases, made, strict=True) if isinstance(why, str)}
    kept = [place for place, masks in enumerate(made) if not isinstance(masks, str)]
    if not kept:
        return None, failed, 0
    cases, made = ([of[place] for place in kept] for of in (cases, made))
    if failed:
        source, target = (
            Pass(run.pictures[kept], {site: maps[:, kept] for site, maps in run.maps.items()})
            for run in (source, target)
        )
    masks = stack_masks(made, editor.pipe._execution_device)
    near = {
        "text original": editor.clip.embed_texts([case.original_prompt for case in cases]),
        "text edited": editor.clip.embed_texts([case.editing_prompt for case in cases]),
        "image original": editor.clip.embed_images(target.pictures),
        "image edited": editor.clip.embed_images(source.pictures),
    }
    distances = editor.distance.against(target.pictures, source.pictures)
    before = _judge(editor, target.pictures)
    return (
        Prepared(cases, source, target, masks, near, distances, before),
        failed,
        sum(case_masks.specks for case_masks in made),
    )


def stack_masks(masks: Sequence[CaseMasks], device: str | torch.device = "cpu") -> Masks:
    """The masks of some cases, stacked per grid and side of the edit."""
    return {
        side: tuple(torch.stack([of_case.cells[side][which] for of_case in masks]).to(device) for which in (0, 1))
        for side in masks[0].cells
    }


def draw_injected_edit(editor: Editor, cases: Sequence[Case]) -> Float[Tensor, "cases 3 picture_height picture_width"]:
    """Pictures of the original prompts, while the editor's blocks read the edit prompts' tokens (INJECTION)."""
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


def edit_cases(cases: Sequence[Case], editor: Editor, settings: Sequence[Setting]) -> dict:
    """The sweep over some cases, in the form of its file."""
    neurons = any(METHODS[setting.method].basis == "neurons" for setting in settings)
    ready, failed, specks = prepare(editor, cases, neurons)
    if ready is None:
        return {"ids": [], "categories": [], "failed": failed, "specks": 0, "scores": {}, "selected": {}}
    scored, selected, broken = {}, {}, {}
    injected = draw_injected_edit(editor, ready.cases)
    references = zip(REFERENCES, (ready.target.pictures, ready.source.pictures, injected), strict=True)
    for setting, pictures in references:
        scored[setting] = score_pictures(editor, ready, pictures)
    for setting, edited in edit_all(editor, ready, settings):
        for place in (~edited.pictures.flatten(1).isfinite().all(1)).nonzero().flatten().tolist():
            broken.setdefault(place, f"no finite picture by {setting}")
        scored[setting] = score_pictures(editor, ready, edited.pictures.nan_to_num())
        scored[setting] |= {"units": edited.change.active_units, "numbers": edited.change.numbers}
        if edited.chosen is not None and METHODS[setting.method].basis == "SAE":
            selected[setting] = count_by_block(editor, edited.chosen[0])
    selected |= _untrained_selection(editor, ready, {untrained_of(setting) for setting in selected})
    kept = [place for place in range(len(ready.cases)) if place not in broken]
    failed |= {ready.cases[place].id: why for place, why in broken.items()}

    def lists(table: dict) -> dict:
        return {json.dumps(key): {name: of[kept].tolist() for name, of in row.items()} for key, row in table.items()}

    return {
        "ids": [ready.cases[place].id for place in kept],
        "categories": [ready.cases[place].category for place in kept],
        "failed": failed,
        "specks": specks,
        "scores": lists(scored),
        "selected": lists(selected),
    }


def count_by_block(editor: Editor, chosen: Bool[Tensor, "cases all_features"]) -> dict[str, Float[Tensor, " cases"]]:
    """How many of the features chosen in each case belong to each block."""
    parts = chosen.split([editor.bases["SAE"].saes[block].n_f for block in editor.blocks], 1)
    return {block: part.sum(1).float() for block, part in zip(editor.blocks, parts, strict=True)}


def _untrained_selection(editor: Editor, ready: Prepared, settings: set[Setting]) -> dict:
    """By setting, how many features of each block are selected from untrained SAEs; see `Sweep.selected`."""
    if not settings:
        return {}
    score = scores(*encode_passes(editor.bases["untrained"], ready), ready.masks)
    return {setting: count_by_block(editor, select_units(score, setting.units)[0]) for setting in sorted(settings)}


def encode_passes(basis: Basis, ready: Prepared) -> list[dict[str, Tensor]]:
    """By site, the units of the source's pass and of the target's."""
    return [
        {site: basis.encode(site, run.maps[site]) for site in basis.sites(run.maps)}
        for run in (ready.source, ready.target)
    ]


class Edited(NamedTuple):
    """Some cases edited at one setting."""

    pictures: Float[Tensor, "cases 3 picture_height picture_width"]
    change: Change
    chosen: tuple[Bool[Tensor, "cases all_units"], Bool[Tensor, "cases all_units"]] | None
    """The units that are added and those that are subtracted; None where none are selected."""


def edit_all(editor: Editor, ready: Prepared, settings: Sequence[Setting]) -> Iterator[tuple[Setting, Edited]]:
    """Edits the cases at each setting; settings that differ only in strength share everything but the drawing."""
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
            maps = {site: setting.strength * added for site, added in change.maps.items()}
            yield setting, Edited(draw_edited(editor.pipe, prompts, editor.call, noise, maps), change, chosen)


def _shuffle(masks: Bool[Tensor, "cases side side"], seeds: Sequence[int]) -> Bool[Tensor, "cases side side"]:
    """Each case's mask with its cells in random other places."""
    cells = masks[0].numel()
    order = [torch.randperm(cells, generator=torch.Generator().manual_seed(seed)) for seed in seeds]
    return masks.flatten(1).gather(1, torch.stack(order).to(masks.device)).view_as(masks)


def score_pictures(editor: Editor, ready: Prepared, pictures: Tensor) -> dict[str, Float[Tensor, " cases"]]:
    """The scores of each case's picture, by name.

    distance, distance to edited: perceptual, to the pictures of the two prompts. text original, text edited: CLIP's
    cosine with the two prompts. image original, image edited: CLIP's cosine with their pictures. success, rest (in the
    pocket world): see `judge_edit`, in the region that the two masks cover together on the coarsest grid.
    """
    by_name = dict(zip(("distance", "distance to edited"), ready.distances(pictures), strict=True))
    own = editor.clip.embed_images(pictures)
    by_name |= {name: (own * other).sum(1) for name, other in ready.near.items()}
    if editor.judge is not None:
        one, other = ready.masks[min(ready.masks)]
        region = F.interpolate((one | other)[:, None].float(), pictures.shape[-2:])[:, 0] > 0
        edits = zip(ready.cases, ready.before, _judge(editor, pictures), region.cpu(), strict=True)
        done, rest = zip(*(judge_edit(*edit) for edit in edits), strict=True)
        by_name |= {"success": torch.tensor(done).float(), "rest": torch.tensor(rest)}
    return by_name


PCA_PROMPTS = 256
"""Number of training prompts that the principal components are fitted on."""


def load_editor(assets: Assets, seed: int = 42, batch: int = 0, dilate: bool = True) -> Editor:
    """Four-step Turbo with the SAEs that keep an eighth of the width (paper: k = 160), the neurons and the controls.

    Of FLUX the paper has one SAE (k = 20): four-step FLUX with that of each block.

    Units of the assets' blocks are moved, in the order of the assets, or in the authors' order if these are the paper's
    four. seed: of the noise (the authors' 42) and of the random features. batch: number of cases at a time, 0 for the
    scale's; at sdxl scale the neurons of a case take 0.8 GB per pass. Raises what the assets' loaders raise.
    """
    pipe, loaded = assets.pipe(), assets.saes(edited_kind(assets))
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
        load_finder(assets.scale, assets.rehearsal, pipe._execution_device),
        assets.distance,
        load_clip(assets.scale, assets.clip_source or SCORES, pipe._execution_device),
        assets.judge if assets.known else None,
        seed,
        batch or (20 if assets.scale != "sdxl" else 2),
        dilate,
    )


class _Bases(dict[str, Basis]):
    """Bases by the names of `Method.basis`, made when first asked for: principal components need a run of the model."""

    def __init__(self, makers: Mapping[str, Callable[[], Basis]]):
        super().__init__()
        self._makers = makers

    def __missing__(self, name: str) -> Basis:
        self[name] = self._makers[name]()
        return self[name]


def fit_components(assets: Assets, blocks: Sequence[str], seed: int) -> PrincipalComponents:
    """Fits all principal components of the blocks' one-step updates."""
    prompts = assets.prompts(min(PCA_PROMPTS, assets.counts.train_prompts), "train")
    call = CallSettings(1, 0.0, seed, assets.counts.harvest_batch)
    stream = ({b: to_vectors(u[b]) for b in blocks} for _, u in stream_updates(assets.pipe(), prompts, blocks, call))
    fits = PCA.fit_blocks(stream, {block: sae.d_model for block, sae in assets.saes(edited_kind(assets)).items()})
    means = {block: fits[block].mean for block in blocks}
    return PrincipalComponents(means, {block: fits[block].components.T for block in blocks})
