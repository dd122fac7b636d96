import pytest
import torch

from sae_lib.activations.updates import capture_updates, to_maps, to_vectors
from sae_lib.features.interventions import intervene
from sae_lib.models.blocks import ATTENTION_BLOCKS, BLOCKS, PAPER_BLOCKS


def test_vectors_are_the_positions_row_by_row_and_maps_are_their_inverse():
    maps = torch.arange(12.0).reshape(1, 3, 2, 2)  # dimension c of position (i, j) is 4 c + 2 i + j
    assert to_vectors(maps).tolist() == [[0, 4, 8], [1, 5, 9], [2, 6, 10], [3, 7, 11]]
    batch = torch.randn(2, 3, 4, 5)
    assert torch.equal(to_maps(to_vectors(batch), 4, 5), batch)


def test_vectors_of_several_leading_axes_run_over_the_first_one_slowest():
    maps = torch.randn(3, 2, 4, 5, 6)  # [steps, batch, d_model, height, width]
    assert torch.equal(to_vectors(maps), torch.cat([to_vectors(step) for step in maps]))


@pytest.mark.parametrize("guidance_scale", [0.0, 7.5])
def test_an_update_is_output_minus_input_at_all_28_blocks(pipe, call, guidance_scale):
    differences = {block: [] for block in BLOCKS}

    def recorder(block):
        def fn(block_input, block_output, at):
            differences[block].append(
                (block_output - block_input).chunk(2)[-1] if at.guided else block_output - block_input
            )
            return block_output

        return fn

    with capture_updates(pipe, BLOCKS) as updates, intervene(pipe, {block: recorder(block) for block in BLOCKS}):
        call(["a red circle", "a blue square"], steps=2, guidance_scale=guidance_scale)
    for block in BLOCKS:
        torch.testing.assert_close(updates[block], torch.stack(differences[block]), atol=1e-5, rtol=1e-4)


def test_the_updates_are_those_of_the_same_call_without_recording(pipe, call):
    plain = call(steps=2)
    with capture_updates(pipe, ATTENTION_BLOCKS):
        assert torch.equal(call(steps=2), plain)


def test_shapes_are_steps_batch_dimensions_height_width(pipe, call):
    with capture_updates(pipe, PAPER_BLOCKS) as updates:
        call(["a red circle", "a blue square"], steps=3, num_images_per_prompt=2)
    assert list(updates) == list(PAPER_BLOCKS) and len(updates) == 4
    assert {updates[block].shape for block in PAPER_BLOCKS} == {(3, 4, 128, 8, 8)}
    assert [step.index for step in updates.steps] == [0, 1, 2]


def test_height_and_width_are_not_mixed_up(pipe, call):
    with capture_updates(pipe, ["mid.0"]) as updates:
        pipe("a red circle", num_inference_steps=1, guidance_scale=0.0, height=64, width=96, output_type="latent")
    assert updates["mid.0"].shape == (1, 1, 128, 8, 12)


def test_images_of_a_batch_are_kept_apart(pipe, call):
    prompts, noise = ["a red circle", "a blue square"], torch.randn(2, 4, 32, 32)
    with capture_updates(pipe, ["up.0.1"]) as updates:
        call(prompts, latents=noise)
        together = updates["up.0.1"]
        for i, prompt in enumerate(prompts):
            call(prompt, latents=noise[i : i + 1])
            torch.testing.assert_close(updates["up.0.1"][:, 0], together[:, i], atol=1e-4, rtol=1e-4)


def test_both_halves_of_a_guided_call_are_unconditional_first(pipe, call):
    noise = torch.randn(1, 4, 32, 32)
    with capture_updates(pipe, ["mid.0"], guidance="both") as updates:
        call(guidance_scale=7.5, latents=noise)
        both = updates["mid.0"]
    with capture_updates(pipe, ["mid.0"]) as updates:
        call(guidance_scale=7.5, latents=noise)
        conditional = updates["mid.0"]
        call(latents=noise)
        unguided = updates["mid.0"]
    assert both.shape == (1, 2, 1, 128, 8, 8)
    assert torch.equal(both[:, 1], conditional)
    torch.testing.assert_close(conditional, unguided, atol=1e-4, rtol=1e-4)
    assert (both[:, 0] - conditional).abs().max() > 1e-2


