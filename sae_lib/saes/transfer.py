"""Do SAEs trained on one-step updates carry over to other settings (paper: section 3, Fig. 3)?

Everything is streamed, one pipeline call after the other; what is kept are a few numbers per prompt, step and
dimension, from which a bootstrap over prompts pools the vectors again exactly.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from diffusers import DiffusionPipeline
from jaxtyping import Float
from torch import Tensor

from sae_lib.activations.denoising import CallSettings, stream_updates
from sae_lib.activations.updates import to_vectors
from sae_lib.judges.intervals import bootstrap, exact
from sae_lib.saes.controls import Reconstructor
from sae_lib.saes.metrics import EPS, row_iou

HALVES = ("unconditional", "conditional")
"""The halves of a guided call, in the order in which the U-Net runs them."""


def share_of_rest(
    explained: Float[Tensor, "*samples"], by_control: Float[Tensor, "*samples"]
) -> Float[Tensor, "*samples"]:
    """The share explained of what a control leaves unexplained: 1 - (1 - explained) / (1 - by_control).

    Explained variance grows with k for random features too. Against an untrained SAE of the same k and n_f this is 0 if
    nothing was learnt, whatever k is, and 1 if nothing is left.
    """
    return 1 - (1 - explained) / (1 - by_control).clamp(min=EPS)


@dataclass(frozen=True)
class TransferStatistics:
    """What one reconstructor does with one block's updates in one setting, per step and prompt, in float64 on the CPU.

    Positions of a prompt are averaged; since every prompt has equally many, means over prompts are means over all rows.
    Each method gives one row of values per step, or per pair of adjacent steps: first the value of all prompts, then
    the values of bootstrap samples (`intervals.bootstrap`). All methods and all reconstructors draw the same prompts,
    so subtract and average the values sample by sample, then take `intervals.interval_of`.
    """

    x: Float[Tensor, "steps prompts 2 d_model"]
    """Mean and mean square of the update vectors' dimensions over the prompt's positions."""
    error: Float[Tensor, "steps prompts 2 d_model"]
    """Mean and mean square of x - x_hat."""
    x_hat: Float[Tensor, "steps prompts 2 d_model"]
    """Mean and mean square of the reconstruction."""
    similarity: Float[Tensor, "pairs prompts"]
    """Cosine of the coefficients at steps t and t + 1, mean over positions."""
    iou: Float[Tensor, "pairs prompts"]
    """IoU of the active sets at steps t and t + 1, mean over positions."""

    def explained_variance(self, resamples: int = 1000, seed: int = 0) -> Float[Tensor, "steps samples"]:
        """`metrics.explained_variance` of all prompts' rows together."""
        return _bootstrap_rows(torch.stack([self.error, self.x], 2), resamples, seed, _explained_variance)

    def explained_variance_as_published(self, resamples: int = 1000, seed: int = 0) -> Float[Tensor, "steps samples"]:
        """`metrics.explained_variance_as_published`: the error against the reconstruction's variance."""
        return _bootstrap_rows(torch.stack([self.error, self.x_hat], 2), resamples, seed, _explained_variance)

    def total_variance_explained(self, resamples: int = 1000, seed: int = 0) -> Float[Tensor, "steps samples"]:
        """1 - FVU, the share of the variance of all dimensions together: those that hardly vary do not count."""
        return _bootstrap_rows(torch.stack([self.error, self.x], 2), resamples, seed, _total_variance_explained)

    def coefficient_similarity(self, resamples: int = 1000, seed: int = 0) -> Float[Tensor, "pairs samples"]:
        """`metrics.coefficient_similarity` of adjacent steps."""
        return _bootstrap_rows(self.similarity, resamples, seed)

    def active_set_iou(self, resamples: int = 1000, seed: int = 0) -> Float[Tensor, "pairs samples"]:
        """`metrics.active_set_iou` of adjacent steps."""
        return _bootstrap_rows(self.iou, resamples, seed)


def _bootstrap_rows(
    rows: Float[Tensor, "rows prompts ..."],
    resamples: int,
    seed: int,
    statistic: Callable[[Tensor], Tensor] = lambda mean: mean,
) -> Float[Tensor, "rows samples"]:
    """One bootstrap per step or pair."""
    samples = [bootstrap(row, statistic, resamples, seed) for row in rows]
    return torch.stack(samples) if samples else torch.zeros(0, 1 + resamples, dtype=torch.float64)


def _explained_variance(moments: Float[Tensor, "resamples 2 2 d_model"]) -> Float[Tensor, " resamples"]:
    """From mean and mean square (third axis) of the error and of the vectors that it is compared with (second axis)."""
    variance = moments[:, :, 1] - moments[:, :, 0].square()
    return (1 - variance[:, 0] / (variance[:, 1] + EPS)).mean(-1)


def _total_variance_explained(moments: Float[Tensor, "resamples 2 2 d_model"]) -> Float[Tensor, " resamples"]:
    """From the same, with the variances summed over the dimensions."""
    variance = (moments[:, :, 1] - moments[:, :, 0].square()).sum(-1)
    return 1 - variance[:, 0] / (variance[:, 1] + EPS)


