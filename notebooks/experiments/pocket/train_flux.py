"""Train the pocket FLUX: its autoencoder, its T5, a teacher by rectified flow, and the student that is shipped.

The teacher predicts the velocity noise - picture at every noise level. Its flow is solved with guidance from noise to
picture (`make_flux_pairs`). The student, FLUX-schnell's counterpart, starts from the teacher's weights and regresses
the end of the flow in one step, from its start and from re-noised ends at the noise levels of 4-step sampling.
"""

import functools
import hashlib
import random
from collections.abc import Iterator
from pathlib import Path

import torch
from diffusers import DPMSolverMultistepScheduler, FluxTransformer2DModel
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional as F

from notebooks.experiments.pocket.fitting import fit, made_batches, mixed_precision, scene_batches
from notebooks.experiments.pocket.train import fit_autoencoder
from notebooks.experiments.pocket.train_text import Readout, caption_targets
from sae_lib.cache.artefact import cache_root, write_whole
from sae_lib.cache.complete import load_complete
from sae_lib.pocket import weights
from sae_lib.pocket.captions import sample_captions, write_caption
from sae_lib.pocket.models import (
    MAX_TOKENS,
    build_flux_transformer,
    build_flux_vae,
    build_t5,
    build_t5_tokenizer,
    without_projection,
)
from sae_lib.pocket.world import Scene, render

GUIDANCE = 4.0
"""Guidance of the teacher when its flow is solved."""

_SOLVER_STEPS = 6
_SIGMAS, _SHARES = (1.0, 0.75, 0.5, 0.25), (0.55, 0.15, 0.15, 0.15)
_GRID, _TOKENS, _CHANNELS = 8, 64, 32


def train_flux_vae(steps: int, seed: int, device: str, batch: int = 32) -> None:
    """Train the autoencoder. Once a transformer is shipped, only the decoder."""
    fit_autoencoder("flux_vae", build_flux_vae, weights.is_shipped("flux_transformer"), steps, seed, device, batch)


def train_t5(steps: int, seed: int, device: str, batch: int = 256) -> None:
    """Train the T5 encoder, so that a caption's tokens tell what it states."""
    t5, tokenizer = weights.load_or("flux_text_encoder_2", build_t5).to(device), build_t5_tokenizer()
    width = t5.config.d_model
    readout = Readout(width, width).to(device)
    scenes, rng = scene_batches(batch, seed), random.Random(seed)

    def loss_of(step: int) -> Tensor:
        captions = [write_caption(scene, rng) for scene in next(scenes)]
        tokens = t5(t5_ids(tokenizer, [caption.text for caption in captions]).to(device)).last_hidden_state
        targets = caption_targets(captions).to(device)
        from_tokens, _ = readout(tokens, tokens[:, 0])
        if step % 100 == 0:
            right = [(logits.argmax(1) == targets[:, at]).float().mean() for at, logits in enumerate(from_tokens)]
            print(f"read correctly: {torch.stack(right).mean():.4f}", flush=True)
        return torch.stack([F.cross_entropy(x, targets[:, at]) for at, x in enumerate(from_tokens)]).mean()

    save = lambda modules: weights.save("flux_text_encoder_2", modules["t5"])
    fit({"t5": t5}, loss_of, steps, lr=1e-3, save=save, extra=readout.parameters())


def t5_ids(tokenizer, texts: list[str]) -> Tensor:
    """Captions as token numbers `[texts, 40]`, padded; T5 attends to the padding, as in FluxPipeline."""
    return tokenizer(texts, padding="max_length", max_length=MAX_TOKENS, truncation=True, return_tensors="pt").input_ids


