"""The primary tests, one per claim of the paper: its sentence with its bounds, and the number that is judged.

A primary test decides the paper's claim on the pocket models. Every function gives a number with its 95 % interval,
from which the control is subtracted, so that a model in which nothing happens gives 0. Numbers that a notebook also
draws are taken as samples (such as `writing.samples_by_block`), so that they are drawn once.
"""

from collections.abc import Mapping

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from sae_lib.companion.verdicts import Claim
from sae_lib.editing.cases import CATEGORIES
from sae_lib.editing.frontiers import compare_frontiers
from sae_lib.editing.sweep import Sweep
from sae_lib.features.locality import MEASURES
from sae_lib.features.meaning import spearman
from sae_lib.judges.intervals import (
    Interval,
    bootstrap,
    bootstrap_interval,
    bootstrap_share,
    bootstrap_trials,
    interval_of,
)
from sae_lib.saes.transfer import share_of_rest

ABOVE_ZERO = 1e-6
"""The bound of a claim that there is a difference: with a difference of exactly zero it does not hold."""

LEAST_GAIN = 0.01
"""The least gain, in explained variance, that training on the target counts as: a share of nothing says nothing."""

UNSEEN = 1e-4
"""A perceptual distance like that of rounding a picture to 8 bits; a block that moves it less has nothing to lose."""

PRIMARY = {
    claim.id: claim
    for claim in (
        Claim(
            "Turbo, one step: turning a feature on raises the value it reads (rate, minus random features)",
            at_least=0.15,
            id="C1",
            primary=True,
            control="random live features of the block, same norm and place",
        ),
        Claim(
            "Base: no additional training needed (share of what training on it gains over the floor)",
            at_least=0.8,
            id="C2",
            primary=True,
            control="the best SAE without knowledge",
        ),
        Claim(
            "Explained variance grows with k (of what an untrained SAE leaves over, smallest step)",
            at_least=ABOVE_ZERO,
            id="C3",
            primary=True,
            control="an untrained SAE of the same k and n_f",
        ),
        Claim(
            "Near no feature is dead (share that never fires, mean of the blocks)",
            at_most=0.05,
            published=1 / 20_480,
            tolerance=0.002,
            source="checkpoint",
            id="C4",
            primary=True,
            control="none: a bound on a share",
        ),
        Claim(
            "The paper's four blocks change pictures more than the other seven (mean minus mean)",
            at_least=ABOVE_ZERO,
            id="C5",
            primary=True,
            control="the other seven attention blocks",
        ),
        Claim(
            "Blocks read what the caption writes there (Spearman)",
            at_least=ABOVE_ZERO,
            id="C6",
            primary=True,
            control="permuted blocks",
        ),
        Claim(
            "SAE features make more edits than neurons at equal side effects (gap)",
            at_least=ABOVE_ZERO,
            id="C7",
            primary=True,
            control="neurons",
        ),
        Claim(
            "Which blocks are drawn on depends on the kind of edit "
            "(spread of shares, minus shuffled kinds, minus untrained SAEs')",
            at_least=ABOVE_ZERO,
            id="C8",
            primary=True,
            control="untrained SAEs, selected by the same rule; shuffled kinds of edit",
        ),
        Claim(
            "Turbo: early interventions change more than late ones "
            "(early minus late, of their sum, minus random directions')",
            at_least=ABOVE_ZERO,
            id="C9",
            primary=True,
            control="random directions, same norm, place and steps",
        ),
        Claim(
            "Guidance: adding and subtracting writes more than adding alone at the same dose (rise, difference)",
            at_least=ABOVE_ZERO,
            id="C10",
            primary=True,
            control="the conditional half alone at the same dose",
        ),
        Claim(
            "FLUX, one step, last double-stream block: turning a feature on raises the value it reads "
            "(rate, minus random features)",
            at_least=0.15,
            id="C11",
            primary=True,
            control="random live features of the block, same norm and place",
        ),
        Claim(
            "captions predict activation "
            "(gain over equal firing rate, minus random directions'; active on > 10 % of the area)",
            at_least=ABOVE_ZERO,
            id="C12",
            primary=True,
            control="captioned random directions",
        ),
        Claim(
            "Modulation: a change is mostly where the feature acts "
            "(share of the change inside minus the area's, minus the next picture's)",
            at_least=ABOVE_ZERO,
            id="C13",
            primary=True,
            control="the next picture's area",
        ),
        Claim(
            "Reconstructions of one block preserve the image (distance over the nearer of skipping and untrained SAE)",
            at_most=0.5,
            id="C14",
            primary=True,
            control="skipping; an untrained SAE",
        ),
    )
}
"""By the claim's id. Its text and bounds are its rule in `notebooks/rules.json`: changing one makes a new rule."""


