"""Where a pipeline call stands: the denoising step that the U-Net is about to run."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from numbers import Real
from typing import TYPE_CHECKING

from torch import Tensor

if TYPE_CHECKING:
    import diffusers


@dataclass(frozen=True)
class Step:
    """One denoising step of a pipeline call, as hooks receive it."""

    index: int
    """The timestep's place in `scheduler.timesteps`; 0 is the noisiest step."""
    count: int
    """Number of timesteps in `scheduler.timesteps`."""
    timestep: float
    """The U-Net's input for time, from 999 (noise) to 0 (picture)."""
    guided: bool
    """Whether the call uses classifier-free guidance: then the first half of the batch is unconditional."""


def current_step(pipe: "diffusers.StableDiffusionXLPipeline", timestep: Real | Tensor) -> Step:
    """The step at which a running pipeline feeds its U-Net `timestep`; depends on nothing but the pipeline.

    Raises RuntimeError if the timestep is not in `scheduler.timesteps` (no pipeline call is running), or more than once
    in it (a scheduler of second order, whose U-Net calls cannot be distinguished).
    """
    timesteps = [float(t) for t in pipe.scheduler.timesteps]
    timestep = float(timestep)
    count = timesteps.count(timestep)
    if count != 1:
        raise RuntimeError(
            f"timestep {timestep:g} occurs {count} times among the scheduler's {timesteps}, wanted once: "
            "run the U-Net through a pipeline call, with a scheduler of first order"
        )
    return Step(timesteps.index(timestep), len(timesteps), timestep, pipe.do_classifier_free_guidance)


@contextmanager
def follow_steps(pipe: "diffusers.StableDiffusionXLPipeline", on_step: Callable[[Step], None]) -> Iterator[None]:
    """Inside the context, `on_step(step)` is called before each of the U-Net's forward passes."""

    def tell(unet, args, kwargs):
        on_step(current_step(pipe, kwargs["timestep"] if "timestep" in kwargs else args[1]))

    handle = pipe.unet.register_forward_pre_hook(tell, with_kwargs=True)
    try:
        yield
    finally:
        handle.remove()
