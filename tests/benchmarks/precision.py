"""What 16 bit cost in explained variance: `python tests/benchmarks/precision.py` (some 6 minutes on two cores).

At pocket scale, k = 16, the paper's four blocks. Two questions: how well one SAE (trained in float32) explains
vectors that were stored, or computed by a U-Net, in 16 bit, and how well an SAE that was *trained* on such vectors
explains float32 ones. Beside both stands what another seed changes. Held-out prompts. Writes
figures/results/precision.json.
"""

import argparse
import tempfile
from dataclasses import replace
from pathlib import Path

import torch

from sae_lib.activations.denoising import run_updates
from sae_lib.activations.shards import DTYPES, ShardStream
from sae_lib.activations.updates import to_vectors
from sae_lib.cache.results import result_path, save_result
from sae_lib.models.blocks import PAPER_BLOCKS
from sae_lib.models.prompts import load_prompts
from sae_lib.saes.metrics import explained_variance
from sae_lib.training.recipe import TrainingRun

HALVES = ("float16", "bfloat16")


def held_out_vectors(run: TrainingRun, prompts: int) -> dict[str, torch.Tensor]:
    """Update vectors of held-out prompts as the run's U-Net computes them, in float32."""
    pipe, texts = run.load_pipeline(), load_prompts("pocket", prompts, "held-out")
    updates = run_updates(pipe, texts, range(prompts), PAPER_BLOCKS, run.settings)
    return {block: to_vectors(update[0].float()) for block, update in updates.items()}


def trained(run: TrainingRun, stored: str = "") -> dict[str, torch.nn.Module]:
    """By block, an SAE trained on the run's vectors, or on a store of them in 16 bit."""
    with tempfile.TemporaryDirectory() as folder:
        stream = None
        if stored:
            run.harvest(Path(folder, "store"), stored)
            stream = ShardStream(Path(folder, "store"), run.all_passes, run.seed)
        saes = run.train(Path(folder, "saes"), stream=stream)
    return {config.block: sae for config, sae in saes.items()}


def explained(saes, vectors) -> dict[str, float]:
    """By block, the explained variance of the vectors."""
    with torch.inference_mode():
        return {block: explained_variance(x, saes[block](x)) for block, x in vectors.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--prompts", type=int, default=2_048)
    parser.add_argument("--passes", type=int, default=4)
    parser.add_argument("--held-out", type=int, default=200)
    parser.add_argument("--output", type=Path, default=result_path("precision"))
    options = parser.parse_args()
    run = TrainingRun(prompts=options.prompts, passes=options.passes, blocks=PAPER_BLOCKS, ks=(16,))
    exact = held_out_vectors(run, options.held_out)
    saes = trained(run)
    measured = {"float32": exact}
    for half in HALVES:
        measured[f"stored in {half}"] = {block: x.to(DTYPES[half]).float() for block, x in exact.items()}
        measured[f"{half} U-Net"] = held_out_vectors(replace(run, dtype=half), options.held_out)
    learnt = {"float32": saes, "float32, another seed": trained(replace(run, seed=1))}
    for half in HALVES:
        learnt[f"stored in {half}"] = trained(run, half)
        learnt[f"{half} U-Net"] = trained(replace(run, dtype=half))
    result = {
        "one SAE, explained variance of vectors": {name: explained(saes, x) for name, x in measured.items()},
        "SAEs trained on vectors, explained variance of float32 ones": {
            name: explained(each, exact) for name, each in learnt.items()
        },
        "settings": {name: getattr(options, name) for name in ("prompts", "passes", "held_out")} | {"k": 16},
    }
    save_result(options.output, result, "python tests/benchmarks/precision.py")
    for question, rows in list(result.items())[:2]:
        print(question)
        for name, by_block in rows.items():
            print(f"  {name:24}", *(f"{block} {value:.5f}" for block, value in by_block.items()))


if __name__ == "__main__":
    main()