def rise_over_random(rises: Mapping[str, Float[Tensor, "samples kinds"]]) -> Interval:
    """C1: how much more often a value appears with the feature that reads it than with a random one; mean over blocks.

    rises: by block, after minus before in what `writing.measure_writing` gives.
    """
    return mean_of_blocks({block: rise[:, 0] - rise[:, 1] for block, rise in rises.items()})


def mean_of_blocks(by_block: Mapping[str, Float[Tensor, " samples"]]) -> Interval:
    """The mean over blocks, sample by sample."""
    return interval_of(torch.stack(list(by_block.values())).mean(0))


def share_of_ceiling(
    one_step: Float[Tensor, "blocks steps samples"],
    ceiling: Float[Tensor, "blocks steps samples"],
    floor: Float[Tensor, "blocks steps samples"],
) -> Interval:
    """C2: the share that one-step SAEs reach of what training on the target setting gains over the floor.

    one_step, ceiling, floor: explained variance of the one-step SAEs, of SAEs trained on the target, and of the best
    SAE without knowledge. Blocks and steps are averaged.
    """
    one, most, least = (explained.nanmean((0, 1)) for explained in (one_step, ceiling, floor))
    return interval_of((one - least) / (most - least).clamp(min=LEAST_GAIN))


def growth_with_k(
    trained: Float[Tensor, "sizes blocks samples"], blank: Float[Tensor, "sizes blocks samples"]
) -> Interval:
    """C3: the smallest rise from one k to the next larger one, in the share that is explained of what untrained SAEs
    leave over. Blocks are averaged.

    trained, blank: explained variance of trained SAEs and of untrained ones of the same size.
    """
    return interval_of(share_of_rest(trained, blank).mean(1).diff(dim=0).min(0).values)


def growth_with_expansion(
    explained: Float[Tensor, "blocks ks factors seeds"],
    by_untrained: Float[Tensor, "blocks ks factors"],
    resamples: int = 1000,
    seed: int = 0,
) -> Interval:
    """By how much the share of what an untrained SAE leaves over grows with the expansion factor.

    The smallest step, the mean over the ks; a bootstrap over both the blocks and the seeds.
    """
    steps = share_of_rest(explained, by_untrained[..., None]).mean(1).diff(dim=1)  # [blocks, steps, seeds]
    generator, shares = torch.Generator().manual_seed(seed), []
    for count in (steps.shape[0], steps.shape[2]):  # blocks and seeds are both drawn with replacement
        drawn = torch.randint(count, (resamples, count), generator=generator)
        often = torch.nn.functional.one_hot(drawn, count).double().mean(1)
        shares.append(torch.cat([torch.full((1, count), 1 / count, dtype=torch.float64), often]))
    return interval_of(torch.einsum("nb,bts,ns->nt", shares[0], steps, shares[1]).min(1).values)


def share_that_never_fires(fires: Float[Tensor, " features"], resamples: int = 1000, seed: int = 0) -> Interval:
    """C4: the share of features that are active nowhere; a bootstrap over features.

    fires: how often each feature is active.
    """
    return bootstrap_share((fires == 0).double(), resamples, seed)


def first_over_rest(
    first: Float[Tensor, "prompts blocks"],
    rest: Float[Tensor, "prompts other_blocks"],
    resamples: int = 1000,
    seed: int = 0,
) -> Interval:
    """C5: how much further ablating a first block moves a picture than ablating one of the rest; a bootstrap over
    prompts of mean minus mean."""
    count = first.shape[1]
    return bootstrap_interval(
        torch.cat([first, rest], 1),
        lambda mean: mean[:, :count].mean(1) - mean[:, count:].mean(1),
        resamples,
        seed=seed,
    )


