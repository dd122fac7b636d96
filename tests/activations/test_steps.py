import pytest
import torch

from sae_lib.activations.steps import Step, current_step, follow_steps


def steps_of(pipe, call, **arguments):
    steps = []
    with follow_steps(pipe, steps.append):
        call(**arguments)
    return steps


def test_turbo_in_four_steps_is_told_its_four_timesteps(pipe, call):
    assert steps_of(pipe, call, steps=4) == [Step(i, 4, t, False) for i, t in enumerate((999.0, 749.0, 499.0, 249.0))]


def test_a_guided_call_says_so(pipe, call):
    assert steps_of(pipe, call, guidance_scale=7.5) == [Step(0, 1, 999.0, True)]


def test_a_call_that_ends_early_keeps_its_places_in_the_whole_schedule(pipe, call):
    assert [step.index for step in steps_of(pipe, call, steps=4, denoising_end=0.5)] == [0, 1]


def test_steps_are_no_longer_told_after_an_exception(pipe, call, hook_count):
    before = hook_count()
    with pytest.raises(KeyError), follow_steps(pipe, lambda step: None):
        raise KeyError
    assert hook_count() == before


def test_a_unet_run_outside_a_pipeline_call_is_refused(pipe, call):
    call(steps=4)
    with pytest.raises(
        RuntimeError, match="timestep 500 occurs 0 times .* wanted once: run the U-Net through a pipeline"
    ):
        current_step(pipe, 500)


def test_a_scheduler_that_repeats_timesteps_is_refused(pipe):
    class Heun:
        class scheduler:
            timesteps = torch.tensor([999.0, 499.0, 499.0])

    with pytest.raises(RuntimeError, match="timestep 499 occurs 2 times .* a scheduler of first order"):
        current_step(Heun, 499)
