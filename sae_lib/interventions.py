"""Interventions: replacing what a block gives out while the pipeline runs.

An intervention is one function `fn(block_input, block_output, at) -> new block_output`; tensors are
`[batch, d_model, height, width]` as the U-Net sees them, `at` is the current `Step`.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

from jaxtyping import Float
from torch import Tensor, nn

from sae_lib.blocks import find_block
from sae_lib.sae import TopKSAE
from sae_lib.steps import Step, follow_steps
from sae_lib.updates import to_maps, to_vectors

Maps = Float[Tensor, "batch d_model height width"]
Intervention = Callable[[Maps, Maps, Step], Maps]


@contextmanager
def intervene(pipe, interventions: Mapping[str, Intervention]) -> Iterator[None]:
    """Inside the context, each named block gives out `fn(block_input, block_output, at)` instead of its own output.

    block_input is what the block's update is added to: its input, or, where a ResNet changes the width, the output of
    its `conv_shortcut` (as in the authors' ablation). So block_output - block_input is the update at all 28 blocks. The
    result is cast to the U-Net's dtype. When `at.guided`, the first half of the batch is unconditional. Contexts nest:
    the inner function receives the outer one's output. The hooks are gone on exit, also after an exception; nothing is
    kept between calls.

    Raises ValueError for an unknown block, and, from the pipeline call, if `fn` returns anything but a tensor of the
    block output's shape.
    """
    modules = {block: find_block(pipe, block) for block in interventions}
    at: list[Step] = []

    def enter_step(step: Step) -> None:
        at[:] = [step]

    handles = []
    try:
        with follow_steps(pipe, enter_step):
            for block, module in modules.items():
                handles.append(module.register_forward_hook(_hook(block, interventions[block], at), with_kwargs=True))
            yield
    finally:
        for handle in handles:
            handle.remove()


def _hook(block: str, fn: Intervention, at: list[Step]):
    def replace_output(module, args, kwargs, output):
        block_output = output[0] if isinstance(output, tuple) else output
        block_input = _residual(module, args[0] if args else kwargs["hidden_states"])
        new = fn(block_input, block_output, at[0])
        if not isinstance(new, Tensor) or new.shape != block_output.shape:
            got = list(new.shape) if isinstance(new, Tensor) else new
            raise ValueError(
                f"the intervention on {block!r} returned {got}, wanted a tensor {list(block_output.shape)}"
            )
        new = new.to(block_output.dtype)
        return (new,) if isinstance(output, tuple) else new

    return replace_output


def _residual(module: nn.Module, block_input: Tensor) -> Tensor:
    shortcut = getattr(module, "conv_shortcut", None)
    return block_input if shortcut is None else shortcut(block_input)


def skip_block(block_input: Maps, block_output: Maps, at: Step) -> Maps:
    """Ablates the block: it gives out its input, as if its update were zero (paper: Table 1, App. D)."""
    return block_input


def reconstruct(sae: TopKSAE) -> Intervention:
    """Replaces the block's update by the SAE's reconstruction of it, at every step and position (paper: Table 5, App.
    L).

        new block_output = block_input + DEC(ENC(block_output - block_input))

    Both halves of a guided batch are reconstructed. The sums are taken in the SAE's dtype.
    """

    def fn(block_input: Maps, block_output: Maps, at: Step) -> Maps:
        block_input, block_output = block_input.to(sae.pre_bias), block_output.to(sae.pre_bias)
        return block_input + to_maps(sae(to_vectors(block_output - block_input)), *block_input.shape[-2:])

    return fn
