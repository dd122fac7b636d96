"""SAELens and sparsify, as released, compute what we compute from the checkpoints that we exchange with them.

`make test-interop` runs this in an environment of its own.
"""

import json
from importlib.metadata import version

import pytest
import torch
from sae_lens import SAE, TopKSAE as LensSAE, TopKSAEConfig, TopKTrainingSAE, TopKTrainingSAEConfig
from sparsify import SparseCoder, SparseCoderConfig

from sae_lib.saes.checkpoints import load_saes
from sae_lib.saes.exchange import export_saelens, export_sparsify, load_saelens, load_sparsify
from sae_lib.saes.topk import TopKSAE


@pytest.fixture(params=["random", "shipped"])
def sae(request):
    if request.param == "shipped":
        return load_saes("transfer", blocks=["mid.0"])["mid.0"]
    torch.manual_seed(0)
    sae = TopKSAE(128, 512, 10)
    sae.pre_bias.data.normal_()
    sae.latent_bias.data.normal_(std=0.1)
    return sae.requires_grad_(False)


@pytest.fixture
def x(sae):
    return 3 * torch.randn(200, sae.d_model, generator=torch.Generator().manual_seed(1)) + sae.pre_bias


def test_saelens_encodes_and_decodes_our_export_as_we_do(sae, x, tmp_path):
    export_saelens(sae, tmp_path, {"vector": "update"})
    theirs = SAE.load_from_disk(tmp_path)
    torch.testing.assert_close(theirs.encode(x), sae.encode(x))
    torch.testing.assert_close(theirs(x), sae(x))
    assert theirs.cfg.metadata.vector == "update"


@pytest.fixture(params=["save_inference_model", "save_model"])
def saved_by_saelens(request, tmp_path):
    """What training with SAELens' defaults writes at its end, and what it writes on the way."""
    theirs = randomised(TopKTrainingSAE(TopKTrainingSAEConfig(d_in=128, d_sae=512)))
    assert not torch.allclose(theirs.W_dec.norm(dim=1), torch.ones(512), atol=0.1)
    getattr(theirs, request.param)(tmp_path)
    return tmp_path


def randomised(theirs):
    """Decoder rows of different lengths, biases that are not 0."""
    torch.manual_seed(0)
    for parameter in theirs.parameters():
        parameter.data.normal_(std=0.1)
    return theirs


def test_we_compute_what_saelens_does_from_what_it_writes_by_default(saved_by_saelens):
    config = json.loads((saved_by_saelens / "cfg.json").read_text())
    theirs, (ours, metadata) = SAE.load_from_disk(saved_by_saelens), load_saelens(saved_by_saelens)
    assert config["rescale_acts_by_decoder_norm"] is True and ours.k == config["k"] == 100
    assert metadata["training_architecture"] == "topk"
    assert_saelens_agrees(theirs, ours)


@pytest.mark.parametrize("rescale", [False, True])
def test_we_compute_what_saelens_does_from_its_checkpoint(rescale, tmp_path):
    config = TopKSAEConfig(d_in=128, d_sae=512, k=10, rescale_acts_by_decoder_norm=rescale)
    theirs = randomised(LensSAE(config))
    theirs.save_model(tmp_path)
    assert_saelens_agrees(theirs, load_saelens(tmp_path)[0])


def assert_saelens_agrees(theirs, ours):
    x = torch.randn(200, 128, generator=torch.Generator().manual_seed(1))
    assert theirs.encode(x).count_nonzero() > 1000
    torch.testing.assert_close(ours.encode(x), theirs.encode(x))
    torch.testing.assert_close(ours(x), theirs(x))


def dense(encoding, n_f):
    return torch.zeros(len(encoding.top_acts), n_f).scatter(1, encoding.top_indices, encoding.top_acts)


def assert_sparsify_agrees(theirs, ours, x):
    encoding = theirs.encode(x)
    torch.testing.assert_close(dense(encoding, ours.n_f), ours.encode(x))
    torch.testing.assert_close(theirs.decode(encoding.top_acts, encoding.top_indices), ours(x))


def test_sparsify_encodes_and_decodes_our_export_as_we_do(sae, x, tmp_path):
    export_sparsify(sae, tmp_path / "mid.0")
    assert_sparsify_agrees(SparseCoder.load_from_disk(tmp_path / "mid.0"), sae, x)


def test_we_compute_what_sparsify_does_from_its_checkpoint(sae, x, tmp_path):
    export_sparsify(sae, tmp_path / "ours")
    theirs = SparseCoder.load_from_disk(tmp_path / "ours")
    theirs.save_to_disk(tmp_path / "theirs")
    assert json.loads((tmp_path / "theirs" / "cfg.json").read_text())["activation"] == "topk"
    assert_sparsify_agrees(theirs, load_sparsify(tmp_path / "theirs"), x)


def test_we_compute_what_sparsify_does_from_what_it_writes_by_default(tmp_path):
    theirs = randomised(SparseCoder(64, SparseCoderConfig()))
    theirs.save_to_disk(tmp_path)
    ours = load_sparsify(tmp_path)
    assert (ours.k, ours.n_f) == (32, 32 * 64)
    x = torch.randn(200, 64, generator=torch.Generator().manual_seed(1))
    assert_sparsify_agrees(theirs, ours, x)


def test_these_are_the_released_versions():
    assert (version("sae-lens"), version("eai-sparsify")) == ("6.54.12", "1.3.3")