class _Conditioning:
    """Turns captions into the transformer's inputs: T5's tokens, and CLIP's pooled embedding of the same or of ""."""

    def __init__(self, device: str) -> None:
        self.tokenizers = weights.load("tokenizer"), build_t5_tokenizer()
        self.clip = without_projection(weights.load("text_encoder_2")).to(device).requires_grad_(False)
        self.t5 = weights.load("flux_text_encoder_2").to(device).requires_grad_(False)
        self.device = device

    def ids(self, texts: list[str], to_clip: list[str]) -> tuple[Tensor, Tensor]:
        clip = self.tokenizers[0](to_clip, padding="max_length", truncation=True, return_tensors="pt").input_ids
        return t5_ids(self.tokenizers[1], texts), clip

    def sometimes(self, clip: Tensor, generator: torch.Generator) -> Tensor:
        """CLIP's ids of half of the prompts, and those of the empty prompt in place of the others."""
        told = torch.rand(len(clip), 1, generator=generator) < 0.5
        return torch.where(told, clip, self.ids([""], [""])[1].to(clip.dtype))

    @torch.no_grad()
    def of_ids(self, t5: Tensor, clip: Tensor) -> tuple[Tensor, Tensor]:
        t5, clip = (ids.to(self.device, torch.long) for ids in (t5, clip))
        return self.t5(t5).last_hidden_state, self.clip(clip).pooler_output

    def __call__(self, texts: list[str], to_clip: list[str]) -> tuple[Tensor, Tensor]:
        return self.of_ids(*self.ids(texts, to_clip))


def predict_velocity(
    transformer: FluxTransformer2DModel, x: Tensor, sigmas: Tensor, tokens: Tensor, pooled: Tensor
) -> Tensor:
    """The transformer's velocity for packed latents `[batch, 64, 32]` at noise levels between 0 and 1."""
    at = torch.arange(_GRID, device=x.device)
    places = torch.stack([torch.zeros(_TOKENS, device=x.device), at.repeat_interleave(_GRID), at.repeat(_GRID)], 1)
    return transformer(
        hidden_states=x,
        encoder_hidden_states=tokens,
        pooled_projections=pooled,
        timestep=sigmas,
        img_ids=places,
        txt_ids=torch.zeros(tokens.shape[1], 3, device=x.device),
        return_dict=False,
    )[0]


def pack(latents: Tensor) -> Tensor:
    """Latents `[batch, 8, 16, 16]` as tokens `[batch, 64, 32]`, as FLUX packs them: channel, then row, then column."""
    return F.pixel_unshuffle(latents, 2).flatten(2).mT.contiguous()


