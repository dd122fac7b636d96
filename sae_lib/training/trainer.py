"""Training SAEs on a stream of update vectors, as the paper does (App. K and the authors' code)."""

import json
import sys
import time
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import psutil
import torch
from jaxtyping import Float, Int
from torch import Tensor

from sae_lib.cache.artefact import write_whole
from sae_lib.judges.intervals import exact
from sae_lib.saes.metrics import explained_variance
from sae_lib.saes.statistics import STATISTICS_FILE, RunningStatistics
from sae_lib.saes.topk import TopKSAE
from sae_lib.training.config import SAEConfig
from sae_lib.training.losses import Weights, add_gradients_, variance
from sae_lib.training.resume import copy_into

LOG_FILE = "training.jsonl"
DIFFUSION_FILE = "diffusion.json"
"""File beside the weights that says where the vectors of a diffusion SAE come from: no format has a field for it."""
ADAM_EPS = 6.25e-10
FIRED = 1e-3
"""A feature counts as alive in a step if it has a kept pre-activation above this in any row."""


def geometric_median(
    points: Float[Tensor, "vectors d_model"], maxiter: int = 100, eps: float = 1e-6, ftol: float = 1e-20
) -> Float[Tensor, " d_model"]:
    """The vector with the least sum of distances to the points, by Weiszfeld's iteration from their mean.

    Stops after `maxiter` rounds, or when the sum changes by at most `ftol` of itself. Every distance
    counts as `eps` at least.
    """
    median = points.mean(0)
    distances = (points - median).norm(dim=1)
    for _ in range(maxiter):
        weights = 1 / distances.clamp(min=eps)
        median = (weights[:, None] * points).sum(0) / weights.sum()
        previous, distances = distances.sum(), (points - median).norm(dim=1)
        if abs(previous - distances.sum()) <= ftol * distances.sum():
            break
    return median


def initialise_sae(config: SAEConfig, vectors: Float[Tensor, "vectors d_model"]) -> TopKSAE:
    """The SAE before its first step: weights by `config.seed`, b_pre the median of the first `init_vectors`."""
    sae = TopKSAE(config.d_model, config.n_f, config.k, torch.Generator().manual_seed(config.seed))
    sae.to(vectors.device).pre_bias.data = geometric_median(vectors[: config.init_vectors])
    return sae


