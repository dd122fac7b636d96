"""The updates of a denoising run, without the rest of a pipeline call.

No picture is decoded, and in the last step the model does not run on behind the last block that is asked for.
"""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import torch
from diffusers import (
    DiffusionPipeline,
    EulerAncestralDiscreteScheduler,
    EulerDiscreteScheduler,
    FlowMatchEulerDiscreteScheduler,
    FluxPipeline,
    StableDiffusionXLPipeline,
)
from diffusers.pipelines.flux.pipeline_flux import calculate_shift
from jaxtyping import Float
from torch import Tensor

from sae_lib.activations.steps import own_loop, refuse_silent
from sae_lib.activations.updates import refuse_not_finite, update_hooks
from sae_lib.models.blocks import as_list, blocks_of, find_block, is_flux
from sae_lib.models.noise import Noise


@dataclass(frozen=True)
class CallSettings:
    """How a pipeline is run: the setting to which an SAE is transferred."""

    steps: int
    """Denoising steps (paper: 4 for Turbo, 20 for base)."""
    guidance_scale: float
    """0.0 without classifier-free guidance (paper: 0.0 for Turbo and FLUX, 7.5 for base)."""
    seed: int = 0
    """Seed of the noise; see `noise.Noise`."""
    batch_size: int = 10
    """Prompts per pipeline call. It does not change the noise."""
    noise: str = "prompt"
    """Which generator a prompt's noise comes from, one of `NOISE_RULES`."""

    @property
    def guided(self) -> bool:
        """Whether the model also runs without the prompt (as diffusers decides it: guidance above 1)."""
        return self.guidance_scale > 1


def stream_updates(
    pipe: DiffusionPipeline,
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
    pipe: DiffusionPipeline,
    prompts: str | Sequence[str],
    indices: Sequence[int],
    blocks: str | Iterable[str],
    settings: CallSettings,
    guidance: str = "conditional",
) -> dict[str, Float[Tensor, "steps ... batch d_model height width"]]:
    """Denoises the prompts as a pipeline call does, and gives the blocks' updates as `capture_updates` would.

    In the last step the model stops behind the last of the blocks, and nothing is decoded. indices: the prompts'
    numbers, which say what noise is theirs. guidance: which half of a guided run is given, "conditional" (paper: App.
    B) as `[steps, batch, ...]`, or "both" as `[steps, 2, batch, ...]` with the unconditional half first. Updates are on
    the device on which the model runs and in its dtype; the latents between steps are in float32.

    Raises ValueError for an unknown block or guidance, for "both" without guidance, for guidance asked of FLUX, for a
    scheduler other than the Euler schedulers of SDXL, SDXL Turbo and FLUX, and for NaN in an update; RuntimeError if
    the model was compiled before and runs without the hooks.
    """
    prompts, blocks = as_list(prompts), as_list(blocks)
    if guidance not in ("conditional", "both") or (guidance == "both" and not settings.guided):
        raise ValueError(
            f"guidance is {guidance!r} at a guidance scale of {settings.guidance_scale}; "
            'choose "conditional", or "both" above 1'
        )
    modules = {block: find_block(pipe, block) for block in blocks}
    last = modules[max(modules, key=list(blocks_of(pipe)).index)]
    run = (_FluxRun if is_flux(pipe) else _SDXLRun)(pipe, prompts, settings)
    noise = Noise(settings.noise, settings.seed, indices, run.shape)
    maps: dict[str, list[Tensor]] = {block: [] for block in modules}
    x = run.start(noise.draw().to(pipe._execution_device))
    with ExitStack() as hooks:
        hooks.enter_context(own_loop(pipe, run.timesteps, settings.guided))
        for block, module in modules.items():
            hooks.enter_context(update_hooks(module, maps[block].append))
        for step in range(settings.steps):
            if step == settings.steps - 1:
                hooks.callback(last.register_forward_hook(_stop).remove)
            try:
                x = run.step(x, step, noise)
            except _Stopped:
                break
    refuse_silent((block for block, steps in maps.items() if len(steps) < settings.steps), pipe)
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


class _SDXLRun:
    """The denoising loop of StableDiffusionXLPipeline: latents from step to step."""

    def __init__(self, pipe: StableDiffusionXLPipeline, prompts: Sequence[str], settings: CallSettings):
        self.unet, self.settings, self.scheduler = pipe.unet, settings, _own_scheduler(pipe)
        self.scheduler.set_timesteps(settings.steps)
        self.timesteps, self.sigmas = (
            x.to(pipe._execution_device) for x in (self.scheduler.timesteps, self.scheduler.sigmas)
        )
        self.inputs = conditioning(pipe, prompts, settings.guided)
        size = self.unet.config.sample_size
        self.shape = (self.unet.config.in_channels, size, size)

    def start(self, noise: Tensor) -> Tensor:
        return noise * self.scheduler.init_noise_sigma

    def step(self, x: Tensor, at: int, noise: Noise) -> Tensor:
        seen = (x / (self.sigmas[at] ** 2 + 1).sqrt()).to(self.unet.dtype)
        batch = torch.cat([seen] * (1 + self.settings.guided))
        predicted = self.unet(batch, self.timesteps[at], **self.inputs).sample.float()
        if self.settings.guided:
            free, prompted = predicted.chunk(2)
            predicted = free + self.settings.guidance_scale * (prompted - free)
        return _euler_step(self.scheduler, x, predicted, self.sigmas[at], self.sigmas[at + 1], noise)


