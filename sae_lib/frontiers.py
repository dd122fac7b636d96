"""Comparing ways to edit: the best similarity at each distance, and how many units an effect takes (RIEBench, paper: Fig. 5)."""

import itertools
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int
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


def area_under(points: Float[Tensor, "settings 2"], limit: float) -> float:
    """The mean height, from a distance of 0 to `limit`, of the envelope of the settings and of the untouched picture at (0, 0).

    Behind its highest point the envelope goes on level: who may change more need not.
    """
    x, y = envelope(*torch.cat([torch.zeros(1, 2, dtype=points.dtype), points]).T)
    top = int(y.argmax())
    grid = np.linspace(0, limit, 10 * GRID)
    return float(np.interp(grid, x[: top + 1], y[: top + 1]).mean())


def choose_settings(points: Float[Tensor, "settings 2"], count: int, limit: float) -> tuple[int, ...]:
    """The `count` settings whose envelope covers the largest `area_under` it; of equal ones the first.

    points: of each setting the distance and the similarity, means over cases that are not judged afterwards. Raises ValueError if there
    are fewer settings.
    """
    if not 1 <= count <= len(points):
        raise ValueError(f"{count} settings were asked for and there are {len(points)}")
    chosen = itertools.combinations(range(len(points)), count)
    return max(chosen, key=lambda each: area_under(points[list(each)], limit))


def best_of_other_half(values: Float[Tensor, "cases settings"]) -> Int[Tensor, " cases"]:
    """Of each case the setting whose mean over the *other* half of the cases is highest; halves are the even and the odd places.

    What a case then shows had no part in the choice. Raises ValueError if there are fewer than two cases.
    """
    if len(values) < 2:
        raise ValueError(f"{len(values)} cases cannot be split into halves; wanted at least 2")
    chosen = torch.stack([values[1::2].mean(0).argmax(), values[::2].mean(0).argmax()])
    return chosen[torch.arange(len(values)) % 2]


class Columns(NamedTuple):
    """What a method's settings gain."""

    units: Sequence[int]
    """Of each setting; a count may come several times, at several strengths: then the best of them stands for it."""
    gain: Float[Tensor, "cases settings"]


class UnitsNeeded(NamedTuple):
    """How few units do it."""

    effect: float
    """The largest mean gain that both methods reach."""
    first: Interval
    second: Interval
    times: Interval
    """Second over first."""


def units_needed(first: Columns, second: Columns, resamples: int = 1000, seed: int = 0) -> UnitsNeeded:
    """How many units two methods need for the largest gain that both reach; a bootstrap over cases.

    In each resample the cases drawn are averaged, of each count of units the best strength is taken, and so is the smaller
    one of the two methods' largest gains; a count is read off where a method first reaches it, between two counts on a
    logarithmic scale. Resamples in which that gain is not above 0 are left out.

    Raises ValueError if it is not above 0 on all cases, for another number of columns than of units, or other cases.
    """
    for method in (first, second):
        if len(method.units) != method.gain.shape[1]:
            raise ValueError(f"{len(method.units)} units for {method.gain.shape[1]} columns: wanted one per column")
    if len(first.gain) != len(second.gain):
        raise ValueError(f"{len(first.gain)} and {len(second.gain)} cases: both methods must edit the same ones")

    def needed(means: Tensor) -> Tensor:
        found = []
        for row in means.numpy():
            curves = [_best(first.units, row[: len(first.units)]), _best(second.units, row[len(first.units) :])]
            effect = min(gains.max() for _, gains in curves)
            counts = [_reached(*curve, effect) for curve in curves] if effect > 0 else [np.nan] * 2
            found.append([*counts, counts[1] / counts[0], effect])
        return torch.tensor(found, dtype=torch.float64)

    samples = bootstrap(torch.cat([first.gain, second.gain], 1), needed, resamples, seed)
    effect = samples[0, 3].item()
    if not effect > 0:
        raise ValueError(f"the largest gain that both methods reach is {effect:.3g}: wanted one above 0")
    samples = samples[~samples.isnan().any(1)]
    return UnitsNeeded(effect, *(interval_of(samples[:, i]) for i in range(3)))


def _best(units: Sequence[int], gains: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    counts = np.unique(units)
    return counts, np.array([gains[np.asarray(units) == count].max() for count in counts])


def _reached(counts: np.ndarray, gains: np.ndarray, wanted: float) -> float:
    """Where a curve first reaches a gain that it does reach."""
    at = int(np.flatnonzero(gains >= wanted)[0])
    if at == 0:
        return float(counts[0])
    share = (wanted - gains[at - 1]) / (gains[at] - gains[at - 1])
    return float(counts[at - 1] * (counts[at] / counts[at - 1]) ** share)
