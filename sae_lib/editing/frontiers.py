"""Comparing editing methods: the best similarity at each distance, and how many units an effect takes.

RIEBench (paper: Fig. 5).
"""

import itertools
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from sae_lib.editing.settings import EDIT_PROMPT, ORIGINAL, SIDE_EFFECTS, Setting
from sae_lib.editing.sweep import Sweep
from sae_lib.judges.intervals import Interval, bootstrap, interval_of

GRID = 26
"""Number of allowed distances at which two frontiers are compared."""


def envelope(
    distance: Float[Tensor, " settings"], similarity: Float[Tensor, " settings"]
) -> tuple[np.ndarray, np.ndarray]:
    """The corners of the upper concave hull of a method's settings, as distances and similarities, left to right.

    Its straight line between two settings is what one reaches by editing some cases with one and some with the other.
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
    """The similarity that a method reaches at each allowed distance.

    This is the envelope of its settings and of the untouched picture at (0, 0). Right of its highest point it stays
    level, since a larger distance is allowed but not required.
    """
    x, y = envelope(*(torch.cat([values.new_zeros(1), values]) for values in (distance, similarity)))
    top = int(y.argmax())
    return np.interp(grid, x[: top + 1], y[: top + 1])


def compare_frontiers(
    first: Float[Tensor, "cases settings 2"],
    second: Float[Tensor, "other_cases other_settings 2"],
    limit: float,
    resamples: int = 1000,
    seed: int = 0,
) -> Interval:
    """How far one method's envelope lies above another's, on average over allowed distances from 0 to `limit`.

    first, second: per case and setting, the distance to the original and the similarity gained. The interval is
    a bootstrap over cases: each resample averages the cases drawn, setting by setting, then compares the
    envelopes of these means (`similarity_at`). Give both methods equally many settings: more settings make an
    envelope higher by luck.

    Raises ValueError if the limit is not above 0, and if the two methods have different numbers of cases.
    """
    if len(first) != len(second):
        raise ValueError(f"{len(first)} and {len(second)} cases: both methods must edit the same ones")
    grid = _grid(limit)

    def gaps(means: Tensor) -> Tensor:
        split = [part.unflatten(1, (-1, 2)) for part in means.split([2 * first.shape[1], 2 * second.shape[1]], 1)]
        reached = [[similarity_at(grid, *points.T).mean() for points in method] for method in split]
        return torch.tensor(reached[0]) - torch.tensor(reached[1])

    return interval_of(bootstrap(torch.cat([first.flatten(1), second.flatten(1)], 1), gaps, resamples, seed))


def _grid(limit: float) -> np.ndarray:
    if not limit > 0:
        raise ValueError(f"distances up to {limit:.3g} are compared: wanted a limit above 0")
    return np.linspace(0, limit, GRID)


def choose_settings(points: Float[Tensor, "settings 2"], count: int, limit: float) -> tuple[int, ...]:
    """The `count` settings whose envelope is highest, on average over allowed distances from 0 to `limit`.

    Among choices with equal envelopes, the one whose single settings reach most.

    points: per setting, the mean cost (distance, or side effects) and gain (similarity, or success) over cases that are
    not used to judge the methods.

    Raises ValueError if there are fewer settings.
    """
    if not 1 <= count <= len(points):
        raise ValueError(f"{count} settings were asked for and there are {len(points)}")
    grid = _grid(limit)

    def reached(chosen: tuple[int, ...]) -> float:
        return similarity_at(grid, *points[list(chosen)].T).mean()

    alone = [reached((setting,)) for setting in range(len(points))]
    choices = itertools.combinations(range(len(points)), count)
    return max(choices, key=lambda chosen: (round(reached(chosen), 9), sum(alone[i] for i in chosen)))


def best_of_other_half(values: Float[Tensor, "cases settings"]) -> Int[Tensor, " cases"]:
    """Per case, the setting with the highest mean over the *other* half of the cases (even and odd places).

    So a case has no part in the choice of its own setting. Raises ValueError if there are fewer than two cases.
    """
    if len(values) < 2:
        raise ValueError(f"{len(values)} cases cannot be split into halves; wanted at least 2")
    chosen = torch.stack([values[1::2].mean(0).argmax(), values[::2].mean(0).argmax()])
    return chosen[torch.arange(len(values)) % 2]


def cross_fitted(sweep: Sweep, method: str, score: str = "success") -> Float[Tensor, " cases"]:
    """A score of each case at that setting of the method which is best on the other half of the cases.

    Best is the edit minus what else changed; without a judge, the similarity gained, which is then
    given in place of `success` as well.
    """
    settings, judged = sweep.of_method(method), "success" in sweep.scores[ORIGINAL]

    def gain(setting: Setting) -> Tensor:
        scores = sweep.scores[setting]
        return scores["success"] - scores["rest"] if judged else sweep.gain(setting, "text")

    values = [sweep.scores[s][score] if score in sweep.scores[s] else sweep.gain(s, "text") for s in settings]
    if len(sweep.ids) < 2:
        return values[0]
    at = best_of_other_half(torch.stack([gain(setting) for setting in settings], 1))
    return torch.stack(values, 1)[torch.arange(len(at)), at]


def best_strengths(sweep: Sweep, method: str, reading: str) -> list[Setting]:
    """Of each number of a method's units the setting that gains most by one of `settings.READINGS`."""
    groups: dict[int, list[Setting]] = {}
    for setting in sweep.of_method(method):
        groups.setdefault(setting.units, []).append(setting)
    return [max(of, key=lambda s: sweep.gain(s, reading).mean().item()) for units, of in groups.items() if units]


