"""A pipeline call that begins in the middle: outputs before the first change are replayed, not computed again.

Bit for bit the same picture, since nothing that was computed before a change can depend on it.
"""

import itertools
import re
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any

from torch import nn

from sae_lib.activations.steps import Step, follow_steps
from sae_lib.models.blocks import as_list, denoiser_of, find_block

if TYPE_CHECKING:
    import diffusers

_PARTS = re.compile(
    r"conv_in|.*\.(resnets|attentions|downsamplers|upsamplers)\.\d+"  # of the U-Net
    r"|(single_)?transformer_blocks\.\d+"  # of FLUX
)


class Recording:
    """What the parts of a model gave out in each step of some calls."""

    def __init__(self) -> None:
        self.calls: list[list[dict[str, Any]]] = []
        """By call, step and the part's name, in the order in which the parts ran. The parts are not kept alive."""

    def begin_call(self) -> None:
        """What follows is of another call."""
        self.calls.append([])

    def begin_step(self, _step: Step) -> None:
        """What follows is of another step."""
        self.calls[-1].append({})

    def keep(self, name: str, output: Any) -> None:
        """What a part gave out in this step."""
        self.calls[-1][-1][name] = output


@contextmanager
def record(pipe: "diffusers.DiffusionPipeline") -> Iterator[Recording]:
    """Records the calls inside the context: 1 MB per picture and step of a pocket model, 50 MB of SDXL Turbo."""
    recording, parts = Recording(), _parts(pipe)

    def hook(name: str) -> Callable:
        def keep(_part: nn.Module, _args: tuple, output: Any) -> None:
            calls.ran(name)
            recording.keep(name, output)

        return keep

    with ExitStack() as hooks:
        calls = hooks.enter_context(follow_steps(pipe, recording.begin_step, recording.begin_call, parts))
        for name, part in parts.items():
            hooks.callback(part.register_forward_hook(hook(name)).remove)
        yield recording


@contextmanager
def replay(
    pipe: "diffusers.DiffusionPipeline", recording: Recording, changed: str | Iterable[str], first_step: int = 0
) -> Iterator[None]:
    """Inside the context the recorded calls, made again in their order, compute only what a change can reach.

    changed: the blocks whose output is changed there, such as by `intervene`. first_step: the first step in which one
    of them is changed. Before that step all parts of the model give out what was recorded; in that step the parts
    before the first changed block do; from the next step on everything is computed. Prompts, noise and settings must be
    the recorded ones: nothing can check that here. The pipeline is as it was on exit, also after an exception.

    Raises ValueError for an unknown block, and from the pipeline call if none was recorded in its place, or
    one of other steps; and what `follow_steps` raises.
    """
    blocks, parts = [find_block(pipe, block) for block in as_list(changed)], _parts(pipe)
    recorded = iter(recording.calls)
    names = {name for name, part in parts.items() if part in blocks}
    steps: list[dict[str, Any]] = []
    known: dict[str, Any] = {}

    def enter_call() -> None:
        steps[:] = next(recorded, [])
        if calls.wanted != len(steps):
            raise ValueError(f"the recorded call has {len(steps)} steps and this one {calls.wanted}")

    def enter_step(step: Step) -> None:
        known.clear()
        if step.index <= first_step:
            ran = steps[step.index - calls.steps.start]
            known.update(_before(names if step.index == first_step else set(), ran))

    def given(name: str, compute: Callable) -> Callable:
        def forward(*args: Any, **kwargs: Any) -> Any:
            calls.ran(name)
            return known[name] if name in known else compute(*args, **kwargs)

        return forward

    with ExitStack() as undo:
        calls = undo.enter_context(follow_steps(pipe, enter_step, enter_call, parts))
        for name, part in parts.items():
            undo.enter_context(replaced_forward(part, given(name, part.forward)))
        yield


@contextmanager
def replaced_forward(module: nn.Module, forward: Callable) -> Iterator[None]:
    """Inside the context a module computes `forward` instead of its own; its hooks run as ever."""
    own = vars(module).get("forward")  # such as an offloaded module's
    module.forward = forward
    try:
        yield
    finally:
        del module.forward
        if own is not None:
            module.forward = own


def _before(changed: set[str], ran: dict[str, Any]) -> dict[str, Any]:
    """What the parts gave out that ran before the first changed part."""
    return dict(itertools.takewhile(lambda named: named[0] not in changed, ran.items()))


def _parts(pipe: "diffusers.DiffusionPipeline") -> dict[str, nn.Module]:
    return {name: module for name, module in denoiser_of(pipe).named_modules() if _PARTS.fullmatch(name)}
