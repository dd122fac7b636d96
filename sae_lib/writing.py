"""What features write: the best-read features of each block, turned on or off in pictures that had no part in choosing them."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from sae_lib.assets import Assets
from sae_lib.features import FeatureId
from sae_lib.interventions import add_features, during, intervene, skip_block
from sae_lib.judges import attribute_values, see_values
from sae_lib.pictures import draw_pictures
from sae_lib.reading import NOISE_SEED, Reading
from sae_lib.sae import TopKSAE

KINDS = ("feature", "random feature")
"""What is added: the feature, or another live one of the same block in the same place with the same norm."""

QUANTITIES = ("before", "after", "others changed")
"""Of a trial: whether the judge sees the value in the unedited picture and in the edited one, and how many other values came or went."""

SCENE_FAMILIES = ("background", "style")


class Target(NamedTuple):
    """A feature and the attribute value that it reads."""

    id: FeatureId
    value: int
    """Its number among `attribute_values`."""
    score: float
    """How well it reads it, in pictures that had no part in finding the value."""


class Trials(NamedTuple):
    """Which target is tried in which pictures of a reading."""

    targets: list[Target]
    which: Int[Tensor, " trials"]
    """The target's place in `targets`."""
    rows: Int[Tensor, " trials"]
    """The picture's row in the reading."""

    def of_block(self, block: str) -> Int[Tensor, " trials"]:
        """The trials of one block's features."""
        return torch.tensor([at for at, i in enumerate(self.which.tolist()) if self.targets[i].id.block == block])


def well_read(reading: Reading, per_block: int) -> list[Target]:
    """Of each block the live features with the highest reading score, best first: found and scored in separate halves of the pictures."""
    targets = []
    for block in reading.assets.blocks:
        meaning, live = reading.meaning(block), reading.live(block)
        for feature in live[meaning.score[live].argsort(descending=True)[:per_block]].tolist():
            value, score = meaning.value[feature].item(), meaning.score[feature].item()
            targets.append(Target(FeatureId(block, feature), value, score))
    return targets


def find_trials(targets: Sequence[Target], later: Reading, per_feature: int, showing: bool = False) -> Trials:
    """Each target in pictures of later captions that do not show its value by the judge (`showing`: that do), which differ from target to target."""
    which, rows = [], []
    for place, target in enumerate(targets):
        fitting = (later.shows[:, target.value] == showing).nonzero().flatten().tolist()
        start = place * per_feature % max(1, len(fitting))
        chosen = (fitting[start:] + fitting[:start])[:per_feature]
        which += [place] * len(chosen)
        rows += chosen
    return Trials(list(targets), torch.tensor(which), torch.tensor(rows))


