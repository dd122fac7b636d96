"""FLUX behind the same interface as SDXL: blocks, recorded and streamed updates, interventions, refusals."""

import json

import pytest
import torch

from sae_lib.activations.denoising import CallSettings, run_updates
from sae_lib.activations.drawing import draw_pictures
from sae_lib.activations.stream import TrainingStream
from sae_lib.activations.updates import capture_updates
from sae_lib.assets import FLUX_MODELS, Assets
from sae_lib.editing.bases import WholeUpdate
from sae_lib.editing.transport import draw_edited, run_pass, transport
from sae_lib.features.injection import (
    by_reader,
    draw_injected,
    encode_tokens,
    estimate_injected,
    inject_prompt,
)
from sae_lib.features.interventions import add_features, during, intervene, skip_block
from sae_lib.models.blocks import blocks_of, find_block, grid_of, select_blocks, width_of
from sae_lib.pocket.models import build_flux_pipeline, build_pipeline
from sae_lib.saes.checkpoints import load_saes
from sae_lib.saes.exchange import load_from_hub, load_sdxl_unbox
from sae_lib.saes.topk import TopKSAE
from sae_lib.training.recipe import TrainingRun

PROMPTS = ["a red circle", "", "a green star at night"]
ONE, FOUR = CallSettings(1, 0.0, seed=7), CallSettings(4, 0.0, seed=7, batch_size=2)


@pytest.fixture(scope="module")
def flux():
    pipe = build_flux_pipeline()
    pipe.set_progress_bar_config(disable=True)
    return pipe


def test_its_blocks_are_the_double_ones_then_the_single_ones_on_one_grid(flux):
    assert list(blocks_of(flux)) == [f"double.{n}" for n in range(4)] + [f"single.{n}" for n in range(6)]
    assert find_block(flux, "single.5") is flux.transformer.single_transformer_blocks[5]
    assert {(grid_of(flux, block), width_of(flux, block)) for block in blocks_of(flux)} == {(8, 96)}


@pytest.mark.parametrize("settings", [ONE, FOUR])
def test_streamed_updates_are_those_of_a_pipeline_call(flux, settings):
    blocks = ["double.0", "double.3", "single.5"]
    ours = run_updates(flux, PROMPTS, range(3), blocks, settings)
    with capture_updates(flux, blocks) as theirs:
        draw_pictures(flux, PROMPTS, CallSettings(settings.steps, 0.0, seed=7))
    assert [step.timestep for step in theirs.steps] == [1000 * (1 - n / settings.steps) for n in range(settings.steps)]
    for block in blocks:
        assert ours[block].shape == (settings.steps, 3, 96, 8, 8)
        torch.testing.assert_close(ours[block].clone(), theirs[block], atol=1e-4, rtol=1e-4)


