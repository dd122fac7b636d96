import shutil

import pytest
import torch

from sae_lib.models.blocks import BLOCKS, PAPER_BLOCKS, select_blocks
from sae_lib.saes import checkpoints
from sae_lib.saes.checkpoints import load_any, load_saes, load_statistics
from sae_lib.saes.exchange import JumpReLUSAE, export_saelens, export_sparsify
from sae_lib.saes.sizes import sae_size
from sae_lib.saes.topk import TopKSAE
from sae_lib.training.config import SAEConfig
from tests.saes.test_exchange import hand_made, save_sdxl_unbox


def write_saes(folder, ks=(3,), blocks=PAPER_BLOCKS, seed=0, dtype=torch.float32):
    torch.manual_seed(seed)
    for k in ks:
        for block in blocks:
            TopKSAE(6, 12, k).save(folder / f"{block}_k{k}_hidden12_seed{seed}", {"block": block, "seed": seed}, dtype)
    return folder


def test_saes_come_one_a_block_in_the_paper_s_order(tmp_path):
    saes = load_saes(4, source=write_saes(tmp_path, ks=(3, 4)), blocks="paper")
    assert tuple(saes) == PAPER_BLOCKS
    assert {sae.k for sae in saes.values()} == {4}
    assert not any(parameter.requires_grad for sae in saes.values() for parameter in sae.parameters())


def test_saes_stored_in_16_bit_have_unit_columns(tmp_path):
    for sae in load_saes(3, source=write_saes(tmp_path, dtype=torch.float16), blocks="paper").values():
        assert sae.decoder.weight.dtype == torch.float32
        torch.testing.assert_close(sae.decoder.weight.norm(dim=0), torch.ones(12), atol=1e-6, rtol=0)


def test_the_shipped_saes_are_used_at_pocket_and_smoke_scale(tmp_path, monkeypatch):
    chosen = select_blocks("chosen", "pocket")
    monkeypatch.setattr(checkpoints, "SHIPPED", write_saes(tmp_path, blocks=chosen))
    for scale in ("pocket", "smoke"):
        assert tuple(load_saes(3, scale)) == chosen


