"""Interventions: replacing what a block gives out while the pipeline runs.

An intervention is one function `fn(block_input, block_output, at) -> new block_output`; tensors are
`[batch, d_model, height, width]` as the U-Net sees them, or FLUX's image tokens on their grid; `at` is the current
`Step`.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

import torch
from diffusers import DiffusionPipeline
from jaxtyping import Float, Int
from torch import Tensor

from sae_lib.activations.denoising import CallSettings
from sae_lib.activations.drawing import draw_pictures
from sae_lib.activations.recording import record, replay
from sae_lib.activations.steps import Calls, Step, follow_steps
from sae_lib.activations.updates import to_maps, to_vectors
from sae_lib.models.blocks import find_block, streams_of, with_stream
from sae_lib.saes.controls import PCA
from sae_lib.saes.topk import TopKSAE

Maps = Float[Tensor, "batch d_model height width"]
Intervention = Callable[[Maps, Maps, Step], Maps]


@contextmanager
def intervene(pipe: DiffusionPipeline, interventions: Mapping[str, Intervention]) -> Iterator[None]:
    """Inside the context, each named block gives out `fn(block_input, block_output, at)` instead of its own output.

    pipe: the pipeline that is called; any with SDXL's U-Net, such as one that draws over a picture, or with FLUX's
    transformer.

    block_input is what the block's update is added to (`streams_of`), so block_output - block_input is the update at
    all blocks; FLUX's text stream stays as it is. The result is brought to the model's dtype and device. When
    `at.guided`, the first half of the batch is unconditional. Contexts nest: the inner function receives the outer
    one's output. The hooks are gone on exit, also after an exception; nothing is kept between calls. What an SAE's
    intervention needs moves to the block's device.

    Raises ValueError for an unknown block, and, from the pipeline call, if `fn` returns anything but a tensor of the
    block output's shape, or if it is wanted `during` none of the call's steps. From there also what `follow_steps`
    raises: RuntimeError if another pipeline runs the U-Net, or if an intervention does not run.
    """
    modules = {block: find_block(pipe, block) for block in interventions}

    def refuse_other_steps(_step: Step) -> None:
        for block, fn in interventions.items():
            if isinstance(fn, _During):
                fn.refuse_other_steps(block, calls.steps)

    with ExitStack() as hooks:
        calls = hooks.enter_context(follow_steps(pipe, refuse_other_steps, hooks=modules))
        for block, module in modules.items():
            hook = _hook(block, interventions[block], calls)
            hooks.callback(module.register_forward_hook(hook, with_kwargs=True).remove)
        yield


def _hook(block: str, fn: Intervention, calls: Calls):
    def replace_output(module, args, kwargs, output):
        block_input, block_output = streams_of(module, args, kwargs, output)
        calls.ran(block)
        new = fn(block_input, block_output, calls.step)
        if not isinstance(new, Tensor) or new.shape != block_output.shape:
            got = list(new.shape) if isinstance(new, Tensor) else new
            raise ValueError(
                f"the intervention on {block!r} returned {got}, wanted a tensor {list(block_output.shape)}"
            )
        return with_stream(module, output, new.to(block_output))

    return replace_output


def draw_changed(
    pipe: DiffusionPipeline,
    prompts: str | Sequence[str],
    settings: CallSettings,
    changes: Mapping[str, Mapping[str, Intervention]],
    indices: Sequence[int] | None = None,
) -> Iterator[tuple[str, Float[Tensor, "prompts 3 height width"]]]:
    """Pictures of the same prompts and noise under each of some changes, one after the other, by the change's name.

    changes: interventions by block, as `intervene` takes them; none of them for the pictures as they are.
    indices: see `draw_pictures`. What the U-Net computes before the first changed block is computed once and
    given out again (`replay`).
    """
    with record(pipe) as recording:
        original = draw_pictures(pipe, prompts, settings, indices)
    for name, interventions in changes.items():
        drawn = original
        if interventions:
            with replay(pipe, recording, interventions), intervene(pipe, interventions):
                drawn = draw_pictures(pipe, prompts, settings, indices)
        yield name, drawn


def skip_block(block_input: Maps, block_output: Maps, at: Step) -> Maps:
    """Ablates the block: it gives out its input, as if its update were zero (paper: Table 1, App. D)."""
    return block_input


def reconstruct(sae: TopKSAE | PCA) -> Intervention:
    """Replaces the block's update by the SAE's, or a PCA's, reconstruction of it (paper: Table 5, App. L).

        new block_output = block_input + DEC(ENC(block_output - block_input))

    At every step and position, in both halves of a guided batch. The sums are taken in the SAE's dtype.
    """
    dtype = (sae.mean if isinstance(sae, PCA) else sae.pre_bias).dtype

    def fn(block_input: Maps, block_output: Maps, at: Step) -> Maps:
        block_input, block_output = block_input.to(dtype), block_output.to(dtype)
        vectors = sae.decode(sae.encode(to_vectors(block_output - block_input)))
        return block_input + to_maps(vectors, *block_input.shape[-2:])

    return fn


def add_features(
    sae: TopKSAE,
    features: int | Int[Tensor, " pictures"],
    amounts: float | Float[Tensor, " pictures"],
    mask: Float[Tensor, "*pictures height width"] | None = None,
    guidance: str = "both",
) -> Intervention:
    """Turns a feature on, everywhere or inside a mask (paper: Fig. 1 and SAEPaint).

        new block_output = block_output + mask * amount * f_rho

    amounts: in units of activation; a strength is in multiples of the feature's mean, so amount = strength *
    `feature.strength_unit`. Features, amounts and masks may differ from picture to picture of a batch. mask: at the
    block's grid, None for everywhere. guidance: of a guided call "both" subtracts the same from the unconditional half
    (paper: App. B), "conditional" leaves that half alone.

    Raises ValueError for a number that no feature of the SAE has, an amount that is not finite and an unknown guidance;
    from the pipeline call, for a mask of another size than the block's grid and for an SAE of another width.
    """
    directions = _directions(sae, features)
    scaled = directions * _per_picture(amounts, "amount", sae)
    _refuse_unknown_guidance(guidance)

    def fn(block_input: Maps, block_output: Maps, at: Step) -> Maps:
        nonlocal scaled
        _refuse_other_width(sae, block_output)
        scaled = scaled.to(block_output.device)  # once
        return _apply(block_output, scaled * _fitting(mask, block_output), at, guidance)

    return fn


def modulate(
    sae: TopKSAE,
    features: int | Int[Tensor, " pictures"],
    betas: float | Float[Tensor, " pictures"],
    guidance: str = "conditional",
) -> Intervention:
    """Scales a feature where it is active (paper: the causal experiment).

        new block_output = block_output + beta * S_rho * f_rho,   S_rho the feature's own activation map

    beta = -1 turns the feature off, 10 gives eleven times the original. S is that of this very forward pass before the
    addition; of a guided call that of the conditional half, as the authors' maps are. Everything else as in
    `add_features`, whose refusals it shares.
    """
    directions, betas = _directions(sae, features), _per_picture(betas, "beta", sae)
    _refuse_unknown_guidance(guidance)

    def fn(block_input: Maps, block_output: Maps, at: Step) -> Maps:
        nonlocal directions, betas
        _refuse_other_width(sae, block_output)
        directions, betas = directions.to(block_output.device), betas.to(block_output.device)  # once
        update = (block_output - block_input).chunk(2)[-1] if at.guided else block_output - block_input
        activations = to_maps(sae.encode(to_vectors(update.to(sae.pre_bias.dtype))), *update.shape[-2:])
        chosen = torch.as_tensor(features, device=update.device).reshape(-1, 1, 1, 1)
        own = activations.gather(1, chosen.expand(len(update), 1, *update.shape[-2:]))
        return _apply(block_output, betas * own * directions, at, guidance)

    return fn


def replace_with_feature(
    sae: TopKSAE, features: int | Int[Tensor, " pictures"], amounts: float | Float[Tensor, " pictures"]
) -> Intervention:
    """The block gives out its input and a feature, nothing else: what the feature means to the rest of the network.

    The paper draws its icons so, with an empty prompt and amount = gamma * k * the feature's mean, gamma 0.5, 1 or 1.5.

        new block_output = block_input + amount * f_rho        at every position

    The update and b_pre are discarded. Of a guided call the feature is added to the conditional half only (authors'
    code). Refusals as in `add_features`.
    """
    scaled = _directions(sae, features) * _per_picture(amounts, "amount", sae)

    def fn(block_input: Maps, block_output: Maps, at: Step) -> Maps:
        nonlocal scaled
        _refuse_other_width(sae, block_output)
        scaled = scaled.to(block_output.device)  # once
        return _apply(block_input, scaled.expand(-1, -1, *block_input.shape[-2:]), at, "conditional")

    return fn


def during(intervention: Intervention, start: int, end: int) -> Intervention:
    """The intervention at steps start, ..., end - 1 only; step 0 is the noisiest.

    Raises ValueError for an empty interval, and from the pipeline call for one beyond its steps, or if the call runs
    none of these steps.
    """
    if not 0 <= start < end:
        raise ValueError(f"steps [{start}, {end}) are no interval: wanted 0 <= start < end")
    return _During(intervention, start, end)


@dataclass(frozen=True)
class _During:
    intervention: Intervention
    start: int
    end: int

    def __call__(self, block_input: Maps, block_output: Maps, at: Step) -> Maps:
        if self.end > at.count:
            raise ValueError(f"steps [{self.start}, {self.end}) were asked for and the call has {at.count}")
        if not self.start <= at.index < self.end:
            return block_output
        return self.intervention(block_input, block_output, at)

    def refuse_other_steps(self, block: str, steps: range) -> None:
        if self.end <= steps.start or self.start >= steps.stop:
            raise ValueError(
                f"the intervention on {block!r} is for steps [{self.start}, {self.end}) and the call runs "
                f"[{steps.start}, {steps.stop}): wanted a call that runs one of them"
            )


def _directions(sae: TopKSAE, features: int | Tensor) -> Float[Tensor, "pictures d_model 1 1"]:
    chosen = torch.as_tensor(features).reshape(-1)
    if len(chosen) == 0 or chosen.min() < 0 or chosen.max() >= sae.n_f:
        raise ValueError(f"feature {chosen.tolist()} of an SAE with {sae.n_f}: wanted 0 to {sae.n_f - 1}")
    return sae.decoder.weight.detach()[:, chosen.to(sae.decoder.weight.device)].T[..., None, None]


def _per_picture(values: float | Tensor, name: str, sae: TopKSAE) -> Float[Tensor, "pictures 1 1 1"]:
    values = torch.as_tensor(values, dtype=torch.float32, device=sae.pre_bias.device).reshape(-1, 1, 1, 1)
    if not values.isfinite().all():
        raise ValueError(f"{name} is {values.flatten().tolist()}: wanted finite numbers")
    return values


def _fitting(mask: Tensor | None, block_output: Maps) -> Tensor:
    height, width = block_output.shape[-2:]
    if mask is None:
        return block_output.new_ones(1, 1, height, width)
    if mask.shape[-2:] != (height, width):
        raise ValueError(f"the mask is {list(mask.shape[-2:])}; wanted this block's grid, {[height, width]}")
    return mask.to(block_output.device).reshape(-1, 1, height, width)


def _apply(block_output: Maps, change: Tensor, at: Step, guidance: str) -> Maps:
    """Adds the change to every picture; in a guided batch to the conditional half (and takes it off the other)."""
    if not at.guided:
        return block_output.to(change) + change
    unconditional, conditional = block_output.to(change).chunk(2)
    return torch.cat([unconditional - change * (guidance == "both"), conditional + change])


def _refuse_unknown_guidance(guidance: str) -> None:
    if guidance not in ("both", "conditional"):
        raise ValueError(f"unknown guidance {guidance!r}; choose 'both' or 'conditional'")


def _refuse_other_width(sae: TopKSAE, block_output: Maps) -> None:
    if block_output.shape[1] != sae.d_model:
        raise ValueError(
            f"the block is {block_output.shape[1]} wide and the SAE {sae.d_model}: an SAE of another model"
        )
