"""The loop that trains several SAEs on one stream of update vectors, and goes on where it was stopped."""

import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from jaxtyping import Float
from torch import Tensor
from tqdm import tqdm

from sae_lib.activations.processes import alone, everyone, owned, rank_and_size
from sae_lib.cache.space import refuse_without_disk, refuse_without_memory
from sae_lib.saes.topk import TopKSAE
from sae_lib.training.config import SAEConfig
from sae_lib.training.finished import describe_vectors, load_finished, of_block, stream_identity
from sae_lib.training.resume import Position, load_state, remove_states, save_state
from sae_lib.training.trainer import SAETraining

_KNOWN_BY = 64
"""Vectors of a stream's first portion by which the stream is known again."""
PIECE = 65_536
"""Vectors per block after which the state may be saved again."""


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
) -> dict[SAEConfig, TopKSAE]:
    """Trains every SAE in one pass over the stream (paper: App. K), each as if it were alone.

    stream: portions `{block: update_vectors [vectors, d_model]}` of any size, in the order of training (a
    `TrainingStream`, or a list); they are cut into batches here. The first `init_batches` batches of each block only
    set the loss scale and b_pre; an incomplete last batch is dropped.

    folder: here each SAE gets its own folder (`config.folder_name`) with `model.safetensors`, `config.json`,
    `training.jsonl` and `statistics.safetensors` (over the last portion), written when the stream ends, and, of a
    `TrainingStream` or a store, `diffusion.json`, which says what the vectors are (`describe_vectors`). An SAE that is
    already there is loaded and not trained again, if it was trained with this configuration on this stream. A stream is
    known by its `description`; one without any by the number of its portions and the hash of the first.

    save_every: seconds after which the state is saved in `folder`. A run that died goes on from there when it is called
    again, and ends with the weights it would have had: the stream's portion is made again. With torch.distributed each
    process trains the SAEs of the blocks it owns, which may be none; all processes get all SAEs.

    Raises ValueError if two configs share a folder name, if the folder holds an SAE or an unfinished run of other
    settings or of another stream or a damaged state, and for a stream that is empty or too short, lacks a block, has
    vectors of another width than d_model, or holds NaN or infinity; BlockingIOError if another run trains into the
    folder, OSError if nothing can be written there or the disk has no room, MemoryError if the device has none. What
    can be known before the first portion is made is refused before it.
    """
    configs, folder = list(configs), Path(folder)
    names = [config.folder_name for config in configs]
    if len(set(names)) < len(names):
        raise ValueError(f"two configs share a folder name in {names}; train them into different folders")
    if all(everyone(all((folder / name).is_dir() for name in names))):
        return load_finished(configs, folder, device, stream_identity(stream))
    _refuse_unfit_configs(stream, configs)
    with alone(folder):
        known = stream_identity(stream)
        saes = load_finished(configs, folder, device, known)
        if None not in saes.values():
            return saes
        blocks = owned(list(getattr(stream, "blocks", None) or dict.fromkeys(config.block for config in configs)))
        missing = [config for config, sae in saes.items() if sae is None]
        trainings = [SAETraining(config, log_interval) for config in missing if config.block in blocks]
        _refuse_without_room(missing, trainings, folder, device)
        # Without a description a stream is known again by its first vectors, equal but for their last digits.
        stated = known if hasattr(stream, "description") else {"portions": known["portions"]}
        identity = {"configs": {config.folder_name: asdict(config) for config in configs}, "stream": stated}
        _Loop(trainings, folder, device, identity, save_every).train(stream)
        for training in trainings:
            block, origin = training.config.block, getattr(stream, "origin", None)
            vectors = None if origin is None else describe_vectors(known, origin, block)
            saes[training.config] = training.save(folder, of_block(known, block), vectors)
        if rank_and_size()[1] > 1:
            dist.barrier()
            saes = load_finished(configs, folder, device, known)
        remove_states(folder)
    return saes


