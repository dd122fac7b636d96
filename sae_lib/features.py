"""Single features: their names, their unit of strength, where they are active, and the search for them by text."""

from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from sae_lib.blocks import BLOCKS
from sae_lib.sae import TopKSAE
from sae_lib.statistics import FeatureStatistics
from sae_lib.updates import to_maps, to_vectors


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
        if block not in BLOCKS or not feature.isdigit():
            raise ValueError(f"{text!r} names no feature: wanted block/number, as in 'down.2.1/2301'")
        return cls(block, int(feature))


def strength_unit(statistics: FeatureStatistics, feature: int) -> float:
    """The feature's mean non-zero activation (paper: mu_rho): an intervention of strength s adds s times this.

    Raises ValueError for a feature that the SAE has not, and for a dead one, which has no unit.
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


def search_features(
    text: Float[Tensor, " dimensions"],
    pictures: Float[Tensor, "pictures dimensions"],
    top: Int[Tensor, "features top"],
    nearest: int = 300,
) -> Float[Tensor, " features"]:
    """How well features fit a text, by their top pictures (authors' `retrieval.py`); embeddings are CLIP's, of unit length.

        score = mean cosine of the feature's hits * (number of its hits / number of its top pictures)

    hits: those of its top pictures that are among the `nearest` to the text, of all features' top pictures. 0 without a hit.
    """
    cosines = (pictures @ text)[top]
    hits = cosines >= cosines.flatten().topk(min(nearest, cosines.numel())).values[-1]
    return torch.where(hits, cosines, 0).sum(1) / top.shape[1]
