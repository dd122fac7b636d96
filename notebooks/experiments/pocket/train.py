"""Train the pocket models: `python -m notebooks.experiments.pocket.train [stage ...]`, stages vae, text, judge, doubt,
clip, base, pairs, turbo, blocks, sizes, saes, and for FLUX flux_vae, flux_text, flux_scenes, flux_teacher, flux_pairs,
flux, flux_blocks, flux_saes.

Every stage starts from the shipped weights where there are any, with a fresh optimiser, so that quality accumulates
over runs; each writes an exponential moving average of its weights, atomically, every few minutes.
"""

import argparse
import inspect
import itertools
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from notebooks.experiments.pocket.broken import break_scenes, whole
from notebooks.experiments.pocket.fitting import fit, scene_batches
from notebooks.experiments.pocket.train_text import train_text
from sae_lib.pocket import weights
from sae_lib.pocket.judge import Judge, calibrate, doubt_loss, judge_loss
from sae_lib.pocket.models import build_vae
from sae_lib.pocket.world import attribute_maps, render, sample_scenes

# --- vae --------------------------------------------------------------------------------------------------------------


def train_vae(steps: int, seed: int, device: str, batch: int = 32) -> None:
    """Train pocket SDXL's autoencoder (`fit_autoencoder`)."""
    fit_autoencoder("vae", build_vae, weights.is_shipped("unet_base"), steps, seed, device, batch)


def fit_autoencoder(
    part: str, build: Callable[[], nn.Module], fixed: bool, steps: int, seed: int, device: str, batch: int
) -> None:
    """Train an autoencoder on rendered scenes, then measure the mean and the scale of its latents.

    The loss is the mean absolute error of pixels and of 4x4 averages, with a small KL term. fixed: only the decoder is
    trained, since a model is shipped that knows these latents.
    """
    vae = weights.load_or(part, build).to(device)
    vae.encoder.requires_grad_(not fixed)
    if vae.quant_conv is not None:
        vae.quant_conv.requires_grad_(not fixed)
    scenes = scene_batches(batch, seed)

    def loss_of(step: int) -> Tensor:
        images = 2 * render(next(scenes), device) - 1
        posterior = vae.encode(images).latent_dist
        decoded = vae.decode(posterior.sample()).sample
        error = decoded - images
        tint = F.avg_pool2d(error, 4)  # a wrong colour over an area costs more than noise of the same size
        return error.abs().mean() + 2 * tint.abs().mean() + 1e-3 * posterior.kl().mean() / 4096

    def save(modules: dict[str, nn.Module]) -> None:
        averaged = modules["vae"]
        if not fixed:
            with torch.no_grad():
                latents = averaged.encode(2 * render(sample_scenes(256, seed=seed), device) - 1).latent_dist.mean
            averaged.register_to_config(scaling_factor=round(1 / latents.std().item(), 4))
            if averaged.config.shift_factor is not None:
                averaged.register_to_config(shift_factor=round(latents.mean().item(), 4))
        weights.save(part, averaged)

    fit({"vae": vae}, loss_of, steps, lr=2e-3, save=save)


# --- judge ------------------------------------------------------------------------------------------------------------


def train_judge(steps: int, seed: int, device: str, batch: int = 32) -> None:
    """Train what the judge reads, on rendered scenes; half of them are slightly blurred, noisy or shifted in colour."""
    judge = weights.load_or("judge", Judge).to(device)
    judge.doubts.requires_grad_(False)
    vae = weights.load("vae").to(device).eval()
    scenes = scene_batches(batch, seed)
    generator = torch.Generator(device).manual_seed(seed)

    def loss_of(step: int) -> Tensor:
        batch_scenes = next(scenes)
        images = render(batch_scenes, device)
        half = len(images) // 2
        images[:half] = _see_roughly(vae, images[:half], generator)
        return judge_loss(judge(images), attribute_maps(batch_scenes, device))

    fit({"judge": judge}, loss_of, steps, lr=2e-3, save=lambda modules: weights.save("judge", modules["judge"]))


