"""Update vectors for training: a pipeline run over prompts, mixed, in numbered portions that can be made again."""

import functools
import hashlib
import itertools
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from typing import Any

import torch
from diffusers import DiffusionPipeline
from torch import Tensor

from sae_lib.activations.denoising import CallSettings, run_updates
from sae_lib.activations.processes import exchange, rank_and_size
from sae_lib.activations.updates import permute_dimensions, to_vectors
from sae_lib.cache.space import refuse_without_memory
from sae_lib.models.blocks import as_list, grid_of, width_of
from sae_lib.models.identity import pipeline_identity, pipeline_origin

BUFFER = 640_000
"""Vectors per block in the paper's shuffling buffer (authors' code)."""


def positions_per_step(pipe: DiffusionPipeline, block: str) -> int:
    """Update vectors that one prompt gives at one step in a block.

    In the lowest level of the U-Net these are 256 for SDXL Turbo at 512 px, 1,024 for SDXL base at 1,024 px, and 64 for
    the pocket models; in the level above four times as many.
    """
    return grid_of(pipe, block) ** 2


class TrainingStream(Sequence):
    """The update vectors of a setting in numbered portions for `train_saes`: `stream[i]` is `{block: vectors}`.

    A portion is what is mixed together: the vectors of consecutive prompts, from all positions and steps, in random
    order. A pass over the prompts is cut into as few equal portions as possible, so that each has at most `buffer`
    vectors per block (but at least one batch of prompts). `stream[i]` depends only on the arguments and on i, so that a
    run that died goes on by making its portion again. Differs from the paper: there a buffer is refilled when a fifth
    of it is used, and what is left at the end is lost.

    pipe, prompts, blocks, settings: which updates. All steps of a call count alike; of guided calls the conditional
    half is taken. Blocks may differ in grid and width. vectors: at most this many per block, None for all. passes: how
    often each vector is given out. If a pass is one portion, it is kept from pass to pass, and the pipeline runs once.
    prompt_source: where the prompts come from, for readers; `origin` holds it with the names of the pipeline.

    Vectors are in the U-Net's dtype and on its device. In float32 a block takes `buffer` x d_model x 4 bytes, and twice
    that while it is mixed (SDXL: 3.3 GB per block).

    With torch.distributed the processes take turns with the batches of prompts, and every block's vectors go to the
    process that owns the block: all processes must read `stream[i]`, and it holds only the blocks of the reader.

    Raises ValueError if there are no prompts or no passes, from reading also for NaN in an update; MemoryError if a
    portion exceeds the machine's memory.
    """

    def __init__(
        self,
        pipe: DiffusionPipeline,
        prompts: str | Sequence[str],
        blocks: str | Iterable[str],
        settings: CallSettings,
        passes: int = 1,
        vectors: int | None = None,
        seed: int = 0,
        buffer: int = BUFFER,
        prompt_source: str = "",
    ):
        prompts = as_list(prompts)
        if not prompts or passes < 1:
            raise ValueError(f"got {len(prompts)} prompts and {passes} passes; wanted at least one of each")
        self.pipe, self.prompts, self.blocks, self.settings = pipe, prompts, as_list(blocks), settings
        self.passes, self.vectors, self.seed, self.buffer = passes, vectors, seed, buffer
        self.origin = pipeline_origin(pipe) | {"prompts": prompt_source or "the caller's"}
        self._of_prompt = {block: settings.steps * positions_per_step(pipe, block) for block in self.blocks}
        least, most = min(self._of_prompt.values()), max(self._of_prompt.values())
        needed = len(prompts) if vectors is None else min(len(prompts), -(-vectors // least))
        size = settings.batch_size
        batches = [range(start, min(start + size, needed)) for start in range(0, needed, size)]
        self.portions = min(len(batches), -(-needed * most // buffer))
        cuts = [number * len(batches) // self.portions for number in range(self.portions + 1)]
        self._batches = [batches[start:end] for start, end in itertools.pairwise(cuts)]
        self._kept: dict[str, Tensor] | None = None

    @property
    def shapes(self) -> dict[str, tuple[int, int]]:
        """By block, what one pass gives out: `[vectors, d_model]`."""
        prompts = sum(len(batch) for batches in self._batches for batch in batches)
        most = math.inf if self.vectors is None else self.vectors
        return {b: (min(prompts * count, most), width_of(self.pipe, b)) for b, count in self._of_prompt.items()}

    @property
    def description(self) -> dict[str, Any]:
        """What the vectors depend on, in JSON: equal descriptions, equal streams."""
        grids = {block: [grid_of(self.pipe, block)] * 2 for block in self.blocks}
        return {
            "pipeline": pipeline_identity(self.pipe),
            "blocks": {block: {"grid": grid, "d_model": width_of(self.pipe, block)} for block, grid in grids.items()},
            "prompts": {"count": len(self.prompts), "sha256": self._prompts_hash},
            "settings": asdict(self.settings),
            **{name: getattr(self, name) for name in ("passes", "vectors", "seed", "buffer")},
        }

    @functools.cached_property
    def _prompts_hash(self) -> str:
        return hashlib.sha256(json.dumps(self.prompts).encode()).hexdigest()

    def __len__(self) -> int:
        return self.passes * self.portions

    def __getitem__(self, number: int) -> dict[str, Tensor]:
        if not 0 <= number < len(self):
            raise IndexError(f"portion {number} of {len(self)}")
        return mix(self.in_order(number % self.portions), self.seed, number)

    def in_order(self, portion: int = 0) -> dict[str, Tensor]:
        """A portion before it is mixed: in the order prompt, step, position."""
        if self._kept is not None:
            return self._kept
        rank, size = rank_and_size()
        parts: dict[str, list[Tensor]] = {block: [] for block in self.blocks}
        for batch in self._batches[portion][rank::size]:
            updates = run_updates(self.pipe, [self.prompts[i] for i in batch], batch, self.blocks, self.settings)
            for block, update in updates.items():
                parts[block].append(to_vectors(update.transpose(0, 1)))
            if len(parts[self.blocks[0]]) == 1:
                self._refuse_if_too_large(parts, len(self._batches[portion]))
        if size > 1:
            parts = exchange(parts, len(self._batches[portion]))
        before = sum(len(batch) for batches in self._batches[:portion] for batch in batches)
        vectors = {}
        for block in list(parts):
            left = None if self.vectors is None else max(0, self.vectors - before * self._of_prompt[block])
            vectors[block] = torch.cat(parts.pop(block))[:left]
        if self.portions == 1:
            self._kept = vectors
        return vectors

    def _refuse_if_too_large(self, parts: Mapping[str, list[Tensor]], batches: int) -> None:
        (device,) = {x[0].device for x in parts.values()}
        need_gb = sum(x[0].nbytes * batches for x in parts.values()) / 1e9
        what = f"a portion of {self.buffer:,} vectors per block takes"
        refuse_without_memory(need_gb, device, what, "take a smaller buffer", installed=True)


def mix(vectors: Mapping[str, Tensor], seed: int, number: int) -> dict[str, Tensor]:
    """The rows of portion `number` in random order, which is the same for all blocks."""
    mixed = {}
    for block, x in vectors.items():
        generator = torch.Generator().manual_seed((seed * 1_000_003 + number) % 2**32)
        mixed[block] = x[torch.randperm(len(x), generator=generator).to(x.device)]
    return mixed


class PermutedStream(Sequence):
    """Control: a stream in which each dimension is permuted over the rows of a portion; see `permute_dimensions`."""

    def __init__(self, stream: TrainingStream):
        self._stream = stream
        self.blocks, self.passes, self.shapes = stream.blocks, stream.passes, stream.shapes

    @property
    def description(self) -> dict[str, Any]:
        """The stream's description, marked as permuted."""
        return {**self._stream.description, "permuted": True}

    @property
    def origin(self) -> dict[str, Any]:
        """The stream's."""
        return self._stream.origin

    def __len__(self) -> int:
        return len(self._stream)

    def __getitem__(self, number: int) -> dict[str, Tensor]:
        portion = self._stream[number]
        generator = torch.Generator().manual_seed((self._stream.seed * 1_000_003 + number) % 2**32)
        return {block: permute_dimensions(vectors, generator) for block, vectors in portion.items()}
