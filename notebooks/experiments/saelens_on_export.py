"""Trains an SAE with SAELens on an exported data set: `notebooks/experiments/saelens_on_export.py DATASET FOLDER`.

DATASET is what `python -m sae_lib export` wrote. Runs without this library, in the environment that `make test-interop`
makes (`.venv/interop`), in a minute on one core. FOLDER then holds the SAE in SAELens' format, and says which block it
is for. An SAE that is there with the same settings and data is not trained again.
"""

import argparse
import hashlib
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

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

DEAD_AFTER = 0.03
"""Share of the steps after which a silent feature counts as dead, as in our own training at pocket scale."""


def build(architecture: str, d_in: int, d_sae: int, k: float) -> TrainingSAE:
    """An untrained SAE, of which k features fire per vector, or some k on average.

    Beside sizes and k the settings are the library's defaults, but for two: vectors are scaled to a mean length, and
    JumpReLU's loss aims at k.
    """
    shared = {"d_in": d_in, "d_sae": d_sae, "normalize_activations": "expected_average_only_in"}
    if architecture == "topk":
        return TopKTrainingSAE(TopKTrainingSAEConfig(**shared, k=int(k)))
    if architecture == "batchtopk":
        return BatchTopKTrainingSAE(BatchTopKTrainingSAEConfig(**shared, k=k))
    if architecture == "matryoshka":
        widths = [d_sae // 8, d_sae // 4, d_sae // 2, d_sae]
        return MatryoshkaBatchTopKTrainingSAE(
            MatryoshkaBatchTopKTrainingSAEConfig(**shared, k=k, matryoshka_widths=widths)
        )
    sparsity = {"jumprelu_sparsity_loss_mode": "quadratic", "target_l0": k}
    return JumpReLUTrainingSAE(JumpReLUTrainingSAEConfig(**shared, **sparsity))


def batches(vectors: torch.Tensor, size: int, seed: int) -> Iterator[torch.Tensor]:
    """The vectors in random order, again and again."""
    generator = torch.Generator().manual_seed(seed)
    while True:
        yield from vectors[torch.randperm(len(vectors), generator=generator)].split(size)


def described(folder: Path) -> dict[str, Any]:
    """What an SAE's folder says of its training; empty if it holds none."""
    file = folder / "cfg.json"
    return json.loads(file.read_text())["metadata"] if file.is_file() else {}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dataset", type=Path)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--architecture", choices=("topk", "batchtopk", "matryoshka", "jumprelu"), default="batchtopk")
    parser.add_argument("--n-f", type=int, help="features; by default four per dimension")
    parser.add_argument(
        "--k", type=float, default=10, help="active features per vector; JumpReLU aims at it (default: %(default)s)"
    )
    parser.add_argument("--batch", type=int, default=1_024, help="vectors per step (default: %(default)s)")
    parser.add_argument("--passes", type=int, default=4, help="how often the vectors are seen (default: %(default)s)")
    parser.add_argument("--lr", type=float, default=1e-3, help="learning rate (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    shards = sorted(options.dataset.glob("updates-*.safetensors"))
    if not shards:
        print(f"wanted a data set in {options.dataset}: `python -m sae_lib export` writes one", file=sys.stderr)
        return 1
    description = (options.dataset / "dataset.json").read_text()
    about = json.loads(description)
    steps = options.passes * about["vectors"] // options.batch
    dead_after = max(1, round(DEAD_AFTER * steps))
    torch.set_num_threads(1)  # the numbers do not depend on how many cores there are
    torch.manual_seed(options.seed)
    sae = build(options.architecture, about["d_model"], options.n_f or 4 * about["d_model"], options.k)
    sae.cfg.metadata.block = about["block"]
    training = {"steps": steps, "lr": options.lr, "seed": options.seed, "n_f": sae.cfg.d_sae}
    training |= {"batch": options.batch, "dead_after": dead_after}
    training |= {"data": hashlib.sha256(description.encode()).hexdigest()}
    sae.cfg.metadata.training = training
    if options.folder.exists():
        there = described(options.folder)
        if any(there.get(name) != value for name, value in sae.cfg.to_dict()["metadata"].items()):
            print(f"{options.folder} holds something else, or an SAE of other settings: remove it", file=sys.stderr)
            return 1
        print(f"{options.folder} is there already")
        return 0
    updates = np.concatenate([load_file(path)["updates"] for path in shards])
    vectors = torch.from_numpy(updates.reshape(-1, about["d_model"])).float()
    plan = SAETrainerConfig(
        total_training_samples=steps * options.batch,
        train_batch_size_samples=options.batch,
        lr=options.lr,
        lr_end=options.lr / 10,
        lr_decay_steps=steps // 5,
        n_batches_for_norm_estimate=20,
        dead_feature_window=dead_after,
    )
    sae = SAETrainer(cfg=plan, sae=sae, data_provider=batches(vectors, options.batch, options.seed)).fit()
    unfinished = options.folder.with_name(options.folder.name + ".unfinished")
    sae.save_inference_model(unfinished)
    unfinished.rename(options.folder)
    x = vectors[:16_384]
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
