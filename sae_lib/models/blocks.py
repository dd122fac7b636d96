"""The U-Net's 28 blocks: the paper's short codes and the modules they name (the one place where they are paired)."""

from collections.abc import Iterable
from typing import TYPE_CHECKING

from torch import nn

if TYPE_CHECKING:
    import diffusers

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
"""Code -> module path in the pipeline: 17 ResNets and 11 attention blocks, in the order in which they run."""

ATTENTION_BLOCKS = tuple(code for code, path in BLOCKS.items() if "attentions" in path)
"""The 11 cross-attention transformer blocks (paper: Fig. 10)."""

PAPER_BLOCKS = ("down.2.1", "mid.0", "up.0.0", "up.0.1")
"""The four blocks whose updates the paper decomposes in SDXL Turbo, in the paper's order."""

AUTHORS_ORDER = ("down.2.1", "up.0.1", "up.0.0", "mid.0")
"""The same four in the order in which the authors' code of RIEBench concatenates their features. In a selection the
earlier of two equal features is taken."""


def select_blocks(blocks: str | Iterable[str], scale: str) -> tuple[str, ...]:
    """The blocks that a notebook or a command works with.

    blocks is one of:

    - "chosen": the blocks that a rule chose for the pocket U-Net by what they write, the most important first;
    - "paper": the paper's four;
    - codes with commas, or a sequence of codes;
    - "": the same as "chosen" at pocket and smoke scale, as "paper" at sdxl scale.

    Raises ValueError for no code, for unknown or repeated codes, for another word, and for "chosen" at sdxl scale,
    where no blocks were chosen.
    """
    if not isinstance(blocks, str):
        codes = tuple(blocks)
    elif blocks == "paper" or (not blocks and scale == "sdxl"):
        codes = PAPER_BLOCKS
    elif blocks in ("", "chosen"):
        if scale == "sdxl":
            raise ValueError(
                'blocks is "chosen" and no blocks were chosen for SDXL: look at the figures of notebook 05 at sdxl '
                'scale, and name blocks with commas, as in "down.2.1,up.0.1"'
            )
        from sae_lib.pocket.chosen import load_choice

        codes = tuple(load_choice()["chosen"])
    else:
        codes = tuple(code.strip() for code in blocks.split(","))
    if not codes:
        raise ValueError('blocks is empty; choose "chosen", "paper", or one or more codes')
    for code in codes:
        if code not in ATTENTION_BLOCKS:
            raise ValueError(
                f'unknown block {code!r}; choose "chosen", "paper", or codes with commas of '
                f"{', '.join(ATTENTION_BLOCKS)}"
            )
    if len(set(codes)) < len(codes):
        raise ValueError(f"blocks {', '.join(codes)}: one is named twice")
    return codes


def as_list(texts: str | Iterable[str]) -> list[str]:
    """Prompts or blocks as a list. A lone text is one of them: Python would take its letters."""
    return [texts] if isinstance(texts, str) else list(texts)


_FEED_FORWARD = "/ff."


def feed_forwards(pipe: "diffusers.StableDiffusionXLPipeline", blocks: str | Iterable[str]) -> list[str]:
    """The codes of all feed-forward layers of some attention blocks.

    "mid.0/ff.0" is the GEGLU of `mid.0`'s first transformer layer; its outputs are the paper's neurons.
    """
    return [
        f"{block}{_FEED_FORWARD}{layer}"
        for block in as_list(blocks)
        for layer in range(len(find_block(pipe, block).transformer_blocks))
    ]


def find_block(pipe: "diffusers.StableDiffusionXLPipeline", block: str) -> nn.Module:
    """The module that a block's code, or one of `feed_forwards`, names in a pipeline with SDXL's U-Net.

    Raises ValueError for a code that is not in `BLOCKS`, or if the pipeline's U-Net has no such module.
    """
    name, _, layer = block.partition(_FEED_FORWARD)
    _refuse_unknown(name, block)
    path = BLOCKS[name] + (f".transformer_blocks.{layer}.ff.net.0" if layer else "")
    try:
        return pipe.unet.get_submodule(path.removeprefix("unet."))
    except AttributeError as error:
        raise ValueError(f"block {block!r}: this pipeline has no {path}; wanted SDXL's U-Net ({error})") from error


def grid_of(pipe: "diffusers.StableDiffusionXLPipeline", block: str) -> int:
    """Cells along each side of a block's maps.

    For `mid.0` and its neighbours they are 16 in SDXL Turbo at 512 px and 8 in the pocket models; in the levels above
    twice or four times as many.
    """
    return pipe.unet.config.sample_size >> _level(pipe, block)


def width_of(pipe: "diffusers.StableDiffusionXLPipeline", block: str) -> int:
    """Dimensions of a block's update.

    For `mid.0` and its neighbours they are 1,280 in SDXL and 128 in the pocket models; in the levels
    above they are fewer.
    """
    return pipe.unet.config.block_out_channels[_level(pipe, block)]


def _level(pipe: "diffusers.StableDiffusionXLPipeline", block: str) -> int:
    """How often the block's maps have been halved."""
    _refuse_unknown(block, block)
    lowest, (stage, number, *_) = len(pipe.unet.config.block_out_channels) - 1, block.split(".")
    if stage == "mid":
        return lowest
    return int(number) if stage == "down" else lowest - int(number)


def _refuse_unknown(name: str, asked: str) -> None:
    if name not in BLOCKS:
        raise ValueError(f"unknown block {asked!r}; valid blocks: {', '.join(BLOCKS)}")
