"""Blocks of SDXL's U-Net and of FLUX's transformer: short codes and the modules they name (paired only here).

A block of either kind adds an update to what it gets. What goes in and out is given as maps `[batch, d_model, height,
width]`: FLUX's image tokens lie on a square grid, row by row.
"""

import math
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from jaxtyping import Float
from torch import Tensor, nn

if TYPE_CHECKING:
    import diffusers

Maps = Float[Tensor, "batch d_model height width"]

BLOCKS = {
    "down.0.r0": "unet.down_blocks.0.resnets.0",
    "down.0.r1": "unet.down_blocks.0.resnets.1",
    "down.1.r0": "unet.down_blocks.1.resnets.0",
    "down.1.0": "unet.down_blocks.1.attentions.0",
    "down.1.r1": "unet.down_blocks.1.resnets.1",
    "down.1.1": "unet.down_blocks.1.attentions.1",
    "down.2.r0": "unet.down_blocks.2.resnets.0",
    "down.2.0": "unet.down_blocks.2.attentions.0",
    "down.2.r1": "unet.down_blocks.2.resnets.1",
    "down.2.1": "unet.down_blocks.2.attentions.1",
    "mid.r0": "unet.mid_block.resnets.0",
    "mid.0": "unet.mid_block.attentions.0",
    "mid.r1": "unet.mid_block.resnets.1",
    "up.0.r0": "unet.up_blocks.0.resnets.0",
    "up.0.0": "unet.up_blocks.0.attentions.0",
    "up.0.r1": "unet.up_blocks.0.resnets.1",
    "up.0.1": "unet.up_blocks.0.attentions.1",
    "up.0.r2": "unet.up_blocks.0.resnets.2",
    "up.0.2": "unet.up_blocks.0.attentions.2",
    "up.1.r0": "unet.up_blocks.1.resnets.0",
    "up.1.0": "unet.up_blocks.1.attentions.0",
    "up.1.r1": "unet.up_blocks.1.resnets.1",
    "up.1.1": "unet.up_blocks.1.attentions.1",
    "up.1.r2": "unet.up_blocks.1.resnets.2",
    "up.1.2": "unet.up_blocks.1.attentions.2",
    "up.2.r0": "unet.up_blocks.2.resnets.0",
    "up.2.r1": "unet.up_blocks.2.resnets.1",
    "up.2.r2": "unet.up_blocks.2.resnets.2",
}
"""SDXL: code -> module path in the pipeline; 17 ResNets and 11 attention blocks, in the order in which they run."""

FLUX_BLOCKS = {f"double.{number}": f"transformer.transformer_blocks.{number}" for number in range(19)}
FLUX_BLOCKS |= {f"single.{number}": f"transformer.single_transformer_blocks.{number}" for number in range(38)}
"""FLUX: code -> module path; 19 double-stream and 38 single-stream blocks, in the order in which they run. The pocket
FLUX has the first 4 and the first 6."""

ALL_BLOCKS = BLOCKS | FLUX_BLOCKS

ATTENTION_BLOCKS = tuple(code for code, path in BLOCKS.items() if "attentions" in path)
"""The 11 cross-attention transformer blocks (paper: Fig. 10)."""

PAPER_BLOCKS = ("down.2.1", "mid.0", "up.0.0", "up.0.1")
"""The four blocks whose updates the paper decomposes in SDXL Turbo, in the paper's order."""

FLUX_PAPER_BLOCKS = (("double.3",), ("double.18",))
"""The last double-stream block, whose updates the paper decomposes in FLUX-schnell: of the pocket model, of FLUX."""

AUTHORS_ORDER = ("down.2.1", "up.0.1", "up.0.0", "mid.0")
"""The same four in the order in which the authors' code of RIEBench concatenates their features. In a selection the
earlier of two equal features is taken."""


ARCHITECTURES = ("sdxl", "flux")


def architecture_of(blocks: str | Iterable[str]) -> str:
    """ "flux" if one of the codes is of FLUX's blocks, "sdxl" otherwise (also of a word such as "paper")."""
    codes = blocks.split(",") if isinstance(blocks, str) else blocks
    return "flux" if any(code.strip() in FLUX_BLOCKS for code in codes) else "sdxl"


