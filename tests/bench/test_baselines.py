"""Bases in an SAE's form."""

import pytest
import torch

from sae_lib.bench.baselines import basis_as_sae, neurons, principal_components

X = torch.randn(500, 6, generator=torch.Generator().manual_seed(0)) * torch.tensor([3.0, 1, 1, 1, 1, 0.2]) + 2


@pytest.mark.parametrize("make", [neurons, principal_components])
def test_all_directions_rebuild_everything(make):
    sae = make(X, 6)
    assert (sae.d_model, sae.n_f) == (6, 12)
    assert torch.allclose(sae(X), X, atol=1e-4)


def test_activations_are_standard_deviations_and_each_sign_is_a_unit():
    code = neurons(X, 6).encode(X)
    signed = (X - X.mean(0)) / X.std(0)
    assert torch.allclose(code[:, :6], signed.relu(), atol=1e-5)
    assert torch.allclose(code[:, 6:], (-signed).relu(), atol=1e-5)


def test_the_first_component_varies_most():
    sae = principal_components(X, 2)
    assert sae.decoder.weight[:, 0].norm() == pytest.approx(((X - X.mean(0)) @ torch.eye(6)[0]).std().item(), rel=0.05)
    assert ((sae.encode(X) != 0).sum(1) <= 2).all()


def test_a_basis_that_is_none_is_refused():
    with pytest.raises(ValueError, match="not orthonormal"):
        basis_as_sae(torch.ones(6, 2), X, 2)
