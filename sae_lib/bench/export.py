"""Draws the pictures of the data set: a block's updates while they are drawn, and what the judge sees in them."""

import hashlib
import importlib.metadata
import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from sae_lib.activations.denoising import CallSettings
from sae_lib.assets import Assets
from sae_lib.bench.dataset import DTYPES, write_dataset
from sae_lib.bench.known import draw_batch
from sae_lib.cache.artefact import COMPUTES
from sae_lib.features.reading import NOISE_SEED
from sae_lib.judges.attributes import attribute_values
from sae_lib.models.blocks import architecture_of, width_of
from sae_lib.models.identity import pipeline_identity, pipeline_origin, weights_hash
from sae_lib.models.prompts import HELD_OUT
from sae_lib.pocket.captions import Caption

PICTURES_PER_SHARD = 512
"""A whole number of batches, so that a shard that is made again has the same bytes."""

SEEDS = {"train": 0, "held-out": NOISE_SEED}
"""By split, the seed of the noise unless another is given: held-out pictures share no noise with those of training."""


def export_updates(
    folder: str | Path,
    block: str = "up.1.2",
    prompts: int | None = None,
    split: str = "train",
    seed: int | None = None,
    dtype: str = "float16",
    scale: str = "pocket",
) -> Path:
    """Writes the update vectors of one-step pictures and what is true of them as a data set; gives the folder.

    The truth is made as for a `Reading`. Called again it goes on where it was stopped (`write_dataset`).

    block: a code of the U-Net's attention blocks or of FLUX's blocks. prompts: how many captions, from the first on; by
    default the scale's number of training prompts, and at most all of the held-out ones. split: "train" or "held-out".
    seed: of the noise; by default that of `SEEDS`. Each picture has the noise of its number, whatever is drawn with it.
    dtype: of the stored vectors, "float16" or "float32".

    Raises ValueError for sdxl scale, where nobody knows the truth; for an unknown or no single block, split or dtype;
    for fewer prompts than one, and for more held-out ones than there are; and what `write_dataset` raises.
    """
    if dtype not in DTYPES:
        raise ValueError(f"unknown dtype {dtype!r}; choose one of {', '.join(DTYPES)}")
    if split not in SEEDS:
        raise ValueError(f"unknown split {split!r}; choose one of {', '.join(SEEDS)}")
    assets = Assets(scale, blocks=block, architecture=architecture_of(block))
    if not assets.known:
        raise ValueError(f"scale is {scale!r}; wanted pocket or smoke: only in the pocket world the truth is known")
    if len(assets.blocks) != 1:
        raise ValueError(f"block is {block!r}, which names {len(assets.blocks)} blocks: export them one by one")
    most = HELD_OUT if split == "held-out" else None
    count = prompts if prompts is not None else min(assets.counts.train_prompts, most or assets.counts.train_prompts)
    if count < 1 or (most and count > most):
        raise ValueError(
            f"prompts is {count}; wanted 1 or more" + (f", and at most the {most} held out" if most else "")
        )
    captions = assets.captions(count, split)
    _, call = assets.call(assets.one_step, SEEDS[split] if seed is None else seed)
    stated = [_stated(caption) for caption in captions]

    def make(rows: range) -> dict[str, Tensor]:
        starts = range(rows.start, rows.stop, call.batch_size)
        batches = [range(start, min(start + call.batch_size, rows.stop)) for start in starts]
        parts = [_draw(assets, call, [captions[row].text for row in batch], batch) for batch in batches]
        made = {name: torch.cat([part[name] for part in parts]) for name in parts[0]}
        return made | {"stated": torch.stack([stated[row] for row in rows])}

    about = _about(assets, captions, split) | {"settings": asdict(call), "dtype": dtype}
    said = [
        {"caption": each.text, "objects": each.objects, "scene": each.scene, "relation": each.relation}
        for each in captions
    ]
    return write_dataset(folder, about, said, make)


def _draw(assets: Assets, call: CallSettings, prompts: Sequence[str], rows: range) -> dict[str, Tensor]:
    """The tensors of one batch of pictures but for what the captions state."""
    batch = draw_batch(assets, assets.main, call, prompts, rows)
    return {name: batch[name] for name in ("present", "valid", "shows")} | {"updates": batch["updates"][:, 0]}


def _stated(caption: Caption) -> Float[Tensor, " values"]:
    """Which attribute values a caption states of an object or of the scene."""
    said = {pair for words in (*caption.objects, caption.scene) for pair in words.items()}
    return torch.tensor([float(pair in said) for pair in attribute_values()])


def _about(assets: Assets, captions: Sequence[Caption], split: str) -> dict[str, Any]:
    """All that the numbers depend on, but for the settings of the call and the type in which they are stored."""
    pipe, (block,) = assets.pipe(), assets.blocks
    texts = [caption.text for caption in captions]
    origin, grid = pipeline_origin(pipe), assets.grid(block)
    return {
        "block": block,
        "d_model": width_of(pipe, block),
        "grid": [grid, grid],
        "pictures": len(texts),
        "vectors": len(texts) * grid**2,
        "pictures_per_shard": PICTURES_PER_SHARD,
        "values": attribute_values(),
        "model": {"name": origin["model"], "licence": origin["licence"], **pipeline_identity(pipe)},
        "autoencoder": weights_hash(pipe.vae),
        "judge": weights_hash(assets.judge),
        "prompts": {"split": split, "sha256": hashlib.sha256(json.dumps(texts).encode()).hexdigest()},
        "versions": {package: importlib.metadata.version(package) for package in COMPUTES},
    }
