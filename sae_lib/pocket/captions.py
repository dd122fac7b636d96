"""Captions of pocket scenes: several phrasings, each attribute stated or left open, and a record of what was stated."""

import random
import re
from dataclasses import dataclass, replace

from sae_lib.pocket.world import (
    ATTRIBUTES,
    OBJECT_ATTRIBUTES,
    SCENE_ATTRIBUTES,
    Object,
    Scene,
    has_attribute,
    sample_scenes,
)

_PLACES = {
    "left": "on the left",
    "right": "on the right",
    "top": "at the top",
    "bottom": "at the bottom",
    "middle": "in the middle",
}
_SETTINGS = {"desert": "in a desert", "sea": "at sea", "meadow": "in a meadow", "night": "at night"}
_EYES = {"open eye": "with an open eye", "closed eye": "with a closed eye"}
_STATED = 0.8
"""Chance that an attribute is stated (the shape always is; a missing eye never is)."""


@dataclass(frozen=True)
class Caption:
    """A caption's text and what it states, as one mapping per named object.

    The objects stand in the order left to right or top to bottom; in the order of mention if `relation` is open.
    """

    text: str
    objects: tuple[dict[str, str], ...]
    scene: dict[str, str]
    relation: str | None
    """`"horizontal"` or `"vertical"` if a caption of two objects says where they stand, else None."""


def write_caption(scene: Scene, rng: random.Random, stated: float = _STATED) -> Caption:
    """One caption of the scene; each attribute is stated with probability `stated`."""
    objects = [_state(thing, rng, stated) for thing in scene.objects]
    phrases = [_noun_phrase(words) for words in objects]
    relation = None
    if len(objects) == 1:
        text = phrases[0]
        if "position" in objects[0]:
            text += " " + _PLACES[objects[0]["position"]]
    else:
        for words in objects:
            words.pop("position", None)
        if rng.random() < stated:
            relation = "horizontal" if scene.objects[0].position == "left" else "vertical"
        elif rng.random() < 0.5:
            objects, phrases = objects[::-1], phrases[::-1]
        text = _pair_phrase(*phrases, relation, rng)
    said = {name: getattr(scene, name) for name in ("background", "style") if rng.random() < stated}
    if "background" in said:
        text += " " + _SETTINGS[said["background"]]
    if "style" in said:
        text = f"a {said['style']} of {text}" if rng.random() < 0.5 else f"{text} as a {said['style']}"
    return Caption(text, tuple(objects), said, relation)


def _state(thing: Object, rng: random.Random, stated: float) -> dict[str, str]:
    words = {"shape": thing.shape}
    for name in OBJECT_ATTRIBUTES:
        silent = name == "shape" or not has_attribute(thing, name) or getattr(thing, name) == "no eye"
        if rng.random() < stated and not silent:
            words[name] = getattr(thing, name)
    return words


def _noun_phrase(words: dict[str, str]) -> str:
    parts = [words[name] for name in ("size", "pose", "colour", "material", "shape") if name in words]
    if "content" in words:
        parts.append(_EYES[words["content"]])
    return ("an " if parts[0][0] in "aeiou" else "a ") + " ".join(parts)


def _pair_phrase(first: str, second: str, relation: str | None, rng: random.Random) -> str:
    if relation == "horizontal":
        return rng.choice(
            (
                f"{first} to the left of {second}",
                f"{second} to the right of {first}",
                f"{first} on the left and {second} on the right",
            )
        )
    if relation == "vertical":
        return rng.choice(
            (f"{first} above {second}", f"{second} below {first}", f"{first} at the top and {second} at the bottom")
        )
    return rng.choice((f"{first} and {second}", f"{first} next to {second}"))


def attribute_words(name: str, value: str) -> str:
    """One attribute in a caption's words: "a star", "red", "with an open eye", "on the left", "at night", "a cartoon".

    Raises ValueError for "no eye", which no caption states.
    """
    if value == "no eye":
        raise ValueError("a missing eye is never stated: there are no words for it")
    if name in ("shape", "style"):
        return f"a {value}"
    return {**_PLACES, **_SETTINGS, **_EYES}.get(value, value)


def sample_captions(count: int, seed: int, split: str = "train") -> list[Caption]:
    """Captions of `count` scenes of a split (`world.sample_scenes`), one each, seeded."""
    rng = random.Random(f"captions-{split}-{seed}")
    return [write_caption(scene, rng) for scene in sample_scenes(count, seed, split)]


def minimal_pairs(count: int, seed: int, split: str = "test") -> dict[str, list[tuple[str, str]]]:
    """For each attribute `count` pairs of captions of one object that differ only in the attribute's value.

    All else is stated in the same words. The scenes are of the split; the second caption's value is drawn from those
    that a caption can state.
    """
    pairs: dict[str, list[tuple[str, str]]] = {name: [] for name in ATTRIBUTES}
    rng = random.Random(f"pairs-{split}-{seed}")
    for scene in sample_scenes(60 * count, seed, split):
        wanting = [name for name, made in pairs.items() if len(made) < count]
        if not wanting:
            break
        name = rng.choice(wanting)
        owner = scene if name in SCENE_ATTRIBUTES else scene.objects[0]
        value = getattr(owner, name)
        others = [other for other in ATTRIBUTES[name] if other not in (value, "no eye")]
        if len(scene.objects) == 1 and value != "no eye" and (owner is scene or has_attribute(owner, name)):
            changed = replace(owner, **{name: rng.choice(others)})
            other = changed if owner is scene else replace(scene, objects=(changed,))
            same_words = has_attribute(other.objects[0], "pose") == has_attribute(scene.objects[0], "pose")
            if same_words and other.split() != "unseen":
                words = rng.random()
                pair = (write_caption(shown, random.Random(words), 1.0).text for shown in (scene, other))
                pairs[name].append(tuple(pair))
    return pairs


def vocabulary() -> list[str]:
    """Every word that a caption can hold, sorted."""
    words = {word for values in OBJECT_ATTRIBUTES.values() for value in values for word in value.split()}
    phrases = [
        *_PLACES.values(),
        *_SETTINGS.values(),
        *_EYES.values(),
        "a an and as of to the left right above below next cartoon pastel",
    ]
    return sorted((words | {word for phrase in phrases for word in phrase.split()}) - {"no"})


def unlearnt_words(text: str) -> list[str]:
    """The words of a text that no caption holds, so that no pocket model ever learnt them, in their order.

    Upper and lower case are the same; ASCII punctuation is no word.
    """
    words = dict.fromkeys(re.findall(r"\w+|[^\w\s]", text.lower()))
    learnt = set(vocabulary())
    return [word for word in words if word not in learnt and (word[0].isalnum() or not word.isascii())]
