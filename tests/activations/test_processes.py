"""One run at a time writes into a folder: the lock of `alone`, and who takes it."""

import subprocess
import sys
import threading

import pytest
import torch

from sae_lib.activations.denoising import CallSettings
from sae_lib.activations.processes import alone
from sae_lib.activations.shards import write_shards
from sae_lib.activations.stream import TrainingStream
from sae_lib.training import loop, recipe
from sae_lib.training.config import SAEConfig
from sae_lib.training.recipe import TrainingRun

HOLD = """
import sys, time, filelock
lock = filelock.FileLock(sys.argv[1])
lock.acquire()
print(1, flush=True)
time.sleep(60)
"""
CONFIG = SAEConfig.pocket("mid.0", d_model=4, n_f=8, k=2, batch_size=8, init_batches=2, dead_vectors_threshold=8)


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "runs" / "first"


@pytest.fixture
def other_run(folder):
    """Another process that writes into the folder."""
    folder.mkdir(parents=True)
    with subprocess.Popen([sys.executable, "-c", HOLD, str(folder / ".lock")], stdout=subprocess.PIPE) as process:
        assert process.stdout.read(1)
        yield process
        process.kill()


def test_a_second_run_into_a_folder_is_refused_at_once_whatever_it_does(folder, other_run, pipe, monkeypatch):
    monkeypatch.setattr(recipe, "load_pipeline", None)  # the refusal comes before
    stream, run = TrainingStream(pipe, ["a red circle"], ["mid.0"], CallSettings(1, 0.0)), TrainingRun("smoke")
    monkeypatch.setattr(stream, "in_order", None)
    for work in (
        lambda: loop.train_saes([], [CONFIG], folder),
        lambda: write_shards(stream, folder),
        lambda: run.train(folder),
        lambda: run.harvest(folder),
    ):
        with pytest.raises(BlockingIOError, match="another run is writing into .*first: wait until it has ended"):
            work()


def test_the_lock_dies_with_its_process(folder, other_run):
    other_run.kill()
    other_run.wait()
    with alone(folder):
        pass
    assert not list(folder.iterdir())


def test_a_thread_may_enter_again_and_another_may_not(folder):
    refused = []

    def enter():
        try:
            with alone(folder):
                pass
        except BlockingIOError:
            refused.append(1)

    with alone(folder), alone(folder.parent / "first"):
        with alone(folder):
            pass
        other = threading.Thread(target=enter)
        other.start()
        other.join()
        assert refused == [1] and (folder / ".lock").is_file()
    enter()
    assert refused == [1] and not list(folder.iterdir())


def test_a_folder_that_cannot_be_written_is_found_before_a_portion_is_made(tmp_path, monkeypatch):
    monkeypatch.setattr(loop, "_Loop", None)
    (tmp_path / "file").touch()
    for name in ("file", "file/below"):
        with pytest.raises(OSError, match=r"nothing can be written into .*file.* \(.+\): use another folder"):
            loop.train_saes([], [CONFIG], tmp_path / name)
    monkeypatch.setattr("pathlib.Path.mkdir", lambda *_, **__: (_ for _ in ()).throw(PermissionError(13, "denied")))
    with pytest.raises(PermissionError, match=r"nothing can be written into .*new \(denied\): use another folder"):
        loop.train_saes([], [CONFIG], tmp_path / "new")


def test_disk_and_memory_that_a_training_will_need_are_asked_for_before_a_portion_is_made(tmp_path, monkeypatch):
    monkeypatch.setattr(loop, "_Loop", None)
    room = {"disk": 1e-9, "memory": 1e-9}
    monkeypatch.setattr("sae_lib.cache.space.shutil.disk_usage", lambda _: type("Usage", (), {"free": room["disk"]}))
    monkeypatch.setattr("sae_lib.cache.space._free", lambda _: room["memory"])
    with pytest.raises(OSError, match="the SAEs and their unfinished states need 2.02e-06 GB and .* free: free some"):
        loop.train_saes([], [CONFIG], tmp_path)  # 7 times 4 bytes of 2 * 4 * 8 weights and 8 biases
    room["disk"] = 1e9
    with pytest.raises(MemoryError, match="the SAEs with their gradients and Adam's moments need .*: train fewer"):
        loop.train_saes([], [CONFIG], tmp_path)


def test_a_finished_sae_is_loaded_beside_another_run(folder):
    stream = [{"mid.0": torch.randn(40, 4, generator=torch.Generator().manual_seed(0))}]
    loop.train_saes(stream, [CONFIG], folder)
    assert [path.name for path in folder.iterdir()] == [CONFIG.folder_name]
    (folder / ".lock").touch()
    with subprocess.Popen([sys.executable, "-c", HOLD, str(folder / ".lock")], stdout=subprocess.PIPE) as process:
        assert process.stdout.read(1)
        assert list(loop.train_saes(stream, [CONFIG], folder)) == [CONFIG]
        process.kill()
