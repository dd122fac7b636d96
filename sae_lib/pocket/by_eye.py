"""A hundred generated pictures, labelled by looking at them once: how good the judge is on what the models draw.

The judge was trained on renders, whose truth is exact; what a model draws may be blurred, broken or mixed. `by_eye.png`
holds the pictures that were looked at, `by_eye.json` what was seen, by whom and when. Half of them are one-step Turbo's
pictures of held-out captions. In the other half one feature is turned on, of every block equally often: these edits are
where a judge could be fooled.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from sae_lib.pocket.judge import NONE, Judgement
from sae_lib.pocket.statements import nearest_position
from sae_lib.pocket.world import IMAGE_SIZE

SEEN = ("shape", "colour", "material", "content", "background", "style")
"""The attributes that were labelled. Size and pose are a matter of pixels and degrees, which an eye only guesses."""

NAMED, UNNAMED = ("same", "other", "abstains"), ("abstains too", "answers")
"""The judge's answers, first where the eye named a value: the same value, another one, or none of them. Then where the
eye could name no value: none of them either, or some value."""

_FOLDER = Path(__file__).parent


class Labelled(NamedTuple):
    """One picture and what was seen in it."""

    picture: Float[Tensor, "3 64 64"]
    edited: bool
    """Whether a feature was turned on."""
    objects: tuple[Mapping[str, str], ...]
    """By object, its position and the first four of SEEN; NONE where no value could be named."""
    scene: Mapping[str, str]
    """Background and style."""


def load_by_eye() -> list[Labelled]:
    """The labelled pictures, in the order of the sheet. Raises ValueError if their numbers differ."""
    labels = json.loads((_FOLDER / "by_eye.json").read_text())["pictures"]
    sheet = torch.from_numpy(np.array(Image.open(_FOLDER / "by_eye.png").convert("RGB"))).permute(2, 0, 1).float() / 255
    tiles = sheet.unfold(1, IMAGE_SIZE, IMAGE_SIZE).unfold(2, IMAGE_SIZE, IMAGE_SIZE).flatten(1, 2).transpose(0, 1)
    if len(tiles) != len(labels):
        raise ValueError(
            f"by_eye.png holds {len(tiles)} pictures and by_eye.json labels {len(labels)}: take both from git"
        )
    return [
        Labelled(picture.contiguous(), label["edited"], tuple(label["objects"]), label["scene"])
        for picture, label in zip(tiles, labels, strict=True)
    ]


def compare_with_eye(labelled: Sequence[Labelled], judgements: Sequence[Judgement]) -> list[list[tuple[str, str]]]:
    """By picture, the answers (attribute, one of NAMED or UNNAMED) to everything that was labelled in it.

    Where the judge misses an object that the eye saw, what the eye named counts as "abstains"; nothing else is asked of
    that object. "number" says whether the judge sees as many objects as the eye: "same" or "other".
    """
    return [list(_compare(*pair)) for pair in zip(labelled, judgements, strict=True)]


def _compare(seen: Labelled, judged: Judgement) -> Iterator[tuple[str, str]]:
    yield "number", "same" if len(seen.objects) == len(judged.objects) else "other"
    by_place = {nearest_position(thing.centre): thing for thing in judged.objects}
    for thing in seen.objects:
        match = judged.objects[0] if len(seen.objects) == len(judged.objects) == 1 else by_place.get(thing["position"])
        for name in SEEN[:4]:
            if match or thing[name] != NONE:
                yield name, _answer(thing[name], match.attributes[name] if match else NONE)
    for name in SEEN[4:]:
        yield name, _answer(seen.scene[name], judged.scene[name])


def _answer(eye: str, judge: str) -> str:
    if eye == NONE:
        return UNNAMED[judge != NONE]
    return "same" if judge == eye else "abstains" if judge == NONE else "other"


def count_answers(
    answers: Sequence[Sequence[tuple[str, str]]], wanted: Sequence[str], among: Sequence[str], name: str = ""
) -> Float[Tensor, "pictures 2"]:
    """By picture, how many answers are one of `wanted`, and one of `among`; name: an attribute, or "" for all."""
    of = [[answer for what, answer in picture if name in ("", what)] for picture in answers]
    return torch.tensor([[float(sum(answer in kind for answer in row)) for kind in (wanted, among)] for row in of])
