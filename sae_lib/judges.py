"""Judges that say what a picture shows, independently of the models that drew it."""

import torch
from jaxtyping import Float
from torch import Tensor, nn


def load_judge(scale: str = "pocket", device: str | torch.device = "cpu") -> nn.Module:
    """The judge of a scale: at pocket scale the dense attribute judge (`sae_lib.pocket.judge.judge_images` reads pictures with it).

    Raises ValueError at sdxl scale, where nothing knows the truth.
    """
    if scale not in ("pocket", "smoke"):
        raise ValueError(f"there is no judge at scale {scale!r}: only the pocket world has ground truth")
    from sae_lib.pocket import weights

    return weights.load("judge").to(device)


def attribute_values() -> list[tuple[str, str]]:
    """The pocket world's attribute values, as (attribute, value), in the order of `see_values`."""
    from sae_lib.pocket.world import ATTRIBUTES

    return [(name, value) for name, values in ATTRIBUTES.items() for value in values]


def see_values(judge: nn.Module, pictures: Float[Tensor, "pictures 3 64 64"]) -> Float[Tensor, "pictures values"]:
    """Which attribute values the judge sees, on any object or in the scene: 0 or 1."""
    from sae_lib.pocket.judge import judge_images
    from sae_lib.pocket.quality import nearest_position

    places = {pair: place for place, pair in enumerate(attribute_values())}
    seen = torch.zeros(len(pictures), len(places))
    for row, judgement in zip(seen, judge_images(judge, pictures), strict=True):
        found = set(judgement.scene.items())
        for thing in judgement.objects:
            found |= {*thing.attributes.items(), ("position", nearest_position(thing.centre))}
        row[[places[pair] for pair in found]] = 1
    return seen
