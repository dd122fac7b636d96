"""Training SAEs on a stream of update vectors, as the paper does (App. K and the authors' code)."""

import json
import os
import shutil
import sys
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import psutil
import torch
import torch.distributed as dist
from jaxtyping import Float, Int
from torch import Tensor
from tqdm import tqdm

from sae_lib.blocks import BLOCKS
from sae_lib.losses import Weights, add_gradients_, variance
from sae_lib.metrics import explained_variance
from sae_lib.processes import owned, world
from sae_lib.resume import Position, copy_into, load_state, remove_states, save_state
from sae_lib.sae import TopKSAE
from sae_lib.statistics import RunningStatistics

LOG_FILE = "training.jsonl"
DIFFUSION_FILE = "diffusion.json"
"""Beside the weights: what no checkpoint format has a field for, where a diffusion SAE's vectors come from."""
ADAM_EPS = 6.25e-10
PIECE = 65_536
"""Vectors a block between two chances to save the state."""
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
    frozen: str = ""
    """Control: "encoder" or "decoder", whose weights stay as random as they began (arXiv:2602.14111)."""

    def __post_init__(self):
        if self.block not in BLOCKS:
            raise ValueError(f"unknown block {self.block!r}; valid blocks: {', '.join(BLOCKS)}")
        if self.frozen not in ("", "encoder", "decoder"):
            raise ValueError(f"frozen is {self.frozen!r}; choose 'encoder', 'decoder' or '' for neither")
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

    def start_fill(self, last: bool = True) -> None:
        """A new fill of the stream begins: the features' statistics are those of the last one, the others are not counted."""
        self.counting = last
        if self.sae is not None:
            self.statistics = RunningStatistics(self.config.n_f, self.sae.pre_bias.device)

    def _begin(self, vectors: Float[Tensor, "vectors d_model"]) -> None:
        self._first = []
        self._set(initialise_sae(self.config, vectors), 1 / variance(vectors))

    def _set(self, sae: TopKSAE, mse_scale: Float[Tensor, ""]) -> None:
        self.sae, self.weights = sae, Weights(mse_scale, self.config.auxk, self.config.auxk_coef)
        self.optimizer = torch.optim.Adam(sae.parameters(), lr=self.config.lr, eps=ADAM_EPS, fused=True)
        self.start_fill(self.counting)

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
            row["l0"] = (values > 0).sum(-1).double().mean().item()
            row["dead_share"] = dead.double().mean().item()
            self._seconds += time.perf_counter() - start
            since = self.steps - (self.log[-1]["step"] if self.log else 0)
            row["vectors_per_second"] = round(since * len(x) / self._seconds, 1)
            row["peak_memory_gb"] = peak_memory_gb(x.device)
            self.log.append(row)
            self._seconds = 0.0
        else:
            self._seconds += time.perf_counter() - start

    def state(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """What `restore` wants, as tensors and as JSON."""
        tensors = {f"sae.{name}": tensor for name, tensor in self.sae.state_dict().items()}
        for name, parameter in self.sae.named_parameters():
            tensors |= {f"adam.{name}.{part}": value for part, value in self.optimizer.state[parameter].items()}
        tensors |= {"mse_scale": self.weights.mse_scale, "sums": self.statistics.sums, "max": self.statistics.max}
        return tensors | {"vectors": self.statistics.vectors}, {"steps": self.steps, "log": self.log}

    def restore(self, tensors: Mapping[str, Tensor], told: Mapping[str, Any], device: str | torch.device) -> None:
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
            setattr(self.statistics, name, tensors[name].to(device))
        self.steps, self.log = told["steps"], list(told["log"])

    def save(self, folder: Path, about: Mapping[str, Any] | None = None) -> TopKSAE:
        """Ends the training and writes the SAE, its log, its features' statistics and `diffusion.json`, all or nothing,
        to `folder / config.folder_name`.

        about: what `diffusion.json` says of the vectors (`TrainingRun.describe`).

        Differs from the paper: the decoder columns are scaled to unit length once more, since the last Adam step leaves
        them so only to about lr.
        """
        self.sae.normalize_decoder_()
        self.sae.requires_grad_(False)
        final = folder / self.config.folder_name
        partial = final.with_name(f"{final.name}.partial-{os.getpid()}")
        try:
            self.sae.save(partial, training={**asdict(self.config), "steps": self.steps})
            (partial / LOG_FILE).write_text("".join(json.dumps(row) + "\n" for row in self.log))
            self.statistics.result().save(partial)
            if about is not None:
                (partial / DIFFUSION_FILE).write_text(json.dumps(about, indent=2) + "\n")
            os.replace(partial, final)
        finally:
            shutil.rmtree(partial, ignore_errors=True)
        return self.sae


def peak_memory_gb(device: torch.device) -> float:
    """The most memory that this process has held so far: on a GPU what torch allocated there, else what is resident."""
    if device.type == "cuda":
        return round(torch.cuda.max_memory_allocated(device) / 1e9, 3)
    if sys.platform == "win32":
        return round(psutil.Process().memory_info().peak_wset / 1e9, 3)
    import resource  # which Windows has not

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
    stream: Sequence[Mapping[str, Tensor]],
    configs: Iterable[SAEConfig],
    folder: str | Path,
    device: str | torch.device = "cpu",
    log_interval: int = 100,
    save_every: float = 600.0,
    about: Mapping[str, Mapping[str, Any]] | None = None,
) -> dict[SAEConfig, TopKSAE]:
    """Trains every SAE in one pass over the stream (paper: App. K), each as if it were alone.

    stream: fills `{block: update_vectors [vectors, d_model]}` of any size, in the order of training (a `TrainingStream`,
    or a list); they are cut into batches here. Of each block the first `init_batches` batches only set the loss scale and
    b_pre; an incomplete last batch is dropped. In `folder` each SAE gets a folder of its own (`config.folder_name`) with
    `model.safetensors`, `config.json`, `training.jsonl` and `statistics.safetensors` (over the last fill), written when
    the stream ends. An SAE that is already there is loaded and not trained again; whether the stream is the same is for
    the caller to know.

    about: of each block what its vectors are, stored beside the weights as `diffusion.json` (`TrainingRun.describe`).

    save_every: seconds after which the state is saved in `folder`. A run that died goes on there when it is called
    again, and ends with the weights it would have had: the stream's fill is made again. With torch.distributed each
    process trains the SAEs of the blocks it owns; all of them get all SAEs.

    Raises ValueError if two configs share a folder name, if the folder holds an SAE or an unfinished run of other
    settings, and for a stream that is empty or too short, lacks a block, has vectors of another width than d_model, or
    holds NaN or infinity.
    """
    configs, folder = list(configs), Path(folder)
    names = [config.folder_name for config in configs]
    if len(set(names)) < len(names):
        raise ValueError(f"two configs share a folder name in {names}; train them into different folders")
    saes = {config: _load_finished(config, folder, device) for config in configs}
    blocks = owned(list(dict.fromkeys(config.block for config in configs)))
    missing = [config for config, sae in saes.items() if sae is None]
    trainings = [SAETraining(config, log_interval) for config in missing if config.block in blocks]
    if missing:
        identity = {"configs": [asdict(config) for config in configs], "stream": getattr(stream, "description", None)}
        _Run(trainings, folder, device, identity, save_every).train(stream)
        for training in trainings:
            saes[training.config] = training.save(folder, (about or {}).get(training.config.block))
        if world()[1] > 1:
            dist.barrier()
            saes |= {config: _load_finished(config, folder, device) for config in missing}
        remove_states(folder)
    return saes


