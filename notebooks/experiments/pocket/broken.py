"""Broken pictures: renders for which we know, pixel by pixel, which attribute has none of the world's values.

The judge learns from them when to abstain (stage `doubt`), and is measured on held-out ones. All are made in image
space, from renders of scenes that differ in what is broken, so that everything else stays as it was.
"""

import math
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn import functional as F

from sae_lib.pocket.judge import JUDGED
from sae_lib.pocket.world import (
    ANCHORS,
    IMAGE_SIZE,
    SCENE_ATTRIBUTES,
    UNDEFINED,
    Object,
    Scene,
    has_attribute,
    object_masks,
    palette,
    radius_of,
    render,
)

OFF_PALETTE = {
    "grey": (0.55, 0.55, 0.55),
    "brown": (0.45, 0.27, 0.12),
    "orange": (0.95, 0.52, 0.12),
    "pink": (1.00, 0.45, 0.70),
    "white": (0.95, 0.95, 0.95),
}
"""Colours that no object of the world has, RGB."""

FAR = 0.25
"""A colour at least this far from all colours of the palette (Euclidean, RGB) is none of them; a nearer
mixture has no label."""

_GEOMETRY = {"shape", "size", "pose"}
_SELDOM = {"colour", "material", "content"}
"""Attributes that few kinds of breaks reach; faded and spliced scenes differ three times as often in these."""

_ANGLES = 72
_LINE = torch.arange(IMAGE_SIZE) + 0.5


class Broken(NamedTuple):
    """Pictures, and the places where an attribute is none of its values."""

    pictures: Float[Tensor, "scenes 3 64 64"]
    none: Int[Tensor, "scenes attributes 64 64"]
    """In the order of `JUDGED`: 1 is none of its values, 0 is one of them, `UNDEFINED` is where the attribute is not
    read or nobody could tell."""


class _Broken(NamedTuple):
    picture: Tensor
    mask: Tensor
    """The pixels of the broken object (of the first one, if the scene is broken), boolean `[64, 64]`."""
    says: dict[str, int]
    """The attributes of the broken object and of the scene that are not simply fine (0)."""


@dataclass
class _Case:
    """A scene to break, and what is needed to do so."""

    kind: str
    scene: Scene
    other: Scene
    """The scene that it is mixed with, which differs only in `changed`."""
    changed: tuple[str, ...]
    target: int
    rng: random.Random
    pictures: Tensor | None = None
    """Pictures of the scene, of the other one, and of the scene without the target, `[3, 3, 64, 64]`."""
    masks: Tensor | None = None
    """Masks of the target in the scene and in the other one, boolean `[2, 64, 64]`."""

    @property
    def thing(self) -> Object:
        return self.scene.objects[self.target]

    @property
    def centre(self) -> tuple[float, float]:
        return tuple(at + by for at, by in zip(ANCHORS[self.thing.position], self.thing.shift, strict=True))


def break_scenes(scenes: Sequence[Scene], seed: int, vae, kind: str | None = None) -> Broken:
    """Break one object of each scene, or the scene itself.

    kind: one of `KINDS` for all scenes; by default the seed draws one for each. vae: the autoencoder in whose latents
    half of the "faded" scenes are mixed. Raises ValueError for an unknown kind.
    """
    if kind not in (None, *KINDS):
        raise ValueError(f"unknown kind of break {kind!r}; choose one of {', '.join(KINDS)}")
    rng = random.Random(f"broken-{seed}")
    cases = [_case(scene, kind or rng.choice(list(KINDS)), random.Random(rng.getrandbits(63))) for scene in scenes]
    without = [_without(case.scene, case.target) for case in cases]
    parts = [[case.scene for case in cases], [case.other for case in cases], without]
    for case, pictures in zip(cases, torch.stack([render(part) for part in parts], 1), strict=True):
        case.pictures = pictures
    for case, *masks in zip(cases, *map(object_masks, parts[:2]), strict=True):
        case.masks = torch.stack([mask[case.target] for mask in masks])
    broken = [KINDS[case.kind](case) for case in cases]
    pictures = torch.stack([one.picture for one in broken])
    _fade_in_latents(cases, pictures, vae)
    return Broken(pictures.clamp(0, 1), torch.stack(list(map(_labels, cases, broken))))


