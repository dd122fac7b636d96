"""SAEs of several kinds on one stream, scored by PocketBench: `make pocket-bench`, which notebook 15 draws.

First `python -m sae_lib export` writes the block's updates, and SAELens trains its four kinds of SAE on them
(`saelens_on_export.py`, in the environment of the interop tests). Then this script trains what our own library trains,
on the same prompts: the authors' recipe, its control with a frozen decoder, and SAEs of each step, of all steps and of
one step of 4-step Turbo. The kinds are trained and scored on a second block, too. All scores go into
figures/results/pocket_bench.json. What is trained or scored is kept in the cache, so that a killed run goes on where it
was. `--small` scores on few pictures.

python notebooks/experiments/pocket_bench.py FOLDER    the folder with SAELens' SAEs, named BLOCK/KIND_seedN
"""

import argparse
import hashlib
import json
import multiprocessing
import os
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from sae_lib.activations.stream import TrainingStream, mix
from sae_lib.assets import MODELS, Assets
from sae_lib.bench.baselines import neurons, principal_components
from sae_lib.bench.scores import RESEEDED, PocketBench
from sae_lib.cache.artefact import cached
from sae_lib.cache.results import result_path, save_result
from sae_lib.saes.checkpoints import load_any
from sae_lib.saes.topk import TopKSAE
from sae_lib.training.loop import train_saes
from sae_lib.training.recipe import TrainingRun

BLOCK, K, EXPANSION, SEEDS = "up.1.2", 8, 4, (0, 1, 2)
"""The block that carries most of the pocket Turbo's captions; k and n_f = 4 d_model are the transfer SAE's."""
SECOND, SECOND_K = "up.0.1", 16
"""The second of the chosen blocks, on which what was seen on the first is tested; d_model is twice as large."""
STEPS, STEP_SEEDS = 4, 2
COMMAND = "make pocket-bench"


