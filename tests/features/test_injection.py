"""Another prompt's tokens in single blocks, what they carry, and the rule that chooses blocks by it."""

import json
from difflib import SequenceMatcher
from unittest.mock import Mock

import pytest
import torch

from notebooks.experiments.pocket import choose
from sae_lib import inject_prompt
from sae_lib.activations.denoising import CallSettings
from sae_lib.activations.drawing import draw_pictures
from sae_lib.features.injection import by_reader, draw_injected, encode_tokens, share_carried, share_of_way
from sae_lib.models.blocks import ATTENTION_BLOCKS
from sae_lib.pocket import chosen
from sae_lib.pocket.captions import minimal_pairs
from sae_lib.pocket.statements import FAMILIES

A, B = "a large red star on the left", "a small blue circle at night"


def test_a_prompt_of_its_own_changes_nothing_and_another_does_in_every_block(pipe, call):
    plain = call(A, steps=2, guidance_scale=4.0)
    with inject_prompt(pipe, dict.fromkeys(ATTENTION_BLOCKS, A)):
        torch.testing.assert_close(call(A, steps=2, guidance_scale=4.0), plain)
    for block in ATTENTION_BLOCKS:
        with inject_prompt(pipe, {block: B}):
            assert not torch.equal(call(A), call(A, seed=1))
            assert (call(A) - plain).abs().max() > 0


def test_in_all_blocks_only_the_pooled_embedding_is_left_of_the_first_prompt(pipe, call):
    own, _, pooled, _ = pipe.encode_prompt(A, do_classifier_free_guidance=False)
    theirs = pipe.encode_prompt(B, do_classifier_free_guidance=False)[0]
    with inject_prompt(pipe, dict.fromkeys(ATTENTION_BLOCKS, B)):
        injected = call(A)
    told = call(prompt=None, prompt_embeds=theirs, pooled_prompt_embeds=pooled)
    torch.testing.assert_close(injected, told)
    assert not torch.allclose(injected, call(prompt=None, prompt_embeds=own, pooled_prompt_embeds=pooled))


def test_the_unconditional_half_is_left_alone(pipe, call):
    """With guidance g the latent is free + g (told - free): at g = 2 another prompt moves it
    twice as far as without."""
    moved = []
    for scale in (1.5, 2.5):
        plain = call(A, guidance_scale=scale)
        with inject_prompt(pipe, {"up.0.1": B}):
            moved.append(call(A, guidance_scale=scale) - plain)
    torch.testing.assert_close(moved[1], moved[0] * 2.5 / 1.5, atol=1e-3, rtol=1e-2)


def test_each_picture_may_read_another_prompt_whatever_the_batch(pipe):
    prompts, others = [A, B, A], [B, A, "a green heart"]
    tokens = encode_tokens(pipe, others)
    together, parts = (
        draw_injected(pipe, prompts, ["up.0.1"], tokens, CallSettings(1, 0.0, batch_size=size)) for size in (3, 2)
    )
    torch.testing.assert_close(together, parts, atol=1e-4, rtol=1e-4)
    settings = CallSettings(1, 0.0, batch_size=3)
    assert torch.equal(draw_injected(pipe, prompts, [], tokens, settings), draw_pictures(pipe, prompts, settings))


def test_the_hooks_go_when_the_call_fails(pipe, call, hook_count):
    before = hook_count()
    refused = pytest.raises(ValueError, match="given 2 prompts and the call draws 1 pictures")
    with refused, inject_prompt(pipe, {"mid.0": [A, B]}):
        call(A)
    assert hook_count() == before


def test_a_block_that_reads_no_prompt_is_refused(pipe):
    refused = pytest.raises(ValueError, match="block 'mid.r0' reads no prompt; blocks with cross-attention: down.1.0")
    with refused, inject_prompt(pipe, {"mid.r0": A}):
        pass


def test_the_share_is_0_at_the_floor_1_at_the_ceiling_and_0_where_nothing_is_to_be_had():
    floor, ceiling = torch.tensor([0.2, 0.2, 0.5]), torch.tensor([0.7, 0.7, 0.5])
    found = torch.tensor([0.2, 0.45, 0.5])
    assert share_carried(found, floor, ceiling).tolist() == pytest.approx([0, 0.5, 0])


def test_the_share_of_the_way_counts_the_direction_alone():
    start, end = torch.zeros(3, 2, 1, 1), torch.tensor([2.0, 0.0]).view(1, 2, 1, 1).expand(3, -1, -1, -1)
    moved = torch.tensor([[1.0, 0.0], [1.0, 5.0], [0.0, 9.0]]).view(3, 2, 1, 1)
    assert share_of_way(start, moved, end).tolist() == [0.5, 0.5, 0.0]


