"""notebooks/warm.py: a kernel that is forked is a kernel like any other, and ends when it should."""

import os
import signal
import subprocess
import sys
import time
from collections import defaultdict
from concurrent.futures import ThreadPoolExecutor

import nbformat
import psutil
import pytest

from notebooks import run, warm
from notebooks.execution import in_own_loop
from sae_lib.cache.artefact import ROOT, cache_root
from tests.notebooks.test_jobs import DRIVER, ENDLESS, is_gone, write_sources
from tests.notebooks.test_notebooks import nbval

pytestmark = [
    pytest.mark.usefixtures("empty_cache"),
    pytest.mark.skipif(not hasattr(os, "pidfd_open"), reason="kernels are forked on Linux only"),
]
STATE = """\
# %%
import os, signal, sys

os.getcwd(), sys.argv[0], len(sys.argv), sys.executable, sys.path, sys.flags, sys.orig_argv[:-3], sys.stdin.read()

# %%
__name__, sorted(globals()), os.environ["SAE_LIB_CACHE"], "JPY_PARENT_PID" in os.environ, os.getpgrp() == os.getpid()

# %%
handlers = signal.getsignal(signal.SIGCHLD), signal.getsignal(signal.SIGINT)
handlers, len(os.listdir("/proc/self/fd")), os.getsid(0) == os.getpid()

# %%
import torch

torch.manual_seed(0)
torch.get_num_threads(), torch.rand(3), (torch.ones(300, 300) @ torch.ones(300, 300)).sum(), os.system("exit 3")

# %%
import matplotlib.pyplot as plt

_ = plt.plot([1, 2])

# %%
import matplotlib
from tqdm.auto import tqdm

matplotlib.get_backend(), plt.get_fignums(), tqdm.__mro__, len(get_ipython().events.callbacks["post_execute"])

# %%
import diffusers, logging, transformers

diffusers.utils.logging.get_logger("diffusers.a").warning("told by diffusers")
transformers.utils.logging.get_logger("transformers.a").warning("told by transformers")
logging.getLogger("other").warning("told by another")

# %%
import ipywidgets

print(list(get_ipython().kernel.comm_manager.targets))
ipywidgets.IntSlider(2)

# %%
sorted((set(os.environ) | {"TORCHINDUCTOR_CACHE_DIR"}) - {"PYTEST_CURRENT_TEST"})
"""
DRAWS = """\
# %%
import random, os
import numpy, torch

print(os.getpid(), random.random(), numpy.random.rand(), torch.rand(1).item())

# %%
import builtins, time

assert not hasattr(builtins, "mark")
builtins.mark = time.sleep(1)
"""


