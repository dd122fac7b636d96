"""What features write: the best-read features of each block, turned on or off in pictures that had no
part in choosing them.

The order of things: `well_read` says which feature is tried for which value, `choose_strengths` how strongly its
block's are turned on (both on the pictures of a `Reading`), `find_trials` in which later pictures; `measure_writing`
and `measure_erasing` draw them, and `samples_by_block` says how sure one is of the outcome.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from safetensors.torch import load_file, save_file
from torch import Tensor

from sae_lib.activations.drawing import draw_pictures
from sae_lib.assets import MODELS, Assets
from sae_lib.cache.artefact import cached
from sae_lib.features.feature import FeatureId, strength_unit
from sae_lib.features.interventions import (
    Intervention,
    add_features,
    during,
    intervene,
    replace_with_feature,
    skip_block,
)
from sae_lib.features.reading import NOISE_SEED, Reading, objects_in
from sae_lib.intervals import bootstrap_trials
from sae_lib.judges.attributes import attribute_values, judge_and_truth, see_values
from sae_lib.saes.controls import untrained
from sae_lib.saes.topk import TopKSAE

KINDS = ("feature", "random feature")
"""What is added: the feature, or another live one of the same block in the same place with the same norm. The other one
may read the same value, so that as a control it is strict."""

QUANTITIES = ("before", "after", "others changed", "distance")
"""Of a trial: whether the judge sees the value in the unedited picture and in the edited one, how many other values
came or went, and, where it is asked for, the perceptual distance between the two pictures."""

EVERYWHERE, AROUND = ("position", "style"), ("background",)
"""Families whose features are turned on in the whole picture, since where an object stands cannot be said on the
object's own cells; and around the objects. All others are turned on on the objects."""

STRENGTHS = (5.0, 10.0, 20.0)
"""Tried for each block, in units of a feature's mean activation; 10 is the authors' default for painting."""

TRIED = {"smoke": (2, 1), "pocket": (20, 2)}
"""Features of each block that are tried when its strength is chosen, the best-read ones, and in how many
captions each, by scale."""

TRIED_AGAIN = {"smoke": (2, 1), "pocket": (4, 8)}
"""Of those the ones that raised their value most, and in how many captions each is tried again."""

NEARLY = 0.1
"""Of the strengths whose rise is within this of the largest the smallest is chosen: a push
changes other values, too."""


class Target(NamedTuple):
    """A feature and the attribute value that it reads."""

    id: FeatureId
    value: int
    """Its number among `attribute_values`; -1 where nothing knows the truth."""
    score: float
    """How well it reads it, in pictures that had no part in finding the value."""

    @property
    def label(self) -> str:
        """The value in words."""
        return attribute_values()[self.value][1]


class Trials(NamedTuple):
    """Which target is tried in which pictures of a reading."""

    targets: list[Target]
    which: Int[Tensor, " trials"]
    """The target's place in `targets`."""
    rows: Int[Tensor, " trials"]
    """The picture's row in the reading."""

    @property
    def chosen(self) -> list[Target]:
        """The target of each trial."""
        return [self.targets[i] for i in self.which.tolist()]

    @property
    def blocks(self) -> list[str]:
        """The blocks that are tried, in the order of the targets."""
        return list(dict.fromkeys(each.id.block for each in self.chosen))

    def of_block(self, block: str) -> Int[Tensor, " trials"]:
        """The numbers of the trials of one block's features."""
        at = [number for number, each in enumerate(self.chosen) if each.id.block == block]
        return torch.tensor(at, dtype=torch.long)

    def take(self, at: Int[Tensor, " taken"]) -> "Trials":
        """Some of the trials."""
        return Trials(self.targets, self.which[at], self.rows[at])


class Written(NamedTuple):
    """What a feature wrote when it was tried in one step of Turbo, in pictures that do not show its
    value; means over these."""

    rise: float
    """How much more often its value is there, minus the same of random features in its place."""
    others: float
    """How many other values came or went."""
    gain: float
    """The rise, less the other values that come or go for each value that the picture shows: 0 or less where
    it redraws the picture."""
    strength: float
    """At which it was turned on, in units of its mean activation."""


