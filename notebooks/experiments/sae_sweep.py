"""Explained variance over the whole grid of Fig. 2: `python notebooks/experiments/sae_sweep.py`, or `make sweep`.

Trains one SAE for each k, expansion factor, block (the paper's four, of one width) and seed on one-step updates by
the pocket scale's recipe (a seed is that of the noise, the order and the first weights), measures it on held-out
prompts, and writes figures/results/sae_sweep.json, which notebook 06 draws. Each seed's SAEs are kept in the cache,
so that a killed run goes on where it was. `--small` runs a few steps of everything, to see that it works, and
writes into the cache.
"""

import argparse
import time
from dataclasses import asdict, replace
from functools import partial

from diffusers import StableDiffusionXLPipeline

from sae_lib.cache.artefact import cached
from sae_lib.cache.results import result_path, save_result
from sae_lib.models.blocks import PAPER_BLOCKS
from sae_lib.models.prompts import load_prompts
from sae_lib.models.scales import get_scale
from sae_lib.saes.topk import TopKSAE
from sae_lib.saes.transfer import measure_transfer
from sae_lib.training.recipe import TrainingRun

KS, EXPANSION_FACTORS, SEEDS = (2, 5, 10, 20, 40), (1 / 2, 1, 2, 4), (0, 1, 2)
COMMAND = "python notebooks/experiments/sae_sweep.py"


def train_and_measure(scale: str, seed: int, pipe: StableDiffusionXLPipeline) -> dict[str, list[list[float]]]:
    """The held-out explained variance of one seed's SAEs, by block, k and expansion factor."""
    run = TrainingRun(scale, seed=seed, blocks=PAPER_BLOCKS, ks=KS, expansion_factors=EXPANSION_FACTORS)
    stream, configs = run.stream(pipe), run.configs(pipe)
    inputs = {"run": asdict(run), "stream": stream.description, "configs": [asdict(config) for config in configs]}
    folder = cached("sweep", inputs, partial(run.train, pipe=pipe, stream=stream), resumable=True)
    saes: dict[str, dict[str, TopKSAE]] = {block: {} for block in run.blocks}
    for config in configs:
        saes[config.block][config.folder_name] = TopKSAE.load(folder / config.folder_name, config.block)
    held_out = load_prompts(scale, get_scale(scale).transfer_prompts, "held-out")
    measured = measure_transfer(pipe, held_out, replace(run.settings, seed=seed + 1_000), saes)
    explained = {
        block: [statistics.explained_variance(resamples=1)[0, 0].item() for statistics in named.values()]
        for block, named in measured.items()
    }
    width = len(EXPANSION_FACTORS)  # configs run through k, then the factor
    rounded = {block: [float(f"{value:.6g}") for value in values] for block, values in explained.items()}
    return {block: [values[i : i + width] for i in range(0, len(values), width)] for block, values in rounded.items()}


def sweep(scale: str) -> dict:
    """The grid of all seeds: explained_variance[block][k][factor][seed]."""
    counts, pipe, by_seed = get_scale(scale), TrainingRun(scale).load_pipeline(), []
    for seed in SEEDS:
        start = time.perf_counter()
        by_seed.append(train_and_measure(scale, seed, pipe))
        print(f"seed {seed}: {time.perf_counter() - start:.0f} s", flush=True)
    grid = {
        block: [
            [[by[block][row][column] for by in by_seed] for column in range(len(EXPANSION_FACTORS))]
            for row in range(len(KS))
        ]
        for block in PAPER_BLOCKS
    }
    axes = {"ks": KS, "expansion_factors": EXPANSION_FACTORS, "seeds": SEEDS}
    sizes = {"prompts": counts.train_prompts, "passes": counts.passes, "held_out_prompts": counts.transfer_prompts}
    return axes | sizes | {"explained_variance": grid}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--small", action="store_true", help="smoke's counts; the result goes into the cache")
    options = parser.parse_args()
    scale = "smoke" if options.small else "pocket"
    output = result_path("sae_sweep", options.small)
    save_result(output, sweep(scale), COMMAND, scale=scale)
    print(f"written: {output.name}")


if __name__ == "__main__":
    main()
