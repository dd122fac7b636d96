"""The U-Net's 28 blocks: the paper's short codes and the modules they name (the one place where they are paired)."""

from torch import nn

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
"""Code -> module path in the pipeline, in the order in which the U-Net runs them: 17 ResNets and 11 attention
blocks."""

ATTENTION_BLOCKS = tuple(code for code, path in BLOCKS.items() if "attentions" in path)
"""The 11 cross-attention transformer blocks (paper: Fig. 10)."""

SAE_BLOCKS = ("down.2.1", "mid.0", "up.0.0", "up.0.1")
"""The four blocks whose updates the paper decomposes, in the paper's order."""


def find_block(pipe, block: str) -> nn.Module:
    """The module that a block's code names in a pipeline with SDXL's U-Net.

    Raises ValueError for a code that is not in `BLOCKS`, or if the pipeline's U-Net has no such module.
    """
    if block not in BLOCKS:
        raise ValueError(f"unknown block {block!r}; valid blocks: {', '.join(BLOCKS)}")
    try:
        return pipe.unet.get_submodule(BLOCKS[block].removeprefix("unet."))
    except AttributeError as error:
        raise ValueError(
            f"block {block!r}: this pipeline has no {BLOCKS[block]}; wanted SDXL's U-Net ({error})"
        ) from error