class Strengths(NamedTuple):
    """How strongly each block's features are turned on, and what that was chosen by."""

    chosen: dict[str, float]
    """In units of a feature's mean activation."""
    rises: dict[str, list[float]]
    """By block, at each of STRENGTHS, the mean rise minus that of random features."""
    by_feature: dict[FeatureId, Written]
    """Of each feature that was tried, at its block's strength."""


def well_read(reading: Reading, per_block: int) -> list[Target]:
    """Of each block the live features with the highest reading score, best first: found and scored in separate
    halves of the pictures."""
    targets = []
    for block in reading.assets.blocks:
        meaning, live = reading.meaning(block), reading.live(block)
        for feature in live[meaning.score[live].argsort(descending=True)[:per_block]].tolist():
            value, score = meaning.value[feature].item(), meaning.score[feature].item()
            targets.append(Target(FeatureId(block, feature), value, score))
    return targets


def one_per_value(targets: Sequence[Target], per_block: int) -> list[Target]:
    """Of each block the first targets whose values differ."""
    first: dict[tuple[str, int], Target] = {}
    for each in targets:
        first.setdefault((each.id.block, each.value), each)
    blocks = dict.fromkeys(each.id.block for each in targets)
    return [each for block in blocks for each in [t for t in first.values() if t.id.block == block][:per_block]]


def find_trials(
    targets: Sequence[Target],
    later: Reading,
    per_feature: int,
    showing: bool = False,
    among: Sequence[int] | None = None,
) -> Trials:
    """Each target in pictures that do not show its value by the judge, other ones for each target as far as there are.

    showing: in pictures that do show it and in which the feature is active, so that it can be turned off. among: only
    in these rows. A value that all pictures show, or none, leaves a target with fewer trials, or without any.
    """
    which, rows = [], []
    allowed = torch.arange(len(later)) if among is None else torch.tensor(list(among))
    for place, target in enumerate(targets):
        fits = later.shows[allowed, target.value] == showing
        if showing:
            fits &= later.means(target.id.block)[allowed, target.id.feature] > 0
        fitting = allowed[fits].tolist()
        start = place * per_feature % max(1, len(fitting))
        chosen = (fitting[start:] + fitting[:start])[:per_feature]
        which += [place] * len(chosen)
        rows += chosen
    return Trials(list(targets), torch.tensor(which, dtype=torch.long), torch.tensor(rows, dtype=torch.long))


def choose_strengths(reading: Reading, features: int, captions: int, seed: int = 0) -> Strengths:
    """For each block the smallest of STRENGTHS at which its best-read features raise their values nearly as much above
    random features as at any of them (NEARLY).

    Measured in one step on the pictures in which the features were chosen, `features` of a block in `captions` pictures
    each (TRIED), and kept in the cache.
    """
    trials = find_trials(well_read(reading, features), reading, captions)

    def make(folder: Path) -> None:
        found = torch.stack([measure_writing(reading, trials, each, seed=seed) for each in STRENGTHS])
        (folder / "rises.json").write_text(json.dumps([_above_random(found).tolist(), found[:, :, 0, 2].tolist()]))

    inputs = {"reading": reading.make().name, "features": features, "captions": captions, "seed": seed}
    measured = json.loads((cached("strengths", inputs, make) / "rises.json").read_text())
    rises, others = map(torch.tensor, measured)
    by_block = {block: rises[:, trials.of_block(block)].mean(1).tolist() for block in trials.blocks}
    at = {b: next(i for i, rise in enumerate(each) if rise >= max(each) - NEARLY) for b, each in by_block.items()}
    chosen = torch.tensor([at[target.id.block] for target in trials.chosen])
    strengths = {block: STRENGTHS[i] for block, i in at.items()}
    measured = (each[chosen, torch.arange(len(chosen))] for each in (rises, others))
    by_feature = {target.id: each for target, each in _by_target(reading, trials, *measured, strengths).items()}
    return Strengths(strengths, by_block, by_feature)


