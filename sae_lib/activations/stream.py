"""Update vectors for training: a pipeline run over prompts, mixed, in numbered portions that can be made again."""

import hashlib
import itertools
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict

import torch
from diffusers import StableDiffusionXLPipeline
from torch import Tensor

from sae_lib.activations.denoising import CallSettings, run_updates
from sae_lib.activations.processes import exchange, world
from sae_lib.activations.updates import permute_dimensions, to_vectors
from sae_lib.models.blocks import grid_of

BUFFER = 640_000
"""Vectors a block of the paper's shuffling buffer (authors' code)."""


def positions_per_step(pipe: StableDiffusionXLPipeline, block: str) -> int:
    """Update vectors that a prompt gives at one step in a block: 256 in the lowest level of SDXL Turbo at 512 px, 1,024 of SDXL base
    at 1,024 px, 64 of the pocket models; four times as many in the level above."""
    return grid_of(pipe, block) ** 2


class TrainingStream(Sequence):
    """The update vectors of a setting in numbered fills: `stream[i]` is `{block: [vectors, d_model]}`, for `train_saes`.

    A fill is what is mixed: the vectors of some prompts in a row, all positions and steps, in random order. A pass over
    the prompts has as few equal fills as have at most `buffer` vectors a block (but a batch of prompts at least). `stream[i]` depends on the arguments and
    i only, so a run that died goes on by making its fill again. Differs from the paper: there a buffer is refilled when a
    fifth is used, and what is left at the end is lost.

    pipe, prompts, blocks, settings: which updates; all steps of a call count alike, of guided calls the conditional half.
    Blocks may differ in grid and width. vectors: at most this many of each block, None for all. passes: how often each
    vector is given out. Vectors are in the U-Net's dtype and on its device: `buffer` x d_model x 4 bytes a block in float32, twice that while it is mixed
    (SDXL: 3.3 GB a block). If a pass is one fill it is kept from pass to pass, and the pipeline runs once.

    With torch.distributed the processes take turns, a batch of prompts each, and every block's vectors go to the
    process that owns it: `stream[i]` must be read by all of them, and holds the owned blocks only.

    Raises ValueError if there are no prompts or no passes, from reading also for NaN in an update; MemoryError if a fill
    exceeds the machine's memory.
    """

    def __init__(
        self,
        pipe: StableDiffusionXLPipeline,
        prompts: Sequence[str],
        blocks: Iterable[str],
        settings: CallSettings,
        passes: int = 1,
        vectors: int | None = None,
        seed: int = 0,
        buffer: int = BUFFER,
    ):
        if not prompts or passes < 1:
            raise ValueError(f"got {len(prompts)} prompts and {passes} passes; wanted at least one of each")
        self.pipe, self.prompts, self.blocks, self.settings = pipe, prompts, list(blocks), settings
        self.passes, self.vectors, self.seed, self.buffer = passes, vectors, seed, buffer
        self._of_prompt = {block: settings.steps * positions_per_step(pipe, block) for block in self.blocks}
        least, most = min(self._of_prompt.values()), max(self._of_prompt.values())
        needed = len(prompts) if vectors is None else min(len(prompts), -(-vectors // least))
        size = settings.batch_size
        batches = [range(start, min(start + size, needed)) for start in range(0, needed, size)]
        self.fills = min(len(batches), -(-needed * most // buffer))
        cuts = [number * len(batches) // self.fills for number in range(self.fills + 1)]
        self._batches = [batches[start:end] for start, end in itertools.pairwise(cuts)]
        self._kept: dict[str, Tensor] | None = None

    @property
    def description(self) -> dict:
        """What the vectors depend on, the pipeline's weights excepted: equal descriptions, equal streams."""
        told = {name: getattr(self, name) for name in ("blocks", "passes", "vectors", "seed", "buffer")}
        prompts = hashlib.sha256("\n".join(self.prompts).encode()).hexdigest()
        return {**told, "prompts": prompts, "settings": asdict(self.settings)}

    def __len__(self) -> int:
        return self.passes * self.fills

    def __getitem__(self, number: int) -> dict[str, Tensor]:
        if not 0 <= number < len(self):
            raise IndexError(f"fill {number} of {len(self)}")
        return mix(self.in_order(number % self.fills), self.seed, number)

    def in_order(self, fill: int = 0) -> dict[str, Tensor]:
        """A fill before it is mixed: in the order prompt, step, position."""
        if self._kept is not None:
            return self._kept
        rank, size = world()
        parts: dict[str, list[Tensor]] = {block: [] for block in self.blocks}
        for batch in self._batches[fill][rank::size]:
            updates = run_updates(self.pipe, [self.prompts[i] for i in batch], batch, self.blocks, self.settings)
            for block, update in updates.items():
                parts[block].append(to_vectors(update.transpose(0, 1)))
            if len(parts[self.blocks[0]]) == 1:
                self._refuse_if_too_large(parts, len(self._batches[fill]))
        if size > 1:
            parts = exchange(parts, len(self._batches[fill]))
        before = sum(len(batch) for batches in self._batches[:fill] for batch in batches)
        vectors = {}
        for block in list(parts):
            left = None if self.vectors is None else max(0, self.vectors - before * self._of_prompt[block])
            vectors[block] = torch.cat(parts.pop(block))[:left]
        if self.fills == 1:
            self._kept = vectors
        return vectors

    def _refuse_if_too_large(self, parts: Mapping[str, list[Tensor]], batches: int) -> None:
        (first,) = {x[0].device for x in parts.values()}
        need = sum(x[0].nbytes * batches for x in parts.values()) / 1e9
        memory = (
            torch.cuda.get_device_properties(first).total_memory
            if first.type == "cuda"
            else os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
        ) / 1e9
        if need > memory:
            raise MemoryError(
                f"a fill of {self.buffer:,} vectors a block takes {need:.2g} GB and {first} has {memory:.2g} GB of "
                "memory: take a smaller buffer"
            )


def mix(vectors: Mapping[str, Tensor], seed: int, number: int) -> dict[str, Tensor]:
    """The rows of fill `number` in random order: blocks alike, whichever are there."""
    mixed = {}
    for block, x in vectors.items():
        generator = torch.Generator().manual_seed((seed * 1_000_003 + number) % 2**32)
        mixed[block] = x[torch.randperm(len(x), generator=generator).to(x.device)]
    return mixed


class PermutedStream(Sequence):
    """Control: a stream with each dimension permuted over a fill's rows by itself; see `permute_dimensions`."""

    def __init__(self, stream: TrainingStream):
        self._stream = stream

    @property
    def description(self) -> dict:
        """The stream's, marked."""
        return {**self._stream.description, "permuted": True}

    def __len__(self) -> int:
        return len(self._stream)

    def __getitem__(self, number: int) -> dict[str, Tensor]:
        fill = self._stream[number]
        generator = torch.Generator().manual_seed((self._stream.seed * 1_000_003 + number) % 2**32)
        return {block: permute_dimensions(vectors, generator) for block, vectors in fill.items()}
