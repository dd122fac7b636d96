"""Loading pipelines at each scale, and every refusal."""

import json
import shutil
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import load_file, save_file

from sae_lib.cache import space
from sae_lib.models import pipelines, rehearsal
from sae_lib.models.blocks import BLOCKS, FLUX_BLOCKS, blocks_of, find_block, width_of
from sae_lib.models.pipelines import load_pipeline
from sae_lib.pocket.models import build_flux_pipeline


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


MODELS = ("unet", "vae", "text_encoder", "text_encoder_2")


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """The pocket pipeline as `save_pretrained` writes it; its classes are SDXL's."""
    folder = tmp_path_factory.mktemp("models") / "turbo"
    load_pipeline("turbo", device="cpu").save_pretrained(folder)
    return folder


@pytest.fixture
def folder(written, tmp_path):
    shutil.copytree(written, tmp_path / "turbo")
    return tmp_path / "turbo"


def load(folder, dtype=None):
    return load_pipeline("turbo", "sdxl", str(folder), "cpu", dtype)


def tensors_of(pipe):
    return {f"{part}.{name}": x for part in MODELS for name, x in getattr(pipe, part).state_dict().items()}


def same(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_a_written_pipeline_is_loaded_in_any_dtype_and_every_tensor_is_the_written_one(written, dtype):
    pocket = {name: x.to(dtype) for name, x in tensors_of(load_pipeline("turbo", device="cpu")).items()}
    loaded = load(written, dtype)
    assert same(tensors_of(loaded), pocket) and not loaded.unet.training
    assert type(loaded.scheduler).__name__ == "EulerAncestralDiscreteScheduler"


def test_files_of_half_precision_are_used_where_they_are_and_half_precision_is_asked_for(folder):
    whole, half = load(folder), load(folder, torch.float16)
    with torch.no_grad():
        half.unet.conv_in.bias += 1
    half.unet.save_pretrained(folder / "unet", variant="fp16")
    assert same(tensors_of(load(folder, torch.float16)), tensors_of(half)) and same(
        tensors_of(load(folder)), tensors_of(whole)
    )
    (folder / "unet" / "diffusion_pytorch_model.safetensors").unlink()
    assert torch.equal(load(folder).unet.conv_in.bias, half.unet.conv_in.bias.float())


def test_a_folder_is_found_below_home_and_beside_the_work(folder, monkeypatch):
    monkeypatch.setenv("HOME", str(folder.parent))
    monkeypatch.setenv("USERPROFILE", str(folder.parent))
    monkeypatch.chdir(folder.parent)
    for source in ("~/turbo", "turbo", "./turbo/"):
        assert load(source).unet.config.sample_size == 32


def edit(file, change):
    content = json.loads(file.read_text())
    change(content)
    file.write_text(json.dumps(content))


def drop_first_tensor(file):
    tensors = load_file(file)
    del tensors[min(tensors)]
    save_file(tensors, file, {"format": "pt"})
    return file.parent.name


@pytest.mark.parametrize("part", [*MODELS, "tokenizer", "tokenizer_2", "scheduler"])
def test_a_part_that_is_missing_or_incomplete_is_named(folder, part):
    if part in MODELS:
        drop_first_tensor(next((folder / part).glob("*.safetensors")))
        with pytest.raises(
            ValueError, match=rf"no readable SDXL pipeline \(.*{part} holds no complete .*: it lacks \w+"
        ):
            load(folder)
        config = next((folder / part).glob("*.json"))
        config.write_text("[]")
        with pytest.raises(ValueError, match=rf"no readable SDXL pipeline \(.*{part} holds no readable"):
            load(folder)
    shutil.rmtree(folder / part)
    with pytest.raises(ValueError, match=rf"no readable SDXL pipeline \(it lacks {part}\); give a folder written by"):
        load(folder)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"_class_name": "StableDiffusionPipeline"}, "names 'StableDiffusionPipeline' as _class_name, wanted StableD"),
        (
            {"_class_name": "StableDiffusionXLImg2ImgPipeline"},
            "names 'StableDiffusionXLImg2ImgPipeline' as _class_name",
        ),
        ({"text_encoder": [None, None]}, "names None as text_encoder, wanted CLIPTextModel"),
        ({"tokenizer": None}, "names None as tokenizer, wanted CLIPTokenizer"),
        ({"unet": ["diffusers", "UNet2DModel"]}, "names 'UNet2DModel' as unet, wanted UNet2DConditionModel"),
        ({"scheduler": ["diffusers", "NoScheduler"]}, "NoScheduler"),
    ],
)
def test_another_pipeline_is_refused(folder, change, message):
    edit(folder / "model_index.json", lambda index: index.update(change))
    with pytest.raises(ValueError, match=rf"no readable SDXL pipeline \(.*{message}"):
        load(folder)


def test_a_tokenizer_of_more_words_than_the_encoder_knows_is_refused(folder):
    pipe = load(folder)
    pipe.tokenizer.add_tokens(["unheard-of"])
    pipe.tokenizer.save_pretrained(folder / "tokenizer")
    with pytest.raises(ValueError, match=r"tokenizer has \d+ words and text_encoder knows \d+"):
        load(folder)