def _by_target(
    reading: Reading,
    trials: Trials,
    rises: Float[Tensor, " trials"],
    others: Float[Tensor, " trials"],
    strengths: Mapping[str, float],
) -> dict[Target, Written]:
    """The means over the trials of each target that has any. strengths: by block."""
    shown = reading.shows[trials.rows].sum(1).clamp(min=1)  # a judge that abstains may see no value at all
    gains = rises - others / shown
    return {
        target: Written(*(each[mine].mean().item() for each in (rises, others, gains)), strengths[target.id.block])
        for place, target in enumerate(trials.targets)
        if (mine := trials.which == place).any()
    }


def _above_random(measured: Float[Tensor, "*trials kinds quantities"]) -> Float[Tensor, "*trials"]:
    """The rise of the value with the feature turned on, minus that with the random one."""
    rises = measured[..., 1] - measured[..., 0]
    return rises[..., 0] - rises[..., 1]


def well_written(targets: Sequence[Target], strengths: Strengths) -> list[Target]:
    """The targets that were tried when strengths were chosen: of each block those first that raised their value most,
    of these those that changed the fewest other values, and of these the best read."""
    tried = [each for each in targets if each.id in strengths.by_feature]
    blocks = list(dict.fromkeys(each.id.block for each in tried))

    def place(target: Target) -> tuple[int, float, float, float]:
        found = strengths.by_feature[target.id]
        return blocks.index(target.id.block), -found.rise, found.others, -target.score

    return sorted(tried, key=place)


def tried_again(
    reading: Reading, ranked: Sequence[Target], per_block: int, captions: int, seed: int = 0
) -> dict[Target, Written]:
    """The first of some ranked targets, tried in more captions of the same reading (TRIED_AGAIN): block by block,
    the largest gain first.

    ranked: such as from `well_written`. Of each block its first `per_block` are tried, and as many of those that read
    an object's value, each at all of STRENGTHS: what is said of it is what it wrote where it gained most, or nearly
    (NEARLY) as much at a smaller one. Kept in the cache.
    """
    values, tried = attribute_values(), {}
    for block in dict.fromkeys(each.id.block for each in ranked):
        mine = [each for each in ranked if each.id.block == block]
        of_objects = [each for each in mine if values[each.value][0] not in EVERYWHERE]
        tried |= dict.fromkeys(mine[:per_block] + of_objects[:per_block])
    trials = find_trials(list(tried), reading, captions)

    def make(folder: Path) -> None:
        found = [measure_writing(reading, trials, each, seed=seed) for each in STRENGTHS]
        told = [[_above_random(each).tolist(), each[:, 0, 2].tolist()] for each in found]
        (folder / "rises.json").write_text(json.dumps(told))

    inputs = {"reading": reading.make().name, "captions": captions, "seed": seed}
    inputs |= {"tried": [str(each.id) for each in trials.targets]}
    measured = json.loads((cached("tried_again", inputs, make) / "rises.json").read_text())
    blocks = list(dict.fromkeys(each.id.block for each in ranked))
    at_each = [
        _by_target(reading, trials, *map(torch.tensor, each), dict.fromkeys(blocks, strength))
        for strength, each in zip(STRENGTHS, measured, strict=True)
    ]
    found = {}
    for target in at_each[0]:
        most = max(each[target].gain for each in at_each)
        found[target] = next(each[target] for each in at_each if each[target].gain >= most - NEARLY)
    return dict(sorted(found.items(), key=lambda each: (blocks.index(each[0].id.block), -each[1].gain)))


def amount_of(assets: Assets, feature: FeatureId, strength: float | Mapping[str, float]) -> float:
    """A strength in units of activation: times the feature's mean. strength: one for all blocks, or by block."""
    times = strength if isinstance(strength, int | float) else strength[feature.block]
    return times * strength_unit(assets.statistics()[feature.block], feature.feature)


