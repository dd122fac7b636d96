"""Drawing pictures with noise that belongs to the prompt, as `stream_updates` does."""

from collections.abc import Sequence

import torch
from diffusers import DiffusionPipeline
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from sae_lib.activations.denoising import CallSettings, call_arguments
from sae_lib.models.blocks import as_list
from sae_lib.models.noise import prompt_generator

MAX_SHOWN = 256
"""Pixels: larger pictures are shrunk to this width when shown, so that a contact sheet stays a small file."""


@torch.no_grad()
def draw_pictures(
    pipe: DiffusionPipeline,
    prompts: str | Sequence[str],
    settings: CallSettings,
    indices: Sequence[int] | None = None,
) -> Float[Tensor, "prompts 3 height width"]:
    """One picture per prompt, with values in [0, 1], in float32 on the CPU; the noise is that of `stream_updates`.

    indices: the number whose noise each picture gets, by default 0, 1, ...; the same number means the same noise.

    Raises ValueError if there are no prompts, or another number of indices, and what `call_arguments` raises.
    """
    prompts = as_list(prompts)
    numbers = range(len(prompts)) if indices is None else indices
    if not prompts:
        raise ValueError("no prompts: wanted at least one")
    if len(numbers) != len(prompts):
        raise ValueError(f"{len(prompts)} prompts and {len(numbers)} indices: wanted an index for each prompt")
    parts = []
    for start in range(0, len(prompts), settings.batch_size):
        indices = range(start, min(start + settings.batch_size, len(prompts)))
        generator = [prompt_generator(settings.seed, numbers[i]) for i in indices]
        call = call_arguments(pipe, [prompts[i] for i in indices], settings)
        drawn = pipe(**call, generator=generator, output_type="pt")
        parts.append(drawn.images.float().cpu().contiguous())
    return torch.cat(parts)


def as_image(picture: Float[Tensor, "3 height width"]) -> Image.Image:
    """A picture with values in [0, 1] in 8 bits, as diffusers rounds it."""
    return Image.fromarray((picture * 255).round().to(torch.uint8).movedim(0, -1).numpy(force=True))
