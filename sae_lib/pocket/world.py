"""The pocket world: captioned scenes of one or two objects, with exact ground truth for every attribute.

A `Scene` is a plain record. From it come the picture (`render`), each object's mask (`object_masks`), each attribute as
a per-pixel map (`attribute_maps`) and captions (`sae_lib.pocket.captions`). Everything is seeded and vectorised.

Each of RIEBench's nine edit categories has a counterpart here: change object (shape), add or delete object (one or two
objects), content (the eye), pose (upright or tilted), colour, material, background, style.
"""

import hashlib
import math
import random
from dataclasses import dataclass

import torch
from torch import Tensor

IMAGE_SIZE = 64

OBJECT_ATTRIBUTES: dict[str, tuple[str, ...]] = {
    "shape": ("circle", "square", "triangle", "heart", "star"),
    "colour": ("red", "yellow", "green", "blue", "purple"),
    "material": ("plain", "striped", "dotted"),
    "size": ("small", "large"),
    "pose": ("upright", "tilted"),
    "content": ("no eye", "open eye", "closed eye"),
    "position": ("left", "right", "top", "bottom", "middle"),
}
"""What an object can be. A circle shows its pose only by stripes, dots or eye, so it is never stated or scored."""

SCENE_ATTRIBUTES: dict[str, tuple[str, ...]] = {
    "background": ("desert", "sea", "meadow", "night"),
    "style": ("cartoon", "pastel"),
}
"""What the whole picture can be. Background is defined on background pixels, style on every pixel."""

ATTRIBUTES = OBJECT_ATTRIBUTES | SCENE_ATTRIBUTES

UNSEEN_PAIRS = (("heart", "green"), ("triangle", "purple"), ("square", "yellow"))
"""Shape and colour combinations that no training scene holds: they test whether models compose."""

UNDEFINED = -1
"""Value of an attribute map where the attribute has no value (a colour on the background, a circle's pose)."""

ANCHORS = {
    "left": (16.0, 32.0),
    "right": (48.0, 32.0),
    "top": (32.0, 16.0),
    "bottom": (32.0, 48.0),
    "middle": (32.0, 32.0),
}
_RADII = {"small": 9.5, "large": 13.5}
_COLOURS = {
    "red": (0.88, 0.20, 0.16),
    "yellow": (0.97, 0.82, 0.16),
    "green": (0.20, 0.66, 0.26),
    "blue": (0.16, 0.36, 0.86),
    "purple": (0.60, 0.22, 0.72),
}
_GROUNDS = {
    "desert": (0.87, 0.77, 0.58),
    "sea": (0.45, 0.78, 0.84),
    "meadow": (0.66, 0.84, 0.52),
    "night": (0.15, 0.17, 0.30),
}
_TILT = math.pi / 4


@dataclass(frozen=True)
class Object:
    """One object: its attributes, and the small free variation that no caption states."""

    shape: str
    colour: str
    material: str
    size: str
    pose: str
    content: str
    position: str
    shift: tuple[float, float] = (0.0, 0.0)
    """Offset from the position's anchor, x and y in pixels, each within +-1."""
    turn: float = 0.0
    """Rotation in radians added to the pose's, within +-0.12."""


@dataclass(frozen=True)
class Scene:
    """One or two objects on a background, in a style. The first object is the left or the upper one."""

    objects: tuple[Object, ...]
    background: str
    style: str
    phase: tuple[float, float] = (0.0, 0.0)
    """Where the background's pattern starts, x and y in pixels."""

    def __post_init__(self) -> None:
        if not 1 <= len(self.objects) <= 2:
            raise ValueError(f"a scene holds one or two objects, got {len(self.objects)}")
        for name, values in OBJECT_ATTRIBUTES.items():
            for thing in self.objects:
                if getattr(thing, name) not in values:
                    raise ValueError(f"unknown {name} {getattr(thing, name)!r}; choose one of {', '.join(values)}")
        for name, values in SCENE_ATTRIBUTES.items():
            if getattr(self, name) not in values:
                raise ValueError(f"unknown {name} {getattr(self, name)!r}; choose one of {', '.join(values)}")

    def split(self) -> str:
        """The split of the scene: "unseen" if it has a held-out pair of shape and colour, else "test" or "train".

        A tenth of all other combinations of attributes are "test".
        """
        if any((thing.shape, thing.colour) in UNSEEN_PAIRS for thing in self.objects):
            return "unseen"
        names = [[getattr(thing, name) for name in OBJECT_ATTRIBUTES] for thing in self.objects]
        key = repr((names, self.background, self.style)).encode()
        return "test" if hashlib.sha256(key).digest()[0] < 26 else "train"