def write(
    assets: Assets,
    model: str,
    prompts: Sequence[str],
    noise: Sequence[int],
    features: Sequence[FeatureId],
    amounts: Sequence[float],
    masks: Sequence[Float[Tensor, "_ _"] | None] | None = None,
    guidance: str = "both",
    span: tuple[int, int] | None = None,
    saes: Mapping[str, TopKSAE] | None = None,
    seed: int = NOISE_SEED,
) -> Float[Tensor, "pictures 3 height width"]:
    """Pictures in each of which one feature is turned on, whichever block it belongs to: pictures of
    several blocks share a call.

    model: one of `MODELS`. noise: whose noise each picture gets. amounts: in units of activation. masks: at each
    feature's own grid, None for everywhere. guidance: see `add_features`. span: the steps during which it is on, None
    for all. saes: other dictionaries than the assets' panel SAEs, such as a control's.

    Raises ValueError, from the pipeline call, for a mask of another block's grid, and what
    `add_features` and `during` raise.
    """
    name, call = assets.call(model, seed)
    pipe, saes, masks, parts = assets.pipe(name), saes or assets.saes(), masks or [None] * len(prompts), []
    for start in range(0, len(prompts), call.batch_size):
        batch = range(start, min(start + call.batch_size, len(prompts)))
        changes = {}
        for block in dict.fromkeys(features[i].block for i in batch):
            mine = [features[i].block == block for i in batch]
            side = assets.grid(block, name)
            there = [masks[i] if own else None for i, own in zip(batch, mine, strict=True)]
            shown = torch.stack([torch.ones(side, side) if mask is None else mask.float() for mask in there])
            numbers = torch.tensor([features[i].feature * own for i, own in zip(batch, mine, strict=True)])
            added = torch.tensor([amounts[i] * own for i, own in zip(batch, mine, strict=True)])
            fn = add_features(saes[block], numbers, added, shown, guidance)
            changes[block] = during(fn, *span) if span else fn
        with intervene(pipe, changes):
            parts.append(draw_pictures(pipe, [prompts[i] for i in batch], call, [noise[i] for i in batch]))
    return torch.cat(parts)


def draw_changed(
    assets: Assets,
    change: Callable[..., Intervention],
    features: Sequence[FeatureId],
    amounts: Sequence[float],
    prompts: Sequence[str],
    noise: Sequence[int],
    saes: Mapping[str, TopKSAE] | None = None,
    seed: int = NOISE_SEED,
    turn: Callable[[], AbstractContextManager] = nullcontext,
) -> Float[Tensor, "pictures 3 height width"]:
    """Pictures of one step of Turbo, each with its feature's block under `change(sae, features,
    amounts)`, such as `modulate`.

    noise: whose noise each picture gets. saes: other dictionaries than the assets' panel SAEs, such as a control's.
    turn: entered for each batch, by whoever shares the models with others.
    """
    (name, call), drawn = assets.call(MODELS[0], seed), {}
    for block in dict.fromkeys(each.block for each in features):
        mine = [i for i, each in enumerate(features) if each.block == block]
        for start in range(0, len(mine), call.batch_size):
            batch = mine[start : start + call.batch_size]
            numbers = torch.tensor([features[i].feature for i in batch])
            with turn():
                pipe, sae = assets.pipe(name), (saes or assets.saes())[block]
                with intervene(pipe, {block: change(sae, numbers, torch.tensor([amounts[i] for i in batch]))}):
                    asked = [prompts[i] for i in batch], call, [noise[i] for i in batch]
                    drawn |= zip(batch, draw_pictures(pipe, *asked), strict=True)
    return torch.stack([drawn[i] for i in range(len(features))])


def draw_icons(
    assets: Assets,
    features: Sequence[FeatureId],
    amounts: Sequence[float],
    saes: Mapping[str, TopKSAE] | None = None,
    seed: int = NOISE_SEED,
    noise: int = 0,
) -> Float[Tensor, "features 3 height width"]:
    """The features' icons (paper: the empty prompt, one step; the block gives out its input and the
    feature), all with one noise.

    amounts: in units of activation, in the paper gamma * k * the feature's mean. noise: its number.
    saes: see `draw_changed`.
    """
    empty = [""] * len(features), [noise] * len(features)
    return draw_changed(assets, replace_with_feature, features, amounts, *empty, saes, seed)


