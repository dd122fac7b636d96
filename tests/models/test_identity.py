"""What a pipeline is comes from the pipeline: whatever changes its numbers changes its identity."""

import copy
from types import SimpleNamespace
from unittest.mock import Mock

import accelerate
import pytest
import torch
from diffusers import DPMSolverMultistepScheduler

from sae_lib.assets import Assets
from sae_lib.features.interventions import intervene, skip_block
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


def test_a_copy_has_the_same_hash_and_so_has_the_compiled_module(own):
    first = weights_hash(own.unet)
    assert weights_hash(copy.deepcopy(own.unet)) == first == weights_hash(torch.compile(own.unet, backend="eager"))


def test_numbers_changed_behind_autograd_s_back_are_seen(own):
    before = weights_hash(own.unet)
    next(own.unet.parameters()).data.mul_(2)
    assert weights_hash(own.unet) != before


def test_what_changes_numbers_and_no_weights_is_in_the_identity_or_refused(own):
    before = pipeline_identity(own)
    with (
        intervene(own, {"mid.0": skip_block}),
        pytest.raises(ValueError, match="the U-Net has hooks .*leave the context"),
    ):
        pipeline_identity(own)
    assert pipeline_identity(own) == before
    own.enable_freeu(s1=0.9, s2=0.2, b1=1.2, b2=1.4)
    assert pipeline_identity(own)["freeu"] != before["freeu"]
    own.disable_freeu()
    own.unet.mid_block.lora_A = torch.nn.Linear(1, 1)
    with pytest.raises(ValueError, match="adapters that are not merged .mid_block., .*fuse_lora"):
        pipeline_identity(own)


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
    before = source_identity(str(tmp_path / "two"))
    for beside in (".cache", "sae.partial-7"):
        (tmp_path / "two" / beside).mkdir()
        (tmp_path / "two" / beside / "half").touch()
    (tmp_path / "two" / ".lock").touch()
    assert source_identity(str(tmp_path / "two")) == before


class Transport(Exception):
    """As the Hub's client raises without a connection: no OSError."""


def test_a_name_on_the_hub_is_the_revision_that_is_loaded(tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    asked = Mock(side_effect=Transport)
    monkeypatch.setattr("huggingface_hub.HfApi.model_info", asked)
    assert source_identity("org/model") == source_identity("org/model") == "not on this machine"
    assert asked.call_count == 1
    ref = tmp_path / "models--org--other" / "refs" / "main"
    ref.parent.mkdir(parents=True)
    ref.write_text("ab" * 20)
    assert source_identity("org/other") == "ab" * 20
    monkeypatch.setattr("huggingface_hub.HfApi.model_info", lambda *_, **__: SimpleNamespace(sha="cd" * 20))
    assert source_identity("org/third") == "cd" * 20
    with pytest.raises(FileNotFoundError, match="there is no folder"):
        source_identity("no/such/folder")


def test_what_is_made_from_a_folder_of_saes_is_made_again_when_the_folder_changes(tmp_path):
    assets = Assets("smoke", sae_folder=str(tmp_path))
    before = assets.identity
    (tmp_path / "config.json").touch()
    assert assets.identity != before and Assets("smoke").identity["contents"] == {}
