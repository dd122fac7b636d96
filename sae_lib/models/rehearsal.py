"""SDXL's and FLUX's parts with random weights, for rehearsals: true shapes, speed and memory, no science."""

import re
from typing import Any

import torch
from diffusers import (
    AutoencoderKL,
    DiffusionPipeline,
    FluxPipeline,
    FluxTransformer2DModel,
    UNet2DConditionModel,
)
from transformers import (
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTextModelWithProjection,
    CLIPTokenizer,
    T5Config,
    T5EncoderModel,
)

from sae_lib.cache.space import refuse_without_memory
from sae_lib.models.blocks import denoiser_of, is_flux

PARAMETERS = {"unet": 2.57e9, "vae": 0.084e9, "text_encoder": 0.123e9, "text_encoder_2": 0.695e9}
"""Parameters of SDXL, by part."""
FLUX_PARAMETERS = {"transformer": 11.89e9, "vae": 0.084e9, "text_encoder": 0.123e9, "text_encoder_2": 4.76e9}
"""Parameters of FLUX.1-schnell, by part; the last is T5-XXL's encoder."""
_LATENT_SIZES = {"turbo": (64, 16), "base": (128, 32), "flux": (128, 16)}
"""Side of a latent: the paper's model's, and that of a model whose widths are divided."""


def parameters_of(name: str) -> dict[str, float]:
    """Parameters of the paper's model "turbo", "base" or "flux", by part."""
    return FLUX_PARAMETERS if name == "flux" else PARAMETERS


def width_divisor(source: str) -> int:
    """What every width is divided by: 1 for "random", 16 for "random/16". Raises ValueError for another source."""
    match = re.fullmatch(r"random(?:/(\d+))?", source)
    if match is None or int(match[1] or 1) not in (1, 2, 4, 8, 16):
        raise ValueError(
            f"unknown source {source!r}; choose 'random' or 'random/2', '/4', '/8' or '/16', a folder or a Hub id"
        )
    return int(match[1] or 1)


def random_pipeline(name: str, divisor: int, device: torch.device, dtype: torch.dtype) -> DiffusionPipeline:
    """The model's configuration with seeded random weights. A divisor above 1 divides every width; pictures shrink too.

    The tokenizers are the pocket world's: the models' vocabularies cannot be shipped, and random weights know no words.
    """
    from sae_lib.pocket.models import assemble_pipeline, build_tokenizer

    refuse_if_too_large(sum(parameters_of(name).values()) / divisor**2, device, dtype)
    latent_size = _LATENT_SIZES[name][divisor > 1]
    tokenizer, default = build_tokenizer(), torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        with torch.random.fork_rng(), torch.device(device):
            torch.manual_seed(0)
            if name == "flux":
                return random_flux(latent_size, divisor)
            unet, vae = random_unet(latent_size, divisor), random_vae(latent_size, divisor)
            text_encoders = _random_text_encoders(divisor, tokenizer)
    finally:
        torch.set_default_dtype(default)
    return assemble_pipeline(name, unet.eval(), vae.eval(), *(encoder.eval() for encoder in text_encoders), tokenizer)


