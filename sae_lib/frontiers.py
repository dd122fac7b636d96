"""Comparing ways to edit: the best similarity at each distance, and how many units an effect takes (RIEBench, paper: Fig. 5)."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from sae_lib.metrics import Interval, bootstrap, interval_of

GRID = 25
"""Distances at which two frontiers are compared."""


def envelope(
    distance: Float[Tensor, " settings"], similarity: Float[Tensor, " settings"]
) -> tuple[np.ndarray, np.ndarray]:
    """The upper concave hull of a method's settings, from the leftmost to the rightmost: its corners' distances and similarities.

    Between two settings it is a straight line, which half of the cases edited with one and half with the other would
    reach. Of one or two settings it is these.
    """
    points = np.stack([np.asarray(distance, float), np.asarray(similarity, float)], 1)
    points = points[np.lexsort((-points[:, 1], points[:, 0]))]
    corners: list[np.ndarray] = []
    for point in points:
        if corners and point[0] == corners[-1][0]:
            continue
        while len(corners) > 1 and _cross(corners[-2], corners[-1], point) >= 0:
            corners.pop()
        corners.append(point)
    hull = np.array(corners)
    return hull[:, 0], hull[:, 1]


def _cross(a: np.ndarray, b: np.ndarray, c: np.ndarray) -> float:
    """Above 0 if c lies to the left of the line from a to b: then b is below the hull."""
    return (b[0] - a[0]) * (c[1] - a[1]) - (b[1] - a[1]) * (c[0] - a[0])


def similarity_at(grid: np.ndarray, distance: Tensor, similarity: Tensor) -> np.ndarray:
    """The envelope at the grid's distances; NaN outside the method's own range: nothing is extrapolated."""
    x, y = envelope(distance, similarity)
    return np.interp(grid, x, y, left=np.nan, right=np.nan)


class Comparison(NamedTuple):
    """One method against another."""

    gap: Interval
    """Mean over the grid of the first one's similarity minus the second one's."""
    grid: list[float]
    """The distances compared: inside both methods' ranges, as all cases together have them."""


def compare_frontiers(
    first: Float[Tensor, "cases settings 2"],
    second: Float[Tensor, "other_cases other_settings 2"],
    resamples: int = 1000,
    seed: int = 0,
) -> Comparison:
    """How far one method's envelope lies above another's at equal distance; a bootstrap over cases.

    first, second: of each case and setting the distance to the original and the similarity gained. In each resample the
    cases drawn are averaged, setting by setting, then the envelopes are taken and compared at those points of the grid
    that lie in both ranges of that resample too; one without such a point is left out.

    Raises ValueError if the ranges have nothing in common, or other cases are given for the two.
    """
    if len(first) != len(second):
        raise ValueError(f"{len(first)} and {len(second)} cases: both methods must edit the same ones")
    ranges = [each[..., 0].mean(0) for each in (first, second)]
    low, high = max(each.min().item() for each in ranges), min(each.max().item() for each in ranges)
    if not low < high:
        raise ValueError(f"the methods' distances have nothing in common: from {low:.3g}, up to {high:.3g}")
    grid = np.linspace(low, high, GRID)

    def gaps(means: Tensor) -> Tensor:
        split = [part.unflatten(1, (-1, 2)) for part in means.split([2 * first.shape[1], 2 * second.shape[1]], 1)]
        found = []
        for a, b in zip(*split, strict=True):
            gap = similarity_at(grid, a[:, 0], a[:, 1]) - similarity_at(grid, b[:, 0], b[:, 1])
            found.append(np.nanmean(gap) if np.isfinite(gap).any() else np.nan)
        return torch.tensor(found)

    both = torch.cat([first.flatten(1), second.flatten(1)], 1)
    samples = bootstrap(both, gaps, resamples, seed)
    return Comparison(interval_of(samples[~samples.isnan()]), grid.tolist())


def units_for_effect(
    units: Sequence[float | int],
    effect: Float[Tensor, "cases counts"],
    wanted: float,
    resamples: int = 1000,
    seed: int = 0,
) -> Interval:
    """How many units a method needs for a mean effect; a bootstrap over cases.

    units: the counts, rising. effect: of each case with each count. Interpolated between counts on a logarithmic scale, at
    the first crossing; infinity where the largest count does not reach it, the smallest count where that is enough.
    """
    if list(units) != sorted(units) or len(units) != effect.shape[1]:
        raise ValueError(f"units {list(units)} for {effect.shape[1]} columns: wanted one a column, rising")
    logs = np.log(np.asarray(units, float))

    def needed(means: Tensor) -> Tensor:
        found = []
        for row in means.numpy():
            above = np.flatnonzero(row >= wanted)
            if len(above) == 0:
                found.append(np.inf)
            elif (at := above[0]) == 0:
                found.append(float(units[0]))
            else:
                share = (wanted - row[at - 1]) / (row[at] - row[at - 1])
                found.append(float(np.exp(logs[at - 1] + share * (logs[at] - logs[at - 1]))))
        return torch.tensor(found, dtype=torch.float64)

    samples = bootstrap(effect, needed, resamples, seed)
    ordered = samples[1:].sort().values
    ends = [ordered[min(len(ordered) - 1, int(part * len(ordered)))].item() for part in (0.025, 0.975)]
    return Interval(samples[0].item(), *ends)