class _Run:
    """Trainings stepped together over a stream. On the CPU an SAE a core, since its products are too small to share one."""

    def __init__(self, trainings: list[SAETraining], folder: Path, device, identity: Any, save_every: float):
        self.trainings, self.folder, self.device = trainings, folder, torch.device(device)
        self.identity, self.save_every, self.saved = identity, save_every, time.monotonic()
        self.groups: dict[tuple[str, int], list[SAETraining]] = {}
        for training in trainings:
            self.groups.setdefault((training.config.block, training.config.batch_size), []).append(training)
        self.cutters = {key: _Batches(key[1]) for key in self.groups}

    def train(self, stream: Sequence[Mapping[str, Tensor]]) -> None:
        first, done = self._go_on()
        with tqdm(total=len(stream), initial=first, unit="fill", desc="training", disable=None) as bar:
            for number in range(first, len(stream)):
                fill = stream[number]
                self._check(fill, number)
                parts = list(pieces(fill, PIECE))
                if not done:
                    for training in self.trainings:
                        training.start_fill(last=number + 1 == len(stream))
                for piece in range(done, len(parts)):
                    self._step(parts[piece])
                    last = piece + 1 == len(parts)
                    self._save_now_and_then((number + 1, 0) if last else (number, piece + 1))
                done = 0
                del fill, parts  # before the next one is made
                bar.update()
        for training in self.trainings:
            if training.steps == 0:
                config = training.config
                raise ValueError(
                    f"the stream is empty or too short for {config.folder_name}: wanted more than init_batches * batch_size"
                    f" = {config.init_batches * config.batch_size} vectors of {config.block}: those are not trained on"
                )

    def _step(self, piece: Mapping[str, Tensor]) -> None:
        on_cpu, threads = self.device.type == "cpu", torch.get_num_threads()
        workers = {"initializer": torch.set_num_threads, "initargs": (1,)} if on_cpu else {}
        try:
            with ThreadPoolExecutor(threads if on_cpu else 1, **workers) as pool:
                work = []
                for (block, batch_size), group in self.groups.items():
                    batches = self.cutters[block, batch_size].cut(piece[block].to(self.device))
                    work += [pool.submit(training.take, batches) for training in group]
                for each in work:
                    each.result()
        finally:
            torch.set_num_threads(threads)  # MKL knows one number for all threads

    def _check(self, fill: Mapping[str, Tensor], number: int) -> None:
        for (block, _), group in self.groups.items():
            _refuse_unfit(fill, block, {training.config.d_model for training in group}, number)

    def _save_now_and_then(self, position: Position) -> None:
        due = time.monotonic() - self.saved >= self.save_every
        begun = all(training.sae is not None for training in self.trainings)
        if world()[1] > 1:  # all processes or none
            everyone: list[Any] = [None] * world()[1]
            dist.all_gather_object(everyone, (due, begun))
            due, begun = everyone[0][0], all(each[1] for each in everyone)
        if not (due and begun):
            return
        tensors, told = {}, {}
        for training in self.trainings:
            name = training.config.folder_name
            state, told[name] = training.state()
            tensors |= {f"{name}/{part}": tensor for part, tensor in state.items()}
        for (block, size), cutter in self.cutters.items():
            if cutter.rest is not None:
                tensors[f"rest/{block}/{size}"] = cutter.rest
        save_state(self.folder, position, self.identity, tensors, told)
        self.saved = time.monotonic()

    def _go_on(self) -> Position:
        found = load_state(self.folder, self.identity)
        if found is None:
            return 0, 0
        position, tensors, told = found
        for training in self.trainings:
            name = training.config.folder_name
            own = {part.removeprefix(f"{name}/"): x for part, x in tensors.items() if part.startswith(f"{name}/")}
            training.restore(own, told[name], self.device)
        for (block, size), cutter in self.cutters.items():
            rest = tensors.get(f"rest/{block}/{size}")
            cutter.rest = None if rest is None else rest.to(self.device)
        return position


