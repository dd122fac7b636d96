"""What features write: each block's best-read features, turned on or off in pictures that had no part in choosing them.

Its functions are called in this order. On the pictures of a `Reading`, `well_read` says which feature is tried
for which value, and `choose_strengths` how strongly the features of a block are turned on. `find_trials` says in
which later pictures they are tried, `measure_writing` and `measure_erasing` draw these, and `samples_by_block`
says how sure the outcome is.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from sae_lib.activations.drawing import draw_pictures
from sae_lib.assets import Assets
from sae_lib.cache.artefact import cached, cached_tensors
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
from sae_lib.judges.attributes import attribute_values, judge_and_truth, see_values
from sae_lib.judges.intervals import bootstrap_trials
from sae_lib.models.blocks import as_list
from sae_lib.models.prompts import load_pocket_captions
from sae_lib.pocket.judge import judge_images
from sae_lib.pocket.statements import least_sure
from sae_lib.saes.topk import TopKSAE

KINDS = ("feature", "random feature")
"""What is added: the feature, or a random live one of the same block in the same place with the same norm. The random
one may read the same value, which makes it a strict control."""

QUANTITIES = ("before", "after", "others changed", "distance")
"""What is measured in a trial: whether the judge sees the value before the edit and after it, how many other values
came or went, and, on request, the perceptual distance between the two pictures."""

EVERYWHERE, AROUND = ("position", "style"), ("background",)
"""Families whose features are turned on in the whole picture, since an object's own cells cannot say where it stands;
and families whose features are turned on around the objects. All others are turned on where the objects are."""

STRENGTHS = (5.0, 10.0, 20.0)
"""The strengths that each block is tried at, in units of a feature's mean activation; the authors paint with 10."""

TRIED = {"smoke": (2, 1), "pocket": (20, 2)}
"""By scale, how many best-read features of each block are tried when its strength is chosen, and in how many
captions each of them."""

TRIED_AGAIN = {"smoke": (2, 1), "pocket": (4, 8)}
"""By scale, how many of those are tried again (the ones that raised their value most), and in how many captions."""

NAMED = {
    "down.2.1": {2301: "evil", 3747: "image frame", 4998: "cartoon", 4074: "anime"},
    "up.0.1": {4977: "tiger stripes", 90: "fur"},
}
"""Features that the authors name in their demo [code]."""

SURE = 0.9
"""The judge counts as sure of a picture if it gives each value that the caption states at least this probability."""

NEARLY = 0.1
"""The smallest strength is chosen whose rise is within this of the largest, since a strong push
changes other values, too."""


class Target(NamedTuple):
    """A feature and the attribute value that it reads."""

    id: FeatureId
    value: int
    """Its number among `attribute_values`; -1 without a judge."""
    score: float
    """How well the feature reads the value, in pictures that had no part in finding it."""
    name: str = ""
    """What the feature is called without a judge."""

    @property
    def label(self) -> str:
        """The value in words."""
        return self.name or attribute_values()[self.value][1]

    @property
    def family(self) -> str:
        """What the value is one of, such as "colour"."""
        return attribute_values()[self.value][0]


class Trials(NamedTuple):
    """Which target is tried in which pictures of a reading."""

    targets: list[Target]
    which: Int[Tensor, " trials"]
    """The target's place in `targets`."""
    rows: Int[Tensor, " trials"]
    """The picture's row in the reading."""

    @classmethod
    def of_features(cls, features: Sequence[FeatureId], rows: Int[Tensor, " trials"]) -> "Trials":
        """Of one feature in each of some rows, whatever it reads."""
        once = list(dict.fromkeys(features))
        numbers = torch.tensor([once.index(feature) for feature in features])
        return cls([Target(feature, -1, 0.0) for feature in once], numbers, rows)

    @property
    def asked(self) -> list[list[str | int]]:
        """Feature and row of each trial, for an artefact's inputs."""
        return [[str(target.id), row] for target, row in zip(self.chosen, self.rows.tolist(), strict=True)]

    @property
    def chosen(self) -> list[Target]:
        """The target of each trial."""
        return [self.targets[i] for i in self.which.tolist()]

    @property
    def blocks(self) -> list[str]:
        """The blocks that are tried, in the order of the targets."""
        return list(dict.fromkeys(target.id.block for target in self.chosen))

    def of_block(self, block: str) -> Int[Tensor, " trials"]:
        """The numbers of the trials of one block's features."""
        at = [number for number, target in enumerate(self.chosen) if target.id.block == block]
        return torch.tensor(at, dtype=torch.long)

    def take(self, at: Int[Tensor, " taken"]) -> "Trials":
        """Some of the trials."""
        return Trials(self.targets, self.which[at], self.rows[at])


