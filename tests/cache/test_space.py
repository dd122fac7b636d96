"""The same refusals on Linux, macOS and Windows: memory is what is available, asked for in a way that each has."""

import ast
import os
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

import sae_lib
from sae_lib.activations.denoising import CallSettings
from sae_lib.activations.stream import TrainingStream
from sae_lib.cache import space
from sae_lib.models.pipelines import load_pipeline
from sae_lib.training.trainer import peak_memory_gb

LINUX_ONLY = {
    "os": {
        *("sysconf", "fork", "getuid", "geteuid", "uname", "sched_getaffinity", "pidfd_open", "posix_fallocate"),
        *("getloadavg", "statvfs", "killpg", "setsid", "mkfifo", "O_DIRECTORY"),
    },
    "signal": {"SIGKILL", "SIGALRM", "SIGCHLD", "SIGHUP", "alarm", "pidfd_send_signal"},
}
"""What Windows, or Windows and macOS, do not have."""
LINUX_MODULES = {"resource", "fcntl", "pwd", "grp", "termios"}


def windows(monkeypatch):
    monkeypatch.setattr(sys, "platform", "win32")
    monkeypatch.delattr(os, "sysconf")


def macos(monkeypatch):
    real = os.sysconf

    def sysconf(name):
        if name == "SC_AVPHYS_PAGES":
            raise ValueError("unrecognized configuration name")
        return real(name)

    monkeypatch.setattr(sys, "platform", "darwin")
    monkeypatch.setattr(os, "sysconf", sysconf)


@pytest.mark.parametrize("become", [windows, macos])
def test_a_pipeline_is_built_and_its_vectors_are_streamed(monkeypatch, become):
    become(monkeypatch)
    pipe = load_pipeline("turbo", device="cpu")
    stream = TrainingStream(pipe, ["a red heart"] * 4, ["mid.0"], CallSettings(1, 0.0))
    assert stream[0]["mid.0"].shape[1] == 128
    load_pipeline("turbo", "sdxl", "random/16", "cpu")


@pytest.mark.parametrize(
    ("platform", "answer"), [("win32", 0.5), ("darwin", 0.25), ("linux", 0.256)]
)  # 250,000 are bytes on macOS and kilobytes on Linux
def test_the_most_memory_held_is_known_on_each_platform(monkeypatch, platform, answer):
    kilo = 250_000_000 if platform == "darwin" else 250_000
    usage = SimpleNamespace(getrusage=lambda _: SimpleNamespace(ru_maxrss=kilo), RUSAGE_SELF=0)
    monkeypatch.setattr(sys, "platform", platform)
    monkeypatch.setitem(sys.modules, "resource", None if platform == "win32" else usage)
    monkeypatch.setattr(
        "sae_lib.training.trainer.psutil.Process",
        lambda: SimpleNamespace(memory_info=lambda: SimpleNamespace(peak_wset=500_000_000)),
    )
    assert peak_memory_gb(torch.device("cpu")) == answer


def test_what_the_system_keeps_of_files_is_not_counted_as_used(monkeypatch):
    memory = SimpleNamespace(available=20_000_000_000, total=32_000_000_000, free=1)
    monkeypatch.setattr(space.psutil, "virtual_memory", lambda: memory)
    space.refuse_without_memory(19.0, torch.device("cpu"), "this needs", "none")
    space.refuse_without_memory(31.0, torch.device("mps"), "this needs", "none", installed=True)
    with pytest.raises(MemoryError, match="this needs 21.0 GB and mps has 20.0 GB free: none"):
        space.refuse_without_memory(21.0, torch.device("mps"), "this needs", "none")


def test_the_library_calls_nothing_that_only_linux_has():
    """Modules that only Linux has may be imported inside a function that asks for the platform first."""
    root = Path(sae_lib.__file__).parent
    found = []
    for path in sorted(root.rglob("*.py")):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        for node in ast.walk(tree):
            if isinstance(node, ast.Attribute) and node.attr in LINUX_ONLY.get(getattr(node.value, "id", ""), ()):
                found.append(f"{path.relative_to(root)}: {node.value.id}.{node.attr}")
        for node in tree.body:
            names = [alias.name for alias in getattr(node, "names", [])] + [getattr(node, "module", None)]
            found += [f"{path.relative_to(root)}: {name}" for name in names if name in LINUX_MODULES]
    assert not found
