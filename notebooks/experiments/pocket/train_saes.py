"""Train the pocket SAEs that are shipped, on one-step updates of the shipped Turbo model (stage `saes`)."""

import itertools
import shutil
import tempfile
from pathlib import Path

import torch

from sae_lib.activations.shards import ShardStream
from sae_lib.cache.artefact import write_whole
from sae_lib.cache.reading import read_object
from sae_lib.models.blocks import PAPER_BLOCKS, select_blocks
from sae_lib.saes.checkpoints import SHIPPED, SHIPPED_FLUX
from sae_lib.saes.statistics import STATISTICS_FILE
from sae_lib.saes.topk import CONFIG_FILE
from sae_lib.training.recipe import TrainingRun
from sae_lib.training.trainer import DIFFUSION_FILE, LOG_FILE

FIRST_SEED = 1
"""Seed of the shipped SAEs' noise, order and first weights. Notebook 03 trains with seed 0: a comparison of the two
shows which features survive a change of seed."""

PASSES = 2
"""Positions of one picture resemble each other: many prompts seen twice teach more than few prompts seen often."""


def train_shipped_saes(prompts: int, seed: int, device: str, folder: Path = SHIPPED) -> None:
    """Train two SAEs per chosen block and per block of the paper, on `prompts` training prompts; replaces `folder`."""
    blocks = tuple(dict.fromkeys((*select_blocks("chosen", "pocket"), *PAPER_BLOCKS)))
    _train(TrainingRun("pocket", seed=FIRST_SEED + seed, prompts=prompts, passes=PASSES, blocks=blocks), device, folder)


def train_flux_saes(prompts: int, seed: int, device: str, folder: Path = SHIPPED_FLUX) -> None:
    """Train one SAE per chosen block of FLUX and for its last double-stream block, the paper's; replaces `folder`."""
    codes = (select_blocks(which, "pocket", "flux") for which in ("chosen", "paper"))
    settings = {"seed": FIRST_SEED + seed, "prompts": prompts, "passes": PASSES}
    blocks = tuple(dict.fromkeys(itertools.chain(*codes)))
    _train(TrainingRun("pocket", "flux", kinds=("panel",), blocks=blocks, **settings), device, folder)


def _train(run: TrainingRun, device: str, folder: Path) -> None:
    def make(unfinished: Path) -> None:
        with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".saes-") as temporary:
            print(run.harvest(Path(temporary, "store")), flush=True)
            stream = ShardStream(Path(temporary, "store"), PASSES, run.seed)
            for config, sae in run.train(Path(temporary, "float32"), run.load_pipeline(device), stream).items():
                trained = Path(temporary, "float32", config.folder_name)
                training = read_object(trained / CONFIG_FILE, ("training",))["training"]
                sae.save(unfinished / config.folder_name, training, torch.float16)
                for name in (STATISTICS_FILE, DIFFUSION_FILE):
                    shutil.copy(trained / name, unfinished / config.folder_name)
                log = (trained / LOG_FILE).read_text()
                print(config.folder_name, log.splitlines()[-1], flush=True)

    write_whole(folder, make)