def places_to_write(later: Reading, trials: Trials, model: str = MODELS[0]) -> list[Float[Tensor, "_ _"] | None]:
    """Where each trial's feature is turned on: at its block's grid, where the judge sees an object in the model's own
    unedited picture, or, for the families of AROUND, where it sees none.

    None for the whole picture: for the families of EVERYWHERE, where no cell would be left, and where
    nothing knows the truth.
    """
    if not later.assets.known:
        return [None] * len(trials.rows)
    families = [name for name, _ in attribute_values()]
    rows, place = trials.rows.unique(return_inverse=True)
    if model == MODELS[0]:
        truths = {later.assets.grid(block): later.truth(block).take(rows) for block in trials.blocks}
    else:
        grids = {later.assets.grid(block) for block in trials.blocks}
        truths = judge_and_truth(later.assets.judge, later.unedited(model, rows.tolist()), grids)[1]
    objects, masks = {side: objects_in(truth) for side, truth in truths.items()}, []
    for target, row in zip(trials.chosen, place.tolist(), strict=True):
        there, family = objects[later.assets.grid(target.id.block)][row], families[target.value]
        there = ~there if family in AROUND else there
        everywhere = family in EVERYWHERE or there.all() or not there.any()
        masks.append(None if everywhere else there.float())
    return masks


def draw_written(
    later: Reading,
    trials: Trials,
    strength: float | Mapping[str, float] = 10.0,
    model: str = MODELS[0],
    guidance: str = "both",
    seed: int = 0,
    kinds: Sequence[str] = KINDS,
) -> dict[str, Float[Tensor, "trials 3 height width"]]:
    """By kind, each trial's picture with its feature turned on, and with a random one in the same
    place with the same norm.

    Where: see `places_to_write`. strength: in units of the feature's mean activation, one for all blocks or by block.
    kinds: those of KINDS that are drawn.
    """
    rows, ids = trials.rows.tolist(), [each.id for each in trials.chosen]
    features = {KINDS[0]: ids, KINDS[1]: random_features(later, ids, seed)}
    amounts = [amount_of(later.assets, each, strength) for each in ids]
    asked = [later.prompts[row] for row in rows], later.noise(rows)
    masks = places_to_write(later, trials, model)
    return {
        kind: write(later.assets, model, *asked, features[kind], amounts, masks, guidance, seed=NOISE_SEED)
        for kind in kinds
    }


def measure_writing(
    later: Reading,
    trials: Trials,
    strength: float | Mapping[str, float] = 10.0,
    model: str = MODELS[0],
    guidance: str = "both",
    seed: int = 0,
    kinds: Sequence[str] = KINDS,
    distance: bool = False,
) -> Float[Tensor, "trials kinds quantities"]:
    """What turning each trial's feature on does, beside a random live feature of the same block in the same
    place with the same norm.

    Arguments: see `draw_written`. distance: measured as well, as a fourth quantity. Where nothing knows the truth, the
    judge's quantities are nan.
    """
    before, found = _seen_before(later, trials, model), []
    for after in draw_written(later, trials, strength, model, guidance, seed, kinds).values():
        found.append(_compare(before, _seen(later, after), [each.value for each in trials.chosen]))
        if distance:
            far = later.assets.distance(later.unedited(model, trials.rows.tolist()), after)
            found[-1] = torch.cat([found[-1], far[:, None]], 1)
    return torch.stack(found, 1)


def measure_erasing(
    later: Reading, trials: Trials, seed: int = 0
) -> Float[Tensor, "trials kinds_and_ablation quantities"]:
    """What turning each trial's feature off does in one step: its own activation map, times the feature, is
    taken off the update.

    Beside it a random live feature of the same block, taken off in the same places by as much; and the block's own
    ablation, which is the most that its features together can erase.
    """
    assets, rows, chosen = later.assets, trials.rows.tolist(), trials.chosen
    prompts, noise = [later.prompts[row] for row in rows], later.noise(rows)
    masks = [later.maps(each.id.block, each.id.feature, [row])[0] for each, row in zip(chosen, rows, strict=True)]
    before, values = later.shows[trials.rows], [each.value for each in chosen]
    kinds, off = [], [-1.0] * len(rows)
    for features in ([each.id for each in chosen], random_features(later, [each.id for each in chosen], seed)):
        after = write(assets, MODELS[0], prompts, noise, features, off, masks)
        kinds.append(_compare(before, see_values(assets.judge, after), values))
    ablated = torch.zeros_like(before)
    name, call = assets.call(MODELS[0], NOISE_SEED)
    for block in trials.blocks:
        at = trials.of_block(block)
        unique, place = trials.rows[at].unique(return_inverse=True)
        with intervene(assets.pipe(name), {block: skip_block}):
            drawn = draw_pictures(
                assets.pipe(name), [later.prompts[i] for i in unique], call, later.noise(unique.tolist())
            )
        ablated[at] = see_values(assets.judge, drawn)[place]
    return torch.stack([*kinds, _compare(before, ablated, values)], 1)


