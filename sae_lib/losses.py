"""What an SAE's training minimises (paper: App. K and the authors' code): the definition, and its gradients without dense products."""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

from sae_lib.sae import TopKSAE


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

    error: x - x_hat, detached. b_pre is detached on the right, not on the left: so with nothing dead the reconstruction
    is b_pre alone and the term, about 1, still has a gradient on b_pre: -2 mean_vectors(error) / (d_model
    variance(error)).
    """
    silent = dead.nonzero().flatten()
    if len(silent) == 0:  # the same number and gradients without the work
        x_hat = sae.pre_bias.expand_as(error)
    else:
        activations = F.linear(x - sae.pre_bias, sae.encoder.weight[silent], sae.latent_bias[silent])
        if len(silent) > auxk:
            values, chosen = activations.topk(auxk, dim=-1)
            activations = torch.zeros_like(activations).scatter(-1, chosen, values)
        x_hat = activations.relu() @ sae.decoder.weight[:, silent].T + sae.pre_bias
    return normalized_mse(x_hat, error + sae.pre_bias.detach()).nan_to_num(0)


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

    values, indices: the pre-activations that TopK keeps. Only they and the columns and rows they name take part. A
    weight's gradient is, for each feature, a sum over the vectors in which it is kept: an `embedding_bag` of the
    vectors by feature. While no feature is dead the auxiliary term costs one mean over the residual.
    """
    kept = values.detach().requires_grad_()
    columns, pre_bias = sae.decoder.weight.detach().T.contiguous(), sae.pre_bias.detach()
    bag = F.embedding_bag(indices, columns, per_sample_weights=kept.relu(), mode="sum")
    residual = bag.detach() + pre_bias - x
    mean, square = residual.mean(0), residual.square().mean()
    error = (2 * weights.mse_scale / residual.numel()) * residual
    bag.backward(error)  # onto the kept values alone
    features, order = indices.flatten().sort(stable=True)
    starts = torch.searchsorted(features, torch.arange(sae.n_f, device=features.device))
    rows = order // indices.shape[-1]

    def by_feature(vectors: Tensor, amounts: Tensor) -> Float[Tensor, "n_f d_model"]:
        return F.embedding_bag(rows, vectors, starts, per_sample_weights=amounts.flatten()[order], mode="sum")

    on_latent_bias = torch.zeros_like(sae.latent_bias).index_add_(0, indices.flatten(), kept.grad.flatten())
    on_pre_bias = (2 * weights.mse_scale / sae.d_model) * mean - on_latent_bias @ sae.encoder.weight.detach()
    loss = weights.mse_scale * square
    if dead.any():
        auxiliary = auxiliary_loss(sae, x, -residual, dead, weights.auxk)
        (weights.auxk_coef * auxiliary).backward()
        auxiliary = auxiliary.detach()
    else:
        spread = square - mean.square().mean()
        auxiliary = (square / spread).nan_to_num(0)
        on_pre_bias = on_pre_bias + (2 * weights.auxk_coef / (sae.d_model * spread) * mean).nan_to_num(0)
    for parameter, gradient in (
        (sae.decoder.weight, by_feature(error, kept.detach().relu()).T),
        (sae.encoder.weight, by_feature(x - pre_bias, kept.grad)),
        (sae.pre_bias, on_pre_bias),
        (sae.latent_bias, on_latent_bias),
    ):
        parameter.grad = gradient if parameter.grad is None else parameter.grad + gradient
    return loss + weights.auxk_coef * auxiliary, residual