class StepStream(Sequence):
    """The updates of one step of a stream of several: as many vectors as a one-step stream of these prompts gives."""

    def __init__(self, stream: TrainingStream, step: int):
        self._stream, self._step = stream, step
        self.blocks, self.passes = stream.blocks, stream.passes
        self.shapes = {b: (n // stream.settings.steps, width) for b, (n, width) in stream.shapes.items()}

    @property
    def description(self) -> dict[str, Any]:
        return {**self._stream.description, "only step": self._step}

    @property
    def origin(self) -> dict[str, Any]:
        return self._stream.origin

    def __len__(self) -> int:
        return len(self._stream)

    def __getitem__(self, number: int) -> dict[str, Tensor]:
        steps = self._stream.settings.steps
        vectors = {
            block: x.unflatten(0, (len(self._stream.prompts), steps, -1))[:, self._step].flatten(0, 1)
            for block, x in self._stream.in_order().items()
        }
        return mix(vectors, self._stream.seed, number)


class Job(NamedTuple):
    """An SAE that is scored, and on which pictures."""

    name: str
    seed: int
    sae: TopKSAE
    block: str = BLOCK
    model: str = MODELS[0]
    step: int = 0
    others: tuple[TopKSAE, ...] = ()
    """The same recipe with other seeds."""
    writes: bool = False
    """Whether its features are turned on and off, which takes two thirds of the time: of one seed of each kind, and of
    all seeds of ours, which say how much it varies with the seed."""


def train_ours(scale: str) -> dict[str, list[TopKSAE]]:
    """By name, the SAEs of the three seeds that our own library trains."""
    run = TrainingRun(scale, blocks=(BLOCK,), ks=(K,), expansion_factors=(EXPANSION,), sae_seeds=SEEDS)
    pipe = run.load_pipeline()
    # One portion, which is kept, so that pictures are drawn once; of all steps together each vector is seen once.
    in_steps = replace(run, steps=STEPS, buffer=2**22)
    stream, configs = run.stream(pipe), run.configs(pipe)

    def train(folder: Path) -> None:
        train_saes(stream, configs, folder / "TopK, one step")
        train_saes(stream, [replace(config, frozen="decoder") for config in configs], folder / "frozen decoder")
        every = replace(in_steps, passes=max(1, run.all_passes // STEPS)).stream(pipe)
        train_saes(every, configs, folder / "TopK, all steps")
        by_step = in_steps.stream(pipe)
        for step in range(STEPS):
            train_saes(StepStream(by_step, step), configs, folder / f"TopK, step {step + 1}")

    inputs = {"run": asdict(run), "configs": [asdict(config) for config in configs], "stream": stream.description}
    folder = cached("pocket_bench_saes", inputs, train, resumable=True)
    names = [config.folder_name for config in configs]
    return {
        each.name: [TopKSAE.load(each / name, BLOCK) for name in names]
        for each in sorted(folder.iterdir())
        if each.is_dir()
    }


def train_second(scale: str) -> list[TopKSAE]:
    """Our TopK SAEs of the second block, of three seeds."""
    run = TrainingRun(scale, blocks=(SECOND,), ks=(SECOND_K,), expansion_factors=(EXPANSION,), sae_seeds=SEEDS)
    folder = cached("pocket_bench_second", {"run": asdict(run)}, run.train, resumable=True)
    return [TopKSAE.load(folder / config.folder_name, SECOND) for config in run.configs(run.load_pipeline())]


def theirs(folder: Path, block: str) -> dict[str, list[TopKSAE]]:
    """By kind, SAELens' SAEs of a block, seed by seed."""
    kinds: dict[str, list[TopKSAE]] = {}
    for each in sorted((folder / block).glob("*_seed?")):
        kinds.setdefault(each.name.partition("_seed")[0], []).append(load_any(each, block)[0])
    return kinds


def of_kinds(kinds: Mapping[str, Sequence[TopKSAE]], block: str, writes: bool) -> Iterator[Job]:
    """Each kind, seed by seed, with its other seeds for the stability."""
    for name, saes in kinds.items():
        for seed, sae in enumerate(saes):
            others = (*saes[:seed], *saes[seed + 1 :])
            yield Job(name, seed, sae, block, others=others, writes=writes and (name == RESEEDED or seed == 0))


def of_second_block(scale: str, folder: Path) -> Iterator[Job]:
    """The kinds and an untrained SAE on the second block."""
    ours, bench = train_second(scale), PocketBench(SECOND, scale)
    random = [bench.control(ours[0], seed) for seed in SEEDS]
    yield from of_kinds({RESEEDED: ours, **theirs(folder, SECOND), "random": random}, SECOND, writes=False)


def jobs(scale: str, folder: Path) -> Iterator[Job]:
    """All that is scored: kinds of SAE and baselines in one step, then SAEs by step, then the second block."""
    ours = train_ours(scale)
    bench = PocketBench(BLOCK, scale)
    matched = bench.updates[::2].float().flatten(0, 1)
    start = ours["TopK, one step"][0]
    random = [bench.control(start, seed) for seed in SEEDS]
    kinds = {RESEEDED: ours["TopK, one step"], **theirs(folder, BLOCK)}
    kinds |= {"frozen decoder": ours["frozen decoder"], "random": random}
    yield from of_kinds(kinds, BLOCK, writes=True)
    yield Job("neurons", 0, neurons(matched, K), writes=True)
    yield Job("principal components", 0, principal_components(matched, K), writes=True)
    for step in range(STEPS):
        of_step = ours[f"TopK, step {step + 1}"], ours["TopK, all steps"], ours["TopK, one step"]
        for name, saes in zip(("of this step", "of all steps", "of one step"), of_step, strict=True):
            for seed, sae in enumerate(saes[:STEP_SEEDS]):
                yield Job(name, seed, sae, model=MODELS[1], step=step)
        yield Job("random", 0, random[0], model=MODELS[1], step=step)
    yield from of_second_block(scale, folder)


def score(scale: str, job: Job) -> dict[str, Any]:
    """A job's scores as a record; kept in the cache."""
    torch.set_num_threads(1)

    def make(folder: Path) -> None:
        scores = PocketBench(job.block, scale, job.model, job.step).score(job.sae, writes=job.writes, seeds=job.others)
        (folder / "scores.json").write_text(json.dumps(scores.record()))

    assets = Assets(scale, blocks=[job.block])
    inputs = {
        "sae": digest(job.sae),
        "others": [digest(sae) for sae in job.others],
        "model": job.model,
        "step": job.step,
        "writes": job.writes,
    }
    kept = cached("pocket_bench_scores", assets.identity | inputs, make)
    record = json.loads((kept / "scores.json").read_text())
    return {"name": job.name, "seed": job.seed, "model": job.model, "step": job.step, **record}


def bench(scale: str, folder: Path) -> dict[str, Any]:
    """Everything scored, on all cores."""
    asked = list(jobs(scale, folder))
    for model in MODELS[:2]:
        PocketBench(BLOCK, scale, model).known()  # before the processes, which would all draw them
    PocketBench(BLOCK, scale).known(later=True)
    PocketBench(SECOND, scale).known()
    with ProcessPoolExecutor(os.cpu_count(), multiprocessing.get_context("spawn")) as pool:
        rows = []
        for row in pool.map(partial(score, scale), asked):
            rows.append(row)
            what = f"{row['about']['block']}, {row['name']}, seed {row['seed']}, step {row['step'] + 1}"
            print(f"{len(rows)} of {len(asked)}: {what}", flush=True)
    about = {"block": BLOCK, "k": K, "second": {"block": SECOND, "k": SECOND_K}, "seeds": len(SEEDS)}
    return about | {"training": trained_on(folder), "rows": rows}


def trained_on(folder: Path) -> Mapping[str, Any]:
    """How SAELens' SAEs were trained, as `saelens_on_export.py` says in their metadata."""
    files = sorted(folder.glob("*/*_seed?/cfg.json"))
    about = {f"{file.parts[-3]}/{file.parts[-2]}": json.loads(file.read_text()) for file in files}
    of_kind = {name: config["metadata"]["training_architecture_details"] for name, config in about.items()}
    return {name: {**config["metadata"]["training"], **of_kind[name]} for name, config in about.items()}


def digest(sae: TopKSAE) -> str:
    """A hash of all numbers of an SAE."""
    of = hashlib.sha256(type(sae).__name__.encode())
    for name, tensor in sorted(sae.state_dict().items()):
        of.update(name.encode() + tensor.numpy(force=True).tobytes())
    return of.hexdigest()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="SAEs that SAELens trained, in folders named BLOCK/KIND_seedN")
    parser.add_argument("--small", action="store_true", help="smoke's counts; the result goes into the cache")
    options = parser.parse_args()
    output = result_path("pocket_bench", options.small)
    save_result(output, bench("smoke" if options.small else "pocket", options.folder), COMMAND)
    print(f"written: {output.name}")


if __name__ == "__main__":
    main()
