"""What a caption states, and which of it the judge finds in a picture."""

import itertools
from collections.abc import Iterable, Iterator, Sequence

import torch
from torch import Tensor

from sae_lib.pocket.captions import Caption
from sae_lib.pocket.judge import Found, Judge, Judgement, judge_images
from sae_lib.pocket.world import (
    ANCHORS,
    ATTRIBUTES,
)

FAMILIES = ("number", *ATTRIBUTES)
"""What a caption states something about: how many objects, their attributes, the scene's."""


def stated_and_found(caption: Caption, judgement: Judgement) -> Iterator[tuple[str, bool]]:
    """Each statement of a caption, as (attribute, whether the judge finds it), with the objects matched as well as they can be.

    "number" is the count of objects; "position" a single object's place, or who stands left of or above whom.
    """
    yield "number", len(judgement.objects) == len(caption.objects)
    candidates = list(
        itertools.permutations([*judgement.objects, *[None] * len(caption.objects)], len(caption.objects))
    )
    yield from max(
        (list(_compare(caption, chosen)) for chosen in candidates), key=lambda pairs: sum(found for _, found in pairs)
    )
    for name, value in caption.scene.items():
        yield name, judgement.scene[name] == value


def _compare(caption: Caption, chosen: Iterable[Found | None]) -> Iterator[tuple[str, bool]]:
    chosen = tuple(chosen)
    for words, thing in zip(caption.objects, chosen, strict=True):
        for name, value in words.items():
            if name == "position":
                yield name, thing is not None and nearest_position(thing.centre) == value
            else:
                yield name, thing is not None and thing.attributes[name] == value
    if caption.relation:
        axis = ("horizontal", "vertical").index(caption.relation)
        first, second = chosen
        yield "position", first is not None and second is not None and second.centre[axis] - first.centre[axis] > 8


def least_sure(caption: Caption, judgement: Judgement) -> float:
    """The lowest of the probabilities that the judge gives to what the caption states; 0 if it does not find all of it.

    Number and position have no probability: they are found or not.
    """
    if not all(found for _, found in stated_and_found(caption, judgement)):
        return 0.0
    things = max(
        itertools.permutations(judgement.objects),
        key=lambda chosen: sum(found for _, found in _compare(caption, chosen)),
    )
    stated = [
        thing.probabilities[name]
        for words, thing in zip(caption.objects, things, strict=True)
        for name in words
        if name != "position"
    ]
    return min(stated + [judgement.probabilities[name] for name in caption.scene])


def nearest_position(centre: tuple[float, float]) -> str:
    """The name of the anchor nearest to a centre in pixels."""
    return min(ANCHORS, key=lambda name: (ANCHORS[name][0] - centre[0]) ** 2 + (ANCHORS[name][1] - centre[1]) ** 2)


def count_statements(judge: Judge, images: Tensor, captions: Sequence[Caption]) -> Tensor:
    """Statements that the judge finds and all that are made, `[captions, FAMILIES, 2]`, one picture a caption."""
    counts = torch.zeros(len(captions), len(FAMILIES), 2)
    for row, caption, judgement in zip(counts, captions, judge_images(judge, images), strict=True):
        for family, right in stated_and_found(caption, judgement):
            row[FAMILIES.index(family)] += torch.tensor([float(right), 1.0])
    return counts


def caption_agreement(judge: Judge, images: Tensor, captions: list[Caption]) -> dict[str, tuple[int, int]]:
    """`{family: (found, stated)}` over pictures of captions, with "all" for the total."""
    counts = count_statements(judge, images, captions).sum(0).int()
    totals = dict(zip(FAMILIES, counts.tolist(), strict=True)) | {"all": counts.sum(0).tolist()}
    return {family: tuple(pair) for family, pair in totals.items() if pair[1]}