class _Loop:
    """Steps several trainings over one stream. On a CPU a core trains one SAE at a time, whose products are small."""

    def __init__(
        self, trainings: list[SAETraining], folder: Path, device: str | torch.device, identity: Any, save_every: float
    ):
        self.trainings, self.folder, self.device = trainings, folder, torch.device(device)
        self.identity, self.save_every, self.saved = identity, save_every, time.monotonic()
        self.groups: dict[tuple[str, int], list[SAETraining]] = {}
        for training in trainings:
            self.groups.setdefault((training.config.block, training.config.batch_size), []).append(training)
        self.cutters = {key: _Batches(key[1]) for key in self.groups}
        self.first: dict[str, Tensor] = {}

    def train(self, stream: Sequence[Mapping[str, Tensor]]) -> None:
        first, done = self._go_on(stream)
        with tqdm(total=len(stream), initial=first, unit="portion", desc="training", disable=None) as bar:
            for number in range(first, len(stream)):
                portion = stream[number]
                self._check(portion, number)
                if number == 0:
                    self.first = _first(portion)
                parts = list(pieces(portion, PIECE))
                if not done:
                    for training in self.trainings:
                        training.start_portion(last=number + 1 == len(stream))
                for piece in range(done, len(parts)):
                    self._step(parts[piece])
                    last = piece + 1 == len(parts)
                    self._save_now_and_then((number + 1, 0) if last else (number, piece + 1))
                done = 0
                del portion, parts  # before the next one is made
                bar.update()
        for training in self.trainings:
            if training.steps == 0:
                raise _too_short(training.config)

    def _step(self, piece: Mapping[str, Tensor]) -> None:
        on_cpu, threads = self.device.type == "cpu", torch.get_num_threads()
        workers = {"initializer": torch.set_num_threads, "initargs": (1,)} if on_cpu else {}
        try:
            with ThreadPoolExecutor(threads if on_cpu else 1, **workers) as pool:
                work = []
                for (block, batch_size), group in self.groups.items():
                    batches = self.cutters[block, batch_size].cut(piece[block].to(self.device))
                    work += [pool.submit(training.take, batches) for training in group]
                for step in work:
                    step.result()
        finally:
            torch.set_num_threads(threads)  # MKL knows one number for all threads

    def _check(self, portion: Mapping[str, Tensor], number: int) -> None:
        for (block, _), group in self.groups.items():
            _refuse_unfit(portion, block, {training.config.d_model for training in group}, number)

    def _save_now_and_then(self, position: Position) -> None:
        due = time.monotonic() - self.saved >= self.save_every
        begun = all(training.steps for training in self.trainings)
        states = everyone((due, begun))
        if not (states[0][0] and all(ready for _, ready in states)):  # all processes save or none
            return
        tensors, rest = {}, {}
        for training in self.trainings:
            name = training.config.folder_name
            state, rest[name] = training.state()
            tensors |= {f"{name}/{part}": tensor for part, tensor in state.items()}
        for (block, size), cutter in self.cutters.items():
            if cutter.rest is not None:
                tensors[f"rest/{block}/{size}"] = cutter.rest.clone()  # two may be views of the same vectors
        tensors |= {f"first/{block}": vectors for block, vectors in self.first.items()}
        save_state(self.folder, position, self.identity, tensors, rest)
        self.saved = time.monotonic()

    def _go_on(self, stream: Sequence[Mapping[str, Tensor]]) -> Position:
        saved = load_state(self.folder, self.identity)
        if saved is None:
            return 0, 0
        position, tensors, rest = saved
        self.first = {name.removeprefix("first/"): x for name, x in tensors.items() if name.startswith("first/")}
        if not hasattr(stream, "origin"):  # a description of the caller's own may leave something out
            _refuse_others(_first(stream[0]), self.first, self.folder)
        for training in self.trainings:
            name = training.config.folder_name
            own = {part.removeprefix(f"{name}/"): x for part, x in tensors.items() if part.startswith(f"{name}/")}
            try:
                training.restore(own, rest[name], self.device)
            except torch.OutOfMemoryError:
                raise
            except (KeyError, RuntimeError) as error:
                what = " ".join(str(error).split())
                raise ValueError(
                    f"the unfinished state in {self.folder} does not hold all of {name} ({what}): another version "
                    "wrote it; remove it, and the run begins anew"
                ) from error
        for (block, size), cutter in self.cutters.items():
            left = tensors.get(f"rest/{block}/{size}")
            cutter.rest = None if left is None else left.to(self.device)
        return position


