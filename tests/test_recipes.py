import json

import pytest
import torch

from sae_lib import recipes
from sae_lib.blocks import SAE_BLOCKS
from sae_lib.denoising import CallSettings
from sae_lib.pocket import train_saes as stage
from sae_lib.recipes import default_configs, one_step_saes, panel_k, train_in_setting, transfer_k
from sae_lib.scales import SCALES
from sae_lib.store import ROOT


@pytest.fixture(autouse=True)
def empty_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("SAE_LIB_CACHE", str(tmp_path / "cache"))


def test_the_two_ks_are_the_paper_s_at_1280_and_at_128_dimensions():
    assert [(panel_k(d), transfer_k(d)) for d in (1280, 128, 80)] == [(10, 160), (10, 16), (8, 10)]


def test_configs_are_the_paper_s_at_sdxl_scale_and_the_pocket_s_elsewhere():
    paper = default_configs("sdxl", 1280, 384_000_000, (10, 160))
    assert [config.block for config in paper] == [*SAE_BLOCKS, *SAE_BLOCKS]
    assert {(c.n_f, c.batch_size, c.lr, c.dead_vectors_threshold) for c in paper} == {(5120, 4096, 1e-4, 10_000_000)}
    (pocket,) = {
        (c.n_f, c.batch_size, c.dead_vectors_threshold) for c in default_configs("pocket", 128, 512_000, (16,))
    }
    assert pocket == (512, 512, 30 * 512)
    rehearsal = default_configs("sdxl", 80, 128, (8, 10), rehearsal=True)
    assert {(c.d_model, c.n_f, c.batch_size, c.lr) for c in rehearsal} == {(80, 320, 8, 1e-4)}


def test_the_pocket_scale_makes_at_least_3000_steps():
    counts = SCALES["pocket"]
    vectors = counts.train_prompts * 64 * counts.passes
    config = default_configs("pocket", 128, vectors, (16,))[0]
    assert vectors // config.batch_size - config.init_batches >= 3000


def test_the_stored_sweep_is_the_pocket_scale_s_and_chose_the_rate_in_use():
    record = json.loads((ROOT / "figures" / "results" / "sae_learning_rate.json").read_text())
    assert record["run"]["scale"] == "pocket"
    assert record["result"]["chosen"] == default_configs("pocket", 128, 512_000, (16,))[0].lr
    assert record["result"]["prompts"] == SCALES["pocket"].train_prompts


def test_one_step_saes_come_with_their_controls_and_are_not_trained_twice(pipe, monkeypatch):
    trained = one_step_saes(pipe, "smoke")
    assert {(config.block, sae.k) for config, sae in trained.saes.items()} == {
        (b, k) for b in SAE_BLOCKS for k in (10, 16)
    }
    assert set(trained.with_k(16)) == set(trained.permuted) == set(trained.pca) == set(SAE_BLOCKS)
    assert {sae.k for sae in trained.permuted.values()} == {len(pca.components) for pca in trained.pca.values()} == {16}
    assert not torch.equal(trained.permuted["mid.0"].decoder.weight, trained.with_k(16)["mid.0"].decoder.weight)
    monkeypatch.setattr(recipes, "train_saes", None)
    again = one_step_saes(pipe, "smoke")
    assert again.folder == trained.folder
    assert torch.equal(again.with_k(10)["up.0.1"].decoder.weight, trained.with_k(10)["up.0.1"].decoder.weight)


def test_another_setting_trains_other_saes_on_as_many_vectors(pipe):
    two_steps = CallSettings(steps=2, guidance_scale=0.0, batch_size=16)
    trained = train_in_setting(pipe, two_steps, [16], 6_144, "smoke")
    assert set(trained.with_k(16)) == set(SAE_BLOCKS) and trained.permuted == trained.pca == {}
    row = (trained.folder / "mid.0_k16_hidden512_seed0" / "training.jsonl").read_text().splitlines()[-1]
    assert '"step": 1,' in row  # 6,144 vectors are 12 batches, of which 10 set scale and b_pre


def test_the_stage_ships_eight_saes_in_16_bit_and_replaces_them_as_a_whole(pipe, tmp_path, monkeypatch, capsys):
    counts = SCALES["smoke"]
    monkeypatch.setitem(stage.SCALES, "pocket", counts)
    monkeypatch.setattr(stage, "load_pipeline", lambda *_, **__: pipe)
    folder = tmp_path / "weights" / "saes"
    folder.mkdir(parents=True)
    (folder / "old").touch()
    stage.train_shipped_saes(1, 0, "cpu", folder)
    assert sorted(path.name for path in folder.iterdir()) == sorted(
        f"{block}_k{k}_hidden512_seed1" for block in SAE_BLOCKS for k in (10, 16)
    )
    assert sum(path.stat().st_size for path in folder.rglob("*.*")) < 4_000_000
    assert [path.name for path in folder.parent.iterdir()] == ["saes"]
    assert "explained_variance" in capsys.readouterr().out
