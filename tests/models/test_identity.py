"""What a pipeline is comes from the pipeline: whatever changes its numbers changes its identity."""

import copy
from types import SimpleNamespace
from unittest.mock import Mock

import accelerate
import pytest
import torch
from diffusers import DPMSolverMultistepScheduler

from sae_lib.assets import Assets
from sae_lib.models.identity import pipeline_identity, pipeline_origin, source_identity, weights_hash
from sae_lib.models.pipelines import load_pipeline
from sae_lib.pocket.models import build_pipeline


@pytest.fixture
def own():
    """A pipeline that a test may change."""
    return build_pipeline("turbo")


def test_two_pipelines_of_equal_weights_are_one_and_others_are_not(own, pipe):
    assert pipeline_identity(own) == pipeline_identity(build_pipeline("turbo"))
    assert pipeline_identity(own) != pipeline_identity(build_pipeline("turbo", seed=1))
    assert pipeline_identity(own)["scheduler"] != pipeline_identity(build_pipeline("base"))["scheduler"]


@pytest.mark.parametrize("part", ["unet", "text_encoder", "text_encoder_2"])
def test_one_changed_number_in_place_is_seen(own, part):
    before = pipeline_identity(own)
    with torch.no_grad():
        next(getattr(own, part).parameters()).view(-1)[0] += 1
    changed = pipeline_identity(own)
    assert changed["weights"][part] != before["weights"][part]
    assert {name for name in before["weights"] if before["weights"][name] != changed["weights"][name]} == {part}


def test_a_call_changes_nothing(own):
    before = pipeline_identity(own)
    own("a red heart", num_inference_steps=1, guidance_scale=0.0, output_type="latent")
    assert pipeline_identity(own) == before


def test_another_scheduler_or_dtype_is_another_identity(own):
    before = pipeline_identity(own)
    own.scheduler = DPMSolverMultistepScheduler.from_config(own.scheduler.config)
    assert pipeline_identity(own)["scheduler"]["class"] == "DPMSolverMultistepScheduler"
    own.to(dtype=torch.bfloat16)
    assert pipeline_identity(own)["dtype"] == "bfloat16" != before["dtype"]


def test_the_layout_in_memory_does_not_count_and_neither_does_offloading(own):
    before, unet = pipeline_identity(own), own.unet
    unet.to(memory_format=torch.channels_last)
    assert pipeline_identity(own) == before
    for part in (own.unet, own.text_encoder, own.text_encoder_2):
        accelerate.cpu_offload(part, execution_device=torch.device("cpu"))
    assert next(unet.parameters()).is_meta and pipeline_identity(own) == before


def test_a_copy_has_the_same_hash_and_a_hash_is_not_computed_twice(own, monkeypatch):
    first = weights_hash(own.unet)
    assert weights_hash(copy.deepcopy(own.unet)) == first
    monkeypatch.setattr("sae_lib.models.identity.memoryview", None, raising=False)
    assert weights_hash(own.unet) == first


def test_the_name_is_the_pipeline_s_own(own):
    assert pipeline_origin(own)["model"] == "unnamed"
    named = [pipeline_origin(load_pipeline(name)) for name in ("turbo", "base")]
    assert [(origin["model"], origin["licence"]) for origin in named] == [
        ("pocket-sdxl-turbo", "MIT"),
        ("pocket-sdxl-base", "MIT"),
    ]
    assert pipeline_origin(load_pipeline("turbo", "sdxl", "random/16"))["model"] == "random/16"


def test_a_folder_is_what_is_in_it_whatever_its_name(tmp_path):
    for name in ("one", "two"):
        (tmp_path / name / "unet").mkdir(parents=True)
        (tmp_path / name / "unet" / "weights").write_bytes(b"123")
    first = source_identity(str(tmp_path / "one"))
    assert source_identity(str(tmp_path / "two")) == first
    (tmp_path / "two" / "unet" / "weights").write_bytes(b"124")
    assert source_identity(str(tmp_path / "two")) != first
    (tmp_path / "one" / "more").touch()
    assert source_identity(str(tmp_path / "one")) != first


def test_a_name_on_the_hub_is_the_revision_that_is_loaded(tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr("huggingface_hub.HfApi.model_info", Mock(side_effect=ConnectionError))
    assert source_identity("org/model") == "not on this machine"
    ref = tmp_path / "models--org--model" / "refs" / "main"
    ref.parent.mkdir(parents=True)
    ref.write_text("ab" * 20)
    assert source_identity("org/model") == "ab" * 20
    monkeypatch.setattr("huggingface_hub.HfApi.model_info", lambda *_, **__: SimpleNamespace(sha="cd" * 20))
    assert source_identity("org/model") == "cd" * 20


def test_what_is_made_from_a_folder_of_saes_is_made_again_when_the_folder_changes(tmp_path):
    assets = Assets("smoke", sae_folder=str(tmp_path))
    before = assets.identity
    (tmp_path / "config.json").touch()
    assert assets.identity != before and Assets("smoke").identity["contents"] == {}
