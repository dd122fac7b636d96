import diffusers
import pytest
import torch
from diffusers import StableDiffusionXLImg2ImgPipeline

from sae_lib.activations.recording import record, replay
from sae_lib.activations.steps import Step, follow_steps
from sae_lib.activations.updates import capture_updates
from sae_lib.features.interventions import during, intervene, skip_block


def steps_of(pipe, call, **arguments):
    steps = []
    with follow_steps(pipe, steps.append):
        call(**arguments)
    return steps


@pytest.fixture(scope="module")
def redraw(pipe):
    """A function that draws over a picture with a pipeline that shares the U-Net; its attribute `pipe` is that one."""
    other = StableDiffusionXLImg2ImgPipeline(**pipe.components)
    other.set_progress_bar_config(disable=True)

    def redraw(steps=4, strength=0.5, guidance_scale=0.0):
        call = {"num_inference_steps": steps, "strength": strength, "guidance_scale": guidance_scale}
        image = torch.full((1, 3, 64, 64), 0.5)
        generator = torch.Generator().manual_seed(0)
        return other("a red circle", image=image, generator=generator, output_type="latent", **call).images

    redraw.pipe = other
    return redraw


def test_turbo_in_four_steps_is_told_its_four_timesteps(pipe, call):
    assert steps_of(pipe, call, steps=4) == [Step(i, 4, t, False) for i, t in enumerate((999.0, 749.0, 499.0, 249.0))]


def test_a_guided_call_says_so(pipe, call):
    assert steps_of(pipe, call, guidance_scale=7.5) == [Step(0, 1, 999.0, True)]


def test_a_call_that_ends_early_keeps_its_places_in_the_whole_schedule(pipe, call):
    assert [step.index for step in steps_of(pipe, call, steps=4, denoising_end=0.5)] == [0, 1]


def test_a_call_that_begins_late_keeps_its_places_too(redraw):
    assert [(step.index, step.count) for step in steps_of(redraw.pipe, redraw, steps=4, strength=0.75)] == [
        (1, 4),
        (2, 4),
        (3, 4),
    ]


def test_steps_are_no_longer_told_after_an_exception(pipe, call, hook_count):
    before, own = hook_count(), pipe.progress_bar
    with pytest.raises(KeyError), follow_steps(pipe, lambda step: None):
        raise KeyError
    assert hook_count() == before and pipe.progress_bar == own and "progress_bar" not in vars(pipe)


def test_contexts_may_end_in_any_order_and_a_progress_bar_of_the_user_stays(pipe, call, monkeypatch):
    bars, steps = [], []
    own = lambda total: bars.append(total) or type(pipe).progress_bar(pipe, total=total)
    monkeypatch.setattr(pipe, "progress_bar", own)
    first, second = follow_steps(pipe, steps.append), follow_steps(pipe, steps.append)
    first.__enter__(), second.__enter__()
    first.__exit__(None, None, None)
    call(steps=2)
    second.__exit__(None, None, None)
    assert len(steps) == 2 and bars == [2] and pipe.progress_bar is own


# --- Schedulers: steps are told apart by their count ------------------------------------------------------------------

OTHERS = {
    "DPMSolverMultistepScheduler": {"use_karras_sigmas": True},  # 50 steps round to repeated timesteps
    "HeunDiscreteScheduler": {},  # second order: 2 n - 1 passes, each timestep but the first twice
    "PNDMScheduler": {},  # twice each, and without a begin index
    "DDIMScheduler": {},
    "UniPCMultistepScheduler": {},
}


@pytest.mark.parametrize("name", OTHERS)
def test_every_pass_is_a_step_of_its_own_whatever_the_scheduler_repeats(pipe, call, monkeypatch, name):
    settings = {"timestep_spacing": "leading", **OTHERS[name]}
    scheduler = getattr(diffusers, name).from_config(pipe.scheduler.config, **settings)
    monkeypatch.setattr(pipe, "scheduler", scheduler)
    monkeypatch.setattr(pipe.unet, "forward", lambda sample, *_, **__: (torch.zeros_like(sample),))  # fast
    steps = [(step.index, step.count, step.timestep) for step in steps_of(pipe, call, steps=50)]
    timesteps = scheduler.timesteps.tolist()
    assert steps == [(index, len(timesteps), timestep) for index, timestep in enumerate(timesteps)]
    repeats = name.startswith(("DPM", "Heun", "PNDM"))
    assert (len(set(timesteps)) < len(timesteps)) == repeats


def test_updates_are_recorded_in_each_of_a_second_order_scheduler_s_passes(pipe, call, monkeypatch):
    monkeypatch.setattr(pipe, "scheduler", diffusers.HeunDiscreteScheduler.from_config(pipe.scheduler.config))
    with capture_updates(pipe, ["mid.0"]) as updates:
        call(steps=2)
    assert len(updates["mid.0"]) == 3 and [step.index for step in updates.steps] == [0, 1, 2]


def test_a_scheduler_of_second_order_may_begin_late(redraw, monkeypatch):
    heun = diffusers.HeunDiscreteScheduler.from_config(redraw.pipe.scheduler.config)
    monkeypatch.setattr(redraw.pipe, "scheduler", heun)
    assert [step.index for step in steps_of(redraw.pipe, redraw, steps=4, strength=0.5)] == [4, 5, 6]


# --- Pipelines: whose call it is --------------------------------------------------------------------------------------


