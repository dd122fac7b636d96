from types import SimpleNamespace

import accelerate
import pytest
import torch

from sae_lib import inject_prompt
from sae_lib.activations.denoising import CallSettings, run_updates
from sae_lib.activations.drawing import draw_pictures
from sae_lib.activations.recording import record, replay
from sae_lib.activations.steps import Step
from sae_lib.activations.stream import TrainingStream
from sae_lib.activations.updates import capture_updates
from sae_lib.features.interventions import (
    add_features,
    draw_changed,
    during,
    intervene,
    modulate,
    reconstruct,
    replace_with_feature,
    skip_block,
)
from sae_lib.models.blocks import ATTENTION_BLOCKS, BLOCKS, PAPER_BLOCKS, find_block
from sae_lib.pocket.models import build_pipeline
from sae_lib.saes.controls import PCA
from sae_lib.saes.topk import TopKSAE


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
    with intervene(pipe, {block: skip_block for block in PAPER_BLOCKS}):
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
    with intervene(pipe, {block: reconstruct(sae) for block in PAPER_BLOCKS}):
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


ONE = Step(index=0, count=1, timestep=999.0, guided=False)
GUIDED = Step(index=0, count=1, timestep=999.0, guided=True)


@pytest.fixture
def axes():
    """Two features that read and write the first two of three dimensions; k = 1, so the larger one is active."""
    sae = TopKSAE(3, 2, 1)
    sae.encoder.weight.data = torch.eye(2, 3)
    sae.decoder.weight.data = torch.eye(3, 2)
    return sae.requires_grad_(False)


def test_a_feature_is_added_with_its_amount_in_the_mask_alone(axes):
    nothing, mask = torch.zeros(1, 3, 1, 2), torch.tensor([[0.0, 0.5]])
    new = add_features(axes, 1, 4.0, mask)(nothing, nothing, ONE)
    assert new.tolist() == [[[[0, 0]], [[0, 2]], [[0, 0]]]]


def test_each_picture_of_a_batch_has_its_own_feature_and_amount(axes):
    nothing = torch.zeros(2, 3, 1, 1)
    new = add_features(axes, torch.tensor([0, 1]), torch.tensor([2.0, 3.0]))(nothing, nothing, ONE)
    assert new.flatten(1).tolist() == [[2, 0, 0], [0, 3, 0]]


def test_under_guidance_a_feature_is_taken_off_the_unconditional_half(axes):
    nothing = torch.zeros(2, 3, 1, 1)
    assert add_features(axes, 0, 2.0)(nothing, nothing, GUIDED).flatten(1).tolist() == [[-2, 0, 0], [2, 0, 0]]
    alone = add_features(axes, 0, 2.0, guidance="conditional")(nothing, nothing, GUIDED)
    assert alone.flatten(1).tolist() == [[0, 0, 0], [2, 0, 0]]


def test_modulation_adds_the_features_own_map_and_minus_one_removes_it(axes):
    block_input, update = (
        torch.ones(1, 3, 1, 2),
        torch.tensor([5.0, 1.0, 7.0])[None, :, None, None] * torch.tensor([1.0, 0.0]),
    )
    update[0, 1, 0, 1] = 2.0  # the second position has the second feature
    off = modulate(axes, 0, -1.0)(block_input, block_input + update, ONE)
    assert (off - block_input)[0, :, 0].T.tolist() == [[0, 1, 7], [0, 2, 0]]
    ten = modulate(axes, 0, 10.0)(block_input, block_input + update, ONE)
    assert (ten - block_input)[0, 0, 0].tolist() == [55, 0]


def test_modulation_of_a_guided_call_reads_and_changes_the_conditional_half(axes):
    block_input = torch.zeros(2, 3, 1, 1)
    update = torch.tensor([[1.0, 0, 0], [3.0, 0, 0]])[..., None, None]
    assert modulate(axes, 0, 1.0)(block_input, update, GUIDED).flatten(1).tolist() == [[1, 0, 0], [6, 0, 0]]


def test_a_block_replaced_by_a_feature_gives_out_its_input_and_the_feature(axes):
    new = replace_with_feature(axes, 1, 2.0)(torch.ones(1, 3, 1, 2), torch.full((1, 3, 1, 2), 9.0), ONE)
    assert new[0, :, 0].T.tolist() == [[1, 3, 1], [1, 3, 1]]
    halves = replace_with_feature(axes, 1, 2.0)(torch.ones(2, 3, 1, 1), torch.full((2, 3, 1, 1), 9.0), GUIDED)
    assert halves.flatten(1).tolist() == [[1, 1, 1], [1, 3, 1]]


