"""Stopping and going on: everything a training run needs to end as if it had never been interrupted.

Saved are weights, optimisers, counters, logs and the position in the stream; the vectors are made again.
"""

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from sae_lib.activations.processes import everyone, rank_and_size
from sae_lib.cache.artefact import write_whole
from sae_lib.cache.identity import differences

Position = tuple[int, int]
"""The portion of the stream that comes next, and the piece of the portion."""


_NAME = re.compile(r"unfinished_(\d+)of(\d+)_(\d+)_(\d+)\.safetensors")
"""Of a state: the process, the number of processes, and the position."""


def _states(folder: Path) -> dict[str, tuple[int, ...]]:
    """The four numbers of all states, by file name."""
    matches = [_NAME.fullmatch(path.name) for path in sorted(folder.glob("unfinished_*"))]
    return {match[0]: tuple(map(int, match.groups())) for match in matches if match}


def _files(folder: Path) -> dict[Position, Path]:
    """This process's saved states."""
    return {numbers[2:]: folder / name for name, numbers in _states(folder).items() if numbers[:2] == rank_and_size()}


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

    Raises ValueError if an unfinished run of another identity or number of processes is there, or if the state is
    damaged.
    """
    size, states = rank_and_size()[1], _states(folder)
    foreign = {name: numbers[1] for name, numbers in states.items() if numbers[1] != size}
    if foreign:
        raise ValueError(
            f"{folder} holds an unfinished run of {next(iter(foreign.values()))} processes and this one "
            f"has {size}: start as many, or remove {', '.join(foreign)}"
        )
    mine = _files(folder)
    common = set.intersection(*map(set, everyone(list(mine))))
    if not common:
        return None
    position = max(common)
    try:
        return position, *_read(mine[position], identity, list(states))
    except (SafetensorError, KeyError, TypeError, json.JSONDecodeError) as error:
        raise ValueError(
            f"the unfinished state {mine[position]} is cut short or no state ({error}): remove it, and the run begins "
            "where an older state lies or anew"
        ) from error


def _read(path: Path, identity: Any, states: list[str]) -> tuple[dict[str, Tensor], Any]:
    """The tensors of a state and the rest of it. states: all files of the unfinished run."""
    with safe_open(path, "pt") as stored:
        there, rest = (json.loads(stored.metadata()[name]) for name in ("identity", "told"))
        if different := differences(there, identity):
            raise ValueError(
                f"{path.parent} holds an unfinished run of other settings, whose {different}: "
                f"use another folder, or remove {', '.join(states)}"
            )
        return {name: stored.get_tensor(name) for name in stored.offset_keys()}, rest


def remove_states(folder: Path) -> None:
    """Removes what this process saved. What it was saving when it was killed, `write_whole` removes."""
    for path in _files(folder).values():
        path.unlink(missing_ok=True)


def copy_into(target: Tensor, source: Tensor) -> Tensor:
    """`source`'s numbers in `target`'s memory layout, dtype and device."""
    return torch.empty_like(target).copy_(source)
