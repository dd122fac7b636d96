"""Streams of update vectors on which SAEs are trained: made by running a pipeline, mixed over prompts, deterministic."""

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from sae_lib.training import shuffled
from sae_lib.transfer import CallSettings, permute_dimensions, stream_updates
from sae_lib.updates import to_vectors

BUFFER = 640_000
"""Vectors a block of the paper's shuffling buffer (authors' code)."""
CHUNK = 65_536
"""Vectors a block of a chunk that is given out from memory."""


def positions_per_step(pipe) -> int:
    """Update vectors that a prompt gives at one step in each of the paper's four blocks: a quarter of the latents' width,
    squared (256 in SDXL Turbo at 512 px, 1,024 in SDXL base at 1,024 px, 64 in the pocket models)."""
    return (pipe.unet.config.sample_size // 4) ** 2


class TrainingStream:
    """The update vectors of a setting as chunks `{block: [vectors, d_model]}` for `train_saes`; can be read again.

    pipe, prompts, blocks, settings: which updates; all steps of a call count alike, of guided calls the conditional half.
    The noise belongs to the prompt (`prompt_generator`), whatever the batch. vectors: at most this many of each block,
    None for all. passes: how often each vector is given out.

    One pass over more than BUFFER vectors: the pipeline runs while one reads, and the vectors come in the order of the
    paper's shuffling buffer. Otherwise the pipeline runs once, at the first reading; all vectors are kept in memory, in
    float32 (vectors * d_model * 4 bytes a block: 67 MB for 2,048 one-step prompts of the pocket models), and each pass is
    permuted anew over all prompts and steps.

    Raises ValueError if there are no prompts or no passes, from reading also for NaN in an update; MemoryError if what
    is to be kept exceeds the machine's memory.
    """

    def __init__(
        self,
        pipe,
        prompts: Sequence[str],
        blocks: Iterable[str],
        settings: CallSettings,
        passes: int = 1,
        vectors: int | None = None,
        seed: int = 0,
    ):
        if not prompts or passes < 1:
            raise ValueError(f"got {len(prompts)} prompts and {passes} passes; wanted at least one of each")
        self.pipe, self.prompts, self.blocks, self.settings = pipe, prompts, list(blocks), settings
        self.passes, self.vectors, self.seed = passes, vectors, seed
        self._kept: dict[str, Tensor] | None = None

    def __iter__(self) -> Iterator[dict[str, Tensor]]:
        if self.passes == 1 and (self.vectors is None or self.vectors > BUFFER):
            yield from shuffled(self.in_order(), BUFFER, self.seed)
        else:
            yield from reshuffled(self._keep(), self.passes, self.seed)

    def in_order(self, vectors: int | None = None) -> Iterator[dict[str, Tensor]]:
        """Each vector once, in the order prompt, step, position: float32 on the CPU, a chunk a pipeline call.

        vectors: at most this many of each block, None for all of the stream.
        """
        most = min((count for count in (vectors, self.vectors) if count is not None), default=None)
        if self._kept is not None:
            yield {block: kept[:most] for block, kept in self._kept.items()}
            return
        left = dict.fromkeys(self.blocks, most)
        for _, updates in stream_updates(self.pipe, self.prompts, self.blocks, self.settings):
            chunk = {block: to_vectors(updates[block].transpose(0, 1)).float().cpu()[: left[block]] for block in left}
            yield chunk
            if most is not None:
                left = {block: left[block] - len(given) for block, given in chunk.items()}
                if not any(left.values()):
                    return

    def permuted(self) -> Iterator[dict[str, Tensor]]:
        """Control: the stream with each dimension permuted over a chunk's rows by itself; see `permute_dimensions`."""
        generator = torch.Generator().manual_seed(self.seed)
        for chunk in self:
            yield {block: permute_dimensions(vectors, generator) for block, vectors in chunk.items()}

    def _keep(self) -> dict[str, Tensor]:
        if self._kept is None:
            chunks = []
            for chunk in self.in_order():
                chunks.append(chunk)
                if len(chunks) == 1:
                    self._refuse_if_too_large(chunk)
            self._kept = {block: torch.cat([chunk.pop(block) for chunk in chunks]) for block in self.blocks}
        return self._kept

    def _refuse_if_too_large(self, first: Mapping[str, Tensor]) -> None:
        calls = len(self.prompts) / min(self.settings.batch_size, len(self.prompts))
        most = self.vectors or float("inf")
        need = sum(min(most, len(x) * calls) * x.shape[1] * x.itemsize for x in first.values()) / 1e9
        memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 1e9
        if need > memory:
            raise MemoryError(
                f"{self.passes} passes keep {need:.2g} GB of update vectors and this machine has {memory:.2g} GB of memory: "
                "take fewer prompts, or passes=1, which keeps a buffer only"
            )


def reshuffled(
    vectors: Mapping[str, Float[Tensor, "_ _"]], passes: int, seed: int = 0, chunk: int = CHUNK
) -> Iterator[dict[str, Tensor]]:
    """Every vector `passes` times, each time in another order; chunks of at most `chunk` vectors a block.

    Blocks are permuted each from `seed`: a block's order does not depend on which others are there.
    """
    generators = {block: torch.Generator().manual_seed(seed) for block in vectors}
    pieces = max(-(-len(x) // chunk) for x in vectors.values())
    for _ in range(passes):
        orders = {block: torch.randperm(len(x), generator=generators[block]) for block, x in vectors.items()}
        for rows in zip(*(order.tensor_split(pieces) for order in orders.values()), strict=True):
            yield {block: x[part] for (block, x), part in zip(vectors.items(), rows, strict=True)}