def measure_timing(
    later: Reading,
    trials: Trials,
    spans: Sequence[tuple[int, int]],
    strength: float | Mapping[str, float] = 10.0,
    model: str = MODELS[1],
    seed: int = 0,
) -> tuple[Float[Tensor, "trials spans 2"], float]:
    """How far each trial's feature moves its picture when it is on during some steps only, beside a random direction of
    the same norm in the same place; and how far rounding to 8 bits moves a picture, below which no eye sees a change.

    In amplitudes: square roots of the perceptual distance, which is a squared one.
    """
    assets, rows, ids = later.assets, trials.rows.tolist(), [each.id for each in trials.chosen]
    control = {block: untrained(sae, seed + i) for i, (block, sae) in enumerate(assets.saes().items())}
    numbers = torch.randint(2**30, (len(ids),), generator=torch.Generator().manual_seed(seed)).tolist()
    random = [FeatureId(b, number % control[b].n_f) for (b, _), number in zip(ids, numbers, strict=True)]
    asked = [later.prompts[row] for row in rows], later.noise(rows)
    rest = [amount_of(assets, each, strength) for each in ids], places_to_write(later, trials, model)
    unedited = later.unedited(model, rows)
    far = assets.distance.against(unedited)
    found = [
        far(write(assets, model, *asked, features, *rest, span=span, saes=saes))[0]
        for span in spans
        for features, saes in ((ids, None), (random, control))
    ]
    rounded = far((unedited * 255).round() / 255)[0].mean().sqrt().item()
    return torch.stack(found, 1).sqrt().unflatten(1, (-1, 2)), rounded


def random_features(reading: Reading, features: Sequence[FeatureId], seed: int = 0) -> list[FeatureId]:
    """For each feature another live one of its block. Raises ValueError for a block that has no other."""
    generator, live, drawn = torch.Generator().manual_seed(seed), {}, []
    for each in features:
        if each.block not in live:
            statistics = reading.assets.statistics()[each.block]
            live[each.block] = (statistics.mean > 0).nonzero().flatten()
        others = live[each.block][live[each.block] != each.feature]
        if not len(others):
            raise ValueError(f"{each} is the only live feature of {each.block}: there is no random one beside it")
        drawn.append(FeatureId(each.block, others[torch.randint(len(others), (), generator=generator)].item()))
    return drawn


def samples_by_block(
    trials: Trials, values: Float[Tensor, "trials ..."], resamples: int = 1000, seed: int = 0
) -> dict[str, Float[Tensor, "samples ..."]]:
    """By block the mean over its trials, then over samples of both features and captions (`bootstrap_trials`).

    A caption has the same weight in all blocks, so that blocks may be averaged or subtracted sample by sample. Of
    a block with one feature the samples vary with the captions alone. Raises ValueError for fewer than two
    features or captions in all.
    """
    blocks, flat = trials.blocks, values.flatten(1) if values.ndim > 1 else values[:, None]
    mine = torch.stack([torch.tensor([each.id.block == block for each in trials.chosen]) for block in blocks], 1)
    parts = torch.cat([(mine[:, :, None] * flat[:, None]).flatten(1), mine], 1)
    sums = bootstrap_trials(parts, trials.which, trials.rows, resamples, seed)
    means = sums[:, : -len(blocks)].unflatten(1, (len(blocks), -1)) / sums[:, -len(blocks) :, None]
    return {block: means[:, i].reshape(-1, *values.shape[1:]) for i, block in enumerate(blocks)}


