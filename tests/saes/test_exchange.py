import json
import os

import pytest
import torch
from safetensors.torch import load_file, save_file

from sae_lib.saes.exchange import (
    JumpReLUSAE,
    export_saelens,
    export_sparsify,
    load_from_hub,
    load_saelens,
    load_sdxl_unbox,
    load_sparsify,
)
from sae_lib.saes.statistics import RunningStatistics
from sae_lib.saes.topk import TopKSAE


@pytest.fixture
def sae():
    torch.manual_seed(0)
    sae = TopKSAE(8, 32, 4)
    sae.pre_bias.data.normal_()
    sae.latent_bias.data.normal_()
    return sae.requires_grad_(False)


def save_sdxl_unbox(sae, folder, **changes):
    """As the authors' code does."""
    folder.mkdir(exist_ok=True)
    config = {"n_dirs_local": sae.n_f, "d_model": sae.d_model, "k": sae.k, "auxk": 256, "dead_steps_threshold": 2441}
    (folder / "config.json").write_text(json.dumps(config | changes))
    torch.save({"state_dict": sae.state_dict()}, folder / "state_dict.pth")
    torch.save(torch.rand(sae.n_f), folder / "mean.pt")
    torch.save(torch.rand(sae.n_f), folder / "std.pt")


def assert_same(first, second):
    x = torch.randn(50, first.d_model)
    assert torch.equal(first.encode(x), second.encode(x)) and torch.equal(first(x), second(x))


def test_the_authors_checkpoint_is_read_with_its_statistics(sae, tmp_path):
    save_sdxl_unbox(sae, tmp_path)
    loaded, mean, std = load_sdxl_unbox(tmp_path)
    assert_same(sae, loaded)
    assert torch.equal(mean, torch.load(tmp_path / "mean.pt")) and std.shape == (32,)


def test_the_authors_checkpoint_without_statistics_has_none(sae, tmp_path):
    save_sdxl_unbox(sae, tmp_path)
    (tmp_path / "mean.pt").unlink()
    assert load_sdxl_unbox(tmp_path)[1] is None


def test_a_saelens_export_comes_back_the_same_with_its_metadata(sae, tmp_path):
    export_saelens(sae, tmp_path, {"vector": "update"})
    loaded, metadata = load_saelens(tmp_path)
    assert_same(sae, loaded)
    assert metadata == {"vector": "update"}
    assert {name: list(x.shape) for name, x in load_file(tmp_path / "sae_weights.safetensors").items()} == {
        "W_enc": [8, 32],
        "W_dec": [32, 8],
        "b_enc": [32],
        "b_dec": [8],
    }


def test_a_sparsify_export_comes_back_the_same(sae, tmp_path):
    export_sparsify(sae, tmp_path)
    assert_same(sae, load_sparsify(tmp_path))


class Malicious:
    def __reduce__(self):
        return os.mkdir, ("owned",)


