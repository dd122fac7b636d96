"""SAELens and sparsify, as released, compute what we compute from the checkpoints that we exchange with them.

`make test-interop` runs this in an environment of its own.
"""

import json
from importlib.metadata import version

import numpy as np
import pytest
import torch
from sae_lens import (
    SAE,
    BatchTopKTrainingSAE,
    BatchTopKTrainingSAEConfig,
    JumpReLUTrainingSAE,
    JumpReLUTrainingSAEConfig,
    MatryoshkaBatchTopKTrainingSAE,
    MatryoshkaBatchTopKTrainingSAEConfig,
    SAETrainer,
    StandardTrainingSAE,
    StandardTrainingSAEConfig,
    TopKSAE as LensSAE,
    TopKSAEConfig,
    TopKTrainingSAE,
    TopKTrainingSAEConfig,
)
from sae_lens.config import SAETrainerConfig
from safetensors.numpy import load_file
from sparsify import SparseCoder, SparseCoderConfig

from sae_lib.bench.dataset import write_dataset
from sae_lib.saes.checkpoints import load_any, load_saes
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


ARCHITECTURES = {
    "topk": (TopKTrainingSAE, TopKTrainingSAEConfig, {"k": 4}),
    "batchtopk": (BatchTopKTrainingSAE, BatchTopKTrainingSAEConfig, {"k": 4.0, "topk_threshold_lr": 0.2}),
    "matryoshka": (
        MatryoshkaBatchTopKTrainingSAE,
        MatryoshkaBatchTopKTrainingSAEConfig,
        {"k": 4.0, "topk_threshold_lr": 0.2, "matryoshka_widths": [16, 48]},
    ),
    "jumprelu": (JumpReLUTrainingSAE, JumpReLUTrainingSAEConfig, {"l0_coefficient": 0.1}),
    "standard": (StandardTrainingSAE, StandardTrainingSAEConfig, {"l1_coefficient": 0.1}),
}


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """A data set as the command writes it, of sums of few of 20 directions (drawing wants diffusers)."""
    draw = {"generator": torch.Generator().manual_seed(0)}
    directions = torch.randn(20, 12, **draw)
    amounts = torch.rand(96, 16, 20, **draw) * (torch.rand(96, 16, 20, **draw) < 0.1)
    present = amounts[..., :2] > 0
    tensors = {"updates": 3 * amounts @ directions + 0.5, "present": present, "valid": present | True}
    tensors |= {"shows": present.any(1), "stated": present.all(1)}
    about = {"block": "up.0.0", "d_model": 12, "grid": [4, 4], "pictures": 96, "pictures_per_shard": 40}
    about |= {"values": [("shape", "star"), ("style", "pastel")], "dtype": "float32", "model": {"name": "none"}}
    about |= {"prompts": {"split": "train"}, "settings": {"seed": 0}}
    captions = [{"caption": f"picture {row}"} for row in range(96)]
    make = lambda rows: {name: x[rows.start : rows.stop] for name, x in tensors.items()}
    return write_dataset(tmp_path_factory.mktemp("exported"), about, captions, make)


def read_vectors(folder):
    """The exported vectors, without our library."""
    shards = [load_file(path)["updates"] for path in sorted(folder.glob("updates-*.safetensors"))]
    assert len(shards) == 3
    return torch.from_numpy(np.concatenate(shards).reshape(-1, 12))


def trained_by_saelens(architecture, vectors, **settings):
    kind, config, own = ARCHITECTURES[architecture]
    torch.manual_seed(0)
    theirs = kind(config(d_in=12, d_sae=48, **own | settings))
    theirs.cfg.metadata.hook_name = "up.0.0"

    def batches():
        generator = torch.Generator().manual_seed(0)
        while True:
            yield vectors[torch.randint(len(vectors), (128,), generator=generator)]

    plan = SAETrainerConfig(total_training_samples=128 * 60, train_batch_size_samples=128, lr=3e-3, lr_end=3e-3)
    return SAETrainer(cfg=plan, sae=theirs, data_provider=batches()).fit()


@pytest.mark.parametrize("settings", [{}, {"apply_b_dec_to_input": False}], ids=["default", "bias not at the input"])
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_what_saelens_trained_on_our_export_is_loaded_with_its_codes(architecture, settings, exported, tmp_path):
    vectors = read_vectors(exported)
    trained_by_saelens(architecture, vectors, **settings).save_inference_model(tmp_path)
    theirs, (ours, block) = SAE.load_from_disk(tmp_path), load_any(tmp_path)
    codes, found = theirs.encode(vectors), ours.encode(vectors)
    assert block == "up.0.0" and ours.n_f == 48
    assert 0.2 * len(vectors) < codes.count_nonzero() < 0.75 * codes.numel()
    assert 1 - (vectors - theirs(vectors)).var(0).sum() / vectors.var(0).sum() > 0.3  # it has learnt
    torch.testing.assert_close(found, codes, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(ours(vectors), theirs(vectors), rtol=1e-4, atol=1e-5)
    values, indices = ours.encode_sparse(vectors)
    torch.testing.assert_close(ours.to_dense(values, indices), codes, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("architecture", ["batchtopk", "matryoshka", "jumprelu"])
def test_a_checkpoint_of_a_training_is_loaded_as_what_the_training_would_leave(architecture, exported, tmp_path):
    vectors = read_vectors(exported)
    theirs = trained_by_saelens(architecture, vectors)
    theirs.save_model(tmp_path / "on the way")
    theirs.save_inference_model(tmp_path / "end")
    ours = load_any(tmp_path / "on the way")[0]
    torch.testing.assert_close(ours.encode(vectors), SAE.load_from_disk(tmp_path / "end").encode(vectors))


def test_saelens_computes_our_export_of_a_jumprelu_as_we_do(exported, tmp_path):
    vectors = read_vectors(exported)
    trained_by_saelens("jumprelu", vectors).save_inference_model(tmp_path / "theirs")
    ours = load_any(tmp_path / "theirs")[0]
    export_saelens(ours, tmp_path / "ours")
    torch.testing.assert_close(SAE.load_from_disk(tmp_path / "ours")(vectors), ours(vectors))


@pytest.mark.parametrize("normalize", ["expected_average_only_in", "covariance_whitening"])
def test_a_scale_that_saelens_works_into_the_weights_is_there_after_the_training(normalize, exported, tmp_path):
    vectors = read_vectors(exported)
    trained_by_saelens("batchtopk", vectors, normalize_activations=normalize).save_inference_model(tmp_path)
    theirs, ours = SAE.load_from_disk(tmp_path), load_any(tmp_path)[0]
    torch.testing.assert_close(ours.encode(vectors), theirs.encode(vectors), rtol=1e-4, atol=1e-5)


def test_these_are_the_released_versions():
    assert (version("sae-lens"), version("eai-sparsify")) == ("6.54.12", "1.3.3")
