"""What PocketBench measures of an SAE whose features are compared with a known truth.

Every measure is given for all pictures of the scored half and then with each group of them left out
(`features.meaning.leave_out`): `scene_samples` makes an interval of these replicates. What is fitted or chosen (probes,
a value's best unit, a threshold) is fitted in the matched half, which no replicate leaves anything out of.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from sae_lib.features.meaning import (
    TINY,
    Meaning,
    expected_scores,
    leave_out,
    match_dictionaries,
    reading_scores,
    resample_precision,
    sparse_probes,
)
from sae_lib.judges.attributes import Truth, attribute_values
from sae_lib.judges.intervals import bootstrap
from sae_lib.pocket.world import OBJECT_ATTRIBUTES
from sae_lib.saes.controls import Reconstructor
from sae_lib.saes.metrics import explained_variance

SIZES = (1, 2, 5, 16)
"""Units that a probe may use."""
ERASED = 5
"""Units of a value's probe that are taken out when the value is erased; one of SIZES."""
OTHERS = 5
"""Values of other attributes, drawn at random, on which is seen what an erasure takes along."""
ENOUGH = 40
"""Cells with and without the second value that an exception needs, to be looked for."""
SHUFFLES = 20
"""Random pairings by which an exception's chance is measured."""

Replicates = Float[Tensor, " replicates"]
"""A number with all pictures, then without each group of them."""


class Halves(NamedTuple):
    """The same thing in the matched and in the scored half of the pictures."""

    matched: Float[Tensor, "matched cells width"]
    scored: Float[Tensor, "scored cells width"]


class Truths(NamedTuple):
    """What is true in the two halves."""

    matched: Truth
    scored: Truth


def by_group(pictures: int, measure: Callable[[Bool[Tensor, " pictures"]], float]) -> Replicates:
    """A measure of all pictures, then without each group: `measure` gets which pictures take part."""
    return torch.tensor([measure(kept) for kept in leave_out(pictures).bool()], dtype=torch.float64)


def reconstruction(sae: Reconstructor, x: Float[Tensor, "pictures cells d_model"]) -> dict[str, Replicates]:
    """How well the updates are rebuilt, by how many units per cell, and which share of the units never fires.

    "explained variance" is the authors' (each dimension counts alike), "total variance explained" is 1 - FVU.
    """
    pieces = [part.float() for part in x.split(64)]
    codes = [sae.encode(piece) for piece in pieces]
    error = torch.cat([piece - sae.decode(code) for piece, code in zip(pieces, codes, strict=True)])
    x = torch.cat(pieces)
    l0 = torch.cat([(code != 0).float().sum(-1).mean(1) for code in codes])
    fired = torch.cat([(code != 0).any(1) for code in codes])

    def total(kept: Bool[Tensor, " pictures"]) -> float:
        spread, rest = (rows[kept].flatten(0, 1).double().var(0, correction=0).sum() for rows in (x, error))
        return (1 - rest / spread.clamp(min=TINY)).item()

    def each(kept: Bool[Tensor, " pictures"]) -> float:
        rows = x[kept].flatten(0, 1)
        return explained_variance(rows, rows - error[kept].flatten(0, 1))

    return {
        "explained variance": by_group(len(x), each),
        "total variance explained": by_group(len(x), total),
        "L0": by_group(len(x), lambda kept: l0[kept].double().mean().item()),
        "dead share": by_group(len(x), lambda kept: (~fired[kept].any(0)).double().mean().item()),
    }


def probing(codes: Halves, truths: Truths, probes: Float[Tensor, "sizes units values"]) -> dict[str, Replicates]:
    """How well `sparse_probes` of each of SIZES read a value in the scored half, mean over the values (0 is chance)."""
    eye, weights = torch.eye(probes.shape[-1]), leave_out(len(codes.scored))
    return {
        f"reads with {size}": expected_scores(codes.scored @ probe, eye, truths.scored, weights).mean(0)
        for size, probe in zip(SIZES, probes, strict=True)
    }


def linear_reading(read: Float[Tensor, "pictures cells values"], truth: Truth) -> Replicates:
    """How well directions read their values, mean over the values: with `linear_probe` the ceiling of `probing`."""
    return expected_scores(read, torch.eye(read.shape[-1]), truth, leave_out(len(read))).mean(0)


