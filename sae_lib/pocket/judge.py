"""The dense attribute judge: for every pixel, object or background, and the class of each attribute; and where none fits, it abstains.

Trained on rendered scenes alone, its second branch on broken and mixed ones (`sae_lib.pocket.broken`). Objects are the connected
components of the object pixels, so that a colour binds to a shape.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

import torch
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.models.modeling_utils import ModelMixin
from scipy import ndimage
from torch import Tensor, nn
from torch.nn import functional as F

from sae_lib.pocket.world import ATTRIBUTES, OBJECT_ATTRIBUTES, SCENE_ATTRIBUTES, UNDEFINED

JUDGED = {name: values for name, values in ATTRIBUTES.items() if name != "position"}
"""The attributes read from pixels; a position is where the component lies."""

MIN_PIXELS = 24
"""Components of fewer pixels are specks, not objects (the smallest object covers about 100)."""

NONE = "none of these"
"""What the judge says of an attribute when it abstains: the picture shows none of the attribute's values, or a mixture."""

DOUBTFUL = 0.35
"""It abstains where its mean doubt, over the pixels that an attribute is read from, is larger. Of .5, .35, .25, .2 and .1 the smallest that
makes it abstain from at most 1 % of the attributes of whole renders (150 training scenes seen through the autoencoder): .9 %."""

_AT_ONCE = 16


class Judge(ModelMixin, ConfigMixin):
    """Two small convolutional U-shaped networks `[batch, 3, 64, 64]` in [0, 1] -> logits.

    The first `reads`: `{attribute: [batch, classes, 64, 64]}`; `"object"` has one logit. The second `doubts`: `"doubt"` has one logit for each of
    JUDGED, of none of its values being there.
    """

    @register_to_config
    def __init__(self, widths: Sequence[int] = (12, 32, 64, 96), doubt_widths: Sequence[int] = (8, 24, 48, 64)) -> None:
        super().__init__()
        self.sizes = [1, *(len(values) for values in JUDGED.values())]
        self.reads, self.doubts = _Network(widths, sum(self.sizes)), _Network(doubt_widths, len(JUDGED))

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
        loss = loss + F.cross_entropy(logits[name], maps[name], ignore_index=UNDEFINED) / (
            1 if name in OBJECT_ATTRIBUTES else 4
        )
    return loss


def doubt_loss(doubt: Tensor, none: Tensor) -> Tensor:
    """Binary cross-entropy of the doubts `[batch, attributes, 64, 64]` where they are defined: a mean over each attribute's pixels, summed.

    none: 1 where none of an attribute's values is there, 0 where one is, UNDEFINED where nothing is asked (`sae_lib.pocket.broken`).
    """
    asked = none != UNDEFINED
    each = F.binary_cross_entropy_with_logits(doubt, none.clamp(min=0).to(doubt), reduction="none") * asked
    return (each.sum((0, 2, 3)) / asked.sum((0, 2, 3)).clamp(min=1)).sum()


@dataclass(frozen=True)
class Found:
    """One object that the judge sees."""

    attributes: dict[str, str]
    """Shape, colour, material, size, pose, content: the class of the largest mean log-probability over its pixels, or NONE."""
    centre: tuple[float, float]
    """x and y in pixels."""
    mask: Tensor
    """Boolean `[64, 64]`."""
    probabilities: dict[str, float] = field(default_factory=dict)
    """The judge's mean over the object's pixels of the likeliest class: how sure it is of what it says when it does not abstain."""


@dataclass(frozen=True)
class Judgement:
    """What the judge sees in one picture."""

    objects: tuple[Found, ...]
    scene: dict[str, str]
    """Background and style: a class, or NONE."""
    probabilities: dict[str, float] = field(default_factory=dict)
    """The same of each of these two, over the pixels that it was read from."""


def judge_images(judge: Judge, images: Tensor) -> list[Judgement]:
    """Judge pictures `[batch, 3, 64, 64]` in [0, 1]. Raises ValueError for another shape."""
    return [judgement for judgements, _ in judge_parts(judge, images) for judgement in judgements]


@torch.inference_mode()
def judge_parts(judge: Judge, images: Tensor) -> Iterator[tuple[list[Judgement], dict[str, Tensor]]]:
    """Some pictures at a time, their judgements and the logits that these were read from, on the CPU.

    Raises ValueError for another shape than `[batch, 3, 64, 64]`.
    """
    if images.ndim != 4 or images.shape[1:] != (3, 64, 64):
        raise ValueError(f"the judge wants pictures [batch, 3, 64, 64], got {list(images.shape)}")
    for part in images.to(judge.device, judge.dtype).split(_AT_ONCE):
        logits = {name: value.float().cpu() for name, value in judge(part).items()}
        logprobs = {name: logits[name].log_softmax(1) for name in JUDGED}
        masks, doubts = logits["object"][:, 0] > 0, logits["doubt"].sigmoid()
        rows = range(len(part))
        yield (
            [_read({name: value[row] for name, value in logprobs.items()}, doubts[row], masks[row]) for row in rows],
            logits,
        )


def _read(logprobs: dict[str, Tensor], doubts: Tensor, is_object: Tensor) -> Judgement:
    doubt_of = dict(zip(JUDGED, doubts, strict=True))

    def read(names: Iterable[str], mask: Tensor) -> tuple[dict[str, str], dict[str, float]]:
        values, probabilities = {}, {}
        for name in names:
            best = int(logprobs[name][:, mask].mean(1).argmax())
            sure = doubt_of[name][mask].mean() <= DOUBTFUL
            values[name] = JUDGED[name][best] if sure else NONE
            probabilities[name] = logprobs[name][best, mask].exp().mean().item()
        return values, probabilities

    labels, count = ndimage.label(is_object.numpy())
    found = []
    for label in range(1, count + 1):
        mask = torch.from_numpy(labels == label)
        if mask.sum() >= MIN_PIXELS:
            y, x = mask.nonzero().float().mean(0).add(0.5).tolist()
            attributes, probabilities = read([name for name in OBJECT_ATTRIBUTES if name in JUDGED], mask)
            found.append(Found(attributes, (x, y), mask, probabilities))
    ground = ~is_object if (~is_object).any() else torch.ones_like(is_object)
    parts = [read([name], ground if name == "background" else torch.ones_like(is_object)) for name in SCENE_ATTRIBUTES]
    scene, probabilities = ({name: value for part in parts for name, value in part[which].items()} for which in (0, 1))
    return Judgement(tuple(found), scene, probabilities)
