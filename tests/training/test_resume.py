"""A run that is killed and started again ends as if nothing had happened; so does one of several processes."""

import itertools
import json
import os
import random
import signal
import subprocess
import sys
import time
from contextlib import contextmanager, suppress
from typing import ClassVar

import pytest
import torch
from hypothesis import Phase, given, settings, strategies as st
from safetensors.torch import load_file, save_file

from sae_lib.training import loop
from sae_lib.training.config import SAEConfig
from sae_lib.training.loop import train_saes
from sae_lib.training.resume import load_state, save_state
from sae_lib.training.trainer import SAETraining

TRAIN = """
import json, os, sys, time, torch
from sae_lib.training import SAEConfig, train_saes

class Slow:  # portions made from their number, so slowly that a signal can come between
    description = {"portions": 20}
    def __init__(self, pause):
        self.pause = pause
    def __len__(self):
        return 20
    def __getitem__(self, number):
        print("portion", number, flush=True)
        time.sleep(self.pause)
        vectors = torch.randn(200, 8, generator=torch.Generator().manual_seed(number)) + 2
        return {"mid.0": vectors, "up.0.1": vectors.flip(1)}

values = {"d_model": 8, "n_f": 32, "auxk": 4, "batch_size": 48, "lr": 1e-2, "dead_vectors_threshold": 96}
sizes = [("mid.0", 2), ("mid.0", 4), ("up.0.1", 2)]
configs = [SAEConfig.paper(block, k=k, init_batches=2, **values) for block, k in sizes]
for line in sys.stdin:
    folder, pause = json.loads(line)
    child = os.fork()
    if not child:
        print("process", os.getpid(), flush=True)
        train_saes(Slow(pause), configs, folder, log_interval=1, save_every=0.0)
        os._exit(0)
    print("ended", os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""
"""Trains in a process of its own for each line that it reads; torch is imported once for all of them."""

HARVEST = """
import sys, torch, torch.distributed as dist, torch.multiprocessing as mp
from pathlib import Path
from sae_lib.activations import CallSettings, TrainingStream
from sae_lib.models.blocks import width_of
from sae_lib.pocket.models import build_pipeline
from sae_lib.training import SAEConfig, loop, train_saes

class Ends(TrainingStream):  # a run that is stopped at a portion
    def __getitem__(self, number):
        if number == 3:
            raise KeyboardInterrupt
        return super().__getitem__(number)

CASES = {
    "three": (["mid.0", "up.0.0", "up.0.1"], None),
    "one": (["mid.0"], None),
    "two grids": (["mid.0", "up.1.1"], None),
    "two grids, one of them used up": (["up.1.1", "mid.0"], 700),
}

def train(rank, size, folder):
    torch.set_num_threads(1)
    if size > 1:
        dist.init_process_group("gloo", f"file://{folder}/meet{size}", rank=rank, world_size=size)
    loop.PIECE = 50
    pipe, prompts = build_pipeline(), [f"a red circle {number}" for number in range(11)]
    for case, (blocks, vectors) in CASES.items():
        arguments = pipe, prompts, blocks, CallSettings(1, 0.0, batch_size=2), 2, vectors
        values = {"n_f": 64, "batch_size": 32, "dead_vectors_threshold": 96, "init_batches": 2}
        configs = [SAEConfig.pocket(block, d_model=width_of(pipe, block), **values) for block in sorted(blocks)]
        try:
            train_saes(Ends(*arguments, buffer=400), configs, folder / str(size) / case, save_every=0.0)
        except KeyboardInterrupt:
            assert list((folder / str(size) / case).glob("unfinished_*"))
        saes = train_saes(TrainingStream(*arguments, buffer=400), configs, folder / str(size) / case)
        assert list(saes) == configs and None not in saes.values()
    if size > 1:
        dist.destroy_process_group()

for size in (1, 2, 3):
    folder = Path(sys.argv[1])
    mp.start_processes(train, (size, folder), size, start_method="fork")