@pytest.fixture(scope="module")
def warm_kernels(empty_cache):
    """Kernels are forked from the first on."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(warm.Provisioner, "several", True)
        patch.setattr(warm, "GPUS", ())
        yield


def execute(folder, text, on_cell=None):
    folder.mkdir(exist_ok=True)
    (folder / "00_a.py").write_text(text)
    done = run.execute(folder / "00_a.py", folder / "00_a.ipynb", {}, on_cell)
    return done, nbformat.read(folder / "00_a.ipynb", as_version=4)


def is_forked(pid):
    return psutil.Process(pid).ppid() == warm.Provisioner.server.process.pid


def outputs(notebook):
    """Pieces of each cell's outputs; of a picture its bytes. A kernel sends what is printed in
    pieces, now so and now so."""
    told = []
    for cell in notebook.cells:
        streams = defaultdict(str)
        for output in cell.outputs:
            streams[output.get("name", "")] += output.get("text", "")
        rich = [
            {kind: each for kind, each in o.data.items() if "widget" not in kind} for o in cell.outputs if "data" in o
        ]
        told.append((dict(streams), rich))
    return told


def test_a_forked_kernel_shows_what_any_other_shows(tmp_path, warm_kernels, monkeypatch):
    monkeypatch.setenv("SAE_LIB_CACHE", str(cache_root() / "of_later"))
    forked, shown = [], {}
    _, notebook = execute(tmp_path / "a", STATE, lambda step: forked.append(is_forked(step.pid)))
    shown["warm"] = outputs(notebook)
    monkeypatch.setattr(warm.Provisioner, "_fork", lambda *arguments: None)
    _, notebook = execute(tmp_path / "a", STATE, lambda step: forked.append(is_forked(step.pid)))
    shown["cold"] = outputs(notebook)
    assert forked == [True] * 9 + [False] * 9
    assert "image/png" in shown["cold"][4][1][0] and "of_later" in str(shown["cold"][1])
    for ours, usual in zip(shown["warm"], shown["cold"], strict=True):
        assert ours == usual


def test_two_kernels_at_once_share_no_state_and_draw_other_numbers(tmp_path, warm_kernels):
    forked = []
    jobs = [tmp_path / "a", tmp_path / "b"]
    with ThreadPoolExecutor(2) as threads:
        work = [
            threads.submit(in_own_loop, execute, folder, DRAWS, lambda step: forked.append(is_forked(step.pid)))
            for folder in jobs
        ]
    (first, a), (second, b) = (each.result() for each in work)
    assert first.failure == second.failure == "" and forked == [True] * 4
    drawn = [outputs(notebook)[0][0]["stdout"].split() for notebook in (a, b)]
    assert all(one != other for one, other in zip(*drawn, strict=True))


def test_a_forked_kernel_that_is_killed_is_noticed(tmp_path, warm_kernels):
    done, _ = execute(tmp_path / "a", "# %%\nimport os, signal\n\nos.kill(os.getpid(), signal.SIGKILL)\n")
    assert "its kernel died" in done.failure


def test_nbval_forks_its_kernel_from_the_same_server(tmp_path, warm_kernels):
    program = 'print("notebooks.warm" in Path(f"/proc/{os.getppid()}/cmdline").read_text())'
    text = f'# %% tags=["nbval-check-output"]\nimport os\nfrom pathlib import Path\n\n{program}\n'
    _, notebook = execute(tmp_path / "a", text)
    assert notebook.cells[0].outputs[0].text == "True\n"
    done = nbval(tmp_path / "a" / "00_a.ipynb", tmp_path / "cache")
    assert done.returncode == 0, done.stdout


def test_a_kernel_with_another_number_of_threads_starts_as_usual(tmp_path, warm_kernels, monkeypatch):
    execute(tmp_path / "a", "# %%\n1\n")
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    forked, text = [], '# %%\nimport os\n\nprint(os.environ["OMP_NUM_THREADS"])\n'
    _, notebook = execute(tmp_path / "a", text, lambda step: forked.append(is_forked(step.pid)))
    assert notebook.cells[0].outputs[0].text == "3\n" and forked == [False]


def test_kernels_start_as_usual_where_there_is_a_gpu(tmp_path, warm_kernels, monkeypatch):
    monkeypatch.setattr(warm, "GPUS", ("/dev/no_such", str(tmp_path)))
    parents = []
    execute(tmp_path / "a", "# %%\n1\n", lambda step: parents.append(psutil.Process(step.pid).ppid()))
    assert parents == [os.getpid()]


def test_kernels_start_as_usual_when_the_server_has_died(tmp_path, warm_kernels):
    execute(tmp_path / "a", "# %%\n1\n")
    warm.Provisioner.server.process.kill()
    warm.Provisioner.server.process.wait()
    try:
        assert execute(tmp_path / "a", "# %%\n1\n")[0].failure == ""
    finally:
        warm.Provisioner.server = None


def test_the_first_kernel_of_a_process_starts_no_server(tmp_path, empty_cache, monkeypatch):
    monkeypatch.setattr(warm.Provisioner, "several", False)
    monkeypatch.setattr(warm.Provisioner, "server", None)
    assert execute(tmp_path / "a", "# %%\n1\n")[0].failure == ""
    assert warm.Provisioner.server is None and warm.Provisioner.several


@pytest.mark.parametrize(("number", "patience"), [(signal.SIGINT, 0.0), (signal.SIGKILL, 5.0)])
def test_neither_server_nor_kernel_outlives_a_run_that_is_interrupted_or_killed(tmp_path, number, patience):
    write_sources(tmp_path / "src", **{"01_endless": ENDLESS})
    environment = os.environ | {"SAE_LIB_CACHE": str(tmp_path / "cache"), "PYTHONPATH": str(ROOT)}
    program = f"from notebooks import warm\nwarm.Provisioner.several, warm.GPUS = True, ()\n{DRIVER}"
    command = [sys.executable, "-c", program, str(tmp_path / "src"), "reproduce"]
    pid = tmp_path / "cache/reproduce/pid"
    with subprocess.Popen(command, env=environment, cwd=tmp_path, stdout=subprocess.DEVNULL) as process:
        while not (pid.is_file() and pid.read_text()):
            assert process.poll() is None
            time.sleep(0.1)
        kernel = psutil.Process(int(pid.read_text()))
        server = kernel.parent()
        assert server.ppid() == process.pid
        process.send_signal(number)
    assert is_gone(kernel.pid, patience) and is_gone(server.pid, patience)
