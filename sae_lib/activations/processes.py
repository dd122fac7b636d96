"""Several processes, started by torchrun, that harvest together and train apart.

They take turns with the batches of prompts. Every block belongs to one process, which trains its SAEs. Only vectors
travel between processes, never gradients, so that one process and many end with the same weights.
"""

from collections.abc import Mapping, Sequence

import torch
import torch.distributed as dist
from torch import Tensor


def rank_and_size() -> tuple[int, int]:
    """The number of this process and the number of all processes: torchrun's, or 0 and 1 without it."""
    return (dist.get_rank(), dist.get_world_size()) if dist.is_initialized() else (0, 1)


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
    device = next((x.device for given in parts.values() for x in given), torch.device("cpu"))
    shapes: list[dict[str, list[tuple[int, ...]]]] = [{} for _ in range(size)]
    dist.all_gather_object(shapes, {block: [tuple(x.shape) for x in given] for block, given in parts.items()})
    dtypes: list[torch.dtype | None] = [None] * size
    dist.all_gather_object(dtypes, next((x.dtype for given in parts.values() for x in given), None))
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