@torch.no_grad()
def measure_transfer(
    pipe: DiffusionPipeline,
    prompts: str | Sequence[str],
    settings: CallSettings,
    reconstructors: Mapping[str, Mapping[str, Reconstructor]],
) -> dict[str, dict[str, TransferStatistics]]:
    """Runs a setting over the prompts and each block's reconstructors over its updates, in float32.

    reconstructors: `{block: {name: reconstructor}}`, on the pipeline's device. Gives `{block: {name:
    TransferStatistics}}`. At any time the updates of one pipeline call are in memory. The statistics
    keep 4 d_model float64 numbers per prompt, step, block and reconstructor (82 MB for 100 prompts, 20 steps and
    d_model 1280), and half as many once per block.

    Of a guided call the conditional half is measured. Raises ValueError if there are no prompts, for an unknown block,
    for NaN in an update, and for an SAE of another width.
    """
    return measure_halves(pipe, prompts, settings, {"conditional": reconstructors})["conditional"]


@torch.no_grad()
def measure_halves(
    pipe: DiffusionPipeline,
    prompts: str | Sequence[str],
    settings: CallSettings,
    reconstructors: Mapping[str, Mapping[str, Mapping[str, Reconstructor]]],
) -> dict[str, dict[str, dict[str, TransferStatistics]]]:
    """`measure_transfer` of both halves of guided calls, in one run.

    Reconstructors and results are by half ("unconditional", "conditional"), then by block and by name.

    Raises what `measure_transfer` raises, and ValueError for the unconditional half of calls without guidance.
    """
    guidance = "both" if HALVES[0] in reconstructors else "conditional"
    blocks = dict.fromkeys(block for by_block in reconstructors.values() for block in by_block)
    parts: dict[tuple[str, str, str], list[TransferStatistics]] = {}
    for indices, updates in stream_updates(pipe, prompts, blocks, settings, guidance):
        for half, by_block in reconstructors.items():
            for block, named in by_block.items():
                maps = updates[block][:, HALVES.index(half)] if guidance == "both" else updates[block]
                steps = [to_vectors(step.float()) for step in maps]
                x = torch.stack([_moments(step, len(indices)) for step in steps])
                for name, reconstructor in named.items():
                    parts.setdefault((half, block, name), []).append(_statistics(reconstructor, steps, x))
    return {
        half: {block: {name: _join(parts[half, block, name]) for name in named} for block, named in by_block.items()}
        for half, by_block in reconstructors.items()
    }


def explained_samples(
    pipe: DiffusionPipeline,
    prompts: str | Sequence[str],
    settings: CallSettings,
    reconstructors: Mapping[str, Mapping[str, Reconstructor]],
    resamples: int = 1000,
    seed: int = 0,
) -> dict[str, Float[Tensor, " samples"]]:
    """Explained variance of one-step calls by "block/name": of all prompts, then of bootstrap samples of them.

    Raises what `measure_transfer` raises.
    """
    measured = measure_transfer(pipe, prompts, settings, reconstructors)
    return {
        f"{block}/{name}": statistics.explained_variance(resamples, seed)[0]
        for block, named in measured.items()
        for name, statistics in named.items()
    }


def _statistics(
    reconstructor: Reconstructor, steps: list[Tensor], x: Float[Tensor, "steps prompts 2 d_model"]
) -> TransferStatistics:
    """The statistics of one pipeline call, whose update vectors at each step are `steps`."""
    prompts = x.shape[1]
    error, x_hat, similarity, iou = [], [], [], []
    before = None
    for vectors in steps:
        coefficients = reconstructor.encode(vectors)
        reconstruction = reconstructor.decode(coefficients)
        error.append(_moments(vectors - reconstruction, prompts))
        x_hat.append(_moments(reconstruction, prompts))
        if before is not None:
            similarity.append(_per_prompt(F.cosine_similarity(before, coefficients), prompts))
            iou.append(_per_prompt(row_iou(before, coefficients), prompts))
        before = coefficients
    none = [torch.zeros(0, prompts, dtype=torch.float64)]
    pairs = [torch.cat([*none, *(values[None] for values in column)]) for column in (similarity, iou)]
    return TransferStatistics(x, torch.stack(error), torch.stack(x_hat), *pairs)


def _moments(vectors: Float[Tensor, "vectors d_model"], prompts: int) -> Float[Tensor, "prompts 2 d_model"]:
    """Mean and mean square of each dimension over each prompt's rows."""
    rows = exact(vectors).unflatten(0, (prompts, -1))
    return torch.stack([rows.mean(1), rows.square().mean(1)], 1).cpu()


def _per_prompt(rows: Float[Tensor, " vectors"], prompts: int) -> Float[Tensor, " prompts"]:
    return exact(rows).unflatten(0, (prompts, -1)).mean(1).cpu()


def _join(parts: list[TransferStatistics]) -> TransferStatistics:
    """The calls' statistics side by side along the prompts."""
    return TransferStatistics(
        *(torch.cat([getattr(part, name) for part in parts], 1) for name in TransferStatistics.__dataclass_fields__)
    )
