"""What SAEs were trained on: how it is described, and the finished ones of a folder that were trained on it."""

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
from sae_lib.models.blocks import ALL_BLOCKS, FLUX_BLOCKS
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


def describe_vectors(description: Mapping[str, Any], origin: Mapping[str, Any], block: str) -> dict[str, Any]:
    """What a block's vectors are, for a reader of an SAE that was trained on them: no format has fields for it.

    description, origin: of a `TrainingStream`, or of a store that was written from one.
    """
    pipeline, settings = description["pipeline"], description["settings"]
    half = "conditional" if settings["guidance_scale"] > 1 else "the only one"
    vector = "update: what the block adds to its input, one vector per position"
    return {
        **{name: origin[name] for name in ("model", "revision", "licence")},
        "weights": pipeline["weights"],
        "hook": _hook(block),
        "block": block,
        "vector": vector + (", each dimension permuted over the vectors" if description.get("permuted") else ""),
        "token_grid": description["blocks"][block]["grid"],
        "resolution": pipeline["resolution"],
        "scheduler": pipeline["scheduler"]["class"],
        **{name: settings[name] for name in ("steps", "guidance_scale")},
        "half": half,
        "dtype": pipeline["dtype"],
        **({"stored_as": description["store"]["dtype"]} if "store" in description else {}),
        "noise": {"rule": settings["noise"], "seed": settings["seed"]},
        "prompts": {"source": origin["prompts"], **description["prompts"]},
    }


def _hook(block: str) -> str:
    """The module whose output the update is; of FLUX the image stream behind the block minus that before it."""
    module = ALL_BLOCKS[block]
    if block in FLUX_BLOCKS:
        return f"{module}, output[1] - hidden_states"
    return f"{module}.{'conv2' if '.resnets.' in module else 'proj_out'}, output"


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
