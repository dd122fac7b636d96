"""What is measured of update vectors, reconstructions and SAE coefficients."""

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

EPS = 1e-8
"""Added to the variance in the denominator, as in the authors' code."""


def explained_variance(x: Float[Tensor, "vectors d_model"], x_hat: Float[Tensor, "vectors d_model"]) -> float:
    """Share of the update vectors' variance that the reconstruction keeps (authors' training metric).

        mean over the d_model dimensions of 1 - var(x - x_hat) / (var(x) + 1e-8), population variance over the vectors

    1 is perfect, 0 is no better than the mean vector, below 0 is worse. Not 1 - FVU (total variance): here dimensions
    of small variance count as much as large ones. A constant error costs nothing.

    Raises ValueError if fewer than two vectors are given.
    """
    if len(x) < 2:
        raise ValueError(f"explained variance of {len(x)} vectors is not defined; wanted at least 2")
    error, total = (x - x_hat).var(0, correction=0), x.var(0, correction=0)
    return (1 - error / (total + EPS)).mean().item()


def explained_variance_as_published(
    x: Float[Tensor, "vectors d_model"], x_hat: Float[Tensor, "vectors d_model"]
) -> float:
    """What the authors' code of Fig. 3 plots as explained variance: the two arguments swapped (read in that code).

        mean over the d_model dimensions of 1 - var(x - x_hat) / (var(x_hat) + 1e-8)

    The error is compared with the variance of the *reconstruction*. If error and reconstruction are
    uncorrelated, the share of x's variance kept is 1 / (2 - this): 0.80 stands for 0.83, -0.35 for 0.43. Draw
    it only beside `explained_variance`.

    Raises ValueError if fewer than two vectors are given.
    """
    return explained_variance(x_hat, x)


def coefficient_similarity(a: Float[Tensor, "vectors n_f"], b: Float[Tensor, "vectors n_f"]) -> float:
    """Mean over the rows of the cosine between two coefficient vectors (paper: "SAE feature overlap", Fig. 3).

    1: the same features in the same proportions; 0: no common feature. Row i of `a` and `b` is the same position at
    adjacent steps. A row of zeros counts as 0. The paper's control is the same number for the raw updates.
    """
    return F.cosine_similarity(a, b, dim=-1).mean().item()


def active_set_iou(a: Float[Tensor, "vectors n_f"], b: Float[Tensor, "vectors n_f"]) -> float:
    """Mean over the rows of |A and B| / |A or B|, where A = {a > 0} and B = {b > 0} are the active features.

    It does not ask how strongly they are active. A row without active features in `a` and `b` counts as 0, as
    it does in `coefficient_similarity`.
    """
    return row_iou(a, b).mean().item()


def row_iou(a: Float[Tensor, "vectors n_f"], b: Float[Tensor, "vectors n_f"]) -> Float[Tensor, " vectors"]:
    """The intersection over union of the active sets, row by row; see `active_set_iou`."""
    both = ((a > 0) & (b > 0)).sum(-1)
    either = ((a > 0) | (b > 0)).sum(-1)
    return both / either.clamp(min=1)
