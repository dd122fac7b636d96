"""The units of an edit: SAE features, neurons, principal components, or the whole update (paper: eqs 8 and 9)."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor

from sae_lib.saes.topk import TopKSAE

Maps = Float[Tensor, "steps cases channels height width"]
Units = Float[Tensor, "steps cases units height width"]


@runtime_checkable
class Basis(Protocol):
    """How the maps of a site (a block or a layer) are written in units, and back. Only `decode` must be linear."""

    def sites(self, maps: Mapping[str, Tensor]) -> list[str]:
        """The sites that it reads, in the order of selection."""

    def encode(self, site: str, maps: Maps) -> Units:
        """Each unit's coefficient at each position."""

    def decode(self, site: str, units: Units) -> Maps:
        """What the coefficients add to the site's maps, without a bias."""


@dataclass(frozen=True)
class SAEFeatures:
    """The features of one SAE per block (eq. 8)."""

    saes: Mapping[str, TopKSAE]
    """By block, in the order of selection."""
    shuffled: Mapping[str, Tensor] | None = None
    """A control: by block, the feature whose decoder column each feature gets. The number, place and norm of what is
    added stay, but its direction is a random feature's."""

    def sites(self, maps: Mapping[str, Tensor]) -> list[str]:
        return list(self.saes)

    def encode(self, site: str, maps: Maps) -> Units:
        sae = self.saes[site]
        return sae.encode(maps.movedim(2, -1).to(sae.pre_bias)).movedim(-1, 2)

    def decode(self, site: str, units: Units) -> Maps:
        weight = self.saes[site].decoder.weight
        if self.shuffled is not None:
            weight = weight[:, self.shuffled[site].to(weight.device)]
        return (units.movedim(2, -1) @ weight.T).movedim(-1, 2)

    @classmethod
    def random(cls, saes: Mapping[str, TopKSAE], seed: int) -> "SAEFeatures":
        """The control with random decoder columns."""
        generator = torch.Generator().manual_seed(seed)
        return cls(saes, {block: torch.randperm(sae.n_f, generator=generator) for block, sae in saes.items()})


@dataclass(frozen=True)
class Neurons:
    """The GEGLU outputs of every transformer layer of the blocks (eq. 9)."""

    def sites(self, maps: Mapping[str, Tensor]) -> list[str]:
        return [site for site in maps if "/" in site]

    def encode(self, site: str, maps: Maps) -> Units:
        return maps

    def decode(self, site: str, units: Units) -> Maps:
        return units


@dataclass(frozen=True)
class WholeUpdate:
    """The update itself: steering, which selects no units."""

    def sites(self, maps: Mapping[str, Tensor]) -> list[str]:
        return [site for site in maps if "/" not in site]

    def encode(self, site: str, maps: Maps) -> Units:
        return maps

    def decode(self, site: str, units: Units) -> Maps:
        return units


@dataclass(frozen=True)
class PrincipalComponents:
    """All principal components of each block's updates; each counts as two units, one per sign, so that
    coefficients are >= 0."""

    mean: Mapping[str, Float[Tensor, " d_model"]]
    components: Mapping[str, Float[Tensor, "d_model components"]]

    def sites(self, maps: Mapping[str, Tensor]) -> list[str]:
        return list(self.mean)

    def encode(self, site: str, maps: Maps) -> Units:
        centred = maps.movedim(2, -1) - self.mean[site].to(maps)
        signed = centred @ self.components[site].to(maps)
        return torch.cat([signed.relu(), (-signed).relu()], -1).movedim(-1, 2)

    def decode(self, site: str, units: Units) -> Maps:
        positive, negative = units.movedim(2, -1).chunk(2, -1)
        return ((positive - negative) @ self.components[site].to(units).T).movedim(-1, 2)
