"""A run that is killed and started again ends as if nothing had happened; so does one of several processes."""

import json
import os
import random
import runpy
import signal
import subprocess
import sys
import time

import pytest
import torch
from safetensors.torch import load_file

from sae_lib.training.resume import load_state, save_state

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
import sys, torch, torch.distributed as dist
from sae_lib.activations import CallSettings
from sae_lib.activations import TrainingStream
from sae_lib.pocket.models import build_pipeline
from sae_lib.training import SAEConfig, train_saes
from sae_lib.activations.processes import rank_and_size

torch.set_num_threads(1)
if int(sys.argv[2]) > 1:
    dist.init_process_group("gloo")
prompts = [f"a red circle {number}" for number in range(11)]
blocks, settings = ["mid.0", "up.0.0", "up.0.1"], CallSettings(1, 0.0, batch_size=2)
stream = TrainingStream(build_pipeline(), prompts, blocks, settings, 2, buffer=400)
values = {"n_f": 64, "batch_size": 32, "dead_vectors_threshold": 96, "init_batches": 2}
saes = train_saes(stream, [SAEConfig.pocket(block, **values) for block in stream.blocks], sys.argv[1])
assert len(saes) == 3
if dist.is_initialized():
    dist.destroy_process_group()
"""


def start(*arguments):
    environment, pipe = os.environ | {"OMP_NUM_THREADS": "1"}, subprocess.PIPE
    return subprocess.Popen([sys.executable, *arguments], env=environment, stdin=pipe, stdout=pipe, text=True)


def number_after(word, lines):
    """What the next line says that begins with that word; those before it are passed over."""
    return int(next(line for line in lines if line.startswith(f"{word} ")).split()[1])


def weights(folder):
    weights = {path.parent.name: load_file(path) for path in folder.glob("*/model.safetensors")}
    assert len(weights) == 3
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
        assert deaths == 5 and list(killed.glob("unfinished_*.safetensors")) and not list(killed.glob("*/"))
        for folder in (killed, whole):
            begin(folder, 0)
            assert number_after("ended", trainer.stdout) == 0
    assert_equal(weights(whole), weights(killed))
    assert not list(killed.glob("unfinished_*"))


def test_one_process_and_two_end_bit_identical(tmp_path, monkeypatch):
    script = tmp_path / "train.py"
    script.write_text(HARVEST)
    launcher = ("-m", "torch.distributed.run", "--nproc-per-node=2", "--standalone")
    with start(*launcher, str(script), str(tmp_path / "two"), "2") as two:
        monkeypatch.setattr(sys, "argv", [str(script), str(tmp_path / "one"), "1"])
        runpy.run_path(str(script))
    assert two.returncode == 0
    assert_equal(weights(tmp_path / "one"), weights(tmp_path / "two"))


def test_the_newest_state_is_found_and_older_ones_go(tmp_path):
    for position in ((0, 1), (0, 2), (1, 0)):
        save_state(tmp_path, position, {"a": 1}, {"x": torch.tensor(position)}, [3])
    position, tensors, rest = load_state(tmp_path, {"a": 1})
    assert position == (1, 0) and tensors["x"].tolist() == [1, 0] and rest == [3]
    assert len(list(tmp_path.iterdir())) == 1


def test_an_unfinished_run_of_other_settings_is_refused(tmp_path):
    save_state(tmp_path, (0, 1), {"a": 1}, {}, None)
    with pytest.raises(ValueError, match="holds an unfinished run of other settings: use another folder, or remove"):
        load_state(tmp_path, {"a": 2})


def test_an_unfinished_run_of_more_processes_is_refused(tmp_path):
    save_state(tmp_path, (0, 1), {"a": 1}, {}, None)
    (path,) = tmp_path.iterdir()
    path.rename(path.with_name(path.name.replace("0of1", "0of4")))
    with pytest.raises(
        ValueError, match="an unfinished run of 4 processes and this one has 1: start as many, or remove"
    ):
        load_state(tmp_path, {"a": 1})
