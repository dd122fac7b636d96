import json

import pytest
import torch
from safetensors.torch import load_file, save_file

from sae_lib.saes.topk import TopKSAE, top_k


@pytest.fixture
def tiny():
    """Three features of two dimensions: e0, e1 and the diagonal; k = 2."""
    sae = TopKSAE(2, 3, 2)
    sae.encoder.weight.data = torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.6, 0.8]])
    sae.decoder.weight.data = sae.encoder.weight.data.T.clone()
    sae.pre_bias.data = torch.tensor([10.0, 20.0])
    sae.latent_bias.data = torch.tensor([0.0, 0.0, 1.0])
    return sae


def random_sae(d_model=8, n_f=32, k=4):
    torch.manual_seed(0)
    sae = TopKSAE(d_model, n_f, k)
    sae.pre_bias.data.normal_()
    sae.latent_bias.data.normal_()
    return sae


def test_encode_and_decode_give_the_numbers_of_the_equations(tiny):
    x = torch.tensor(
        [[13.0, 24.0]]
    )  # minus b_pre: (3, 4); pre-activations 3, 4, 0.6*3 + 0.8*4 + 1 = 6; the two largest stay
    assert tiny.pre_activations(x).tolist() == [[3.0, 4.0, 6.0]]
    assert tiny.encode(x).tolist() == [[0.0, 4.0, 6.0]]
    torch.testing.assert_close(tiny(x), torch.tensor([[10 + 6 * 0.6, 20 + 4 + 6 * 0.8]]))


def test_relu_comes_after_top_k_so_that_fewer_than_k_may_be_active(tiny):
    x = torch.tensor([[8.0, 21.0]])  # minus b_pre: (-2, 1); pre-activations -2, 1, 0.6: kept 1 and 0.6
    torch.testing.assert_close(tiny.encode(x), torch.tensor([[0.0, 1.0, 0.6]]))
    assert tiny.encode(torch.tensor([[5.0, 15.0]])).tolist() == [[0.0, 0.0, 0.0]]  # pre-activations -5, -5, -6


def test_of_nothing_active_the_reconstruction_is_the_pre_bias(tiny):
    assert tiny.decode(torch.zeros(4, 3)).tolist() == [[10.0, 20.0]] * 4


def test_top_k_keeps_at_most_k_non_negative_activations():
    sae = random_sae()
    activations = sae.encode(torch.randn(100, 8))
    assert (activations >= 0).all()
    assert (activations > 0).sum(-1).max() <= 4


@pytest.mark.parametrize(("n", "k"), [(512, 10), (512, 16), (2048, 40), (5120, 10), (96, 5), (33, 4), (8, 8), (1, 1)])
def test_the_fast_top_k_finds_what_topk_finds(n, k):
    x = torch.randn(50, n, generator=torch.Generator().manual_seed(n))
    values, indices = top_k(x, k)
    wanted = x.topk(k)
    assert torch.equal(values, wanted.values) and torch.equal(indices, wanted.indices)


def test_the_fast_top_k_keeps_k_different_places_of_equal_values():
    x = torch.zeros(3, 512)
    x[:, 100:104] = 1
    values, indices = top_k(x, 10)
    assert values.tolist() == [[1.0] * 4 + [0.0] * 6] * 3
    assert all(len(row.unique()) == 10 for row in indices) and torch.equal(x.gather(1, indices), values)


def test_sparse_and_dense_encodings_are_the_same():
    sae, x = random_sae(), torch.randn(5, 3, 8)
    values, indices = sae.encode_sparse(x)
    assert values.shape == indices.shape == (5, 3, 4)
    assert (values.diff(dim=-1) <= 0).all()
    assert torch.equal(sae.to_dense(values, indices), sae.encode(x))


def test_it_starts_tied_with_unit_columns_and_zero_biases():
    sae = TopKSAE(8, 32, 4)
    torch.testing.assert_close(sae.decoder.weight.norm(dim=0), torch.ones(32))
    torch.testing.assert_close(
        sae.decoder.weight, (sae.encoder.weight / sae.encoder.weight.norm(dim=1, keepdim=True)).T.contiguous()
    )
    assert not sae.pre_bias.any() and not sae.latent_bias.any()


