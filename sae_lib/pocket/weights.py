"""Where the pocket models' weights lie: fp16 safetensors inside the package, as one diffusers pipeline.

The folder is `pocket-sdxl-turbo` as `StableDiffusionXLPipeline.from_pretrained` reads it; base adds its own U-Net and
scheduler and shares the autoencoder, text encoders and tokenizer. `pocket-flux` adds a folder with its transformer, its
autoencoder and its T5 encoder; its CLIP text encoder is SDXL's second one.
"""

import copy
import json
from collections.abc import Callable
from pathlib import Path

import torch
from diffusers import AutoencoderKL, FluxTransformer2DModel, UNet2DConditionModel
from torch import nn
from transformers import CLIPModel, CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer, T5EncoderModel

from sae_lib.cache.artefact import write_whole
from sae_lib.cache.complete import load_complete
from sae_lib.pocket.judge import Judge
from sae_lib.pocket.models import build_pipeline, build_scheduler

ROOT = Path(__file__).parent / "weights"
TEXT_ENCODERS = ("text_encoder", "text_encoder_2")
_PARTS: dict[str, tuple[str, type]] = {
    "vae": ("vae", AutoencoderKL),
    "text_encoder": ("text_encoder", CLIPTextModel),
    "text_encoder_2": ("text_encoder_2", CLIPTextModelWithProjection),
    "judge": ("judge", Judge),
    "clip": ("clip", CLIPModel),
    "unet_turbo": ("unet", UNet2DConditionModel),
    "unet_base": ("unet_base", UNet2DConditionModel),
    "tokenizer": ("tokenizer", CLIPTokenizer),
    "flux_transformer": ("flux/transformer", FluxTransformer2DModel),
    "flux_vae": ("flux/vae", AutoencoderKL),
    "flux_text_encoder_2": ("flux/text_encoder_2", T5EncoderModel),
}


def is_shipped(part: str) -> bool:
    """Whether this part's weights are shipped."""
    return (ROOT / _PARTS[part][0]).is_dir()


def weights_file(part: str) -> Path:
    """The safetensors file of a part."""
    return next((ROOT / _PARTS[part][0]).glob("*.safetensors"))


def load(part: str) -> nn.Module | CLIPTokenizer:
    """A shipped model in fp32 and in evaluation mode, or the tokenizer.

    Raises FileNotFoundError if it is not there and ValueError if it is damaged or incomplete, both with the way out.
    """
    name, kind = _PARTS[part]
    if not is_shipped(part):
        raise FileNotFoundError(
            f"the pocket model's {part} is missing from sae_lib/pocket/weights: "
            "restore it with git, or train it with `make pocket`"
        )
    settings = {} if kind is CLIPTokenizer else {"dtype": torch.float32}
    try:
        return load_complete(kind, ROOT / name, **settings)
    except ValueError as error:
        raise ValueError(
            f"the pocket model's {part} cannot be read ({error}): the file is damaged; restore it with git"
        ) from error


def load_or(part: str, build: Callable[[], nn.Module]) -> nn.Module:
    """The shipped model, or a fresh one where none is shipped."""
    return load(part) if is_shipped(part) else build()


def save(part: str, module: nn.Module) -> None:
    """Write a model as fp16 safetensors, completely or not at all. The first one lays out the pipeline's folder."""
    if not (ROOT / "model_index.json").exists():
        _lay_out()

    def write(folder: Path) -> None:
        copy.deepcopy(module).half().to(memory_format=torch.contiguous_format).save_pretrained(folder)
        config = folder / "config.json"
        settings = json.loads(config.read_text())
        settings.pop("_name_or_path", None)  # where on this machine the run began: of no use on another
        config.write_text(json.dumps(settings, indent=2, sort_keys=True) + "\n")

    _write(ROOT / _PARTS[part][0], write)


def _lay_out() -> None:
    """What a pipeline's folder holds beside weights: schedulers, tokenizers, and the index."""
    pipe = build_pipeline("turbo")
    _write(ROOT / "tokenizer", pipe.tokenizer.save_pretrained)
    _write(ROOT / "tokenizer_2", pipe.tokenizer.save_pretrained)
    _write(ROOT / "scheduler", build_scheduler("turbo").save_pretrained)
    _write(ROOT / "scheduler_base", build_scheduler("base").save_pretrained)
    pipe.save_config(ROOT)


def _write(folder: Path, write: Callable[[Path], object]) -> None:
    def make(unfinished: Path) -> None:
        write(unfinished)
        for file in unfinished.iterdir():
            file.chmod(0o644)

    write_whole(folder, make)
