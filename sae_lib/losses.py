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

    values, indices: the pre-activations that TopK keeps. Only they and the columns and rows they name take part: the
    encoder's gradient is sum over kept (dloss/dvalue) (x - b_pre), which is what an `embedding_bag` of the encoder's rows
    passes back; its forward is their part of the gradient on b_pre. While no feature is dead the auxiliary term costs
    one mean over the residual.
    """
    kept = values.detach().requires_grad_()
    bag = F.embedding_bag(indices, sae.decoder.weight.T.contiguous(), per_sample_weights=kept.relu(), mode="sum")
    residual = bag.detach() + sae.pre_bias.detach() - x
    mean, square = residual.mean(0), residual.square().mean()
    bag.backward((2 * weights.mse_scale / residual.numel()) * residual)
    loss, on_pre_bias = weights.mse_scale * square, (2 * weights.mse_scale / sae.d_model) * mean

    if dead.any():
        auxiliary = auxiliary_loss(sae, x, -residual, dead, weights.auxk)
        (weights.auxk_coef * auxiliary).backward()
        auxiliary = auxiliary.detach()
    else:
        spread = square - mean.square().mean()
        auxiliary = (square / spread).nan_to_num(0)
        on_pre_bias = on_pre_bias + (2 * weights.auxk_coef / (sae.d_model * spread) * mean).nan_to_num(0)

    rows = F.embedding_bag(indices, sae.encoder.weight, per_sample_weights=kept.grad, mode="sum")
    rows.backward(x - sae.pre_bias.detach())
    on_latent_bias = torch.zeros_like(sae.latent_bias).index_add_(0, indices.flatten(), kept.grad.flatten())
    on_pre_bias = on_pre_bias - rows.detach().sum(0)
    for bias, gradient in ((sae.pre_bias, on_pre_bias), (sae.latent_bias, on_latent_bias)):
        bias.grad = gradient if bias.grad is None else bias.grad + gradient
    return loss + weights.auxk_coef * auxiliary, residual
