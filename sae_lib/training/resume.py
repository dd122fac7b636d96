"""Stopping and going on: everything a training run needs to end as if it had never been interrupted.

Saved are weights, optimisers, counters, logs and the position in the stream; the vectors are made again.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from sae_lib.activations.processes import rank_and_size
from sae_lib.cache.artefact import write_whole

Position = tuple[int, int]
"""The portion of the stream that comes next, and the piece of the portion."""


def _files(folder: Path) -> dict[Position, Path]:
    """This process's saved states."""
    rank, size = rank_and_size()
    states = folder.glob(f"unfinished_{rank}of{size}_*_*.safetensors")
    return {tuple(map(int, path.stem.split("_")[2:])): path for path in states}


def save_state(folder: Path, position: Position, identity: Any, tensors: Mapping[str, Tensor], rest: Any) -> None:
    """Saves the state at a position, then removes older ones; all processes do it at the same position.

    identity: what the run is, in JSON. rest: what else belongs to the state, in JSON.
    """
    rank, size = rank_and_size()
    older = _files(folder)
    path = folder / "unfinished_{}of{}_{}_{}.safetensors".format(rank, size, *position)
    stored = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    about = {"identity": json.dumps(identity), "told": json.dumps(rest)}
    write_whole(path, lambda unfinished: save_file(stored, unfinished, about))
    if size > 1:
        dist.barrier()  # no process drops what it may have to go back to
    for place, old in older.items():
        if place != position:
            old.unlink(missing_ok=True)


def load_state(folder: Path, identity: Any) -> tuple[Position, dict[str, Tensor], Any] | None:
    """The last state that all processes have saved, as position, tensors, and the rest of it; None if there is none.

    Raises ValueError if an unfinished run of another identity or number of processes is there.
    """
    size = rank_and_size()[1]
    everyone = sorted(path.name for path in folder.glob("unfinished_*.safetensors"))
    foreign = [name for name in everyone if name.split("_")[1].split("of")[1] != str(size)]
    if foreign:
        raise ValueError(
            f"{folder} holds an unfinished run of {foreign[0].split('_')[1].split('of')[1]} processes and this one "
            f"has {size}: start as many, or remove {', '.join(foreign)}"
        )
    mine = _files(folder)
    common = set(mine)
    if size > 1:
        theirs: list[list[Position]] = [[] for _ in range(size)]
        dist.all_gather_object(theirs, sorted(mine))
        common = set.intersection(*(set(positions) for positions in theirs))
    if not common:
        return None
    position = max(common)
    with safe_open(mine[position], "pt") as stored:
        there, rest = (json.loads(stored.metadata()[name]) for name in ("identity", "told"))
        if there != json.loads(json.dumps(identity)):
            raise ValueError(
                f"{folder} holds an unfinished run of other settings: "
                f"use another folder, or remove {', '.join(everyone)}"
            )
        return position, {name: stored.get_tensor(name) for name in stored.offset_keys()}, rest


def remove_states(folder: Path) -> None:
    """Removes what this process saved."""
    for path in _files(folder).values():
        path.unlink(missing_ok=True)


def copy_into(target: Tensor, source: Tensor) -> Tensor:
    """`source`'s numbers in `target`'s memory layout, dtype and device."""
    return torch.empty_like(target).copy_(source)