class Written(NamedTuple):
    """What a feature wrote in one step of Turbo: means over pictures that did not show its value."""

    rise: float
    """How much more often its value is there, minus the same for random features in its place."""
    others: float
    """How many other values came or went."""
    gain: float
    """The rise, minus the other values that came or went, per value that the picture shows: 0 or less where the
    feature redraws the picture."""
    strength: float
    """How strongly it was turned on, in units of its mean activation."""


class Strengths(NamedTuple):
    """How strongly each block's features are turned on, and the measurements that this was chosen by."""

    chosen: dict[str, float]
    """In units of a feature's mean activation."""
    rises: dict[str, list[float]]
    """By block, at each of STRENGTHS, the mean rise minus that of random features."""
    by_feature: dict[FeatureId, Written]
    """What each tried feature wrote at its block's strength."""


def well_read(reading: Reading, per_block: int) -> list[Target]:
    """Per block, the live features with the highest reading score, best first.

    Values are matched and scored in separate halves of the pictures.
    """
    targets = []
    for block in reading.assets.blocks:
        meaning, live = reading.meaning(block), reading.live(block)
        for feature in live[meaning.score[live].argsort(descending=True)[:per_block]].tolist():
            value, score = meaning.value[feature].item(), meaning.score[feature].item()
            targets.append(Target(FeatureId(block, feature), value, score))
    return targets


def named_features(reading: Reading, per_block: int = 2) -> list[Target]:
    """Per block, the features of NAMED, and up to `per_block` those whose mean activation varies most over pictures.

    For models without a judge.
    """
    targets = []
    for block, sae in reading.assets.saes().items():
        names = {feature: name for feature, name in NAMED.get(block, {}).items() if feature < sae.n_f}
        by_spread = reading.means(block).std(0).argsort(descending=True).tolist()
        unnamed = [feature for feature in by_spread if feature not in names]
        names |= dict.fromkeys(unnamed[: max(0, per_block - len(names))], "varies most")
        targets += [Target(FeatureId(block, feature), -1, 0.0, name) for feature, name in names.items()]
    return targets


def first_of_blocks(targets: Sequence[Target], per_block: int) -> list[Target]:
    """The first targets of each block."""
    blocks = dict.fromkeys(target.id.block for target in targets)
    return [target for block in blocks for target in [t for t in targets if t.id.block == block][:per_block]]


def one_per_value(targets: Sequence[Target], per_block: int) -> list[Target]:
    """Per block, the first targets whose values differ."""
    first: dict[tuple[str, int], Target] = {}
    for target in targets:
        first.setdefault((target.id.block, target.value), target)
    return first_of_blocks(list(first.values()), per_block)