def train_doubt(steps: int, seed: int, device: str, batch: int = 24) -> None:
    """Train when the judge abstains; what it reads stays as it is.

    Half of the pictures are broken and half are whole. Half of either are seen through the autoencoder, so that the
    judge does not abstain because of ordinary blur.
    """
    judge = weights.load_or("judge", Judge).to(device)
    judge.reads.requires_grad_(False)
    vae = weights.load("vae").eval()
    scenes, generator = scene_batches(batch, seed), torch.Generator().manual_seed(seed)

    def loss_of(step: int) -> Tensor:
        some, half = next(scenes), batch // 2
        parts = break_scenes(some[:half], 1_000_003 * seed + step, vae), whole(some[half:])
        pictures, none = map(torch.cat, zip(*parts, strict=True))
        pictures[::2] = _see_roughly(vae, pictures[::2], generator)
        return doubt_loss(judge.doubts(pictures.to(device)), none.to(device))

    def save(modules: dict[str, nn.Module]) -> None:
        seen = _see_roughly(vae, whole(sample_scenes(400, seed)).pictures, torch.Generator().manual_seed(seed))
        calibrate(modules["judge"], seen)
        weights.save("judge", modules["judge"])

    fit({"judge": judge}, loss_of, steps, lr=2e-3, save=save)


@torch.no_grad()
def _see_roughly(vae, images: Tensor, generator: torch.Generator) -> Tensor:
    """Pictures seen through the autoencoder with noise in the latents, as the models' pictures are."""
    latents = vae.encode(2 * images - 1).latent_dist.mean
    latents += 0.15 * latents.std() * torch.randn(latents.shape, generator=generator, device=images.device)
    return ((vae.decode(latents).sample + 1) / 2).clamp(0, 1)


def main() -> None:
    from notebooks.experiments.pocket import choose, sizes, train_clip, train_flux, train_saes, train_unet

    stages = {
        "vae": (train_vae, 2_000),
        "text": (train_text, 3_000),
        "judge": (train_judge, 2_500),
        "doubt": (train_doubt, 1_500),
        "clip": (train_clip.train_clip, 1_500),
        "base": (train_unet.train_base, 2_000),
        "pairs": (train_unet.make_pairs, 6_000),
        "turbo": (train_unet.train_turbo, 1_500),
        "blocks": (choose.choose_blocks, 200),
        "sizes": (sizes.choose_sizes, 4_096),
        "saes": (train_saes.train_shipped_saes, 16_384),
        "flux_vae": (train_flux.train_flux_vae, 2_000),
        "flux_text": (train_flux.train_t5, 1_000),
        "flux_scenes": (train_flux.make_flux_scenes, 65_536),
        "flux_teacher": (train_flux.train_teacher, 4_000),
        "flux_pairs": (train_flux.make_flux_pairs, 24_000),
        "flux": (train_flux.train_flux, 4_000),
        "flux_blocks": (choose.choose_flux_blocks, 100),
        "flux_saes": (train_saes.train_flux_saes, 16_384),
    }
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("stages", nargs="*", default=list(stages), help=f"any of {', '.join(stages)}; all by default")
    parser.add_argument(
        "--steps",
        type=int,
        help="optimiser steps (pairs, blocks: how many pairs; sizes, saes: how many prompts); "
        "by default some 30 minutes on two cores",
    )
    parser.add_argument("--batch", type=int, help="scenes per step; by default what suits two cores")
    parser.add_argument(
        "--lr", type=float, help="learning rate of base and turbo; by default what suits their small batches"
    )
    parser.add_argument(
        "--seed", type=int, default=0, help="another seed draws other scenes: change it from run to run"
    )
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    arguments = parser.parse_args()
    for name in arguments.stages:
        if name not in stages:
            parser.error(f"unknown stage {name!r}; choose from {', '.join(stages)}")
    if arguments.device.startswith("cuda"):
        torch.set_float32_matmul_precision("high")
        torch.backends.cudnn.benchmark = True
        # FLUX's heads of 32 numbers in bfloat16: with all of PyTorch's attention kernels to choose from, the first step
        # ends in an illegal memory access (torch 2.11, H200); the memory-efficient kernel alone trains
        torch.backends.cuda.enable_flash_sdp(False)
        torch.backends.cuda.enable_cudnn_sdp(False)
    settings = {name: value for name in ("batch", "lr") if (value := getattr(arguments, name))}
    for name, option in itertools.product(arguments.stages, settings):
        if option not in inspect.signature(stages[name][0]).parameters:
            parser.error(f"stage {name!r} takes no --{option}: name the stages that do")
    for name in arguments.stages:
        train, steps = stages[name]
        torch.manual_seed(arguments.seed)
        print(f"stage {name}", flush=True)
        train(arguments.steps or steps, arguments.seed, arguments.device, **settings)


if __name__ == "__main__":
    main()
