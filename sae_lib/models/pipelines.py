"""Load the diffusion pipelines of each scale: plain ones of diffusers, nothing subclassed or patched."""

import math
from pathlib import Path
from typing import Any

import torch
from diffusers import (
    AutoencoderKL,
    DiffusionPipeline,
    FluxPipeline,
    FluxTransformer2DModel,
    StableDiffusionXLPipeline,
    UNet2DConditionModel,
)
from transformers import CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer, T5EncoderModel, T5Tokenizer

from sae_lib.cache.complete import find_folder, has_variant, load_complete, tensors_in
from sae_lib.cache.reading import read_object
from sae_lib.cache.space import refuse_without_disk
from sae_lib.models.rehearsal import parameters_of, random_pipeline, refuse_if_too_large, width_divisor
from sae_lib.models.scales import get_scale, set_up_torch

HUB_IDS = {
    "turbo": "stabilityai/sdxl-turbo",
    "base": "stabilityai/stable-diffusion-xl-base-1.0",
    "flux": "black-forest-labs/FLUX.1-schnell",
}
"""The paper's models. SDXL Turbo's licence allows non-commercial research."""

LICENCES = {
    "turbo": "Stability AI non-commercial research (SDXL Turbo)",
    "base": "CreativeML Open RAIL++-M (SDXL base)",
    "flux": "Apache-2.0 (FLUX.1-schnell)",
}
POCKET_NAMES = {"turbo": "pocket-sdxl-turbo", "base": "pocket-sdxl-base", "flux": "pocket-flux"}
"""Ours, shipped with this package."""
_DOWNLOAD_GB = {"turbo": 7.0, "base": 7.0, "flux": 34.0}
_PARTS = {
    StableDiffusionXLPipeline: {
        "unet": UNet2DConditionModel,
        "vae": AutoencoderKL,
        "text_encoder": CLIPTextModel,
        "text_encoder_2": CLIPTextModelWithProjection,
        "tokenizer": CLIPTokenizer,
        "tokenizer_2": CLIPTokenizer,
    },
    FluxPipeline: {
        "transformer": FluxTransformer2DModel,
        "vae": AutoencoderKL,
        "text_encoder": CLIPTextModel,
        "text_encoder_2": T5EncoderModel,
        "tokenizer": CLIPTokenizer,
        "tokenizer_2": T5Tokenizer,
    },
}
"""What the pipelines are made of, besides a scheduler."""


def kind_of(name: str) -> type[DiffusionPipeline]:
    """The pipeline's class: SDXL's or FLUX's."""
    return FluxPipeline if name == "flux" else StableDiffusionXLPipeline


def load_pipeline(
    name: str,
    scale: str = "pocket",
    source: str | None = None,
    device: str | torch.device | None = None,
    dtype: torch.dtype | None = None,
) -> DiffusionPipeline:
    """The pipeline `"turbo"`, `"base"` or `"flux"` of a scale, ready to call, progress bar off.

    Turbo and FLUX-schnell are called with guidance_scale 0.0. The first two are of class StableDiffusionXLPipeline, the
    last is a FluxPipeline.

    scale: "pocket" (and its alias "smoke") loads the models shipped with this package, "sdxl" the paper's. source: at
    sdxl scale, in place of the default, a folder as `save_pretrained` writes it or a name on the Hub; "random" builds
    the real configuration with random weights (rehearsal: true shapes, no science), "random/16" the same with every
    width divided by 16.

    device: by default a GPU if there is one. dtype: by default float32; for sdxl on a GPU float16, and bfloat16 for
    FLUX, whose image stream can leave the range of float16. From then on torch computes with as many threads as the
    scale wants (`scales.set_up_torch`): one at pocket scale.

    Raises ValueError for an unknown name, scale or source, another kind of pipeline, and weights that are damaged or
    incomplete (`load_complete`); MemoryError or OSError if memory or disk cannot hold what is asked; FileNotFoundError
    if there is no such folder, ConnectionError if weights would have to be downloaded and cannot.
    """
    if name not in HUB_IDS:
        raise ValueError(f"unknown pipeline {name!r}; choose one of {', '.join(HUB_IDS)}")
    get_scale(scale)
    set_up_torch(scale)
    device = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    dtype = dtype or default_dtype(scale, device, name)
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


def default_dtype(scale: str, device: torch.device, name: str = "turbo") -> torch.dtype:
    """float16 for sdxl on a GPU (FLUX: bfloat16), else float32."""
    if scale != "sdxl" or device.type != "cuda":
        return torch.float32
    return torch.bfloat16 if name == "flux" else torch.float16


