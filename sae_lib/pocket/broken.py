"""Broken and mixed pictures, and which attributes they leave without a value: what the judge learns to abstain from.

Everything is made from renders, whose truth is exact. A scene A and a copy B that differs in some attributes of one object, or of the whole
scene, are cross-faded or patched together; an object is melted by a smooth random field; it gets a colour that the world does not have;
it fades into the ground. No model's picture is used.
"""

import math
import random
from collections.abc import Sequence
from dataclasses import replace

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn import functional as F

from sae_lib.pocket.judge import JUDGED
from sae_lib.pocket.world import (
    ATTRIBUTES,
    IMAGE_SIZE,
    OBJECT_ATTRIBUTES,
    UNDEFINED,
    Scene,
    attribute_maps,
    has_attribute,
    object_masks,
    render,
)

KINDS = ("faded", "patched", "melted", "off palette", "vanishing")
"""How a picture can be broken; the first two mix A and B."""

_SURFACE = ("colour", "material")
"""Attributes that every part of an object shows."""

MIXED = (0.35, 0.65)
"""Share of B in a cross-fade: nearer to an end a picture still shows the one or the other."""

MELTED = (4.0, 8.0)
"""Largest displacement of a melted object in pixels: its outline is then no shape's."""

WOBBLE = 1.5
"""Displacement in pixels that leaves a shape its name."""

OFF_PALETTE = (
    (0.55, 0.55, 0.55),
    (0.45, 0.28, 0.12),
    (0.98, 0.52, 0.10),
    (0.97, 0.60, 0.72),
    (0.98, 0.98, 0.98),
    (0.10, 0.75, 0.75),
)
"""Grey, brown, orange, pink, white and turquoise."""


def broken_pictures(
    scenes: Sequence[Scene], seed: int, kinds: Sequence[str] = KINDS
) -> tuple[Float[Tensor, "scenes 3 64 64"], Float[Tensor, "scenes judged 64 64"]]:
    """Each scene broken in one of some ways, and its doubts: 1 on the pixels of an attribute of JUDGED that has no value there, 0 where it has one,
    UNDEFINED where it is not asked: outside of objects, and where the break leaves open whether one could still tell."""
    rng = random.Random(seed)
    chosen = [rng.choice(kinds) for _ in scenes]
    others = [_other(scene, kind, rng) for scene, kind in zip(scenes, chosen, strict=True)]
    first, second = render(list(scenes)), render([other for other, _, _ in others])
    doubts = fine_doubts(scenes)
    both = object_masks(list(scenes)) | object_masks([other for other, _, _ in others])
    pictures = torch.empty_like(first)
    for row, (kind, (_, changed, which)) in enumerate(zip(chosen, others, strict=True)):
        area = both[row, which] if which is not None else torch.ones(IMAGE_SIZE, IMAGE_SIZE, dtype=torch.bool)
        pictures[row] = _broken(kind, first[row], second[row], changed, area, rng)
        _mark(doubts[row], kind, changed, area if which is not None else None)
    return pictures, doubts


def fine_doubts(scenes: Sequence[Scene]) -> Float[Tensor, "scenes judged 64 64"]:
    """The doubts of unbroken pictures: 0 wherever an attribute has a value, else UNDEFINED."""
    maps = attribute_maps(list(scenes))
    return torch.stack([torch.where(maps[name] == UNDEFINED, float(UNDEFINED), 0.0) for name in JUDGED], 1)


def _other(scene: Scene, kind: str, rng: random.Random) -> tuple[Scene, list[str], int | None]:
    """What the scene is mixed with, the attributes in which it differs, and whose: an object's number, None for the whole scene's."""
    which = rng.randrange(len(scene.objects))
    if kind not in KINDS[:2]:
        return scene, [], which
    if rng.random() < 0.25:
        changed = rng.choice([["background"], ["style"]])
        values = {name: _another(name, getattr(scene, name), rng) for name in changed}
        return replace(scene, **values), changed, None
    thing = scene.objects[which]
    names = [name for name in OBJECT_ATTRIBUTES if name in JUDGED and has_attribute(thing, name)]
    changed = rng.sample(names, rng.choice((1, 1, 2)))
    if "shape" in changed:
        changed = [name for name in changed if name in ("shape", *_SURFACE)]
    values = {name: _another(name, getattr(thing, name), rng) for name in changed}
    things = [*scene.objects]
    things[which] = replace(thing, **values)
    return replace(scene, objects=tuple(things)), changed, which