def find_trials(
    targets: Sequence[Target],
    later: Reading,
    per_feature: int,
    showing: bool = False,
    among: Sequence[int] | None = None,
) -> Trials:
    """Pairs each target with pictures in which the judge does not see its value, and different targets with different
    pictures, as far as there are enough.

    showing: pictures that do show the value and in which the feature is active, so that it can be turned off. among:
    only these rows. A value that nearly all pictures show, or nearly none, leaves its target with few trials or none.
    Without a judge, the targets take the rows one after the other.
    """
    which, rows = [], []
    allowed = torch.arange(len(later)) if among is None else torch.tensor(list(among))
    if not later.assets.known:
        which = torch.arange(len(targets)).repeat_interleave(per_feature)
        return Trials(list(targets), which, allowed[torch.arange(len(which)) % len(allowed)])
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
    """Per block, the smallest of STRENGTHS at which its best-read features write nearly as much as at any (NEARLY).

    They write as much as they raise their values above what random features do. Measured in one step on the pictures in
    which the features were chosen, kept in the cache. features: per block. captions: per feature (TRIED).
    """
    trials = find_trials(well_read(reading, features), reading, captions)

    def make(folder: Path) -> None:
        tried = torch.stack([measure_writing(reading, trials, strength, seed=seed) for strength in STRENGTHS])
        (folder / "rises.json").write_text(json.dumps([_above_random(tried).tolist(), tried[:, :, 0, 2].tolist()]))

    inputs = {"reading": reading.make().name, "features": features, "captions": captions, "seed": seed}
    measured = json.loads((cached("strengths", inputs, make) / "rises.json").read_text())
    rises, others = map(torch.tensor, measured)
    by_block = {block: rises[:, trials.of_block(block)].mean(1).tolist() for block in trials.blocks}
    at = {b: next(i for i, rise in enumerate(mean) if rise >= max(mean) - NEARLY) for b, mean in by_block.items()}
    chosen = torch.tensor([at[target.id.block] for target in trials.chosen])
    strengths = {block: STRENGTHS[i] for block, i in at.items()}
    measured = (values[chosen, torch.arange(len(chosen))] for values in (rises, others))
    by_feature = {target.id: written for target, written in _by_target(reading, trials, *measured, strengths).items()}
    return Strengths(strengths, by_block, by_feature)


def _by_target(
    reading: Reading,
    trials: Trials,
    rises: Float[Tensor, " trials"],
    others: Float[Tensor, " trials"],
    strengths: Mapping[str, float],
) -> dict[Target, Written]:
    """The means over each target's trials, for targets that have any. strengths: by block."""
    shown = reading.shows[trials.rows].sum(1).clamp(min=1)  # a judge that abstains may see no value at all
    gains = rises - others / shown
    return {
        target: Written(*(values[mine].mean().item() for values in (rises, others, gains)), strengths[target.id.block])
        for place, target in enumerate(trials.targets)
        if (mine := trials.which == place).any()
    }


def _above_random(measured: Float[Tensor, "*trials kinds quantities"]) -> Float[Tensor, "*trials"]:
    """How much the feature raises its value, minus how much the random one does."""
    rises = measured[..., 1] - measured[..., 0]
    return rises[..., 0] - rises[..., 1]


def well_written(targets: Sequence[Target], strengths: Strengths) -> list[Target]:
    """The targets that were tried when strengths were chosen, ranked within each block.

    First come those that raised their value most; of equals, those that changed fewer other values,
    then the better read.
    """
    tried = [target for target in targets if target.id in strengths.by_feature]
    blocks = list(dict.fromkeys(target.id.block for target in tried))

    def place(target: Target) -> tuple[int, float, float, float]:
        written = strengths.by_feature[target.id]
        return blocks.index(target.id.block), -written.rise, written.others, -target.score

    return sorted(tried, key=place)


def tried_again(
    reading: Reading, ranked: Sequence[Target], per_block: int, captions: int, seed: int = 0
) -> dict[Target, Written]:
    """Tries the first of some ranked targets in more captions of the same reading (TRIED_AGAIN), and ranks them anew.

    ranked: such as from `well_written`. Per block, the first `per_block` targets are tried, and as many of those that
    read an object's value, at all of STRENGTHS. A target is judged at the smallest strength at which it gained nearly
    (NEARLY) as much as at any. Sorted by block, the largest gain first; kept in the cache.
    """
    tried: dict[Target, None] = {}
    for block in dict.fromkeys(target.id.block for target in ranked):
        mine = [target for target in ranked if target.id.block == block]
        of_objects = [target for target in mine if target.family not in EVERYWHERE]
        tried |= dict.fromkeys(mine[:per_block] + of_objects[:per_block])
    trials = find_trials(list(tried), reading, captions)

    def make(folder: Path) -> None:
        measured = [measure_writing(reading, trials, strength, seed=seed) for strength in STRENGTHS]
        rises = [[_above_random(tried).tolist(), tried[:, 0, 2].tolist()] for tried in measured]
        (folder / "rises.json").write_text(json.dumps(rises))

    inputs = {"reading": reading.make().name, "captions": captions, "seed": seed}
    inputs |= {"tried": [str(target.id) for target in trials.targets]}
    measured = json.loads((cached("tried_again", inputs, make) / "rises.json").read_text())
    blocks = list(dict.fromkeys(target.id.block for target in ranked))
    by_strength = [
        _by_target(reading, trials, *map(torch.tensor, values), dict.fromkeys(blocks, strength))
        for strength, values in zip(STRENGTHS, measured, strict=True)
    ]
    best = {}
    for target in by_strength[0]:
        written = [by_target[target] for by_target in by_strength]
        most = max(at_strength.gain for at_strength in written)
        best[target] = next(at_strength for at_strength in written if at_strength.gain >= most - NEARLY)
    return dict(sorted(best.items(), key=lambda pair: (blocks.index(pair[0].id.block), -pair[1].gain)))


