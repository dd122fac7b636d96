"""What SAEs are compared with on PocketBench, in an SAE's form, so that all is measured in the same way."""

import torch
from jaxtyping import Float
from torch import Tensor

from sae_lib.saes.controls import PCA
from sae_lib.saes.topk import TopKSAE


def basis_as_sae(basis: Float[Tensor, "d_model units"], x: Float[Tensor, "vectors d_model"], k: int) -> TopKSAE:
    """An orthonormal basis as an SAE of 2 x units features: each direction with both signs, the k largest kept.

    Activations are in standard deviations of x along the direction, so that no direction is kept more often because it
    varies more; the decoder's columns have that length. With k = units it rebuilds all that the basis spans.

    Raises ValueError for a basis that is not orthonormal.
    """
    if not torch.allclose(basis.T @ basis, torch.eye(basis.shape[1]), atol=1e-3):
        raise ValueError("the columns of the basis are not orthonormal, wanted unit length and right angles")
    mean = x.mean(0)
    spread = ((x - mean) @ basis).std(0)
    sae = TopKSAE(len(basis), 2 * basis.shape[1], k).requires_grad_(False)
    signed = torch.cat([basis, -basis], 1)
    sae.encoder.weight.data = (signed / spread.repeat(2)).T.contiguous()
    sae.decoder.weight.data = signed * spread.repeat(2)
    sae.pre_bias.data = mean.clone()
    return sae


def neurons(x: Float[Tensor, "vectors d_model"], k: int) -> TopKSAE:
    """The update's own dimensions."""
    return basis_as_sae(torch.eye(x.shape[1]), x, k)


def principal_components(x: Float[Tensor, "vectors d_model"], k: int) -> TopKSAE:
    """All principal components of x."""
    return basis_as_sae(PCA.fit([x], x.shape[1]).components.T, x, k)
