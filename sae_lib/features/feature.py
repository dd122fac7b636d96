"""Single features: how they are named, how strongly they are active and where, how alike the pictures are that excite
them, and how one searches for them by text."""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from sae_lib.activations.updates import to_maps, to_vectors
from sae_lib.models.blocks import ALL_BLOCKS
from sae_lib.saes.statistics import FeatureStatistics
from sae_lib.saes.topk import TopKSAE

_NEVER = 1e6
"""Cost of a forbidden pair of features."""


class FeatureId(NamedTuple):
    """A feature of one checkpoint's SAEs; printed as the paper's captions do: "down.2.1/2301"."""

    block: str
    feature: int

    def __str__(self) -> str:
        return f"{self.block}/{self.feature}"

    @classmethod
    def parse(cls, text: str) -> "FeatureId":
        """From "down.2.1/2301". Raises ValueError for another form or an unknown block."""
        block, _, feature = text.partition("/")
        if block not in ALL_BLOCKS or not feature.isdigit():
            raise ValueError(f"{text!r} names no feature: wanted block/number, as in 'down.2.1/2301'")
        return cls(block, int(feature))


def strength_unit(statistics: FeatureStatistics, feature: int) -> float:
    """The feature's mean non-zero activation (paper: mu_rho): an intervention of strength s adds s times this.

    Raises ValueError for a number that no feature of the SAE has, and for a dead feature, which has no unit.
    """
    if not 0 <= feature < len(statistics.mean):
        raise ValueError(f"feature {feature} of an SAE with {len(statistics.mean)}: it has none of that number")
    unit = statistics.mean[feature].item()
    if unit <= 0:
        raise ValueError(f"feature {feature} never fired while its statistics were taken: it has no unit of strength")
    return unit


def activation_maps(
    sae: TopKSAE, update: Float[Tensor, "pictures d_model height width"], features: Int[Tensor, " chosen"]
) -> Float[Tensor, "pictures chosen height width"]:
    """Where the chosen features are active in some pictures' updates of one step."""
    values, kept = sae.encode_sparse(to_vectors(update.to(sae.pre_bias)))
    active = torch.where(kept[..., None] == features.to(kept.device), values[..., None], 0).sum(1)
    return to_maps(active, *update.shape[-2:])


def match_rates(
    rates: Float[Tensor, " features"],
    others: Float[Tensor, " others"],
    forbidden: Bool[Tensor, "features others"] | None = None,
) -> Int[Tensor, " features"]:
    """For each feature the place of a partner among the others that fires about as often.

    Partners are a control of equal firing rate. No two features share one; of all such pairings this is the
    one with the smallest sum of |log(rate / partner's rate)|. forbidden: pairs that are not allowed, such as
    a feature with itself.

    Raises ValueError for a rate that is not above 0, and where there are too few others to pair all.
    """
    if not ((rates > 0).all() and (others > 0).all()):
        raise ValueError("a firing rate is 0: leave out features that never fire")
    cost = (rates[:, None].log() - others.log()).abs().double()
    if forbidden is not None:
        cost[forbidden] = _NEVER
    rows, places = linear_sum_assignment(cost.numpy(force=True))
    if len(rows) < len(rates) or bool((cost[rows, places] >= _NEVER).any()):
        raise ValueError(f"{len(rates)} features and {len(others)} others: too few to give each a partner of its own")
    return torch.as_tensor(places)


def alikeness(
    embedded: Float[Tensor, "pictures dimensions"], rows: Int[Tensor, "features pictures_each"]
) -> Float[Tensor, " features"]:
    """Per feature, the mean cosine over the pairs of its pictures (ours, in the spirit of v1's specificity).

    embedded: of unit length.
    """
    shown, count = embedded[rows], rows.shape[1]
    return ((shown @ shown.mT).sum((1, 2)) - count) / (count * (count - 1))


def colour_spread(
    pictures: Float[Tensor, "pictures 3 height width"], maps: Float[Tensor, "pictures rows columns"]
) -> Float[Tensor, ""]:
    """How much colours vary where a feature is active (ours, in the spirit of v1's colour metric): 0 to 765.

        sum of S |pixel - mean colour|_1 / sum of S,   mean colour = sum of S pixel / sum of S,   pixels from 0 to 255

    S: the activation map of each picture, enlarged to its size. 0 means one colour, or a feature
    that is nowhere active.
    """
    weight, pixels = F.interpolate(maps[:, None], pictures.shape[-2:]), pictures * 255
    total = weight.sum().clamp(min=1e-9)
    mean = (weight * pixels).sum((0, 2, 3)) / total
    return (weight[:, 0] * (pixels - mean[:, None, None]).abs().sum(1)).sum() / total


def search_features(
    text: Float[Tensor, " dimensions"],
    pictures: Float[Tensor, "pictures dimensions"],
    top: Int[Tensor, "features top"],
    nearest: int = 300,
) -> Float[Tensor, " features"]:
    """How well each feature fits a text, by its top pictures (authors' `retrieval.py`).

        score = mean cosine of the feature's hits * (number of its hits / number of its top pictures)

    hits: those of its top pictures that are among the `nearest` to the text of all features' top pictures; 0 without a
    hit. Embeddings are CLIP's, of unit length.
    """
    cosines = (pictures @ text)[top]
    hits = cosines >= cosines.flatten().topk(min(nearest, cosines.numel())).values[-1]
    return torch.where(hits, cosines, 0).sum(1) / top.shape[1]