def erasure(
    codes: Float[Tensor, "pictures cells units"],
    columns: Float[Tensor, "d_model units"],
    read: Float[Tensor, "pictures cells values"],
    direction: Float[Tensor, "d_model values"],
    probe: Float[Tensor, "units values"],
    truth: Truth,
    seed: int = 0,
) -> dict[str, Replicates]:
    """What is lost of each value when the units of its sparse probe are taken out of the update, by the linear probe.

    read: the updates' products with the linear probe's `direction`. columns: the decoder's. A value's own loss should
    be large and the loss of OTHERS values of other attributes small (targeted probe perturbation, as in SAEBench).
    """
    names, weights, toward = [name for name, _ in attribute_values()], leave_out(len(codes)), columns.T @ direction
    before = expected_scores(read, torch.eye(len(names)), truth, weights)
    own, others, generator = [], [], torch.Generator().manual_seed(seed)
    for value, chosen in enumerate(units.nonzero().flatten() for units in probe.T):
        without = read - codes[..., chosen] @ toward[chosen]
        elsewhere = torch.tensor([other for other, name in enumerate(names) if name != names[value]])
        drawn = elsewhere[torch.randperm(len(elsewhere), generator=generator)[:OTHERS]]
        asked = [value, *drawn.tolist()]
        after = [
            resample_precision(without[..., i], truth.present[..., i], truth.valid[..., i], weights) for i in asked
        ]
        lost = before[asked] - torch.stack(after)
        own.append(lost[0])
        others.append(lost[1:].mean(0))
    lost, beside = torch.stack(own).mean(0), torch.stack(others).mean(0)
    return {"erases": lost, "erases beside": beside}


class Tables(NamedTuple):
    """How well each unit reads each value in the two halves (`reading_scores`)."""

    matched: Float[Tensor, "units values"]
    scored: Float[Tensor, "units values"]


def read_units(codes: Halves, truths: Truths) -> Tables:
    """The `reading_scores` of all units."""
    return Tables(*(reading_scores(of, truth) for of, truth in zip(codes, truths, strict=True)))


def use(codes: Halves, truths: Truths, found: Meaning, needed: Float[Tensor, " values"]) -> dict[str, Replicates]:
    """Which units mean something: they read their value better than is `needed` for it.

    "use": their share of all units. "coverage": the share of the values that one of them means. "features per value":
    how many of them share such a value (1 is no splitting, 0 says that there are none).
    """
    shown, weights, values = truths.scored, leave_out(len(codes.scored)), len(attribute_values())
    scored = [
        resample_precision(unit, shown.present[..., value], shown.valid[..., value], weights)
        for unit, value in zip(codes.scored.unbind(-1), found.value.tolist(), strict=True)
    ]
    means = (torch.stack(scored, 1) > needed[found.value]).double()
    hits = torch.zeros(len(means), values, dtype=torch.float64).index_add_(1, found.value, means)
    covered = (hits > 0).sum(1).double()
    return {
        "use": means.mean(1),
        "coverage": covered / values,
        "features per value": hits.sum(1) / covered.clamp(min=1),
    }


class Hole(NamedTuple):
    """The second value in whose presence a value's best unit is silent most often."""

    value: int
    partner: int
    unit: int
    depth: Replicates
    """How much less often it fires there than elsewhere, minus the same by chance."""


def absorption(
    codes: Halves,
    truths: Truths,
    tables: Tables,
    needed: Float[Tensor, " values"],
    enough: int = ENOUGH,
    seed: int = 0,
) -> tuple[Replicates | None, list[Hole]]:
    """Does a value vanish where another one shows: is the unit of "star" silent in red stars?

    For each value of objects, and its best unit (by `tables`, from `read_units`, in the matched half, at the threshold
    of best F1 there), the deepest `hole`. Only of values that this unit reads as well as is `needed` in the scored
    half, and that some other value splits into `enough` cells with and without. The mean over these values, None if
    there are none.
    """
    names = [name for name, _ in attribute_values()]
    best = tables.matched.argmax(0)
    reads = tables.scored[best, torch.arange(len(names))] > needed
    mine = [value for value, name in enumerate(names) if name in OBJECT_ATTRIBUTES and name != "position"]
    generator, holes = torch.Generator().manual_seed(seed), []
    shown, valid = truths.scored.present & truths.scored.valid, truths.scored.valid
    for value in (value for value in mine if reads[value]):
        unit = best[value].item()
        cut = best_threshold(codes.matched[..., unit], truths.matched, value)
        fires, here = codes.scored[..., unit] > cut, shown[..., value]
        partners = [other for other in mine if names[other] != names[value]]
        found = hole(fires, here, shown[..., partners], valid[..., partners], enough, generator)
        if found is not None:
            holes.append(Hole(value, partners[found[0]], unit, found[1]))
    return torch.stack([one.depth for one in holes]).mean(0) if holes else None, holes


