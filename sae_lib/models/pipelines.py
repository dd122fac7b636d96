"""Load the diffusion pipelines of each scale: plain `StableDiffusionXLPipeline`s, nothing subclassed or patched."""

import math
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, StableDiffusionXLPipeline, UNet2DConditionModel
from transformers import CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer

from sae_lib.cache.complete import find_folder, has_variant, load_complete, tensors_in
from sae_lib.cache.reading import read_object
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
_PARTS = {
    "unet": UNet2DConditionModel,
    "vae": AutoencoderKL,
    "text_encoder": CLIPTextModel,
    "text_encoder_2": CLIPTextModelWithProjection,
    "tokenizer": CLIPTokenizer,
    "tokenizer_2": CLIPTokenizer,
}
"""What a pipeline is made of, besides a scheduler."""


def load_pipeline(
    name: str,
    scale: str = "pocket",
    source: str | None = None,
    device: str | torch.device | None = None,
    dtype: torch.dtype | None = None,
) -> StableDiffusionXLPipeline:
    """The pipeline `"turbo"` (called with guidance_scale 0.0) or `"base"` of a scale, ready to call, progress bar off.

    scale: "pocket" (and its alias "smoke") loads the models shipped with this package, "sdxl" the paper's. source: at
    sdxl scale, in place of the default, a folder as `save_pretrained` writes it or a name on the Hub; "random" builds
    the real configuration with random weights (rehearsal: true shapes, no science), "random/16" the same with every
    width divided by 16.

    device: by default a GPU if there is one. dtype: by default float16 for sdxl on a GPU, else float32. From then on
    torch computes with as many threads as the scale wants (`scales.set_up_torch`): one at pocket scale.

    Raises ValueError for an unknown name, scale or source, another kind of pipeline, and weights that are damaged or
    incomplete (`load_complete`); MemoryError or OSError if memory or disk cannot hold what is asked; FileNotFoundError
    if there is no such folder, ConnectionError if weights would have to be downloaded and cannot.
    """
    if name not in HUB_IDS:
        raise ValueError(f"unknown pipeline {name!r}; choose one of {', '.join(HUB_IDS)}")
    get_scale(scale)
    set_up_torch(scale)
    device = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    dtype = dtype or default_dtype(scale, device)
    if scale != "sdxl":
        if source:
            raise ValueError(f"source {source!r} is for scale 'sdxl'; the {scale} models are shipped with this package")
        pipe = _pocket_pipeline(name)
    elif source and source.startswith("random"):
        pipe = random_pipeline(name, width_divisor(source), device, dtype)
    else:
        pipe = _published_pipeline(name, source, device, dtype)
    pipe.register_to_config(_name_or_path=source or (HUB_IDS if scale == "sdxl" else POCKET_NAMES)[name])
    pipe.set_progress_bar_config(disable=True)
    return pipe.to(device) if pipe.dtype == dtype else pipe.to(device, dtype)  # diffusers warns of each cast


def default_dtype(scale: str, device: torch.device) -> torch.dtype:
    """float16 for sdxl on a GPU, else float32."""
    return torch.float16 if scale == "sdxl" and device.type == "cuda" else torch.float32


def _pocket_pipeline(name: str) -> StableDiffusionXLPipeline:
    from sae_lib.pocket import models, weights

    parts = {part: weights.load(part) for part in ("vae", "tokenizer", *weights.TEXT_ENCODERS)}
    pipe = models.assemble_pipeline(name, unet=weights.load(f"unet_{name}"), **parts)
    for part in (pipe.unet, pipe.vae):
        part.to(memory_format=torch.channels_last)  # on a CPU half as much again of pictures per second
    return pipe


