"""Train the pocket models: `python -m notebooks.experiments.pocket.train [stage ...]`, stages vae, text, judge, doubt,
clip, base, pairs, turbo, blocks, sizes, saes.

Every stage starts from the shipped weights where there are any, with a fresh optimiser, so that quality accumulates
over runs; each writes an exponential moving average of its weights, atomically, every few minutes.
"""

import argparse
import inspect
import itertools
import random

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from notebooks.experiments.pocket.broken import break_scenes, whole
from notebooks.experiments.pocket.fitting import fit, scene_batches
from sae_lib.pocket import weights
from sae_lib.pocket.captions import Caption, write_caption
from sae_lib.pocket.judge import Judge, calibrate, doubt_loss, judge_loss
from sae_lib.pocket.models import build_text_encoders, build_tokenizer, build_vae
from sae_lib.pocket.world import OBJECT_ATTRIBUTES, SCENE_ATTRIBUTES, attribute_maps, render, sample_scenes

# --- vae
# ---------------------------------------------------------------------------------------------------------------


def train_vae(steps: int, seed: int, device: str, batch: int = 32) -> None:
    """Train the autoencoder on rendered scenes, then measure the scale of its latents.

    The loss is the mean absolute error of pixels and of 4x4 averages, with a small KL term. Once a U-Net is shipped,
    only the decoder is trained: the latents must stay those that the U-Net knows.
    """
    vae = weights.load_or("vae", build_vae).to(device)
    fixed = weights.is_shipped("unet_base")
    vae.encoder.requires_grad_(not fixed)
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
        weights.save("vae", averaged)

    fit({"vae": vae}, loss_of, steps, lr=2e-3, save=save)


# --- text
# --------------------------------------------------------------------------------------------------------------

_SLOT_CLASSES = {name: len(values) + 1 for name, values in OBJECT_ATTRIBUTES.items()}
_GLOBAL_CLASSES = {"objects": 2, "relation": 3} | {name: len(values) + 1 for name, values in SCENE_ATTRIBUTES.items()}


def caption_targets(captions: list[Caption]) -> Tensor:
    """What each caption states, int64 `[captions, 2 * 7 + 4]`.

    One class per attribute of each named object, then those of the scene; the last class is "open".
    """
    rows = []
    for caption in captions:
        row = []
        for slot in range(2):
            words = caption.objects[slot] if slot < len(caption.objects) else {}
            row += [
                values.index(words[name]) if name in words else len(values)
                for name, values in OBJECT_ATTRIBUTES.items()
            ]
        row += [len(caption.objects) - 1, ("horizontal", "vertical", None).index(caption.relation)]
        row += [
            values.index(caption.scene[name]) if name in caption.scene else len(values)
            for name, values in SCENE_ATTRIBUTES.items()
        ]
        rows.append(row)
    return torch.tensor(rows)


class Readout(nn.Module):
    """Reads the statements of a caption from its tokens (by attention, as a U-Net would) and from its pooled embedding;
    thrown away after training."""

    def __init__(self, tokens: int = 192, pooled: int = 128) -> None:
        super().__init__()
        self.sizes = [*_SLOT_CLASSES.values()] * 2 + [*_GLOBAL_CLASSES.values()]
        self.queries = nn.Parameter(0.02 * torch.randn(3, 128))
        self.attention = nn.MultiheadAttention(128, 4, kdim=tokens, vdim=tokens, batch_first=True)
        self.from_tokens = nn.Linear(3 * 128, sum(self.sizes))
        self.from_pooled = nn.Linear(pooled, sum(self.sizes))

    def forward(self, tokens: Tensor, pooled: Tensor) -> list[tuple[Tensor, ...]]:
        read, _ = self.attention(self.queries.expand(len(tokens), -1, -1), tokens, tokens, need_weights=False)
        return [self.from_tokens(read.flatten(1)).split(self.sizes, 1), self.from_pooled(pooled).split(self.sizes, 1)]


def train_text(steps: int, seed: int, device: str, batch: int = 256) -> None:
    """Train both CLIP text encoders, so that a caption's tokens and its pooled embedding tell what it states."""
    first, second = (
        weights.load_or(name, lambda at=at: build_text_encoders()[at]).to(device)
        for at, name in enumerate(weights.TEXT_ENCODERS)
    )
    tokenizer = weights.load("tokenizer") if weights.is_shipped("tokenizer") else build_tokenizer()
    readout = Readout().to(device)
    scenes, rng = scene_batches(batch, seed), random.Random(seed)

    def loss_of(step: int) -> Tensor:
        captions = [write_caption(scene, rng) for scene in next(scenes)]
        ids = token_ids(tokenizer, [caption.text for caption in captions]).to(device)
        tokens, pooled = encode_ids((first, second), ids)
        targets = caption_targets(captions).to(device)
        losses = [
            F.cross_entropy(logits, targets[:, at])
            for heads in readout(tokens, pooled)
            for at, logits in enumerate(heads)
        ]
        if step % 100 == 0:
            right = torch.stack(
                [
                    (logits.argmax(1) == targets[:, at]).float().mean()
                    for heads in readout(tokens, pooled)
                    for at, logits in enumerate(heads)
                ]
            )
            print(f"read correctly: tokens {right[:18].mean():.4f} pooled {right[18:].mean():.4f}", flush=True)
        return torch.stack(losses).mean()

    def save(modules: dict[str, nn.Module]) -> None:
        for name, module in modules.items():
            weights.save(name, module)

    fit(
        dict(zip(weights.TEXT_ENCODERS, (first, second), strict=True)),
        loss_of,
        steps,
        lr=1e-3,
        save=save,
        extra=readout.parameters(),
    )


def token_ids(tokenizer, texts: list[str]) -> Tensor:
    """Captions as token numbers `[texts, 40]`, padded."""
    return tokenizer(texts, padding="max_length", truncation=True, return_tensors="pt").input_ids


def encode_ids(encoders, ids: Tensor) -> tuple[Tensor, Tensor]:
    """What the SDXL pipeline feeds its U-Net: both encoders' penultimate hidden states `[texts, 40, 192]` and the
    pooled embedding `[texts, 128]`."""
    outputs = [encoder(ids, output_hidden_states=True) for encoder in encoders]
    return torch.cat([output.hidden_states[-2] for output in outputs], -1), outputs[1].text_embeds


# --- judge
# -------------------------------------------------------------------------------------------------------------


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
    from notebooks.experiments.pocket import choose, sizes, train_clip, train_saes, train_unet

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