def select_blocks(blocks: str | Iterable[str], scale: str, architecture: str = "sdxl") -> tuple[str, ...]:
    """The blocks that a notebook or a command works with.

    blocks is one of:

    - "chosen": the blocks that a rule chose for the pocket model by what they write, the most important first;
    - "paper": the paper's four of SDXL, or FLUX's last double-stream block;
    - codes with commas, or a sequence of codes;
    - "": the same as "chosen" at pocket and smoke scale, as "paper" at sdxl scale.

    Raises ValueError for no code, for unknown or repeated codes or those of the other architecture, for another word,
    and for "chosen" at sdxl scale, where no blocks were chosen.
    """
    if architecture not in ARCHITECTURES:
        raise ValueError(f"unknown architecture {architecture!r}; choose one of {', '.join(ARCHITECTURES)}")
    if not isinstance(blocks, str):
        codes = tuple(blocks)
    elif blocks == "paper" or (not blocks and scale == "sdxl"):
        codes = PAPER_BLOCKS if architecture == "sdxl" else FLUX_PAPER_BLOCKS[scale == "sdxl"]
    elif blocks in ("", "chosen"):
        if scale == "sdxl":
            raise ValueError(
                'blocks is "chosen" and no blocks were chosen for SDXL: look at the figures of notebook 05 at sdxl '
                'scale, and name blocks with commas, as in "down.2.1,up.0.1"'
            )
        from sae_lib.pocket.chosen import load_choice

        codes = tuple(load_choice(architecture)["chosen"])
    else:
        codes = tuple(code.strip() for code in blocks.split(","))
    if not codes:
        raise ValueError('blocks is empty; choose "chosen", "paper", or one or more codes')
    valid = ATTENTION_BLOCKS if architecture == "sdxl" else tuple(FLUX_BLOCKS)
    for code in codes:
        if code not in valid:
            raise ValueError(
                f'unknown block {code!r}; choose "chosen", "paper", or codes with commas of {_list(valid)}'
            )
    if len(set(codes)) < len(codes):
        raise ValueError(f"blocks {', '.join(codes)}: one is named twice")
    return codes


def _list(codes: tuple[str, ...]) -> str:
    return ", ".join(codes) if len(codes) < 20 else f"{codes[0]}, {codes[1]}, ..., {codes[-1]}"


def as_list(texts: str | Iterable[str]) -> list[str]:
    """Prompts or blocks as a list. A lone text is one of them: Python would take its letters."""
    return [texts] if isinstance(texts, str) else list(texts)


_FEED_FORWARD = "/ff."


def feed_forwards(pipe: "diffusers.DiffusionPipeline", blocks: str | Iterable[str]) -> list[str]:
    """The codes of all feed-forward layers of some attention blocks.

    "mid.0/ff.0" is the GEGLU of `mid.0`'s first transformer layer; its outputs are the paper's neurons. "double.3/ff.0"
    is the GELU of FLUX's image stream. Raises ValueError for a single-stream block, whose layer serves both streams.
    """
    if is_flux(pipe):
        if single := [block for block in as_list(blocks) if block.startswith("single")]:
            raise ValueError(
                f"block {single[0]!r} has no feed-forward layer of the image stream alone: choose double ones"
            )
        return [f"{block}{_FEED_FORWARD}0" for block in as_list(blocks)]
    return [
        f"{block}{_FEED_FORWARD}{layer}"
        for block in as_list(blocks)
        for layer in range(len(find_block(pipe, block).transformer_blocks))
    ]


def is_flux(pipe: "diffusers.DiffusionPipeline") -> bool:
    """Whether a pipeline runs FLUX's transformer; if not, it runs SDXL's U-Net."""
    return getattr(pipe, "transformer", None) is not None


def denoiser_of(pipe: "diffusers.DiffusionPipeline") -> nn.Module:
    """What runs once per denoising step: SDXL's U-Net or FLUX's transformer."""
    return pipe.transformer if is_flux(pipe) else pipe.unet


def model_name(pipe: "diffusers.DiffusionPipeline") -> str:
    """The model in a sentence."""
    return "FLUX's transformer" if is_flux(pipe) else "the U-Net"


def blocks_of(pipe: "diffusers.DiffusionPipeline") -> Mapping[str, str]:
    """Code -> module path of a pipeline's own blocks, in the order in which they run."""
    if not is_flux(pipe):
        return BLOCKS
    config = pipe.transformer.config
    counts = {"double": config.num_layers, "single": config.num_single_layers}
    return {code: path for code, path in FLUX_BLOCKS.items() if int(code.split(".")[1]) < counts[code.split(".")[0]]}


def find_block(pipe: "diffusers.DiffusionPipeline", block: str) -> nn.Module:
    """The module that a block's code, or one of `feed_forwards`, names in a pipeline with SDXL's U-Net or with FLUX.

    Raises ValueError for an unknown code, for a code of the other architecture, or if the pipeline has no such module.
    """
    name, _, layer = block.partition(_FEED_FORWARD)
    refuse_unknown_block(name, block)
    _refuse_other_architecture(pipe, name)
    inner = ".ff.net.0" if is_flux(pipe) else f".transformer_blocks.{layer}.ff.net.0"
    path = ALL_BLOCKS[name] + (inner if layer else "")
    try:
        return denoiser_of(pipe).get_submodule(path.partition(".")[2])
    except AttributeError as error:
        wanted = ", ".join(blocks_of(pipe)) if is_flux(pipe) else "SDXL's U-Net"
        raise ValueError(f"block {block!r}: this pipeline has no {path}; wanted {wanted} ({error})") from error


