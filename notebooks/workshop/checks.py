"""One check per exercise: it asks the learner's function small questions whose answers are known, and
says *what* is wrong.

A check raises `NotYet` with one sentence, or prints that nothing is wrong. The typical mistakes of an exercise stand
beside the right answer; `tests/notebooks/test_workshop.py` tries them all.
"""

from collections.abc import Callable

import torch
from classroom import NotYet, ask, expect, passed
from torch import Tensor

from sae_lib import TopKSAE, explained_variance as _explained_variance, to_vectors


def _random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


# Lesson 1


def update_of(answer: Callable) -> None:
    block_input, block_output = _random(2, 3, 4, 4), _random(2, 3, 4, 4, seed=1)
    wrong = {
        "it is the wrong way round: what is added is the output minus the input.": block_input - block_output,
        "this is all of the output; take off what was there before.": block_output,
    }
    expect(answer, (block_input, block_output), block_output - block_input, wrong)
    passed(answer, "input + update gives the output.")


def to_rows(answer: Callable) -> None:
    maps = _random(2, 5, 3, 4)
    wrong = {
        (
            "the shape is right, but a row mixes channels and positions: bring the channels to the end first."
        ): maps.reshape(-1, 5),
        "one picture's rows still stand apart: flatten the batch as well.": to_vectors(maps).unflatten(0, (2, 12)),
        "the rows go column by column: within a picture the height comes before the width.": to_vectors(maps.mT),
    }
    expect(answer, (maps,), to_vectors(maps), wrong)
    passed(answer, "each row is one position.")


def leave_out(answer: Callable) -> None:
    block_input, block_output = _random(2, 3, 4, 4), _random(2, 3, 4, 4, seed=1)
    wrong = {
        "this is the output as it was: nothing would change.": block_output,
        "these are zeros: what came in is lost too, and all later blocks see nothing.": torch.zeros_like(block_output),
        "this is the update alone: what came in is lost.": block_output - block_input,
    }
    expect(answer, (block_input, block_output, None), block_input, wrong)
    passed(answer, "with a zero update the block gives out its input.")


# Lesson 2


def pre_activations(answer: Callable) -> None:
    x, W_enc, b_pre, b_act = _random(5, 3), _random(7, 3, seed=1), _random(3, seed=2), _random(7, seed=3)
    wrong = {
        "b_pre is not taken off before the product.": x @ W_enc.T + b_act,
        "b_pre is added; the formula takes it off.": (x + b_pre) @ W_enc.T + b_act,
        "b_act is missing.": (x - b_pre) @ W_enc.T,
    }
    expect(answer, (x, W_enc, b_pre, b_act), (x - b_pre) @ W_enc.T + b_act, wrong)
    passed(answer, "W_enc (x - b_pre) + b_act, row by row.")


def top_k(answer: Callable) -> None:
    pre = torch.tensor([[0.5, -4.0, 3.0, 1.0, 2.0], [-1.0, -2.0, 0.3, -5.0, -3.0], [9.0, 8.0, 7.0, 6.0, -0.1]])
    k = 2
    kept = pre.topk(k, dim=-1)
    no_relu = torch.zeros_like(pre).scatter(-1, kept.indices, kept.values)
    by_size = pre.abs().topk(k, dim=-1).indices
    unsigned = torch.zeros_like(pre).scatter(-1, by_size, pre.gather(-1, by_size).relu())
    wrong = {
        "the ReLU is missing: a kept pre-activation below 0 must become 0.": no_relu,
        "these are the k kept values alone: put them back in their places, in a tensor of zeros.": kept.values.relu(),
        "the largest are chosen by size without sign: -4 is not among the two largest of 0.5, -4, 3, 1, 2.": unsigned,
        "the k largest of all rows together are kept; wanted the k largest of each row.": torch.where(
            pre >= pre.flatten().topk(k).values[-1], pre, 0
        ).relu(),
    }
    expect(answer, (pre, k), no_relu.relu(), wrong)
    passed(answer, f"{k} of each row kept, in their places, none below 0.")


def decode(answer: Callable) -> None:
    s, W_dec, b_pre = _random(5, 7).relu(), _random(3, 7, seed=1), _random(3, seed=2)
    wrong = {
        "b_pre is not put back.": s @ W_dec.T,
        "b_pre is taken off; here it is put back.": s @ W_dec.T - b_pre,
    }
    expect(answer, (s, W_dec, b_pre), s @ W_dec.T + b_pre, wrong)
    passed(answer, "W_dec s + b_pre, row by row.")


