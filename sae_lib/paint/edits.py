"""An edit as data: layers of features, each with its place and strength; written and read as JSON."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from sae_lib.assets import FLUX_MODELS, MODELS
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
    """The first step at which it is on, and the first at which it is off again; None for all.
    Step 0 is the noisiest."""

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
        """The mask as a tensor."""
        return None if self.mask is None else torch.tensor(self.mask)

    def on_grid(self, side: int) -> "Layer":
        """The layer with its mask on another grid, such as after its feature was exchanged for one of another block.

        A cell gets the nearest cell's value. On a coarser grid it gets the highest value of the cells that it covers,
        so that no thin stroke is lost.
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
    """How it is drawn: one of `assets.MODELS`, or of `FLUX_MODELS` where the assets are FLUX's."""
    layers: tuple[Layer, ...] = ()
    """The layers, which are added one after the other; without any, the picture stays as it is."""

    def __post_init__(self):
        known = MODELS + FLUX_MODELS
        if self.model not in known:
            raise ValueError(f"unknown model {self.model!r}; choose one of {', '.join(map(repr, known))}")

    def to_json(self) -> dict[str, Any]:
        """The edit as plain lists and dictionaries, which `from_json` reads."""
        layers = [
            {"feature": str(layer.feature), "strength": layer.strength, "mask": layer.mask, "steps": layer.steps}
            for layer in self.layers
        ]
        return {"prompt": self.prompt, "seed": self.seed, "model": self.model, "layers": layers}

    @classmethod
    def from_json(cls, edit: Mapping[str, Any]) -> "Edit":
        """Reads what `to_json` writes.

        Raises ValueError for a field that is missing or of another kind, and for a value that is refused.
        """
        try:
            layers = tuple(
                Layer(
                    FeatureId.parse(layer["feature"]),
                    float(layer["strength"]),
                    None if layer["mask"] is None else tuple(tuple(map(float, row)) for row in layer["mask"]),
                    None if layer["steps"] is None else tuple(map(int, layer["steps"])),
                )
                for layer in edit["layers"]
            )
            return cls(str(edit["prompt"]), int(edit["seed"]), str(edit["model"]), layers)
        except (KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"no edit can be read from this: {error!r}") from error


def half_painted(edit: Edit) -> Edit:
    """An edit in the middle of its stroke: each layer only in the left half of the columns that it paints."""

    def half(layer: Layer) -> Layer:
        mask = torch.ones(2, 2) if layer.mask is None else layer.mask_tensor
        columns = mask.any(0).nonzero().flatten()
        mask[:, columns[(len(columns) + 1) // 2 :]] = 0
        return replace(layer, mask=tuple(map(tuple, mask.tolist())))

    return replace(edit, layers=tuple(map(half, edit.layers)))


def whole_picture(edit: Edit) -> Edit:
    """An edit with its layers everywhere."""
    return replace(edit, layers=tuple(replace(layer, mask=None) for layer in edit.layers))
