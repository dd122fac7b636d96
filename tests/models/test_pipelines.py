"""Loading pipelines at each scale, and every refusal."""

import pytest
import torch

from sae_lib.cache import space
from sae_lib.models import pipelines, rehearsal
from sae_lib.models.blocks import BLOCKS, find_block
from sae_lib.models.pipelines import load_pipeline


def test_the_rehearsal_has_every_block_of_sdxl_at_a_sixteenth_of_its_width():
    pipe = load_pipeline("turbo", scale="sdxl", source="random/16", device="cpu")
    assert all(find_block(pipe, block) is not None for block in BLOCKS)
    assert find_block(pipe, "down.2.1").proj_out.out_features == 1280 // 16
    assert len(find_block(pipe, "mid.0").transformer_blocks) == 10
    image = pipe("a red heart", num_inference_steps=1, guidance_scale=0.0, output_type="pt").images
    assert image.isfinite().all()


def test_a_rehearsal_draws_the_same_weights_each_time_and_leaves_the_generator_alone():
    torch.manual_seed(7)
    expected = torch.rand(1)
    torch.manual_seed(7)
    first, second = (load_pipeline("turbo", "sdxl", "random/16", "cpu").unet.conv_in.weight for _ in range(2))
    assert torch.equal(first, second)
    assert torch.equal(torch.rand(1), expected)


def test_the_full_configuration_counts_sdxls_parameters():
    with torch.device("meta"):
        unet, vae = rehearsal.random_unet(128, divisor=1), rehearsal.random_vae(128, divisor=1)
    assert sum(p.numel() for p in unet.parameters()) == 2_567_463_684  # SDXL 1.0's published U-Net
    assert sum(p.numel() for p in vae.parameters()) == 83_653_863


def test_a_local_folder_is_a_source(tmp_path):
    load_pipeline("base", "sdxl", "random/16", "cpu").save_pretrained(tmp_path)
    pipe = load_pipeline("base", "sdxl", str(tmp_path), "cpu")
    assert find_block(pipe, "up.0.1").proj_out.out_features == 80


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("lightning",), "unknown pipeline 'lightning'; choose one of turbo, base"),
        (("turbo", "huge"), "unknown scale 'huge'; choose one of smoke, pocket, sdxl"),
        (("turbo", "pocket", "random"), "source 'random' is for scale 'sdxl'"),
        (("turbo", "sdxl", "random/3"), "unknown source 'random/3'; choose 'random' or 'random/2'"),
    ],
)
def test_what_does_not_exist_is_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        load_pipeline(*arguments)


def test_a_folder_without_a_pipeline_is_refused(tmp_path):
    (tmp_path / "model_index.json").write_text("{")
    with pytest.raises(ValueError, match="holds no readable SDXL pipeline"):
        load_pipeline("turbo", "sdxl", str(tmp_path), "cpu")


def test_without_network_the_way_out_is_named(monkeypatch):
    monkeypatch.setattr(space.shutil, "disk_usage", lambda _: type("Usage", (), {"free": 1e12}))

    def offline(*_arguments, **_settings):
        raise OSError("We couldn't connect")

    monkeypatch.setattr(pipelines.StableDiffusionXLPipeline, "from_pretrained", offline)
    with pytest.raises(ConnectionError, match="connect to the internet, or give the folder of a downloaded copy"):
        load_pipeline("turbo", "sdxl", device="cpu")


def test_too_little_memory_or_disk_is_refused_before_anything_is_built(monkeypatch):
    monkeypatch.setattr(space.shutil, "disk_usage", lambda _: type("Usage", (), {"free": 1e9}))
    with pytest.raises(OSError, match="stabilityai/sdxl-turbo takes some 7 GB and 1 GB are free: free some"):
        load_pipeline("turbo", "sdxl", device="cpu")
    monkeypatch.setattr(space.os, "sysconf", lambda _: 1000)
    with pytest.raises(MemoryError, match="the weights need 13.9 GB and cpu has 0.0 GB free"):
        load_pipeline("turbo", "sdxl", "random", "cpu")