def random_unet(latent_size: int, divisor: int) -> UNet2DConditionModel:
    """SDXL's U-Net with random weights, for latents of that size."""
    return UNet2DConditionModel(
        sample_size=latent_size,
        in_channels=4,
        out_channels=4,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        block_out_channels=(320 // divisor, 640 // divisor, 1280 // divisor),
        layers_per_block=2,
        transformer_layers_per_block=(1, 2, 10),
        attention_head_dim=(5, 10, 20),
        cross_attention_dim=2048 // divisor,
        norm_num_groups=32 // divisor,
        use_linear_projection=True,
        addition_embed_type="text_time",
        addition_time_embed_dim=256 // divisor,
        projection_class_embeddings_input_dim=2816 // divisor,
    )


def repeated_unet(latent_size: int, divisor: int, seed: int = 0) -> UNet2DConditionModel:
    """`random_unet` whose weights are a million seeded numbers, repeated: at full width built in seconds on a CPU.

    Matrices and kernels get torch's default range, +-1 / sqrt(fan_in); norms are the identity and biases 0.
    """
    with torch.device("meta"):
        unet = random_unet(latent_size, divisor)
    unet.to_empty(device="cpu")
    count = 1_000_003
    numbers = torch.empty(count).uniform_(-1, 1, generator=torch.Generator().manual_seed(seed)).repeat(2)
    start = 0  # another place for each piece, and a prime length: no two rows are alike
    for parameter in unet.parameters():
        if parameter.ndim > 1:
            for piece in parameter.data.view(-1).split(count):
                torch.mul(numbers[start : start + len(piece)], parameter[0].numel() ** -0.5, out=piece)
                start = (start + 7_919) % count
    for name, parameter in unet.named_parameters():
        if parameter.ndim < 2:
            parameter.data.fill_(float(name.endswith("weight")))
    return unet.eval().requires_grad_(False)


def random_flux(latent_size: int, divisor: int) -> FluxPipeline:
    """FLUX-schnell with random weights, for latents of that size; all its blocks, of a width that is divided."""
    from sae_lib.pocket.models import assemble_flux, build_tokenizer

    heads = 24 // min(divisor, 8)
    axes = (16, 56, 56) if divisor < 16 else (8, 28, 28)
    transformer = FluxTransformer2DModel(
        attention_head_dim=sum(axes),
        num_attention_heads=heads,
        joint_attention_dim=4096 // divisor,
        pooled_projection_dim=768 // divisor,
        axes_dims_rope=axes,
    )
    vae = random_vae(latent_size, divisor, latent_channels=16, scaling_factor=0.3611, shift_factor=0.1159)
    t5 = T5EncoderModel(
        T5Config(
            vocab_size=32128,
            d_model=4096 // divisor,
            d_kv=64,
            d_ff=10240 // divisor,
            num_layers=24,
            num_heads=64 // divisor,
            feed_forward_proj="gated-gelu",
            is_encoder_decoder=False,
        )
    )
    clip, _ = _random_text_encoders(divisor, build_tokenizer())
    pipe = assemble_flux(transformer.eval(), vae.eval(), clip.eval(), t5.eval())
    pipe.default_sample_size = latent_size
    return pipe


def random_vae(latent_size: int, divisor: int, **settings: Any) -> AutoencoderKL:
    """SDXL's autoencoder with random weights, for latents of that size; FLUX's by other settings."""
    settings = {"latent_channels": 4, "scaling_factor": 0.13025} | settings
    return AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        block_out_channels=tuple(width // divisor for width in (128, 256, 512, 512)),
        layers_per_block=2,
        norm_num_groups=32 // divisor,
        sample_size=8 * latent_size,
        force_upcast=False,
        **settings,
    )


def _random_text_encoders(divisor: int, tokenizer: CLIPTokenizer) -> tuple[CLIPTextModel, CLIPTextModelWithProjection]:
    def config(width: int, layers: int, heads: int, activation: str) -> CLIPTextConfig:
        return CLIPTextConfig(
            vocab_size=49408,
            hidden_size=width // divisor,
            intermediate_size=4 * width // divisor,
            projection_dim=width // divisor,
            num_hidden_layers=layers,
            num_attention_heads=heads,
            hidden_act=activation,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
        )

    first = CLIPTextModel(config(768, layers=12, heads=12, activation="quick_gelu"))
    return first, CLIPTextModelWithProjection(config(1280, layers=32, heads=20, activation="gelu"))


def with_random_unet(pipe: DiffusionPipeline, seed: int = 0) -> DiffusionPipeline:
    """Control: the same pipeline with a U-Net, or a transformer, of the same plan that was never trained."""
    trained, part = denoiser_of(pipe), "transformer" if is_flux(pipe) else "unet"
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        untrained = type(trained).from_config(trained.config).eval().to(pipe._execution_device)
    other = type(pipe)(**(pipe.components | {part: untrained}))
    if is_flux(pipe):
        other.default_sample_size = pipe.default_sample_size
    other.set_progress_bar_config(disable=True)
    return other


def refuse_if_too_large(parameters: float, device: torch.device, dtype: torch.dtype) -> None:
    """Refuse weights that do not fit into the device's free memory. Raises MemoryError."""
    way = "use a larger device, a 16-bit dtype, or scale='pocket'"
    refuse_without_memory(parameters * dtype.itemsize / 1e9, device, "the weights need", way)
