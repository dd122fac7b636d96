"""The dense attribute judge: it tells objects from background and reads each attribute, pixel by pixel, or abstains.

It was trained only on rendered scenes, its second branch on broken and mixed ones
(`notebooks.experiments.pocket.broken`). Objects are the connected components of the object pixels, so that a colour
binds to a shape.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.models.modeling_utils import ModelMixin
from scipy import ndimage
from torch import Tensor, nn
from torch.nn import functional as F

from sae_lib.pocket.world import ATTRIBUTES, OBJECT_ATTRIBUTES, UNDEFINED

JUDGED = {name: values for name, values in ATTRIBUTES.items() if name != "position"}
"""The attributes read from pixels; a position is where the component lies."""

MIN_PIXELS = 24
"""Components of fewer pixels are specks, not objects (the smallest object covers about 100)."""

NONE = "none of these"
"""The judge's answer when it abstains: the picture shows none of the attribute's values, or a mixture."""

WRONGLY = 0.01
"""The largest share of what whole renders show from which the judge may abstain (`calibrate`).

It abstains where its mean doubt, over the pixels that an attribute is read from, is above a bound: the smallest bound
that keeps to this share. All attributes have the same bound. With one bound per attribute, by the same rule, the judge
abstained more often from what an eye could name, and no more often where an eye could not."""

_AT_ONCE = 16


class Judge(ModelMixin, ConfigMixin):
    """Two small convolutional U-shaped networks `[batch, 3, 64, 64]` in [0, 1] -> logits.

    The first `reads`: `{attribute: [batch, classes, 64, 64]}`; `"object"` has one logit. The second `doubts`: `"doubt"`
    has one logit per attribute of JUDGED, which says that none of its values is there. Where the mean doubt is above
    `doubtful`, the judge abstains.
    """

    @register_to_config
    def __init__(self, widths: Sequence[int] = (12, 32, 64, 96), doubt_widths: Sequence[int] = (8, 24, 48, 64)) -> None:
        super().__init__()
        self.sizes = [1, *(len(values) for values in JUDGED.values())]
        self.reads, self.doubts = _Network(widths, sum(self.sizes)), _Network(doubt_widths, len(JUDGED))
        self.register_buffer("doubtful", torch.ones(1))

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        read = self.reads(images).split(self.sizes, 1)
        return dict(zip(["object", *JUDGED], read, strict=True)) | {"doubt": self.doubts(images)}


class _Network(nn.Module):
    """Down through the widths and up again, with skips; `outputs` numbers for every pixel."""

    def __init__(self, widths: Sequence[int], outputs: int) -> None:
        super().__init__()
        width = widths[0]
        self.stem = nn.Conv2d(3, width, 3, padding=1)
        self.down = nn.ModuleList(_Stage(a, b) for a, b in zip([width, *widths], widths, strict=False))
        self.up = nn.ModuleList(_Stage(a + b, b) for a, b in zip(widths[:0:-1], widths[-2::-1], strict=True))
        self.head = nn.Conv2d(width, outputs, 1)

    def forward(self, images: Tensor) -> Tensor:
        hidden, skips = self.stem(images * 2 - 1), []
        for at, stage in enumerate(self.down):
            hidden = stage(hidden if at == 0 else F.avg_pool2d(F.silu(hidden), 2))
            skips.append(hidden)
        skips.pop()
        for stage in self.up:
            hidden = stage(torch.cat([F.interpolate(hidden, scale_factor=2.0, mode="nearest"), skips.pop()], 1))
        return self.head(F.silu(hidden))


class _Stage(nn.Module):
    """A 3x3 convolution, then a normalised residual; what is not normalised carries brightness and contrast on."""

    def __init__(self, before: int, after: int) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(before, after, 3, padding=1), nn.Conv2d(after, after, 3, padding=1)
        self.norm = nn.GroupNorm(4, after)

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x)
        return x + self.second(F.silu(self.norm(x)))


def judge_loss(logits: dict[str, Tensor], maps: dict[str, Tensor]) -> Tensor:
    """Cross-entropy of each map where it is defined, and of object against background, summed."""
    is_object = (maps["shape"] != UNDEFINED).float()
    loss = F.binary_cross_entropy_with_logits(logits["object"][:, 0], is_object)
    for name in JUDGED:
        entropy = F.cross_entropy(logits[name], maps[name], ignore_index=UNDEFINED)
        loss = loss + entropy / (1 if name in OBJECT_ATTRIBUTES else 4)
    return loss


def doubt_loss(doubt: Tensor, none: Tensor) -> Tensor:
    """Binary cross-entropy of the doubts `[batch, attributes, 64, 64]`: the mean over each attribute's pixels, summed.

    none: 1 where none of an attribute's values is there, 0 where one is, UNDEFINED where
    nothing is asked (`notebooks.experiments.pocket.broken`).
    """
    asked = none != UNDEFINED
    losses = F.binary_cross_entropy_with_logits(doubt, none.clamp(min=0).to(doubt), reduction="none") * asked
    return (losses.sum((0, 2, 3)) / asked.sum((0, 2, 3)).clamp(min=1)).sum()


@dataclass(frozen=True)
class SeenObject:
    """One object that the judge sees."""

    attributes: dict[str, str]
    """Shape, colour, material, size, pose, content: the class of the largest mean log-probability over the
    object's pixels, or NONE."""
    centre: tuple[float, float]
    """x and y in pixels."""
    mask: Tensor
    """Boolean `[64, 64]`."""
    probabilities: dict[str, float] = field(default_factory=dict)
    """Probability of the likeliest class, mean over the object's pixels: how sure the judge is if it answers."""
    doubts: dict[str, float] = field(default_factory=dict)
    """By attribute, the mean doubt over the same pixels."""


