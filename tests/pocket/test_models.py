"""The pocket SDXL and FLUX: their classes, names and settings, and shipped weights that load."""

import pytest
import torch
from diffusers import (
    AutoencoderKL,
    EulerAncestralDiscreteScheduler,
    EulerDiscreteScheduler,
    StableDiffusionXLPipeline,
    UNet2DConditionModel,
)
from safetensors import safe_open

from notebooks.experiments.pocket.train_text import encode_ids, token_ids
from sae_lib.activations.denoising import CallSettings
from sae_lib.activations.drawing import draw_pictures
from sae_lib.judges.attributes import load_judge
from sae_lib.models.blocks import BLOCKS, PAPER_BLOCKS, find_block
from sae_lib.models.pipelines import load_pipeline
from sae_lib.pocket import weights
from sae_lib.pocket.captions import sample_captions
from sae_lib.pocket.models import MAX_TOKENS, build_scheduler, build_tokenizer, build_unet
from sae_lib.pocket.statements import caption_agreement
from sae_lib.saes.statistics import STATISTICS_FILE


@pytest.fixture(scope="module")
def turbo():
    return load_pipeline("turbo")


def draw(pipe, prompt, seed=0, **call):
    return pipe(prompt, generator=torch.Generator().manual_seed(seed), output_type="pt", **call).images


def test_the_pipelines_are_made_of_sdxls_own_classes(turbo):
    assert type(turbo) is StableDiffusionXLPipeline
    assert type(turbo.unet) is UNet2DConditionModel and type(turbo.vae) is AutoencoderKL
    assert type(turbo.scheduler) is EulerAncestralDiscreteScheduler
    assert type(load_pipeline("base").scheduler) is EulerDiscreteScheduler
    assert all(find_block(turbo, block) is not None for block in BLOCKS)
    assert {find_block(turbo, block).proj_out.out_features for block in PAPER_BLOCKS} == {128}


def test_turbo_steps_at_the_timesteps_of_sdxl_turbo():
    scheduler = build_scheduler("turbo")
    scheduler.set_timesteps(4)
    assert scheduler.timesteps.tolist() == [999, 749, 499, 249]


def test_every_word_of_a_caption_is_one_token_and_no_caption_is_cut():
    tokenizer = build_tokenizer()
    for caption in sample_captions(300, seed=2):
        ids = tokenizer(caption.text).input_ids
        assert len(ids) == len(caption.text.split()) + 2 <= MAX_TOKENS


def test_a_word_that_the_world_lacks_is_spelt_not_lost():
    assert "".join(build_tokenizer().tokenize("frog")) == "frog</w>"


def test_our_encoding_of_captions_is_the_pipelines(turbo):
    texts = ["a red heart", "a large blue star at night"]
    tokens, _, pooled, _ = turbo.encode_prompt(texts, do_classifier_free_guidance=False)
    ours = encode_ids((turbo.text_encoder, turbo.text_encoder_2), token_ids(turbo.tokenizer, texts))
    torch.testing.assert_close(ours, (tokens, pooled))


def test_the_same_seed_draws_the_same_picture_and_another_seed_another(turbo):
    call = {"num_inference_steps": 1, "guidance_scale": 0.0}
    first = draw(turbo, "a red heart", **call)
    assert first.shape == (1, 3, 64, 64)
    assert torch.equal(first, draw(turbo, "a red heart", **call))
    assert not torch.equal(first, draw(turbo, "a red heart", seed=1, **call))


def test_turbo_is_not_base():
    base, turbo = (weights.load(f"unet_{name}").state_dict() for name in ("base", "turbo"))
    difference = sum((turbo[name] - base[name]).square().sum() for name in base).sqrt()
    assert difference / sum(value.square().sum() for value in base.values()).sqrt() > 0.02


def test_flux_draws_what_unseen_captions_state_in_one_step():
    flux, captions = load_pipeline("flux"), sample_captions(30, seed=9, split="test")
    pictures = draw_pictures(flux, [caption.text for caption in captions], CallSettings(1, 0.0, batch_size=30))
    right, asked = caption_agreement(load_judge(), pictures, captions)["all"]
    assert right / asked > 0.88
    with_others = caption_agreement(load_judge(), pictures, [*captions[1:], captions[0]])["all"]
    assert with_others[0] / with_others[1] < 0.5


def test_the_shipped_weights_are_in_half_precision_and_below_40_MB():
    files = sorted(weights.ROOT.parent.rglob("*.safetensors"))  # and the SAEs beside them
    assert len(files) > 9 and sum(file.stat().st_size for file in files) < 40e6
    for file in files:
        if file.name == STATISTICS_FILE:  # numbers about an SAE's features, not weights
            continue
        with safe_open(file, "pt") as tensors:
            kinds = {tensors.get_slice(name).get_dtype() for name in tensors.keys()}  # noqa: SIM118
        assert kinds <= {"F16", "I64"}, file.parent.name


def test_a_truncated_or_missing_weights_file_is_refused_in_a_sentence(tmp_path, monkeypatch):
    monkeypatch.setattr(weights, "ROOT", tmp_path)
    with pytest.raises(FileNotFoundError, match="unet_turbo is missing .* `make pocket`"):
        weights.load("unet_turbo")
    weights.save("unet_turbo", build_unet())
    assert not list(tmp_path.glob(".*unfinished"))
    file = tmp_path / "unet" / "diffusion_pytorch_model.safetensors"
    file.write_bytes(file.read_bytes()[:1000])
    with pytest.raises(ValueError, match="unet_turbo cannot be read .* restore it with git"):
        weights.load("unet_turbo")
