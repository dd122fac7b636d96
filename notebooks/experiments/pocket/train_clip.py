"""A small CLIP of rendered scenes and their captions, which measures pictures and texts.

No other pocket model is trained with it.
"""

import random
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F
from transformers import CLIPConfig, CLIPModel, CLIPTextConfig, CLIPTokenizer, CLIPVisionConfig

from sae_lib.pocket import weights
from sae_lib.pocket.captions import Caption, attribute_words, write_caption
from sae_lib.pocket.models import MAX_TOKENS, build_tokenizer
from sae_lib.pocket.world import ATTRIBUTES, IMAGE_SIZE, OBJECT_ATTRIBUTES, Scene, has_attribute, render

_VALUES = [(name, value) for name, values in ATTRIBUTES.items() for value in values]
_KINDS = ((0.4, 0.8), (0.7, 0.25), (1.0, None))
"""Kinds of captions: up to which share of the captions, and the chance that one states an attribute; None is a
single attribute in words."""


def build_clip(tokenizer: CLIPTokenizer) -> CLIPModel:
    """The pocket CLIP with random weights: 8-pixel patches, embeddings of 64, a text tower of its own."""
    vision = {"image_size": IMAGE_SIZE, "patch_size": 8, "hidden_size": 96, "intermediate_size": 384}
    text = {"vocab_size": len(tokenizer), "max_position_embeddings": MAX_TOKENS, "hidden_size": 64}
    text |= {"intermediate_size": 256, "pad_token_id": tokenizer.pad_token_id}
    text |= {"bos_token_id": tokenizer.bos_token_id, "eos_token_id": tokenizer.eos_token_id}
    return CLIPModel(
        CLIPConfig(
            vision_config=CLIPVisionConfig(**vision, num_hidden_layers=3, num_attention_heads=3),
            text_config=CLIPTextConfig(**text, num_hidden_layers=2, num_attention_heads=2),
            projection_dim=64,
        )
    )


def describe(scene: Scene, rng: random.Random) -> Caption:
    """A full caption, a short one, or one attribute of the scene in words."""
    kind = rng.random()
    stated = next(chance for share, chance in _KINDS if kind < share)
    if stated is not None:
        return write_caption(scene, rng, stated)
    thing = rng.choice(scene.objects)
    names = [name for name in ATTRIBUTES if name not in OBJECT_ATTRIBUTES or has_attribute(thing, name)]
    name = rng.choice([name for name in names if getattr(thing, name, "") != "no eye"])
    if name in OBJECT_ATTRIBUTES:
        value = getattr(thing, name)
        return Caption(attribute_words(name, value), ({name: value},), {}, None)
    value = getattr(scene, name)
    return Caption(attribute_words(name, value), (), {name: value}, None)


def true_of(captions: Sequence[Caption], scenes: Sequence[Scene]) -> Tensor:
    """Which captions are true of which scenes, boolean `[captions, scenes]`.

    A caption is true if the scene has everything that it states, with a different object for each named object.
    """
    asked, there = torch.zeros(len(captions), 2, len(_VALUES)), torch.zeros(len(scenes), 2, len(_VALUES))
    asked_of_scene, there_in_scene = torch.zeros(len(captions), len(_VALUES)), torch.zeros(len(scenes), len(_VALUES))
    number = {pair: place for place, pair in enumerate(_VALUES)}
    for row, caption in enumerate(captions):
        for slot, words in enumerate(caption.objects):
            asked[row, slot, [number[pair] for pair in words.items()]] = 1
        asked_of_scene[row, [number[pair] for pair in caption.scene.items()]] = 1
    for row, scene in enumerate(scenes):
        for slot, thing in enumerate(scene.objects):
            names = [name for name in OBJECT_ATTRIBUTES if has_attribute(thing, name)]
            there[row, slot, [number[name, getattr(thing, name)] for name in names]] = 1
        there_in_scene[row, [number[name, getattr(scene, name)] for name in ("background", "style")]] = 1
    fits = (
        torch.einsum("csv,dtv->cdst", asked, there) == asked.sum(2)[:, None, :, None]
    )  # [captions, scenes, asked, there]
    straight, crossed = fits[:, :, 0, 0] & fits[:, :, 1, 1], fits[:, :, 0, 1] & fits[:, :, 1, 0]
    relations = [{"left": "horizontal", "top": "vertical"}.get(scene.objects[0].position) for scene in scenes]
    related = torch.tensor([[caption.relation in (None, relation) for relation in relations] for caption in captions])
    ordered = torch.tensor([caption.relation is not None for caption in captions])[:, None]
    of_scene = asked_of_scene @ there_in_scene.T == asked_of_scene.sum(1, keepdim=True)
    return (straight | crossed & ~ordered) & related & of_scene


def contrastive_loss(similarity: Tensor, true: Tensor) -> Tensor:
    """CLIP's loss where a caption may be true of several pictures: cross-entropy to all true
    pairs, in both directions."""
    share = true.float()
    to_scenes = F.cross_entropy(similarity, share / share.sum(1, keepdim=True))
    to_captions = F.cross_entropy(similarity.T, share.T / share.T.sum(1, keepdim=True))
    return (to_scenes + to_captions) / 2


def train_clip(steps: int, seed: int, device: str, batch: int = 128) -> None:
    """Train CLIP on pictures and captions; an eighth of the renders are seen through the autoencoder, as the
    models' pictures are."""
    from notebooks.experiments.pocket.fitting import fit, mixed_precision, scene_batches

    tokenizer = weights.load("tokenizer") if weights.is_shipped("tokenizer") else build_tokenizer()
    clip = weights.load_or("clip", lambda: build_clip(tokenizer)).to(device)
    vae = weights.load("vae").to(device).eval()
    scenes, rng = scene_batches(batch, seed + 500), random.Random(seed)
    generator = torch.Generator(device).manual_seed(seed)

    def loss_of(step: int) -> Tensor:
        batch_scenes = next(scenes)
        captions = [describe(scene, rng) for scene in batch_scenes]
        images = render(batch_scenes, device)
        part = max(1, len(images) // 8)
        with torch.no_grad():
            latents = vae.encode(2 * images[:part] - 1).latent_dist.mean
            latents += 0.15 * latents.std() * torch.randn(latents.shape, generator=generator, device=device)
            images[:part] = ((vae.decode(latents).sample + 1) / 2).clamp(0, 1)
        words = tokenizer([caption.text for caption in captions], padding=True, return_tensors="pt").to(device)
        with mixed_precision(device):
            out = clip(pixel_values=2 * images - 1, **words)
        loss = contrastive_loss(out.logits_per_text.float(), true_of(captions, batch_scenes).to(device))
        if step % 100 == 0:
            print(f"loss {loss.item():.3f}", flush=True)
        return loss

    fit({"clip": clip}, loss_of, steps, lr=2e-3, save=lambda modules: weights.save("clip", modules["clip"]))
