"""Running the U-Net without the pipeline gives what a pipeline call gives."""

import pytest
import torch
from diffusers import DPMSolverMultistepScheduler

from sae_lib.activations.denoising import CallSettings, run_updates, stream_updates
from sae_lib.activations.drawing import draw_pictures
from sae_lib.activations.updates import capture_updates
from sae_lib.features.interventions import intervene
from sae_lib.models.blocks import PAPER_BLOCKS, find_block
from sae_lib.models.noise import prompt_generator
from sae_lib.pocket.models import build_pipeline

PROMPTS = ["a red circle", "", "a green star"]


@pytest.fixture(scope="module")
def base():
    pipe = build_pipeline("base", seed=0)
    pipe.set_progress_bar_config(disable=True)
    return pipe


def by_the_pipeline(pipe, settings, generator, prompts=PROMPTS, blocks=PAPER_BLOCKS):
    with capture_updates(pipe, blocks) as updates:
        pipe(
            prompts,
            num_inference_steps=settings.steps,
            guidance_scale=settings.guidance_scale,
            generator=generator,
            output_type="latent",
        )
    return updates


def assert_same(ours, theirs):
    for block in theirs:
        torch.testing.assert_close(ours[block].clone(), theirs[block], atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("steps", [1, 3])
def test_turbo_s_updates_are_those_of_a_pipeline_call(pipe, steps):
    settings = CallSettings(steps, 0.0, seed=7)
    theirs = by_the_pipeline(pipe, settings, [prompt_generator(7, i) for i in range(3)])
    assert_same(run_updates(pipe, PROMPTS, range(3), PAPER_BLOCKS, settings), theirs)


def test_the_guided_base_model_s_updates_are_the_conditional_half_of_a_pipeline_call(base):
    settings = CallSettings(3, 5.0, seed=7)
    theirs = by_the_pipeline(base, settings, [prompt_generator(7, i) for i in range(3)])
    assert_same(run_updates(base, PROMPTS, range(3), PAPER_BLOCKS, settings), theirs)


@pytest.mark.parametrize("called_before", [None, 1, 50])
def test_what_the_pipeline_ran_before_changes_nothing(base, called_before):
    base.scheduler = type(base.scheduler).from_config(base.scheduler.config)  # as a pipeline comes from its files
    settings = CallSettings(3, 5.0, seed=7)
    if called_before:
        base.scheduler.set_timesteps(called_before)
    ours = run_updates(base, PROMPTS, range(3), PAPER_BLOCKS, settings)
    assert_same(ours, by_the_pipeline(base, settings, [prompt_generator(7, i) for i in range(3)]))


def test_the_authors_batches_of_50_are_a_pipeline_call_with_one_generator(pipe):
    settings = CallSettings(2, 0.0, noise="batch of 50")
    prompts = [f"a red circle {number}" for number in range(50)]
    theirs = by_the_pipeline(pipe, settings, torch.Generator().manual_seed(1), prompts, ["mid.0"])
    ours = run_updates(pipe, prompts[20:23], range(70, 73), ["mid.0"], settings)
    torch.testing.assert_close(ours["mid.0"].clone(), theirs["mid.0"][:, 20:23], atol=1e-4, rtol=1e-4)


def test_the_u_net_stops_behind_the_last_block_in_the_last_step(pipe):
    runs = []
    handles = [
        find_block(pipe, block).register_forward_hook(lambda *_, block=block: runs.append(block))
        for block in ("down.2.1", "mid.0", "up.0.0", "up.2.r2")
    ]
    try:
        run_updates(pipe, PROMPTS[:1], [0], ["mid.0", "down.2.1"], CallSettings(2, 0.0))
    finally:
        for handle in handles:
            handle.remove()
    assert runs == ["down.2.1", "mid.0", "up.0.0", "up.2.r2", "down.2.1", "mid.0"]


def test_no_hook_and_no_step_is_left_behind(pipe, hook_count, call):
    before, wanted = hook_count(), call()
    pipe.scheduler.set_timesteps(4)
    for _ in stream_updates(pipe, PROMPTS, ["mid.0"], CallSettings(2, 0.0, batch_size=2)):
        assert hook_count() == before
    assert len(pipe.scheduler.timesteps) == 4
    assert torch.equal(call(), wanted)


def test_hooks_are_gone_after_an_exception(pipe, hook_count, monkeypatch):
    before = hook_count()
    broken = find_block(pipe, "up.0.0")
    monkeypatch.setattr(broken, "forward", lambda *_, **__: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        run_updates(pipe, PROMPTS, range(3), PAPER_BLOCKS, CallSettings(1, 0.0))
    assert hook_count() == before


def test_nan_in_an_update_is_refused(pipe, monkeypatch):
    monkeypatch.setattr(find_block(pipe, "mid.0").proj_out, "forward", lambda x: x * torch.nan)
    with pytest.raises(ValueError, match="the update of block 'mid.0' holds NaN or infinity at step 0"):
        run_updates(pipe, PROMPTS, range(3), ["mid.0"], CallSettings(1, 0.0))


def test_a_scheduler_with_other_steps_is_refused(pipe, monkeypatch):
    other = DPMSolverMultistepScheduler.from_config(pipe.scheduler.config)
    monkeypatch.setattr(pipe, "scheduler", other)
    with pytest.raises(ValueError, match="scheduler is DPMSolverMultistepScheduler.*wanted EulerDiscreteScheduler"):
        run_updates(pipe, PROMPTS, range(3), ["mid.0"], CallSettings(1, 0.0))


@pytest.mark.parametrize("guidance_scale", [0.0, 3.0])
def test_an_intervention_reaches_updates_without_pictures_whatever_call_came_before(pipe, guidance_scale):
    pipe("a red circle", num_inference_steps=3, guidance_scale=3.0 - guidance_scale, output_type="latent")
    settings, steps = CallSettings(2, guidance_scale), []

    def halved(block_input, block_output, at):
        steps.append((at.index, at.count, at.guided))
        return (block_input + block_output) / 2

    with intervene(pipe, {"down.2.1": halved}), capture_updates(pipe, ["mid.0"]) as captured:
        alone = run_updates(pipe, ["a red circle"], [0], ["mid.0"], settings)["mid.0"]
        assert steps == [(0, 2, settings.guided), (1, 2, settings.guided)]
        draw_pictures(pipe, ["a red circle"], settings)
    torch.testing.assert_close(alone, captured["mid.0"], rtol=1e-4, atol=1e-5)
    assert not torch.equal(alone, run_updates(pipe, ["a red circle"], [0], ["mid.0"], settings)["mid.0"])
