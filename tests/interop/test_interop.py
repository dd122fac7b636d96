"""SAELens and sparsify, as released, compute what we compute from the checkpoints that we exchange with them.

`make test-interop` runs this in an environment of its own.
"""

import json
from importlib.metadata import version

import pytest
import torch
from sae_lens import SAE, TopKSAE as LensSAE, TopKSAEConfig
from sparsify import SparseCoder

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


def test_we_compute_what_saelens_does_from_its_checkpoint(x, tmp_path):
    torch.manual_seed(0)
    theirs = LensSAE(
        TopKSAEConfig(d_in=128, d_sae=512, k=10, apply_b_dec_to_input=True, rescale_acts_by_decoder_norm=False)
    )
    for parameter in theirs.parameters():
        parameter.data.normal_(std=0.1)
    theirs.save_model(tmp_path)
    ours, _ = load_saelens(tmp_path)
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


def test_these_are_the_released_versions():
    assert (version("sae-lens"), version("eai-sparsify")) == ("6.54.12", "1.3.3")