class _FluxRun:
    """The denoising loop of FluxPipeline: packed latents from step to step."""

    def __init__(self, pipe: FluxPipeline, prompts: Sequence[str], settings: CallSettings):
        refuse_guidance(settings)
        self.pipe, scheduler = pipe, _own_scheduler(pipe)
        side = pipe.default_sample_size
        self.shape = (pipe.transformer.config.in_channels // 4, side, side)
        sigmas = [1 - step / settings.steps for step in range(settings.steps)]
        mu = calculate_shift((side // 2) ** 2, *(scheduler.config[name] for name in _SHIFTS))
        scheduler.set_timesteps(sigmas=sigmas, mu=mu, device=pipe._execution_device)
        self.timesteps, self.sigmas = scheduler.timesteps, scheduler.sigmas
        tokens, pooled, text_ids = pipe.encode_prompt(**flux_prompts(pipe, prompts))
        self.inputs = {"encoder_hidden_states": tokens, "pooled_projections": pooled, "txt_ids": text_ids}
        self.inputs["img_ids"] = pipe._prepare_latent_image_ids(0, side // 2, side // 2, tokens.device, tokens.dtype)

    def start(self, noise: Tensor) -> Tensor:
        return self.pipe._pack_latents(noise, len(noise), *noise.shape[1:])

    def step(self, x: Tensor, at: int, noise: Noise) -> Tensor:
        model = self.pipe.transformer
        timestep = (self.timesteps[at] / 1000).expand(len(x)).to(model.dtype)
        (velocity,) = model(x.to(model.dtype), timestep=timestep, **self.inputs, return_dict=False)
        return x + (self.sigmas[at + 1] - self.sigmas[at]) * velocity.float()


_SHIFTS = ("base_image_seq_len", "max_image_seq_len", "base_shift", "max_shift")


def _own_scheduler(pipe: DiffusionPipeline) -> Any:
    """A copy of the pipeline's scheduler, which is left as it is."""
    known, kind = (EulerDiscreteScheduler, EulerAncestralDiscreteScheduler), "epsilon"
    if is_flux(pipe):
        known, kind = (FlowMatchEulerDiscreteScheduler,), None
    scheduler, own_kind = pipe.scheduler, pipe.scheduler.config.get("prediction_type")
    if not isinstance(scheduler, known) or own_kind != kind:
        wanted = " or ".join(one.__name__ for one in known) + (f" with prediction_type {kind!r}" if kind else "")
        raise ValueError(f"the pipeline's scheduler is {type(scheduler).__name__} ({own_kind}); wanted {wanted}")
    return type(scheduler).from_config(scheduler.config)


def refuse_guidance(settings: CallSettings) -> None:
    """Raises ValueError for guidance, which FLUX-schnell was not trained for."""
    if settings.guidance_scale not in (0.0, 1.0):
        raise ValueError(
            f"guidance_scale is {settings.guidance_scale} and FLUX-schnell draws without guidance: wanted 0.0"
        )


def flux_prompts(pipe: FluxPipeline, prompts: Sequence[str]) -> dict[str, Any]:
    """Arguments of FluxPipeline for these prompts: T5 reads them, CLIP reads the empty prompt (authors' code).

    Raises ValueError for a prompt that is longer than T5 reads, which would be cut off in silence.
    """
    limit = min(512, pipe.tokenizer_2.model_max_length)
    for prompt, ids in zip(prompts, pipe.tokenizer_2(list(prompts)).input_ids, strict=True):
        if len(ids) > limit:
            raise ValueError(f"the prompt {prompt[:60]!r}... has {len(ids)} tokens and T5 reads {limit}: shorten it")
    return {"prompt": [""] * len(prompts), "prompt_2": list(prompts), "max_sequence_length": limit}


def call_arguments(pipe: DiffusionPipeline, prompts: str | Sequence[str], settings: CallSettings) -> dict[str, Any]:
    """Arguments of a pipeline's call that say what is drawn and how, but for the noise.

    Raises ValueError for guidance asked of FLUX, and for a prompt that is too long for it.
    """
    call = {"num_inference_steps": settings.steps, "guidance_scale": settings.guidance_scale}
    if not is_flux(pipe):
        return {"prompt": as_list(prompts), **call}
    refuse_guidance(settings)
    return flux_prompts(pipe, as_list(prompts)) | call


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
