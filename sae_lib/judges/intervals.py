"""How sure a number is: bootstrap intervals over the things that were sampled."""

from collections.abc import Callable
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

WITHOUT_FLOAT64 = {"mps"}
"""Types of devices whose tensors cannot be of float64."""


def exact_device(device: str | torch.device) -> torch.device:
    """Where numbers of a device are summed in float64: there, or on the CPU if it has no float64 (Apple's MPS)."""
    device = torch.device(device)
    return torch.device("cpu") if device.type in WITHOUT_FLOAT64 else device


def exact(x: Tensor) -> Tensor:
    """The numbers in float64, on their `exact_device`."""
    return x.to(exact_device(x.device)).double()  # moved first: the device could not convert them


class Interval(NamedTuple):
    """A number with the bootstrap interval around it."""

    value: float
    """The number measured on all prompts."""
    low: float
    high: float


def bootstrap(
    per_prompt: Float[Tensor, "prompts ..."],
    statistic: Callable[[Tensor], Tensor] = lambda mean: mean,
    resamples: int = 1000,
    seed: int = 0,
) -> Float[Tensor, "samples ..."]:
    """The statistic of all prompts, then of `resamples` samples of them, drawn with replacement and averaged.

    per_prompt: the numbers of each prompt, `[prompts]`, or the sums `[prompts, ...]` of which a pooled statistic is
    made. statistic: makes the values, one row per sample, of the means `[samples, ...]` over the prompts drawn; by
    default it is the mean itself. Two calls with equally many prompts draw the same prompts, so that values may be
    averaged or subtracted sample by sample. Seeds, training runs and models are not resampled.

    Raises ValueError if fewer than two prompts are given.
    """
    prompts = len(per_prompt)
    if prompts < 2:
        raise ValueError(f"a bootstrap over {prompts} prompts is not defined; wanted at least 2")
    drawn = torch.randint(prompts, (resamples, prompts), generator=torch.Generator().manual_seed(seed))
    counts = torch.zeros(resamples, prompts, dtype=torch.float64).scatter_add_(
        1, drawn, torch.ones(drawn.shape).double()
    )
    values = exact(per_prompt)
    shares = torch.cat([torch.ones(1, prompts), counts]).to(values.device) / prompts  # row 0: every prompt once
    return statistic(torch.tensordot(shares, values, 1))


def bootstrap_trials(
    values: Float[Tensor, "trials ..."],
    features: Int[Tensor, " trials"],
    captions: Int[Tensor, " trials"],
    resamples: int = 1000,
    seed: int = 0,
) -> Float[Tensor, "samples ..."]:
    """The mean over trials, then over `resamples` samples of both the features and the captions.

        sum over trials of w_feature w_caption value / sum over trials of w_feature w_caption

    A trial tries one feature in one caption; both are given as numbers. In row 0 all weights are 1, in the others they
    are drawn from the exponential distribution of mean 1 (Rubin's bootstrap), and multiplied (Owen and Eckles 2012,
    "Bootstrapping data arrays"): no sample is ever empty, as one of few trials drawn with replacement may be. A result
    holds then for features and captions like these, not only for these.

    A number has the same weights in every call with that seed. So give captions their own numbers in all calls whose
    samples are averaged or subtracted, and number features of different blocks differently.

    Raises ValueError if fewer than two features or captions are given.
    """
    counts = [len(numbers.unique()) for numbers in (features, captions)]
    if min(counts) < 2:
        raise ValueError(
            f"a bootstrap over {counts[0]} features and {counts[1]} captions is not defined; wanted at least 2 of each"
        )
    weights = torch.ones(len(values), 1 + resamples, dtype=torch.float64)
    for which, numbers in enumerate((features, captions)):
        generator = torch.Generator().manual_seed(2 * seed + which)
        drawn = torch.empty(int(numbers.max()) + 1, resamples, dtype=torch.float64)
        for row in drawn:  # one number after the other, so that its weights do not depend on how many there are
            row.exponential_(generator=generator)
        weights[:, 1:] *= drawn[numbers]
    values = exact(values)
    return torch.tensordot((weights / weights.sum(0)).T.to(values.device), values, 1)


def interval_of(samples: Float[Tensor, " samples"], level: float = 0.95) -> Interval:
    """The value and its percentile interval, from what `bootstrap` gives."""
    tail = (1 - level) / 2
    low, high = samples[1:].quantile(samples.new_tensor([tail, 1 - tail])).tolist()
    return Interval(samples[0].item(), low, high)


def bootstrap_interval(
    per_prompt: Float[Tensor, "prompts ..."],
    statistic: Callable[[Tensor], Tensor] = lambda mean: mean,
    resamples: int = 1000,
    level: float = 0.95,
    seed: int = 0,
) -> Interval:
    """The percentile interval of a statistic over prompts; see `bootstrap`."""
    return interval_of(bootstrap(per_prompt, statistic, resamples, seed), level)


def bootstrap_share(happened: Float[Tensor, " trials"], resamples: int = 1000, seed: int = 0) -> Interval:
    """The share of the trials (0 or 1) in which something happened, with its 95 % interval.

    Where it happened in all trials, or in none, no resample differs; the interval then leaves room for 3 of n trials
    (the rule of three).
    """
    share = bootstrap_interval(happened, resamples=resamples, seed=seed)
    if share.low < share.high:
        return share
    room = min(1.0, 3 / len(happened))
    return share._replace(low=max(0.0, share.low - room), high=min(1.0, share.high + room))
