"""What SAEs are compared with: raw updates, principal components, untrained SAEs."""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor

from sae_lib.judges.intervals import exact
from sae_lib.saes.topk import TopKSAE


@runtime_checkable
class Reconstructor(Protocol):
    """An SAE, or what it is compared with: coefficients of update vectors, and vectors from coefficients."""

    def encode(self, x: Float[Tensor, "vectors d_model"]) -> Float[Tensor, "vectors coefficients"]: ...

    def decode(self, activations: Float[Tensor, "vectors coefficients"]) -> Float[Tensor, "vectors d_model"]: ...


class RawUpdates:
    """Control: the update vector is its own code, so that its similarity is that of the raw updates."""

    def encode(self, x: Float[Tensor, "vectors d_model"]) -> Float[Tensor, "vectors d_model"]:
        return x

    def decode(self, activations: Float[Tensor, "vectors d_model"]) -> Float[Tensor, "vectors d_model"]:
        return activations


@dataclass(frozen=True)
class PCA:
    """Control: the best linear code of as many numbers as an SAE keeps (components = k).

    Every vector has the same directions. Coefficients are signed and dense: `active_set_iou` then counts positive signs
    and is not comparable with an SAE's.
    """

    mean: Float[Tensor, " d_model"]
    components: Float[Tensor, "components d_model"]
    """Orthonormal rows, by falling variance."""

    @classmethod
    def fit(cls, chunks: Iterable[Float[Tensor, "_ d_model"]], components: int) -> "PCA":
        """Fits chunks of update vectors, which are read once; sums are in float64, the result is at least float32.

        Raises ValueError without at least 2 vectors, and for more components than dimensions.
        """
        return cls.fit_blocks(({"": chunk} for chunk in chunks), {"": components})[""]

    @classmethod
    def fit_blocks(cls, stream: Iterable[Mapping[str, Tensor]], components: Mapping[str, int]) -> dict[str, "PCA"]:
        """`fit` of every block of a stream of `{block: update_vectors}`, which is read once; components:
        their number by block."""
        count, total, square = Counter(), Counter(), Counter()
        for chunk in stream:
            for block, vectors in chunk.items():
                x = exact(vectors)
                count[block] += len(x)
                total[block] += x.sum(0)
                square[block] += x.T @ x
                dtype, device = torch.promote_types(vectors.dtype, torch.float32), vectors.device
        if min(count.values(), default=0) < 2:
            raise ValueError(f"PCA of {min(count.values(), default=0)} vectors is not defined; wanted at least 2")
        fits = {}
        for block, number in count.items():
            kept = components[block]
            if not 1 <= kept <= len(total[block]):
                raise ValueError(f"components is {kept}; wanted 1 to d_model = {len(total[block])}")
            mean = total[block] / number
            _, directions = torch.linalg.eigh(square[block] / number - mean.outer(mean))  # columns by rising variance
            directions = directions.T.flip(0)[:kept].to(dtype).contiguous()
            fits[block] = cls(mean.to(dtype).to(device), directions.to(device))
        return fits

    def encode(self, x: Float[Tensor, "vectors d_model"]) -> Float[Tensor, "vectors components"]:
        """(x - mean) . components."""
        return (x - self.mean.to(x.device)) @ self.components.to(x.device).T

    def decode(self, activations: Float[Tensor, "vectors components"]) -> Float[Tensor, "vectors d_model"]:
        """The mean plus the components in these proportions."""
        return activations @ self.components.to(activations.device) + self.mean.to(activations.device)


def untrained(sae: TopKSAE, seed: int = 0) -> TopKSAE:
    """Control: an SAE of the same size before its first step, its features random, with the trained one's b_pre.

    Tells what k of n_f directions explain without having been learnt.
    """
    control = TopKSAE(sae.d_model, sae.n_f, sae.k, torch.Generator().manual_seed(seed))
    control.pre_bias.data = sae.pre_bias.detach().clone()
    return control.to(sae.pre_bias).requires_grad_(False)