def write(
    assets: Assets,
    model: str,
    prompts: Sequence[str],
    noise: Sequence[int],
    features: Sequence[FeatureId],
    amounts: Sequence[float],
    masks: Sequence[Float[Tensor, "side side"] | None] | None = None,
    guidance: str = "both",
    span: tuple[int, int] | None = None,
    saes: Mapping[str, TopKSAE] | None = None,
    seed: int = NOISE_SEED,
) -> Float[Tensor, "pictures 3 height width"]:
    """Pictures in each of which one feature is turned on, whichever block it belongs to: pictures of several blocks share a call.

    model: one of `MODELS`. noise: whose noise each picture gets. amounts: in units of activation. masks: at each feature's own
    grid, None for everywhere. guidance: see `add_features`. span: the steps during which it is on, None for all. saes: other
    dictionaries than the assets' panel SAEs, such as a control's.
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


def measure_writing(
    later: Reading,
    trials: Trials,
    strength: float = 10.0,
    model: str = "Turbo, 1 step",
    guidance: str = "both",
    seed: int = 0,
) -> Float[Tensor, "trials kinds quantities"]:
    """What turning each trial's feature on does, beside a random live feature of the same block in the same place with the same norm.

    A feature of an object's value is turned on where the judge sees an object in the unedited one-step picture, one of a background or style
    everywhere. strength: in units of the feature's mean activation.
    """
    assets, prompts = later.assets, [later.prompts[row] for row in trials.rows.tolist()]
    noise = later.noise(trials.rows.tolist())
    chosen = [trials.targets[i] for i in trials.which.tolist()]
    amounts = [strength * assets.statistics()[each.id.block].mean[each.id.feature].item() for each in chosen]
    masks = [_where(later, each, row) for each, row in zip(chosen, trials.rows.tolist(), strict=True)]
    before = later.shows[trials.rows]
    if model != "Turbo, 1 step":
        name, call = assets.call(model, NOISE_SEED)
        rows, place = trials.rows.unique(return_inverse=True)
        plain = draw_pictures(assets.pipe(name), [later.prompts[i] for i in rows], call, later.noise(rows.tolist()))
        before = see_values(assets.judge, plain)[place]
    kinds = []
    for features in ([each.id for each in chosen], random_features(later, [each.id for each in chosen], seed)):
        after = write(assets, model, prompts, noise, features, amounts, masks, guidance)
        kinds.append(_compare(before, see_values(assets.judge, after), [each.value for each in chosen]))
    return torch.stack(kinds, 1)


def measure_erasing(
    later: Reading, trials: Trials, seed: int = 0
) -> Float[Tensor, "trials kinds_and_ablation quantities"]:
    """What turning each trial's feature off does in one step: its own activation map, times the feature, is taken off the update.

    Beside it a random live feature of the same block, taken off in the same places by as much; and the block's own
    ablation, which is the most that its features together can erase.
    """
    assets, rows = later.assets, trials.rows.tolist()
    prompts, noise = [later.prompts[row] for row in rows], later.noise(rows)
    chosen = [trials.targets[i] for i in trials.which.tolist()]
    masks = [later.maps(each.id.block, each.id.feature, [row])[0] for each, row in zip(chosen, rows, strict=True)]
    before, values = later.shows[trials.rows], [each.value for each in chosen]
    kinds, off = [], [-1.0] * len(rows)
    for features in ([each.id for each in chosen], random_features(later, [each.id for each in chosen], seed)):
        after = write(assets, "Turbo, 1 step", prompts, noise, features, off, masks)
        kinds.append(_compare(before, see_values(assets.judge, after), values))
    ablated = torch.zeros_like(before)
    name, call = assets.call("Turbo, 1 step", NOISE_SEED)
    for block in dict.fromkeys(each.id.block for each in chosen):
        at = trials.of_block(block)
        unique, place = trials.rows[at].unique(return_inverse=True)
        with intervene(assets.pipe(name), {block: skip_block}):
            drawn = draw_pictures(
                assets.pipe(name), [later.prompts[i] for i in unique], call, later.noise(unique.tolist())
            )
        ablated[at] = see_values(assets.judge, drawn)[place]
    return torch.stack([*kinds, _compare(before, ablated, values)], 1)


def random_features(reading: Reading, features: Sequence[FeatureId], seed: int = 0) -> list[FeatureId]:
    """For each feature another live one of its block."""
    generator, live, drawn = torch.Generator().manual_seed(seed), {}, []
    for each in features:
        if each.block not in live:
            statistics = reading.assets.statistics()[each.block]
            live[each.block] = (statistics.mean > 0).nonzero().flatten()
        others = live[each.block][live[each.block] != each.feature]
        drawn.append(FeatureId(each.block, others[torch.randint(len(others), (), generator=generator)].item()))
    return drawn


def _where(later: Reading, target: Target, row: int) -> Float[Tensor, "side side"] | None:
    """The mask that a target is turned on in."""
    if attribute_values()[target.value][0] in SCENE_FAMILIES:
        return None
    return later.objects(target.id.block)[row].float()


def _compare(
    before: Float[Tensor, "trials values"], after: Float[Tensor, "trials values"], intended: Sequence[int]
) -> Float[Tensor, "trials quantities"]:
    rows, aim = torch.arange(len(before)), torch.tensor(intended)
    changed = (before != after).float()
    return torch.stack([before[rows, aim], after[rows, aim], changed.sum(1) - changed[rows, aim]], 1)