def whole(scenes: Sequence[Scene]) -> Broken:
    """The scenes as they are: every attribute has one of its values."""
    masks = object_masks(list(scenes))
    return Broken(render(list(scenes)), torch.stack([_areas(_grow(mask), mask.any(0)) for mask in masks]))


# --- what is broken ---------------------------------------------------------------------------------------------------


def _case(scene: Scene, kind: str, rng: random.Random) -> _Case:
    target = rng.randrange(len(scene.objects))
    thing = scene.objects[target]
    if kind == "mottled":  # dots would hide it
        scene = _with(scene, target, replace(thing, material=rng.choice(["plain", "striped"])))
    if kind == "recoloured":  # red and blue differ in every channel
        scene, other = (_with(scene, target, replace(thing, colour=colour)) for colour in ("red", "blue"))
        return _Case(kind, scene, other, ("colour",), target, rng)
    changed = _to_change(kind, thing, rng)
    if kind == "between" and changed == ("pose",):
        middle = 0.0 if thing.pose == "tilted" else math.pi / 4
        turn = middle - math.pi / 8 + rng.uniform(-0.07, 0.07)
        return _Case(kind, scene, _with(scene, target, replace(thing, turn=turn)), changed, target, rng)
    owners = {name: scene if name in SCENE_ATTRIBUTES else thing for name in changed}
    values = {
        name: rng.choice([value for value in JUDGED[name] if value != getattr(owner, name)])
        for name, owner in owners.items()
    }
    of_scene = {name: value for name, value in values.items() if name in SCENE_ATTRIBUTES}
    of_thing = {name: value for name, value in values.items() if name not in SCENE_ATTRIBUTES}
    other = replace(_with(scene, target, replace(thing, **of_thing)), **of_scene)
    return _Case(kind, scene, other, changed, target, rng)


def _to_change(kind: str, thing: Object, rng: random.Random) -> tuple[str, ...]:
    """The attributes in which the two scenes of a case differ."""
    names = [name for name in JUDGED if name in SCENE_ATTRIBUTES or has_attribute(thing, name)]
    if kind in ("faded", "spliced"):
        first = rng.choice(names + 2 * [name for name in names if name in _SELDOM])
        return (first, *rng.sample([name for name in names if name != first], rng.random() < 0.3))
    if kind == "between":
        return (rng.choice([name for name in names if name in ("size", "pose")]),)
    return {"morphed": ("shape",), "blotched": ("colour",)}.get(kind, ())


def _with(scene: Scene, target: int, thing: Object) -> Scene:
    return replace(scene, objects=tuple(thing if at == target else other for at, other in enumerate(scene.objects)))


def _without(scene: Scene, target: int) -> Scene:
    """The scene with the target far outside of the picture."""
    return _with(scene, target, replace(scene.objects[target], shift=(999.0, 999.0)))


def _mixed(case: _Case) -> dict[str, int]:
    """What may be said of two mixed scenes: what differs has no value, and what a doubled
    outline hides is left open."""
    says = dict.fromkeys(case.changed, 1)
    if _GEOMETRY & set(case.changed):
        says = dict.fromkeys(_GEOMETRY, UNDEFINED) | says
    if {"size", "pose"} & set(case.changed):
        says = {"material": UNDEFINED, "content": UNDEFINED} | says
    if "shape" in case.changed and "circle" in (case.thing.shape, case.other.objects[case.target].shape):
        says["pose"] = UNDEFINED
    return says