def test_a_second_call_replaces_the_first_and_two_equal_calls_are_equal(pipe, call):
    with capture_updates(pipe, ["mid.0"]) as updates:
        call(steps=4)
        four = updates["mid.0"]
        call(steps=1, seed=1)
        assert updates["mid.0"].shape[0] == 1
        call(steps=4)
    assert torch.equal(updates["mid.0"], four)


def test_an_update_is_what_the_block_computes_and_not_an_intervention_on_it(pipe, call):
    with capture_updates(pipe, ["mid.0"]) as updates:
        call()
        plain = updates["mid.0"]
        with intervene(pipe, {"mid.0": lambda block_input, block_output, at: 0 * block_output}):
            call()
    assert torch.equal(updates["mid.0"], plain)


def test_in_16_bit_the_update_is_exact_where_the_difference_is_not(call):
    from sae_lib.pocket.models import build_pipeline

    pipe = build_pipeline("turbo").to(torch.bfloat16)
    pipe.set_progress_bar_config(disable=True)
    seen, difference = [], []
    handle = pipe.unet.mid_block.attentions[0].proj_out.register_forward_hook(lambda *args: seen.append(args[-1]))

    def keep(block_input, block_output, at):
        difference.append(block_output - block_input)
        return block_output

    with capture_updates(pipe, ["mid.0"]) as updates, intervene(pipe, {"mid.0": keep}):
        pipe("a red circle", num_inference_steps=1, guidance_scale=0.0, output_type="latent")
    handle.remove()
    assert updates["mid.0"].dtype == torch.bfloat16
    assert torch.equal(to_vectors(updates["mid.0"]), seen[0].flatten(0, 1))
    assert not torch.equal(updates["mid.0"][0], difference[0])


def test_hooks_are_gone_on_exit_and_after_an_exception(pipe, call, hook_count):
    before = hook_count()
    with capture_updates(pipe, PAPER_BLOCKS):
        assert hook_count() == before + 1 + 2 * 4
    assert hook_count() == before
    with pytest.raises(KeyError), capture_updates(pipe, PAPER_BLOCKS):
        raise KeyError
    assert hook_count() == before


def test_after_a_call_that_died_the_next_one_is_recorded_in_full(pipe, call):
    def die_at_step_1(block_input, block_output, at):
        if at.index == 1:
            raise KeyError
        return block_output

    with capture_updates(pipe, ["down.2.1", "up.0.1"]) as updates:
        with pytest.raises(KeyError), intervene(pipe, {"mid.0": die_at_step_1}):
            call(steps=3)
        with pytest.raises(RuntimeError, match="ran 1 of 3 steps: its updates are incomplete"):
            updates["up.0.1"]
        call(steps=3)
        assert updates["down.2.1"].shape[0] == updates["up.0.1"].shape[0] == 3


def test_reading_before_any_call_is_refused(pipe):
    with (
        capture_updates(pipe, ["mid.0"]) as updates,
        pytest.raises(RuntimeError, match="call the pipeline inside capture_updates"),
    ):
        updates["mid.0"]


def test_reading_a_block_that_is_not_recorded_is_refused(pipe):
    with capture_updates(pipe, ["mid.0"]) as updates, pytest.raises(KeyError, match="'up.0.1' is not recorded"):
        updates["up.0.1"]


def test_an_unknown_block_and_an_unknown_guidance_are_refused(pipe, hook_count):
    before = hook_count()
    with pytest.raises(ValueError, match="unknown block 'up.9'"), capture_updates(pipe, ["mid.0", "up.9"]):
        pass
    with pytest.raises(ValueError, match="unknown guidance 'x'; valid"), capture_updates(pipe, [], guidance="x"):
        pass
    assert hook_count() == before


def test_both_halves_of_a_call_without_guidance_are_refused(pipe, call):
    with (
        capture_updates(pipe, ["mid.0"], guidance="both"),
        pytest.raises(ValueError, match="set guidance_scale above 1"),
    ):
        call()


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_nan_and_infinity_are_refused_with_the_block_and_the_step(pipe, call, bad):
    def break_step_1(module, args, output):
        calls.append(None)
        return output * bad if len(calls) == 2 else output

    calls = []
    handle = pipe.unet.up_blocks[0].attentions[1].proj_out.register_forward_hook(break_step_1)
    with capture_updates(pipe, ["mid.0", "up.0.1"]) as updates:
        call(steps=2)
    handle.remove()
    assert updates["mid.0"].isfinite().all()
    with pytest.raises(ValueError, match="block 'up.0.1' holds NaN or infinity at step 1"):
        updates["up.0.1"]
