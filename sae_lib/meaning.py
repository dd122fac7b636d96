"""What units mean: how well their activation maps predict the maps of known attributes, against chance and controls.

A unit is anything with an activation at each cell of the block's grid: a feature, a neuron, a direction. The truth comes
as tensors, from wherever it is known. Reading is measured here; writing only summarised (`summarise_writing`).
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from scipy.optimize import linear_sum_assignment
from torch import Tensor

TINY = 1e-12
"""Keeps 0 / 0 at 0."""


class Truth(NamedTuple):
    """Which attribute values show at each cell, and at which cells that can be said."""

    present: Bool[Tensor, "scenes cells values"]
    valid: Bool[Tensor, "scenes cells values"]
    """False where a cell is doubtful: it counts neither as a hit nor as a miss."""

    @classmethod
    def from_shares(
        cls, families: Sequence[Float[Tensor, "scenes _ height width"]], grid: int, majority: float = 0.75
    ) -> "Truth":
        """From each attribute's values as shares of a pixel (probabilities, or 0 and 1), the values along axis 1.

        A value's share of a cell is its mean over the cell's pixels; what the values of an attribute leave to 1 is the
        share that has none of them. A cell shows the value of at least half of it. It is doubtful for the whole
        attribute where no value, nor their absence, has a share of `majority`: a border, or a judge in doubt.

        Raises ValueError unless 0.5 <= majority <= 1, and for pictures that the grid does not divide.
        """
        if not 0.5 <= majority <= 1:
            raise ValueError(f"majority is {majority}; wanted 0.5 to 1")
        present, valid = [], []
        for shares in families:
            if shares.shape[-1] % grid or shares.shape[-2] % grid:
                raise ValueError(f"pictures of {list(shares.shape[-2:])} pixels do not fall into {grid} x {grid} cells")
            cells = F.adaptive_avg_pool2d(shares.float(), grid).flatten(2).movedim(1, -1)
            none = 1 - cells.sum(-1, keepdim=True)
            sure = torch.cat([cells, none], -1).amax(-1, keepdim=True) >= majority
            present.append(cells >= 0.5)
            valid.append(sure.expand_as(cells))
        return cls(torch.cat(present, -1), torch.cat(valid, -1))

    def take(self, scenes: Int[Tensor, " taken"]) -> "Truth":
        """The truth of some scenes, in that order."""
        return Truth(self.present[scenes], self.valid[scenes])

    @property
    def base_rate(self) -> Float[Tensor, " values"]:
        """Share of the valid cells that show each value: what a unit that knows nothing scores."""
        shown = (self.present & self.valid).sum((0, 1)).double()
        return shown / self.valid.sum((0, 1)).clamp(min=1)


def average_precision(scores: Float[Tensor, "scenes cells units"], truth: Truth) -> Float[Tensor, "units values"]:
    """Average precision of every unit for every value: cells ranked by activation, area under precision over recall.

        sum over thresholds of (recall - recall before) * precision,   a threshold at each distinct activation

    Cells of equal activation pass together (scikit-learn's definition), so that the many zeros of a sparse unit are one
    threshold and not an order that is made up. 1 is perfect; the value's base rate is chance, see `above_chance`. A value
    shown by no valid cell scores 0.

    Raises ValueError for activations of another number of scenes or cells than the truth's.
    """
    return _precision(_rankings(scores, truth), truth)


def _rankings(scores: Float[Tensor, "scenes cells units"], truth: Truth) -> list[tuple[Tensor, Tensor]]:
    """`_ranking` of each unit: what does not depend on whose truth it is compared with."""
    got, wanted = list(scores.shape[:2]), list(truth.present.shape[:2])
    if got != wanted:
        raise ValueError(f"activations of {got} scenes and cells; the truth has {wanted}")
    return [_ranking(each) for each in scores.flatten(0, 1).unbind(1)]


def _precision(rankings: Sequence[tuple[Tensor, Tensor]], truth: Truth) -> Float[Tensor, "units values"]:
    hits = (truth.present & truth.valid).flatten(0, 1).float()
    asked = truth.valid.flatten(0, 1).float()
    totals = hits.sum(0), asked.sum(0)
    return torch.stack([_area(hits[order], asked[order], ends, *totals) for order, ends in rankings])


def resample_precision(
    scores: Float[Tensor, "scenes cells"],
    present: Bool[Tensor, "scenes cells"],
    valid: Bool[Tensor, "scenes cells"],
    weights: Float[Tensor, "samples scenes"],
) -> Float[Tensor, " samples"]:
    """`above_chance` of one unit and value in samples of the scenes: weights say how often each was drawn."""
    order, ends = _ranking(scores.flatten())
    weights = weights.T.float()  # [scenes, samples]
    totals = [weights.T @ shown.sum(1).float() for shown in (present & valid, valid)]
    asked = weights[order // scores.shape[1]] * valid.flatten()[order, None]
    hits = asked * present.flatten()[order, None]
    return above_chance(_area(hits, asked, ends, *totals), totals[0] / totals[1].clamp(min=TINY)).double()


def _ranking(scores: Float[Tensor, " positions"]) -> tuple[Int[Tensor, " ranked"], Bool[Tensor, " ranked"]]:
    """The cells by falling activation, without those of the lowest; and where a run of equal activations ends."""
    above = (scores > scores.min()).nonzero().flatten()
    order = above[scores[above].argsort(descending=True, stable=True)]
    ranked = scores[order]
    return order, torch.cat([ranked[1:] != ranked[:-1], torch.ones(min(1, len(ranked)), dtype=torch.bool)])


def _area(hits: Tensor, asked: Tensor, ends: Tensor, all_hits: Tensor, all_asked: Tensor) -> Float[Tensor, " n"]:
    """Average precision from the ranked cells' [ranked, n] and, for the last threshold, the totals [n] of all cells."""
    found = torch.cat([hits.cumsum(0)[ends], all_hits[None]])
    passed = torch.cat([asked.cumsum(0)[ends], all_asked[None]])
    gained = found.diff(dim=0, prepend=torch.zeros_like(found[:1]))
    return (gained * found / passed.clamp(min=TINY)).sum(0) / all_hits.clamp(min=TINY)


def above_chance(precision: Float[Tensor, "*units n"], base_rate: Float[Tensor, " n"]) -> Float[Tensor, "*units n"]:
    """(AP - base) / (1 - base): 0 is chance and 1 perfect for common and rare values alike. A value that is always or
    never shown scores 0."""
    always = base_rate >= 1 - 1e-9
    score = (precision - base_rate) / (1 - base_rate).clamp(min=TINY)
    return torch.where(always, 0.0, score)


def reading_scores(scores: Float[Tensor, "scenes cells units"], truth: Truth) -> Float[Tensor, "units values"]:
    """`average_precision` corrected for chance (`above_chance`)."""
    return above_chance(average_precision(scores, truth), truth.base_rate.float())


def presence_auc(
    scores: Float[Tensor, "scenes units"], present: Bool[Tensor, "scenes values"]
) -> Float[Tensor, "units values"]:
    """How well a unit's mean activation over a picture tells pictures with a value from those without: the chance that a
    picture with it has the higher one, ties half. 0.5 is chance, also where all pictures have the value or none."""
    with_it, out = present.float(), []
    for a in scores.unbind(1):
        higher = (a[:, None] > a).float() + 0.5 * (a[:, None] == a).float()
        out.append(((with_it.T @ higher) * (1 - with_it.T)).sum(1))
    pairs = with_it.sum(0) * (1 - with_it).sum(0)
    return torch.where(pairs > 0, torch.stack(out) / pairs.clamp(min=1), 0.5)


class Meaning(NamedTuple):
    """Of each unit: the value it reads best on one half of the scenes, and how well it does so on the other half."""

    value: Int[Tensor, " units"]
    score: Float[Tensor, " units"]
    """On the half that had no part in the choice, so that no luck of the choice is in it."""
    margin: Float[Tensor, " units"]
    """On that half, the score minus the highest of the unit's other values; negative where another value reads better."""


def find_meaning(matched_on: Float[Tensor, "units values"], scored_on: Float[Tensor, "units values"]) -> Meaning:
    """From `reading_scores` of the same units on two disjoint sets of scenes. Raises ValueError for fewer than 2 values."""
    if matched_on.shape[1] < 2:
        raise ValueError(f"{matched_on.shape[1]} value: wanted at least 2, to say which of them a unit means")
    value = matched_on.argmax(1)
    score = scored_on.gather(1, value[:, None])[:, 0]
    others = scored_on.scatter(1, value[:, None], -torch.inf).amax(1)
    return Meaning(value, score, score - others)


def null_maxima(
    scores: Float[Tensor, "scenes cells units"], truth: Truth, permutations: int, seed: int = 0
) -> Float[Tensor, "permutations units"]:
    """Each unit's best score over all values when its maps are paired with another scene's truth.

    The maximum over values corrects for having tried them all; a further maximum over units, for having looked at
    all units. What scenes have in common (where objects usually are) stays in the null.

    Raises ValueError for fewer than two scenes.
    """
    scenes, generator, out = len(scores), torch.Generator().manual_seed(seed), []
    if scenes < 2:
        raise ValueError(f"{scenes} scene: wanted at least 2, to pair one with another's truth")
    rankings = _rankings(scores, truth)
    for _ in range(permutations):
        paired = truth.take(other_scenes(scenes, generator))
        out.append(above_chance(_precision(rankings, paired), paired.base_rate.float()).amax(1))
    return torch.stack(out)


def other_scenes(scenes: int, generator: torch.Generator) -> Int[Tensor, " scenes"]:
    """A random pairing in which no scene keeps its own place."""
    order = torch.randperm(scenes, generator=generator)
    shift = torch.randint(1, scenes, (), generator=generator).item()
    return torch.empty_like(order).scatter_(0, order, order.roll(shift))


def best_of(
    matched_on: Float[Tensor, "units values"], count: int, draws: int = 100, seed: int = 0
) -> Float[Tensor, "units values"]:
    """How often each unit is a value's best among `count` units drawn at random: columns sum to 1.

    Dictionaries of different size are then compared at the same number of candidates: the expected held-out score of a
    value is the sum of these shares times `scored_on`. Signed bases should enter with both signs, as two units each.

    Raises ValueError for more candidates than units, or none.
    """
    units = len(matched_on)
    if not 1 <= count <= units:
        raise ValueError(f"{count} candidates of {units} units: wanted 1 to {units}")
    generator, shares = torch.Generator().manual_seed(seed), torch.zeros_like(matched_on)
    for _ in range(draws):
        drawn = torch.randperm(units, generator=generator)[:count]
        best = drawn[matched_on[drawn].argmax(0)]
        shares[best, torch.arange(matched_on.shape[1])] += 1 / draws
    return shares


def match_dictionaries(
    a: Float[Tensor, "d_model features"], b: Float[Tensor, "_ _"]
) -> tuple[Int[Tensor, " features"], Float[Tensor, " features"]]:
    """One to one, the columns of two decoders with the largest sum of cosines (Hungarian): partners in b, and cosines.

    Unlike the nearest neighbour, no feature is the partner of two. Raises ValueError for decoders of different shape.
    """
    if a.shape != b.shape:
        raise ValueError(f"decoders of {list(a.shape)} and {list(b.shape)}: wanted equal shapes")
    cosines = F.normalize(a, dim=0).T @ F.normalize(b, dim=0)
    rows, columns = linear_sum_assignment(cosines.numpy(force=True), maximize=True)
    partners = torch.as_tensor(columns)
    return partners, cosines[torch.as_tensor(rows), partners].cpu()


def summarise_writing(
    before: Float[Tensor, "pictures values"],
    after: Float[Tensor, "pictures values"],
    intended: Int[Tensor, " pictures"],
) -> Float[Tensor, "pictures 2"]:
    """Of pictures before and after an intervention (1 where a value shows): the intended value's change, -1, 0 or 1, and
    the number of other values that appeared or vanished. For rates with intervals give it to `metrics.bootstrap`."""
    change = after - before
    aim = change.gather(1, intended[:, None])[:, 0]
    return torch.stack([aim, change.abs().sum(1) - aim.abs()], 1)