def test_decoder_and_encoder_start_equal_but_are_not_one_tensor():
    sae = TopKSAE(8, 32, 4)
    before = sae.encoder.weight.clone()
    sae.decoder.weight.data += 1
    assert torch.equal(sae.encoder.weight, before)


def test_the_parameters_have_the_published_names_and_shapes():
    shapes = {name: tuple(tensor.shape) for name, tensor in TopKSAE(8, 32, 4).state_dict().items()}
    assert shapes == {
        "encoder.weight": (32, 8),
        "decoder.weight": (8, 32),
        "pre_bias": (8,),
        "latent_bias": (32,),
        "stats_last_nonzero": (32,),
    }


def test_saving_and_loading_gives_the_same_sae_bit_for_bit(tmp_path):
    sae, x = random_sae(), torch.randn(20, 8)
    sae.stats_last_nonzero += 7
    sae.save(tmp_path / "sae", training={"block": "mid.0"})
    loaded = TopKSAE.load(tmp_path / "sae", block="mid.0")
    assert torch.equal(loaded(x), sae(x))
    assert loaded.stats_last_nonzero.tolist() == [7] * 32
    assert not any(parameter.requires_grad for parameter in loaded.parameters())
    assert sorted(path.name for path in (tmp_path / "sae").iterdir()) == ["config.json", "model.safetensors"]


def test_weights_stored_in_16_bit_load_as_the_rounded_numbers(tmp_path):
    sae = random_sae()
    sae.save(tmp_path, dtype=torch.float16)
    loaded = TopKSAE.load(tmp_path)
    assert loaded.encoder.weight.dtype == torch.float32
    assert torch.equal(loaded.encoder.weight, sae.encoder.weight.half().float())
    assert TopKSAE.load(tmp_path, dtype=torch.float64).pre_bias.dtype == torch.float64


@pytest.mark.parametrize("k", [0, 33])
def test_an_impossible_k_is_refused(k):
    with pytest.raises(ValueError, match=f"k is {k}; wanted 1 <= k <= n_f = 32"):
        TopKSAE(8, 32, k)


def test_vectors_of_another_width_are_refused():
    with pytest.raises(ValueError, match="got vectors of width 9, this SAE wants d_model = 8"):
        random_sae().encode(torch.zeros(2, 9))


@pytest.mark.parametrize("name", ["model.safetensors", "config.json"])
def test_a_missing_file_is_refused(tmp_path, name):
    random_sae().save(tmp_path)
    (tmp_path / name).unlink()
    with pytest.raises(FileNotFoundError, match=f"no {name} in .*train or copy it again"):
        TopKSAE.load(tmp_path)


@pytest.mark.parametrize("name", ["model.safetensors", "config.json"])
def test_a_truncated_file_is_refused(tmp_path, name):
    random_sae().save(tmp_path)
    content = (tmp_path / name).read_bytes()
    (tmp_path / name).write_bytes(content[: len(content) // 2])
    with pytest.raises(ValueError, match=rf"{name} is (truncated or|no JSON) .*: copy or make it again"):
        TopKSAE.load(tmp_path)


def test_a_config_of_another_format_is_refused(tmp_path):
    random_sae().save(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps({"d_sae": 32}))
    with pytest.raises(ValueError, match="lacks d_model, n_f, k, training: it belongs to another format"):
        TopKSAE.load(tmp_path)


def test_weights_of_another_width_than_the_config_are_refused(tmp_path):
    random_sae().save(tmp_path)
    tensors = load_file(tmp_path / "model.safetensors")
    save_file(tensors | {"pre_bias": torch.zeros(9)}, tmp_path / "model.safetensors")
    with pytest.raises(ValueError, match=r"do not fit its configuration: pre_bias \[9\] \(wanted \[8\]\)"):
        TopKSAE.load(tmp_path)


def test_an_sae_for_another_block_is_refused(tmp_path):
    random_sae().save(tmp_path, training={"block": "mid.0"})
    with pytest.raises(ValueError, match="is for block 'mid.0', wanted 'up.0.1'"):
        TopKSAE.load(tmp_path, block="up.0.1")
