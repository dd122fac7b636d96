"""What units mean: how well their activation maps predict the maps of known attributes, against chance and controls.

A unit is anything with an activation at each cell of the block's grid: a feature, a neuron, a direction. The truth
comes as tensors, from wherever it is known. This module measures what units read; `writing` measures what they write.
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from sae_lib.judges.attributes import Truth

TINY = 1e-12
"""Smallest denominator, so that 0 / 0 is 0."""
_AT_A_TIME = 32
"""Permutations in one go; more would not fit into a core's cache."""
RIDGE = 1e-3
"""Ridge of the probes, which is added to the covariance in units of its mean variance."""


def average_precision(scores: Float[Tensor, "scenes cells units"], truth: Truth) -> Float[Tensor, "units values"]:
    """Average precision of every unit for every value: cells ranked by activation, area under precision over recall.

        sum over thresholds of (recall - recall before) * precision,   a threshold at each distinct activation

    Cells of equal activation pass together (scikit-learn's definition), so that the many zeros of a sparse unit are one
    threshold and not an order that is made up. 1 is perfect; the value's base rate is chance, see `above_chance`. A
    value shown by no valid cell scores 0.

    Raises ValueError for activations of another number of scenes or cells than the truth's.
    """
    return _precision(_rankings(scores, truth), truth)