def sample_scenes(count: int, seed: int, split: str = "train") -> list[Scene]:
    """Draw `count` scenes of one split (`Scene.split`): every attribute uniform, half of the scenes with two objects.

    Raises ValueError for an unknown split.
    """
    if split not in ("train", "test", "unseen"):
        raise ValueError(f"unknown split {split!r}; choose one of train, test, unseen")
    rng = random.Random(f"{split}-{seed}")
    scenes: list[Scene] = []
    while len(scenes) < count:
        scene = _sample_scene(rng)
        if scene.split() == split:
            scenes.append(scene)
    return scenes


def _sample_scene(rng: random.Random) -> Scene:
    if rng.random() < 0.5:
        positions = rng.choice((("left", "right"), ("top", "bottom")))
    else:
        positions = (rng.choice(OBJECT_ATTRIBUTES["position"]),)
    objects = tuple(
        Object(
            **{name: rng.choice(values) for name, values in OBJECT_ATTRIBUTES.items() if name != "position"},
            position=position,
            shift=(rng.uniform(-1, 1), rng.uniform(-1, 1)),
            turn=rng.uniform(-0.12, 0.12),
        )
        for position in positions
    )
    scene_values = {name: rng.choice(values) for name, values in SCENE_ATTRIBUTES.items()}
    return Scene(objects, **scene_values, phase=(rng.uniform(0, 16), rng.uniform(0, 16)))


# --- geometry: signed distances in pixels, negative inside ------------------------------------------------------------


@dataclass
class _Geometry:
    """Where objects are, each field `[objects, 1, 64, 64]` (radius `[objects, 1, 1, 1]`), lengths in pixels."""

    x: Tensor
    """Along the object's own axes, from its centre."""
    y: Tensor
    radius: Tensor
    distance: Tensor


def _geometry(things: list[Object], device: torch.device | str) -> _Geometry:
    rows = []
    for thing in things:
        x, y = ANCHORS[thing.position]
        angle = thing.turn + (_TILT if thing.pose == "tilted" else 0.0)
        rows.append((x + thing.shift[0], y + thing.shift[1], _RADII[thing.size], angle))
    centre_x, centre_y, radius, angle = torch.tensor(rows, device=device).view(-1, 4, 1, 1, 1).unbind(1)
    line = torch.arange(IMAGE_SIZE, device=device) + 0.5
    dx, dy = line - centre_x, line.view(-1, 1) - centre_y
    x, y = dx * angle.cos() + dy * angle.sin(), dy * angle.cos() - dx * angle.sin()
    distance = torch.empty_like(x)
    for name, shape in _SHAPES.items():
        rows = [row for row, thing in enumerate(things) if thing.shape == name]
        distance[rows] = radius[rows] * shape(x[rows] / radius[rows], y[rows] / radius[rows])
    return _Geometry(x, y, radius, distance)


def _slots(scenes: list[Scene]) -> list[tuple[list[int], list[Object]]]:
    """For the first and for the second objects: the scenes that have one, and the objects."""
    rows = [[row for row, scene in enumerate(scenes) if len(scene.objects) > slot] for slot in range(2)]
    return [(chosen, [scenes[row].objects[slot] for row in chosen]) for slot, chosen in enumerate(rows) if chosen]


def _circle(x: Tensor, y: Tensor) -> Tensor:
    return torch.hypot(x, y) - 0.92


def _square(x: Tensor, y: Tensor) -> Tensor:
    return torch.maximum(x.abs(), y.abs()) - 0.74