def _fade(case: _Case) -> _Broken:
    share = case.rng.uniform(0.35, 0.65)
    first, second, _ = case.pictures
    says = _mixed(case)
    if "colour" in case.changed:
        palettes = [torch.tensor(palette()[scene.objects[case.target].colour]) for scene in (case.scene, case.other)]
        says["colour"] = 1 if _is_far(torch.lerp(*palettes, share)) else UNDEFINED
    if says.get("shape") == 1 and _overlap(*case.masks) > 0.85:
        says["shape"] = UNDEFINED
    return _Broken(torch.lerp(first, second, share), case.masks.any(0), says)


def _is_far(colour: Tensor) -> bool:
    return bool((torch.tensor(list(palette().values())) - colour).norm(dim=1).min() >= FAR)


def _fade_in_latents(cases: list[_Case], pictures: Tensor, vae) -> None:
    """Mixes half of the faded pictures again, in place, in the autoencoder's latents instead of in pixels."""
    chosen = [at for at, case in enumerate(cases) if case.kind == "faded" and case.rng.random() < 0.5]
    if not chosen:
        return
    with torch.no_grad():
        pairs = torch.stack([2 * cases[at].pictures[:2] - 1 for at in chosen])
        latents = vae.encode(pairs.flatten(0, 1)).latent_dist.mean.unflatten(0, (-1, 2))
        shares = torch.tensor([cases[at].rng.uniform(0.35, 0.65) for at in chosen]).view(-1, 1, 1, 1)
        pictures[chosen] = (vae.decode(torch.lerp(latents[:, 0], latents[:, 1], shares)).sample + 1) / 2


def _splice(case: _Case) -> _Broken:
    of_scene = bool(set(case.changed) & set(SCENE_ATTRIBUTES))
    x, y = (IMAGE_SIZE / 2, IMAGE_SIZE / 2) if of_scene else case.centre
    angle = case.rng.uniform(0, 2 * math.pi)
    offset = case.rng.uniform(-0.15, 0.15) * (IMAGE_SIZE / 2 if of_scene else radius_of(case.thing))
    side = (_LINE - x) * math.cos(angle) + (_LINE.view(-1, 1) - y) * math.sin(angle) > offset
    mask = torch.where(side, *case.masks)
    says = _mixed(case)
    on_object = set(case.changed) - set(SCENE_ATTRIBUTES)
    if of_scene and on_object:  # the line may miss the object
        says |= dict.fromkeys(on_object, UNDEFINED)
    if says.get("shape") == 1 and max(_overlap(mask, before) for before in case.masks) > 0.92:
        says["shape"] = UNDEFINED
    return _Broken(torch.where(side, *case.pictures[:2]), mask, says)


def _morph(case: _Case) -> _Broken:
    """The outline is half way between two shapes, and what is inside follows it."""
    reaches = [_reach(mask, case.centre) for mask in case.masks]
    picture, mask = _reshape(case, reaches[0], torch.lerp(*reaches, case.rng.uniform(0.4, 0.6)))
    broken = max(_overlap(mask, before) for before in case.masks) < 0.88
    says = dict.fromkeys(["size", "pose", "content"], UNDEFINED) | {"shape": 1 if broken else UNDEFINED}
    return _Broken(picture, mask, says)


def _between(case: _Case) -> _Broken:
    """A size or a pose between the world's two."""
    if case.changed == ("pose",):
        return _Broken(case.pictures[1], case.masks[1], {"pose": 1})
    reach = _reach(case.masks[0], case.centre)
    mean = (radius_of(case.thing) + radius_of(case.other.objects[case.target])) / 2 + case.rng.uniform(-0.4, 0.4)
    picture, mask = _reshape(case, reach, reach * mean / radius_of(case.thing))
    return _Broken(picture, mask, {"size": 1})


