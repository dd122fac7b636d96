"""Edits that work: what the judge must see of one, and the three that the painter offers."""

import json
from functools import cache
from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from sae_lib.assets import Assets
from sae_lib.cache.results import result_path
from sae_lib.paint.edits import Edit
from sae_lib.pocket.judge import NONE, Judgement, judge_images

RESULT = "suggestions"
"""Name of the stored result that `notebooks/experiments/suggestions.py` writes."""

ENOUGH = 0.9
"""A suggestion is shown if it did what it says in at least this share of the seeds that it was tested on."""

GONE, NEW = "object gone", "new object"

_NAMED = ("shape", "colour", "material", "content")
_KEPT = ("shape", "colour", "background")
_GROUNDS = {"desert": "a desert", "sea": "the sea", "meadow": "a meadow", "night": "night"}


class Change(NamedTuple):
    """What the judge sees change in a picture of one object: one thing, while the rest that it names stays."""

    kind: str
    """One of the object's attributes, "background", GONE or NEW."""
    value: str
    """The new value; of a new object its shape; empty for GONE."""
    others: int = 0
    """How many of the object's other attributes changed too (material and content: shape, colour and background may
    not)."""


class Suggestion(NamedTuple):
    """An edit that does what its words say."""

    words: str
    """Such as "Turn the square red"."""
    edit: Edit
    kind: str
    """`Change.kind` and `Change.value` that it is tested for."""
    value: str
    worked: int
    """In how many of the test's seeds the judge saw that change."""
    seeds: list[int]
    """The seeds of the test: their unedited picture shows the caption's object, and no choice used them."""

    @property
    def count(self) -> str:
        """The outcome of the test in words."""
        return f"{self.worked} of {len(self.seeds)} seeds"

    @property
    def button(self) -> str:
        """The words on the button: "shape", since the picture may show a square that stands on its corner."""
        return in_words(self.kind, self.value, "shape")


def change_between(before: Judgement, after: Judgement) -> Change | None:
    """The one thing that changed between two pictures, the first of one object; None for no change and for more.

    A picture counts as changed in one thing only if the shape and colour of its object and its background stay, but
    for the one that changes. Where the judge abstains nothing is counted as a change.
    """
    if len(before.objects) != 1 or len(after.objects) > 2:
        return None
    was = _named(before, 0)
    if NONE in (was[name] for name in _KEPT):
        return None
    if not after.objects:
        return Change(GONE, "") if after.scene["background"] == was["background"] else None
    order = sorted(range(len(after.objects)), key=lambda i: _distance(before, after, i))
    now = _named(after, order[0])
    changed = [name for name in now if now[name] != was[name]]
    if len(after.objects) == 2:
        new = _named(after, order[1])
        if any(name in _KEPT for name in changed) or new["shape"] == NONE:
            return None
        return Change(NEW, new["shape"], len(changed))
    main = [name for name in changed if name in _KEPT] or changed
    if len(main) != 1 or now[main[0]] == NONE:
        return None
    return Change(main[0], now[main[0]], len(changed) - 1)


def _named(seen: Judgement, number: int) -> dict[str, str]:
    of_object = seen.objects[number].attributes
    return {name: of_object[name] for name in _NAMED} | {"background": seen.scene["background"]}


def _distance(before: Judgement, after: Judgement, number: int) -> float:
    (x, y), (to_x, to_y) = before.objects[0].centre, after.objects[number].centre
    return (x - to_x) ** 2 + (y - to_y) ** 2


def changes_seen(
    assets: Assets, before: Float[Tensor, "pictures 3 64 64"], after: Float[Tensor, "pictures 3 64 64"]
) -> list[Change | None]:
    """`change_between` of pairs of pictures."""
    judged = judge_images(assets.judge, torch.cat([before, after]))
    return [change_between(*pair) for pair in zip(judged[: len(before)], judged[len(before) :], strict=True)]


def in_words(kind: str, value: str, shape: str) -> str:
    """What an edit does to a picture of an object of that shape."""
    if kind == GONE:
        return f"Make the {shape} vanish"
    if kind == NEW:
        return f"Paint a {value} here"
    if kind == "background":
        return "Let night fall" if value == "night" else f"Turn the background into {_GROUNDS[value]}"
    if kind == "shape":
        return f"Turn the {shape} into a {value}"
    if kind == "content":
        if value == "no eye":
            return f"Take the eye from the {shape}"
        return f"Give the {shape} {'an' if value[0] in 'aeiou' else 'a'} {value}"
    return f"Turn the {shape} {value}"


@cache
def _stored() -> tuple[dict[str, Any], ...]:
    path = result_path(RESULT)
    return tuple(json.loads(path.read_text())["result"]["chosen"]) if path.is_file() else ()


def load_suggestions(assets: Assets) -> list[Suggestion]:
    """The stored suggestions for some assets: those of the shipped models and SAEs whose blocks are worked with."""
    if not assets.known or assets.rehearsal or assets.sae_folder:
        return []
    read = [Suggestion(**each | {"edit": Edit.from_json(each["edit"])}) for each in _stored()]
    fitting = [each for each in read if all(layer.feature.block in assets.blocks for layer in each.edit.layers)]
    return [each for each in fitting if each.worked >= ENOUGH * len(each.seeds)]