def pieces(portion: Mapping[str, Tensor], rows: int) -> Iterator[dict[str, Tensor]]:
    """A portion cut into as few equal pieces as possible, each with at most `rows` vectors per block.

    All processes get the same number of pieces, whatever blocks they have, since they meet after each.
    """
    count = max(everyone(max((-(-len(x) // rows) for x in portion.values()), default=0)))
    cut = {block: x.tensor_split(count) for block, x in portion.items()}
    for number in range(count):
        yield {block: parts[number] for block, parts in cut.items()}


def _first(portion: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """By which a portion is known again."""
    return {block: vectors[:_KNOWN_BY].float().cpu().clone() for block, vectors in portion.items()}


def _refuse_others(now: Mapping[str, Tensor], before: Mapping[str, Tensor], folder: Path) -> None:
    """Other vectors; the same ones from another kind of processor differ in their last digits only."""
    for block, vectors in before.items():
        there = now.get(block)
        if there is None or there.shape != vectors.shape or (there - vectors).norm() > 0.05 * vectors.norm():
            raise ValueError(
                f"{folder} holds an unfinished run on another stream, which begins with other vectors of {block}: "
                "use another folder, or remove its unfinished_*.safetensors"
            )


def _refuse_unfit(portion: Mapping[str, Tensor], block: str, widths: set[int], number: int) -> None:
    if block not in portion:
        raise ValueError(
            f"block {block!r} is missing from portion {number} of the stream, "
            f"which has {', '.join(portion) or 'nothing'}"
        )
    vectors = portion[block]
    if vectors.ndim != 2 or widths != {vectors.shape[-1]}:
        wanted = ", ".join(map(str, sorted(widths)))
        raise ValueError(
            f"block {block!r}, portion {number}: got {list(vectors.shape)}, wanted [vectors, d_model = {wanted}]"
        )
    # The sum shows it in a fifth of the time, unless it overflows.
    if not vectors.sum(dtype=torch.float32).isfinite() and not vectors.isfinite().all():
        raise ValueError(
            f"block {block!r}, portion {number}: the vectors hold NaN or infinity; capture them again in float32"
        )


def _too_short(config: SAEConfig) -> ValueError:
    return ValueError(
        f"the stream is empty or too short for {config.folder_name}: wanted more than init_batches * batch_size = "
        f"{config.init_batches * config.batch_size} vectors of {config.block}: those are not trained on"
    )


def _refuse_unfit_configs(stream: Sequence[Mapping[str, Tensor]], configs: Sequence[SAEConfig]) -> None:
    """Refuses before a portion is made what a `TrainingStream` says of itself; of a list it is seen in its portions."""
    shapes = getattr(stream, "shapes", None)
    for config in configs if shapes is not None else ():
        if config.block not in shapes:
            raise ValueError(f"block {config.block!r} is missing from the stream, which has {', '.join(shapes)}")
        vectors, width = shapes[config.block]
        if width != config.d_model:
            raise ValueError(
                f"{config.folder_name}: d_model is {config.d_model} and the stream's vectors of {config.block} have "
                f"{width} dimensions: set d_model to it"
            )
        if stream.passes * vectors // config.batch_size <= config.init_batches:
            raise _too_short(config)


def _refuse_without_room(
    missing: Sequence[SAEConfig], trainings: Sequence[SAETraining], folder: Path, device: str | torch.device
) -> None:
    """Refuses a training whose end does not fit: SAEs and two states on the disk, Adam's numbers in memory."""

    def gb(config: SAEConfig) -> float:
        return 4 * (2 * config.d_model + 1) * config.n_f / 1e9

    if rank_and_size()[0] == 0:
        there = sum(path.stat().st_size for path in folder.glob("unfinished_*")) / 1e9
        need = sum(map(gb, missing)) * 7 - there  # a state is the weights with two moments; the older one goes last
        refuse_without_disk(need, folder, "the SAEs and their unfinished states need", "free some, or use another disk")
    need = 4 * sum(gb(training.config) for training in trainings)
    what, way = "the SAEs with their gradients and Adam's moments need", "train fewer at a time, in several runs"
    refuse_without_memory(need, torch.device(device), what, way)