def _melt(case: _Case) -> _Broken:
    """The object's pixels moved by a smooth random displacement of some pixels."""
    mask = case.masks[0]
    generator = torch.Generator().manual_seed(case.rng.getrandbits(31))
    cells = torch.randn(1, 2, 7, 7, generator=generator)
    moves = F.interpolate(cells, (IMAGE_SIZE, IMAGE_SIZE), mode="bicubic", align_corners=True)[0]
    moves = (moves - moves[:, mask].mean(1)[:, None, None]) * case.rng.uniform(0.3, 0.45) * radius_of(case.thing)
    x, y = _LINE + moves[0], _LINE.view(-1, 1) + moves[1]
    body = _sample(_grow(mask[None], 2).float(), x, y)
    picture = torch.lerp(case.pictures[2], _sample(case.pictures[0], x, y), body)
    moved = _sample(mask[None].float(), x, y)[0] > 0.5
    says = dict.fromkeys(["size", "pose", "content", "material"], UNDEFINED)
    return _Broken(picture, moved, says | {"shape": 1 if _overlap(moved, mask) < 0.78 else UNDEFINED})


def _bite(case: _Case) -> _Broken:
    """A disc of the object is missing."""
    mask, radius = case.masks[0], radius_of(case.thing)
    angle, away = case.rng.uniform(0, 2 * math.pi), case.rng.uniform(0, 0.9) * radius
    x, y = case.centre[0] + away * math.cos(angle), case.centre[1] + away * math.sin(angle)
    hole = torch.hypot(_LINE - x, _LINE.view(-1, 1) - y) < case.rng.uniform(0.5, 0.8) * radius
    gone = ((mask & hole).sum() / mask.sum()).item()
    says = dict.fromkeys(["size", "pose", "content"], UNDEFINED) | {"shape": 1 if 0.15 < gone < 0.6 else UNDEFINED}
    return _Broken(torch.where(hole, case.pictures[2], case.pictures[0]), mask & ~hole, says)


def _recolour(case: _Case) -> _Broken:
    """A colour outside of the palette. A picture is affine in its object's colour, so two renders
    give it in any colour."""
    name = case.rng.choice(list(OFF_PALETTE))
    red, blue = (torch.tensor(palette()[colour]) for colour in ("red", "blue"))
    wanted = torch.tensor([value + case.rng.uniform(-0.04, 0.04) for value in OFF_PALETTE[name]]).clamp(0, 1)
    share = ((wanted - red) / (blue - red)).view(3, 1, 1)
    says = {"colour": 1} | (dict.fromkeys(["material", "content"], UNDEFINED) if name == "white" else {})
    return _Broken(torch.lerp(*case.pictures[:2], share), case.masks[0], says)


def _blotch(case: _Case) -> _Broken:
    """Two colours in one object: in soft blotches, or in bands as wide as stripes."""
    mask, rng = case.masks[0], case.rng
    field = _field(rng, rng.choice((9, 12, 16)))
    if rng.random() < 0.4:
        angle, width = rng.uniform(0, math.pi), rng.uniform(4, 10)
        field = torch.sin((_LINE * math.cos(angle) + _LINE.view(-1, 1) * math.sin(angle)) * (2 * math.pi / width))
    share = torch.sigmoid((field - field[mask].quantile(rng.uniform(0.35, 0.65))) * rng.uniform(4, 12))
    says = {"colour": 1, "material": UNDEFINED, "content": UNDEFINED}
    return _Broken(torch.lerp(*case.pictures[:2], share), mask, says)


def _mottle(case: _Case) -> _Broken:
    """Light and dark in patches of no pattern."""
    rng = case.rng
    field = _field(rng, rng.choice((16, 20, 26)))
    light = 1 + (0.25 + 0.3 * rng.random()) * field.clamp(-1.5, 1.5)
    picture = torch.where(case.masks[0], case.pictures[0] * light, case.pictures[0])
    return _Broken(picture, case.masks[0], {"material": 1, "colour": UNDEFINED, "content": UNDEFINED})


def _field(rng: random.Random, cells: int) -> Float[Tensor, "64 64"]:
    """A smooth random field of standard deviation 1, drawn on a grid of `cells` x `cells`."""
    drawn = torch.randn(1, 1, cells, cells, generator=torch.Generator().manual_seed(rng.getrandbits(31)))
    field = F.interpolate(drawn, (IMAGE_SIZE, IMAGE_SIZE), mode="bicubic", align_corners=True)[0, 0]
    return field / field.std()


