"""Judges that say what a picture shows, independently of the models that drew it."""

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, runtime_checkable

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

if TYPE_CHECKING:
    from sae_lib.pocket.judge import Judgement, SeenObject
    from sae_lib.pocket.world import Scene


class Truth(NamedTuple):
    """Which attribute values show at each cell, and at which cells that can be said."""

    present: Bool[Tensor, "scenes cells values"]
    valid: Bool[Tensor, "scenes cells values"]
    """False where a cell is doubtful: it counts neither as a hit nor as a miss."""

    @classmethod
    def from_shares(
        cls, families: Sequence[Float[Tensor, "scenes _ height width"]], grid: int, majority: float = 0.75
    ) -> "Truth":
        """Makes the truth from each attribute's values as shares of a pixel (probabilities, or 0 and 1), along axis 1.

        A value's share of a cell is its mean over the cell's pixels; what the values of an attribute leave to 1 is the
        share that has none of them. A cell shows the value of at least half of it. It is doubtful for the whole
        attribute where no value, nor their absence, has a share of `majority`: a border, or a judge in doubt.

        Raises ValueError unless 0.5 <= majority <= 1, and for pictures that the grid does not divide.
        """
        if not 0.5 <= majority <= 1:
            raise ValueError(f"majority is {majority}; wanted 0.5 to 1")
        present, valid = [], []
        for shares in families:
            if shares.shape[-1] % grid or shares.shape[-2] % grid:
                raise ValueError(f"pictures of {list(shares.shape[-2:])} pixels do not fall into {grid} x {grid} cells")
            cells = F.adaptive_avg_pool2d(shares.float(), grid).flatten(2).movedim(1, -1)
            none = 1 - cells.sum(-1, keepdim=True)
            sure = torch.cat([cells, none], -1).amax(-1, keepdim=True) >= majority
            present.append(cells >= 0.5)
            valid.append(sure.expand_as(cells))
        return cls(torch.cat(present, -1), torch.cat(valid, -1))

    def take(self, scenes: Int[Tensor, " taken"]) -> "Truth":
        """The truth of some scenes, in that order."""
        return Truth(self.present[scenes], self.valid[scenes])

    @property
    def base_rate(self) -> Float[Tensor, " values"]:
        """Share of the valid cells that show each value: what a unit that knows nothing scores."""
        shown = (self.present & self.valid).sum((0, 1)).double()
        return shown / self.valid.sum((0, 1)).clamp(min=1)

    def disagreement(self, other: "Truth") -> Float[Tensor, " values"]:
        """Of the cells that are valid in both truths and show a value by either, the share on which they disagree."""
        both = self.valid & other.valid
        either = ((self.present | other.present) & both).sum((0, 1))
        return ((self.present != other.present) & both).sum((0, 1)) / either.clamp(min=1)


def load_judge(scale: str = "pocket", device: str | torch.device = "cpu") -> nn.Module:
    """The judge of a scale: at pocket and smoke scale the dense attribute judge, for `judge_images`.

    Raises ValueError at sdxl scale, where there is no judge.
    """
    if scale not in ("pocket", "smoke"):
        raise ValueError(f"there is no judge at scale {scale!r}: only the pocket world has ground truth")
    from sae_lib.pocket import weights

    return weights.load("judge").to(device, memory_format=torch.channels_last)


def attribute_values() -> list[tuple[str, str]]:
    """The pocket world's attribute values, as (attribute, value), in the order of `see_values`."""
    from sae_lib.pocket.world import ATTRIBUTES

    return [(name, value) for name, values in ATTRIBUTES.items() for value in values]


def mean_by_family(per_value: Float[Tensor, "values ..."]) -> Float[Tensor, "families ..."]:
    """Means over the values of each attribute, from one number or more per value in the order of `attribute_values`."""
    names = [name for name, _ in attribute_values()]
    rows = {name: torch.tensor([other == name for other in names]) for name in dict.fromkeys(names)}
    return torch.stack([per_value[mine].mean(0) for mine in rows.values()])


def exact_truth(scenes: "Sequence[Scene]", grid: int) -> Truth:
    """What is true of each cell of rendered scenes of the pocket world."""
    from sae_lib.pocket.world import ATTRIBUTES, attribute_maps

    maps = attribute_maps(list(scenes))
    shares = [torch.stack([maps[name] == i for i in range(len(ATTRIBUTES[name]))], 1).float() for name in ATTRIBUTES]
    return Truth.from_shares(shares, grid)


def see_values(judge: nn.Module, pictures: Float[Tensor, "pictures 3 64 64"]) -> Float[Tensor, "pictures values"]:
    """Which attribute values the judge sees on any object or in the scene: 1 or 0, and 0 where it abstains."""
    from sae_lib.pocket.judge import judge_images

    return values_in(judge_images(judge, pictures))


