import pytest
import torch

from sae_lib.saes.topk import TopKSAE
from sae_lib.training import losses
from sae_lib.training.losses import (
    DENSE,
    Weights,
    add_gradients_,
    auxiliary_loss,
    normalized_mse,
    training_loss,
    variance,
)


def some_vectors():
    return torch.randn(40, 6, generator=torch.Generator().manual_seed(0)) + 3


def test_variance_and_normalised_error_by_hand():
    x = torch.tensor([[0.0, 0.0], [2.0, 4.0]])  # deviations 1, 1, 2, 2
    assert variance(x) == 2.5
    assert normalized_mse(x.mean(0).expand_as(x), x) == 1
    assert normalized_mse(x + torch.tensor([1.0, 0.0]), x) == pytest.approx(0.5 / 2.5)


def auxiliary(sae, x, dead, auxk=4):
    error = (x - sae(x)).detach()
    return auxiliary_loss(sae, x, error, dead, auxk), sae.pre_activations(x), error


def published_auxiliary(sae, pre_activations, error, dead, auxk=4):
    """The authors' form: masked in place, always decoded."""
    masked = pre_activations.clone()
    masked.data *= dead
    values, indices = masked.topk(auxk, dim=-1)
    x_hat = sae.decode(torch.zeros_like(masked).scatter(-1, indices, values.relu()))
    target = error + sae.pre_bias.detach()
    loss = (x_hat - target).square().mean() / (target.mean(0) - target).square().mean()
    return loss.nan_to_num(0)


@pytest.mark.parametrize("dead_features", [0, 1, 3, 12])
def test_the_auxiliary_term_and_its_gradients_are_those_of_the_published_form(dead_features):
    torch.manual_seed(0)
    sae, x = TopKSAE(6, 12, 2), some_vectors()
    sae.pre_bias.data = x.mean(0)
    dead = torch.arange(12) < dead_features
    loss, pre_activations, error = auxiliary(sae, x, dead)
    published = published_auxiliary(sae, pre_activations, error, dead)
    assert loss.item() == pytest.approx(published.item())
    parameters = dict(sae.named_parameters())
    ours = torch.autograd.grad(loss, parameters.values(), retain_graph=True, materialize_grads=True)
    theirs = torch.autograd.grad(published, parameters.values(), materialize_grads=True)
    for name, a, b in zip(parameters, ours, theirs, strict=True):
        torch.testing.assert_close(a, b, msg=lambda message, name=name: f"{name}: {message}")


def test_with_nothing_dead_the_auxiliary_term_still_pulls_on_the_pre_bias():
    torch.manual_seed(0)
    sae, x = TopKSAE(6, 12, 2), some_vectors()
    loss, _, error = auxiliary(sae, x, torch.zeros(12, dtype=torch.bool))
    spread = (error - error.mean(0)).square().mean()
    assert loss.item() == pytest.approx((error.square().mean() / spread).item())
    (gradient,) = torch.autograd.grad(loss / 32, sae.pre_bias)
    torch.testing.assert_close(gradient, -(1 / 16) * error.mean(0) / (6 * spread))


def test_an_auxiliary_term_that_is_not_a_number_counts_as_nothing():
    sae, x = TopKSAE(2, 2, 1), torch.ones(4, 2)
    sae.encoder.weight.data = sae.decoder.weight.data = torch.eye(2)
    sae.pre_bias.data = torch.ones(2)  # no error, no variance: 0 / 0
    assert auxiliary(sae, x, torch.zeros(2, dtype=torch.bool), auxk=1)[0] == 0


@pytest.mark.parametrize("dense", [0, DENSE])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize("dead_features", [0, 1, 3, 12])
def test_the_fast_gradients_are_those_of_the_definition(dead_features, dtype, dense, monkeypatch):
    monkeypatch.setattr(losses, "DENSE", dense)
    torch.manual_seed(0)
    sae, x = TopKSAE(6, 12, 8), some_vectors().to(dtype)  # of eight kept values some are negative: ReLU drops them
    sae.pre_bias.data, sae.latent_bias.data = x.mean(0).float(), torch.randn(12)
    sae.to(dtype)
    dead, weights = torch.arange(12) < dead_features, Weights(1 / variance(x), auxk=4, auxk_coef=1 / 32)
    values, indices = sae.pre_activations(x).topk(sae.k, dim=-1)
    assert (values < 0).any()

    defined = training_loss(sae, x, dead, weights)
    wanted = torch.autograd.grad(defined, list(sae.parameters()))
    loss, residual = add_gradients_(sae, x, values, indices, dead, weights)
    close = {"rtol": 0.1, "atol": 0.03} if dtype == torch.bfloat16 else {}
    torch.testing.assert_close(loss, defined.detach(), **close)
    torch.testing.assert_close(residual, (sae(x) - x).detach(), **close)
    for (name, parameter), gradient in zip(sae.named_parameters(), wanted, strict=True):
        torch.testing.assert_close(parameter.grad, gradient, **close, msg=lambda m, name=name: f"{name}: {m}")
