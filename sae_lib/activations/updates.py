"""Updates: what a block adds to its input. Recording them during pipeline calls, and their two layouts."""

import functools
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float
from torch import Tensor, nn

from sae_lib.activations.steps import Step, follow_steps
from sae_lib.models.blocks import as_list, find_block, is_of_flux, streams_of

if TYPE_CHECKING:
    import diffusers


def to_vectors(maps: Float[Tensor, "*batch d_model height width"]) -> Float[Tensor, "vectors d_model"]:
    """Channel-first maps, with any leading axes, as update vectors: one row per position, in the order of the axes."""
    return maps.movedim(-3, -1).reshape(-1, maps.shape[-3])


def to_maps(
    vectors: Float[Tensor, "vectors d_model"], height: int, width: int
) -> Float[Tensor, "batch d_model height width"]:
    """Update vectors back as channel-first maps: the inverse of `to_vectors` for one leading axis."""
    return vectors.reshape(-1, height, width, vectors.shape[-1]).movedim(-1, -3)


class Updates(Mapping):
    """By block, the updates of the last pipeline call inside `capture_updates`, in the U-Net's dtype and on its device.

    `updates[block]` is `[steps, batch, d_model, height, width]`, with guidance="both" `[steps, 2, batch, d_model,
    height, width]` (unconditional first). Every reading stacks the steps anew.

    Raises KeyError for a block that is not recorded, RuntimeError before the first call or after a call that did not
    finish, and ValueError if an update holds NaN or infinity.
    """

    def __init__(self, blocks: Iterable[str], guidance: str):
        self._maps: dict[str, list[Tensor]] = {block: [] for block in blocks}
        self._guidance = guidance
        self._steps: list[Step] = []
        self._wanted_steps = 0

    @property
    def steps(self) -> tuple[Step, ...]:
        """The steps of the last pipeline call, one per entry of the first axis."""
        return tuple(self._steps)

    def __getitem__(self, block: str) -> Float[Tensor, "steps ... d_model height width"]:
        if block not in self._maps:
            raise KeyError(f"block {block!r} is not recorded; recorded: {', '.join(self._maps)}")
        maps = self._maps[block]
        if not maps:
            raise RuntimeError("no updates yet: call the pipeline inside capture_updates before reading them")
        if len(maps) != self._wanted_steps:
            raise RuntimeError(
                f"the last pipeline call ran {len(maps)} of {self._wanted_steps} steps: its updates are incomplete"
            )
        update = torch.stack(maps)
        refuse_not_finite({block: update})
        return update

    def __iter__(self) -> Iterator[str]:
        return iter(self._maps)

    def __len__(self) -> int:
        return len(self._maps)

    def _start_call(self, wanted_steps: int) -> None:
        self._steps, self._wanted_steps = [], wanted_steps
        self._maps = {block: [] for block in self._maps}

    def _start_step(self, step: Step) -> None:
        if self._guidance == "both" and not step.guided:
            raise ValueError(
                'guidance="both" wants a guided call, this one has no unconditional half: set guidance_scale above 1'
            )
        self._steps.append(step)

    def _record(self, block: str, update: Float[Tensor, "rows d_model height width"]) -> None:
        if self._steps[-1].guided:
            unconditional, conditional = update.chunk(2)
            update = torch.stack([unconditional, conditional]) if self._guidance == "both" else conditional.clone()
        self._maps[block].append(update.detach())


