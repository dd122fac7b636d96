"""Load the diffusion pipelines of each scale: plain `StableDiffusionXLPipeline`s, nothing subclassed or patched."""

from pathlib import Path
from typing import Any

import torch
from diffusers import StableDiffusionXLPipeline

from sae_lib.cache.space import refuse_without_disk
from sae_lib.models.rehearsal import PARAMETERS, random_pipeline, refuse_if_too_large, width_divisor
from sae_lib.models.scales import get_scale, set_up_torch

HUB_IDS = {"turbo": "stabilityai/sdxl-turbo", "base": "stabilityai/stable-diffusion-xl-base-1.0"}
"""The paper's models. SDXL Turbo's licence allows non-commercial research."""

LICENCES = {
    "turbo": "Stability AI non-commercial research (SDXL Turbo)",
    "base": "CreativeML Open RAIL++-M (SDXL base)",
}
POCKET_NAMES = {"turbo": "pocket-sdxl-turbo", "base": "pocket-sdxl-base"}
"""Ours, shipped with this package."""
_DOWNLOAD_GB = 7.0


def load_pipeline(
    name: str,
    scale: str = "pocket",
    source: str | None = None,
    device: str | torch.device | None = None,
    dtype: torch.dtype | None = None,
) -> StableDiffusionXLPipeline:
    """The pipeline `"turbo"` (called with guidance_scale 0.0) or `"base"` of a scale, ready to call, progress bar off.

    scale: "pocket" (and its alias "smoke") loads the models shipped with this package, "sdxl" the paper's. source: at
    sdxl scale a local folder or Hub id in place of the default; "random" builds the real configuration with random
    weights (rehearsal: true shapes, no science), "random/16" the same with every width divided by 16.

    device: by default a GPU if there is one. dtype: by default float16 for sdxl on a GPU, else float32. From then on
    torch computes with as many threads as the scale wants (`scales.set_up_torch`): one at pocket scale.

    Raises ValueError for an unknown name, scale or source, or damaged weights; MemoryError or OSError if memory or
    disk cannot hold what is asked; FileNotFoundError if weights are missing, ConnectionError if they would have to
    be downloaded and cannot.
    """
    if name not in HUB_IDS:
        raise ValueError(f"unknown pipeline {name!r}; choose one of {', '.join(HUB_IDS)}")
    get_scale(scale)
    set_up_torch(scale)
    device = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    dtype = dtype or (torch.float16 if scale == "sdxl" and device.type == "cuda" else torch.float32)
    if scale != "sdxl":
        if source:
            raise ValueError(f"source {source!r} is for scale 'sdxl'; the {scale} models are shipped with this package")
        pipe = _pocket_pipeline(name)
    elif source and source.startswith("random"):
        pipe = random_pipeline(name, width_divisor(source), device, dtype)
    else:
        pipe = _published_pipeline(source or HUB_IDS[name], device, dtype)
    pipe.set_progress_bar_config(disable=True)
    return pipe.to(device) if pipe.dtype == dtype else pipe.to(device, dtype)  # diffusers warns of each cast


def _pocket_pipeline(name: str) -> StableDiffusionXLPipeline:
    from sae_lib.pocket import models, weights

    parts = {part: weights.load(part) for part in ("vae", "tokenizer", *weights.TEXT_ENCODERS)}
    pipe = models.assemble_pipeline(name, unet=weights.load(f"unet_{name}"), **parts)
    for part in (pipe.unet, pipe.vae):
        part.to(memory_format=torch.channels_last)  # on a CPU half as much again of pictures per second
    return pipe


def _published_pipeline(source: str, device: torch.device, dtype: torch.dtype) -> StableDiffusionXLPipeline:
    refuse_if_too_large(sum(PARAMETERS.values()), device, dtype)
    settings: dict[str, Any] = {"dtype": dtype, "use_safetensors": True, "add_watermarker": False}
    if dtype == torch.float16:
        settings["variant"] = "fp16"
    if Path(source).is_dir():
        try:
            return StableDiffusionXLPipeline.from_pretrained(source, local_files_only=True, **settings)
        except (OSError, ValueError) as error:
            raise ValueError(
                f"the folder {source!r} holds no readable SDXL pipeline ({error}); "
                "give a folder written by save_pretrained"
            ) from error
    way = "free some, or give a local folder as source"
    refuse_without_disk(_DOWNLOAD_GB, Path.home(), f"{source} takes some", way)
    try:
        return StableDiffusionXLPipeline.from_pretrained(source, **settings)
    except OSError as error:
        raise ConnectionError(
            f"{source!r} is not on this machine and cannot be downloaded: connect to the internet, or give the folder "
            f"of a downloaded copy as source (source='random' rehearses without weights). {error}"
        ) from error


def silence_progress_bars() -> None:
    """Turn off the bars that diffusers, transformers and the Hub draw while loading: they differ from run to run."""
    import diffusers
    import transformers
    from huggingface_hub.utils import disable_progress_bars

    diffusers.utils.logging.disable_progress_bar()
    transformers.utils.logging.disable_progress_bar()
    disable_progress_bars()
