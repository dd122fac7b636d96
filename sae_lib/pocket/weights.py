"""Where the pocket models' weights lie: fp16 safetensors inside the package, in the folders of a diffusers pipeline.

The U-Nets differ; VAE, text encoders and tokenizer are stored once and shared by both pipelines.
"""

import copy
import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from torch import nn
from transformers import CLIPTextModel, CLIPTextModelWithProjection

from sae_lib.pocket.judge import Judge

ROOT = Path(__file__).parent / "weights"
TEXT_ENCODERS = ("text_encoder", "text_encoder_2")
_CLASSES = {
    "vae": AutoencoderKL,
    "text_encoder": CLIPTextModel,
    "text_encoder_2": CLIPTextModelWithProjection,
    "judge": Judge,
    "unet_base": UNet2DConditionModel,
    "unet_turbo": UNet2DConditionModel,
}


def load(part: str) -> nn.Module:
    """A shipped model in fp32, in evaluation mode. Raises FileNotFoundError that says which command makes it."""
    folder = ROOT / part
    if not (folder / "config.json").exists():
        raise FileNotFoundError(
            f"the pocket model's {part} is missing from sae_lib/pocket/weights: restore it with git, or train it with `make pocket`"
        )
    try:
        return _CLASSES[part].from_pretrained(folder, torch_dtype=torch.float32, local_files_only=True).eval()
    except Exception as error:
        raise ValueError(
            f"the pocket model's {part} cannot be read ({error}): the file is damaged; restore it with git"
        ) from error


def load_or(part: str, build: Callable[[], nn.Module]) -> nn.Module:
    """The shipped model, or a fresh one where none is shipped."""
    return load(part) if (ROOT / part / "config.json").exists() else build()


def save(part: str, module: nn.Module) -> None:
    """Write a model as fp16 safetensors, all or nothing."""
    ROOT.mkdir(exist_ok=True)
    fresh = Path(tempfile.mkdtemp(dir=ROOT, prefix=f".{part}-"))
    try:
        copy.deepcopy(module).half().save_pretrained(fresh, safe_serialization=True)
        fresh.chmod(0o755)
        for file in fresh.iterdir():
            file.chmod(0o644)
        old = ROOT / part
        if old.exists():
            shutil.rmtree(old)
        os.replace(fresh, old)
    finally:
        shutil.rmtree(fresh, ignore_errors=True)