def _triangle(x: Tensor, y: Tensor) -> Tensor:
    return torch.maximum(0.866 * x.abs() - 0.5 * (y - 0.04), y - 0.04) - 0.51


def _heart(x: Tensor, y: Tensor) -> Tensor:
    side, height = x.abs(), 0.06 - y  # a diamond with a disc on each of its upper sides
    lobe = torch.hypot(side - 0.37, height - 0.37) - 0.523
    return torch.minimum(lobe, (side + height.abs() - 0.74) / math.sqrt(2))


def _star(x: Tensor, y: Tensor) -> Tensor:
    sector = 2 * math.pi / 5
    angle = torch.remainder(torch.atan2(x, -y) + sector / 2, sector) - sector / 2
    length = torch.hypot(x, y)
    along, across = length * angle.cos(), (length * angle.sin()).abs()
    # the edge from the tip (1, 0) to the notch at radius 0.5
    notch_x, notch_y = 0.5 * math.cos(sector / 2), 0.5 * math.sin(sector / 2)
    edge = math.hypot(1 - notch_x, notch_y)
    return ((along - 1) * notch_y + across * (1 - notch_x)) / edge


_SHAPES = {"circle": _circle, "square": _square, "triangle": _triangle, "heart": _heart, "star": _star}


# --- pictures and ground truth ----------------------------------------------------------------------------------------


def render(scenes: list[Scene], device: torch.device | str = "cpu") -> Tensor:
    """Pictures of the scenes, `[scenes, 3, 64, 64]`, with values in [0, 1]; they do not depend on the batch."""
    return torch.cat([_render(scenes[at : at + 64], device) for at in range(0, len(scenes), 64)])


def _render(scenes: list[Scene], device: torch.device | str) -> Tensor:
    pastel = _column([float(scene.style == "pastel") for scene in scenes], device)
    image = _ground(scenes, device)
    for rows, things in _slots(scenes):
        shape, soft = _geometry(things, device), pastel[rows]
        outline = (1 - soft) * _cover(shape.distance - 1.5)  # cartoons have a dark rim, 1.5 px outside the shape
        below = image[rows] * (1 - outline) + 0.08 * outline
        body = _cover(shape.distance / (1 + 0.6 * soft))  # pastels have soft edges
        image[rows] = below + body * (_surface(things, shape, device) - below)
    return (image + 0.45 * pastel * (1 - image)).clamp(0, 1)


def _cover(distance: Tensor) -> Tensor:
    """Share of a pixel inside a shape whose edge is `distance` pixels away (anti-aliasing over one pixel)."""
    return (0.5 - distance).clamp(0, 1)


def _column(values: list[float] | list[tuple[float, float, float]], device: torch.device | str) -> Tensor:
    return torch.tensor(values, device=device).view(len(values), -1, 1, 1)


def _ground(scenes: list[Scene], device: torch.device | str) -> Tensor:
    """The empty background `[scenes, 3, 64, 64]`: one colour, and a pattern that tells it apart as well."""
    image = _column([_GROUNDS[scene.background] for scene in scenes], device).repeat(1, 1, IMAGE_SIZE, IMAGE_SIZE)
    line = torch.arange(IMAGE_SIZE, device=device) + 0.5
    for name, pattern in _PATTERNS.items():
        rows = [row for row, scene in enumerate(scenes) if scene.background == name]
        if rows:
            x = line + _column([scenes[row].phase[0] for row in rows], device)
            y = line.view(-1, 1) + _column([scenes[row].phase[1] for row in rows], device)
            image[rows] += pattern(x, y)
    return image


def _dunes(x: Tensor, y: Tensor) -> Tensor:
    return -0.07 * (torch.sin((y + 2.5 * torch.sin(x / 9)) * (2 * math.pi / 16)) > 0.6)


def _waves(x: Tensor, y: Tensor) -> Tensor:
    return 0.13 * (torch.sin((y + 1.5 * torch.sin(x * (2 * math.pi / 8))) * (2 * math.pi / 8)) > 0.75)


def _tufts(x: Tensor, y: Tensor) -> Tensor:
    shifted = x + 4 * torch.floor(y / 8)
    return -0.13 * ((torch.remainder(shifted, 8) - 4).abs() + (torch.remainder(y, 8) - 4).abs() < 2)