def grid_of(pipe: "diffusers.DiffusionPipeline", block: str) -> int:
    """Cells along each side of a block's maps.

    For `mid.0` and its neighbours they are 16 in SDXL Turbo at 512 px and 8 in the pocket models; in the levels above
    twice or four times as many. For all blocks of FLUX they are 64 at 1,024 px and 8 in the pocket model.
    """
    if is_flux(pipe):
        _refuse_other_architecture(pipe, block)
        return pipe.default_sample_size // 2
    return pipe.unet.config.sample_size >> _level(pipe, block)


def width_of(pipe: "diffusers.DiffusionPipeline", block: str) -> int:
    """Dimensions of a block's update.

    For `mid.0` and its neighbours they are 1,280 in SDXL and 128 in the pocket models; in the levels
    above they are fewer. For all blocks of FLUX they are 3,072, and 96 in the pocket model.
    """
    if is_flux(pipe):
        _refuse_other_architecture(pipe, block)
        return pipe.transformer.inner_dim
    return pipe.unet.config.block_out_channels[_level(pipe, block)]


def streams_of(module: nn.Module, args: tuple, kwargs: Mapping[str, Any], output: Any) -> tuple[Tensor, Tensor]:
    """What a block's update was added to, and what the block gave out, from the arguments of a forward hook.

    Both are maps (of feed-forward layers tokens), and their difference is the update. In FLUX they are the image stream
    before and behind the block; diffusers calls its blocks with keywords, and both kinds give out (text, image). In
    SDXL the first is the block's input, or, where a ResNet changes the width, the output of its `conv_shortcut` (as in
    the authors' ablation).
    """
    if is_of_flux(module):
        tokens = args[0] if args else kwargs["hidden_states"]
        return tokens_to_maps(tokens), tokens_to_maps(output[1])
    block_input = args[0] if args else kwargs["hidden_states"]
    shortcut = getattr(module, "conv_shortcut", None)
    return (
        block_input if shortcut is None else shortcut(block_input),
        output[0] if isinstance(output, tuple) else output,
    )


def with_stream(module: nn.Module, output: Any, new: Tensor) -> Any:
    """What a block gives out, with these maps (of feed-forward layers tokens) in place of its own."""
    if is_of_flux(module):
        return output[0], new.flatten(2).mT
    return (new,) if isinstance(output, tuple) else new


def is_of_flux(module: nn.Module) -> bool:
    """Whether a module is a block of FLUX's transformer."""
    return type(module).__name__ in ("FluxTransformerBlock", "FluxSingleTransformerBlock")  # diffusers loads slowly


def tokens_to_maps(tokens: Float[Tensor, "batch tokens d_model"]) -> Maps:
    """FLUX's image tokens as maps. Raises ValueError unless the picture is square."""
    side = math.isqrt(tokens.shape[1])
    if side**2 != tokens.shape[1]:
        raise ValueError(f"the picture has {tokens.shape[1]} tokens, which are no square: wanted height equal to width")
    return tokens.mT.unflatten(2, (side, side))


def _level(pipe: "diffusers.StableDiffusionXLPipeline", block: str) -> int:
    """How often the block's maps have been halved."""
    refuse_unknown_block(block, block)
    _refuse_other_architecture(pipe, block)
    lowest, (stage, number, *_) = len(pipe.unet.config.block_out_channels) - 1, block.split(".")
    if stage == "mid":
        return lowest
    return int(number) if stage == "down" else lowest - int(number)


def refuse_unknown_block(name: str, asked: str) -> None:
    """Raises ValueError unless `name` is a code of either architecture; `asked` is what the caller was given."""
    if name not in ALL_BLOCKS:
        raise ValueError(
            f"unknown block {asked!r}; valid blocks: {', '.join(BLOCKS)}; of FLUX double.0 to double.18 and "
            "single.0 to single.37"
        )


def _refuse_other_architecture(pipe: "diffusers.DiffusionPipeline", block: str) -> None:
    own = blocks_of(pipe)
    if (block in FLUX_BLOCKS) != is_flux(pipe):
        other, has = ("FLUX", "SDXL's U-Net") if block in FLUX_BLOCKS else ("SDXL", "FLUX's transformer")
        raise ValueError(
            f"block {block!r} is one of {other}'s and this pipeline has {has}: choose one of {', '.join(own)}"
        )
