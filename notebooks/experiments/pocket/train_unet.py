"""Train the pocket U-Nets: the base model on scenes, and the turbo model by distillation from base.

Distillation: the base model's probability-flow ODE is solved with guidance from noise to picture (`make_pairs`); the
turbo U-Net starts from base's weights and regresses, in one step, the end point from the start (t = 999) and from
re-noised end points (t = 749, 499, 249), which are the timesteps of 1- to 4-step sampling.
"""

import functools
import hashlib
import itertools
import random
from collections.abc import Iterator
from pathlib import Path

import torch
from diffusers import DPMSolverMultistepScheduler
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from notebooks.experiments.pocket.fitting import fit, made_batches, mixed_precision
from notebooks.experiments.pocket.train_text import encode_ids, token_ids
from sae_lib.cache.artefact import cache_root, write_whole
from sae_lib.pocket import weights
from sae_lib.pocket.captions import sample_captions, write_caption
from sae_lib.pocket.models import build_scheduler, build_unet
from sae_lib.pocket.world import IMAGE_SIZE, Scene, render

GUIDANCE = 4.0
"""Guidance of the teacher, and of the base model's pictures."""

_SOLVER_STEPS = 10
_TURBO_TIMESTEPS = (999, 749, 499, 249)
_TURBO_SHARES = (0.55, 0.15, 0.15, 0.15)


class _Conditioning:
    """Turns captions into the U-Net's inputs, with SDXL's size and crop numbers."""

    def __init__(self, device: str) -> None:
        self.tokenizer = weights.load("tokenizer")
        self.encoders = [weights.load(name).to(device).requires_grad_(False) for name in weights.TEXT_ENCODERS]
        self.device = device

    def __call__(self, texts: list[str]) -> tuple[Tensor, Tensor]:
        return self.of_ids(token_ids(self.tokenizer, texts).to(self.device))

    def of_ids(self, ids: Tensor) -> tuple[Tensor, Tensor]:
        return encode_ids(self.encoders, ids)


def predict_noise(unet: nn.Module, x: Tensor, timesteps: Tensor, tokens: Tensor, pooled: Tensor) -> Tensor:
    """The U-Net's prediction for variance-preserving inputs `[batch, 4, 32, 32]`."""
    size = torch.full((len(x), 6), float(IMAGE_SIZE), device=x.device)
    size[:, 2:4] = 0  # no crop
    return unet(x, timesteps, tokens, added_cond_kwargs={"text_embeds": pooled, "time_ids": size}).sample


def _alphas(device: str) -> Tensor:
    return build_scheduler("base").alphas_cumprod.to(device)


def train_base(steps: int, seed: int, device: str, batch: int = 16, lr: float = 1e-3) -> None:
    """Train the base model to predict the noise in encoded scenes.

    A picture's error is divided by the root of its signal-to-noise ratio. Captions are replaced by zeros (10 %) or by
    the empty prompt (5 %).
    """
    unet = weights.load_or("unet_base", build_unet)
    tokenizer = weights.load("tokenizer")

    def make(scenes: list[Scene], rng: random.Random) -> tuple[Tensor, ...]:
        draws = [rng.random() for _ in scenes]
        texts = [
            "" if draw > 0.95 else write_caption(scene, rng).text for scene, draw in zip(scenes, draws, strict=True)
        ]
        keep = torch.tensor([float(draw > 0.10) for draw in draws])
        timesteps = torch.tensor([1000 * (at + rng.random()) / batch for at in range(batch)])
        return render(scenes), token_ids(tokenizer, texts), keep, timesteps.long()  # every batch sees all noise levels

    made = made_batches(make, batch, seed + 1_000, device)
    next_made = next(made)  # the processes that make batches start before a GPU is taken
    unet, vae = unet.to(device, memory_format=torch.channels_last), weights.load("vae").to(device).requires_grad_(False)
    condition, alphas = _Conditioning(device), _alphas(device)

    @torch.no_grad()
    def encoded() -> Iterator[tuple[Tensor, ...]]:
        for images, ids, keep, timesteps in itertools.chain([next_made], made):
            images, keep = images.to(device, non_blocking=True), keep.to(device, non_blocking=True)
            latents = vae.encode(2 * images - 1).latent_dist.mean * vae.config.scaling_factor
            tokens, pooled = condition.of_ids(ids.to(device, non_blocking=True))
            yield latents, tokens * keep.view(-1, 1, 1), pooled * keep.view(-1, 1), timesteps.to(device)

    def loss_of(latents: Tensor, tokens: Tensor, pooled: Tensor, timesteps: Tensor) -> Tensor:
        alpha = alphas[timesteps].view(-1, 1, 1, 1)
        noise = torch.randn_like(latents)
        with mixed_precision(device):
            predicted = predict_noise(
                unet, alpha.sqrt() * latents + (1 - alpha).sqrt() * noise, timesteps, tokens, pooled
            )
        # What a picture shows is decided at high noise, where plain noise prediction hardly weighs the picture:
        # "Debias the Training of Diffusion Models" (arXiv:2310.08442).
        weight = ((1 - alpha) / alpha).sqrt().flatten()
        return ((predicted.float() - noise).pow(2).mean((1, 2, 3)) * weight).mean()

    fit(
        {"unet": unet},
        loss_of,
        steps,
        lr=lr,
        save=lambda modules: weights.save("unet_base", modules["unet"]),
        batches=encoded(),
    )