def values_in(judgements: "Sequence[Judgement]") -> Float[Tensor, "pictures values"]:
    """Which attribute values judgements name, of any object or of the scene: 1 or 0, and 0 where the judge abstains."""
    from sae_lib.pocket.judge import NONE
    from sae_lib.pocket.statements import nearest_position

    places = {pair: place for place, pair in enumerate(attribute_values())}
    seen = torch.zeros(len(judgements), len(places))
    for row, judgement in zip(seen, judgements, strict=True):
        named = set(judgement.scene.items())
        for thing in judgement.objects:
            named |= {*thing.attributes.items(), ("position", nearest_position(thing.centre))}
        row[[places[pair] for pair in named if pair[1] != NONE]] = 1
    return seen


def judge_truth(judge: nn.Module, pictures: Float[Tensor, "pictures 3 64 64"], grid: int) -> Truth:
    """The truth of each cell by the judge's probabilities; a cell has the position of the object that covers it."""
    return judge_and_truth(judge, pictures, [grid])[1][grid]


def judge_and_truth(
    judge: nn.Module, pictures: Float[Tensor, "pictures 3 64 64"], grids: Iterable[int]
) -> "tuple[list[Judgement], dict[int, Truth]]":
    """What the judge sees in the pictures, and `judge_truth` by grid; every picture is judged once."""
    from sae_lib.pocket.judge import judge_parts

    truths, judgements = {grid: [] for grid in sorted(grids)}, []
    for judged, logits in judge_parts(judge, pictures):
        shares = _shares(judged, logits)
        for grid, parts in truths.items():
            parts.append(Truth.from_shares(shares, grid))
        judgements += judged
    return judgements, {grid: Truth(*map(torch.cat, zip(*parts, strict=True))) for grid, parts in truths.items()}


def _shares(judgements: "list[Judgement]", logits: dict[str, Tensor]) -> list[Tensor]:
    """By attribute, the shares of its values in every pixel."""
    from sae_lib.pocket.statements import nearest_position
    from sae_lib.pocket.world import ANCHORS, ATTRIBUTES

    is_object, shares = logits["object"].sigmoid(), {}
    positions = torch.zeros(len(judgements), len(ANCHORS), *is_object.shape[-2:])
    for row, judgement in zip(positions, judgements, strict=True):
        for thing in judgement.objects:
            row[list(ANCHORS).index(nearest_position(thing.centre)), thing.mask] = 1
    for name in ATTRIBUTES:
        there = {"background": 1 - is_object, "style": torch.ones_like(is_object)}.get(name, is_object)
        shares[name] = there * (positions if name == "position" else logits[name].softmax(1))
    shares["pose"] = shares["pose"] * (1 - logits["shape"].softmax(1)[:, :1])  # a circle has none
    return list(shares.values())


@runtime_checkable
class AskedEdit(Protocol):
    """What `judge_edit` reads of a case of RIEBench in the pocket world (`editing.Case`)."""

    category: int
    truth: Any
    """`attribute` and `value` that the edit asks for."""


def judge_edit(
    case: AskedEdit, before: "Judgement", after: "Judgement", region: Bool[Tensor, "64 64"]
) -> tuple[bool, float]:
    """Whether a pocket edit did what it was asked for, and how much of the rest it changed.

    before, after: what the judge sees in the original and in the edited picture.

    An object lies in the region if over half of its pixels do. The edit succeeds if an object in the region has
    the new value. An added object must be there. A deleted shape must be nowhere, and the judge may abstain from
    the shape of no object in the region. A background or style is the scene's. A value from which the judge
    abstains is no new value.

    The rest are the attributes of the scene and of the objects outside the region in the original. The second number is
    the share of them that is no longer what it was; an object that is gone has lost all of its attributes.
    """
    from sae_lib.pocket.judge import NONE

    truth = case.truth

    def inside(thing: "SeenObject") -> bool:
        return bool((thing.mask & region).sum() > 0.5 * thing.mask.sum())

    kept = {name: before.scene[name] == after.scene[name] for name in before.scene if name != truth.attribute}
    if truth.attribute in after.scene:
        done = after.scene[truth.attribute] == truth.value
        others = before.objects
    else:
        others = [thing for thing in before.objects if not inside(thing)]
        name = "shape" if truth.attribute == "object" else truth.attribute
        if case.category == 3:
            left = [thing.attributes["shape"] for thing in after.objects if inside(thing)]
            done = NONE not in left and all(thing.attributes["shape"] != truth.value for thing in after.objects)
        else:
            done = any(thing.attributes[name] == truth.value for thing in after.objects if inside(thing))
    rest = list(kept.values())
    for thing in others:
        same = max(after.objects, key=lambda other: (other.mask & thing.mask).sum().item(), default=None)
        there = same is not None and (same.mask & thing.mask).any()
        rest += [bool(there) and same.attributes[name] == value for name, value in thing.attributes.items()]
    return done, 1 - sum(rest) / len(rest)