"""
"""Trains the cases with one, two and three processes; torch is imported once for all of them."""


def start(*arguments):
    environment, pipe = os.environ | {"OMP_NUM_THREADS": "1"}, subprocess.PIPE
    return subprocess.Popen([sys.executable, *arguments], env=environment, stdin=pipe, stdout=pipe, text=True)


def number_after(word, lines):
    """What the next line says that begins with that word; those before it are passed over."""
    return int(next(line for line in lines if line.startswith(f"{word} ")).split()[1])


def weights(folder):
    weights = {path.parent.name: load_file(path) for path in folder.glob("*/model.safetensors")}
    assert weights
    return weights


def assert_equal(first, second):
    assert first.keys() == second.keys()
    for name, tensors in first.items():
        for part, tensor in tensors.items():
            assert torch.equal(tensor, second[name][part]), f"{name} {part}"


def test_killed_at_five_random_moments_it_ends_bit_identical(tmp_path):
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    rng, deaths = random.Random(0), 0
    with start("-c", TRAIN) as trainer:

        def begin(folder, pause):
            print(json.dumps([str(folder), pause]), file=trainer.stdin, flush=True)
            return number_after("process", trainer.stdout)

        for _ in range(5):
            process = begin(killed, 0.12)
            for _ in range(rng.randint(2, 4)):
                number_after("portion", trainer.stdout)  # a portion begins
            time.sleep(rng.uniform(0, 0.15))
            os.kill(process, signal.SIGKILL)
            deaths += number_after("ended", trainer.stdout) == -signal.SIGKILL
        assert deaths == 5 and list(killed.glob("unfinished_*.safetensors")) and not list(killed.glob("[!.]*/"))
        for folder in (killed, whole):
            begin(folder, 0)
            assert number_after("ended", trainer.stdout) == 0
    assert len(weights(whole)) == 3
    assert_equal(weights(whole), weights(killed))
    assert not list(killed.glob("unfinished_*"))


def test_one_two_and_three_processes_end_bit_identical_on_one_to_three_blocks_of_any_grid(tmp_path):
    with start("-c", HARVEST, str(tmp_path)) as harvest:
        assert harvest.wait(timeout=240) == 0
    cases = list((tmp_path / "1").iterdir())
    assert len(cases) == 4
    for case in cases:
        for several in ("2", "3"):
            assert_equal(weights(case), weights(tmp_path / several / case.name))
            assert not list((tmp_path / several / case.name).glob("*unfinished_*"))


def test_the_newest_state_is_found_and_older_ones_go(tmp_path):
    for position in ((0, 1), (0, 2), (1, 0)):
        save_state(tmp_path, position, {"a": 1}, {"x": torch.tensor(position)}, [3])
    position, tensors, rest = load_state(tmp_path, {"a": 1})
    assert position == (1, 0) and tensors["x"].tolist() == [1, 0] and rest == [3]
    assert len(list(tmp_path.iterdir())) == 1


def test_an_unfinished_run_of_other_settings_is_refused(tmp_path):
    save_state(tmp_path, (0, 1), {"a": 1}, {}, None)
    with pytest.raises(
        ValueError, match=r"an unfinished run of other settings, whose a is 1 \(asked: 2\): use another folder"
    ):
        load_state(tmp_path, {"a": 2})


def test_an_unfinished_run_of_more_processes_is_refused(tmp_path):
    save_state(tmp_path, (0, 1), {"a": 1}, {}, None)
    (path,) = tmp_path.iterdir()
    path.rename(path.with_name(path.name.replace("0of1", "0of4")))
    with pytest.raises(
        ValueError, match="an unfinished run of 4 processes and this one has 1: start as many, or remove"
    ):
        load_state(tmp_path, {"a": 1})


def cut_short(path):
    path.write_bytes(path.read_bytes()[:-1])


def replace_by_text(path):
    path.write_text("a note")


def replace_by_other_tensors(path):
    save_file({"x": torch.zeros(1)}, path)


@pytest.mark.parametrize("damage", [cut_short, replace_by_text, replace_by_other_tensors])
def test_a_state_that_is_damaged_or_none_is_named_with_the_way_out(tmp_path, damage):
    save_state(tmp_path, (0, 1), {"a": 1}, {"x": torch.zeros(3)}, None)
    (path,) = tmp_path.iterdir()
    damage(path)
    with pytest.raises(ValueError, match=r"unfinished_0of1_0_1.safetensors is cut short or no state \(.*\): remove it"):
        load_state(tmp_path, {"a": 1})


def test_other_files_and_what_a_killed_process_was_writing_are_no_states(tmp_path):
    for name in (
        "unfinished_notes.safetensors",
        "unfinished_0of1_x_1.safetensors",
        ".unfinished_0of1_0_1.safetensors",
    ):
        (tmp_path / name).touch()
    assert load_state(tmp_path, {"a": 1}) is None


def test_a_state_of_which_an_sae_lacks_a_part_is_refused(tmp_path, monkeypatch):
    config = SAEConfig.paper("mid.0", **VALUES, k=2)
    monkeypatch.setattr(SAETraining, "state", lambda self: ({}, {"steps": 1, "log": []}))
    with stopped_after(5):
        train_saes(portions(0, 6), [config], tmp_path, save_every=0.0)
    with pytest.raises(ValueError, match="does not hold all of mid.0_k2_hidden8_seed0 .*: another version wrote it"):
        train_saes(portions(0, 6), [config], tmp_path)


VALUES = {"d_model": 4, "n_f": 8, "auxk": 4, "batch_size": 16, "dead_vectors_threshold": 32, "init_batches": 2}


@contextmanager
def stopped_after(pieces):
    """Inside, a training is stopped when it has done so many pieces."""
    left, step = itertools.count(), loop._Loop._step

    def stop(self, piece):
        if next(left) == pieces:
            raise KeyboardInterrupt
        step(self, piece)

    with pytest.MonkeyPatch.context() as patch, suppress(KeyboardInterrupt):
        patch.setattr(loop._Loop, "_step", stop)
        yield


def portions(seed, count):
    """Portions of unequal length of two blocks of different width, of which the second has more vectors."""
    generator = torch.Generator().manual_seed(seed)
    rows = torch.randint(20, 60, (count,), generator=generator).tolist()
    return [
        {"mid.0": torch.randn(n, 4, generator=generator), "up.1.2": torch.randn(3 * n, 2, generator=generator)}
        for n in rows
    ]


@st.composite
def trainings(draw):
    """One to three SAEs of different settings."""
    configs = []
    for seed in range(draw(st.integers(1, 3))):
        block, k = draw(st.sampled_from(["mid.0", "up.1.2"])), draw(st.integers(1, 3))
        changes = {"batch_size": draw(st.sampled_from([7, 16])), "frozen": draw(st.sampled_from(["", "encoder"]))}
        changes |= {"d_model": 4 if block == "mid.0" else 2, "auxk": draw(st.integers(1, 4))}
        configs.append(SAEConfig.paper(block, k=k, seed=seed, **{**VALUES, **changes}))
    return configs


@settings(derandomize=True, max_examples=12, deadline=None, phases=[Phase.generate])  # shrinking takes minutes
@given(trainings(), st.integers(0, 99), st.lists(st.integers(0, 30), max_size=3), st.integers(10, 200))
def test_any_training_stopped_after_any_pieces_ends_bit_identical(tmp_path_factory, configs, seed, stops, piece):
    stream, folder = portions(seed, 4), tmp_path_factory.mktemp("any")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop, "PIECE", piece)
        whole = train_saes(stream, configs, folder / "whole", log_interval=1)
        for stop in stops:
            with stopped_after(stop):
                train_saes(stream, configs, folder / "stopped", save_every=0.0, log_interval=1)
        stopped = train_saes(stream, configs, folder / "stopped", log_interval=1)
    for config in configs:
        ours, theirs = (saes[config].state_dict() for saes in (whole, stopped))
        assert all(torch.equal(tensor, theirs[name]) for name, tensor in ours.items())
        for name in ("model.safetensors", "statistics.safetensors"):
            ours, theirs = (load_file(folder / run / config.folder_name / name) for run in ("whole", "stopped"))
            assert all(torch.equal(tensor, theirs[part]) for part, tensor in ours.items())


class Described(list):
    """A stream whose description leaves out what its vectors depend on."""

    description: ClassVar = {"by": "the caller"}


def test_an_unfinished_run_on_other_vectors_is_refused_even_if_the_description_is_the_same(tmp_path):
    values = {"d_model": 8, "n_f": 32, "auxk": 4, "batch_size": 48, "lr": 1e-2, "dead_vectors_threshold": 96}
    config = SAEConfig.paper("mid.0", k=2, init_batches=2, **values)
    generator = torch.Generator().manual_seed(0)
    portions = [{"mid.0": torch.randn(200, 8, generator=generator)} for _ in range(8)]
    with stopped_after(5):
        train_saes(Described(portions), [config], tmp_path, save_every=0.0)
    others = Described({"mid.0": 3 * portion["mid.0"]} for portion in portions)
    with pytest.raises(
        ValueError, match=r"unfinished run on another stream, which begins with other vectors of mid\.0"
    ):
        train_saes(others, [config], tmp_path, save_every=0.0)
    nearly = Described({"mid.0": portion["mid.0"] * (1 + 1e-6)} for portion in portions)  # of another processor
    assert train_saes(nearly, [config], tmp_path, save_every=0.0).keys() == {config}
