"""What an SAE's training minimises (paper: App. K and the authors' code).

First the definition, then the same gradients without dense products.
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

from sae_lib.saes.topk import TopKSAE

DENSE = 8
"""Up to this many features per kept activation a training step multiplies all features, not only the kept ones.

On a CPU that takes half the time with 8 and longer with 13."""


def variance(x: Float[Tensor, "vectors d_model"]) -> Float[Tensor, ""]:
    """Mean over all entries of (x - mean over the vectors)^2."""
    return (x - x.mean(0)).square().mean()


def normalized_mse(x_hat: Float[Tensor, "vectors d_model"], x: Float[Tensor, "vectors d_model"]) -> Float[Tensor, ""]:
    """mean((x_hat - x)^2) / variance(x): 0 is perfect, 1 is as good as the mean vector."""
    return (x_hat - x).square().mean() / variance(x)


def auxiliary_loss(
    sae: TopKSAE,
    x: Float[Tensor, "vectors d_model"],
    error: Float[Tensor, "vectors d_model"],
    dead: Bool[Tensor, " n_f"],
    auxk: int,
) -> Float[Tensor, ""]:
    """How badly the dead features explain what the others leave over (Gao et al.'s AuxK term, as in the authors' code).

        normalized_mse( DEC(ReLU(TopK_auxk(pre_activations * dead))),  error + b_pre ),   NaN counts as 0

    error: x - x_hat, detached. b_pre is detached on the right, not on the left. So with nothing dead the reconstruction
    is b_pre alone, and the term, about 1, still has a gradient on b_pre:

        -2 mean_vectors(error) / (d_model variance(error))
    """
    silent = dead.nonzero().flatten()
    if len(silent) == 0:  # the same number and gradients without the work
        x_hat = sae.pre_bias.expand_as(error)
    else:
        activations = F.linear(x - sae.pre_bias, sae.encoder.weight[silent], sae.latent_bias[silent])
        x_hat = keep_largest(activations, auxk) @ sae.decoder.weight[:, silent].T + sae.pre_bias
    return normalized_mse(x_hat, error + sae.pre_bias.detach()).nan_to_num(0)


def keep_largest(pre_activations: Float[Tensor, "vectors features"], k: int) -> Float[Tensor, "vectors features"]:
    """ReLU(TopK(pre_activations)), zeros elsewhere. Where no row has more than k above 0, ReLU alone says the same."""
    positive = pre_activations.relu()
    if pre_activations.shape[-1] <= k or (positive > 0).sum(-1).max() <= k:
        return positive
    values, chosen = positive.topk(k, dim=-1, sorted=False)
    return torch.zeros_like(positive).scatter(-1, chosen, values)


class Weights(NamedTuple):
    """What weighs the two terms of the loss."""

    mse_scale: Float[Tensor, ""]
    """1 / variance of the first vectors of the stream."""
    auxk: int
    auxk_coef: float


def training_loss(
    sae: TopKSAE, x: Float[Tensor, "vectors d_model"], dead: Bool[Tensor, " n_f"], weights: Weights
) -> Float[Tensor, ""]:
    """mse_scale mean((x_hat - x)^2) + auxk_coef auxiliary_loss: the definition, by dense products and autograd."""
    x_hat = sae(x)
    auxiliary = auxiliary_loss(sae, x, (x - x_hat).detach(), dead, weights.auxk)
    return weights.mse_scale * (x_hat - x).square().mean() + weights.auxk_coef * auxiliary


def add_gradients_(
    sae: TopKSAE,
    x: Float[Tensor, "vectors d_model"],
    values: Float[Tensor, "vectors k"],
    indices: Int[Tensor, "vectors k"],
    dead: Bool[Tensor, " n_f"],
    weights: Weights,
) -> tuple[Float[Tensor, ""], Float[Tensor, "vectors d_model"]]:
    """Adds the gradients of `training_loss` to the parameters; gives the loss and x_hat - x.

    values, indices: the pre-activations that TopK keeps. Only they and the columns and rows they name take part, unless
    TopK keeps so many (`DENSE`) that dense products take less time. While no feature is dead, the auxiliary term costs
    one mean over the residual.
    """
    products = _dense_products if sae.n_f <= DENSE * sae.k else _sparse_products
    residual, on_columns, on_rows, on_latent_bias = products(sae, x, values, indices, weights.mse_scale)
    mean, square = residual.mean(0), residual.square().mean()
    on_pre_bias = (2 * weights.mse_scale / sae.d_model) * mean
    silent = dead.nonzero().flatten()
    if len(silent):
        auxiliary, on_silent = _auxiliary_gradients(sae, x, -residual, silent, weights)
        for gradient, part in zip((on_columns, on_rows, on_latent_bias), on_silent[:3], strict=True):
            gradient.index_add_(0, silent, part)
        on_pre_bias = on_pre_bias + on_silent[3]
    else:
        spread = square - mean.square().mean()
        auxiliary = (square / spread).nan_to_num(0)
        on_pre_bias = on_pre_bias + (2 * weights.auxk_coef / (sae.d_model * spread) * mean).nan_to_num(0)
    on_pre_bias = on_pre_bias - on_latent_bias @ sae.encoder.weight.detach()
    for parameter, gradient in (
        (sae.decoder.weight, on_columns.T),
        (sae.encoder.weight, on_rows),
        (sae.pre_bias, on_pre_bias),
        (sae.latent_bias, on_latent_bias),
    ):
        parameter.grad = gradient if parameter.grad is None else parameter.grad + gradient
    return weights.mse_scale * square + weights.auxk_coef * auxiliary, residual


@torch.no_grad()
def _dense_products(
    sae: TopKSAE, x: Tensor, values: Tensor, indices: Tensor, scale: Float[Tensor, ""]
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """x_hat - x, and what scale mean((x_hat - x)^2) asks of the decoder's columns, the encoder's rows and b_act."""
    activations, columns, centred = sae.to_dense(values.relu(), indices), sae.decoder.weight.T, x - sae.pre_bias
    residual = activations @ columns - centred
    error = (2 * scale / residual.numel()) * residual
    on_activations = (error @ columns.T) * (activations > 0)
    return residual, activations.T @ error, on_activations.T @ centred, on_activations.sum(0)


def _sparse_products(
    sae: TopKSAE, x: Tensor, values: Tensor, indices: Tensor, scale: Float[Tensor, ""]
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """`_dense_products` from the kept values alone.

    A weight's gradient is, for each feature, a sum over the vectors in which it is kept: an `embedding_bag` of the
    vectors by feature.
    """
    kept = values.detach().requires_grad_()
    columns, pre_bias = sae.decoder.weight.detach().T.contiguous(), sae.pre_bias.detach()
    bag = F.embedding_bag(indices, columns, per_sample_weights=kept.relu(), mode="sum")
    residual = bag.detach() + pre_bias - x
    error = (2 * scale / residual.numel()) * residual
    bag.backward(error)  # onto the kept values alone
    features, order = indices.flatten().sort(stable=True)
    starts = torch.searchsorted(features, torch.arange(sae.n_f, device=features.device))
    rows = order // indices.shape[-1]

    def by_feature(vectors: Tensor, amounts: Tensor) -> Float[Tensor, "n_f d_model"]:
        return F.embedding_bag(rows, vectors, starts, per_sample_weights=amounts.flatten()[order], mode="sum")

    on_latent_bias = torch.zeros_like(sae.latent_bias).index_add_(0, indices.flatten(), kept.grad.flatten())
    return residual, by_feature(error, kept.detach().relu()), by_feature(x - pre_bias, kept.grad), on_latent_bias


@torch.no_grad()
def _auxiliary_gradients(
    sae: TopKSAE, x: Tensor, error: Tensor, silent: Int[Tensor, " dead"], weights: Weights
) -> tuple[Float[Tensor, ""], tuple[Tensor, Tensor, Tensor, Tensor]]:
    """`auxiliary_loss`, and the gradients of auxk_coef times it.

    They are on the dead features' columns, rows and biases, and on the pre_bias that is added; that the pre_bias is
    also taken off is in the gradient of the biases.
    """
    centred, columns = x - sae.pre_bias, sae.decoder.weight.T[silent]
    activations = keep_largest(F.linear(centred, sae.encoder.weight[silent], sae.latent_bias[silent]), weights.auxk)
    wanted = error + sae.pre_bias
    spread, off = variance(wanted), activations @ columns + sae.pre_bias - wanted
    on_off = (2 * weights.auxk_coef / (off.numel() * spread) * off).nan_to_num(0, 0, 0)
    on_activations = (on_off @ columns.T) * (activations > 0)
    on_silent = activations.T @ on_off, on_activations.T @ centred, on_activations.sum(0), on_off.sum(0)
    return (off.square().mean() / spread).nan_to_num(0), on_silent