@contextmanager
def capture_updates(
    pipe: "diffusers.DiffusionPipeline", blocks: str | Iterable[str], guidance: str = "conditional"
) -> Iterator[Updates]:
    """Records the update of each block, at each step, of the pipeline calls inside the context (paper: section 3).

        update = block_output - block_input

    In the U-Net it is taken where it is computed, before the residual is added: the output of an attention block's
    `proj_out`, of a ResNet's `conv2`. So it is exact in 16 bit too. A block of FLUX adds to its image stream more than
    once; there the update is the stream behind the block minus the stream before it (authors' code). It is what the
    block itself computes: an intervention on the same block is not in it. Readable after each pipeline call and after
    exit; a second call replaces the first.

    pipe: a StableDiffusionXLPipeline or a FluxPipeline. blocks: codes of `BLOCKS` or of `FLUX_BLOCKS`. guidance: which
    half of a guided call is recorded, "conditional" or "both"; of a call without guidance "conditional" is everything.

    Raises ValueError for an unknown block or guidance, and, from the pipeline call, for "both" without guidance, and
    what `follow_steps` raises: RuntimeError if another pipeline runs the U-Net, or if a block is not recorded.
    """
    if guidance not in ("conditional", "both"):
        raise ValueError(f'unknown guidance {guidance!r}; valid: "conditional", "both"')
    modules = {block: find_block(pipe, block) for block in as_list(blocks)}
    updates = Updates(modules, guidance)

    def keep(block: str, update: Tensor) -> None:
        calls.ran(block)
        updates._record(block, update)

    with ExitStack() as hooks:
        start_call = lambda: updates._start_call(calls.wanted)
        calls = hooks.enter_context(follow_steps(pipe, updates._start_step, start_call, modules))
        for block, module in modules.items():
            hooks.enter_context(update_hooks(module, functools.partial(keep, block)))
        yield updates


def refuse_not_finite(updates: Mapping[str, Float[Tensor, "steps ..."]]) -> None:
    """Raises ValueError if an update holds NaN or infinity, naming the block and the step."""
    for block, update in updates.items():
        bad = [step for step, part in enumerate(update) if not part.isfinite().all()]
        if bad:
            raise ValueError(
                f"the update of block {block!r} holds NaN or infinity at step {bad[0]}: "
                "load the pipeline in a dtype of larger range (torch.float32 or torch.bfloat16)"
            )


@contextmanager
def update_hooks(module: nn.Module, record: Callable[[Tensor], object]) -> Iterator[None]:
    """`record(update)` after each forward pass of the block `module`, as `[batch, d_model, height, width]`.

    Where a block of the U-Net gives out something without computing it, nothing is recorded.
    """
    inner: list[Tensor] = []

    def keep(_module, _args, output):
        inner[:] = [output]

    def hand_over(_module, _args, output):
        if not inner:
            return
        update = inner.pop()
        if update.ndim == 3:  # of a linear proj_out; only the block knows height and width
            height, width = (output[0] if isinstance(output, tuple) else output).shape[-2:]
            update = update.unflatten(1, (height, width)).movedim(-1, 1)
        record(update)

    def subtract(_module, args, kwargs, output):
        before, behind = streams_of(module, args, kwargs, output)
        record(behind - before)

    if is_of_flux(module):  # prepended: before any intervention
        handles = [module.register_forward_hook(subtract, prepend=True, with_kwargs=True)]
    else:
        last_layer = module.proj_out if hasattr(module, "proj_out") else module.conv2
        handles = [last_layer.register_forward_hook(keep), module.register_forward_hook(hand_over)]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def permute_dimensions(
    vectors: Float[Tensor, "vectors d_model"], generator: torch.Generator
) -> Float[Tensor, "vectors d_model"]:
    """Control: permutes each dimension over the rows separately, which keeps its values and unties the dimensions.

    The rows are put in a random order, then each dimension is moved on by its own number of rows: no two entries of a
    new row are from the same vector where there are more rows than dimensions. An SAE trained on these has seen the
    updates' scale and marginals, but no direction that the model uses.
    """
    draws = {"generator": generator, "device": generator.device}
    count, width = vectors.shape
    order = torch.randperm(count, **draws).to(vectors.device)
    shifts = torch.randperm(count, **draws)[:width] if count >= width else torch.randint(count, (width,), **draws)
    columns = vectors[order].T.contiguous()  # in memory a dimension after the other
    return torch.stack([c.roll(shift) for c, shift in zip(columns, shifts.tolist(), strict=True)]).T.contiguous()