def test_sdxl_s_saes_come_from_the_hub_the_authors_two_repositories_by_k(tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr(checkpoints, "download_sdxl_unbox", lambda *wanted: asked.append(wanted) or tmp_path)
    checkpoints.find_saes(10, "sdxl")
    checkpoints.find_saes(160, "sdxl")
    assert asked[0] == ("surokpro2/sdxl-saes", "down.2.1", 10, 5120)
    assert asked[-1] == ("wendlerc/sdxl-turbo-saes", "up.0.1", 160, 5120)


def test_an_unknown_scale_is_refused():
    with pytest.raises(ValueError, match="unknown scale 'large'"):
        load_saes(10, "large")


def test_a_missing_folder_is_refused(tmp_path, monkeypatch):
    with pytest.raises(FileNotFoundError, match="'nowhere': give a folder that train_saes wrote"):
        load_saes(3, source=tmp_path / "nowhere")
    monkeypatch.setattr(checkpoints, "SHIPPED", tmp_path / "saes")
    with pytest.raises(FileNotFoundError, match="'saes': restore it with git"):
        load_saes(3)


def test_a_k_that_is_not_there_is_refused_with_those_that_are(tmp_path):
    with pytest.raises(ValueError, match=r"0 SAEs of block 'down.2.1' with k = 5 .* it has down.2.1_k3_hidden12_seed0"):
        load_saes(5, source=write_saes(tmp_path), blocks="paper")


def test_of_two_seeds_one_is_chosen_and_neither_is_taken_for_the_other(tmp_path):
    write_saes(write_saes(tmp_path), seed=1)
    with pytest.raises(ValueError, match=r"2 SAEs of block 'down.2.1' with k = 3 .*_seed0, .*_seed1: choose by n_f"):
        load_saes(3, source=tmp_path, blocks="paper")
    for seed in (0, 1):
        loaded = load_saes(3, source=tmp_path, blocks="paper", seed=seed)["mid.0"]
        stored = TopKSAE.load(tmp_path / f"mid.0_k3_hidden12_seed{seed}")
        assert torch.equal(loaded.encoder.weight, stored.encoder.weight)
    with pytest.raises(ValueError, match=r"0 SAEs .* k = 3 and seed = 2 .* it has .*_seed0, .*_seed1: ask for one"):
        load_saes(3, source=tmp_path, seed=2)


def test_the_published_saes_have_no_seed():
    with pytest.raises(ValueError, match="seed is 0, but the published SAEs say no seed"):
        load_saes(10, "sdxl", seed=0)


def test_of_a_folder_without_named_blocks_all_its_own_come_the_scales_first(tmp_path):
    assert tuple(load_saes(3, source=write_saes(tmp_path, blocks=["mid.0"]))) == ("mid.0",)
    write_saes(tmp_path, blocks=["down.1.1", "up.0.1", "down.2.1"])
    assert tuple(load_saes(3, "sdxl", tmp_path)) == ("down.2.1", "mid.0", "up.0.1", "down.1.1")


@pytest.mark.parametrize(
    "leftover", ["mid.0_k3_hidden12_seed0.partial-4242", ".mid.0_k3_hidden12_seed0.4242.unfinished"]
)
def test_what_a_stopped_program_left_is_no_sae(leftover, tmp_path):
    write_saes(tmp_path, blocks=["mid.0"])
    shutil.copytree(tmp_path / "mid.0_k3_hidden12_seed0", tmp_path / leftover)
    assert list(load_saes(3, source=tmp_path)) == ["mid.0"]
    shutil.rmtree(tmp_path / "mid.0_k3_hidden12_seed0")
    with pytest.raises(FileNotFoundError, match="it has none of any block"):
        load_saes(3, source=tmp_path)


def test_a_tilde_is_the_home_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    write_saes(tmp_path / "saes", blocks=["mid.0"])
    assert list(load_saes(3, source="~/saes")) == ["mid.0"]
    assert TopKSAE.load("~/saes/mid.0_k3_hidden12_seed0").k == 3


def test_a_file_in_the_place_of_a_folder_is_refused(tmp_path):
    folder = write_saes(tmp_path, blocks=["mid.0"]) / "mid.0_k3_hidden12_seed0"
    with pytest.raises(FileNotFoundError, match="no config.json in .*model.safetensors, which is a file"):
        TopKSAE.load(folder / "model.safetensors")
    with pytest.raises(FileNotFoundError, match="no folder of SAEs 'config.json': give a folder"):
        load_saes(3, source=folder / "config.json")
    with pytest.raises(FileNotFoundError, match="give the folder around the SAEs' own folders"):
        load_saes(3, source=folder)


@pytest.mark.parametrize("content", ["", "[]", '{"d_model": 6, "n_f": "12", "k": 3}', '{"d_model": 6, "k": 3}'])
def test_a_damaged_configuration_is_named(content, tmp_path):
    write_saes(tmp_path)
    (tmp_path / "mid.0_k3_hidden12_seed0" / "config.json").write_text(content)
    with pytest.raises(ValueError, match="mid.0_k3_hidden12_seed0.config.json"):
        load_saes(3, source=tmp_path)
    assert load_saes(3, source=tmp_path, blocks="up.0.1")["up.0.1"].k == 3


@pytest.mark.parametrize("name", ["config.json", "model.safetensors"])
def test_an_sae_that_was_not_completely_copied_is_not_passed_over(name, tmp_path):
    write_saes(tmp_path)
    (tmp_path / "mid.0_k3_hidden12_seed0" / name).unlink()
    with pytest.raises(FileNotFoundError, match=f"no {name} in .*mid.0_k3_hidden12_seed0: .*not completely copied"):
        load_saes(3, source=tmp_path)


def test_a_decoder_vector_of_length_0_is_refused(tmp_path):
    sae = TopKSAE(6, 12, 3).requires_grad_(False)
    sae.decoder.weight[:, 4] = 0
    sae.save(tmp_path / "mid.0_k3_hidden12_seed0", {"block": "mid.0"})
    with pytest.raises(ValueError, match="1 features in .*mid.0_k3_hidden12_seed0 have a decoder vector of length 0"):
        load_saes(3, source=tmp_path)


def test_a_missing_block_is_refused(tmp_path):
    folder = write_saes(tmp_path, blocks=PAPER_BLOCKS[:3])
    with pytest.raises(FileNotFoundError, match=r"no SAE of block 'up.0.1' .* has SAEs of down.2.1, mid.0, up.0.0\)"):
        load_saes(3, source=folder, blocks="paper")


def test_a_damaged_sae_is_refused(tmp_path):
    write_saes(tmp_path)
    path = tmp_path / "mid.0_k3_hidden12_seed0" / "model.safetensors"
    path.write_bytes(path.read_bytes()[:50])
    with pytest.raises(ValueError, match="truncated"):
        load_saes(3, source=tmp_path, blocks="paper")


def test_the_folder_names_that_training_gives_are_found(tmp_path):
    config = SAEConfig.pocket("mid.0", k=3, n_f=12, seed=5)
    assert config.folder_name == "mid.0_k3_hidden12_seed5"


def write_published(folder, ks=(3,), n_f=12, d_model=6):
    """Checkpoints as the authors name them."""
    for k in ks:
        for block in PAPER_BLOCKS:
            name = f"{BLOCKS[block]}_k{k}_hidden{n_f}_auxk256_bs4096_lr0.0001"
            (folder / name).mkdir(parents=True)
            save_sdxl_unbox(TopKSAE(d_model, n_f, k), folder / name / "final")
    return folder


def test_the_authors_checkpoints_are_found_by_their_names_with_the_statistics_they_have(tmp_path):
    write_published(tmp_path / "hparam_study", ks=(3, 4))
    saes, statistics = (load(4, "sdxl", tmp_path) for load in (load_saes, load_statistics))
    assert {sae.k for sae in saes.values()} == {4} and tuple(saes) == PAPER_BLOCKS
    assert statistics["mid.0"].mean.shape == (12,) and statistics["mid.0"].max.isnan().all()


def test_n_f_chooses_among_several_of_one_k(tmp_path):
    write_published(tmp_path)
    write_published(tmp_path, n_f=24)
    with pytest.raises(ValueError, match=r"2 SAEs of block 'down.2.1' with k = 3 .*, wanted 1"):
        load_saes(3, "sdxl", tmp_path)
    assert load_saes(3, "sdxl", tmp_path, n_f=24)["up.0.0"].n_f == 24


def test_an_authors_checkpoint_without_statistics_is_refused(tmp_path):
    write_published(tmp_path)
    next(tmp_path.glob("**/std.pt")).unlink()
    with pytest.raises(FileNotFoundError, match="no mean.pt and std.pt .*: copy them too"):
        load_statistics(3, "sdxl", tmp_path)


def test_shipped_saes_have_statistics_and_the_sizes_that_were_chosen():
    for kind in ("panel", "transfer"):
        for blocks in ("chosen", "paper"):
            saes, statistics = load_saes(kind, blocks=blocks), load_statistics(kind, blocks=blocks)
            assert all((sae.k, sae.n_f) == sae_size(kind, sae.d_model) for sae in saes.values())
            assert all(0 < statistics[block].firing_rate.sum() <= sae.k for block, sae in saes.items())


def test_sizes_are_the_paper_s_at_1280_dimensions_and_refused_where_none_was_chosen():
    assert [sae_size(kind, 1280, "sdxl") for kind in ("panel", "transfer")] == [(10, 5120), (160, 5120)]
    assert sae_size("panel", 80, "sdxl") == (8, 320) and sae_size("transfer", 64) == (8, 256)
    with pytest.raises(ValueError, match="no size was chosen for SAEs of width 32; there are 64, 128"):
        sae_size("panel", 32)
    with pytest.raises(ValueError, match="unknown kind of SAE 'large'; choose one of panel, transfer"):
        sae_size("large", 64)


FORMATS = {
    "ours": lambda sae, folder: sae.save(folder, {"block": "mid.0"}),
    "SAELens": lambda sae, folder: export_saelens(sae, folder, {"block": "mid.0"}),
    "SAELens by hook": lambda sae, folder: export_saelens(sae, folder, {"hook_name": "unet.mid_block.attentions.0"}),
    "sparsify": lambda sae, folder: export_sparsify(sae, folder),
    "the authors": lambda sae, folder: save_sdxl_unbox(sae, folder),
}


@pytest.mark.parametrize("form", FORMATS)
def test_an_sae_of_any_format_is_loaded_with_the_block_that_its_folder_says(form, tmp_path):
    torch.manual_seed(0)
    sae, x = TopKSAE(6, 12, 3).requires_grad_(False), torch.randn(20, 6)
    folder = tmp_path / {"sparsify": "mid.0", "the authors": "unet.mid_block.attentions.0_k3_hidden12"}.get(form, "sae")
    FORMATS[form](sae, folder)
    loaded, block = load_any(folder)
    assert block == "mid.0"
    torch.testing.assert_close(loaded.encode(x), sae.encode(x))
    torch.testing.assert_close(loaded(x), sae(x))
    with pytest.raises(ValueError, match=r"says that it is for block 'mid.0', and 'up.0.0' was asked for"):
        load_any(folder, "up.0.0")


def test_the_shipped_sae_of_any_format_is_that_of_load_saes():
    block, sae = next(iter(load_saes().items()))
    (folder,) = checkpoints.find_saes("panel", "pocket", blocks=block).values()
    assert torch.equal(load_any(folder)[0].decoder.weight, sae.decoder.weight)


def test_a_jumprelu_of_saelens_comes_with_its_block_and_a_folder_without_one_is_asked_for_it(tmp_path):
    sae, block = load_any(hand_made(tmp_path / "said"))
    assert isinstance(sae, JumpReLUSAE) and block == "mid.0"
    silent = hand_made(tmp_path / "silent", metadata={"hook_name": "blocks.4.hook_resid_pre"})
    with pytest.raises(ValueError, match="silent does not say which block it is for: name it with --block"):
        load_any(silent)
    assert load_any(silent, "up.0.0")[1] == "up.0.0"
    with pytest.raises(ValueError, match="unknown block 'mid.9'; valid blocks: down.0.r0"):
        load_any(silent, "mid.9")


def test_a_folder_of_no_known_format_is_refused_with_what_it_holds(tmp_path):
    with pytest.raises(FileNotFoundError, match="there is no folder .*nowhere: give the folder that holds an SAE's"):
        load_any(tmp_path / "nowhere")
    with pytest.raises(ValueError, match=r"holds nothing; wanted the files of one format: cfg.json and sae_weights"):
        load_any(tmp_path)
    torch.save({"W_enc": torch.zeros(2)}, tmp_path / "ae.pt")
    with pytest.raises(ValueError, match=r"holds ae.pt; wanted the files of one format"):
        load_any(tmp_path)