def explained_variance(answer: Callable) -> None:
    x = _random(40, 4) * torch.tensor([1.0, 2.0, 5.0, 0.5])
    x_hat = 0.8 * x + 0.3 * _random(40, 4, seed=1)
    error, spread = (x - x_hat).var(0, correction=0), x.var(0, correction=0)
    along = (1 - (x - x_hat).var(1, correction=0) / x.var(1, correction=0)).mean()
    wrong = {
        (
            "it sums the variances over the dimensions before it divides; "
            "wanted a quotient for each dimension, then their mean."
        ): 1 - error.sum() / spread.sum(),
        "this is the share that is lost: take it from 1.": (error / spread).mean(),
        "it takes variances over the dimensions of a row; wanted them over the rows, axis 0.": along,
        "the two arguments of the division are swapped: divide by the variance of x, not of its reconstruction.": (
            1 - error / x_hat.var(0, correction=0)
        ).mean(),
    }
    expect(
        answer, (x, x_hat), (1 - error / spread).mean().item(), {says: value.item() for says, value in wrong.items()}
    )
    passed(answer, "the authors' training metric.")


# Lesson 3


def score(answer: Callable) -> None:
    activations, present, among = _random(3, 8, 6).relu(), _random(3, 8, seed=1) > 0.3, _random(3, 8, seed=2) > -0.8
    activations[..., 5] = 0  # a feature that never fires
    a, yes = activations[among], present[among]
    everywhere, there = activations.flatten(0, 1), present.flatten()
    inside, spread = a[yes].mean(0), a.std(0).clamp(min=1e-6)
    difference = inside - a[~yes].mean(0)
    wide, all_over = everywhere.std(0).clamp(min=1e-6), everywhere[there].mean(0) - everywhere[~there].mean(0)
    neither = everywhere[~(present & among).flatten()].mean(0)
    wrong = {
        "it is the wrong way round: where the value is, minus where it is not.": -difference / spread,
        "the difference is not divided by the standard deviation over the cells that take part.": difference,
        "every cell takes part although `among` is False at some.": all_over / wide,
        "the standard deviation is over all cells; wanted it over those where `among` is True.": difference / wide,
        "cells where `among` is False count as cells without the value; they take no part.": (inside - neither)
        / spread,
        "nothing is compared: take off the mean where the value is absent.": inside / spread,
    }
    # The last feature is 0 everywhere, and 0 / 0 is no number.
    silent = {
        "a feature that never fires gives 0 / 0: divide by the standard deviation with `.clamp(min=1e-6)`.": difference
        / a.std(0)
    }
    population = difference / a.std(0, correction=0).clamp(
        min=1e-6
    )  # either definition of the standard deviation will do
    got = ask(answer, activations, present, among)
    if not (isinstance(got, Tensor) and got.shape == population.shape and torch.allclose(got, population, rtol=1e-4)):
        silent |= {
            f"{key} (And a feature that never fires gives 0 / 0.)": value / a.std(0) * spread
            for key, value in wrong.items()
        }
        expect(answer, (activations, present, among), difference / spread, wrong | silent)
    passed(answer, "one score for each feature.")


def best_by_chance(answer: Callable, score: Callable) -> None:
    activations, present, among = _random(6, 8, 5).relu(), _random(6, 8, seed=1) > 0.3, _random(6, 8, seed=2) > -0.8
    order = torch.tensor([2, 0, 1, 5, 3, 4])
    shuffled = ask(score, activations, present[order], among[order])
    as_it_was, own_cells = ask(score, activations, present, among), ask(score, activations, present[order], among)
    back = order.argsort()
    wrong = {
        (
            "nothing was shuffled, or both alike: "
            "give present[order] and among[order], and the activations as they are."
        ): as_it_was.max(),
        "`among` belongs to the truth as well: shuffle it by the same order.": own_cells.max(),
        "`present` belongs to the truth as well: shuffle it by the same order.": ask(
            score, activations, present, among[order]
        ).max(),
        "the order is turned round: picture i gets the truth of picture order[i].": ask(
            score, activations, present[back], among[back]
        ).max(),
        "this is the best feature's number; wanted its score.": shuffled.argmax(),
        "this is the score of one feature only; the search takes the best of all.": shuffled[0],
        "this is the mean over features; the search takes the best of all.": shuffled.mean(),
    }
    given, wrong = (activations, present, among, order), {key: float(value) for key, value in wrong.items()}
    expect(answer, given, shuffled.max().item(), wrong)
    passed(answer, "the whole search, repeated where there is nothing to find.")


