"""Hooks that torch.compile leaves out, SAEs on another device than the block, pipelines whose weights lie elsewhere."""

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
    intervene,
    modulate,
    reconstruct,
    replace_with_feature,
    skip_block,
)
from sae_lib.models.blocks import find_block
from sae_lib.pocket.models import build_pipeline
from sae_lib.saes.controls import PCA
from sae_lib.saes.topk import TopKSAE

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
