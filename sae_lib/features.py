"""Single features: their names, their unit of strength, where they are active, and the pictures that excite them most."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from sae_lib.blocks import BLOCKS
from sae_lib.denoising import CallSettings, stream_updates
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


class TopPictures(NamedTuple):
    """Of each feature of one block, the pictures with the highest mean activation over positions (authors' rule)."""

    scores: Float[Tensor, "n_f top"]
    """Falling; 0 where the feature was active in fewer pictures."""
    pictures: Int[Tensor, "n_f top"]
    """Numbers of the prompts."""
    active_in: Int[Tensor, " n_f"]
    """In how many pictures the feature was active at all."""


@torch.inference_mode()
def find_top_pictures(
    pipe, prompts: Sequence[str], saes: Mapping[str, TopKSAE], settings: CallSettings, top: int = 10
) -> dict[str, TopPictures]:
    """Streams the prompts once through the pipeline's last step and keeps each feature's best pictures.

    Memory: n_f x top numbers a block, whatever the number of prompts. Raises what `stream_updates` raises.
    """
    found: dict[str, TopPictures] = {}
    for indices, updates in stream_updates(pipe, prompts, saes, settings):
        numbers = torch.tensor(indices)
        for block, sae in saes.items():
            values, kept = sae.encode_sparse(to_vectors(updates[block][-1].to(sae.pre_bias)))
            dense = sae.to_dense(values, kept).unflatten(0, (len(indices), -1)).mean(1).T.cpu()  # [n_f, pictures]
            active = (dense > 0).sum(1)
            if block in found:
                dense = torch.cat([found[block].scores, dense], 1)
                rows = torch.cat([found[block].pictures, numbers.expand(sae.n_f, -1)], 1)
                active = active + found[block].active_in
            else:
                rows = numbers.expand(sae.n_f, -1)
            scores, places = dense.topk(min(top, dense.shape[1]), dim=1)
            found[block] = TopPictures(scores, rows.gather(1, places), active)
    return found