KINDS: dict[str, Callable[[_Case], _Broken]] = {
    "faded": _fade,
    "spliced": _splice,
    "morphed": _morph,
    "melted": _melt,
    "bitten": _bite,
    "recoloured": _recolour,
    "between": _between,
    "blotched": _blotch,
    "mottled": _mottle,
}
"""The ways to break a picture: two scenes cross-faded or cut together along a line, an outline between two shapes, a
smooth random displacement, a hole, a colour outside of the palette, a size or a pose between the world's two, two
colours in one object, light and dark without a pattern."""


# --- pixels -----------------------------------------------------------------------------------------------------------


def _overlap(one: Bool[Tensor, "64 64"], other: Bool[Tensor, "64 64"]) -> float:
    """Intersection over union."""
    return ((one & other).sum() / (one | other).sum()).item()


def _grow(masks: Bool[Tensor, "n 64 64"], by: int = 2) -> Bool[Tensor, "n 64 64"]:
    return F.max_pool2d(masks.float(), 2 * by + 1, 1, by) > 0


def _sample(picture: Tensor, x: Tensor, y: Tensor) -> Tensor:
    """Samples a picture `[channels, 64, 64]` at other places, in pixels, by linear interpolation."""
    grid = torch.stack([x.expand_as(y + x), y.expand_as(y + x)], -1) * (2 / IMAGE_SIZE) - 1
    return F.grid_sample(picture[None], grid[None], padding_mode="border", align_corners=False)[0]


def _reach(mask: Bool[Tensor, "64 64"], centre: tuple[float, float]) -> Float[Tensor, " angles"]:
    """How far a mask reaches from its centre in each direction, in pixels."""
    angle = torch.arange(_ANGLES) * (2 * math.pi / _ANGLES)
    along = torch.arange(0, 20, 0.25).view(-1, 1)
    inside = _sample(mask[None].float(), centre[0] + along * angle.cos(), centre[1] + along * angle.sin())[0] > 0.5
    return inside.float().cumprod(0).sum(0) * 0.25


def _reshape(case: _Case, old: Float[Tensor, " angles"], new: Float[Tensor, " angles"]) -> tuple[Tensor, Tensor]:
    """Picture and mask of the target, stretched along each direction from its centre until its
    outline is the new one."""
    dx, dy = _LINE - case.centre[0], _LINE.view(-1, 1) - case.centre[1]
    away = torch.hypot(dx, dy)
    place = torch.remainder(torch.atan2(dy, dx), 2 * math.pi) * (_ANGLES / (2 * math.pi))
    low, part = place.long() % _ANGLES, place - place.floor()
    old, new = (torch.lerp(outline[low], outline[(low + 1) % _ANGLES], part) for outline in (old, new))
    stretched = torch.where(away < new, away * old / new, old + away - new) / away.clamp(min=1e-3)
    drawn = _sample(case.pictures[0], case.centre[0] + dx * stretched, case.centre[1] + dy * stretched)
    return torch.lerp(case.pictures[2], drawn, (new + 3 - away).clamp(0, 1)), away < new


def _labels(case: _Case, broken: _Broken) -> Tensor:
    masks = object_masks([case.scene])[0]
    masks[case.target] = broken.mask
    every = object_masks([case.other])[0] | masks
    none = _areas(_grow(masks), every.any(0))
    target = _grow(broken.mask[None])[0]
    for at, name in enumerate(JUDGED):
        if value := broken.says.get(name, 0):
            area = none[at] != UNDEFINED if name in SCENE_ATTRIBUTES else target
            none[at][area] = value
    return none


def _areas(near: Bool[Tensor, "2 64 64"], covered: Bool[Tensor, "64 64"]) -> Int[Tensor, "attributes 64 64"]:
    """0 where an attribute is read: objects' attributes on and near objects, the background beside them,
    the style everywhere."""
    areas = {"background": ~covered, "style": torch.ones_like(covered)}
    return torch.stack([torch.where(areas.get(name, near.any(0)), 0, UNDEFINED) for name in JUDGED])