class SAETraining:
    """One SAE while it is trained: `step` takes the first `init_batches` batches to begin with, then trains on each.

    log holds one row every `log_interval` steps, measured on the step's batch before the step is taken: step, vectors
    (trained on, this batch included), loss, explained_variance, l0 (mean non-zero activations per vector), dead_share;
    and of this SAE's own work since the last row vectors_per_second, of the process peak_memory_gb.
    """

    def __init__(self, config: SAEConfig, log_interval: int = 100):
        self.config = config
        self.log_interval = log_interval
        self.log: list[dict[str, float]] = []
        self.steps = 0
        self.sae: TopKSAE | None = None
        self.counting = True
        self._first: list[Tensor] = []
        self._seconds = 0.0

    def take(self, batches: Iterable[Tensor]) -> None:
        """A step for each batch."""
        for batch in batches:
            self.step(batch)

    def step(self, x: Float[Tensor, "batch_size d_model"]) -> None:
        """Takes one batch, in any dtype; computes in float32."""
        x = x.float()
        if self.sae is None:
            self._first.append(x)
            if len(self._first) == self.config.init_batches:
                self._begin(torch.cat(self._first))
        else:
            self._train_on(x)

    def start_portion(self, last: bool = True) -> None:
        """A new portion of the stream begins. The features are counted over the last portion only."""
        self.counting = last
        if self.sae is not None:
            self.statistics = RunningStatistics(self.config.n_f, self.sae.pre_bias.device)

    def _begin(self, vectors: Float[Tensor, "vectors d_model"]) -> None:
        self._first = []
        self._set(initialise_sae(self.config, vectors), 1 / variance(vectors))

    def _set(self, sae: TopKSAE, mse_scale: Float[Tensor, ""]) -> None:
        self.sae, self.weights = sae, Weights(mse_scale, self.config.auxk, self.config.auxk_coef)
        self.optimizer = torch.optim.Adam(sae.parameters(), lr=self.config.lr, eps=ADAM_EPS, fused=True)
        self.start_portion(self.counting)

    def _train_on(self, x: Float[Tensor, "batch_size d_model"]) -> None:
        """One step, in the authors' order: backward, unit columns, no gradient along them, Adam."""
        start = time.perf_counter()
        sae = self.sae
        with torch.no_grad():
            values, indices = sae.top_pre_activations(x)
        count_silent_steps_(sae, values, indices)
        dead = sae.stats_last_nonzero > self.config.dead_steps_threshold
        loss, residual = add_gradients_(sae, x, values, indices, dead, self.weights)
        sae.normalize_decoder_()
        remove_parallel_gradient_(sae)
        if self.config.frozen:
            getattr(sae, self.config.frozen).weight.grad.zero_()
        self.optimizer.step()
        self.optimizer.zero_grad()
        if self.counting:
            self.statistics.add(values, indices)

        self.steps += 1
        if self.steps == 1 or self.steps % self.log_interval == 0:
            row = {"step": self.steps, "vectors": self.steps * len(x), "loss": loss.item()}
            row["explained_variance"] = explained_variance(x, x + residual)
            row["l0"] = exact((values > 0).sum(-1)).mean().item()
            row["dead_share"] = exact(dead).mean().item()
            self._seconds += time.perf_counter() - start
            since = self.steps - (self.log[-1]["step"] if self.log else 0)
            row["vectors_per_second"] = round(since * len(x) / self._seconds, 1)
            row["peak_memory_gb"] = peak_memory_gb(x.device)
            self.log.append(row)
            self._seconds = 0.0
        else:
            self._seconds += time.perf_counter() - start

    def state(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """What `restore` needs: tensors, and the rest in JSON."""
        tensors = {f"sae.{name}": tensor for name, tensor in self.sae.state_dict().items()}
        for name, parameter in self.sae.named_parameters():
            tensors |= {f"adam.{name}.{part}": value for part, value in self.optimizer.state[parameter].items()}
        tensors |= {"mse_scale": self.weights.mse_scale, "sums": self.statistics.sums, "max": self.statistics.max}
        return tensors | {"vectors": self.statistics.vectors}, {"steps": self.steps, "log": self.log}

    def restore(self, tensors: Mapping[str, Tensor], rest: Mapping[str, Any], device: str | torch.device) -> None:
        """Goes on where `state` was taken."""
        sae = TopKSAE(self.config.d_model, self.config.n_f, self.config.k).to(device)
        sae.load_state_dict({name.removeprefix("sae."): x for name, x in tensors.items() if name.startswith("sae.")})
        self._set(sae, tensors["mse_scale"].to(device))
        for name, parameter in sae.named_parameters():
            state = self.optimizer.state[parameter]
            for part in ("exp_avg", "exp_avg_sq"):  # in the parameter's own layout: the fused Adam walks memory
                state[part] = copy_into(parameter.detach(), tensors[f"adam.{name}.{part}"])
            state["step"] = tensors[f"adam.{name}.step"].to(device)
        for name in ("sums", "max", "vectors"):
            setattr(self.statistics, name, tensors[name].to(self.statistics.sums.device))
        self.steps, self.log = rest["steps"], list(rest["log"])

    def save(self, folder: Path, stream: Any, vectors: Mapping[str, Any] | None = None) -> TopKSAE:
        """Ends the training and writes `folder / config.folder_name`, completely or not at all.

        In it are the SAE, its log and its features' statistics. stream: what it was trained on, in JSON
        (`stream_identity`). vectors: what `diffusion.json` says of them (`describe_vectors`); without it the file is
        not written.

        Differs from the paper: the decoder columns are scaled to unit length once more, since the last Adam step leaves
        them so only to about lr.
        """
        self.sae.normalize_decoder_()
        self.sae.requires_grad_(False)

        def write(unfinished: Path) -> None:
            self.sae.save(unfinished, training={**asdict(self.config), "steps": self.steps, "stream": stream})
            (unfinished / LOG_FILE).write_text("".join(json.dumps(row) + "\n" for row in self.log))
            self.statistics.result().save(unfinished)
            if vectors is not None:
                about = {**vectors, "feature_statistics": STATISTICS_FILE}
                (unfinished / DIFFUSION_FILE).write_text(json.dumps(about, indent=2) + "\n")

        write_whole(folder / self.config.folder_name, write)
        return self.sae


def peak_memory_gb(device: torch.device) -> float:
    """The most memory that this process has held so far: on a GPU what torch allocated there, else what is resident."""
    if device.type == "cuda":
        return round(torch.cuda.max_memory_allocated(device) / 1e9, 3)
    if sys.platform == "win32":
        return round(psutil.Process().memory_info().peak_wset / 1e9, 3)
    import resource  # not there on Windows

    unit = 1 if sys.platform == "darwin" else 1024
    return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e9, 3)


@torch.no_grad()
def count_silent_steps_(sae: TopKSAE, values: Float[Tensor, "vectors k"], indices: Int[Tensor, "vectors k"]) -> None:
    """Counts, in place, each feature's steps since it last fired; 1 for those that fire in this batch."""
    places = torch.where(values > FIRED, indices, sae.n_f).flatten()  # one more place for those that did not fire
    silent = sae.stats_last_nonzero.new_ones(sae.n_f + 1).index_fill_(0, places, 0)[:-1]
    sae.stats_last_nonzero.mul_(silent).add_(1)


@torch.no_grad()
def remove_parallel_gradient_(sae: TopKSAE) -> None:
    """Takes off, in place, each decoder column's gradient along the column, which would only change its length."""
    columns, gradient = sae.decoder.weight, sae.decoder.weight.grad
    gradient -= (gradient * columns).sum(0) * columns