def _hash_of(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()[:12]


# --- the teacher ------------------------------------------------------------------------------------------------------


def _teacher_folder() -> Path:
    return cache_root() / "pocket" / "flux_teacher"


def _load_teacher() -> FluxTransformer2DModel:
    return load_complete(FluxTransformer2DModel, _teacher_folder())


def _fresh_transformer() -> FluxTransformer2DModel:
    """As transformers for diffusion start: every block adds nothing, the output is 0 (arXiv:2212.09748)."""
    transformer = build_flux_transformer()
    zeroed = [layer for name, layer in transformer.named_modules() if name.startswith("norm") or ".norm" in name]
    layers = [layer for layer in zeroed if isinstance(layer, nn.Linear)]
    for layer in [*layers, transformer.proj_out]:
        nn.init.zeros_(layer.weight)
        nn.init.zeros_(layer.bias)
    return transformer


def _scenes_folder() -> Path:
    """The folder of the scenes' latents, in the cache; its name has the hash of the autoencoder that encoded them."""
    return cache_root() / "pocket" / f"flux-scenes-{_hash_of(weights.weights_file('flux_vae'))}"


@torch.no_grad()
def make_flux_scenes(count: int, seed: int, device: str, batch: int = 1024) -> None:
    """Encode the renders of `count` scenes with their captions, in files of `batch` scenes; finished files are kept.

    Rendering and encoding a scene takes a quarter of a training step on a CPU, and each is seen more than once.
    """
    folder, ids_of = _scenes_folder(), _Conditioning(device).ids
    folder.mkdir(parents=True, exist_ok=True)

    def make(scenes: list[Scene], rng: random.Random) -> tuple[Tensor, ...]:
        texts = [write_caption(scene, rng).text if rng.random() > 0.1 else "" for scene in scenes]
        return render(scenes), *ids_of(texts, texts)

    vae = weights.load("flux_vae").to(device)
    for at, (images, t5, clip) in zip(
        range(-(-count // batch)), made_batches(make, batch, seed + 2_000, device), strict=False
    ):
        latents = torch.cat([vae.encode(2 * part.to(device) - 1).latent_dist.mean for part in images.split(64)])
        packed = pack((latents - vae.config.shift_factor) * vae.config.scaling_factor)
        scenes = {"latents": packed.half().cpu(), "t5": t5.short(), "clip": clip.short()}
        write_whole(folder / f"scenes-{seed:03d}-{at:05d}.safetensors", functools.partial(save_file, scenes))
        print(f"scenes {(at + 1) * batch}/{count}", flush=True)


def _stored(folder: Path, stage: str) -> dict[str, Tensor]:
    """All files of a folder in one. Raises FileNotFoundError if there are none."""
    parts = [load_file(file) for file in sorted(folder.glob("*.safetensors"))]
    if not parts:
        raise FileNotFoundError(f"{folder} has nothing to learn from: run the stage {stage} first")
    return {name: torch.cat([part[name] for part in parts]) for name in parts[0]}


def _shuffled(count: int, batch: int, generator: torch.Generator) -> Iterator[Tensor]:
    """Endless batches of row numbers; each round over all rows has an order of its own."""
    while True:
        yield from (rows for rows in torch.randperm(count, generator=generator).split(batch) if len(rows) == batch)


def train_teacher(steps: int, seed: int, device: str, batch: int = 32, lr: float = 4e-3) -> None:
    """Train the teacher to predict noise - latents, at noise levels that each batch covers evenly.

    CLIP gets the empty prompt half of the time, as the authors call FLUX. The teacher stays in the cache: only the
    student is shipped.
    """
    transformer = (_load_teacher() if _teacher_folder().is_dir() else _fresh_transformer()).to(device)
    scenes, condition = _stored(_scenes_folder(), "flux_scenes"), _Conditioning(device)
    generator = torch.Generator().manual_seed(seed)

    def batches() -> Iterator[tuple[Tensor, ...]]:
        for rows in _shuffled(len(scenes["latents"]), batch, generator):
            text = condition.of_ids(scenes["t5"][rows], condition.sometimes(scenes["clip"][rows], generator))
            even = (torch.arange(batch) + torch.rand(batch, generator=generator)) / batch
            sigmas = 2 * even / (1 + even)  # what a picture shows is decided at high noise
            yield scenes["latents"][rows].float().to(device), *text, sigmas.to(device)

    def loss_of(latents: Tensor, tokens: Tensor, pooled: Tensor, sigmas: Tensor) -> Tensor:
        noise, at = torch.randn_like(latents), sigmas.view(-1, 1, 1)
        with mixed_precision(device):
            velocity = predict_velocity(transformer, torch.lerp(latents, noise, at), sigmas, tokens, pooled)
        return (velocity.float() - (noise - latents)).pow(2).mean()

    def save(modules: dict[str, nn.Module]) -> None:
        write_whole(_teacher_folder(), modules["transformer"].save_pretrained)

    fit({"transformer": transformer}, loss_of, steps, lr=lr, save=save, batches=batches(), decay=0.9)


def _pairs_folder() -> Path:
    """The folder of the pairs, in the cache; its name has the hash of the teacher that solved them."""
    return cache_root() / "pocket" / f"flux-pairs-{_hash_of(next(_teacher_folder().glob('*.safetensors')))}"


@torch.no_grad()
def make_flux_pairs(count: int, seed: int, device: str, batch: int = 64) -> None:
    """Solve the teacher's flow for `count` captions and noises, in files of `batch` pairs; finished files are kept."""
    folder = _pairs_folder()
    folder.mkdir(parents=True, exist_ok=True)
    transformer, condition = _load_teacher().to(device), _Conditioning(device)
    for at in range(-(-count // batch)):
        number = at + 1000 * seed
        path = folder / f"pairs-{number:05d}.safetensors"
        if path.exists():
            continue
        texts = [caption.text for caption in sample_captions(batch, seed=30_000_000 + number)]
        noise = torch.randn((batch, _TOKENS, _CHANNELS), generator=torch.Generator().manual_seed(number)).to(device)
        ids = condition.ids(texts, texts)
        end = solve(transformer, noise, *condition.of_ids(*ids), *condition([""] * batch, [""] * batch))
        pairs = {"noise": noise.half().cpu(), "end": end.half().cpu(), "t5": ids[0], "clip": ids[1]}
        write_whole(path, functools.partial(save_file, pairs))
        print(f"pairs {(at + 1) * batch}/{count}", flush=True)


def solve(transformer: FluxTransformer2DModel, noise: Tensor, tokens: Tensor, pooled: Tensor, *free: Tensor) -> Tensor:
    """End points `[batch, 64, 32]` of the guided flow from noise (DPM-Solver++, order 2, 6 steps).

    free: tokens and pooled embedding of the empty prompt.
    """
    scheduler = DPMSolverMultistepScheduler(
        use_flow_sigmas=True, prediction_type="flow_prediction", flow_shift=2.0, algorithm_type="dpmsolver++"
    )
    scheduler.set_timesteps(_SOLVER_STEPS)
    x, both = noise, [torch.cat(parts) for parts in zip(free, (tokens, pooled), strict=True)]
    for timestep, sigma in zip(scheduler.timesteps, scheduler.sigmas, strict=False):
        sigmas = sigma.expand(2 * len(x)).to(x)
        unguided, guided = predict_velocity(transformer, torch.cat([x, x]), sigmas, *both).chunk(2)
        x = scheduler.step(unguided + GUIDANCE * (guided - unguided), timestep, x).prev_sample
    return x


# --- the student ------------------------------------------------------------------------------------------------------


def _pair_batches(batch: int, seed: int, device: str, condition: _Conditioning) -> Iterator[tuple[Tensor, ...]]:
    """Endless shuffled batches of stored pairs with one noise level per pair."""
    pairs, generator = _stored(_pairs_folder(), "flux_pairs"), torch.Generator().manual_seed(seed)
    choices, shares = torch.tensor(_SIGMAS), torch.tensor(_SHARES)
    for rows in _shuffled(len(pairs["noise"]), batch, generator):
        sigmas = choices[torch.multinomial(shares, batch, replacement=True, generator=generator)]
        text = condition.of_ids(pairs["t5"][rows], condition.sometimes(pairs["clip"][rows], generator))
        yield *(pairs[name][rows].float().to(device) for name in ("noise", "end")), *text, sigmas.to(device)


def train_flux(steps: int, seed: int, device: str, batch: int = 32, lr: float = 2e-3) -> None:
    """Train the student to regress the flow's end in one step: from its noise, and from re-noised ends."""
    shipped = weights.is_shipped("flux_transformer")
    transformer = (weights.load("flux_transformer") if shipped else _load_teacher()).to(device)

    def loss_of(start: Tensor, wanted: Tensor, tokens: Tensor, pooled: Tensor, sigmas: Tensor) -> Tensor:
        at = sigmas.view(-1, 1, 1)
        x = torch.where(at == 1, start, torch.lerp(wanted, torch.randn_like(wanted), at))
        with mixed_precision(device):
            velocity = predict_velocity(transformer, x, sigmas, tokens, pooled).float()
        error = (x - at * velocity - wanted).pow(2).mean((1, 2))
        return ((error + 0.03**2).sqrt() - 0.03).mean()  # pseudo-Huber: few hard pairs do not rule the gradient

    fit(
        {"transformer": transformer},
        loss_of,
        steps,
        lr=lr,
        save=lambda modules: weights.save("flux_transformer", modules["transformer"]),
        batches=_pair_batches(batch, seed, device, _Conditioning(device)),
        decay=0.9,
    )
