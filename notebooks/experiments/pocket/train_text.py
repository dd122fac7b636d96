"""Train the pocket text encoders: to say of a caption what it states (stage `text`)."""

import random

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from notebooks.experiments.pocket.fitting import fit, scene_batches
from sae_lib.pocket import weights
from sae_lib.pocket.captions import Caption, write_caption
from sae_lib.pocket.models import build_text_encoders, build_tokenizer
from sae_lib.pocket.world import OBJECT_ATTRIBUTES, SCENE_ATTRIBUTES

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
