"""Where a pipeline call stands: the denoising step that its model runs, and whether all hooks run with it.

The model is SDXL's U-Net or FLUX's transformer.
"""

import math
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from sae_lib.models.blocks import denoiser_of, is_flux, model_name

if TYPE_CHECKING:
    import diffusers


@dataclass(frozen=True)
class Step:
    """One denoising step of a pipeline call, as hooks receive it."""

    index: int
    """The step's place in `scheduler.timesteps`; 0 is the noisiest step."""
    count: int
    """Number of timesteps in `scheduler.timesteps`. A scheduler of second order has nearly two per inference step."""
    timestep: float
    """The model's input for time, from 999 (FLUX: 1000; noise) to 0 (picture)."""
    guided: bool
    """Whether the call uses classifier-free guidance: then the first half of the batch is unconditional."""


class Calls:
    """The calls of one pipeline inside `follow_steps`, and where the running one stands."""

    def __init__(
        self,
        pipe: "diffusers.DiffusionPipeline",
        on_step: Callable[[Step], object],
        on_call: Callable[[], object],
        hooks: Iterable[str],
    ):
        self._pipe, self._on_step, self._on_call, self._hooks = pipe, on_step, on_call, tuple(hooks)
        self._model = model_name(pipe)
        self._timesteps: list[float] = []  # empty between calls
        self._silent: dict[str, None] = {}
        self.steps = range(0)
        """The steps of the running call: their places in `scheduler.timesteps`; known from its first step on."""
        self.wanted = 0
        """Number of passes of the model that the running call will make."""
        self._step: Step | None = None

    @property
    def step(self) -> Step:
        """The step of the model's running pass. Raises RuntimeError if the model did not say that it runs."""
        if self._step is None:
            refuse_silent([self._model], self._pipe)
        return self._step

    def ran(self, hook: str) -> None:
        """To be called by each of the hooks when it runs."""
        self._silent.pop(hook, None)

    def begin(self, timesteps: torch.Tensor, guided: bool | None = None) -> None:
        """A denoising loop is entered. guided: None in a call of the pipeline, which knows it itself."""
        self._timesteps, self._guided = [float(timestep) for timestep in timesteps.tolist()], guided
        every = len(self._timesteps)
        self.wanted = every if guided is not None else getattr(self._pipe, "num_timesteps", every)
        self._silent, self.steps, self._passes = dict.fromkeys((self._model, *self._hooks)), range(0), 0
        self._step = None
        self._on_call()

    def leave(self) -> None:
        """The pipeline leaves the loop, also by an exception."""
        self._timesteps = []

    def check(self) -> None:
        """After a whole loop. Raises RuntimeError if a hook did not run in it."""
        if not getattr(self._pipe, "interrupt", False):
            refuse_silent(self._silent, self._pipe)

    def tell(self, _model: torch.nn.Module, args: tuple, kwargs: dict[str, Any]) -> None:
        """A pre-hook of the model."""
        if not self._timesteps:
            raise RuntimeError(
                f"{self._model} ran outside of a call of the pipeline that its hooks were set through: "
                "enter the context before the call, with the pipeline that is called"
            )
        timestep = self._timestep_of(args, kwargs)
        if not self._passes:
            self.steps = self._steps_from(timestep)
        index = self.steps.start + self._passes
        expected = self._timesteps[index] if index < len(self._timesteps) else None
        if timestep != expected:
            raise RuntimeError(
                f"pass {self._passes} of {self._model} is at timestep {timestep:g} and the scheduler's step {index} at "
                f"{expected}: wanted a pipeline call that runs it once per timestep, in their order"
            )
        own = getattr(self._pipe, "do_classifier_free_guidance", False)  # FLUX-schnell knows no guidance
        guided = own if self._guided is None else self._guided
        if guided:
            _refuse_unequal_halves(kwargs["sample"] if "sample" in kwargs else args[0])
        self._passes += 1
        self._step = Step(index, len(self._timesteps), timestep, guided)
        self.ran(self._model)
        self._on_step(self._step)

    def _timestep_of(self, args: tuple, kwargs: dict[str, Any]) -> float:
        if not is_flux(self._pipe):
            return float(kwargs["timestep"] if "timestep" in kwargs else args[1])
        timesteps = kwargs["timestep"] if "timestep" in kwargs else args[3]  # per picture, divided by 1000, rounded
        timestep = 1000 * float(timesteps.flatten()[0])
        return next((each for each in self._timesteps if math.isclose(each, timestep, rel_tol=0.01)), timestep)

    def _steps_from(self, timestep: float) -> range:
        first = getattr(self._pipe.scheduler, "begin_index", None) if self._guided is None else 0
        if first is None and timestep in self._timesteps:
            first = self._timesteps.index(timestep)
        return range(first or 0, (first or 0) + self.wanted)