def samples_by_family(
    trials: Trials, values: Float[Tensor, " trials"], resamples: int = 1000, seed: int = 0
) -> dict[str, Float[Tensor, "families samples"]]:
    """By block and by family, in the order of `attribute_values`, the mean over the trials of features that read its values,
    then over samples (`bootstrap_trials`); nan where fewer than two features or captions were tried."""
    names = [name for name, _ in attribute_values()]
    families, tried = list(dict.fromkeys(names)), [names[each.value] for each in trials.chosen]
    found = {}
    for block in dict.fromkeys(each.id.block for each in trials.targets):
        found[block] = torch.full((len(families), 1 + resamples), torch.nan, dtype=torch.float64)
        for row, family in zip(found[block], families, strict=True):
            at = torch.tensor([i for i in trials.of_block(block).tolist() if tried[i] == family], dtype=torch.long)
            which, rows = trials.which[at], trials.rows[at]
            if min(len(which.unique()), len(rows.unique())) > 1:
                row[:] = bootstrap_trials(values[at], which, rows, resamples, seed)
    return found


def _seen(later: Reading, pictures: Float[Tensor, "pictures 3 height width"]) -> Float[Tensor, "pictures values"]:
    """`see_values`, nan where nothing knows the truth."""
    if not later.assets.known:
        return torch.full((len(pictures), len(attribute_values())), torch.nan)
    return see_values(later.assets.judge, pictures)


def _seen_before(later: Reading, trials: Trials, model: str) -> Float[Tensor, "trials values"]:
    if model == MODELS[0] and later.assets.known:
        return later.shows[trials.rows]
    rows, place = trials.rows.unique(return_inverse=True)
    return _seen(later, later.unedited(model, rows.tolist()))[place]


def _compare(
    before: Float[Tensor, "trials values"], after: Float[Tensor, "trials values"], intended: Sequence[int]
) -> Float[Tensor, "trials 3"]:
    """The first three of QUANTITIES."""
    rows, aim = torch.arange(len(before)), torch.tensor(intended, dtype=torch.long)
    changed = (before != after).float()
    others = changed.sum(1) - changed[rows, aim]
    return torch.stack([before[rows, aim], after[rows, aim], others + 0 * after[rows, aim]], 1)


class Effects(NamedTuple):
    """What the best-read features do in one step, and how that was asked."""

    strengths: Strengths
    trials: dict[str, Trials]
    """"on": in later pictures that do not show the value; "off": in half as many that do, and in which
    the feature is active."""
    measured: dict[str, Float[Tensor, "trials kinds quantities"]]
    """By the same names: `measure_writing` with distances, and `measure_erasing`."""
    folder: Path
    """The artefact that holds them."""


def effects_in_one_step(
    reading: Reading, later: Reading, features: int = 20, captions: int = 4, strength: float = 0.0, seed: int = 0
) -> Effects:
    """The best-read features of each block, turned on and off in later pictures by one step of Turbo, from the
    cache if they are there.

    reading: in which features and strengths are chosen. features: of each block. captions: in which each is turned on.
    strength: in units of the mean activation, 0 for what `choose_strengths` says. Notebooks 08 and 09 ask the same, so
    that nothing is drawn twice.
    """
    strengths = choose_strengths(reading, features, max(1, captions // 2), seed)
    if strength:
        strengths = strengths._replace(chosen=dict.fromkeys(strengths.chosen, strength))
    targets = well_read(reading, features)
    counts = {"on": captions, "off": max(1, captions // 2)}
    trials = {side: find_trials(targets, later, count, side == "off") for side, count in counts.items()}
    tried = {side: [list(map(str, each.chosen)), each.rows.tolist()] for side, each in trials.items()}

    def make(folder: Path) -> None:
        on = measure_writing(later, trials["on"], strengths.chosen, seed=seed, distance=True)
        found = {"on": on, "off": measure_erasing(later, trials["off"], seed)}
        save_file({side: each.contiguous() for side, each in found.items()}, folder / "effects.safetensors")

    inputs = {"later": later.make().name, "tried": tried, "strength": strengths.chosen, "seed": seed}
    folder = cached("effects_in_one_step", inputs, make)
    found = load_file(folder / "effects.safetensors")
    return Effects(strengths, trials, {side: found[side] for side in trials}, folder)
