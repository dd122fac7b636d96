import json
from types import SimpleNamespace
from unittest.mock import Mock

import pytest
import torch
from diffusers import StableDiffusionXLPipeline

from notebooks.experiments.pocket import train_saes as stage
from sae_lib.activations.denoising import CallSettings
from sae_lib.assets import Assets
from sae_lib.cache.artefact import ROOT
from sae_lib.models.blocks import PAPER_BLOCKS
from sae_lib.models.scales import SCALES
from sae_lib.saes.checkpoints import rehearsal_saes
from sae_lib.saes.sizes import sae_size
from sae_lib.training import recipe
from sae_lib.training.recipe import TrainingRun
from sae_lib.training.trained import one_step_saes, train_in_setting


@pytest.fixture(autouse=True)
def empty_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("SAE_LIB_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def assets(pipe):
    """What smoke scale works with, with random weights: two blocks that differ in width."""
    made = Assets("smoke", blocks="mid.0,up.1.2")
    made._pipes["turbo"] = pipe
    return made


@pytest.fixture(scope="module")
def sdxl():
    """As much of SDXL Turbo as a run asks about before it is loaded."""
    unet = SimpleNamespace(config=SimpleNamespace(block_out_channels=(320, 640, 1280), sample_size=64))
    return Mock(spec=StableDiffusionXLPipeline, unet=unet)


def test_configs_are_the_paper_s_at_sdxl_scale_and_the_pocket_s_elsewhere(pipe, sdxl, monkeypatch):
    monkeypatch.setattr(recipe, "load_prompts_once", lambda scale, count, *_: [""] * count)
    paper = TrainingRun("sdxl").configs(sdxl)
    assert [config.block for config in paper] == [*PAPER_BLOCKS, *PAPER_BLOCKS]
    assert {(c.k, c.n_f, c.batch_size, c.lr, c.auxk) for c in paper} == {(k, 5120, 4096, 1e-4, 256) for k in (10, 160)}
    assert {c.dead_vectors_threshold for c in paper} == {10_000_000}
    (pocket,) = {
        (c.n_f, c.batch_size, c.dead_vectors_threshold)
        for c in TrainingRun(ks=(16,), vectors=51_200, passes=10, blocks="paper").configs(pipe)
    }
    assert pocket == (512, 512, 30 * 512)
    rehearsal = TrainingRun("sdxl", source="random", vectors=128).configs(sdxl)
    assert {(c.n_f, c.batch_size, c.lr) for c in rehearsal} == {(5120, 8, 1e-4)}


def test_a_grid_is_every_block_k_expansion_and_seed(pipe):
    run = TrainingRun("smoke", ks=(2, 5), expansion_factors=(0.5, 4), sae_seeds=(0, 1), blocks=("mid.0", "up.0.1"))
    configs = run.configs(pipe)
    assert len({config.folder_name for config in configs}) == 16
    assert {(config.n_f, config.auxk) for config in configs} == {(64, 32), (512, 256)}


def test_saes_of_blocks_of_another_level_have_their_width_and_their_share_of_the_vectors(pipe, tmp_path):
    run = TrainingRun(prompts=1_000, passes=2, blocks=("mid.0", "up.1.2"))
    configs = run.configs(pipe)
    sizes = [("mid.0", 128, *sae_size("panel", 128)), ("up.1.2", 64, *sae_size("panel", 64))]
    assert [(c.block, c.d_model, c.k, c.n_f) for c in configs] == [
        *sizes,
        ("mid.0", 128, 16, 512),
        ("up.1.2", 64, 8, 256),
    ]
    by_block = {config.block: config.dead_vectors_threshold for config in configs}
    assert by_block["up.1.2"] >= 2 * by_block["mid.0"]
    run = TrainingRun("smoke", prompts=120, passes=2, blocks=("mid.0", "up.1.2"), ks=(4,), expansion_factors=(1,))
    saes = run.train(tmp_path, pipe)
    assert {config.block: sae.decoder.weight.shape for config, sae in saes.items()} == {
        "mid.0": (128, 128),
        "up.1.2": (64, 64),
    }
    about = {
        config.block: json.loads((tmp_path / config.folder_name / "diffusion.json").read_text()) for config in saes
    }
    assert about["mid.0"]["token_grid"] == [8, 8] and about["up.1.2"]["token_grid"] == [16, 16]


def test_the_pocket_scale_makes_at_least_a_thousand_steps(pipe):
    run = TrainingRun(blocks=("mid.0",))
    config = run.configs(pipe)[0]
    vectors = len(run.load_prompts(pipe)) * 64 * run.all_passes
    assert vectors // config.batch_size - config.init_batches >= 1000


def test_blocks_of_a_run_are_chosen_by_rule_the_paper_s_or_named():
    assert len(TrainingRun().blocks) == 7 and TrainingRun().blocks == TrainingRun(blocks="chosen").blocks
    assert TrainingRun(blocks="paper").blocks == TrainingRun("sdxl").blocks == PAPER_BLOCKS
    assert TrainingRun(blocks="mid.0, up.1.2").blocks == ("mid.0", "up.1.2")


def test_a_run_is_read_from_a_file_and_unknown_fields_are_refused(tmp_path):
    path = tmp_path / "run.json"
    path.write_text('{"scale": "smoke", "ks": [2, 5], "vectors": 64}')
    assert TrainingRun.read(path) == TrainingRun("smoke", ks=(2, 5), vectors=64)
    path.write_text('{"scael": "smoke"}')
    with pytest.raises(ValueError, match="unknown field scael; valid: scale, model"):
        TrainingRun.read(path)
    path.write_text("{")
    with pytest.raises(ValueError, match="is no JSON"):
        TrainingRun.read(path)
    with pytest.raises(FileNotFoundError, match="no configuration"):
        TrainingRun.read(tmp_path / "other.json")


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"scale": "huge"}, "unknown scale 'huge'"),
        ({"model": "lightning"}, "model is 'lightning'; choose one of 'turbo', 'base', 'flux'"),
        ({"noise": "none"}, "noise is 'none'; choose one of 'prompt', 'batch of 50'"),
        ({"dtype": "int8"}, "dtype is 'int8'; choose one of"),
        ({"vectors": 0}, "vectors is 0; wanted at least 1"),
        ({"blocks": "mid.1"}, 'unknown block \'mid.1\'; choose "chosen", "paper", or codes with commas of down.1.0'),
        ({"blocks": ("mid.0", "mid.0")}, "one is named twice"),
        ({"scale": "sdxl", "blocks": "chosen"}, "no blocks were chosen for SDXL: look at the figures of notebook 05"),
    ],
)
def test_values_that_no_run_can_have_are_refused(values, message):
    with pytest.raises(ValueError, match=message):
        TrainingRun(**values)


