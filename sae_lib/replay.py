"""A pipeline call that begins in the middle: what lies before the first change is given out again, not computed again.

Bit for bit the same picture, since nothing that was computed before a change can depend on it.
"""

import re
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

from torch import nn

from sae_lib.blocks import find_block
from sae_lib.steps import Step, follow_steps

_PARTS = re.compile(r"conv_in|.*\.(resnets|attentions|downsamplers|upsamplers)\.\d+")


class Recording:
    """What the parts of a U-Net gave out in each step of one call."""

    def __init__(self) -> None:
        self._steps: list[dict[nn.Module, Any]] = []

    def _begin(self) -> None:
        self._steps.append({})

    def _keep(self, part: nn.Module, output: Any) -> None:
        self._steps[-1][part] = output

    def _before(self, changed: set[nn.Module], step: int) -> dict[nn.Module, Any]:
        """In the order in which they ran, the parts before the first changed one."""
        kept = {}
        for part, output in self._steps[step].items():
            if part in changed:
                break
            kept[part] = output
        return kept


@contextmanager
def record(pipe) -> Iterator[Recording]:
    """Inside the context the next call is recorded: a pocket model's takes 1 MB for each picture and step, SDXL Turbo's 50 MB."""
    recording = Recording()
    with ExitStack() as hooks:
        hooks.enter_context(follow_steps(pipe, lambda step: recording._begin()))
        for part in _parts(pipe):
            handle = part.register_forward_hook(lambda part, args, output: recording._keep(part, output))
            hooks.callback(handle.remove)
        yield recording


@contextmanager
def replay(pipe, recording: Recording, changed: Iterable[str], first_step: int = 0) -> Iterator[None]:
    """Inside the context, a call with the recorded prompts, noise and settings computes only what a change can reach.

    changed: the blocks whose output is changed there, such as by `intervene`. first_step: the first step in which one of them is.
    Until then all parts of the U-Net give out what was recorded, in that step those before the first changed block; from the next
    step on everything is computed. The pipeline is as it was on exit, also after an exception.

    Raises ValueError for an unknown block, and from the pipeline call if it has other steps than the recorded one.
    """
    blocks = {find_block(pipe, block) for block in changed}
    at: list[Step] = []

    def enter_step(step: Step) -> None:
        if step.count != len(recording._steps):
            raise ValueError(
                f"other steps: the recorded call has {len(recording._steps)} of them and this one {step.count}"
            )
        at[:] = [step]

    def given(part: nn.Module, compute: Callable) -> Callable:
        def forward(*args, **kwargs):
            step = at[0].index
            known = recording._before(blocks if step == first_step else set(), step) if step <= first_step else {}
            return known[part] if part in known else compute(*args, **kwargs)

        return forward

    with ExitStack() as undo:
        undo.enter_context(follow_steps(pipe, enter_step))
        for part in _parts(pipe):
            part.forward = given(part, part.forward)
            undo.callback(part.__delattr__, "forward")
        yield


def _parts(pipe) -> list[nn.Module]:
    return [module for name, module in pipe.unet.named_modules() if _PARTS.fullmatch(name)]
