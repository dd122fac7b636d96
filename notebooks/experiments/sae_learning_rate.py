"""Which learning rate suits the pocket SAEs: `python notebooks/experiments/sae_learning_rate.py`.

Takes some 5 minutes on two cores. Trains the SAEs of Figure 3 (k = 16, the paper's four blocks) at each rate on
the pocket scale's vectors, measures them on held-out prompts, and writes figures/results/sae_learning_rate.json,
which notebook 03 draws.
"""

import argparse
import json
import tempfile
from dataclasses import replace
from pathlib import Path

from sae_lib.cache.results import result_path, save_result
from sae_lib.models.blocks import PAPER_BLOCKS
from sae_lib.models.prompts import load_prompts
from sae_lib.models.scales import get_scale
from sae_lib.saes.transfer import measure_transfer
from sae_lib.training.config import SAEConfig
from sae_lib.training.loop import train_saes
from sae_lib.training.recipe import TrainingRun
from sae_lib.training.trainer import LOG_FILE

RATES = (3e-4, 1e-3, 3e-3)
COMMAND = "python notebooks/experiments/sae_learning_rate.py"


def sweep(scale: str, seed: int = 2) -> dict:
    """By block and rate, the held-out explained variance and the share of dead features at the end."""
    run, counts = TrainingRun(scale, seed=seed, blocks=PAPER_BLOCKS, kinds=("transfer",)), get_scale(scale)
    pipe = run.load_pipeline()
    stream, configs = run.stream(pipe), run.configs(pipe)
    held_out, noise = load_prompts(scale, counts.transfer_prompts, "held-out"), replace(run.settings, seed=seed + 1_000)
    blocks = {block: {"explained_variance": [], "dead_share": []} for block in PAPER_BLOCKS}
    for rate in RATES:
        with tempfile.TemporaryDirectory() as folder:
            trained = train_saes(stream, [replace(config, lr=rate) for config in configs], folder, pipe.device)
            logs = {c.block: Path(folder, c.folder_name, LOG_FILE).read_text().splitlines()[-1] for c in trained}
        saes = {config.block: {"sae": sae} for config, sae in trained.items()}
        for block, measured in measure_transfer(pipe, held_out, noise, saes).items():
            explained = measured["sae"].explained_variance(resamples=1)[0, 0].item()
            blocks[block]["explained_variance"].append(float(f"{explained:.6g}"))
            blocks[block]["dead_share"].append(json.loads(logs[block])["dead_share"])
        print(f"{rate:g}", {block: columns["explained_variance"][-1] for block, columns in blocks.items()}, flush=True)
    chosen, (k,) = SAEConfig.pocket("mid.0").lr, {config.k for config in configs}
    result = {"learning_rates": RATES, "chosen": chosen, "k": k, "blocks": blocks, "seed": seed}
    return result | {"prompts": len(stream.prompts), "passes": counts.passes, "held_out_prompts": len(held_out)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--scale", choices=["smoke", "pocket"], default="pocket")
    parser.add_argument("--output", type=Path, default=result_path("sae_learning_rate"))
    options = parser.parse_args()
    save_result(options.output, sweep(options.scale), COMMAND, scale=options.scale)


if __name__ == "__main__":
    main()
