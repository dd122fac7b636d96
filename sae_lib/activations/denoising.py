"""The updates of a denoising run, without the rest of a pipeline call.

No picture is decoded, and in the last step the U-Net does not run on behind the last block that is asked for.
"""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass

import torch
from diffusers import EulerAncestralDiscreteScheduler, EulerDiscreteScheduler, StableDiffusionXLPipeline
from jaxtyping import Float
from torch import Tensor

from sae_lib.activations.steps import own_loop, refuse_silent
from sae_lib.activations.updates import refuse_not_finite, update_hooks
from sae_lib.models.blocks import BLOCKS, as_list, find_block
from sae_lib.models.noise import Noise


@dataclass(frozen=True)
class CallSettings:
    """How a pipeline is run: the setting to which an SAE is transferred."""

    steps: int
    """Denoising steps (paper: 4 for Turbo, 20 for base)."""
    guidance_scale: float
    """0.0 without classifier-free guidance (paper: 0.0 for Turbo, 7.5 for base)."""
    seed: int = 0
    """Seed of the noise; see `noise.Noise`."""
    batch_size: int = 10
    """Prompts per pipeline call. It does not change the noise."""
    noise: str = "prompt"
    """Which generator a prompt's noise comes from, one of `NOISE_RULES`."""

    @property
    def guided(self) -> bool:
        """Whether the U-Net also runs without the prompt (as diffusers decides it: guidance above 1)."""
        return self.guidance_scale > 1


def stream_updates(
    pipe: StableDiffusionXLPipeline,
    prompts: str | Sequence[str],
    blocks: str | Iterable[str],
    settings: CallSettings,
    guidance: str = "conditional",
) -> Iterator[tuple[range, dict[str, Float[Tensor, "steps ... batch d_model height width"]]]]:
    """`run_updates` over the prompts, batch by batch: the prompts' indices and their updates.

    Raises ValueError if there are no prompts, and what `run_updates` raises.
    """
    prompts, blocks = as_list(prompts), as_list(blocks)
    if not prompts:
        raise ValueError("no prompts: wanted at least one")
    for start in range(0, len(prompts), settings.batch_size):
        indices = range(start, min(start + settings.batch_size, len(prompts)))
        yield indices, run_updates(pipe, [prompts[i] for i in indices], indices, blocks, settings, guidance)


@torch.inference_mode()
def run_updates(
    pipe: StableDiffusionXLPipeline,
    prompts: str | Sequence[str],
    indices: Sequence[int],
    blocks: str | Iterable[str],
    settings: CallSettings,
    guidance: str = "conditional",
) -> dict[str, Float[Tensor, "steps ... batch d_model height width"]]:
    """Denoises the prompts as a pipeline call does, and gives the blocks' updates as `capture_updates` would.

    In the last step the U-Net stops behind the last of the blocks, and nothing is decoded. indices: the prompts'
    numbers, which say what noise is theirs. guidance: which half of a guided run is given, "conditional" (paper: App.
    B) as `[steps, batch, ...]`, or "both" as `[steps, 2, batch, ...]` with the unconditional half first. Updates are on
    the device on which the U-Net runs and in its dtype; the latents between steps are in float32.

    Raises ValueError for an unknown block or guidance, for "both" without guidance, for a scheduler other than the
    Euler schedulers of SDXL and SDXL Turbo, and for NaN in an update; RuntimeError if the U-Net was compiled before and
    runs without the hooks.
    """
    prompts, blocks = as_list(prompts), as_list(blocks)
    if guidance not in ("conditional", "both") or (guidance == "both" and not settings.guided):
        raise ValueError(
            f"guidance is {guidance!r} at a guidance scale of {settings.guidance_scale}; "
            'choose "conditional", or "both" above 1'
        )
    modules = {block: find_block(pipe, block) for block in blocks}
    last = modules[max(modules, key=list(BLOCKS).index)]
    unet, scheduler = pipe.unet, _schedule(pipe, settings.steps)
    timesteps, sigmas = (x.to(pipe._execution_device) for x in (scheduler.timesteps, scheduler.sigmas))
    inputs = conditioning(pipe, prompts, settings.guided)
    size = unet.config.sample_size
    noise = Noise(settings.noise, settings.seed, indices, (unet.config.in_channels, size, size))
    maps: dict[str, list[Tensor]] = {block: [] for block in modules}
    x = noise.draw().to(pipe._execution_device) * scheduler.init_noise_sigma
    with ExitStack() as hooks:
        hooks.enter_context(own_loop(pipe, timesteps, settings.guided))
        for block, module in modules.items():
            hooks.enter_context(update_hooks(module, maps[block].append))
        for step, timestep in enumerate(timesteps):
            seen = (x / (sigmas[step] ** 2 + 1).sqrt()).to(unet.dtype)
            if step == settings.steps - 1:
                hooks.callback(last.register_forward_hook(_stop).remove)
            try:
                predicted = unet(torch.cat([seen] * (1 + settings.guided)), timestep, **inputs).sample.float()
            except _Stopped:
                break
            if settings.guided:
                free, prompted = predicted.chunk(2)
                predicted = free + settings.guidance_scale * (prompted - free)
            x = _euler_step(scheduler, x, predicted, sigmas[step], sigmas[step + 1], noise)
    refuse_silent(block for block, steps in maps.items() if len(steps) < settings.steps)
    if guidance == "both":
        updates = {block: torch.stack([torch.stack(x.chunk(2)) for x in steps]) for block, steps in maps.items()}
    else:
        updates = {block: torch.stack([x[-len(prompts) :] for x in steps]) for block, steps in maps.items()}
    refuse_not_finite(updates)
    return updates