@pytest.mark.parametrize("guidance_scale", [0.0, 5.0])
@pytest.mark.parametrize("before", [None, 0.0, 5.0])
def test_a_call_of_another_pipeline_with_the_same_u_net_is_refused(pipe, call, redraw, guidance_scale, before):
    """Whatever the state that an earlier call has left."""
    if before is not None:
        call(steps=2, guidance_scale=before)
    for context in (capture_updates(pipe, ["mid.0"]), intervene(pipe, {"mid.0": skip_block}), record(pipe)):
        refused = pytest.raises(RuntimeError, match="outside of a call of the pipeline that its hooks were set through")
        with refused, context:
            if before is not None:
                call(steps=2, guidance_scale=before)
            redraw(guidance_scale=guidance_scale)


def test_the_pipeline_that_is_called_reads_its_own_state(pipe, call, redraw):
    call(steps=4)
    with capture_updates(redraw.pipe, ["mid.0"], guidance="both") as updates:
        redraw(guidance_scale=5.0)
    assert updates["mid.0"].shape[:3] == (2, 2, 1) and [step.guided for step in updates.steps] == [True, True]


@pytest.mark.parametrize("called_before", [False, True])
def test_a_u_net_run_outside_of_a_pipeline_call_is_refused(pipe, call, called_before):
    x, tokens = torch.zeros(1, 4, 8, 8), torch.zeros(1, 77, pipe.unet.config.cross_attention_dim)
    refused = pytest.raises(RuntimeError, match="enter the context before the call, with the pipeline that is called")
    with refused, follow_steps(pipe):
        if called_before:
            call(steps=4)
        pipe.unet(x, torch.tensor(999.0), tokens)


def test_a_call_that_died_leaves_no_state_to_the_next_one(pipe, call, redraw):
    def die(step):
        if step.index == 1:
            raise KeyError

    steps = []
    with follow_steps(pipe, steps.append):
        with pytest.raises(KeyError), follow_steps(pipe, die):
            call(steps=4)
        with pytest.raises(RuntimeError, match="outside of a call"):
            redraw()
        call(steps=2)
    assert [(step.index, step.count) for step in steps] == [(0, 4), (1, 4), (0, 2), (1, 2)]


@pytest.mark.parametrize("rows", [1, 2, 3, 4])
def test_a_guided_batch_whose_halves_are_not_the_same_latents_is_refused(pipe, call, rows):
    """As of a pipeline that runs the halves one after the other, or three parts together."""
    call(guidance_scale=5.0)
    refused = f"the call is guided and its batch of {rows} is not the same latents twice"
    with pytest.raises(RuntimeError, match=refused), follow_steps(pipe), pipe.progress_bar(total=1):
        pipe.unet(torch.randn(rows, 4, 8, 8), 999.0)


def test_latents_that_are_not_numbers_are_the_same_latents_twice(pipe, call):
    assert steps_of(pipe, call, guidance_scale=5.0, latents=torch.full((1, 4, 32, 32), torch.nan))[0].guided


def test_passes_that_are_not_the_scheduler_s_are_refused(pipe, call, monkeypatch):
    """Two passes per step, as of a pipeline that runs the halves of its batch one after the other."""
    run = pipe.unet.forward
    twice = lambda *args, **kwargs: (monkeypatch.undo(), pipe.unet(*args, **kwargs), run(*args, **kwargs))[-1]
    monkeypatch.setattr(pipe.unet, "forward", twice)
    refused = "pass 1 of the U-Net is at timestep 999 and the scheduler's step 1 at 499.0"
    with pytest.raises(RuntimeError, match=refused), follow_steps(pipe):
        call(steps=2)


# --- Hooks that do not run --------------------------------------------------------------------------------------------


def test_a_hook_that_does_not_run_in_a_whole_call_is_named(pipe, call):
    refused = pytest.raises(
        RuntimeError, match="the U-Net ran and the hooks on one and 1 more did not: it was compiled"
    )
    with refused, follow_steps(pipe, hooks=["one", "two"]):
        call()


def test_a_call_that_is_interrupted_or_dies_is_not_blamed_for_its_hooks(pipe, call):
    def interrupt(pipe, *_):
        pipe._interrupt = True
        return {}

    with follow_steps(pipe, hooks=["one"]):
        call(steps=3, callback_on_step_end=interrupt)
        with pytest.raises(KeyError), intervene(pipe, {"mid.0": lambda *_: {}["no"]}):
            call()


def test_an_update_that_a_replay_does_not_compute_is_refused(pipe, call):
    with record(pipe) as recording:
        call()
    refused = pytest.raises(RuntimeError, match=r"hooks on mid\.0 did not: .* or a replay gives out what they wait for")
    with refused, replay(pipe, recording, ["up.0.1"]), capture_updates(pipe, ["mid.0"]):
        call()


@pytest.mark.parametrize(("start", "end"), [(0, 2), (1, 2)])
def test_an_intervention_on_steps_that_the_call_leaves_out_is_refused(redraw, start, end):
    timed = {"mid.0": during(skip_block, start, end)}
    refused = rf"the intervention on 'mid.0' is for steps \[{start}, {end}\) and the call runs \[2, 4\)"
    with pytest.raises(ValueError, match=refused), intervene(redraw.pipe, timed):
        redraw()


def test_an_intervention_on_steps_that_the_call_does_not_come_to_is_refused(pipe, call, redraw):
    timed = {"mid.0": during(skip_block, 2, 4)}
    with pytest.raises(ValueError, match=r"for steps \[2, 4\) and the call runs \[0, 2\)"), intervene(pipe, timed):
        call(steps=4, denoising_end=0.5)
    with pytest.raises(ValueError, match=r"for steps \[2, 4\) and the call runs \[0, 1\)"), intervene(pipe, timed):
        call(steps=1)
    plain = redraw()
    with intervene(redraw.pipe, {"mid.0": during(skip_block, 1, 3)}):  # one of them is run
        assert not torch.equal(redraw(), plain)