@pytest.mark.parametrize("guidance_scale", [0.0, 7.5])
def test_strength_0_changes_nothing_bit_for_bit(pipe, call, guidance_scale):
    sae = TopKSAE(128, 256, 4)
    plain = call(steps=2, guidance_scale=guidance_scale)
    for fn in (add_features(sae, 3, 0.0), modulate(sae, 3, 0.0)):
        with intervene(pipe, {"mid.0": fn}):
            assert torch.equal(call(steps=2, guidance_scale=guidance_scale), plain)


def test_an_intervention_is_active_in_its_steps_only(axes):
    timed, nothing = during(add_features(axes, 0, 1.0), 1, 3), torch.zeros(1, 3, 1, 1)
    changed = [timed(nothing, nothing, Step(index, 4, 0.0, False)).any().item() for index in range(4)]
    assert changed == [False, True, True, False]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda sae: add_features(sae, 2, 1.0), r"feature \[2\] of an SAE with 2: wanted 0 to 1"),
        (lambda sae: add_features(sae, 0, float("nan")), "amount is .*nan.*: wanted finite numbers"),
        (lambda sae: modulate(sae, 0, float("inf")), "beta is .*inf.*: wanted finite numbers"),
        (lambda sae: add_features(sae, 0, 1.0, guidance="none"), "unknown guidance 'none'; choose 'both' or"),
        (lambda sae: during(skip_block, 2, 2), r"steps \[2, 2\) are no interval"),
    ],
)
def test_an_intervention_without_a_meaning_is_refused(axes, make, message):
    with pytest.raises(ValueError, match=message):
        make(axes)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda sae: add_features(sae, 0, 1.0, torch.ones(3, 3)),
            r"the mask is \[3, 3\]; wanted this block's grid, \[1, 1\]",
        ),
        (lambda sae: during(skip_block, 0, 2), r"steps \[0, 2\) were asked for and the call has 1"),
        (
            lambda sae: add_features(TopKSAE(4, 8, 1), 0, 1.0),
            "the block is 3 wide and the SAE 4: an SAE of another model",
        ),
    ],
)
def test_an_intervention_that_does_not_fit_the_block_is_refused(axes, make, message):
    nothing = torch.zeros(1, 3, 1, 1)
    with pytest.raises(ValueError, match=message):
        make(axes)(nothing, nothing, ONE)


def test_pictures_under_each_change_are_those_of_the_whole_calls(pipe):
    prompts, settings = ["a cat", "a dog", "a red car"], CallSettings(1, 0.0, 0, 2)
    changes = {"none": {}, "one": {"mid.0": skip_block}, "all": dict.fromkeys(BLOCKS, skip_block)}
    drawn = dict(draw_changed(pipe, prompts, settings, changes, [4, 1, 7]))
    assert list(drawn) == list(changes)
    for name, interventions in changes.items():
        with intervene(pipe, interventions):
            assert torch.equal(drawn[name], draw_pictures(pipe, prompts, settings, [4, 1, 7]))


def test_a_pca_replaces_an_update_by_its_reconstruction():
    maps = torch.randn(2, 4, 3, 3, generator=torch.Generator().manual_seed(0))
    pca = PCA(torch.tensor([1.0, 2.0, 3.0, 4.0]), torch.eye(4)[:1])
    new = reconstruct(pca)(torch.zeros_like(maps), maps, Step(0, 1, 0.0, False))
    torch.testing.assert_close(new[:, 0], maps[:, 0])
    assert new[:, 1:].flatten(2).unique(dim=2).flatten().tolist() == [2.0, 3.0, 4.0] * 2


CALL = CallSettings(1, 0.0)


def draw(pipe):
    return draw_pictures(pipe, ["a red circle"], CALL)


def own_pipeline():
    pipe = build_pipeline("turbo", seed=0)
    pipe.set_progress_bar_config(disable=True)
    return pipe


CONTEXTS = {
    "capture_updates": lambda pipe: capture_updates(pipe, ["mid.0"]),
    "intervene": lambda pipe: intervene(pipe, {"mid.0": skip_block}),
    "inject_prompt": lambda pipe: inject_prompt(pipe, {"mid.0": "a blue star"}),
    "record": record,
}


# --- torch.compile ----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def compiled():
    """A pipeline whose U-Net has been compiled and called."""
    pipe = own_pipeline()
    pipe.unet = torch.compile(pipe.unet, backend="eager")
    draw(pipe)
    yield pipe
    torch.compiler.reset()


