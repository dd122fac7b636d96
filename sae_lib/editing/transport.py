"""Editing by transport: what one pass computed in a region is put into another pass (paper: eqs 8 and 9, RIEBench).

Everything is linear in *units* of a basis: SAE features, neurons, principal components, or the update itself.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
from diffusers import DiffusionPipeline
from jaxtyping import Bool, Float
from torch import Tensor

from sae_lib.activations.denoising import CallSettings
from sae_lib.activations.drawing import draw_pictures
from sae_lib.activations.steps import Step
from sae_lib.activations.updates import capture_updates
from sae_lib.editing.bases import Basis, Maps, Units
from sae_lib.features.interventions import Intervention, intervene
from sae_lib.models.blocks import as_list, feed_forwards

Masks = Mapping[int, tuple[Bool[Tensor, "cases side side"], Bool[Tensor, "cases side side"]]]
"""By the side of a block's grid: where source units are read and added; where target units are subtracted."""


class Pass(NamedTuple):
    """What one pass of some prompts computed."""

    pictures: Float[Tensor, "cases 3 height width"]
    maps: dict[str, Float[Tensor, "steps cases channels height width"]]
    """By site: a block's updates, or what comes out of the GEGLU of one of its transformer layers."""


def run_pass(
    pipe: DiffusionPipeline,
    prompts: str | Sequence[str],
    settings: CallSettings,
    indices: Sequence[int],
    blocks: str | Sequence[str],
    neurons: bool = False,
) -> Pass:
    """Draws the prompts and keeps the blocks' updates and, if asked, all their neurons, at every step.

    indices: the numbers of the noise, which the two passes of a case share. blocks: in the order of selection; they may
    differ in grid and width. Raises what `draw_pictures` raises, and ValueError for an unknown block.
    """
    prompts, blocks = as_list(prompts), as_list(blocks)
    kept: dict[str, list[Tensor]] = {site: [] for site in feed_forwards(pipe, blocks)} if neurons else {}
    updates_of: dict[str, list[Tensor]] = {block: [] for block in blocks}
    parts = []

    def keep(site: str) -> Intervention:
        def record(_input: Tensor, output: Tensor, _at: Step) -> Tensor:
            step.setdefault(site, []).append(output.detach())
            return output

        return record

    for start in range(0, len(prompts), settings.batch_size):
        at, step = slice(start, start + settings.batch_size), {}
        with capture_updates(pipe, blocks) as updates, intervene(pipe, {site: keep(site) for site in kept}):
            parts.append(draw_pictures(pipe, prompts[at], settings, indices[at]))
        for block in blocks:
            updates_of[block].append(updates[block])
        for site, outputs in step.items():
            grid = updates_of[site.partition("/")[0]][-1].shape[-2:]
            kept[site].append(torch.stack(outputs).unflatten(2, grid).movedim(-1, 2))
    maps = {site: torch.cat(batches, 1).float() for site, batches in (updates_of | kept).items()}
    return Pass(torch.cat(parts), maps)


def scores(
    source: Mapping[str, Units],
    target: Mapping[str, Units],
    masks: Masks,
    aggregate: str = "first",
    normalised: bool = False,
    absolute: bool = False,
) -> Float[Tensor, "cases all_units"]:
    """How much larger a unit's share of the activity is in the source's region than in the target's (eq. 8).

        score_rho = mu_rho(source) / sum of mu(source) - mu_rho(target) / sum of mu(target)
        mu = mean over the region's positions on the site's grid, and over steps

    The units of all sites stand in a row. aggregate: the steps of mu, "first" is step 0, "mean" all steps. normalised:
    each unit is first divided, step by step, by its L2 norm over the region (eq. 9, neurons). absolute: the sums are of
    |mu|. Neurons have both signs: their plain sum (authors' code) nearly cancels, and a sum below 0 reverses the order.
    For features, which are never below 0, both sums are the same. A region where nothing is active counts as 0.

    Raises ValueError for another aggregate.
    """
    if aggregate not in ("first", "mean"):
        raise ValueError(f"unknown aggregate {aggregate!r}; choose 'first' or 'mean'")
    shares = []
    for which, units in enumerate((source, target)):
        means = []
        for activity in units.values():
            mask = masks[activity.shape[-1]][which]
            inside = (activity[:1] if aggregate == "first" else activity) * mask[None, :, None]
            if normalised:
                inside = inside / inside.square().sum((-2, -1), keepdim=True).sqrt().clamp(min=1e-12)
            means.append(inside.sum((-2, -1)).mean(0) / mask.sum((-2, -1))[:, None])
        mu = torch.cat(means, 1)
        total = (mu.abs() if absolute else mu).sum(1, keepdim=True)
        shares.append(torch.where(total == 0, 0, mu / total))
    return shares[0] - shares[1]


