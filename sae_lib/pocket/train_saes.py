"""Train the pocket SAEs that are shipped, on one-step updates of the shipped Turbo model (stage `saes`)."""

import os
import shutil
import tempfile
from dataclasses import asdict
from pathlib import Path

import torch

from sae_lib.checkpoints import SHIPPED
from sae_lib.recipes import TrainingRun
from sae_lib.statistics import STATISTICS_FILE
from sae_lib.training import DIFFUSION_FILE, LOG_FILE

FIRST_SEED = 1
"""Seed of the shipped SAEs' noise, order and first weights. Notebook 03 trains with seed 0, so that comparing the two
tells which features survive a change of seed."""


def train_shipped_saes(passes: int, seed: int, device: str, folder: Path = SHIPPED) -> None:
    """Two SAEs a block by the pocket scale's recipe, seeing the vectors `passes` times; replaces `folder` as a whole."""
    run = TrainingRun("pocket", seed=FIRST_SEED + seed, passes=passes)
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".saes-") as temporary:
        fresh = Path(temporary, "saes")
        for config, sae in run.train(Path(temporary, "float32"), run.load_pipeline(device)).items():
            sae.save(fresh / config.folder_name, training=asdict(config), dtype=torch.float16)
            trained = Path(temporary, "float32", config.folder_name)
            for name in (STATISTICS_FILE, DIFFUSION_FILE):
                shutil.copy(trained / name, fresh / config.folder_name)
            log = (trained / LOG_FILE).read_text()
            print(config.folder_name, log.splitlines()[-1], flush=True)
        shutil.rmtree(folder, ignore_errors=True)
        os.replace(fresh, folder)
