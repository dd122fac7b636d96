"""Train the pocket SAEs that are shipped, on one-step updates of the shipped Turbo model (stage `saes`)."""

import os
import shutil
import tempfile
from dataclasses import asdict
from pathlib import Path

import torch

from sae_lib.blocks import SAE_BLOCKS
from sae_lib.checkpoints import SHIPPED
from sae_lib.denoising import CallSettings
from sae_lib.harvest import TrainingStream, positions_per_step
from sae_lib.pipelines import load_pipeline
from sae_lib.prompts import load_prompts
from sae_lib.recipes import default_configs, panel_k, transfer_k
from sae_lib.scales import SCALES
from sae_lib.training import LOG_FILE, train_saes

FIRST_SEED = 1
"""Seed of the shipped SAEs' noise, order and first weights. Notebook 03 trains with seed 0, so that comparing the two
tells which features survive a change of seed."""


def train_shipped_saes(passes: int, seed: int, device: str, folder: Path = SHIPPED) -> None:
    """Two SAEs a block by the pocket scale's recipe, seeing the vectors `passes` times; replaces `folder` as a whole."""
    counts = SCALES["pocket"]
    pipe = load_pipeline("turbo", device=device)
    d_model, seed = pipe.unet.config.block_out_channels[-1], FIRST_SEED + seed
    settings = CallSettings(steps=1, guidance_scale=0.0, seed=seed, batch_size=counts.harvest_batch)
    prompts = load_prompts("pocket", counts.train_prompts)
    stream = TrainingStream(pipe, prompts, SAE_BLOCKS, settings, passes, seed=seed)
    vectors = counts.train_prompts * positions_per_step(pipe) * passes
    configs = default_configs("pocket", d_model, vectors, (panel_k(d_model), transfer_k(d_model)), seed)
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".saes-") as temporary:
        fresh = Path(temporary, "saes")
        for config, sae in train_saes(stream, configs, Path(temporary, "float32"), device).items():
            sae.save(fresh / config.folder_name, training=asdict(config), dtype=torch.float16)
            log = Path(temporary, "float32", config.folder_name, LOG_FILE).read_text()
            print(config.folder_name, log.splitlines()[-1], flush=True)
        shutil.rmtree(folder, ignore_errors=True)
        os.replace(fresh, folder)