def _pairs_folder() -> Path:
    """The folder of the pairs, in the cache; its name has the hash of the base model that solved them."""
    teacher = hashlib.sha256(weights.weights_file("unet_base").read_bytes()).hexdigest()
    return cache_root() / "pocket" / f"pairs-{teacher[:12]}"


@torch.no_grad()
def make_pairs(count: int, seed: int, device: str, batch: int = 64) -> None:
    """Solve the base model's ODE for `count` captions and noises, in files of `batch` pairs;
    finished files are kept."""
    folder = _pairs_folder()
    folder.mkdir(parents=True, exist_ok=True)
    unet, condition = weights.load("unet_base").to(device), _Conditioning(device)
    for at in range(-(-count // batch)):
        path = folder / f"pairs-{at + 1000 * seed:05d}.safetensors"
        if path.exists():
            continue
        texts = [caption.text for caption in sample_captions(batch, seed=20_000_000 + at + 1000 * seed)]
        generator = torch.Generator().manual_seed(at + 1000 * seed)
        noise = torch.randn((batch, 4, 32, 32), generator=generator).to(device)
        tokens, pooled = condition(texts)
        end = solve(unet, noise, tokens, pooled)
        pairs = {"noise": noise, "end": end, "tokens": tokens, "pooled": pooled}
        write_whole(path, functools.partial(save_file, {name: x.half().cpu() for name, x in pairs.items()}))
        print(f"pairs {(at + 1) * batch}/{count}", flush=True)


def solve(unet: nn.Module, noise: Tensor, tokens: Tensor, pooled: Tensor) -> Tensor:
    """End points `[batch, 4, 32, 32]` of the guided probability-flow ODE from unit noise (DPM-Solver++, order 2)."""
    scheduler = DPMSolverMultistepScheduler.from_config(
        build_scheduler("base").config, timestep_spacing="trailing", algorithm_type="dpmsolver++"
    )
    scheduler.set_timesteps(_SOLVER_STEPS)
    x = noise
    tokens, pooled = torch.cat([torch.zeros_like(tokens), tokens]), torch.cat([torch.zeros_like(pooled), pooled])
    for timestep in scheduler.timesteps:
        free, guided = predict_noise(
            unet, torch.cat([x, x]), timestep.expand(2 * len(x)).to(x.device), tokens, pooled
        ).chunk(2)
        x = scheduler.step(free + GUIDANCE * (guided - free), timestep, x).prev_sample
    return x


def _pair_batches(batch: int, seed: int, device: str) -> Iterator[tuple[Tensor, ...]]:
    """Endless shuffled batches of stored pairs with one timestep per pair. Raises
    FileNotFoundError if there are none."""
    files = sorted(_pairs_folder().glob("pairs-*.safetensors"))
    if not files:
        raise FileNotFoundError("no pairs of the present base model to distil from: run the stage pairs first")
    parts = [load_file(file, device) for file in files]
    pairs = [torch.cat([part[name] for part in parts]) for name in ("noise", "end", "tokens", "pooled")]
    generator = torch.Generator().manual_seed(seed)
    choices, shares = torch.tensor(_TURBO_TIMESTEPS), torch.tensor(_TURBO_SHARES)
    while True:
        for rows in torch.randperm(len(pairs[0]), generator=generator).split(batch):
            if len(rows) == batch:
                timesteps = choices[torch.multinomial(shares, batch, replacement=True, generator=generator)]
                rows = rows.to(device)
                yield *(value[rows].float() for value in pairs), timesteps.to(device)


def train_turbo(steps: int, seed: int, device: str, batch: int = 16, lr: float = 5e-4) -> None:
    """Train Turbo to regress the ODE's end point in one step: from its noise at t = 999, and from the re-noised end
    point at t = 749, 499, 249."""
    unet = weights.load("unet_turbo" if weights.is_shipped("unet_turbo") else "unet_base")
    unet, alphas = unet.to(device, memory_format=torch.channels_last), _alphas(device)

    def loss_of(start: Tensor, wanted: Tensor, tokens: Tensor, pooled: Tensor, timesteps: Tensor) -> Tensor:
        alpha = alphas[timesteps].view(-1, 1, 1, 1)
        first = (timesteps == _TURBO_TIMESTEPS[0]).view(-1, 1, 1, 1)
        renoised = alpha.sqrt() * wanted + (1 - alpha).sqrt() * torch.randn_like(wanted)
        x = torch.where(first, (1 - alpha).sqrt() * start, renoised)
        with mixed_precision(device):
            noise = predict_noise(unet, x, timesteps, tokens, pooled).float()
        end = (x - (1 - alpha).sqrt() * noise) / alpha.sqrt()
        error = (end - wanted).pow(2).mean((1, 2, 3))
        return ((error + 0.03**2).sqrt() - 0.03).mean()  # pseudo-Huber: few hard pairs do not rule the gradient

    fit(
        {"unet": unet},
        loss_of,
        steps,
        lr=lr,
        save=lambda modules: weights.save("unet_turbo", modules["unet"]),
        batches=_pair_batches(batch, seed, device),
    )
