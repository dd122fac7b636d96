"""Which noise belongs to a prompt: the same at any batch size and on any number of processes."""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

NOISE_RULES = ("prompt", "batch of 50")
""""prompt": one generator per prompt (the authors' newer script). "batch of 50": one generator per 50 consecutive
prompts, which draws the noise of all 50 at once (the authors' training data)."""

_GROUP = 50


def prompt_generator(seed: int, index: int) -> torch.Generator:
    """The CPU generator of all noise of prompt `index` by the rule "prompt". With seed 0 it is the authors' seed."""
    return torch.Generator("cpu").manual_seed((seed * 1_000_003 + index) % 2**32)  # torch's CPU generator keeps 32 bits


class Noise:
    """The noise of some prompts: each `draw()` is the next, `[prompts, *shape]`, float32 on the CPU.

    Denoising starts from the first draw; an ancestral scheduler takes one more at each step. The noise is float32 for
    any dtype of the model, so that it does not depend on the dtype.

    Raises ValueError for an unknown rule.
    """

    def __init__(self, rule: str, seed: int, indices: Sequence[int], shape: Sequence[int]):
        if rule not in NOISE_RULES:
            raise ValueError(f"unknown noise rule {rule!r}; choose one of {', '.join(map(repr, NOISE_RULES))}")
        self._rows, self._shape = 1 if rule == "prompt" else _GROUP, tuple(shape)
        self._places = [divmod(index, self._rows) for index in indices]
        self._generators = {group: prompt_generator(seed, group) for group, _ in self._places}

    def draw(self) -> Float[Tensor, "prompts ..."]:
        groups = {
            group: torch.randn((self._rows, *self._shape), generator=generator)
            for group, generator in self._generators.items()
        }
        return torch.stack([groups[group][row] for group, row in self._places])
