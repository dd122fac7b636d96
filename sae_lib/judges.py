"""Judges that say what a picture shows, independently of the models that drew it."""

import torch
from torch import nn


def load_judge(scale: str = "pocket", device: str | torch.device = "cpu") -> nn.Module:
    """The judge of a scale: at pocket scale the dense attribute judge (`sae_lib.pocket.judge.judge_images` reads pictures with it).

    Raises ValueError at sdxl scale, where nothing knows the truth.
    """
    if scale not in ("pocket", "smoke"):
        raise ValueError(f"there is no judge at scale {scale!r}: only the pocket world has ground truth")
    from sae_lib.pocket import weights

    return weights.load("judge").to(device)
