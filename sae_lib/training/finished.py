"""What a folder already holds: finished SAEs, and what they were trained on."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sae_lib.activations.processes import everyone
from sae_lib.cache.identity import differences
from sae_lib.saes.topk import TopKSAE
from sae_lib.training.config import SAEConfig


def stream_identity(stream: Sequence[Mapping[str, Tensor]]) -> dict[str, Any]:
    """What a stream's vectors depend on, in JSON: its length, and its description or its first portion's hashes."""
    known = {"portions": len(stream)}
    if hasattr(stream, "description"):
        return known | stream.description
    blocks = {block: _hash(vectors) for block, vectors in (stream[0] if len(stream) else {}).items()}
    return known | {"blocks": {block: digest for of_one in everyone(blocks) for block, digest in of_one.items()}}


def _hash(vectors: Tensor) -> str:
    digest = hashlib.sha256(f"{vectors.dtype} {list(vectors.shape)}".encode())
    digest.update(memoryview(vectors.detach().cpu().contiguous().view(torch.uint8).numpy()))
    return digest.hexdigest()


def of_block(identity: Mapping[str, Any], block: str) -> dict[str, Any]:
    """What the vectors of one block depend on: nothing of the other blocks."""
    blocks = identity.get("blocks")
    return {**identity, "blocks": {block: blocks.get(block)}} if isinstance(blocks, Mapping) else dict(identity)


def load_finished(
    configs: Sequence[SAEConfig], folder: Path, device: str | torch.device, known: Mapping[str, Any]
) -> dict[SAEConfig, TopKSAE | None]:
    """The finished SAEs of the folder, None for the others; in all processes the same.

    known: `stream_identity` of the stream that they must have been trained on. Raises ValueError for others.
    """
    saes = {config: _load_one(config, folder, device, known) for config in configs}
    finished = everyone([config.folder_name for config, sae in saes.items() if sae is not None])
    if any(names != finished[0] for names in finished):
        raise ValueError(f"the processes find different SAEs in {folder}: give a folder that all of them see")
    return saes


def _load_one(config: SAEConfig, folder: Path, device: str | torch.device, known: Mapping[str, Any]) -> TopKSAE | None:
    path = folder / config.folder_name
    if not path.exists():
        return None
    sae = TopKSAE.load(path, config.block, device)
    asked = asdict(config) | {"stream": of_block(known, config.block)}
    there = json.loads((path / "config.json").read_text())["training"]
    if different := differences({name: there.get(name) for name in asked}, asked):
        raise ValueError(f"{path} holds another SAE, whose {different}: use another folder, or remove it")
    return sae
