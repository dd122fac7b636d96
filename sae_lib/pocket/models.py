"""The pocket SDXL: SDXL's own diffusers classes, block names and conditioning, at a size that a laptop trains.

64-pixel pictures, 32x32 latents (an AutoencoderKL of factor 2), U-Net widths 32, 64, 128, one transformer layer per
block, so that `down.2.1`, `mid.0`, `up.0.0` and `up.0.1` see 8x8 positions of 128 dimensions.
"""

import itertools
from collections import Counter
from functools import cache

import torch
from diffusers import (
    AutoencoderKL,
    EulerAncestralDiscreteScheduler,
    EulerDiscreteScheduler,
    StableDiffusionXLPipeline,
    UNet2DConditionModel,
)
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer

from sae_lib.pocket.captions import vocabulary

MAX_TOKENS = 40
"""Longest caption in tokens, start and end included (SDXL: 77)."""

_TEXT_WIDTHS = (64, 128)
_NOISE = {
    "num_train_timesteps": 1000,
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "prediction_type": "epsilon",
}


def build_unet() -> UNet2DConditionModel:
    """The pocket U-Net with random weights: SDXL's block types, 11 attention blocks and 17 ResNets."""
    return UNet2DConditionModel(
        sample_size=32,
        in_channels=4,
        out_channels=4,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        block_out_channels=(32, 64, 128),
        layers_per_block=2,
        transformer_layers_per_block=1,
        attention_head_dim=(1, 2, 4),  # diffusers' name for the number of heads: 32 dimensions each
        cross_attention_dim=sum(_TEXT_WIDTHS),
        norm_num_groups=8,
        use_linear_projection=True,
        addition_embed_type="text_time",
        addition_time_embed_dim=16,
        projection_class_embeddings_input_dim=6 * 16 + _TEXT_WIDTHS[1],
    )


def build_vae() -> AutoencoderKL:
    """The pocket autoencoder with random weights: `[3, 64, 64]` pictures to `[4, 32, 32]` latents."""
    return AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        block_out_channels=(16, 32),
        layers_per_block=1,
        latent_channels=4,
        norm_num_groups=8,
        sample_size=64,
        mid_block_add_attention=False,
        force_upcast=False,
    )


def build_text_encoders() -> tuple[CLIPTextModel, CLIPTextModelWithProjection]:
    """The two CLIP text encoders with random weights: hidden states 64 + 128 wide, a pooled embedding of 128."""
    tokenizer = build_tokenizer()
    configs = [
        CLIPTextConfig(
            vocab_size=len(tokenizer),
            hidden_size=width,
            intermediate_size=4 * width,
            projection_dim=width,
            num_hidden_layers=3,
            num_attention_heads=width // 32,
            max_position_embeddings=MAX_TOKENS,
            hidden_act="gelu",
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
        for width in _TEXT_WIDTHS
    ]
    return CLIPTextModel(configs[0]), CLIPTextModelWithProjection(configs[1])


@cache
def build_tokenizer() -> CLIPTokenizer:
    """A CLIPTokenizer over the captions' words: every word one token, anything else spelt in letters."""
    letters = [chr(code) for code in range(33, 127) if not chr(code).isupper()]
    merges = _learn_merges(vocabulary())
    tokens = [*letters, *(f"{letter}</w>" for letter in letters), *map("".join, merges)]
    tokens += ["<|startoftext|>", "<|endoftext|>"]
    vocab = {token: index for index, token in enumerate(dict.fromkeys(tokens))}
    return CLIPTokenizer(vocab=vocab, merges=merges, model_max_length=MAX_TOKENS)


def _learn_merges(words: list[str]) -> list[tuple[str, str]]:
    """Byte-pair merges until each word is one piece. Unlike `tokenizers`' they are the same in every process."""
    spelt, merges = [[*word[:-1], f"{word[-1]}</w>"] for word in words], []
    while pairs := Counter(pair for pieces in spelt for pair in itertools.pairwise(pieces)):
        merge = max(pairs, key=lambda pair: (pairs[pair], pair))
        merges.append(merge)
        for pieces in spelt:
            for at in range(len(pieces) - 1):
                if tuple(pieces[at : at + 2]) == merge:
                    pieces[at : at + 2] = ["".join(merge)]
    return merges


def build_scheduler(name: str) -> EulerDiscreteScheduler | EulerAncestralDiscreteScheduler:
    """The scheduler of SDXL base for "base", of SDXL Turbo for "turbo" (timesteps 999, 749, 499, 249 at 4 steps)."""
    if name == "base":
        return EulerDiscreteScheduler(**_NOISE, timestep_spacing="leading", steps_offset=1, use_karras_sigmas=False)
    return EulerAncestralDiscreteScheduler(**_NOISE, timestep_spacing="trailing", steps_offset=1)


def assemble_pipeline(
    name: str,
    unet: UNet2DConditionModel,
    vae: AutoencoderKL,
    text_encoder: CLIPTextModel,
    text_encoder_2: CLIPTextModelWithProjection,
    tokenizer: CLIPTokenizer | None = None,
) -> StableDiffusionXLPipeline:
    """A StableDiffusionXLPipeline of the given parts, with the scheduler of `name`."""
    tokenizer = tokenizer or build_tokenizer()
    return StableDiffusionXLPipeline(
        vae=vae,
        text_encoder=text_encoder,
        text_encoder_2=text_encoder_2,
        tokenizer=tokenizer,
        tokenizer_2=tokenizer,
        unet=unet,
        scheduler=build_scheduler(name),
        force_zeros_for_empty_prompt=True,
        add_watermarker=False,
    )


def build_pipeline(name: str = "turbo", seed: int = 0) -> StableDiffusionXLPipeline:
    """A pocket pipeline with random weights, seeded."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return assemble_pipeline(name, build_unet(), build_vae(), *build_text_encoders())
