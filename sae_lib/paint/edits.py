"""An edit as data: layers of features, where and how strong, as JSON."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from sae_lib.assets import MODELS
from sae_lib.features.feature import FeatureId


@dataclass(frozen=True)
class Layer:
    """One feature, turned on."""

    feature: FeatureId
    strength: float = 10.0
    """In multiples of the feature's mean non-zero activation (authors' default for painting)."""
    mask: tuple[tuple[float, ...], ...] | None = None
    """Rows of the block's grid, each cell 0 to 1; None for everywhere."""
    steps: tuple[int, int] | None = None
    """The first step at which it is on and the first at which it no longer is; None for all. Step 0 is the noisiest."""

    def __post_init__(self):
        if not math.isfinite(self.strength):
            raise ValueError(f"{self.feature}: strength {self.strength}; wanted a finite number")
        if self.mask is None:
            return
        if not self.mask or {len(row) for row in self.mask} != {len(self.mask[0])} or not self.mask[0]:
            raise ValueError(f"{self.feature}: the mask's rows are of different lengths; wanted the block's grid")
        if not all(0 <= value <= 1 for row in self.mask for value in row):
            raise ValueError(f"{self.feature}: the mask holds a value that is not between 0 and 1")

    @property
    def mask_tensor(self) -> Float[Tensor, "height width"] | None:
        return None if self.mask is None else torch.tensor(self.mask)

    def on_grid(self, side: int) -> "Layer":
        """With the mask brought to another grid, as when its feature is changed for one of another block.

        A cell gets the nearest cell's value; one that covers several cells of the old grid, their highest, so that no
        thin stroke is lost on the way to a coarser grid.
        """
        if self.mask is None or (len(self.mask), len(self.mask[0])) == (side, side):
            return self
        fitted = F.adaptive_max_pool2d(self.mask_tensor[None], side)[0]
        return replace(self, mask=tuple(map(tuple, fitted.tolist())))


@dataclass(frozen=True)
class Edit:
    """Everything that a painted picture depends on, besides the models."""

    prompt: str
    seed: int = 0
    model: str = MODELS[0]
    layers: tuple[Layer, ...] = ()
    """Added one after the other; none leaves the picture as it is."""

    def __post_init__(self):
        if self.model not in MODELS:
            raise ValueError(f"unknown model {self.model!r}; choose one of {', '.join(map(repr, MODELS))}")

    def to_json(self) -> dict[str, Any]:
        """As plain lists and dictionaries; `from_json` reads it."""
        layers = [
            {"feature": str(each.feature), "strength": each.strength, "mask": each.mask, "steps": each.steps}
            for each in self.layers
        ]
        return {"prompt": self.prompt, "seed": self.seed, "model": self.model, "layers": layers}

    @classmethod
    def from_json(cls, told: Mapping[str, Any]) -> "Edit":
        """Reads `to_json`'s. Raises ValueError for a field that is missing or of another kind, or a
        value that is refused."""
        try:
            layers = tuple(
                Layer(
                    FeatureId.parse(each["feature"]),
                    float(each["strength"]),
                    None if each["mask"] is None else tuple(tuple(map(float, row)) for row in each["mask"]),
                    None if each["steps"] is None else tuple(map(int, each["steps"])),
                )
                for each in told["layers"]
            )
            return cls(str(told["prompt"]), int(told["seed"]), str(told["model"]), layers)
        except (KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"no edit can be read from this: {error!r}") from error