def _rankings(scores: Float[Tensor, "scenes cells units"], truth: Truth) -> list[tuple[Tensor, Tensor]]:
    """`_ranking` of each unit: what does not depend on whose truth it is compared with."""
    got, wanted = list(scores.shape[:2]), list(truth.present.shape[:2])
    if got != wanted:
        raise ValueError(f"activations of {got} scenes and cells; the truth has {wanted}")
    return [_ranking(unit) for unit in scores.flatten(0, 1).unbind(1)]


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
    """`above_chance` of one unit and value in samples of the scenes: weights say how often each was drawn.

    Only thresholds at which a cell that shows the value passes add to the area, so the cells between two of them
    are counted together.
    """
    order, ends = _ranking(scores.flatten())
    weights = weights.T.float().contiguous()  # [scenes, samples]
    totals = [weights.T @ shown.sum(1).float() for shown in (present & valid, valid)]
    hits, asked = ((present & valid).flatten()[order], valid.flatten()[order])
    last, run = ends.nonzero().flatten(), ends.cumsum(0) - ends.long()
    starts = F.pad(last[run[hits].unique_consecutive()] + 1, (1, 0))
    hits_so_far, passed = (
        F.embedding_bag(order // scores.shape[1], weights, starts, mode="sum", per_sample_weights=counted.float())
        for counted in (hits, asked)
    )
    area = _area(hits_so_far, passed, torch.ones(len(starts), dtype=torch.bool), *totals)
    return above_chance(area, totals[0] / totals[1].clamp(min=TINY)).double()


def _ranking(scores: Float[Tensor, " positions"]) -> tuple[Int[Tensor, " ranked"], Bool[Tensor, " ranked"]]:
    """The cells by falling activation, without those of the lowest; and where a run of equal activations ends."""
    above = (scores > scores.min()).nonzero().flatten()
    order = above[scores[above].argsort(descending=True, stable=True)]
    ranked = scores[order]
    return order, torch.cat([ranked[1:] != ranked[:-1], torch.ones(min(1, len(ranked)), dtype=torch.bool)])


def _area(hits: Tensor, asked: Tensor, ends: Tensor, all_hits: Tensor, all_asked: Tensor) -> Float[Tensor, " n"]:
    """Average precision from the ranked cells' [ranked, n] and, for the last threshold, the totals [n] of all cells."""
    distinct = slice(None) if ends.all() else ends
    hits_so_far = torch.cat([hits.cumsum(0)[distinct], all_hits[None]])
    passed = torch.cat([asked.cumsum(0)[distinct], all_asked[None]])
    gained = hits_so_far.diff(dim=0, prepend=torch.zeros_like(hits_so_far[:1]))
    return (gained * hits_so_far / passed.clamp(min=TINY)).sum(0) / all_hits.clamp(min=TINY)


def above_chance(precision: Float[Tensor, "*units n"], base_rate: Float[Tensor, " n"]) -> Float[Tensor, "*units n"]:
    """(AP - base) / (1 - base): 0 is chance and 1 is perfect, for common and rare values alike.

    A value that is always or never shown scores 0.
    """
    always = base_rate >= 1 - 1e-9
    score = (precision - base_rate) / (1 - base_rate).clamp(min=TINY)
    return torch.where(always, 0.0, score)


def reading_scores(scores: Float[Tensor, "scenes cells units"], truth: Truth) -> Float[Tensor, "units values"]:
    """`average_precision`, corrected for chance by `above_chance`."""
    return above_chance(average_precision(scores, truth), truth.base_rate.float())


def fires_in_both(
    first: Float[Tensor, "_ cells units"], second: Float[Tensor, "_ cells units"]
) -> Bool[Tensor, " units"]:
    """Which units are live, which means active somewhere in each of two sets of scenes."""
    return (first != 0).any(0).any(0) & (second != 0).any(0).any(0)


class Meaning(NamedTuple):
    """The value that each unit reads best in one half of the scenes, and how well it reads it in the other half."""

    value: Int[Tensor, " units"]
    score: Float[Tensor, " units"]
    """In the half that had no part in the choice, so that it holds no luck of the choice."""
    margin: Float[Tensor, " units"]
    """In that half, the score minus the unit's highest score for another value; negative where another
    value is read better."""


def find_meaning(matched_on: Float[Tensor, "units values"], scored_on: Float[Tensor, "units values"]) -> Meaning:
    """The units' `Meaning`, from their `reading_scores` in two disjoint sets of scenes.

    Raises ValueError for fewer than 2 values.
    """
    if matched_on.shape[1] < 2:
        raise ValueError(f"{matched_on.shape[1]} value: wanted at least 2, to say which of them a unit means")
    value = matched_on.argmax(1)
    score = scored_on.gather(1, value[:, None])[:, 0]
    others = scored_on.scatter(1, value[:, None], -torch.inf).amax(1)
    return Meaning(value, score, score - others)


def chance_scores(
    scores: Float[Tensor, "scenes cells units"],
    truth: Truth,
    values: Int[Tensor, " units"],
    permutations: int = 500,
    seed: int = 0,
) -> Float[Tensor, "permutations units"]:
    """What each unit would score for its own value by chance: its maps are paired with other scenes' truth, many times.

    This is the null of one value, not of the best of all values, since a value that was chosen in other scenes is
    tried once. What scenes have in common (where objects usually are) stays in it. Cells are ranked once per unit.

    Raises ValueError for fewer than two scenes.
    """
    scenes, cells = scores.shape[:2]
    if scenes < 2:
        raise ValueError(f"{scenes} scene: wanted at least 2, to pair one with another's truth")
    generator, rankings = torch.Generator().manual_seed(seed), _rankings(scores, truth)
    paired = torch.stack([other_scenes(scenes, generator) for _ in range(permutations)]) * cells
    base, out = truth.base_rate.float(), torch.zeros(permutations, scores.shape[2])
    for unit, (value, (order, ends)) in enumerate(zip(values.tolist(), rankings, strict=True)):
        asked = truth.valid[..., value].flatten().float()
        hits = truth.present[..., value].flatten() * asked
        for some, scene in zip(out.split(_AT_A_TIME), paired.split(_AT_A_TIME), strict=True):
            at = scene.index_select(1, order // cells) + order % cells  # [permutations, ranked]
            hits_so_far, passed = (_up_to(shown, at, ends) for shown in (hits, asked))
            gained = hits_so_far.diff(dim=1, prepend=torch.zeros(len(at), 1))
            area = (gained * hits_so_far / passed.clamp(min=TINY)).sum(1) / hits.sum().clamp(min=TINY)
            some[:, unit] = above_chance(area, base[value].expand(len(at)))
    return out


def _up_to(shown: Float[Tensor, " positions"], at: Int[Tensor, "rows ranked"], ends: Bool[Tensor, " ranked"]) -> Tensor:
    """How much is shown up to each threshold, [rows, thresholds]; all cells pass the last one."""
    counted = shown.index_select(0, at.flatten()).view_as(at).cumsum(1)
    return torch.cat([counted if ends.all() else counted[:, ends], shown.sum().expand(len(at), 1)], 1)


def p_values(
    scores: Float[Tensor, " units"], by_chance: Float[Tensor, "permutations units"]
) -> Float[Tensor, " units"]:
    """How often chance scores as high: (1 + permutations that do) / (1 + permutations). It is never 0."""
    return (1 + (by_chance >= scores).sum(0)) / (1 + len(by_chance))


def beyond_chance(p: Float[Tensor, " units"], level: float = 0.05) -> Bool[Tensor, " units"]:
    """Which units are discoveries by Benjamini and Hochberg: at most the share `level` of them is expected to be luck.

    These are all units up to the largest p-value that is at most `level` * rank / number of units.
    """
    ranked = p.sort().values
    passing = ranked <= level * torch.arange(1, len(p) + 1) / max(1, len(p))
    return p <= ranked[passing].max() if passing.any() else torch.zeros_like(p, dtype=torch.bool)


def other_scenes(scenes: int, generator: torch.Generator) -> Int[Tensor, " scenes"]:
    """A random pairing of scenes in which none is paired with itself."""
    order = torch.randperm(scenes, generator=generator)
    shift = torch.randint(1, scenes, (), generator=generator).item()
    return torch.empty_like(order).scatter_(0, order, order.roll(shift))


def best_of(matched_on: Float[Tensor, "units values"], count: int) -> Float[Tensor, "units values"]:
    """How often each unit is a value's best among `count` units drawn at random: columns sum to 1.

        share = C(N - 1 - r, count - 1) / C(N, count)   for the unit of rank r among N (0 is the best)

    So dictionaries of different sizes are compared at the same number of candidates: a value's expected held-out score
    is the sum of these shares times `scored_on`. Signed bases should enter with both signs, as two units per direction.

    Raises ValueError for more candidates than units, or none.
    """
    units = len(matched_on)
    if not 1 <= count <= units:
        raise ValueError(f"{count} candidates of {units} units: wanted 1 to {units}")
    share = [math.comb(units - 1 - rank, count - 1) / math.comb(units, count) for rank in range(units)]
    order = matched_on.argsort(dim=0, descending=True, stable=True)
    column = torch.tensor(share, dtype=matched_on.dtype)[:, None]
    return torch.zeros_like(matched_on).scatter_(0, order, column.expand_as(order))


def expected_scores(
    scores: Float[Tensor, "scenes cells units"],
    shares: Float[Tensor, "units values"],
    truth: Truth,
    weights: Float[Tensor, "samples scenes"],
) -> Float[Tensor, "values samples"]:
    """Each value's score by the units that stand for it, in the given shares (`best_of`), in samples of the scenes.

    Units with a share below a hundredth are left out. With the identity in place of shares, unit i is scored for
    value i, as probes need it.
    """
    shares = torch.where(shares >= 0.01, shares, 0.0)
    shares, out = shares / shares.sum(0), torch.zeros(shares.shape[1], len(weights), dtype=torch.float64)
    for unit, value in shares.nonzero().tolist():
        resampled = truth.present[..., value], truth.valid[..., value], weights
        out[value] += shares[unit, value] * resample_precision(scores[..., unit], *resampled)
    return out


def compare_reading(
    units: Mapping[str, Callable[[Int[Tensor, " rows"]], Float[Tensor, "rows cells _"]]],
    truth: Truth,
    halves: tuple[Int[Tensor, " matched"], Int[Tensor, " scored"]],
    groups: int = 16,
) -> tuple[int, dict[str, Float[Tensor, "values replicates"]]]:
    """How well each value is read by its best unit, in several dictionaries with equally many candidates.

    units: by dictionary, its activations in some scenes. There are as many candidates as the smallest dictionary has
    live units (those that fire in both halves). A value's best candidate is chosen in the first half of the scenes and
    scored in the second, with all of its scenes and with groups of them left out (`scene_samples`).

    Returns the number of candidates, and the scores by dictionary.
    """
    live, matched, weights = {}, {}, leave_out(len(halves[1]), groups)
    for name, activations in units.items():
        first = activations(halves[0])
        live[name] = fires_in_both(first, activations(halves[1]))
        matched[name] = reading_scores(first[..., live[name]], truth.take(halves[0]))
    count = min(map(len, matched.values()))
    second_half = truth.take(halves[1]), weights
    compared = {
        name: expected_scores(activations(halves[1])[..., live[name]], best_of(matched[name], count), *second_half)
        for name, activations in units.items()
    }
    return count, compared


def keep_top(activations: Float[Tensor, "*cells units"], k: int) -> Float[Tensor, "*cells units"]:
    """Keeps the k highest activations of each cell that are positive: any basis becomes as sparse as a TopK SAE."""
    values, indices = activations.topk(k, -1)
    return torch.zeros_like(activations).scatter_(-1, indices, values.relu())


def both_signs(x: Float[Tensor, "*cells units"]) -> Float[Tensor, "*cells signed"]:
    """Each direction as two units, one per sign."""
    return torch.cat([x, -x], -1)


def linear_probe(x: Float[Tensor, "scenes cells width"], truth: Truth) -> Float[Tensor, "width values"]:
    """Per value, the direction that tells it best at its valid cells, by ridge regression.

    This is the most that a linear reader can find.
    """
    weights = x.new_zeros(x.shape[-1], truth.present.shape[-1])
    for columns, spread, toward in _moments(x, truth):
        ridge = RIDGE * spread.diagonal().mean() * torch.eye(len(spread), dtype=spread.dtype)
        weights[:, columns] = torch.linalg.solve(spread + ridge, toward).to(weights)
    return weights


def sparse_probes(
    activations: Float[Tensor, "scenes cells units"], truth: Truth, sizes: Sequence[int]
) -> Float[Tensor, "sizes units values"]:
    """`linear_probe`s that may use few units, which are chosen one after the other (orthogonal matching pursuit).

    For each value the next unit is the one that correlates most with what the chosen units leave unexplained. The first
    one need not be the unit that ranks cells best by itself. A size above the number of units takes all units. Units
    that never vary give no probe: its weights are 0.
    """
    probes = activations.new_zeros(len(sizes), activations.shape[-1], truth.present.shape[-1])
    for columns, spread, toward in _moments(activations, truth):
        if not spread.any():
            continue
        spread += RIDGE * spread.diagonal().mean() * torch.eye(len(spread), dtype=spread.dtype)
        length = spread.diagonal().sqrt()
        for column, aim in zip(columns.tolist(), toward.T, strict=True):
            chosen, rest = [], aim
            for size in range(1, min(max(sizes), len(spread)) + 1):
                gain = (rest.abs() / length).index_fill(0, torch.tensor(chosen, dtype=torch.long), -1)
                chosen.append(gain.argmax().item())
                solved = torch.linalg.solve(spread[chosen][:, chosen], aim[chosen])
                rest = aim - spread[:, chosen] @ solved
                for place, wanted in enumerate(sizes):
                    if size <= wanted:
                        probes[place, chosen, column] = solved.to(probes)
    return probes


def _moments(x: Float[Tensor, "scenes cells width"], truth: Truth) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """For each set of values with the same valid cells: their numbers, x's covariance over these cells, and x's
    covariance with the values."""
    rows = x.flatten(0, 1).float()
    masks, which = truth.valid.flatten(0, 1).unique(dim=1, return_inverse=True)
    for number, mask in enumerate(masks.T):
        columns = (which == number).nonzero().flatten()
        asked, shown = rows[mask], truth.present.flatten(0, 1)[mask][:, columns].float()
        if len(asked) < 2:
            continue
        asked, shown = asked - asked.mean(0), shown - shown.mean(0)
        yield columns, (asked.T @ asked / len(asked)).double(), (asked.T @ shown / len(asked)).double()


def leave_out(scenes: int, groups: int = 16) -> Float[Tensor, "replicates scenes"]:
    """Weights of scenes for `resample_precision`: all scenes, then all without one of `groups` groups.

    A group is every `groups`-th scene.
    """
    left_out = torch.arange(scenes) % groups == torch.arange(groups)[:, None]
    return torch.cat([torch.ones(1, scenes), (~left_out).float()])


def scene_samples(
    replicates: Float[Tensor, "*rows replicates"], resamples: int = 1000, seed: int = 0
) -> Float[Tensor, "*rows samples"]:
    """Samples around a number, for `intervals.interval_of`, from its values with groups of scenes left out.

    replicates: the number with all scenes, then without each group (`leave_out`).

        number + sqrt((g - 1) / g) sum over the g groups of z_i (without group i - their mean),   z_i normal

    Their variance is the jackknife's. A bootstrap would flatter an average precision, in which a scene drawn twice has
    fewer rivals. Calls with the same seed draw the same z, so that numbers may be averaged or subtracted by sample.
    """
    left = replicates[..., 1:].double()
    groups = left.shape[-1]
    drawn = torch.randn(groups, resamples, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    spread = math.sqrt((groups - 1) / groups) * (left - left.mean(-1, keepdim=True)) @ drawn
    whole = replicates[..., :1].double()
    return torch.cat([whole, whole + spread], -1)


def spearman(a: Float[Tensor, " n"], b: Float[Tensor, " n"], given: Float[Tensor, " n"] | None = None) -> float:
    """Rank correlation; ties share their mean rank, and a constant gives 0.

    given: its ranks are taken out of both first (partial correlation).
    """
    ranks = torch.stack([_ranks(x) for x in (a, b)])
    if given is not None and (third := _ranks(given)).any():
        third = third / third.norm()
        ranks = ranks - (ranks @ third)[:, None] * third
    lengths = ranks.norm(dim=1)
    return ((ranks[0] @ ranks[1]) / lengths.prod()).item() if lengths.min() > 1e-6 else 0.0


def spearman_samples(
    a: Float[Tensor, " n"],
    b: Float[Tensor, " n"],
    given: Float[Tensor, " n"] | None = None,
    resamples: int = 1000,
    seed: int = 0,
) -> Float[Tensor, " samples"]:
    """`spearman` of all n, then of `resamples` samples of them, drawn with replacement: for `intervals.interval_of`.

    Of equally many the same ones are drawn with that seed, so that correlations may be averaged or subtracted.
    """
    drawn = torch.randint(len(a), (resamples, len(a)), generator=torch.Generator().manual_seed(seed))
    rows = [torch.arange(len(a)), *drawn]
    return torch.tensor([spearman(a[i], b[i], None if given is None else given[i]) for i in rows]).double()


def _ranks(x: Float[Tensor, " n"]) -> Float[Tensor, " n"]:
    """The ranks minus their mean; ties share their mean rank."""
    ranks = ((x[:, None] > x).sum(1) + 0.5 * (x[:, None] == x).sum(1)).double()
    return ranks - ranks.mean()


def match_dictionaries(
    a: Float[Tensor, "d_model features"], b: Float[Tensor, "_ _"]
) -> tuple[Int[Tensor, " features"], Float[Tensor, " features"]]:
    """Pairs the columns of two decoders one to one, with the largest sum of cosines (Hungarian):
    partners in b, cosines.

    Unlike a nearest neighbour, no column is the partner of two. Raises ValueError for decoders of different shape.
    """
    if a.shape != b.shape:
        raise ValueError(f"decoders of {list(a.shape)} and {list(b.shape)}: wanted equal shapes")
    cosines = F.normalize(a, dim=0).T @ F.normalize(b, dim=0)
    rows, columns = linear_sum_assignment(cosines.numpy(force=True), maximize=True)
    partners = torch.as_tensor(columns)
    return partners, cosines[torch.as_tensor(rows), partners].cpu()