def amount_of(assets: Assets, feature: FeatureId, strength: float | Mapping[str, float]) -> float:
    """The strength times the feature's mean activation. strength: one for all blocks, or by block."""
    times = strength if isinstance(strength, int | float) else strength[feature.block]
    return times * strength_unit(assets.statistics()[feature.block], feature.feature)


def write(
    assets: Assets,
    model: str,
    prompts: str | Sequence[str],
    noise: Sequence[int],
    features: Sequence[FeatureId],
    amounts: Sequence[float],
    masks: Sequence[Float[Tensor, "_ _"] | None] | None = None,
    guidance: str = "both",
    span: tuple[int, int] | None = None,
    saes: Mapping[str, TopKSAE] | None = None,
    seed: int = NOISE_SEED,
) -> Float[Tensor, "pictures 3 height width"]:
    """Draws pictures with one feature turned on in each; features of several blocks share a pipeline call.

    model: one of the assets' `models`. noise: the number of each picture's noise. amounts: in units of activation.
    masks: at the grid of each feature's block, None for everywhere. guidance: see `add_features`. span: the steps
    during which the feature is on, None for all. saes: other dictionaries than the assets' panel SAEs, such as a
    control's.

    Raises ValueError from the pipeline call for a mask of another block's grid, and what
    `add_features` and `during` raise.
    """
    (name, call), prompts = assets.call(model, seed), as_list(prompts)
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
    prompts: str | Sequence[str],
    noise: Sequence[int],
    saes: Mapping[str, TopKSAE] | None = None,
    seed: int = NOISE_SEED,
    turn: Callable[[], AbstractContextManager] = nullcontext,
) -> Float[Tensor, "pictures 3 height width"]:
    """Draws pictures in one step, each while its feature's block is changed by
    `change(sae, features, amounts)`.

    change: such as `modulate`. noise: the number of each picture's noise. saes: other dictionaries than the assets'
    panel SAEs, such as a control's. turn: entered for each batch, for a caller that shares the models with others.
    """
    (name, call), drawn, prompts = assets.call(assets.one_step, seed), {}, as_list(prompts)
    for block in dict.fromkeys(feature.block for feature in features):
        mine = [i for i, feature in enumerate(features) if feature.block == block]
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
    """The features' icons: the empty prompt in one step, where the block gives out its input and the feature (paper).

    All have the same noise, of the given number. amounts: in units of activation, in the paper gamma * k * the
    feature's mean. saes: see `draw_changed`.
    """
    empty = [""] * len(features), [noise] * len(features)
    return draw_changed(assets, replace_with_feature, features, amounts, *empty, saes, seed)


def places_to_write(later: Reading, trials: Trials, model: str = "") -> list[Float[Tensor, "_ _"] | None]:
    """Per trial, the mask at the block's grid in which the feature is turned on.

    It is that of `cells_to_write`, by the objects that the judge sees in the model's own unedited picture. None is the
    whole picture, also without a judge. model: one of the assets' `models`, by default the first.
    """
    if not later.assets.known:
        return [None] * len(trials.rows)
    rows, place = trials.rows.unique(return_inverse=True)
    if model in ("", later.assets.one_step):
        truths = {later.assets.grid(block): later.truth(block).take(rows) for block in trials.blocks}
    else:
        grids = {later.assets.grid(block) for block in trials.blocks}
        truths = judge_and_truth(later.assets.judge, later.unedited(model, rows.tolist()), grids)[1]
    objects, masks = {side: objects_in(truth) for side, truth in truths.items()}, []
    for target, row in zip(trials.chosen, place.tolist(), strict=True):
        masks.append(cells_to_write(target.family, objects[later.assets.grid(target.id.block)][row]))
    return masks