def test_a_trained_sae_says_where_its_vectors_come_from(tmp_path):
    run = TrainingRun("smoke", ks=(2,), blocks=("mid.0",), vectors=6_400, prompts=100)
    (config,) = run.train(tmp_path)
    about = json.loads((tmp_path / config.folder_name / "diffusion.json").read_text())
    assert about["hook"] == "unet.mid_block.attentions.0.proj_out, output" and about["token_grid"] == [8, 8]
    assert about["model"] == "pocket-sdxl-turbo" and about["prompts"]["count"] == 100 and about["licence"] == "MIT"
    assert (tmp_path / config.folder_name / about["feature_statistics"]).is_file()


def test_the_stored_sweep_is_the_pocket_scale_s_and_chose_the_rate_in_use(pipe):
    record = json.loads((ROOT / "figures" / "results" / "sae_learning_rate.json").read_text())
    assert record["run"]["scale"] == "pocket"
    assert record["result"]["chosen"] == TrainingRun().configs(pipe)[0].lr
    assert record["result"]["prompts"] == SCALES["pocket"].train_prompts


def test_one_step_saes_come_with_their_controls_and_are_not_trained_twice(assets, monkeypatch):
    trained = one_step_saes(assets)
    blocks = {"mid.0", "up.1.2"}
    assert {block: sae.k for block, sae in trained.of_kind("transfer").items()} == {"mid.0": 16, "up.1.2": 8}
    assert set(trained.of_kind("panel")) == set(trained.permuted) == set(trained.pca) == blocks
    assert all(len(trained.pca[block].components) == sae.k for block, sae in trained.permuted.items())
    transfer = trained.of_kind("transfer")["mid.0"].decoder.weight
    assert not torch.equal(trained.permuted["mid.0"].decoder.weight, transfer)
    for module in ("recipe", "trained"):
        monkeypatch.setattr(f"sae_lib.training.{module}.train_saes", None)
    again = one_step_saes(assets)
    assert again.folder == trained.folder
    assert torch.equal(again.of_kind("transfer")["mid.0"].decoder.weight, transfer)


def test_another_setting_trains_other_saes(assets):
    two_steps = CallSettings(steps=2, guidance_scale=0.0, batch_size=16)
    trained = train_in_setting(assets.with_blocks("mid.0"), "turbo", two_steps, 48, ["transfer"])
    assert set(trained.of_kind("transfer")) == {"mid.0"} and trained.permuted == trained.pca == {}
    row = (trained.folder / "mid.0_k16_hidden512_seed0" / "training.jsonl").read_text().splitlines()[-1]
    assert '"step": 1,' in row  # 48 prompts of 2 steps give 6,144 vectors: 12 batches, of which 10 set scale and b_pre


def test_a_rehearsal_s_saes_fit_their_blocks_and_are_the_same_whichever_blocks_are_asked_for(pipe):
    saes, statistics = rehearsal_saes(pipe, ("up.1.2", "mid.0"))
    assert {block: (sae.d_model, sae.n_f, sae.k) for block, sae in saes.items()} == {
        "up.1.2": (64, 256, 6),
        "mid.0": (128, 512, 10),
    }
    assert torch.equal(saes["mid.0"].encoder.weight, rehearsal_saes(pipe, ["mid.0"])[0]["mid.0"].encoder.weight)
    assert statistics["up.1.2"].mean.tolist() == [1.0] * 256


def test_the_stage_ships_two_saes_of_each_chosen_block_and_of_the_paper_s_and_replaces_them_as_a_whole(
    pipe, tmp_path, monkeypatch, capsys
):
    monkeypatch.setitem(SCALES, "pocket", SCALES["smoke"])
    monkeypatch.setattr(recipe, "load_pipeline", lambda *_: pipe)
    folder = tmp_path / "weights" / "saes"
    folder.mkdir(parents=True)
    (folder / "old").touch()
    stage.train_shipped_saes(96, 0, "cpu", folder)
    names = [path.name for path in folder.iterdir()]
    assert len(names) == 2 * 9 and "mid.0_k16_hidden512_seed1" in names and "up.1.2_k8_hidden256_seed1" in names
    assert sum(path.stat().st_size for path in folder.rglob("*.*")) < 5_000_000
    assert [path.name for path in folder.parent.iterdir()] == ["saes"]
    assert "explained_variance" in capsys.readouterr().out