def test_pairs_differ_in_one_value_and_in_no_other_word():
    for name, pairs in minimal_pairs(5, seed=3).items():
        assert len(pairs) == 5
        for first, second in pairs:
            changed = SequenceMatcher(None, first.split(), second.split()).get_opcodes()
            assert sum(kind != "equal" for kind, *_ in changed) in (1, 2), (name, first, second)


# --- the rule ---------------------------------------------------------------------------------------------------------


def test_the_order_begins_with_the_block_that_carries_most_and_goes_on_jointly():
    """Two blocks that only together carry something come after one that does alone."""

    def share_of(blocks):
        alone = torch.tensor([0.5, 0.0]) * ("up.1.2" in blocks)
        return alone + torch.tensor([0.0, 1.0]) * ({"mid.0", "up.0.0"} <= set(blocks)) + 0.01 * ("mid.0" in blocks)

    order = [block for block, _ in choose.order_blocks(share_of)]
    assert order[:3] == ["up.1.2", "mid.0", "up.0.0"] and sorted(order) == sorted(ATTENTION_BLOCKS)


@pytest.mark.parametrize(
    ("shares", "chosen"),
    [
        ([[0.5, 0.5], [0.9, 0.3], [0.9, 0.8], [1.0, 1.0]], 3),  # the mean alone is not enough
        ([[0.9, 0.8]], 1),
        ([[0.1, 0.1]] * 11, choose.MOST),
    ],
)
def test_chosen_is_the_shortest_prefix_that_carries_enough(shares, chosen):
    path = list(zip(ATTENTION_BLOCKS, map(torch.tensor, shares), strict=False))
    assert choose.prefix_of(path) == list(ATTENTION_BLOCKS[:chosen])


def test_the_stored_choice_is_the_rules_and_holds_on_captions_that_it_never_saw():
    from sae_lib import load_judge, load_pipeline
    from sae_lib.models.prompts import load_pocket_captions

    record = chosen.load_choice()
    path = [(step["block"], torch.tensor(list(step["share"].values()))) for step in record["path"]]
    assert record["chosen"] == choose.prefix_of(path) and len(path) == len(ATTENTION_BLOCKS)
    assert record["rule"] == {"mean": choose.WANTED_MEAN, "least": choose.WANTED_LEAST, "most": choose.MOST}
    captions, pipe, judge = load_pocket_captions(40, "held-out"), load_pipeline("turbo"), load_judge()
    share = choose.shares_on(pipe, judge, captions, CallSettings(1, 0.0, batch_size=16))(record["chosen"])
    stored = torch.tensor([dict(path)[record["chosen"][-1]].mean()])
    assert abs(share.mean() - stored.item()) < 0.15, dict(zip(FAMILIES, share.tolist(), strict=True))


def test_a_choice_made_for_other_weights_or_none_is_refused_with_the_way_out(tmp_path, monkeypatch):
    monkeypatch.setitem(chosen.BLOCKS_FILES, "sdxl", tmp_path / "chosen_blocks.json")
    with pytest.raises(
        FileNotFoundError,
        match="no blocks were chosen .* choose with `python -m notebooks.experiments.pocket.train blocks`",
    ):
        chosen.load_choice()
    chosen.BLOCKS_FILES["sdxl"].write_text(json.dumps({"unet": "another", "chosen": [], "path": []}))
    with pytest.raises(ValueError, match="chosen for another U-Net"):
        chosen.load_choice()


def test_each_group_of_readers_draws_as_it_does_alone(pipe):
    prompts, others, settings = [A, B, A], [B, A, A], CallSettings(1, 0.0, 0, 2)
    readers = {"late": ("up.1.0",), "all": ATTENTION_BLOCKS}
    drawn = dict(by_reader(draw_injected, pipe, prompts, others, readers, settings))
    assert list(drawn) == ["nothing", "late", "all"]
    assert torch.equal(drawn["nothing"], draw_pictures(pipe, prompts, settings))
    for name, blocks in readers.items():
        alone = draw_injected(pipe, prompts, blocks, encode_tokens(pipe, others), settings)
        assert torch.equal(drawn[name], alone)


def test_no_hook_outlives_a_drawing_that_died_even_while_its_traceback_is_kept(pipe, monkeypatch):
    monkeypatch.setattr("sae_lib.features.injection.draw_pictures", Mock(side_effect=KeyboardInterrupt))
    tokens = encode_tokens(pipe, ["a green star"])
    with pytest.raises(KeyboardInterrupt) as kept:
        draw_injected(pipe, ["a red circle"], ["mid.0"], tokens, CallSettings(1, 0.0))
    hooks = [name for name, module in pipe.unet.named_modules() if module._forward_pre_hooks]
    assert kept.traceback and hooks == [] and "progress_bar" not in vars(pipe)