def _another(name: str, value: str, rng: random.Random) -> str:
    return rng.choice([other for other in ATTRIBUTES[name] if other != value])


def _broken(
    kind: str, first: Tensor, second: Tensor, changed: Sequence[str], area: Tensor, rng: random.Random
) -> Tensor:
    if kind == "faded":
        return first.lerp(second, rng.uniform(*MIXED))
    if kind == "patched":
        return torch.where(_patches(area, set(changed) <= {*_SURFACE, "background", "style"}, rng), first, second)
    if kind == "melted":
        return melted(first, rng.uniform(*MELTED), area, rng)
    wide = F.max_pool2d(area[None, None].float(), 5, 1, 2)[0, 0] if kind == "vanishing" else area.float()
    if kind == "off palette":
        tint = torch.tensor(rng.choice(OFF_PALETTE)).view(3, 1, 1)
        light = first.mean(0, keepdim=True) / first[:, area].mean().clamp(min=0.05)
        return torch.where(area, (tint * light.clamp(max=1.6)).clamp(0, 1), first)
    ground = first[:, ~wide.bool()].mean(1).view(3, 1, 1)
    return torch.where(wide.bool(), first.lerp(ground.expand_as(first), rng.uniform(0.6, 0.8)), first)


def _smooth_field(rng: random.Random, channels: int, cells: int) -> Tensor:
    """A smooth random field `[channels, 64, 64]` of mean 0 with values of about 1."""
    generator = torch.Generator().manual_seed(rng.randrange(2**31))
    coarse = torch.randn(1, channels, cells, cells, generator=generator)
    return F.interpolate(coarse, (IMAGE_SIZE, IMAGE_SIZE), mode="bicubic", align_corners=True)[0]


def _patches(area: Tensor, anywhere: bool, rng: random.Random) -> Tensor:
    """About half of an area: a half-plane through its middle, or, where any part of it shows the attribute, smooth patches."""
    if not anywhere or rng.random() < 0.5:
        y, x = area.nonzero().float().mean(0).tolist()
        angle, line = rng.uniform(0, 2 * math.pi), torch.arange(IMAGE_SIZE).float()
        return (line - x) * math.cos(angle) + (line.view(-1, 1) - y) * math.sin(angle) > 0
    field = _smooth_field(rng, 1, 9)[0]
    return field > field[area].median()


def melted(
    picture: Float[Tensor, "3 64 64"], pixels: float, area: Bool[Tensor, "64 64"], rng: random.Random
) -> Float[Tensor, "3 64 64"]:
    """The picture with what lies in an area displaced by a smooth random field of at most so many pixels."""
    field = _smooth_field(rng, 2, 10)
    field = field * (pixels / field[:, area].norm(dim=0).max().clamp(min=1e-6))
    line = torch.arange(IMAGE_SIZE).float()
    places = torch.stack(torch.meshgrid(line, line, indexing="xy"))
    near = F.avg_pool2d(F.max_pool2d(area[None, None].float(), 13, 1, 6), 5, 1, 2)[0]
    grid = ((places + field * near + 0.5) / IMAGE_SIZE * 2 - 1).permute(1, 2, 0)
    return F.grid_sample(picture[None], grid[None], padding_mode="reflection", align_corners=False)[0]


_LEFT_OPEN = {
    "melted": ("material", "size", "pose", "content"),
    "off palette": (),
    "vanishing": ("shape", "material", "size", "pose", "content"),
}
_LOST = {"melted": ("shape",), "off palette": ("colour",), "vanishing": ("colour",)}


def _mark(doubts: Tensor, kind: str, changed: Sequence[str], area: Tensor | None) -> None:
    """Writes into a picture's doubts what its break leaves without a value, and what it leaves open."""
    names = list(JUDGED)
    open_too = ("size", "pose", "content") if "shape" in changed else ()
    for name in (*_LEFT_OPEN.get(kind, ()), *open_too):
        doubts[names.index(name)][area] = UNDEFINED
    for name in (*_LOST.get(kind, ()), *changed):
        asked = area if name in OBJECT_ATTRIBUTES else doubts[names.index(name)] != UNDEFINED
        doubts[names.index(name)][asked] = 1.0