def hole(
    fires: Bool[Tensor, "pictures cells"],
    here: Bool[Tensor, "pictures cells"],
    partner: Bool[Tensor, "pictures cells partners"],
    known: Bool[Tensor, "pictures cells partners"],
    enough: int,
    generator: torch.Generator,
) -> tuple[int, Replicates] | None:
    """The partner in whose presence a unit misses most of the cells that it should fire in, and how deep the hole is.

        depth = recall where the partner is not - recall where it is,   recall: share of the cells `here` that fire

    minus the mean of the same over SHUFFLES random pairings, in which each picture gets another's share of firing
    cells. known: where it can be said whether the partner is there. None if the unit fires nowhere `here`, or no
    partner splits `here` into `enough` cells each.
    """
    with_it = (here[..., None] & partner & known).sum(1).double()  # [pictures, partners]
    without = (here[..., None] & ~partner & known).sum(1).double()
    eligible = ((with_it.sum(0) >= enough) & (without.sum(0) >= enough)).nonzero().flatten()
    weights = leave_out(len(here)).double()
    if not len(eligible) or not (fires & here).any():
        return None
    with_it, without = with_it[:, eligible], without[:, eligible]
    hit = (fires & here)[..., None] & known[..., eligible]
    hits = (hit & partner[..., eligible]).sum(1).double(), (hit & ~partner[..., eligible]).sum(1).double()

    def depths(hits_with: Tensor, hits_without: Tensor) -> Float[Tensor, "replicates partners"]:
        recall = [weights @ h / (weights @ n).clamp(min=1) for h, n in ((hits_with, with_it), (hits_without, without))]
        return recall[1] - recall[0]

    found, pictures = depths(*hits), here.any(1).nonzero().flatten()
    deepest = int(found[0].argmax())
    share = (fires & here).sum(1).double() / here.sum(1).clamp(min=1)
    by_chance = []
    for _ in range(SHUFFLES):
        mixed = share.clone()
        mixed[pictures] = share[pictures[torch.randperm(len(pictures), generator=generator)]]
        by_chance.append(depths(with_it * mixed[:, None], without * mixed[:, None]).amax(1))
    return int(eligible[deepest]), found[:, deepest] - torch.stack(by_chance).mean(0)


def best_threshold(activation: Float[Tensor, "pictures cells"], truth: Truth, value: int) -> float:
    """The activation above which a unit says the value with the best F1 (twice the hits over hits, misses and false
    alarms); never below 0. Infinite for a unit that never fires where the value can be told."""
    asked = truth.valid[..., value].flatten()
    activation, here = activation.flatten()[asked], truth.present[..., value].flatten()[asked].double()
    order = activation.argsort(descending=True, stable=True)
    ranked, hits = activation[order], here[order].cumsum(0)
    f1 = 2 * hits / (torch.arange(1, len(ranked) + 1) + here.sum())
    last = torch.cat([ranked[1:] != ranked[:-1], torch.ones(min(1, len(ranked)), dtype=torch.bool)])
    f1[~last | (ranked <= 0)] = -1
    if not len(f1) or f1.max() < 0:
        return float("inf")
    place = int(f1.argmax())
    below = ranked[place + 1 :].amax().item() if place + 1 < len(ranked) else 0.0
    return max(0.0, (ranked[place].item() + max(0.0, below)) / 2)


def stability(
    columns: Sequence[Float[Tensor, "d_model units"]], rate: Float[Tensor, " units"]
) -> dict[str, Float[Tensor, " samples"]]:
    """How far the first SAE's live features are found again in others of the same recipe (other seeds).

    Mean cosine with the one-to-one partner, of the live units and of the thirds that fire least and most: frequent
    features are found again more easily, so compare SAEs at equal rate (arXiv:2605.18229). Samples are over features.
    """
    found = torch.stack([match_dictionaries(columns[0], other)[1] for other in columns[1:]]).mean(0)
    live = (rate > 0).nonzero().flatten()
    ranked = live[rate[live].argsort(stable=True)]
    third = max(2, len(ranked) // 3)
    parts = {"stability": ranked, "stability, rare": ranked[:third], "stability, frequent": ranked[-third:]}
    return {name: bootstrap(found[units].double()) for name, units in parts.items() if len(units) > 1}


def probe_units(codes: Halves, truths: Truths) -> Float[Tensor, "sizes units values"]:
    """`sparse_probes` of all SIZES, fitted in the matched half."""
    return sparse_probes(codes.matched, truths.matched, SIZES)