def _stars(x: Tensor, y: Tensor) -> Tensor:
    shifted = x + 8 * torch.floor(y / 16)
    return 0.55 * (torch.hypot(torch.remainder(shifted, 16) - 8, torch.remainder(y, 16) - 8) < 1.3)


_PATTERNS = {"desert": _dunes, "sea": _waves, "meadow": _tufts, "night": _stars}


def _surface(things: list[Object], shape: _Geometry, device: torch.device | str) -> Tensor:
    """What covers the objects, `[objects, 3, 64, 64]`: colour, then material, then the eye."""

    def having(name: str, value: str) -> Tensor:
        return _column([float(getattr(thing, name) == value) for thing in things], device)

    x, y, radius = shape.x, shape.y, shape.radius
    stripe = having("material", "striped") * (torch.remainder(x + y, 6.0) < 3.0)
    dot = having("material", "dotted") * _cover(
        torch.hypot(torch.remainder(x, 5.5) - 2.75, torch.remainder(y, 5.5) - 2.75) - 1.5
    )
    is_open, is_closed = having("content", "open eye"), having("content", "closed eye")
    centre = torch.hypot(x, y)
    white = torch.maximum(0.8 * dot, is_open * _cover(centre - 0.44 * radius))
    lid = (torch.hypot(x, y + 0.35 * radius) - 0.5 * radius).abs() - 0.11 * radius
    lid = torch.where(y > -0.12 * radius, lid, 9.0)
    dark = torch.maximum(is_open * _cover(centre - 0.2 * radius), is_closed * _cover(lid))
    colour = _column([_COLOURS[thing.colour] for thing in things], device) * (1 - 0.42 * stripe)
    return (colour + white * (1 - colour)) * (1 - 0.95 * dark)


def object_masks(scenes: list[Scene], device: torch.device | str = "cpu") -> Tensor:
    """Which pixels belong to which object, boolean `[scenes, 2, 64, 64]`: pixel centres in the shape, no overlaps."""
    masks = torch.zeros(len(scenes), 2, IMAGE_SIZE, IMAGE_SIZE, dtype=torch.bool, device=device)
    for slot, (rows, things) in enumerate(_slots(scenes)):
        masks[rows, slot] = _geometry(things, device).distance[:, 0] < 0
    return masks


def attribute_maps(scenes: list[Scene], device: torch.device | str = "cpu") -> dict[str, Tensor]:
    """By attribute, a map of indices into `ATTRIBUTES[name]`, int64 `[scenes, 64, 64]`, or UNDEFINED."""
    masks = object_masks(scenes, device)
    maps = {}
    for name, values in OBJECT_ATTRIBUTES.items():
        field = torch.full((len(scenes), IMAGE_SIZE, IMAGE_SIZE), UNDEFINED, device=device)
        for slot, (rows, things) in enumerate(_slots(scenes)):
            index = [
                values.index(getattr(thing, name)) if has_attribute(thing, name) else UNDEFINED for thing in things
            ]
            field[rows] = torch.where(masks[rows, slot], torch.tensor(index, device=device).view(-1, 1, 1), field[rows])
        maps[name] = field
    for name, values in SCENE_ATTRIBUTES.items():
        index = torch.tensor([values.index(getattr(scene, name)) for scene in scenes], device=device).view(-1, 1, 1)
        field = index.expand(-1, IMAGE_SIZE, IMAGE_SIZE)
        maps[name] = torch.where(masks.any(1), UNDEFINED, field) if name == "background" else field.clone()
    return maps


def has_attribute(thing: Object, name: str) -> bool:
    """Whether the attribute shows on the object: all do, but a circle's pose."""
    return not (name == "pose" and thing.shape == "circle")


def palette() -> dict[str, tuple[float, float, float]]:
    """Each colour's RGB in [0, 1], as a cartoon shows it."""
    return dict(_COLOURS)


def radius_of(thing: Object) -> float:
    """Radius in pixels of the circle that about encloses the object."""
    return _RADII[thing.size]
