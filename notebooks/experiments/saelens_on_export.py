"""Trains an SAE with SAELens on an exported data set: `notebooks/experiments/saelens_on_export.py DATASET FOLDER`.

DATASET is what `python -m sae_lib export` wrote. Runs without this library, in the environment that `make test-interop`
makes (`.venv/interop`), in a minute on one core. FOLDER then holds the SAE in SAELens' format, and says which block it
is for.
"""

import argparse
import json
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from sae_lens import (
    SAE,
    BatchTopKTrainingSAE,
    BatchTopKTrainingSAEConfig,
    JumpReLUTrainingSAE,
    JumpReLUTrainingSAEConfig,
    MatryoshkaBatchTopKTrainingSAE,
    MatryoshkaBatchTopKTrainingSAEConfig,
    SAETrainer,
    TopKTrainingSAE,
    TopKTrainingSAEConfig,
    TrainingSAE,
)
from sae_lens.config import SAETrainerConfig
from safetensors.numpy import load_file

BATCH = 1_024


def build(architecture: str, d_in: int, d_sae: int, k: int) -> TrainingSAE:
    """An untrained SAE, of which k features fire per vector, or some k on average."""
    shared = {"d_in": d_in, "d_sae": d_sae, "normalize_activations": "expected_average_only_in"}
    if architecture == "topk":
        return TopKTrainingSAE(TopKTrainingSAEConfig(**shared, k=k))
    if architecture == "batchtopk":
        return BatchTopKTrainingSAE(BatchTopKTrainingSAEConfig(**shared, k=k))
    if architecture == "matryoshka":
        widths = [d_sae // 8, d_sae // 4, d_sae // 2, d_sae]
        return MatryoshkaBatchTopKTrainingSAE(
            MatryoshkaBatchTopKTrainingSAEConfig(**shared, k=k, matryoshka_widths=widths)
        )
    sparsity = {"jumprelu_sparsity_loss_mode": "quadratic", "target_l0": float(k), "jumprelu_ste_to_input": True}
    return JumpReLUTrainingSAE(JumpReLUTrainingSAEConfig(**shared, **sparsity))


def batches(vectors: torch.Tensor, seed: int) -> Iterator[torch.Tensor]:
    """The vectors in random order, again and again."""
    generator = torch.Generator().manual_seed(seed)
    while True:
        yield from vectors[torch.randperm(len(vectors), generator=generator)].split(BATCH)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dataset", type=Path)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--architecture", choices=("topk", "batchtopk", "matryoshka", "jumprelu"), default="batchtopk")
    parser.add_argument("--n-f", type=int, help="features; by default four per dimension")
    parser.add_argument("--k", type=int, default=10, help="active features per vector (default: %(default)s)")
    parser.add_argument("--steps", type=int, default=1_000, help=f"of {BATCH:,} vectors (default: %(default)s)")
    parser.add_argument("--lr", type=float, default=1e-3, help="learning rate (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    shards = sorted(options.dataset.glob("updates-*.safetensors"))
    if not shards or options.folder.exists():
        print(f"wanted a data set in {options.dataset} and nothing in {options.folder}", file=sys.stderr)
        return 1
    about = json.loads((options.dataset / "dataset.json").read_text())
    updates = np.concatenate([load_file(path)["updates"] for path in shards])
    vectors = torch.from_numpy(updates.reshape(-1, about["d_model"])).float()
    torch.manual_seed(options.seed)
    sae = build(options.architecture, about["d_model"], options.n_f or 4 * about["d_model"], options.k)
    plan = SAETrainerConfig(
        total_training_samples=options.steps * BATCH,
        train_batch_size_samples=BATCH,
        lr=options.lr,
        lr_end=options.lr / 10,
        lr_decay_steps=options.steps // 5,
        n_batches_for_norm_estimate=20,
    )
    sae = SAETrainer(cfg=plan, sae=sae, data_provider=batches(vectors, options.seed)).fit()
    sae.cfg.metadata.block = about["block"]
    sae.cfg.metadata.training = {name: getattr(options, name) for name in ("steps", "lr", "seed")} | {"batch": BATCH}
    sae.save_inference_model(options.folder)
    x = vectors[: 16 * BATCH]
    with torch.no_grad():
        codes = (saved := SAE.load_from_disk(options.folder)).encode(x)
        rest = (x - saved.decode(codes)).var(0) / x.var(0)
    print(
        f"{options.architecture} SAE of {about['block']}, on vectors of its training: explained variance "
        f"{1 - rest.mean():.3f}, {codes.count_nonzero() / len(x):.1f} active features per vector"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