@dataclass(frozen=True)
class Judgement:
    """What the judge sees in one picture."""

    objects: tuple[SeenObject, ...]
    scene: dict[str, str]
    """Background and style: a class, or NONE."""
    probabilities: dict[str, float] = field(default_factory=dict)
    """The same of background and style, over the pixels that they were read from."""
    doubts: dict[str, float] = field(default_factory=dict)


def judge_images(judge: Judge, images: Tensor) -> list[Judgement]:
    """Judge pictures `[batch, 3, 64, 64]` in [0, 1]. Raises ValueError for another shape."""
    return [judgement for judgements, _ in judge_parts(judge, images) for judgement in judgements]


def calibrate(judge: Judge, images: Tensor) -> None:
    """Set the judge's bound by WRONGLY, on pictures `[batch, 3, 64, 64]` in which every attribute has a value."""
    parts = [part for judgement in judge_images(judge, images) for part in (*judgement.objects, judgement)]
    doubts = torch.tensor([doubt for part in parts for doubt in part.doubts.values()])
    judge.doubtful.fill_(doubts.quantile(1 - WRONGLY))


@torch.inference_mode()
def judge_parts(judge: Judge, images: Tensor) -> Iterator[tuple[list[Judgement], dict[str, Tensor]]]:
    """Judgements of some pictures at a time, with the logits that they were read from, on the CPU.

    Raises ValueError for another shape than `[batch, 3, 64, 64]`.
    """
    if images.ndim != 4 or images.shape[1:] != (3, 64, 64):
        raise ValueError(f"the judge wants pictures [batch, 3, 64, 64], got {list(images.shape)}")
    for part in images.to(judge.device, judge.dtype).split(_AT_ONCE):
        logits = {name: value.float().cpu() for name, value in judge(part).items()}
        logprobs = {name: logits[name].log_softmax(1) for name in JUDGED}
        masks, doubts, bound = logits["object"][:, 0] > 0, logits["doubt"].sigmoid(), judge.doubtful.item()
        of_rows = [{name: value[row] for name, value in logprobs.items()} for row in range(len(part))]
        yield [_read(*read_from, bound) for read_from in zip(of_rows, doubts, masks, strict=True)], logits


class _Said(NamedTuple):
    values: dict[str, str]
    probabilities: dict[str, float]
    doubts: dict[str, float]

    def __or__(self, other: "_Said") -> "_Said":
        return _Said(*(ours | theirs for ours, theirs in zip(self, other, strict=True)))


def _read(logprobs: dict[str, Tensor], doubts: Tensor, is_object: Tensor, doubtful: float) -> Judgement:
    doubt_of = dict(zip(JUDGED, doubts, strict=True))

    def read(names: Iterable[str], mask: Tensor) -> _Said:
        said = _Said({}, {}, {})
        for name in names:
            best = int(logprobs[name][:, mask].mean(1).argmax())
            said.doubts[name] = doubt_of[name][mask].mean().item()
            said.values[name] = JUDGED[name][best] if said.doubts[name] <= doubtful else NONE
            said.probabilities[name] = logprobs[name][best, mask].exp().mean().item()
        return said

    labels, count = ndimage.label(is_object.numpy())
    objects = []
    for label in range(1, count + 1):
        mask = torch.from_numpy(labels == label)
        if mask.sum() >= MIN_PIXELS:
            y, x = mask.nonzero().float().mean(0).add(0.5).tolist()
            said = read([name for name in OBJECT_ATTRIBUTES if name in JUDGED], mask)
            objects.append(SeenObject(said.values, (x, y), mask, said.probabilities, said.doubts))
    ground = ~is_object if (~is_object).any() else torch.ones_like(is_object)
    background, style = read(["background"], ground), read(["style"], torch.ones_like(is_object))
    return Judgement(tuple(objects), *background | style)