def allowed_cost(sweep: Sweep, reading: str) -> float:
    """Up to which cost methods are compared: by the judge SIDE_EFFECTS, by CLIP the edit prompt's own picture's."""
    return SIDE_EFFECTS if reading == "judge" else sweep.points([EDIT_PROMPT], reading)[:, 1, 0].mean().item()


class Columns(NamedTuple):
    """The gains of a method's settings."""

    units: Sequence[int]
    """The settings' numbers of units. A number may occur at several strengths; the best of these then stands for it."""
    gain: Float[Tensor, "cases settings"]

    @classmethod
    def of(cls, sweep: Sweep, method: str, reading: str) -> "Columns":
        """What a method's settings gain by one of `settings.READINGS`; those of all units are left out."""
        settings = [setting for setting in sweep.of_method(method) if setting.units]
        return cls([each.units for each in settings], torch.stack([sweep.gain(s, reading) for s in settings], 1))


class UnitsNeeded(NamedTuple):
    """How many units two methods need for the same effect."""

    effect: float
    """The largest mean gain that both methods reach."""
    first: Interval
    second: Interval
    times: Interval
    """The units of the second method divided by those of the first."""


def units_needed(first: Columns, second: Columns, resamples: int = 1000, seed: int = 0) -> UnitsNeeded:
    """How many units two methods need for the largest gain that both reach; a bootstrap over cases.

    Each resample averages the cases drawn and takes the best strength for each number of units. The gain is the smaller
    one of the two methods' largest gains. The number of units is read where a method first reaches this gain, between
    two numbers on a logarithmic scale. Resamples in which the gain is not above 0 are left out.

    Raises ValueError if the gain over all cases is not above 0, if a method's columns and units differ in number, and
    if the two methods have different numbers of cases.
    """
    for method in (first, second):
        if len(method.units) != method.gain.shape[1]:
            raise ValueError(f"{len(method.units)} units for {method.gain.shape[1]} columns: wanted one per column")
    if len(first.gain) != len(second.gain):
        raise ValueError(f"{len(first.gain)} and {len(second.gain)} cases: both methods must edit the same ones")

    def needed(means: Tensor) -> Tensor:
        needs = []
        for row in means.numpy():
            curves = [_best(first.units, row[: len(first.units)]), _best(second.units, row[len(first.units) :])]
            effect = min(gains.max() for _, gains in curves)
            counts = [_reached(*curve, effect) for curve in curves] if effect > 0 else [np.nan] * 2
            needs.append([*counts, counts[1] / counts[0], effect])
        return torch.tensor(needs, dtype=torch.float64)

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
    """The number of units at which a curve first reaches a gain, which it must reach somewhere."""
    at = int(np.flatnonzero(gains >= wanted)[0])
    if at == 0:
        return float(counts[0])
    share = (wanted - gains[at - 1]) / (gains[at] - gains[at - 1])
    return float(counts[at - 1] * (counts[at] / counts[at - 1]) ** share)