def cells_to_write(family: str, objects: Bool[Tensor, "side side"]) -> Float[Tensor, "side side"] | None:
    """The mask in which a feature that reads a family's values is turned on: the objects' cells,
    or all others (AROUND).

    None for the whole picture: for the families of EVERYWHERE, and where no cell would be left.
    """
    cells = ~objects if family in AROUND else objects
    return None if family in EVERYWHERE or not cells.any() else cells.float()


def draw_written(
    later: Reading,
    trials: Trials,
    strength: float | Mapping[str, float] = 10.0,
    model: str = "",
    guidance: str = "both",
    seed: int = 0,
    kinds: Sequence[str] = KINDS,
) -> dict[str, Float[Tensor, "trials 3 height width"]]:
    """By kind, each trial's picture with its feature turned on, or a random one in the same place with the same norm.

    The place is that of `places_to_write`. strength: in units of the feature's mean activation, one for all blocks or
    by block. kinds: those of KINDS that are drawn.
    """
    model = model or later.assets.one_step
    rows, ids = trials.rows.tolist(), [target.id for target in trials.chosen]
    features = {KINDS[0]: ids, KINDS[1]: random_features(later, ids, seed)}
    amounts = [amount_of(later.assets, feature, strength) for feature in ids]
    asked = [later.prompts[row] for row in rows], later.noise(rows)
    masks = places_to_write(later, trials, model)
    return {
        kind: write(later.assets, model, *asked, features[kind], amounts, masks, guidance, seed=NOISE_SEED)
        for kind in kinds
    }


def ease_of_captions(later: Reading, sure: float = SURE) -> list[int]:
    """How well each caption suits a figure: 1 if it names one object and the judge is sure of its unedited picture.

    2 if that object is also easy to see in print, neither small nor pastel. Else 0, also without a judge.
    """
    if not later.assets.known:
        return [0] * len(later)
    captions = load_pocket_captions(later.first + len(later), "held-out")[later.first :]
    ease = []
    for caption, judged in zip(captions, judge_images(later.assets.judge, later.pictures), strict=True):
        fits = len(caption.objects) == 1 and least_sure(caption, judged) >= sure
        easy = fits and caption.scene.get("style") != "pastel" and caption.objects[0].get("size") != "small"
        ease.append(fits + easy)
    return ease


def captions_for(targets: Sequence[Target], later: Reading, ease: Sequence[int]) -> Int[Tensor, " targets"]:
    """For each target the row of a caption of its own whose picture does not show its value, the easiest first.

    ease: such as from `ease_of_captions`. Without a judge, the first rows.
    """
    if not later.assets.known:
        return torch.arange(len(targets)) % len(later)
    rows: list[int] = []
    for target in targets:
        fitting = [row for row in range(len(later)) if row not in rows and not later.shows[row, target.value]] or [0]
        rows.append(max(fitting, key=lambda row: ease[row]))
    return torch.tensor(rows)


def draw_lines(
    later: Reading,
    targets: Sequence[Target],
    rows: Int[Tensor, " targets"],
    strength: float | Mapping[str, float],
    seed: int = 0,
) -> tuple[Trials, Float[Tensor, "targets models 3 3 height width"]]:
    """Each target in one row, by each of the assets' `models` (paper: Fig. 1): the trials, and their cached pictures.

    The unedited picture, the one with the feature turned on, the one with a random feature: see `draw_written`.
    """
    trials = Trials(list(targets), torch.arange(len(targets)), rows)
    for model in later.assets.models:
        later.will_draw(model, rows.unique().tolist())

    def make() -> dict[str, Tensor]:
        models: list[Tensor] = []
        for model in later.assets.models:
            written = draw_written(later, trials, strength, model, seed=seed)
            drawn = torch.stack([later.unedited(model, rows.tolist()), *written.values()], 1)
            times = drawn.shape[-1] // (models[0] if models else drawn).shape[-1]  # base's are larger at sdxl scale
            models.append(drawn[..., ::times, ::times])
        return {"lines": torch.stack(models, 1)}

    inputs = later.assets.identity | {"lines": trials.asked, "strength": strength, "seed": seed}
    inputs["steps"] = later.assets.counts.base_steps
    return trials, cached_tensors("figure1_lines", inputs, make)[1]["lines"]