def probe(answer: Callable) -> None:
    x, present, among = _random(4, 8, 6), _random(4, 8, seed=1) > 0.3, _random(4, 8, seed=2) > -0.8
    x = x * torch.tensor([1.0, 2.0, 0.5, 4.0, 1.0, 3.0]) + torch.arange(6.0)
    rows, yes = x[among], present[among]
    there, elsewhere = rows[yes].mean(0), rows[~yes].mean(0)
    wanted = there - elsewhere
    directions = {
        "it points the wrong way round: from the other objects' cells to those that show the value.": -wanted,
        "every cell takes part although `among` is False at some.": x[present].mean(0) - x[~present].mean(0),
        "cells where `among` is False count as cells without the value; they take no part.": there
        - x[~(present & among)].mean(0),
        "nothing is compared: take off the mean where the value is absent.": there,
        "it is divided by the standard deviation as the score is; the direction is the difference itself.": wanted
        / rows.std(0),
    }
    wrong = {"the direction is right, but its length is not 1: divide it by its norm.": wanted}
    for sentence, direction in directions.items():
        wrong[sentence] = direction / direction.norm()
        wrong[f"{sentence} (And its length is not 1: divide it by its norm.)"] = direction
    expect(answer, (x, present, among), wanted / wanted.norm(), wrong)
    passed(answer, "a direction of length 1 that points to the value.")


# Lesson 4


def explained_by_step(answer: Callable) -> None:
    sae = TopKSAE(6, 12, 3, torch.Generator().manual_seed(0)).requires_grad_(False)
    updates = _random(3, 2, 6, 4, 4) * torch.tensor([1.0, 3.0, 0.5]).reshape(3, 1, 1, 1, 1) + _random(
        3, 1, 6, 1, 1, seed=1
    )

    def explained(maps: Tensor) -> float:
        return _explained_variance(to_vectors(maps), sae(to_vectors(maps)))

    wrong = {
        "all steps thrown together give one number; wanted one for each step.": torch.tensor([explained(updates)] * 3),
        "it gives the same number for every step: that of step 0.": torch.tensor([explained(updates[0])] * 3),
    }
    got = ask(answer, updates, sae)
    if isinstance(got, list):
        raise NotYet(f"{answer.__name__} gives a list; make a tensor of it with torch.tensor(...).")
    expect(answer, (updates, sae), torch.tensor([explained(of_step) for of_step in updates]), wrong)
    passed(answer, "a number for each step.")


def mean_iou(answer: Callable) -> None:
    a = torch.tensor([[1.0, 2.0, 0, 0], [1.0, 0, 0, 0], [0, 0, 0, 0]])
    b = torch.tensor([[3.0, 0, 0, 1.0], [0.5, 0, 0, 0], [0, 0, 0, 0]])
    wrong = {
        "it counts over all rows together; wanted the IoU of each row, then the mean.": 2 / 4,
        "an empty row gives 0 / 0: clamp the union to at least 1.": float("nan"),
        "what is in both sets is counted twice below the line: the union counts it once.": (1 / 4 + 1 / 2 + 0) / 3,
    }
    expect(answer, (a, b), (1 / 3 + 1 + 0) / 3, wrong)
    passed(answer, "1/3, 1 and 0 in the three rows of the check's small example.")


def turn_on(answer: Callable) -> None:
    block_output, change = _random(6, 2, 3, 3), _random(2, 1, 1, seed=1)
    without, with_prompt = block_output.chunk(2)
    every_other = block_output.clone()
    every_other[1::2] += change
    wrong = {
        "both halves are changed: then guidance takes most of it away again.": block_output + change,
        "the half without the prompt is changed; it is the first, wanted the second.": torch.cat(
            [without + change, with_prompt]
        ),
        "every other picture is changed; the halves lie one after the other.": every_other,
    }
    expect(answer, (block_output, change), torch.cat([without, with_prompt + change]), wrong)
    passed(answer, "only the half with the prompt is changed.")


# Lesson 5


