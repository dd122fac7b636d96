import pytest
import torch

from sae_lib.activations.denoising import CallSettings, run_updates, stream_updates
from sae_lib.activations.drawing import draw_pictures
from sae_lib.activations.stream import TrainingStream
from sae_lib.activations.updates import capture_updates
from sae_lib.editing.transport import draw_edited, run_pass
from sae_lib.features.injection import draw_injected, encode_tokens, estimate_injected
from sae_lib.models.blocks import ATTENTION_BLOCKS, BLOCKS, PAPER_BLOCKS, find_block, grid_of, width_of
from sae_lib.saes.transfer import measure_transfer


def test_there_are_17_resnets_and_11_attention_blocks():
    assert len(BLOCKS) == 28
    assert len(ATTENTION_BLOCKS) == 11
    assert set(PAPER_BLOCKS) < set(ATTENTION_BLOCKS)


def test_the_four_blocks_of_the_paper_are_the_modules_it_names():
    assert [BLOCKS[block] for block in PAPER_BLOCKS] == [
        "unet.down_blocks.2.attentions.1",
        "unet.mid_block.attentions.0",
        "unet.up_blocks.0.attentions.0",
        "unet.up_blocks.0.attentions.1",
    ]


def test_the_table_is_complete_and_in_the_order_of_the_unet_forward_pass(pipe, call):
    wanted = {type(pipe.unet.mid_block.resnets[0]), type(pipe.unet.mid_block.attentions[0])}
    codes = {module: f"unet.{name}" for name, module in pipe.unet.named_modules() if type(module) in wanted}
    ran = []
    handles = [module.register_forward_hook(lambda module, *_: ran.append(codes[module])) for module in codes]
    call()
    for handle in handles:
        handle.remove()
    assert ran == list(BLOCKS.values())


def test_find_block_returns_the_named_module(pipe):
    assert find_block(pipe, "down.2.1") is pipe.unet.down_blocks[2].attentions[1]
    assert find_block(pipe, "up.2.r2") is pipe.unet.up_blocks[2].resnets[2]


def test_an_unknown_block_is_refused_with_the_valid_ones(pipe):
    with pytest.raises(ValueError, match=r"unknown block 'down\.9'; valid blocks: down\.0\.r0, .*up\.2\.r2"):
        find_block(pipe, "down.9")


def test_a_unet_without_the_block_is_refused():
    class Other:
        unet = torch.nn.Module()

    with pytest.raises(ValueError, match="no unet.mid_block.attentions.0; wanted SDXL's U-Net"):
        find_block(Other(), "mid.0")


@pytest.mark.parametrize("block", BLOCKS)
def test_grid_and_width_of_a_block_are_those_of_its_update(pipe, call, block):
    with capture_updates(pipe, [block]) as updates:
        call()
    width, height = updates[block].shape[-2:]
    assert (width_of(pipe, block), grid_of(pipe, block), grid_of(pipe, block)) == (
        updates[block].shape[-3],
        height,
        width,
    )


def test_grid_of_a_block_that_is_not_there_is_refused(pipe):
    with pytest.raises(ValueError, match="unknown block 'mid.7'"):
        grid_of(pipe, "mid.7")


def test_a_lone_text_is_one_prompt_and_one_block_wherever_several_are_taken(pipe):
    call, prompt, block = CallSettings(1, 0.0), "a red circle", "mid.0"
    taken = {
        "run_updates": lambda p, b: run_updates(pipe, p, [0], b, call)[block],
        "stream_updates": lambda p, b: next(iter(stream_updates(pipe, p, b, call)))[1][block],
        "TrainingStream": lambda p, b: TrainingStream(pipe, p, b, call)[0][block],
        "draw_pictures": lambda p, _: draw_pictures(pipe, p, call),
        "encode_tokens": lambda p, _: encode_tokens(pipe, p),
        "draw_injected": lambda p, b: draw_injected(pipe, p, b, encode_tokens(pipe, p), call),
        "estimate_injected": lambda p, b: estimate_injected(pipe, p, b, encode_tokens(pipe, p), call),
        "run_pass": lambda p, b: run_pass(pipe, p, call, [0], b, neurons=True).maps["mid.0/ff.0"],
        "draw_edited": lambda p, _: draw_edited(pipe, p, call, [0], {}),
        "measure_transfer": lambda p, _: measure_transfer(pipe, p, call, {block: {"zero": _Zero()}})[block]["zero"].x,
    }
    for name, give in taken.items():
        assert torch.equal(give(prompt, block), give([prompt], [block])), name
    with capture_updates(pipe, block) as updates:
        assert list(updates) == [block]


class _Zero:
    """Reconstructs every update as nothing."""

    def encode(self, x):
        return x[:, :1]

    def decode(self, coefficients):
        return torch.zeros(len(coefficients), 128)
