"""Training SAEs on a stream of update vectors, as the paper does (App. K and the authors' code)."""

import json
import os
import shutil
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from sae_lib.blocks import BLOCKS
from sae_lib.losses import Weights, add_gradients_, variance
from sae_lib.metrics import explained_variance
from sae_lib.sae import TopKSAE

LOG_FILE = "training.jsonl"
ADAM_EPS = 6.25e-10
FIRED = 1e-3
"""A feature counts as alive in a step if it has a kept pre-activation above this in any row."""


@dataclass(frozen=True)
class SAEConfig:
    """What determines a trained SAE, apart from the stream it is trained on.

    Raises ValueError for an unknown block and for values that contradict each other.
    """

    block: str
    """The block whose updates it is trained on, a code of `BLOCKS`."""
    d_model: int
    """Dimensions of an update vector."""
    k: int
    """Activations kept per vector."""
    n_f: int
    """Number of features."""
    seed: int
    """Of the encoder's first weights. The order of the vectors is the stream's."""
    auxk: int
    """Dead features that the auxiliary term may use per vector."""
    auxk_coef: float
    """Weight of the auxiliary term."""
    batch_size: int
    """Vectors per step."""
    lr: float
    """Adam's learning rate, constant."""
    dead_vectors_threshold: int
    """A feature that has been silent for more than this many vectors is dead; used as whole steps of `batch_size`."""
    init_batches: int = 10
    """Batches taken off the stream's start for the loss scale and b_pre; they are never trained on."""
    init_vectors: int = 32_768
    """How many of their vectors b_pre is the geometric median of."""

    def __post_init__(self):
        if self.block not in BLOCKS:
            raise ValueError(f"unknown block {self.block!r}; valid blocks: {', '.join(BLOCKS)}")
        for name in ("d_model", "k", "n_f", "auxk", "batch_size", "init_batches", "init_vectors", "lr"):
            if getattr(self, name) <= 0:
                raise ValueError(f"{name} is {getattr(self, name)}; wanted more than 0")
        for name in ("k", "auxk"):
            if getattr(self, name) > self.n_f:
                raise ValueError(f"{name} is {getattr(self, name)}; wanted at most n_f = {self.n_f}")
        if self.dead_vectors_threshold < self.batch_size:
            raise ValueError(
                f"dead_vectors_threshold is {self.dead_vectors_threshold}; wanted one batch ({self.batch_size}) or more"
            )

    @property
    def dead_steps_threshold(self) -> int:
        """A feature is dead after more than this many steps without firing."""
        return self.dead_vectors_threshold // self.batch_size

    @property
    def expansion_factor(self) -> float:
        """n_f / d_model."""
        return self.n_f / self.d_model

    @property
    def folder_name(self) -> str:
        """Where `train_saes` puts this SAE, below its folder."""
        return f"{self.block}_k{self.k}_hidden{self.n_f}_seed{self.seed}"

    @classmethod
    def paper(cls, block: str, k: int = 10, n_f: int = 5120, seed: int = 0, **changes: Any) -> "SAEConfig":
        """The published SAEs' values (authors' code; App. K); `changes` replaces any field."""
        values = {"d_model": 1280, "auxk": 256, "auxk_coef": 1 / 32, "batch_size": 4096, "lr": 1e-4}
        return cls(block=block, k=k, n_f=n_f, seed=seed, **{**values, "dead_vectors_threshold": 10_000_000, **changes})

    @classmethod
    def pocket(
        cls, block: str, k: int = 10, n_f: int = 512, seed: int = 0, steps: int = 3000, **changes: Any
    ) -> "SAEConfig":
        """The pocket models' values; `changes` replaces any field.

        steps: the run's planned length, which sets when a feature is dead: after 3 % of the run's vectors (paper: 2.6
        %).
        """
        values = {
            "d_model": 128,
            "auxk": min(256, n_f // 2),
            "auxk_coef": 1 / 32,
            "batch_size": 512,
            "lr": 1e-3,
            **changes,
        }
        dead = changes.get("dead_vectors_threshold", max(1, steps * 3 // 100) * values["batch_size"])
        return cls(block=block, k=k, n_f=n_f, seed=seed, **{**values, "dead_vectors_threshold": dead})


def geometric_median(
    points: Float[Tensor, "vectors d_model"], maxiter: int = 100, eps: float = 1e-6, ftol: float = 1e-20
) -> Float[Tensor, " d_model"]:
    """The vector with the least sum of distances to the points, by Weiszfeld's iteration from their mean.

    Stops after `maxiter` rounds, or when the sum changes by at most `ftol` of itself; distances below `eps` count as
    `eps`.
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
    """The SAE before its first step: weights from `config.seed`, b_pre the geometric median of the first
    `init_vectors`."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        sae = TopKSAE(config.d_model, config.n_f, config.k)
    sae.to(vectors.device).pre_bias.data = geometric_median(vectors[: config.init_vectors])
    return sae


class SAETraining:
    """One SAE while it is trained: `step` takes the first `init_batches` batches to begin with, then trains on each.

    log holds one row every `log_interval` steps, measured on the step's batch before the step is taken: step, vectors
    (trained on, this batch included), loss, explained_variance, l0 (mean non-zero activations per vector), dead_share.
    """

    def __init__(self, config: SAEConfig, log_interval: int = 100):
        self.config = config
        self.log_interval = log_interval
        self.log: list[dict[str, float]] = []
        self.steps = 0
        self.sae: TopKSAE | None = None
        self._first: list[Tensor] = []

    def take(self, batches: Iterable[Tensor]) -> None:
        """A step for each batch."""
        for batch in batches:
            self.step(batch)

    def step(self, x: Float[Tensor, "batch_size d_model"]) -> None:
        """Takes one batch."""
        if self.sae is None:
            self._first.append(x)
            if len(self._first) == self.config.init_batches:
                self._begin(torch.cat(self._first))
        else:
            self._train_on(x)

    def _begin(self, vectors: Float[Tensor, "vectors d_model"]) -> None:
        self._first = []
        self.weights = Weights(1 / variance(vectors), self.config.auxk, self.config.auxk_coef)
        self.sae = initialise_sae(self.config, vectors)
        self.optimizer = torch.optim.Adam(self.sae.parameters(), lr=self.config.lr, eps=ADAM_EPS, fused=True)

    def _train_on(self, x: Float[Tensor, "batch_size d_model"]) -> None:
        """One step, in the authors' order: backward, unit columns, no gradient along them, Adam."""
        sae = self.sae
        with torch.no_grad():
            values, indices = sae.pre_activations(x).topk(sae.k, dim=-1)
        count_silent_steps_(sae, values, indices)
        dead = sae.stats_last_nonzero > self.config.dead_steps_threshold
        loss, residual = add_gradients_(sae, x, values, indices, dead, self.weights)
        sae.normalize_decoder_()
        remove_parallel_gradient_(sae)
        self.optimizer.step()
        self.optimizer.zero_grad()

        self.steps += 1
        if self.steps == 1 or self.steps % self.log_interval == 0:
            row = {"step": self.steps, "vectors": self.steps * len(x), "loss": loss.item()}
            row["explained_variance"] = explained_variance(x, x + residual)
            row["l0"] = (values > 0).sum(-1).double().mean().item()
            self.log.append({**row, "dead_share": dead.double().mean().item()})

    def save(self, folder: Path) -> TopKSAE:
        """Ends the training and writes the SAE and its log, all or nothing, to `folder / config.folder_name`.

        Differs from the paper: the decoder columns are scaled to unit length once more, since the last Adam step leaves
        them so only to about lr.
        """
        self.sae.normalize_decoder_()
        self.sae.requires_grad_(False)
        final = folder / self.config.folder_name
        partial = final.with_name(f"{final.name}.partial-{os.getpid()}")
        try:
            self.sae.save(partial, training=asdict(self.config))
            (partial / LOG_FILE).write_text("".join(json.dumps(row) + "\n" for row in self.log))
            os.replace(partial, final)
        finally:
            shutil.rmtree(partial, ignore_errors=True)
        return self.sae


@torch.no_grad()
def count_silent_steps_(sae: TopKSAE, values: Float[Tensor, "vectors k"], indices: Int[Tensor, "vectors k"]) -> None:
    """Counts, in place, each feature's steps since it last fired; 1 for those that fire in this batch."""
    sae.stats_last_nonzero[indices[values > FIRED]] = 0
    sae.stats_last_nonzero += 1


@torch.no_grad()
def remove_parallel_gradient_(sae: TopKSAE) -> None:
    """Takes off, in place, each decoder column's gradient along the column (unit length), which would only rescale
    it."""
    columns, gradient = sae.decoder.weight, sae.decoder.weight.grad
    gradient -= (gradient * columns).sum(0) * columns


class _Batches:
    """Cuts one block's vectors, arriving in chunks of any size, into batches; what is left over waits."""

    def __init__(self, batch_size: int):
        self.batch_size = batch_size
        self.rest: Tensor | None = None

    def cut(self, vectors: Float[Tensor, "vectors d_model"]) -> list[Tensor]:
        if self.rest is not None:
            vectors = torch.cat([self.rest, vectors])
        *batches, last = vectors.split(self.batch_size)
        self.rest = last
        if len(last) == self.batch_size:
            batches, self.rest = [*batches, last], None
        return batches


def train_saes(
    stream: Iterable[Mapping[str, Tensor]],
    configs: Iterable[SAEConfig],
    folder: str | Path,
    device: str | torch.device = "cpu",
    log_interval: int = 100,
) -> dict[SAEConfig, TopKSAE]:
    """Trains every SAE in one pass over the stream (paper: App. K), each as if it were alone.

    stream: chunks `{block: update_vectors [vectors, d_model]}` of any size, in the order of training (see `shuffled`);
    they are cut into batches here. Of each block the first `init_batches` batches only set the loss scale and b_pre; an
    incomplete last batch is dropped. In `folder` each SAE gets a folder of its own (`config.folder_name`) with
    `model.safetensors`, `config.json` and `training.jsonl`, written when the stream ends. An SAE that is already there
    is loaded and not trained again; whether the stream is the same is for the caller to know.

    Raises ValueError if two configs share a folder name, if the folder holds an SAE of other settings, and for a stream
    that is empty or too short, lacks a block, has vectors of another width than d_model, or holds NaN or infinity.
    """
    configs, folder = list(configs), Path(folder)
    names = [config.folder_name for config in configs]
    if len(set(names)) < len(names):
        raise ValueError(f"two configs share a folder name in {names}; train them into different folders")
    saes = {config: _load_finished(config, folder, device) for config in configs}
    trainings = [SAETraining(config, log_interval) for config, sae in saes.items() if sae is None]
    if trainings:
        _train(stream, trainings, device)
        saes.update({training.config: training.save(folder) for training in trainings})
    return saes


def _train(stream: Iterable[Mapping[str, Tensor]], trainings: list[SAETraining], device: str | torch.device) -> None:
    """Steps all trainings over the stream: on the CPU an SAE a core, since its products are too small to share one."""
    groups: dict[tuple[str, int], list[SAETraining]] = {}
    for training in trainings:
        groups.setdefault((training.config.block, training.config.batch_size), []).append(training)
    cutters = {key: _Batches(key[1]) for key in groups}
    on_cpu, threads = torch.device(device).type == "cpu", torch.get_num_threads()
    try:
        with ThreadPoolExecutor(threads if on_cpu else 1, initializer=torch.set_num_threads, initargs=(1,)) as pool:
            for number, chunk in enumerate(stream):
                work = []
                for (block, batch_size), group in groups.items():
                    vectors = _checked(chunk, block, {training.config.d_model for training in group}, number)
                    batches = cutters[block, batch_size].cut(vectors.to(device, torch.float32))
                    work += [pool.submit(training.take, batches) for training in group]
                for done in work:
                    done.result()
    finally:
        torch.set_num_threads(threads)
    for training in trainings:
        if training.steps == 0:
            config = training.config
            raise ValueError(
                f"the stream is empty or too short for {config.folder_name}: wanted more than init_batches * batch_size"
                f" = {config.init_batches * config.batch_size} vectors of {config.block}: those are not trained on"
            )


def _checked(
    chunk: Mapping[str, Tensor], block: str, widths: set[int], number: int
) -> Float[Tensor, "vectors d_model"]:
    if block not in chunk:
        raise ValueError(
            f"block {block!r} is missing from chunk {number} of the stream, which has {', '.join(chunk) or 'nothing'}"
        )
    vectors = chunk[block]
    if vectors.ndim != 2 or widths != {vectors.shape[-1]}:
        wanted = ", ".join(map(str, sorted(widths)))
        raise ValueError(
            f"block {block!r}, chunk {number}: got {list(vectors.shape)}, wanted [vectors, d_model = {wanted}]"
        )
    if not vectors.isfinite().all():
        raise ValueError(
            f"block {block!r}, chunk {number}: the vectors hold NaN or infinity; capture them again in float32"
        )
    return vectors


def _load_finished(config: SAEConfig, folder: Path, device: str | torch.device) -> TopKSAE | None:
    path = folder / config.folder_name
    if not path.exists():
        return None
    sae = TopKSAE.load(path, config.block, device)
    there, asked = json.loads((path / "config.json").read_text())["training"], asdict(config)
    different = [f"{name} {there.get(name)} (asked: {asked[name]})" for name in asked if there.get(name) != asked[name]]
    if different:
        raise ValueError(f"{path} holds an SAE with {', '.join(different)}; use another folder or remove it")
    return sae


def shuffled(
    stream: Iterable[Mapping[str, Tensor]], buffer_vectors: int = 640_000, seed: int = 0
) -> Iterator[dict[str, Tensor]]:
    """The stream's vectors in the order of the paper's shuffling buffer (authors' code: 640,000 vectors).

    The buffer is filled until every block has `buffer_vectors`; all of it is permuted, a fifth given out, and so on.
    Blocks are permuted alike, each from `seed`: a block's order does not depend on which others are in the stream.
    Differs from the paper: at the end what is left in the buffer is given out too, permuted; there it is lost.
    """
    buffer: dict[str, Tensor] = {}
    generators: dict[str, torch.Generator] = {}
    waiting: list[Mapping[str, Tensor]] = []

    def fill() -> None:
        for block in waiting[0] if waiting else ():
            vectors = torch.cat([*([buffer[block]] if block in buffer else []), *(chunk[block] for chunk in waiting)])
            generator = generators.setdefault(block, torch.Generator().manual_seed(seed))
            buffer[block] = vectors[torch.randperm(len(vectors), generator=generator)]
        waiting.clear()

    def size() -> int:
        return min(len(buffer.get(block, ())) + sum(len(chunk[block]) for chunk in waiting) for block in waiting[0])

    for chunk in stream:
        waiting.append(chunk)
        if size() >= buffer_vectors:
            fill()
            fifth = {block: len(vectors) // 5 for block, vectors in buffer.items()}
            yield {block: vectors[: fifth[block]] for block, vectors in buffer.items()}
            buffer = {block: vectors[fifth[block] :] for block, vectors in buffer.items()}
    fill()
    if buffer:
        yield buffer
