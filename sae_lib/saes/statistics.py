"""Statistics of each feature's activations over the last portion of a training.

Their mean is the unit of strength later; this is its one definition.
"""

import functools
from pathlib import Path
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from safetensors.torch import save_file
from torch import Tensor

from sae_lib.cache.artefact import write_whole
from sae_lib.cache.reading import check_tensors, file_in, read_object, read_safetensors, whole_number
from sae_lib.judges.intervals import exact_device
from sae_lib.saes.topk import CONFIG_FILE

STATISTICS_FILE = "statistics.safetensors"


class FeatureStatistics(NamedTuple):
    """Statistics of each feature's non-zero activations; a feature that never fired has 0 everywhere."""

    mean: Float[Tensor, " n_f"]
    """The unit of strength in interventions (paper: mu_rho)."""
    std: Float[Tensor, " n_f"]
    """Population standard deviation."""
    max: Float[Tensor, " n_f"]
    firing_rate: Float[Tensor, " n_f"]
    """Share of the vectors on which the feature is not zero."""
    vectors: Int[Tensor, ""]
    """Number of vectors that were counted."""

    def save(self, folder: Path) -> None:
        """Writes `statistics.safetensors`, completely or not at all."""
        write_whole(folder / STATISTICS_FILE, functools.partial(save_file, self._asdict()))

    @classmethod
    def load(cls, folder: str | Path) -> "FeatureStatistics":
        """Reads it from an SAE's folder.

        Raises FileNotFoundError if it or the SAE's `config.json` is missing, ValueError if it is damaged or does not
        hold these five, finite, one number for each of the SAE's features.
        """
        way = "train the SAE again with train_saes"
        path, config = file_in(folder, STATISTICS_FILE, way), file_in(folder, CONFIG_FILE, way)
        n_f = whole_number(config, read_object(config, ("n_f",)), "n_f")
        shapes = {name: () if name == "vectors" else (n_f,) for name in cls._fields}
        return cls(**check_tensors(path, read_safetensors(path), shapes, counts=("vectors",)))


class RunningStatistics:
    """Adds up batches of sparse activations; `result()` at any time. Sums in float64, on the `exact_device`."""

    def __init__(self, n_f: int, device: str | torch.device = "cpu"):
        device = exact_device(device)
        self.sums = torch.zeros(3, n_f, dtype=torch.float64, device=device)
        """By feature: how often it fired, the sum of its activations, and the sum of their squares."""
        self.max = torch.zeros(n_f, device=device)
        self.vectors = torch.zeros((), dtype=torch.int64, device=device)

    @torch.no_grad()
    def add(self, values: Float[Tensor, "vectors k"], indices: Int[Tensor, "vectors k"]) -> None:
        """values: as TopK keeps them; those of 0 and below count as not firing."""
        features, fired = indices.flatten().to(self.sums.device), values.flatten().relu().to(self.sums.device)
        moments = torch.stack([(fired > 0).double(), fired.double(), fired.double().square()])
        self.sums.index_add_(1, features, moments)
        self.max.scatter_reduce_(0, features, fired.to(self.max.dtype), "amax")
        self.vectors += len(values)

    def result(self) -> FeatureStatistics:
        fired, total, square = self.sums
        mean = total / fired.clamp(min=1)
        std = (square / fired.clamp(min=1) - mean.square()).clamp(min=0).sqrt()
        rate = fired / self.vectors.clamp(min=1)
        return FeatureStatistics(mean.float(), std.float(), self.max.clone(), rate.float(), self.vectors.clone())