def agreement(
    of_blocks: Mapping[str, Float[Tensor, "families samples"]], others: Mapping[str, Float[Tensor, "families samples"]]
) -> Interval:
    """C6: Spearman's correlation over pairs of block and family, minus its mean with the blocks shifted.

    of_blocks: what the blocks' features read. others: what enters there from the caption, or what is written there.
    Pairs without a number are left out.
    """
    a, b = (torch.stack([table[block] for block in of_blocks]) for table in (of_blocks, others))

    def rank(sample: int, shift: int) -> float:
        x, y = a[..., sample].flatten(), b[..., sample].roll(shift, 0).flatten()
        return spearman(x[y.isfinite()], y[y.isfinite()])

    shifts = range(1, len(a))
    gaps = [rank(i, 0) - sum(rank(i, s) for s in shifts) / max(1, len(shifts)) for i in range(a.shape[-1])]
    return interval_of(torch.tensor(gaps, dtype=torch.float64))


def more_edits(
    sweep: Sweep,
    other: str,
    reading: str,
    limit: float,
    cases: Bool[Tensor, " cases"],
    resamples: int = 1000,
    seed: int = 0,
) -> Interval:
    """C7: how far the envelope of SAE features lies above another method's, over costs from 0 to `limit`.

    A bootstrap over cases. reading: which cost and which gain, see `settings.READINGS`. cases: those that count.
    """
    ours, theirs = (sweep.points(sweep.of_method(name), reading)[cases] for name in ("SAE", other))
    return compare_frontiers(ours, theirs, limit, resamples, seed)


def spread_by_kind(
    kinds: Int[Tensor, " cases"], shares: Float[Tensor, "cases blocks"], resamples: int = 1000, seed: int = 0
) -> Float[Tensor, " samples"]:
    """How much a block's share of the selected features depends on the kind of edit, minus the same for shuffled kinds.

    It is the standard deviation, over kinds, of a block's mean share, averaged over blocks; samples of cases. kinds:
    numbers of `cases.CATEGORIES`; kinds without a case are left out.
    """
    numbers, sampling = kinds.long() - 1, (resamples, seed)
    orders = [torch.randperm(len(kinds), generator=torch.Generator().manual_seed(seed + i)) for i in range(20)]
    shuffled = [bootstrap(_sums_by_kind(numbers[order], shares), _spread, *sampling) for order in orders]
    samples = bootstrap(_sums_by_kind(numbers, shares), _spread, *sampling) - torch.stack(shuffled).mean(0)
    samples[1:] += samples[0] - samples[1:].mean()  # resampling adds noise, and noise a spread of its own
    return samples


def _sums_by_kind(
    numbers: Int[Tensor, " cases"], shares: Float[Tensor, "cases blocks"]
) -> Float[Tensor, "cases kinds columns"]:
    """What each case adds to its kind: one column for the count, and one per block for the shares."""
    row = torch.cat([torch.ones(len(shares), 1), shares], 1)
    return torch.nn.functional.one_hot(numbers, len(CATEGORIES))[..., None] * row[:, None]


def _spread(means: Float[Tensor, "samples kinds columns"]) -> Float[Tensor, " samples"]:
    shares = means[..., 1:] / means[..., :1]
    off = shares - shares.nanmean(-2, keepdim=True)
    return off.square().nanmean(-2).sqrt().mean(-1)


def spread_over_untrained(trained: Float[Tensor, " samples"], blank: Float[Tensor, " samples"]) -> Interval:
    """C8: `spread_by_kind` of the trained SAEs' shares, minus that of untrained SAEs of the same size."""
    return interval_of(trained - blank)


def early_over_late(amplitudes: Mapping[str, Float[Tensor, "samples spans 2"]]) -> Interval:
    """C9: (early - late) / (early + late), minus the same of random directions, mean over blocks.

    amplitudes: by block, of what `locality.measure_timing` gives; early is the first span of steps, late the last. It
    is a quotient, so that a push that is larger than a random one but not earlier gives 0.
    """
    early = {b: (e[:, 0] - e[:, -1]) / (e[:, 0] + e[:, -1]).clamp(min=1e-9) for b, e in amplitudes.items()}
    return mean_of_blocks({block: share[:, 0] - share[:, 1] for block, share in early.items()})


