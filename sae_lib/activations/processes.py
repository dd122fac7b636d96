"""Several processes, started by torchrun, that harvest together and train apart.

They take turns with the batches of prompts. Every block belongs to one process, which trains its SAEs. Only vectors
travel between processes, never gradients, so that one process and many end with the same weights.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from filelock import FileLock, Timeout
from torch import Tensor


def rank_and_size() -> tuple[int, int]:
    """The number of this process and the number of all processes: torchrun's, or 0 and 1 without it."""
    return (dist.get_rank(), dist.get_world_size()) if dist.is_initialized() else (0, 1)


def everyone(value: Any) -> list[Any]:
    """The values of all processes, in the order of their numbers. All processes must ask at the same place."""
    values = [value] * rank_and_size()[1]
    if len(values) > 1:
        dist.all_gather_object(values, value)
    return values


@contextmanager
def alone(folder: str | Path) -> Iterator[None]:
    """Makes a folder if it is missing, and keeps other runs out of it until the context ends or the process dies.

    In a distributed run the first process does so for all. The same thread may enter again.

    Raises BlockingIOError if another run is in it, and OSError if nothing can be written into it.
    """
    if rank_and_size()[0] > 0:
        yield
        return
    folder = Path(folder).resolve()
    path = folder / ".lock"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = FileLock(path, is_singleton=True)
        lock.acquire(timeout=0)
    except Timeout:
        raise BlockingIOError(
            f"another run is writing into {folder}: wait until it has ended, or use another folder"
        ) from None
    except OSError as error:
        raise type(error)(f"nothing can be written into {folder} ({error.strerror}): use another folder") from error
    try:
        yield
    finally:
        if lock.lock_counter == 1:
            with suppress(OSError):  # Windows removes it by itself
                path.unlink()
        lock.release()


def owned(blocks: Sequence[str]) -> list[str]:
    """The blocks whose vectors this process gets, and whose SAEs it trains: every n-th of n processes."""
    rank, size = rank_and_size()
    return list(blocks)[rank::size]


def exchange(parts: Mapping[str, list[Tensor]], batches: int) -> dict[str, list[Tensor]]:
    """Sends each block's vectors to the process that owns the block.

    parts: for every block, the vectors of the batches that this process ran, one tensor per batch. batches: how many
    batches all processes ran. Gives the blocks that this process owns, with the vectors of all batches in order.
    """
    rank, size = rank_and_size()
    idle = torch.device("cuda" if dist.get_backend() == "nccl" else "cpu")  # of a process without a batch
    device = next((x.device for given in parts.values() for x in given), idle)
    shapes = everyone({block: [tuple(x.shape) for x in given] for block, given in parts.items()})
    dtypes = everyone(next((x.dtype for given in parts.values() for x in given), None))
    whole = {}
    for number, (block, given) in enumerate(parts.items()):
        rows = [sum(shape[0] for shape in of_block[block]) for of_block in shapes]
        width = next(shape[1] for of_block in shapes for shape in of_block[block])
        mine = torch.zeros((max(rows), width), dtype=next(filter(None, dtypes)), device=device)
        if given:
            mine[: rows[rank]] = torch.cat(given)
        owner = number % size
        received = [torch.empty_like(mine) for _ in range(size)] if rank == owner else None
        dist.gather(mine, received, dst=owner)
        if received is not None:
            turns = [
                x[: rows[at]].split([shape[0] for shape in shapes[at][block]]) if rows[at] else ()
                for at, x in enumerate(received)
            ]
            whole[block] = [turns[turn % size][turn // size] for turn in range(batches)]
    return whole
