"""The pocket models: SDXL's and FLUX's own diffusers classes, blocks and conditioning, at a size that a laptop trains.

Pocket SDXL: 64-pixel pictures, 32x32 latents (an AutoencoderKL of factor 2), U-Net widths 32, 64, 128, one transformer
layer per block, so that `down.2.1`, `mid.0`, `up.0.0` and `up.0.1` see 8x8 positions of 128 dimensions.

Pocket FLUX: the same pictures, 16x16 latents of 8 channels (factor 4), packed 2x2 as FLUX packs them into 8x8 tokens
of 32 numbers; 4 double-stream and 6 single-stream blocks of 96 dimensions. FLUX has 16 channels; their 64 numbers of
noise, which the output repeats, would fill two thirds of 96 dimensions (of FLUX's 3072 they fill a fiftieth).
"""

import itertools
from collections import Counter
from functools import cache

import torch
from diffusers import (
    AutoencoderKL,
    EulerAncestralDiscreteScheduler,
    EulerDiscreteScheduler,
    FlowMatchEulerDiscreteScheduler,
    FluxPipeline,
    FluxTransformer2DModel,
    StableDiffusionXLPipeline,
    UNet2DConditionModel,
)
from tokenizers import normalizers
from transformers import (
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTextModelWithProjection,
    CLIPTokenizer,
    T5Config,
    T5EncoderModel,
    T5Tokenizer,
)

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


# --- FLUX -------------------------------------------------------------------------------------------------------------

_FLUX_TEXT_WIDTH = 96


def build_flux_transformer() -> FluxTransformer2DModel:
    """The pocket FLUX's transformer with random weights: 4 double-stream blocks, then 6 single-stream blocks."""
    return FluxTransformer2DModel(
        in_channels=32,
        num_layers=4,
        num_single_layers=6,
        attention_head_dim=32,
        num_attention_heads=3,
        joint_attention_dim=_FLUX_TEXT_WIDTH,
        pooled_projection_dim=_TEXT_WIDTHS[1],
        guidance_embeds=False,
        axes_dims_rope=(8, 12, 12),
    )


def build_flux_vae() -> AutoencoderKL:
    """FLUX's kind of autoencoder with random weights: `[3, 64, 64]` pictures to `[8, 16, 16]` latents."""
    return AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 3,
        up_block_types=("UpDecoderBlock2D",) * 3,
        block_out_channels=(16, 32, 48),
        layers_per_block=1,
        latent_channels=8,
        norm_num_groups=8,
        sample_size=64,
        mid_block_add_attention=False,
        use_quant_conv=False,
        use_post_quant_conv=False,
        shift_factor=0.0,
        force_upcast=False,
    )


def build_t5() -> T5EncoderModel:
    """The pocket FLUX's T5 encoder with random weights: three layers, hidden states 96 wide."""
    config = T5Config(
        vocab_size=len(build_t5_tokenizer()),
        d_model=_FLUX_TEXT_WIDTH,
        d_kv=24,
        d_ff=256,
        num_layers=3,
        num_heads=4,
        relative_attention_num_buckets=16,
        relative_attention_max_distance=MAX_TOKENS,
        dropout_rate=0.0,
        feed_forward_proj="gated-gelu",
        is_encoder_decoder=False,
        use_cache=False,
    )
    return T5EncoderModel(config)


def without_projection(encoder: CLIPTextModelWithProjection) -> CLIPTextModel:
    """The same encoder, weights shared, as the class that FLUX pools with: its pooled embedding is not projected."""
    plain = CLIPTextModel(encoder.config)
    plain.load_state_dict(encoder.text_model.state_dict(), assign=True)
    return plain.eval()


@cache
def build_t5_tokenizer() -> T5Tokenizer:
    """A T5Tokenizer over the captions' words: every word one token, anything else spelt in letters."""
    letters = [chr(code) for code in range(33, 127) if not chr(code).isupper()]
    pieces = [(f"\u2581{word}", -1.0) for word in vocabulary()]
    pieces += [(letter, -10.0) for letter in ["\u2581", *letters]]
    special = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0)]
    tokenizer = T5Tokenizer(vocab=special + pieces, extra_ids=0, model_max_length=MAX_TOKENS)
    tokenizer.backend_tokenizer.normalizer = normalizers.Lowercase()
    return tokenizer


def build_flux_scheduler() -> FlowMatchEulerDiscreteScheduler:
    """FLUX-schnell's scheduler: noise levels 1, 3/4, 1/2, 1/4 at 4 steps, 1 at one step."""
    return FlowMatchEulerDiscreteScheduler(num_train_timesteps=1000, shift=1.0, use_dynamic_shifting=False)


def assemble_flux(
    transformer: FluxTransformer2DModel,
    vae: AutoencoderKL,
    text_encoder: CLIPTextModel,
    text_encoder_2: T5EncoderModel,
    tokenizer: CLIPTokenizer | None = None,
    tokenizer_2: T5Tokenizer | None = None,
) -> FluxPipeline:
    """A FluxPipeline of the given parts with schnell's scheduler, for pictures of 64 pixels."""
    pipe = FluxPipeline(
        scheduler=build_flux_scheduler(),
        vae=vae,
        text_encoder=text_encoder,
        tokenizer=tokenizer or build_tokenizer(),
        text_encoder_2=text_encoder_2,
        tokenizer_2=tokenizer_2 or build_t5_tokenizer(),
        transformer=transformer,
    )
    pipe.default_sample_size = 16  # latents along each side; diffusers knows those of 1,024 pixels only
    return pipe


def build_flux_pipeline(seed: int = 0) -> FluxPipeline:
    """A pocket FLUX with random weights, seeded."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        clip = without_projection(build_text_encoders()[1])
        return assemble_flux(build_flux_transformer().eval(), build_flux_vae().eval(), clip, build_t5().eval())