def _pocket_pipeline(name: str) -> DiffusionPipeline:
    from sae_lib.pocket import models, weights

    if name == "flux":
        clip, tokenizer = models.without_projection(weights.load("text_encoder_2")), weights.load("tokenizer")
        names = ("transformer", "vae", "text_encoder_2")
        return models.assemble_flux(
            **{part: weights.load(f"flux_{part}") for part in names}, text_encoder=clip, tokenizer=tokenizer
        )
    parts = {part: weights.load(part) for part in ("vae", "tokenizer", *weights.TEXT_ENCODERS)}
    pipe = models.assemble_pipeline(name, unet=weights.load(f"unet_{name}"), **parts)
    for part in (pipe.unet, pipe.vae):
        part.to(memory_format=torch.channels_last)  # on a CPU half as much again of pictures per second
    return pipe


def _published_pipeline(name: str, source: str | None, device: torch.device, dtype: torch.dtype) -> DiffusionPipeline:
    folder = (find_folder(source) if source else None) or _download(name, source or HUB_IDS[name], device, dtype)
    try:
        return _pipeline_of(kind_of(name), folder, device, dtype)
    except MemoryError:
        raise
    except Exception as error:  # a configuration that is wrong ends in errors of many kinds
        reason = str(error).partition("\n")[0]
        raise ValueError(
            f"the folder {str(folder)!r} holds no readable {'FLUX' if name == 'flux' else 'SDXL'} pipeline ({reason}); "
            "give a folder written by save_pretrained"
        ) from error


def _download(name: str, source: str, device: torch.device, dtype: torch.dtype) -> Path:
    """The folder in the Hub's cache."""
    kind = kind_of(name)
    refuse_if_too_large(sum(parameters_of(name).values()), device, dtype)
    way = "free some, or give a local folder as source"
    refuse_without_disk(_DOWNLOAD_GB[name], Path.home(), f"{source} takes some", way)
    try:
        try:
            variant = "fp16" if dtype == torch.float16 else None
            return Path(kind.download(source, variant=variant, use_safetensors=True))
        except ValueError:  # it has no such files
            return Path(kind.download(source, use_safetensors=True))
    except OSError as error:
        raise ConnectionError(
            f"{source!r} is not on this machine and cannot be downloaded: connect to the internet, or give the folder "
            f"of a downloaded copy as source (source='random' rehearses without weights). {error}"
        ) from error


def _pipeline_of(
    kind: type[DiffusionPipeline], folder: Path, device: torch.device, dtype: torch.dtype
) -> DiffusionPipeline:
    """Loads the parts one by one, because a pipeline's own `from_pretrained` draws at random what a part lacks."""
    _refuse_other_pipelines(kind, folder)
    weighty = [part for part in _PARTS[kind] if not part.startswith("tokenizer")]
    variants = {part: _variant(folder / part, dtype) for part in weighty}
    shapes = [shape for part, variant in variants.items() for _, shape in tensors_in(folder / part, variant).values()]
    refuse_if_too_large(float(sum(map(math.prod, shapes))), device, dtype)
    parts: dict[str, Any] = {"image_encoder": None, "feature_extractor": None}
    for part, part_kind in _PARTS[kind].items():
        settings = {"dtype": dtype, "use_safetensors": True, "variant": variants[part]} if part in variants else {}
        parts[part] = load_complete(part_kind, folder / part, **settings)
    for number in ("", "_2"):
        words, rows = len(parts["tokenizer" + number]), parts["text_encoder" + number].config.vocab_size
        if words > rows:
            raise ValueError(f"tokenizer{number} has {words} words and text_encoder{number} knows {rows}")
    extra = {"add_watermarker": False} if kind is StableDiffusionXLPipeline else {}
    return kind.from_pretrained(folder, local_files_only=True, **extra, **parts)


def _refuse_other_pipelines(kind: type[DiffusionPipeline], folder: Path) -> None:
    """Raises ValueError unless the index names this text-to-image pipeline and its parts, and these are there."""
    index = read_object(folder / "model_index.json")
    wanted = {part: part_kind.__name__ for part, part_kind in _PARTS[kind].items()}
    for key, name in {"_class_name": kind.__name__, **wanted}.items():
        named = index.get(key)
        named = named[-1] if isinstance(named, list) and named else named
        if named not in (name, f"{name}Fast"):
            raise ValueError(f"model_index.json names {named!r} as {key}, wanted {name}")
    missing = [part for part in (*_PARTS[kind], "scheduler") if not (folder / part).is_dir()]
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