def test_a_pickle_that_holds_code_is_refused_and_not_run(sae, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    save_sdxl_unbox(sae, tmp_path)
    torch.save({"state_dict": Malicious()}, tmp_path / "state_dict.pth")
    with pytest.raises(ValueError, match="of another format, or holds code, which was not run"):
        load_sdxl_unbox(tmp_path)
    assert not (tmp_path / "owned").exists()


def test_a_truncated_pickle_is_refused(sae, tmp_path):
    save_sdxl_unbox(sae, tmp_path)
    content = (tmp_path / "state_dict.pth").read_bytes()
    (tmp_path / "state_dict.pth").write_bytes(content[: len(content) // 2])
    with pytest.raises(ValueError, match="state_dict.pth is truncated"):
        load_sdxl_unbox(tmp_path)


def test_shapes_that_differ_from_the_configuration_are_refused(sae, tmp_path):
    save_sdxl_unbox(sae, tmp_path, n_dirs_local=16)
    with pytest.raises(
        ValueError, match=r"do not fit its configuration: .*encoder.weight \[32, 8\] \(wanted \[16, 8\]\)"
    ):
        load_sdxl_unbox(tmp_path)


def test_statistics_of_another_size_are_refused(sae, tmp_path):
    save_sdxl_unbox(sae, tmp_path)
    torch.save(torch.rand(5), tmp_path / "std.pt")
    with pytest.raises(ValueError, match=r"std.pt do not fit its configuration: std \[5\] \(wanted \[32\]\)"):
        load_sdxl_unbox(tmp_path)


@pytest.mark.parametrize(
    ("export", "load", "change", "message"),
    [
        (
            export_saelens,
            load_saelens,
            {"architecture": "gated"},
            "architecture 'gated'; this library computes 'topk', 'standard', 'jumprelu', 'batchtopk'",
        ),
        (export_saelens, load_saelens, {"normalize_activations": "layer_norm"}, "normalize_activations 'layer_norm'"),
        (
            export_sparsify,
            load_sparsify,
            {"activation": "groupmax"},
            "activation 'groupmax'; this library computes 'topk'",
        ),
        (export_sparsify, load_sparsify, {"transcode": True}, "transcode True"),
    ],
)
def test_another_kind_of_sae_is_refused(sae, tmp_path, export, load, change, message):
    export(sae, tmp_path)
    config = json.loads((tmp_path / "cfg.json").read_text())
    (tmp_path / "cfg.json").write_text(json.dumps(config | change))
    with pytest.raises(ValueError, match=message):
        load(tmp_path)


def test_weights_of_another_format_are_refused(sae, tmp_path):
    export_saelens(sae, tmp_path)
    save_file({"W_enc": torch.zeros(8, 32)}, tmp_path / "sae_weights.safetensors")
    with pytest.raises(ValueError, match="lacks W_dec, b_dec, b_enc: it belongs to another format"):
        load_saelens(tmp_path)


def test_an_authors_checkpoint_without_a_tensor_is_not_filled_from_an_untrained_sae(sae, tmp_path):
    save_sdxl_unbox(sae, tmp_path)
    stored = sae.state_dict()
    del stored["latent_bias"]
    torch.save({"state_dict": stored}, tmp_path / "state_dict.pth")
    with pytest.raises(ValueError, match="state_dict.pth lacks latent_bias: it belongs to another format or is"):
        load_sdxl_unbox(tmp_path)


@pytest.mark.parametrize("lengths", [1.0, 2.0, "different"])
def test_saelens_rescaling_by_the_decoders_norm_is_loaded_as_rows_of_unit_length(lengths, sae, tmp_path):
    """encode: TopK of the pre-activations times the lengths; decode: activations over the lengths times W_dec."""
    lengths = torch.linspace(0.1, 3, 32) if lengths == "different" else torch.full((32,), lengths)
    sae.decoder.weight *= lengths
    write_saelens_default(sae, tmp_path)
    loaded, x = load_saelens(tmp_path)[0], torch.randn(50, 8)
    values, indices = (sae.pre_activations(x) * lengths).topk(4)
    activations = sae.to_dense(values.relu(), indices)
    torch.testing.assert_close(loaded.encode(x), activations)
    torch.testing.assert_close(loaded(x), sae.decode(activations / lengths))
    torch.testing.assert_close(loaded.decoder.weight.norm(dim=0), torch.ones(32))


def write_saelens_default(sae, folder):
    export_saelens(sae, folder)
    config = json.loads((folder / "cfg.json").read_text())
    (folder / "cfg.json").write_text(json.dumps(config | {"rescale_acts_by_decoder_norm": True}))


def test_saelens_decoder_rows_of_length_0_are_refused_where_saelens_divides_by_them(sae, tmp_path):
    sae.decoder.weight[:, :2] = 0
    write_saelens_default(sae, tmp_path)
    with pytest.raises(ValueError, match="2 features in .*sae_weights.safetensors have a decoder vector of length 0"):
        load_saelens(tmp_path)


def test_a_transposed_decoder_of_a_square_sae_is_refused_by_the_lengths_of_its_rows(tmp_path):
    torch.manual_seed(0)
    sae = TopKSAE(16, 16, 4).requires_grad_(False)
    export_sparsify(sae, tmp_path / "right")
    assert_same(sae, load_sparsify(tmp_path / "right"))
    sae.decoder.weight.copy_(sae.decoder.weight.T.clone())
    export_sparsify(sae, tmp_path / "transposed")
    with pytest.raises(ValueError, match="the decoder in .*sae.safetensors is transposed: its rows are of unit length"):
        load_sparsify(tmp_path / "transposed")


@pytest.mark.parametrize("load", [load_sdxl_unbox, load_saelens, load_sparsify])
def test_a_folder_without_a_configuration_is_refused(tmp_path, load):
    with pytest.raises(FileNotFoundError, match="give the folder that holds it"):
        load(tmp_path)


def test_without_network_the_hub_s_saes_say_what_to_download_and_where_to_put_it():
    with pytest.raises(
        ConnectionError, match="hf download surokpro2/sdxl-saes --include 'unet.mid_block.attentions.0_k10"
    ):
        load_from_hub("surokpro2/sdxl-saes", "mid.0")


@pytest.mark.parametrize(
    ("repository", "block", "message"),
    [
        ("somebody/saes", "mid.0", "unknown repository 'somebody/saes'"),
        ("surokpro2/sdxl-saes", "mid.9", "unknown block"),
    ],
)
def test_an_unknown_repository_or_block_is_refused(repository, block, message):
    with pytest.raises(ValueError, match=message):
        load_from_hub(repository, block)


def hand_made(folder, **changes):
    """Two dimensions, three features: W_enc (x - b_dec) + b_enc is [x0 - 1, x1 - 1, x0 + x1 - 2 + 0.5]."""
    weights = {
        "W_enc": [[1, 0, 1], [0, 1, 1]],
        "b_enc": [0, 0, 0.5],
        "W_dec": [[1, 0], [0, 2], [3, 4]],
        "b_dec": [1, 1],
    }
    weights = {name: torch.tensor(rows, dtype=torch.float32) for name, rows in weights.items()}
    config = {"architecture": "jumprelu", "d_in": 2, "d_sae": 3, "dtype": "float32", "metadata": {"hook_name": "mid.0"}}
    tensors = {"threshold": torch.tensor([0.5, 1.0, 1.0])} | changes.pop("tensors", {})
    folder.mkdir(exist_ok=True)
    (folder / "cfg.json").write_text(json.dumps(config | changes))
    save_file(weights | tensors, folder / "sae_weights.safetensors")
    return folder


X = torch.tensor([[2.0, 1.5], [1.5, 2.5], [0.0, 0.0]])
"""Pre-activations [1, 0.5, 2], [0.5, 1.5, 2.5] and [-1, -1, -1.5]; a threshold must be exceeded, not reached."""


def test_jumprelu_keeps_what_exceeds_its_threshold(tmp_path):
    sae, metadata = load_saelens(hand_made(tmp_path))
    assert sae.encode(X).tolist() == [[1, 0, 2], [0, 1.5, 2.5], [0, 0, 0]]
    assert sae(X).tolist() == [[1 + 1 + 6, 1 + 8], [1 + 7.5, 1 + 3 + 10], [1, 1]]
    assert metadata == {"hook_name": "mid.0"} and (sae.d_model, sae.n_f, sae.k) == (2, 3, 3)
    assert not any(tensor.requires_grad for tensor in sae.parameters())


def test_a_threshold_below_zero_lets_no_negative_activation_through(tmp_path):
    sae, _ = load_saelens(hand_made(tmp_path, tensors={"threshold": torch.full((3,), -2.0)}))
    assert sae.encode(X).tolist() == [[1, 0.5, 2], [0.5, 1.5, 2.5], [0, 0, 0]]


def test_sparse_and_dense_codes_of_a_jumprelu_are_the_same_and_the_largest_come_first(tmp_path):
    sae, _ = load_saelens(hand_made(tmp_path))
    values, indices = sae.encode_sparse(X.expand(4, 3, 2))
    assert values[0].tolist() == [[2, 1, 0], [2.5, 1.5, 0], [0, 0, 0]] and indices[0, :2, 0].tolist() == [2, 2]
    assert torch.equal(sae.to_dense(values, indices), sae.encode(X.expand(4, 3, 2)))
    statistics = RunningStatistics(sae.n_f)
    statistics.add(values.flatten(0, 1), indices.flatten(0, 1))
    assert statistics.result().mean.tolist() == [1, 1.5, 2.25]
    torch.testing.assert_close(statistics.result().firing_rate, torch.tensor([1 / 3, 1 / 3, 2 / 3]))


def test_a_standard_sae_has_thresholds_of_zero(tmp_path):
    hand_made(tmp_path, architecture="standard")
    with pytest.raises(ValueError, match="also holds threshold, which nothing here would use"):
        load_saelens(tmp_path)
    weights = load_file(tmp_path / "sae_weights.safetensors")
    save_file({name: x for name, x in weights.items() if name != "threshold"}, tmp_path / "sae_weights.safetensors")
    assert load_saelens(tmp_path)[0].encode(X).tolist() == [[1, 0.5, 2], [0.5, 1.5, 2.5], [0, 0, 0]]


def test_without_the_bias_at_the_input_the_encoder_sees_the_vector_itself(tmp_path):
    sae, _ = load_saelens(hand_made(tmp_path, apply_b_dec_to_input=False))
    assert sae.encode(X).tolist() == [[2, 1.5, 4], [1.5, 2.5, 4.5], [0, 0, 0]]
    assert sae.decode(torch.zeros(1, 3)).tolist() == [[1, 1]]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"tensors": {"threshold": torch.zeros(2)}}, r"threshold \[2\] \(wanted \[3\]\)"),
        ({"architecture": "batchtopk"}, "lacks topk_threshold"),
        ({"normalize_activations": "layer_norm"}, "normalize_activations 'layer_norm'; this library computes 'none'"),
        ({"normalize_activations": "expected_average_only_in"}, "normalize_activations 'expected_average_only_in'"),
        ({"reshape_activations": "hook_z"}, "reshape_activations 'hook_z'; this library computes 'none' only"),
        ({"apply_b_dec_to_input": 1}, "apply_b_dec_to_input in .* is 1; wanted a boolean"),
    ],
)
def test_what_a_jumprelu_lacks_or_this_library_does_not_compute_is_refused(tmp_path, changes, message):
    with pytest.raises(ValueError, match=message):
        load_saelens(hand_made(tmp_path, **changes))


def test_a_jumprelu_export_comes_back_the_same_and_sparsify_s_format_is_refused(tmp_path):
    sae, _ = load_saelens(hand_made(tmp_path / "theirs"))
    export_saelens(sae, tmp_path / "ours")
    again = load_saelens(tmp_path / "ours")[0]
    assert torch.equal(again.encode(X), sae.encode(X)) and isinstance(again, JumpReLUSAE)
    with pytest.raises(ValueError, match="sparsify keeps the k largest activations and has no thresholds"):
        export_sparsify(sae, tmp_path / "sparsify")