def test_the_updates_of_all_blocks_and_the_embedded_noise_sum_to_what_the_last_layer_reads(flux):
    seen = {}
    hooks = [
        flux.transformer.x_embedder.register_forward_hook(lambda _m, _a, output: seen.update(first=output)),
        flux.transformer.norm_out.register_forward_pre_hook(lambda _m, args: seen.update(last=args[0])),
    ]
    with capture_updates(flux, blocks_of(flux)) as updates:
        draw_pictures(flux, PROMPTS[:1], ONE)
    for hook in hooks:
        hook.remove()
    total = sum(updates[block][0] for block in updates).flatten(2).mT
    torch.testing.assert_close(seen["first"] + total, seen["last"], atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("block", ["double.3", "single.2"])
def test_a_skipped_block_gives_its_image_stream_on_and_keeps_its_text_stream(flux, block):
    streams = []
    module = find_block(flux, block)
    with intervene(flux, {block: skip_block}):
        hook = module.register_forward_hook(lambda _m, _a, kw, out: streams.append((kw, out)), with_kwargs=True)
        skipped = draw_pictures(flux, PROMPTS[:1], ONE)
        hook.remove()
    ((inputs, (text, image)),) = streams
    torch.testing.assert_close(image, inputs["hidden_states"])
    assert not torch.equal(text, inputs["encoder_hidden_states"])
    assert not torch.equal(skipped, draw_pictures(flux, PROMPTS[:1], ONE))
    assert not module._forward_hooks


def test_a_recorded_update_is_what_the_block_computes_whatever_an_intervention_gives_out(flux):
    with intervene(flux, {"double.3": skip_block}), capture_updates(flux, "double.3") as updates:
        draw_pictures(flux, PROMPTS[:1], ONE)
    assert updates["double.3"].abs().max() > 0


def test_a_feature_is_added_inside_its_mask_at_the_steps_asked_for(flux):
    sae = TopKSAE(96, 384, 20)
    mask = torch.zeros(8, 8)
    mask[2, 5] = 1
    added = []
    listen = lambda _input, block_output, at: added.append((at.index, block_output)) or block_output
    in_between = during(add_features(sae, 3, 2.0, mask), 1, 3)
    with intervene(flux, {"double.3": in_between}), intervene(flux, {"double.3": listen}):
        draw_pictures(flux, PROMPTS[:1], FOUR)
    with intervene(flux, {"double.3": listen}):
        draw_pictures(flux, PROMPTS[:1], FOUR)
    moved = [not torch.equal(changed, own) for (_, changed), (_, own) in zip(added[:4], added[4:], strict=True)]
    assert moved == [False, True, True, True]  # the last step starts from changed latents
    heard = {}
    add = intervene(flux, {"double.3": add_features(sae, 3, 2.0, mask)})
    with add, intervene(flux, {"double.3": lambda _i, out, _at: heard.update(after=out) or out}):
        draw_pictures(flux, PROMPTS[:1], ONE)
    with intervene(flux, {"double.3": lambda _i, out, _at: heard.update(before=out) or out}):
        draw_pictures(flux, PROMPTS[:1], ONE)
    change = heard["after"] - heard["before"]
    torch.testing.assert_close(change[0, :, 2, 5], 2 * sae.decoder.weight[:, 3].detach(), atol=1e-5, rtol=1e-4)
    assert change[:, :, 3:].abs().max() == 0


def test_the_training_stream_knows_what_it_is_made_of(flux):
    stream = TrainingStream(flux, PROMPTS, ["double.3"], ONE)
    assert stream[0]["double.3"].shape == (3 * 64, 96)
    pipeline = stream.description["pipeline"]
    assert set(pipeline["weights"]) == {"transformer", "text_encoder", "text_encoder_2"}
    assert pipeline["resolution"] == [64, 64]


@pytest.mark.parametrize(
    ("use", "says"),
    [
        (lambda flux: find_block(flux, "mid.0"), "block 'mid.0' is one of SDXL's and this pipeline has FLUX's"),
        (
            lambda flux: find_block(flux, "double.7"),
            "this pipeline has no transformer.transformer_blocks.7; wan",
        ),
        (lambda _: find_block(build_pipeline(), "double.3"), "block 'double.3' is one of FLUX's and this pipeline has"),
        (
            lambda flux: draw_pictures(flux, PROMPTS, CallSettings(1, 4.0)),
            "guidance_scale is 4.0 and FLUX-schnell draws without guidance: wanted 0.0",
        ),
        (lambda flux: run_updates(flux, PROMPTS, range(3), "double.3", CallSettings(1, 4.0)), "wanted 0.0"),
        (lambda flux: draw_pictures(flux, "a red " * 30 + "circle", ONE), "has 62 tokens and T5 reads 40: shorten it"),
    ],
)
def test_what_flux_cannot_do_is_refused_in_a_sentence(flux, use, says):
    with pytest.raises(ValueError, match=says):
        use(flux)


def test_an_sae_of_sdxl_is_refused_on_flux(flux):
    sae = TopKSAE(128, 512, 16)
    add = intervene(flux, {"double.3": add_features(sae, 3, 2.0)})
    with pytest.raises(ValueError, match="the block is 96 wide and the SAE 128: an SAE of another model"), add:
        draw_pictures(flux, PROMPTS[:1], ONE)


OTHERS = ["a blue square", "a large yellow heart", ""]


def test_where_all_blocks_read_another_prompt_its_picture_is_drawn(flux):
    own, theirs = draw_pictures(flux, PROMPTS, FOUR), draw_pictures(flux, OTHERS, FOUR)
    with inject_prompt(flux, dict.fromkeys(blocks_of(flux), OTHERS[:2])):
        torch.testing.assert_close(draw_pictures(flux, PROMPTS[:2], FOUR), theirs[:2], atol=1e-4, rtol=1e-4)
    assert not torch.allclose(own, theirs, atol=1e-3)


def test_one_block_that_reads_another_prompt_changes_its_own_update_and_no_update_before_it(flux):
    with capture_updates(flux, blocks_of(flux)) as updates:
        draw_pictures(flux, PROMPTS[:1], ONE)
        before = {block: updates[block] for block in updates}
        with inject_prompt(flux, {"double.2": OTHERS[0]}):
            draw_pictures(flux, PROMPTS[:1], ONE)
    moved = {block: (updates[block] - before[block]).abs().max().item() for block in updates}
    assert max(moved["double.0"], moved["double.1"]) == 0 < moved["double.2"]


def test_the_text_stream_of_the_other_prompt_is_that_of_its_own_run(flux):
    """By hand: the other prompt's text stream is recorded in its own call and handed to the block."""
    seen = {}
    module = find_block(flux, "double.2")
    keep = lambda _m, _a, kw: seen.update(text=kw["encoder_hidden_states"])
    handle = module.register_forward_pre_hook(keep, with_kwargs=True)
    draw_pictures(flux, OTHERS[:1], ONE)
    handle.remove()
    hand_over = lambda _m, _a, kw: ((), kw | {"encoder_hidden_states": seen["text"]})
    handle = module.register_forward_pre_hook(hand_over, with_kwargs=True)
    with capture_updates(flux, "double.2") as by_hand:
        draw_pictures(flux, PROMPTS[:1], ONE)
    handle.remove()
    with inject_prompt(flux, {"double.2": OTHERS[0]}), capture_updates(flux, "double.2") as updates:
        draw_pictures(flux, PROMPTS[:1], ONE)
    torch.testing.assert_close(updates["double.2"], by_hand["double.2"], atol=1e-5, rtol=1e-5)


def test_groups_of_readers_are_drawn_by_replay_as_they_are_without(flux):
    tokens = encode_tokens(flux, OTHERS)
    drawn = dict(by_reader(draw_injected, flux, PROMPTS, OTHERS, {"late": ["single.1", "single.4"]}, FOUR))
    alone = draw_injected(flux, PROMPTS, ["single.1", "single.4"], tokens, FOUR)
    torch.testing.assert_close(drawn["late"], alone, atol=1e-6, rtol=0)
    assert torch.equal(drawn["nothing"], draw_pictures(flux, PROMPTS, FOUR))
    estimated = estimate_injected(flux, PROMPTS, (), tokens, ONE)
    assert estimated.shape == (3, 32, 8, 8)


def test_nothing_is_left_behind_on_flux(flux):
    inject = inject_prompt(flux, {"double.1": OTHERS[:2]})
    with pytest.raises(ValueError, match="was given 2 prompts and the call draws 3 pictures"), inject:
        draw_pictures(flux, PROMPTS, ONE)
    for module in flux.transformer.modules():
        assert not module._forward_hooks and not module._forward_pre_hooks and "forward" not in vars(module)


def test_words_and_codes_name_flux_s_blocks():
    assert select_blocks("paper", "pocket", "flux") == ("double.3",)
    assert select_blocks("", "sdxl", "flux") == ("double.18",)
    assert select_blocks("single.0, double.3", "pocket", "flux") == ("single.0", "double.3")
    for blocks, architecture in (("mid.0", "flux"), ("double.3", "sdxl")):
        with pytest.raises(ValueError, match=f"unknown block '{blocks}'; choose"):
            select_blocks(blocks, "pocket", architecture)
    with pytest.raises(ValueError, match="unknown architecture 'unet'; choose one of sdxl, flux"):
        select_blocks("paper", "pocket", "unet")


def test_the_rehearsal_trains_the_paper_s_sae_of_the_last_double_block(tmp_path):
    run = TrainingRun("sdxl", "flux", "random/16", prompts=2, batch_size=2, kinds=("panel",))
    assert run.blocks == ("double.18",)
    (config,) = run.train(tmp_path)
    assert (config.d_model, config.k, config.n_f) == (192, 20, 768)
    (sae,) = load_saes("panel", "sdxl", tmp_path, blocks="double.18").values()
    assert sae.d_model == 192
    assert json.loads(next(tmp_path.glob("*/diffusion.json")).read_text())["hook"] == (
        "transformer.transformer_blocks.18, output[1] - hidden_states"
    )


def test_the_assets_of_flux_draw_in_one_and_in_four_steps():
    assets = Assets("sdxl", "random/16", architecture="flux")
    assert assets.models == FLUX_MODELS and assets.blocks == ("double.18",) and assets.main == "flux"
    assert assets.call("FLUX, 4 steps")[1].steps == 4
    saes = assets.with_blocks("single.3").saes()
    assert (saes["single.3"].k, saes["single.3"].n_f) == (20, 768)
    with pytest.raises(ValueError, match="unknown model 'base'; choose one of 'FLUX, 1 step', 'FLUX, 4 steps'"):
        assets.call("base")


def test_the_author_s_checkpoint_of_flux_is_the_only_one_and_needs_no_wrapping(tmp_path):
    sae = TopKSAE(96, 384, 20)
    torch.save(dict(sae.state_dict()), tmp_path / "state_dict.pth")
    (tmp_path / "config.json").write_text(json.dumps({"n_dirs_local": 384, "d_model": 96, "k": 20}))
    loaded, mean, _ = load_sdxl_unbox(tmp_path)
    assert torch.equal(loaded.decoder.weight, sae.decoder.weight) and mean is None
    with pytest.raises(ValueError, match=r"SAE_flux_18 has one SAE, of block 'double.18' with k = 20 and n_f = 12288"):
        load_from_hub("antoniomari/SAE_flux_18", "double.3")


def test_an_edit_with_all_units_of_all_blocks_of_the_other_prompt_draws_its_picture(flux):
    """Transport of whole updates everywhere at one step: the streams' sums are the other pass's, but for its text."""
    blocks = list(blocks_of(flux))
    source, target = (run_pass(flux, prompts, ONE, range(3), blocks) for prompts in (OTHERS, PROMPTS))
    everywhere = {8: (torch.ones(3, 8, 8, dtype=torch.bool),) * 2}
    change = transport(WholeUpdate(), source.maps, target.maps, None, everywhere)
    last = {"single.5": sum(change.maps.values())}  # added behind the last block: it cannot be answered by later ones
    edited = draw_edited(flux, PROMPTS, ONE, range(3), last)
    torch.testing.assert_close(edited, source.pictures, atol=1e-3, rtol=1e-3)


def test_the_neurons_of_a_double_block_are_read_and_moved_and_a_single_block_s_are_refused(flux):
    ran = run_pass(flux, PROMPTS, FOUR, range(3), ["double.3"], neurons=True)
    assert ran.maps["double.3/ff.0"].shape == (4, 3, 384, 8, 8)
    changed = draw_edited(flux, PROMPTS, FOUR, range(3), {"double.3/ff.0": ran.maps["double.3/ff.0"]})
    assert not torch.equal(changed, ran.pictures)
    with pytest.raises(ValueError, match="block 'single.1' has no feed-forward layer of the image stream alone"):
        run_pass(flux, PROMPTS, ONE, range(3), ["single.1"], neurons=True)
