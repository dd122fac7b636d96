import pytest
import torch

from sae_lib.blocks import ATTENTION_BLOCKS, BLOCKS, SAE_BLOCKS
from sae_lib.interventions import intervene, reconstruct, skip_block
from sae_lib.sae import TopKSAE
from sae_lib.steps import Step
from sae_lib.updates import capture_updates


def unchanged(block_input, block_output, at):
    return block_output


def test_giving_the_output_back_changes_nothing_bit_for_bit(pipe, call):
    plain = call(steps=2, guidance_scale=7.5)
    with intervene(pipe, {block: unchanged for block in BLOCKS}):
        assert torch.equal(call(steps=2, guidance_scale=7.5), plain)


def test_two_images_in_a_row_are_equal(pipe, call):
    def only_at_step_1(block_input, block_output, at):
        return block_input if at.index == 1 else block_output

    with intervene(pipe, {"mid.0": only_at_step_1}):
        first, second = call(steps=3), call(steps=3)
    assert torch.equal(first, second)
    assert not torch.equal(first, call(steps=3))


def test_the_function_is_told_each_step_and_whether_the_call_is_guided(pipe, call):
    told = []

    def listen(block_input, block_output, at):
        told.append((at.index, at.count, at.timestep, at.guided, tuple(block_output.shape)))
        return block_output

    with intervene(pipe, {"down.2.1": listen}):
        call(["a red circle", "a blue square"], steps=2, guidance_scale=7.5)
        call(num_images_per_prompt=3)
    assert told == [
        (0, 2, 999.0, True, (4, 128, 8, 8)),
        (1, 2, 499.0, True, (4, 128, 8, 8)),
        (0, 1, 999.0, False, (3, 128, 8, 8)),
    ]


def test_the_first_half_of_a_guided_batch_is_unconditional(pipe, call):
    halves = []

    def listen(block_input, block_output, at):
        halves.append(block_output - block_input)
        return block_output

    with capture_updates(pipe, ["up.0.0"], guidance="both") as updates, intervene(pipe, {"up.0.0": listen}):
        call(["a red circle", "a blue square"], guidance_scale=7.5)
    torch.testing.assert_close(halves[0].unflatten(0, (2, 2)), updates["up.0.0"][0], atol=1e-5, rtol=1e-4)


def test_a_skipped_attention_block_gives_out_its_input(pipe, call):
    module, seen = pipe.unet.mid_block.attentions[0], []
    with intervene(pipe, {"mid.0": skip_block}):
        handle = module.register_forward_hook(lambda _, args, output: seen.append((args[0], output[0])))
        call()
        handle.remove()
    assert torch.equal(*seen[0])


def test_a_skipped_resnet_gives_out_its_shortcut(pipe, call):
    module, seen = pipe.unet.up_blocks[1].resnets[0], []
    with intervene(pipe, {"up.1.r0": skip_block}):
        handle = module.register_forward_hook(lambda _, args, output: seen.append((args[0], output)))
        call()
        handle.remove()
    assert torch.equal(module.conv_shortcut(seen[0][0]), seen[0][1])


def test_skipping_any_block_changes_the_picture(pipe, call):
    plain = call()
    for block in BLOCKS:
        with intervene(pipe, {block: skip_block}):
            assert not torch.equal(call(), plain), block


def test_several_blocks_at_once_equal_nested_contexts(pipe, call):
    with intervene(pipe, {block: skip_block for block in SAE_BLOCKS}):
        at_once = call()
    half, other_half = {"mid.0": skip_block, "up.0.1": skip_block}, {"down.2.1": skip_block, "up.0.0": skip_block}
    with intervene(pipe, half), intervene(pipe, other_half):
        assert torch.equal(call(), at_once)


def test_the_inner_context_receives_the_outer_one_s_output(pipe, call):
    seen = []

    def listen(block_input, block_output, at):
        seen.append(torch.equal(block_input, block_output))
        return block_output

    with intervene(pipe, {"mid.0": skip_block}), intervene(pipe, {"mid.0": listen}):
        call()
    assert seen == [True]


def test_a_perfect_sae_reconstructs_the_picture(pipe, call):
    sae = TopKSAE(128, 256, 256)  # the pairs +e, -e of the basis: every vector has an exact code
    sae.encoder.weight.data = torch.cat([torch.eye(128), -torch.eye(128)])
    sae.decoder.weight.data = sae.encoder.weight.data.T.clone()
    sae.pre_bias.data.normal_()
    plain = call(["a red circle", "a blue square"], steps=2, guidance_scale=7.5)
    with intervene(pipe, {block: reconstruct(sae) for block in SAE_BLOCKS}):
        torch.testing.assert_close(
            call(["a red circle", "a blue square"], steps=2, guidance_scale=7.5), plain, atol=1e-3, rtol=1e-3
        )


def test_a_reconstruction_is_the_input_plus_what_the_sae_gives():
    sae = TopKSAE(2, 2, 1)
    sae.encoder.weight.data = sae.decoder.weight.data = torch.eye(2)
    block_input = torch.tensor([1.0, 1.0]).reshape(1, 2, 1, 1)
    block_output = torch.tensor([4.0, 3.0]).reshape(1, 2, 1, 1)  # update (3, 2): k = 1 keeps the 3
    assert reconstruct(sae)(block_input, block_output, Step(0, 1, 999.0, False)).flatten().tolist() == [4.0, 1.0]


def test_the_result_has_the_dtype_of_the_unet(pipe, call):
    with intervene(pipe, {"mid.0": lambda block_input, block_output, at: block_output.double()}):
        assert torch.equal(call(), call())
        assert call().dtype == torch.float32


def test_hooks_are_gone_on_exit_and_after_an_exception(pipe, call, hook_count):
    def fail(block_input, block_output, at):
        raise KeyError("inside")

    before, plain = hook_count(), call()
    with pytest.raises(KeyError, match="inside"), intervene(pipe, {block: fail for block in ATTENTION_BLOCKS}):
        assert hook_count() == before + 1 + 11
        call()
    assert hook_count() == before
    assert torch.equal(call(), plain)


def test_an_unknown_block_is_refused_before_any_hook_is_set(pipe, hook_count):
    before = hook_count()
    interventions = {"mid.0": skip_block, "up.9": skip_block}
    with pytest.raises(ValueError, match="unknown block 'up.9'; valid blocks"), intervene(pipe, interventions):
        pass
    assert hook_count() == before


@pytest.mark.parametrize(
    ("fn", "got"),
    [
        (lambda block_input, block_output, at: None, "None"),
        (lambda block_input, block_output, at: block_output[:, :5], r"\[1, 5, 8, 8\]"),
    ],
)
def test_a_result_that_does_not_fit_is_refused(pipe, call, fn, got):
    with (
        intervene(pipe, {"mid.0": fn}),
        pytest.raises(ValueError, match=rf"on 'mid.0' returned {got}, wanted a tensor \[1, 128, 8, 8\]"),
    ):
        call()