def late_share(amplitudes: Mapping[str, Float[Tensor, "samples spans 2"]]) -> dict[str, Float[Tensor, "samples 2"]]:
    """By block, late over early and late together, of the feature and of random directions; see `early_over_late`."""
    return {block: e[:, -1] / (e[:, 0] + e[:, -1]).clamp(min=1e-9) for block, e in amplitudes.items()}


def late_over_elsewhere(shares: Mapping[str, Float[Tensor, "samples 2"]], block: str) -> Interval:
    """How far a block's `late_share` is above the mean of the other blocks', by the feature or by the feature minus
    random directions: sample by sample the smaller of the two."""
    elsewhere = torch.stack([share for other, share in shares.items() if other != block]).mean(0)
    above = shares[block] - elsewhere
    return interval_of(torch.minimum(above[:, 0], above[:, 0] - above[:, 1]))


def both_over_same_dose(both: Float[Tensor, " samples"], conditional: Float[Tensor, " samples"]) -> Interval:
    """C10: how much more often a value appears when its feature is added to one half of guidance and subtracted from
    the other than when it is only added, at the same dose.

    both, conditional: samples by `intervals.bootstrap_trials` of the same trials, after minus before in
    what `writing.measure_writing` gives.
    """
    return interval_of(both - conditional)


def caption_gains(
    gains: Float[Tensor, " trials"],
    of_features: Bool[Tensor, " trials"],
    units: Int[Tensor, " trials"],
    captions: Int[Tensor, " trials"],
    resamples: int = 1000,
    seed: int = 0,
) -> Float[Tensor, "samples 2"]:
    """The mean gain of SAE features, and that of random directions; samples of units and captions.

    gains: per picture whose caption holds the unit's words, 1 where the unit is active and another unit that fires as
    often is not, -1 the other way round, 0 elsewhere. of_features: False for a random direction.
    """
    columns = torch.stack([of_features * gains, of_features, ~of_features * gains, ~of_features], 1)
    sums = bootstrap_trials(columns, units, captions, resamples, seed).clamp(min=-1)
    return sums[:, [0, 2]] / sums[:, [1, 3]].clamp(min=1e-9)


def caption_gain_over_random(gains: Float[Tensor, "samples 2"]) -> Interval:
    """C12: the first of `caption_gains` minus the second."""
    return interval_of(gains.diff(dim=1)[:, 0].neg())


def inside_over_next(
    measured: Mapping[str, Float[Tensor, "samples amounts areas measures"]], measure: str = MEASURES[0]
) -> Interval:
    """C13: one of `locality.MEASURES` in the area where a feature acts, minus that in the next picture's area.

    measured: by block, over which the mean is taken, what `locality.measure_modulation` gives.
    """
    at = MEASURES.index(measure)
    return mean_of_blocks({b: (parts[:, :, 0, at] - parts[:, :, 1, at]).mean(1) for b, parts in measured.items()})


def over_yardstick(means: Float[Tensor, "*samples 3"]) -> Float[Tensor, "*samples"]:
    """The distance of the SAE's picture, divided by the smaller one of the two without knowledge.

    means: distances with the SAE, with the block skipped and with an untrained SAE. Where the smaller one is UNSEEN the
    quotient is 1: a block with nothing to lose preserves nothing.
    """
    nearer = means[..., 1:].amin(-1)
    return torch.where(nearer > UNSEEN, means[..., 0] / nearer.clamp(min=UNSEEN), 1.0)


def distance_left(distances: Float[Tensor, "prompts blocks 3"], resamples: int = 1000, seed: int = 0) -> Interval:
    """C14: `over_yardstick` of the pictures' perceptual distances to the original, averaged over blocks.

    A bootstrap over prompts.
    """
    return interval_of(bootstrap(distances, lambda means: over_yardstick(means).mean(-1), resamples, seed))