def select_units(score: Float[Tensor, "cases all_units"], k: int) -> tuple[Tensor, Tensor]:
    """Per case, the k units with the highest score, which are added, and the k with the lowest, which are subtracted.

    Raises ValueError if k is more than there are units.
    """
    if not 1 <= k <= score.shape[1]:
        raise ValueError(f"{k} units were asked for and there are {score.shape[1]}")
    order = score.argsort(dim=1, descending=True, stable=True)
    empty = torch.zeros_like(score, dtype=torch.bool)
    return empty.scatter(1, order[:, :k], True), empty.scatter(1, order[:, -k:], True)


class Change(NamedTuple):
    """What an edit adds to the passes of some cases, and how many numbers it is made of."""

    maps: dict[str, Float[Tensor, "steps cases channels height width"]]
    """By site, what is added at strength 1."""
    active_units: Float[Tensor, " cases"]
    """Number of selected units, added and subtracted, that are not zero everywhere in the region."""
    numbers: Float[Tensor, " cases"]
    """Number of coefficients that are not zero, over units, positions and steps."""


def transport(
    basis: Basis,
    source: Mapping[str, Units],
    target: Mapping[str, Units],
    chosen: tuple[Bool[Tensor, "cases all_units"], Bool[Tensor, "cases all_units"]] | None,
    masks: Masks,
    subtract: bool = True,
) -> Change:
    """The change of an edit: adds chosen source units in the source's region, subtracts chosen target units in the
    target's (authors' code).

        change = sum over chosen source units of F_src f in mask 1 - sum over chosen target units of F_tgt f in mask 2

    chosen: None for all units (steering). subtract: False leaves out the second sum, as for the results of v3 and v4.
    """
    changed: dict[str, Tensor] = {}
    cases = len(next(iter(masks.values()))[0])
    active, numbers = torch.zeros(cases), torch.zeros(cases)
    for which, units in enumerate((source, target)[: 1 + subtract]):
        start = 0
        for site, activity in units.items():
            mask = masks[activity.shape[-1]][which]
            inside = activity * mask[None, :, None]
            if chosen is not None:
                inside = inside * chosen[which][None, :, start : start + activity.shape[2], None, None]
            start += activity.shape[2]
            nonzero = inside != 0
            active += nonzero.any(-1).any(-1).any(0).sum(1).cpu()
            numbers += nonzero.sum((0, 2, 3, 4)).cpu()
            part = basis.decode(site, inside)
            changed[site] = part if which == 0 else changed[site] - part
    return Change(changed, active, numbers)


def draw_edited(
    pipe: DiffusionPipeline,
    prompts: str | Sequence[str],
    settings: CallSettings,
    indices: Sequence[int],
    change: Mapping[str, Maps],
) -> Float[Tensor, "cases 3 picture_height picture_width"]:
    """Pictures of the prompts with a change added at every step; the noise is that of `run_pass`."""
    prompts, parts = as_list(prompts), []
    for start in range(0, len(prompts), settings.batch_size):
        at = slice(start, start + settings.batch_size)
        with intervene(pipe, {site: _add(maps[:, at]) for site, maps in change.items()}):
            parts.append(draw_pictures(pipe, prompts[at], settings, indices[at]))
    return torch.cat(parts)


def _add(maps: Maps) -> Intervention:
    def fn(_input: Tensor, output: Tensor, at: Step) -> Tensor:
        added = maps[at.index].to(output.device)
        if output.ndim == 3:  # a layer of the transformer: [cases, positions, width]
            added = added.flatten(2).mT
        return output.to(added.dtype) + added

    return fn