def _published_pipeline(
    name: str, source: str | None, device: torch.device, dtype: torch.dtype
) -> StableDiffusionXLPipeline:
    folder = (find_folder(source) if source else None) or _download(source or HUB_IDS[name], device, dtype)
    try:
        return _pipeline_of(folder, device, dtype)
    except MemoryError:
        raise
    except Exception as error:  # a configuration that is wrong ends in errors of many kinds
        reason = str(error).partition("\n")[0]
        raise ValueError(
            f"the folder {str(folder)!r} holds no readable SDXL pipeline ({reason}); "
            "give a folder written by save_pretrained"
        ) from error


def _download(name: str, device: torch.device, dtype: torch.dtype) -> Path:
    """The folder in the Hub's cache."""
    refuse_if_too_large(sum(PARAMETERS.values()), device, dtype)
    way = "free some, or give a local folder as source"
    refuse_without_disk(_DOWNLOAD_GB, Path.home(), f"{name} takes some", way)
    try:
        try:
            variant = "fp16" if dtype == torch.float16 else None
            return Path(StableDiffusionXLPipeline.download(name, variant=variant, use_safetensors=True))
        except ValueError:  # it has no such files
            return Path(StableDiffusionXLPipeline.download(name, use_safetensors=True))
    except OSError as error:
        raise ConnectionError(
            f"{name!r} is not on this machine and cannot be downloaded: connect to the internet, or give the folder "
            f"of a downloaded copy as source (source='random' rehearses without weights). {error}"
        ) from error


def _pipeline_of(folder: Path, device: torch.device, dtype: torch.dtype) -> StableDiffusionXLPipeline:
    """Loads the parts one by one, because a pipeline's own `from_pretrained` draws at random what a part lacks."""
    _refuse_other_pipelines(folder)
    variants = {part: _variant(folder / part, dtype) for part in PARAMETERS}
    shapes = [shape for part, variant in variants.items() for _, shape in tensors_in(folder / part, variant).values()]
    refuse_if_too_large(float(sum(map(math.prod, shapes))), device, dtype)
    parts: dict[str, Any] = {"image_encoder": None, "feature_extractor": None}
    for part, kind in _PARTS.items():
        settings = {"dtype": dtype, "use_safetensors": True, "variant": variants[part]} if part in variants else {}
        parts[part] = load_complete(kind, folder / part, **settings)
    for number in ("", "_2"):
        words, rows = len(parts["tokenizer" + number]), parts["text_encoder" + number].config.vocab_size
        if words > rows:
            raise ValueError(f"tokenizer{number} has {words} words and text_encoder{number} knows {rows}")
    return StableDiffusionXLPipeline.from_pretrained(folder, local_files_only=True, add_watermarker=False, **parts)


def _refuse_other_pipelines(folder: Path) -> None:
    """Raises ValueError unless the index names SDXL's text-to-image pipeline and its parts, and these are there."""
    index = read_object(folder / "model_index.json")
    wanted = {part: kind.__name__ for part, kind in _PARTS.items()}
    for key, name in {"_class_name": "StableDiffusionXLPipeline", **wanted}.items():
        named = index.get(key)
        named = named[-1] if isinstance(named, list) and named else named
        if named not in (name, f"{name}Fast"):
            raise ValueError(f"model_index.json names {named!r} as {key}, wanted {name}")
    missing = [part for part in (*_PARTS, "scheduler") if not (folder / part).is_dir()]
    if missing:
        raise ValueError(f"it lacks {', '.join(missing)}")


def _variant(folder: Path, dtype: torch.dtype) -> str | None:
    """fp16 if the folder has such files and float16 is asked for, or if it has no others."""
    there = {has_variant(file) for file in folder.glob("*.safetensors")}
    return "fp16" if there == {True} or (True in there and dtype == torch.float16) else None


def silence_progress_bars() -> None:
    """Turn off the bars that diffusers, transformers and the Hub draw while loading: they differ from run to run."""
    import diffusers
    import transformers
    from huggingface_hub.utils import disable_progress_bars

    diffusers.utils.logging.disable_progress_bar()
    transformers.utils.logging.disable_progress_bar()
    disable_progress_bars()