class _Stopped(Exception):
    """Raised by a hook behind the last block that is asked for."""


def _stop(_module, _args, _output):
    raise _Stopped


def _schedule(pipe: StableDiffusionXLPipeline, steps: int) -> EulerDiscreteScheduler | EulerAncestralDiscreteScheduler:
    """The scheduler of a run: a copy of the pipeline's, which is left as it is.

    The pipeline's own may hold the steps of an earlier call, or none, and `init_noise_sigma` depends on them.
    """
    known = (EulerDiscreteScheduler, EulerAncestralDiscreteScheduler)
    scheduler = pipe.scheduler
    if not isinstance(scheduler, known) or scheduler.config.prediction_type != "epsilon":
        raise ValueError(
            f"the pipeline's scheduler is {type(scheduler).__name__} ({scheduler.config.get('prediction_type')}); "
            "wanted EulerDiscreteScheduler or EulerAncestralDiscreteScheduler with prediction_type 'epsilon'"
        )
    own = type(scheduler).from_config(scheduler.config)
    own.set_timesteps(steps)
    return own


def _euler_step(scheduler, x: Tensor, predicted: Tensor, sigma: Tensor, target: Tensor, noise: Noise) -> Tensor:
    """x at the next noise level; an ancestral scheduler goes lower and adds fresh noise (k-diffusion, SDXL Turbo)."""
    if isinstance(scheduler, EulerDiscreteScheduler):
        return x + (target - sigma) * predicted
    fresh = target * (1 - (target / sigma) ** 2).sqrt()
    return x + ((target**2 - fresh**2).sqrt() - sigma) * predicted + fresh * noise.draw().to(x.device)


def conditioning(pipe: StableDiffusionXLPipeline, prompts: str | Sequence[str], guided: bool) -> dict:
    """The U-Net's other inputs: the prompts, unconditional half first, and SDXL's numbers for size and crop."""
    embeddings, free, pooled, pooled_free = pipe.encode_prompt(as_list(prompts), do_classifier_free_guidance=guided)
    if guided:
        embeddings, pooled = torch.cat([free, embeddings]), torch.cat([pooled_free, pooled])
    size = pipe.unet.config.sample_size * pipe.vae_scale_factor
    time_ids = torch.tensor([[size, size, 0, 0, size, size]]).to(embeddings).expand(len(embeddings), -1)
    return {
        "encoder_hidden_states": embeddings,
        "added_cond_kwargs": {"text_embeds": pooled, "time_ids": time_ids},
    }