def test_a_folder_needs_the_memory_that_its_own_tensors_take(folder, monkeypatch):
    memory = SimpleNamespace(available=20_000_000, total=8e9)
    monkeypatch.setattr(space.psutil, "virtual_memory", lambda: memory)
    load(folder, torch.float16)
    with pytest.raises(MemoryError, match="the weights need 0.0 GB and cpu has 0.0 GB free"):
        load(folder)


def test_a_misspelt_folder_and_a_single_file_are_refused_in_a_sentence(folder, monkeypatch):
    monkeypatch.chdir(folder.parent)
    for source in ("turbe", "./turbo/sub", "turbo/sub", "~/models/sdxl-turbo"):
        with pytest.raises(FileNotFoundError, match=f"there is no folder '{source}': give one written by save_pretr"):
            load(source)
    with pytest.raises(ValueError, match="is a file, wanted a folder: read it with diffusers' from_single_file"):
        load("turbo/model_index.json")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("lightning",), "unknown pipeline 'lightning'; choose one of turbo, base, flux"),
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

    monkeypatch.setattr(pipelines.StableDiffusionXLPipeline, "download", offline)
    with pytest.raises(ConnectionError, match="connect to the internet, or give the folder of a downloaded copy"):
        load_pipeline("turbo", "sdxl", device="cpu")


def test_too_little_memory_or_disk_is_refused_before_anything_is_built(monkeypatch):
    monkeypatch.setattr(space.shutil, "disk_usage", lambda _: type("Usage", (), {"free": 1e9}))
    with pytest.raises(OSError, match="stabilityai/sdxl-turbo takes some 7 GB and 1 GB are free: free some"):
        load_pipeline("turbo", "sdxl", device="cpu")
    monkeypatch.setattr(space.psutil, "virtual_memory", lambda: SimpleNamespace(available=1000, total=2000))
    with pytest.raises(MemoryError, match="the weights need 13.9 GB and cpu has 0.0 GB free"):
        load_pipeline("turbo", "sdxl", "random", "cpu")


# --- FLUX -------------------------------------------------------------------------------------------------------------


def test_the_full_configuration_counts_flux_s_parameters():
    with torch.device("meta"):
        pipe = rehearsal.random_flux(128, divisor=1)
    counts = {part: sum(p.numel() for p in getattr(pipe, part).parameters()) for part in rehearsal.FLUX_PARAMETERS}
    assert counts["transformer"] == 11_891_178_560  # FLUX.1's published transformer without guidance
    assert counts == {part: pytest.approx(count, rel=0.01) for part, count in rehearsal.FLUX_PARAMETERS.items()}


@pytest.mark.parametrize("divisor", [2, 4, 8, 16])
def test_the_rehearsal_of_flux_has_all_57_blocks_at_any_width(divisor):
    with torch.device("meta"):
        pipe = rehearsal.random_flux(32, divisor)
    assert list(blocks_of(pipe)) == list(FLUX_BLOCKS) and len(FLUX_BLOCKS) == 57
    assert {width_of(pipe, block) for block in FLUX_BLOCKS} == {3072 // divisor}
    assert sum(pipe.transformer.config.axes_dims_rope) == pipe.transformer.config.attention_head_dim


def test_a_written_flux_is_loaded_from_its_folder_and_what_it_lacks_is_named(tmp_path):
    pipe, folder = build_flux_pipeline(), tmp_path / "flux"
    pipe.tokenizer.save_pretrained(tmp_path / "clip")
    pipe.save_pretrained(folder)
    loaded = load_pipeline("flux", "sdxl", str(folder), "cpu")
    for part in ("transformer", "vae", "text_encoder", "text_encoder_2"):
        assert same(getattr(loaded, part).state_dict(), getattr(pipe, part).state_dict())
    assert loaded.tokenizer_2("a red star").input_ids == pipe.tokenizer_2("a red star").input_ids
    drop_first_tensor(next((folder / "transformer").glob("*.safetensors")))
    with pytest.raises(ValueError, match=r"no readable FLUX pipeline \(.*transformer holds no complete .*: it lacks "):
        load_pipeline("flux", "sdxl", str(folder), "cpu")
    with pytest.raises(ValueError, match=r"no readable SDXL pipeline \(model_index.json names 'FluxPipeline'"):
        load_pipeline("turbo", "sdxl", str(folder), "cpu")


def test_an_sdxl_folder_is_refused_as_flux(written):
    with pytest.raises(ValueError, match=r"no readable FLUX pipeline \(model_index.json names 'StableDiffusionXLPip"):
        load_pipeline("flux", "sdxl", str(written), "cpu")


def test_flux_without_the_memory_is_refused_before_anything_is_built(monkeypatch):
    memory = SimpleNamespace(available=20_000_000_000, total=24_000_000_000)
    monkeypatch.setattr(space.psutil, "virtual_memory", lambda: memory)
    with pytest.raises(MemoryError, match="the weights need 67.4 GB and cpu has 20.0 GB free"):
        load_pipeline("flux", "sdxl", "random", "cpu")