class _Loops:
    """Stands for `pipe.progress_bar`, which every call of a diffusers pipeline enters for its denoising loop."""

    def __init__(self, pipe: "diffusers.DiffusionPipeline"):
        self._pipe, self._bar, self._own = pipe, pipe.progress_bar, vars(pipe).get("progress_bar")
        self._followed: list[Calls] = []
        pipe.progress_bar = self

    @contextmanager
    def __call__(self, *args: Any, **kwargs: Any) -> Iterator[Any]:
        try:
            for calls in self._followed:
                calls.begin(self._pipe.scheduler.timesteps)
            with self._bar(*args, **kwargs) as bar:
                yield bar
        finally:
            for calls in self._followed:
                calls.leave()
        for calls in self._followed:
            calls.check()

    @contextmanager
    def other(self, timesteps: torch.Tensor, guided: bool) -> Iterator[None]:
        """A loop that is no call and that may end before the U-Net's last layers."""
        try:
            for calls in self._followed:
                calls.begin(timesteps, guided)
            yield
        finally:
            for calls in self._followed:
                calls.leave()

    def follow(self, calls: Calls) -> None:
        self._followed.append(calls)

    def stop(self, calls: Calls) -> None:
        """Contexts need not end in the order in which they began; after the last one the pipeline is as it was."""
        self._followed.remove(calls)
        if not self._followed:
            del self._pipe.progress_bar
            if self._own is not None:
                self._pipe.progress_bar = self._own


@contextmanager
def follow_steps(
    pipe: "diffusers.DiffusionPipeline",
    on_step: Callable[[Step], object] = lambda step: None,
    on_call: Callable[[], object] = lambda: None,
    hooks: Iterable[str] = (),
) -> Iterator[Calls]:
    """Inside the context, `on_step(step)` is called before each forward pass of the pipeline's model.

    Steps are told apart by their count since the call began. on_call: called where a pipeline call enters its denoising
    loop. hooks: the names of the caller's own hooks, each of which reports to `Calls.ran` when it runs.

    Raises RuntimeError from the model if it is run by anything but a call of `pipe` or an `own_loop`, such as another
    pipeline that shares it; if it does not run once per timestep; or if the halves of a guided batch hold different
    latents. From the pipeline call, if one of the hooks did not run in it.
    """
    calls = Calls(pipe, on_step, on_call, hooks)
    handle = denoiser_of(pipe).register_forward_pre_hook(calls.tell, with_kwargs=True)
    loops = pipe.progress_bar if isinstance(pipe.progress_bar, _Loops) else _Loops(pipe)
    loops.follow(calls)
    try:
        yield calls
    finally:
        handle.remove()
        loops.stop(calls)


@contextmanager
def own_loop(pipe: "diffusers.DiffusionPipeline", timesteps: torch.Tensor, guided: bool) -> Iterator[None]:
    """Tells those who follow `pipe` that its model runs inside the context, in a loop that is no pipeline call."""
    loops = pipe.progress_bar
    with loops.other(timesteps, guided) if isinstance(loops, _Loops) else nullcontext():
        yield


def refuse_silent(hooks: Iterable[str], pipe: "diffusers.DiffusionPipeline") -> None:
    """Raises RuntimeError if there are any: hooks that did not run while the model did, by name."""
    names = list(hooks)
    if names:
        others = f" and {len(names) - 1} more" if len(names) > 1 else ""
        raise RuntimeError(
            f"{model_name(pipe)} ran and the hooks on {names[0]}{others} did not: it was compiled before they were "
            "set, or a replay gives out what they wait for; call torch.compiler.reset() right before you enter the "
            "context, or take a pipeline without torch.compile"
        )


def _refuse_unequal_halves(latents: torch.Tensor) -> None:
    if len(latents) % 2 or not torch.allclose(*latents.chunk(2), rtol=0, atol=0, equal_nan=True):
        raise RuntimeError(
            f"the call is guided and its batch of {len(latents)} is not the same latents twice: wanted a pipeline "
            "whose batch is the unconditional half, then the conditional half"
        )