def measure_writing(
    later: Reading,
    trials: Trials,
    strength: float | Mapping[str, float] = 10.0,
    model: str = "",
    guidance: str = "both",
    seed: int = 0,
    kinds: Sequence[str] = KINDS,
    distance: bool = False,
) -> Float[Tensor, "trials kinds quantities"]:
    """What turning each trial's feature on does, and what a random one of KINDS does in its place.

    The arguments are those of `draw_written`. distance: whether the fourth of QUANTITIES is measured. Where nothing
    knows the truth, the judge's quantities are nan.
    """
    model, kinds_measured = model or later.assets.one_step, []
    before = _seen_before(later, trials, model)
    for after in draw_written(later, trials, strength, model, guidance, seed, kinds).values():
        quantities = _compare(before, _seen(later, after), [target.value for target in trials.chosen])
        if distance:
            far = later.assets.distance(later.unedited(model, trials.rows.tolist()), after)
            quantities = torch.cat([quantities, far[:, None]], 1)
        kinds_measured.append(quantities)
    return torch.stack(kinds_measured, 1)


def measure_erasing(
    later: Reading, trials: Trials, seed: int = 0
) -> Float[Tensor, "trials kinds_and_ablation quantities"]:
    """What turning each trial's feature off does in one step, where its activation map times the feature is subtracted.

    Measured beside it are a random live feature of the same block, subtracted in the same places by as much, and the
    block's ablation, which is the most that its features can erase together.
    """
    assets, rows, chosen = later.assets, trials.rows.tolist(), trials.chosen
    prompts, noise = [later.prompts[row] for row in rows], later.noise(rows)
    masks = [later.maps(target.id.block, target.id.feature, [row])[0] for target, row in zip(chosen, rows, strict=True)]
    before, values = later.shows[trials.rows], [target.value for target in chosen]
    kinds, off = [], [-1.0] * len(rows)
    for features in ([target.id for target in chosen], random_features(later, [target.id for target in chosen], seed)):
        after = write(assets, assets.one_step, prompts, noise, features, off, masks)
        kinds.append(_compare(before, see_values(assets.judge, after), values))
    ablated = torch.zeros_like(before)
    name, call = assets.call(assets.one_step, NOISE_SEED)
    for block in trials.blocks:
        at = trials.of_block(block)
        unique, place = trials.rows[at].unique(return_inverse=True)
        with intervene(assets.pipe(name), {block: skip_block}):
            drawn = draw_pictures(
                assets.pipe(name), [later.prompts[i] for i in unique], call, later.noise(unique.tolist())
            )
        ablated[at] = see_values(assets.judge, drawn)[place]
    return torch.stack([*kinds, _compare(before, ablated, values)], 1)


def random_features(reading: Reading, features: Sequence[FeatureId], seed: int = 0) -> list[FeatureId]:
    """For each feature another live one of its block, at random. Raises ValueError for a block that has no other."""
    generator, live, drawn = torch.Generator().manual_seed(seed), {}, []
    for feature in features:
        if feature.block not in live:
            statistics = reading.assets.statistics()[feature.block]
            live[feature.block] = (statistics.mean > 0).nonzero().flatten()
        others = live[feature.block][live[feature.block] != feature.feature]
        if not len(others):
            raise ValueError(f"{feature} is the only live feature of {feature.block}: there is no random one beside it")
        drawn.append(FeatureId(feature.block, others[torch.randint(len(others), (), generator=generator)].item()))
    return drawn