def choose(answer: Callable) -> None:
    source = torch.tensor([8.0, 1.0, 4.0, 0.0, 6.5, 0.5])
    target = torch.tensor([2.0, 0.1, 0.0, 2.0, 0.3, 1.0])
    score = source / source.sum() - target / target.sum()
    order, raw = score.argsort(descending=True), (source - target).argsort(descending=True)
    wrong = {
        "the means are compared as they are; wanted them divided by their sums first.": (raw[:2], raw.flip(0)[:2]),
        "the two are exchanged: the highest scores are to be added.": (order.flip(0)[:2], order[:2]),
        "it only looks at what is active in one picture; wanted the difference.": (
            source.argsort(descending=True)[:2],
            target.argsort(descending=True)[:2],
        ),
    }
    expect(answer, (source, target, 2), (order[:2], order.flip(0)[:2]), wrong)
    passed(answer, "what the edit has more of, and what the original has more of.")


def side_effect(answer: Callable) -> None:
    before, after = (_random(3, 64, 64, seed=seed).sigmoid() for seed in (0, 1))
    mask = torch.zeros(16, 16, dtype=torch.bool)
    mask[4:8, 2:12] = True
    after = torch.where(mask.repeat_interleave(4, 0).repeat_interleave(4, 1), after, before + 0.1 * (after - before))
    pixels = mask.repeat_interleave(4, 0).repeat_interleave(4, 1)
    change, signed = (after - before).abs().mean(0), (after - before).mean(0)
    wrong = {
        "brighter and darker cancel: take the absolute value before the mean.": (
            signed[pixels].mean(),
            signed[~pixels].mean(),
        ),
        "inside and outside are exchanged.": (change[~pixels].mean(), change[pixels].mean()),
    }
    wanted = (change[pixels].mean(), change[~pixels].mean())
    expect(answer, (before, after, mask), wanted, wrong)
    passed(answer, "inside first, then outside.")


def interval(answer: Callable) -> None:
    values = torch.tensor([0.0, 1.0, 1.0, 0.0, 1.0, 0.3])
    draws = torch.randint(6, (200, 6), generator=torch.Generator().manual_seed(0))

    def ends(of: Tensor, tail: float = 0.025) -> tuple[Tensor, Tensor]:
        return of.quantile(tail), of.quantile(1 - tail)

    wrong = {
        "the mean goes over the resamples; wanted it over the cases of each resample.": ends(values[draws].mean(0)),
        "these are quantiles of the values themselves; wanted those of the means of the resamples.": ends(values),
        "this is the middle 90 %; the middle 95 % leaves 2.5 % at each end.": ends(values[draws].mean(1), 0.05),
    }
    expect(answer, (values, draws), ends(values[draws].mean(1)), wrong)
    passed(answer, "the middle 95 % of the resampled means.")


# Lesson 6


def counterexample(answer: Callable) -> None:
    activation = torch.tensor([[0.1, 0.9, 0.2], [0.3, 0.0, 0.3], [0.7, 0.1, 0.2]])
    present = activation == 0.9
    wrong = {
        "the value is present there: look only where it is absent.": (0, 1),
        "picture and cell are exchanged.": (0, 2),
    }
    expect(answer, (activation, present), (2, 0), wrong)
    passed(answer, "the loudest voice against the label.")


def fair_best(answer: Callable) -> None:
    scores = torch.tensor([0.1, 0.5, 0.2, 0.9, 0.3])
    draws = torch.tensor([[0, 1], [2, 4], [3, 0]])
    wrong = {
        "this is the best of all candidates, drawn or not.": 0.9,
        "no best is taken: this is the mean of what was drawn.": scores[draws].mean().item(),
        "the best over all draws is taken; wanted the best of each draw, then the mean over the draws.": scores[draws]
        .mean(1)
        .max()
        .item(),
    }
    expect(answer, (scores, draws), scores[draws].amax(1).mean().item(), wrong)
    passed(answer, "the best of equally many, on average.")


def verdict(answer: Callable) -> None:
    cases = ((0.2, 0.4, 0.1), (-0.3, -0.1, 0.0), (-0.1, 0.35, 0.0), (-0.4, 0.1, 0.0))
    wanted = ("holds", "fails", "undecided", "undecided")
    got = tuple(ask(answer, *case) for case in cases)
    wrong = {
        "only the middle of the interval is asked; wanted all of it.": ("holds", "fails", "holds", "fails"),
        "it holds as soon as even one end satisfies the rule; wanted both ends.": ("holds", "fails", "holds", "holds"),
        "what lies between the two is called fails; it is undecided.": ("holds", "fails", "fails", "fails"),
    }
    for sentence, mistaken in wrong.items():
        if got == mistaken:
            raise NotYet(f"{answer.__name__}: {sentence}")
    for case, word in zip(cases, wanted, strict=True):
        expect(answer, case, word)
    passed(answer, "all of the interval, or it is undecided.")