@pytest.mark.parametrize("name", CONTEXTS)
def test_hooks_on_a_compiled_u_net_are_never_left_out_without_a_word(compiled, name):
    refused = pytest.raises(RuntimeError, match="the U-Net ran and the hooks on .* did not: it was compiled before")
    with refused, CONTEXTS[name](compiled):
        draw(compiled)


def test_after_a_reset_an_intervention_inside_a_compiled_block_has_its_effect():
    pipe = own_pipeline()
    change = {"mid.0/ff.0": lambda block_input, block_output, at: 0 * block_output}  # without annotations to check
    with intervene(pipe, change):
        wanted = draw(pipe)
    find_block(pipe, "mid.0").compile(backend="eager")
    plain = draw(pipe)
    with pytest.raises(RuntimeError, match=r"the hooks on mid\.0/ff\.0 did not"), intervene(pipe, change):
        draw(pipe)
    torch.compiler.reset()
    with intervene(pipe, change):
        assert torch.equal(draw(pipe), wanted) and not torch.equal(wanted, plain)
    torch.compiler.reset()
    assert torch.equal(draw(pipe), plain)


def test_updates_without_a_pipeline_are_not_left_out_either(pipe, monkeypatch):
    answer = SimpleNamespace(sample=torch.zeros(1, 4, 32, 32))
    monkeypatch.setattr(pipe.unet, "forward", lambda *_, **__: answer)  # as if its blocks had no hooks
    with pytest.raises(RuntimeError, match=r"the U-Net ran and the hooks on mid\.0 and 1 more did not"):
        run_updates(pipe, ["a cat"], [0], ["mid.0", "up.0.1"], CALL)


# --- SAEs on another device: "meta" stands for the GPU ----------------------------------------------------------------


def test_an_sae_follows_the_vectors_that_it_is_given():
    sae = TopKSAE(8, 16, 2)
    x = torch.randn(3, 8)
    wanted = sae.encode(x)
    there = sae.encode(x.to("meta"))
    assert there.device.type == sae.pre_bias.device.type == "meta" and there.shape == wanted.shape
    assert sae.decode(there).device.type == "meta"
    other = TopKSAE(8, 16, 2)
    assert other.decode(torch.zeros(3, 16, device="meta")).device.type == "meta"


@pytest.mark.parametrize("guided", [False, True])
@pytest.mark.parametrize("make", [add_features, modulate, replace_with_feature, reconstruct, "PCA"])
def test_what_an_intervention_needs_moves_to_the_block_s_device_once(make, guided):
    sae = TopKSAE(8, 16, 2)
    if make == "PCA":
        fn = reconstruct(PCA(torch.zeros(8), torch.eye(8)[:3]))
    else:
        fn = reconstruct(sae) if make is reconstruct else make(sae, 3, 1.0)
    maps = torch.randn(4, 8, 2, 2)
    at = Step(0, 1, 999.0, guided)
    assert fn(maps, maps + 1, at).device.type == "cpu"
    there = maps.to("meta")
    for _ in range(2):
        new = fn(there, there + 1, at)
        assert new.device.type == "meta" and new.shape == maps.shape


# --- Offloaded pipelines ----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def offloaded():
    """As `enable_sequential_cpu_offload` makes it: the weights come to the execution device for each layer's pass."""
    pipe = own_pipeline()
    for part in (pipe.unet, pipe.vae, pipe.text_encoder, pipe.text_encoder_2):
        accelerate.cpu_offload(part, execution_device=torch.device("cpu"))
    assert pipe.unet.device.type == "meta"
    return pipe


def test_an_offloaded_pipeline_gives_the_updates_of_one_that_is_not(offloaded):
    two = CallSettings(2, 0.0)
    here, there = (run_updates(pipe, ["a cat"], [0], ["mid.0"], two)["mid.0"] for pipe in (own_pipeline(), offloaded))
    assert torch.equal(here, there)
    portion = TrainingStream(offloaded, ["a cat"] * 4, ["mid.0", "up.0.1"], CALL)[0]
    assert {block: x.device.type for block, x in portion.items()} == {"mid.0": "cpu", "up.0.1": "cpu"}


@pytest.mark.parametrize("name", CONTEXTS)
def test_an_offloaded_pipeline_runs_with_hooks_and_is_as_it_was_afterwards(offloaded, name):
    plain = draw(offloaded)
    with record(offloaded) as recording:
        draw(offloaded)
    with CONTEXTS[name](offloaded):
        changed = draw(offloaded)
    assert torch.equal(changed, plain) == (name in ("capture_updates", "record"))
    with replay(offloaded, recording, ["up.0.1"]):
        assert torch.equal(draw(offloaded), plain)
    assert torch.equal(draw(offloaded), plain)