def pieces(fill: Mapping[str, Tensor], rows: int) -> Iterator[dict[str, Tensor]]:
    """A fill cut into as few equal pieces as have at most `rows` vectors a block."""
    count = max((-(-len(x) // rows) for x in fill.values()), default=0)
    cut = {block: x.tensor_split(count) for block, x in fill.items()}
    for number in range(count):
        yield {block: parts[number] for block, parts in cut.items()}


def _refuse_unfit(fill: Mapping[str, Tensor], block: str, widths: set[int], number: int) -> None:
    if block not in fill:
        raise ValueError(
            f"block {block!r} is missing from fill {number} of the stream, which has {', '.join(fill) or 'nothing'}"
        )
    vectors = fill[block]
    if vectors.ndim != 2 or widths != {vectors.shape[-1]}:
        wanted = ", ".join(map(str, sorted(widths)))
        raise ValueError(
            f"block {block!r}, fill {number}: got {list(vectors.shape)}, wanted [vectors, d_model = {wanted}]"
        )
    # The sum tells in a fifth of the time, unless it overflows.
    if not vectors.sum(dtype=torch.float32).isfinite() and not vectors.isfinite().all():
        raise ValueError(
            f"block {block!r}, fill {number}: the vectors hold NaN or infinity; capture them again in float32"
        )


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