def samples_by_block(
    trials: Trials, values: Float[Tensor, "trials ..."], resamples: int = 1000, seed: int = 0
) -> dict[str, Float[Tensor, "samples ..."]]:
    """By block, the mean over its trials, then its means over samples of features and captions (`bootstrap_trials`).

    A caption has the same weight in all blocks, so that blocks may be averaged or subtracted sample by sample. The
    samples of a block with one feature vary with the captions alone.

    Raises ValueError for fewer than two features or captions in all.
    """
    blocks, flat = trials.blocks, values.flatten(1) if values.ndim > 1 else values[:, None]
    mine = torch.stack([torch.tensor([target.id.block == block for target in trials.chosen]) for block in blocks], 1)
    parts = torch.cat([(mine[:, :, None] * flat[:, None]).flatten(1), mine], 1)
    sums = bootstrap_trials(parts, trials.which, trials.rows, resamples, seed)
    means = sums[:, : -len(blocks)].unflatten(1, (len(blocks), -1)) / sums[:, -len(blocks) :, None]
    return {block: means[:, i].reshape(-1, *values.shape[1:]) for i, block in enumerate(blocks)}


def samples_by_family(
    trials: Trials, values: Float[Tensor, " trials"], resamples: int = 1000, seed: int = 0
) -> dict[str, Float[Tensor, "families samples"]]:
    """By block and family, the mean over the trials of features that read the family's values, then its means
    over samples (`bootstrap_trials`).

    Families are in the order of `attribute_values`. nan where fewer than two features or captions were tried.
    """
    names = [name for name, _ in attribute_values()]
    families, tried = list(dict.fromkeys(names)), [names[target.value] for target in trials.chosen]
    samples = {}
    for block in dict.fromkeys(target.id.block for target in trials.targets):
        samples[block] = torch.full((len(families), 1 + resamples), torch.nan, dtype=torch.float64)
        for row, family in zip(samples[block], families, strict=True):
            at = torch.tensor([i for i in trials.of_block(block).tolist() if tried[i] == family], dtype=torch.long)
            which, rows = trials.which[at], trials.rows[at]
            if min(len(which.unique()), len(rows.unique())) > 1:
                row[:] = bootstrap_trials(values[at], which, rows, resamples, seed)
    return samples


def _seen(later: Reading, pictures: Float[Tensor, "pictures 3 height width"]) -> Float[Tensor, "pictures values"]:
    """`see_values`, nan without a judge."""
    if not later.assets.known:
        return torch.full((len(pictures), len(attribute_values())), torch.nan)
    return see_values(later.assets.judge, pictures)


def _seen_before(later: Reading, trials: Trials, model: str) -> Float[Tensor, "trials values"]:
    if model == later.assets.one_step and later.assets.known:
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
    """What the best-read features do in one step, and the trials that it was measured in."""

    strengths: Strengths
    trials: dict[str, Trials]
    """"on": later pictures that do not show the value; "off": half as many that show it and in which
    the feature is active."""
    measured: dict[str, Float[Tensor, "trials kinds quantities"]]
    """By the same names, the results of `measure_writing` with distances and of `measure_erasing`."""
    folder: Path
    """The artefact that holds them."""


def effects_in_one_step(
    reading: Reading, later: Reading, features: int = 20, captions: int = 4, strength: float = 0.0, seed: int = 0
) -> Effects:
    """Turns the best-read features of each block on and off in later pictures, in one step of Turbo.

    reading: chooses features and strengths. features: per block. captions: per feature that is turned on. strength: in
    units of the mean activation, 0 for what `choose_strengths` says. Kept in the cache.
    """
    strengths = choose_strengths(reading, features, max(1, captions // 2), seed)
    if strength:
        strengths = strengths._replace(chosen=dict.fromkeys(strengths.chosen, strength))
    targets = well_read(reading, features)
    counts = {"on": captions, "off": max(1, captions // 2)}
    trials = {side: find_trials(targets, later, count, side == "off") for side, count in counts.items()}

    def make() -> dict[str, Tensor]:
        alone = later.anew()
        on = measure_writing(alone, trials["on"], strengths.chosen, seed=seed, distance=True)
        return {"on": on, "off": measure_erasing(alone, trials["off"], seed)}

    tried = {side: some.asked for side, some in trials.items()}
    inputs = {"later": later.make().name, "tried": tried, "strength": strengths.chosen, "seed": seed}
    folder, measured = cached_tensors("effects_in_one_step", inputs, make)
    return Effects(strengths, trials, {side: measured[side] for side in trials}, folder)
