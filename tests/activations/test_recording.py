"""A call that is begun in the middle draws, bit for bit, what one from the beginning draws."""

import pytest
import torch

from sae_lib.activations.denoising import CallSettings
from sae_lib.activations.drawing import draw_pictures
from sae_lib.activations.recording import record, replay
from sae_lib.features.injection import draw_injected, encode_tokens
from sae_lib.features.interventions import during, intervene
from sae_lib.models.blocks import ATTENTION_BLOCKS, find_block

PROMPTS = ["a red circle", "a blue square at night"]


def push(block_input, block_output, at):
    return block_output + 0.5


def draw(pipe, steps=1):
    return draw_pictures(pipe, PROMPTS, CallSettings(steps, 0.0, 3, 4))


def computed(pipe, block):
    """How often a block's inside runs while `draw` draws."""
    ran = []
    handle = next(find_block(pipe, block).children()).register_forward_hook(lambda *_: ran.append(1))
    draw(pipe)
    handle.remove()
    return len(ran)


@pytest.mark.parametrize("block", ATTENTION_BLOCKS)
def test_a_replayed_edit_is_the_edit(pipe, block):
    with record(pipe) as recording:
        plain = draw(pipe)
    with intervene(pipe, {block: push}):
        wanted = draw(pipe)
        with replay(pipe, recording, [block]):
            assert torch.equal(draw(pipe), wanted)
    assert not torch.equal(plain, wanted) and torch.equal(draw(pipe), plain)


@pytest.mark.parametrize("blocks", [["down.2.0"], ["up.1.2", "up.0.1"]])
def test_replayed_tokens_of_another_prompt_are_those_tokens(pipe, blocks):
    others, settings = encode_tokens(pipe, PROMPTS[::-1]), CallSettings(1, 0.0, 3, 4)
    with record(pipe) as recording:
        plain = draw_injected(pipe, PROMPTS, (), others, settings)
    wanted = draw_injected(pipe, PROMPTS, blocks, others, settings)
    with replay(pipe, recording, blocks):
        assert torch.equal(draw_injected(pipe, PROMPTS, blocks, others, settings), wanted)
    assert not torch.equal(plain, wanted)


def test_a_recording_holds_no_part_of_its_pipeline(pipe):
    with record(pipe) as recording:
        draw(pipe)
    assert all(isinstance(name, str) for call in recording.calls for step in call for name in step)


@pytest.mark.parametrize("start", [0, 1, 3])
def test_several_steps_are_replayed_until_the_first_change(pipe, start):
    with record(pipe) as recording:
        draw(pipe, 4)
    with intervene(pipe, {"up.0.1": during(push, start, 4), "up.1.2": during(push, start, 4)}):
        wanted = draw(pipe, 4)
        with replay(pipe, recording, ["up.1.2", "up.0.1"], start):
            assert torch.equal(draw(pipe, 4), wanted)


def test_only_what_a_change_can_reach_is_computed(pipe):
    with record(pipe) as recording:
        draw(pipe)
    counts = []
    for block in ("down.0.r0", "mid.0", "up.0.0", "up.0.1", "up.1.2"):
        with replay(pipe, recording, ["up.0.1"]):
            counts.append(computed(pipe, block))
    assert counts == [0, 0, 0, 1, 1]


def test_several_calls_are_replayed_in_their_order(pipe):
    texts, settings = [*PROMPTS, "a green star"], CallSettings(1, 0.0, 3, 2)
    with record(pipe) as recording:
        draw_pictures(pipe, texts, settings)
    with intervene(pipe, {"up.0.1": push}):
        wanted = draw_pictures(pipe, texts, settings)
        with replay(pipe, recording, ["up.0.1"]):
            assert torch.equal(draw_pictures(pipe, texts, settings), wanted)
            with pytest.raises(ValueError, match="the recorded call has 0 steps and this one 1"):
                draw(pipe)


def test_the_pipeline_is_as_it_was_after_an_error(pipe):
    with record(pipe) as recording:
        plain = draw(pipe)
    with (
        pytest.raises(ValueError, match="the recorded call has 1 steps and this one 4"),
        replay(pipe, recording, ["mid.0"]),
    ):
        draw(pipe, 4)
    assert torch.equal(draw(pipe), plain)
    assert not [name for name, part in pipe.unet.named_modules() if "forward" in vars(part)]
