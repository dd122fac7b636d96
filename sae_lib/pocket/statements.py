"""What a caption states, and which of its statements the judge sees in a picture."""

import itertools
from collections.abc import Iterable, Iterator, Sequence

import torch
from torch import Tensor

from sae_lib.pocket.captions import Caption
from sae_lib.pocket.judge import Judge, Judgement, SeenObject, judge_images
from sae_lib.pocket.world import ANCHORS, ATTRIBUTES

FAMILIES = ("number", *ATTRIBUTES)
"""What a caption makes statements about: the number of objects, their attributes, the scene's attributes."""


def check_statements(caption: Caption, judgement: Judgement) -> Iterator[tuple[str, bool]]:
    """Each statement of a caption as (attribute, whether the judge sees it), for the best matching of the objects.

    "number" is the count of objects; "position" is the place of a single object, or which of two objects stands left of
    or above the other.
    """
    yield "number", len(judgement.objects) == len(caption.objects)
    count = len(caption.objects)
    candidates = itertools.permutations([*judgement.objects, *[None] * count], count)
    matchings = (list(_compare(caption, chosen)) for chosen in candidates)
    yield from max(matchings, key=lambda pairs: sum(right for _, right in pairs))
    for name, value in caption.scene.items():
        yield name, judgement.scene[name] == value


def _compare(caption: Caption, chosen: Iterable[SeenObject | None]) -> Iterator[tuple[str, bool]]:
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
    """The lowest probability that the judge gives to what the caption states; 0 if it does not see all of it.

    Number and position have no probability: they are right or not.
    """
    if not all(right for _, right in check_statements(caption, judgement)):
        return 0.0
    things = max(
        itertools.permutations(judgement.objects),
        key=lambda chosen: sum(right for _, right in _compare(caption, chosen)),
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
    """Statements that the judge sees and all that are made, `[captions, FAMILIES, 2]`, of one picture per caption."""
    counts = torch.zeros(len(captions), len(FAMILIES), 2)
    for row, caption, judgement in zip(counts, captions, judge_images(judge, images), strict=True):
        for family, right in check_statements(caption, judgement):
            row[FAMILIES.index(family)] += torch.tensor([float(right), 1.0])
    return counts


def fulfilled(judge: Judge, images: Tensor, captions: Sequence[Caption]) -> list[list[bool]]:
    """Of each caption's statements, in their order, whether the judge sees them in its picture."""
    judgements = judge_images(judge, images)
    return [[right for _, right in check_statements(*pair)] for pair in zip(captions, judgements, strict=True)]


def caption_agreement(judge: Judge, images: Tensor, captions: list[Caption]) -> dict[str, tuple[int, int]]:
    """`{family: (seen, stated)}` summed over pictures of captions, with "all" for the total."""
    counts = count_statements(judge, images, captions).sum(0).int()
    totals = dict(zip(FAMILIES, counts.tolist(), strict=True)) | {"all": counts.sum(0).tolist()}
    return {family: tuple(pair) for family, pair in totals.items() if pair[1]}
