"""Running one notebook: its source is read, a copy of it is run by papermill, and its outcome returned."""

import ast
import asyncio
import errno
import hashlib
import importlib
import json
import logging
import os
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jupytext
import nbformat
import papermill
from ipykernel.kernelspec import get_kernel_dict
from jupyter_core.utils import ensure_event_loop
from nbclient.exceptions import DeadKernelError
from papermill.clientwrap import PapermillNotebookClient
from papermill.engines import Engine, papermill_engines

from notebooks import warm
from notebooks.account import Account
from sae_lib.cache.artefact import ROOT, cache_root, write_if_changed

METADATA = {
    "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
    "language_info": {"name": "python"},
}
SECONDS_TO_START = 300
"""A kernel that has not answered by then is given up. Many kernels that start at once on a slow disk take long."""


class Step(NamedTuple):
    """Where a running notebook is."""

    cell: int
    """Number of the cell that starts, from 1 on."""
    cells: int
    """Number of cells."""
    heading: str
    """The last heading before the cell; empty before the first."""
    pid: int
    """Process id of the kernel."""


class Outcome(NamedTuple):
    """The outcome of running one notebook."""

    name: str
    """As in "04_transfer"."""
    seconds: float
    """Time from the start of its kernel to the end."""
    failure: str
    """One sentence that says what failed and where to look; empty if nothing did."""
    account: Account
    """What it cost; zeros if its kernel died."""


def read_source(source: Path) -> nbformat.NotebookNode:
    """The notebook that a percent-format source describes, for this interpreter's kernel.

    A cell's id is a hash of its text, so that it stays the same however often and wherever the notebook is built.
    """
    notebook = jupytext.read(source, fmt="py:percent")
    seen = Counter()
    for cell in notebook.cells:
        text = f"{cell.cell_type}\n{cell.source}"
        cell["id"] = hashlib.sha256(f"{text}\n{seen[text]}".encode()).hexdigest()[:8]
        seen[text] += 1
    notebook.metadata = nbformat.from_dict(METADATA)
    notebook.nbformat, notebook.nbformat_minor = 4, 5
    return notebook


def parameters_of(notebook: nbformat.NotebookNode) -> dict[str, Any]:
    """Names and defaults in the cell tagged `parameters`: its lines are `name: type = value  # help`."""
    cells = [cell.source for cell in notebook.cells if "parameters" in cell.metadata.get("tags", ())]
    lines = [node for source in cells for node in ast.parse(source).body if isinstance(node, ast.AnnAssign)]
    return {line.target.id: ast.literal_eval(line.value) for line in lines}


def use_this_interpreter() -> None:
    """Make "python3" the kernel of this very interpreter and clone, whatever else is installed on the machine.

    Also builds matplotlib's font cache, which the first import on a machine otherwise announces in the notebook.
    """
    kernel = cache_root() / "jupyter" / "kernels" / "python3" / "kernel.json"
    # The kernel listens on this machine's loopback only; at a lower level it warns of that for each notebook.
    spec = get_kernel_dict(["--IPKernelApp.log_level=ERROR"]) | {"env": {"PYTHONPATH": str(ROOT)}}
    write_if_changed(kernel, json.dumps(spec, indent=1).encode())
    os.environ["JUPYTER_PATH"] = str(kernel.parents[2])
    logging.getLogger("matplotlib.font_manager").setLevel(logging.ERROR)
    importlib.import_module("matplotlib.font_manager")


def execute(
    source: Path, target: Path, parameters: Mapping[str, Any], on_cell: Callable[[Step], Any] | None = None
) -> Outcome:
    """Run a source as the notebook `target`, in the folder of `target`; `on_cell` is called as each cell starts.

    What `on_cell` raises ends the run, and nothing is written.

    Raises ValueError for a parameter that the notebook does not have, before anything runs.
    """
    from sae_lib.companion.run import refuse_unknown  # here: it imports diffusers, which `notebooks.served` never needs

    notebook = read_source(source)
    refuse_unknown(source.stem, set(parameters), parameters_of(notebook))
    return execute_notebook(source.stem, notebook, target, target.parent, parameters, on_cell)


def execute_notebook(
    name: str,
    notebook: nbformat.NotebookNode,
    target: Path,
    folder: Path,
    parameters: Mapping[str, Any] | None = None,
    on_cell: Callable[[Step], Any] | None = None,
) -> Outcome:
    """Run a notebook in a folder and write it, with its outputs, to `target`.

    While it runs it lies beside `target` under a hidden name. A notebook that fails gets its final name too, as the
    log. Any number of threads may do so at once; each has a kernel of its own, which is a process.
    """
    target, account = target.absolute(), {}
    unfinished = target.with_name(f".unfinished-{target.name}")
    start, failure = time.perf_counter(), ""
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        _run_by_papermill(notebook, unfinished, parameters, folder=folder, on_cell=on_cell or _ignore, account=account)
        unfinished.replace(target)
    except papermill.PapermillExecutionError as error:
        unfinished.replace(target)
        failure = f"{name} failed in cell {error.cell_index}: {_in_one_line(error)} (see {shown(target)})"
    except DeadKernelError:
        unfinished.replace(target)
        failure = f"{name} failed: its kernel died, most often for want of memory (see {shown(target)})"
    except RuntimeError as error:
        failure = f"{name} failed outside of its cells: {error}"
    except OSError as error:
        failure = f"{name} failed: {shown(target)} could not be written: {disk_error(error)}"
    finally:
        unfinished.unlink(missing_ok=True)
    return Outcome(name, time.perf_counter() - start, failure, Account(**account))


def disk_error(error: OSError) -> str:
    """What the system says about a file, and what to do if the disk is full."""
    advice = (
        ". Free some space and run it again: it takes up what the cache holds" if error.errno == errno.ENOSPC else ""
    )
    return f"{error.strerror or error}{advice}"


def shown(path: Path) -> str:
    """A path for a person to read: relative to the present folder if it is below that."""
    return str(path.relative_to(Path.cwd())) if path.is_relative_to(Path.cwd()) else str(path)


def _ignore(step: Step) -> None:
    pass


def _in_one_line(error: papermill.PapermillExecutionError, length: int = 300) -> str:
    first = next(iter(str(error.evalue).splitlines()), "")
    words = f"{error.ename}: {first}" if first else error.ename
    if f"[Errno {errno.ENOSPC}]" in words:
        words += ". Free some space and run it again"
    return words if len(words) <= length else f"{words[:length]}..."


def _run_by_papermill(notebook, target: Path, parameters: Mapping[str, Any] | None, **for_engine) -> None:
    # A folder given to papermill itself would become the working directory of all threads.
    settings = {"engine_name": "reporting", "kernel_name": "python3", "start_timeout": SECONDS_TO_START}
    quiet = {"progress_bar": False, "log_output": False}
    papermill.execute_notebook(notebook, target, dict(parameters or {}), **settings, **quiet, **for_engine)


class _Client(PapermillNotebookClient):
    """Papermill's client, which also reports each cell and keeps an account without a cell of its own."""

    starting = threading.Lock()  # two threads that look for free ports at once could find the same

    def __init__(self, nb_man, on_cell, account, **settings):
        super().__init__(nb_man, **settings)
        self.on_cell, self.account = on_cell, account

    def create_kernel_manager(self):
        manager = super().create_kernel_manager()
        manager.provisioner = warm.Provisioner(kernel_spec=manager.kernel_spec, parent=manager)
        return manager

    def start_new_kernel(self, **settings):
        from sae_lib.companion.run import KEEPS_FIGURES

        with self.starting:
            super().start_new_kernel(env=os.environ | {KEEPS_FIGURES: "1"}, **settings)

    def start_new_kernel_client(self, **settings):
        try:
            return super().start_new_kernel_client(**settings)
        except RuntimeError:  # it died at once: another program may have taken a port that was free when it was chosen
            self.km = self.create_kernel_manager()
            self.start_new_kernel()
            return super().start_new_kernel_client(**settings)

    def papermill_execute_cells(self):
        self._evaluate("start()")
        super().papermill_execute_cells()
        report = json.loads(ast.literal_eval(self._evaluate("report()")))
        self.account.update(report | {name: tuple(report[name]) for name in ("made", "reused")})

    def execute_cell(self, cell, cell_index, **settings):
        step = Step(cell_index + 1, len(self.nb.cells), self._heading(cell_index), self.km.provisioner.pid)
        self.on_cell(step)
        try:
            return super().execute_cell(cell, cell_index, **settings)
        except DeadKernelError:
            self.on_cell(step)  # raises if the listener ended the kernel
            raise

    def _heading(self, cell_index: int) -> str:
        prose = [cell.source for cell in self.nb.cells[: cell_index + 1] if cell.cell_type == "markdown"]
        lines = [line for source in prose for line in source.splitlines() if line.startswith("#")]
        return lines[-1].lstrip("# ") if lines else ""

    def _evaluate(self, call: str) -> str:
        """Calls a function of `notebooks.account` in the kernel, without a trace in the notebook; its value as text."""
        wanted = {"value": f"__import__('notebooks.account', fromlist=['account']).{call}"}
        message = self.kc.execute("", silent=True, store_history=False, user_expressions=wanted)
        value = self.wait_for_reply(message)["content"]["user_expressions"]["value"]
        if value["status"] == "error":
            raise RuntimeError(f"its account could not be taken: {value['ename']}: {value['evalue']}")
        return value["data"]["text/plain"]


class _ReportingEngine(Engine):
    """Papermill's own engine with our client."""

    @classmethod
    def execute_managed_notebook(
        cls, nb_man, kernel_name, *, folder, on_cell, account, start_timeout, log_output, **ignored
    ):
        settings = {"startup_timeout": start_timeout, "kernel_name": kernel_name, "log_output": log_output}
        settings["shutdown_kernel"] = "immediate"  # a graceful end interrupts the kernel first, which says so
        place = {"metadata": {"path": str(folder)}}
        _Client(nb_man, on_cell, account, resources=place, timeout=None, log=papermill.log.logger, **settings).execute()


papermill_engines.register("reporting", _ReportingEngine)
# What papermill and nbclient log about a notebook that failed stands in its Outcome.
logging.getLogger("papermill").setLevel(logging.CRITICAL)


def in_own_loop(work: Callable[..., Any], *arguments: Any) -> Any:
    """Call `work` in this thread with an event loop of its own, which is closed afterwards."""
    loop = ensure_event_loop()
    try:
        return work(*arguments)
    finally:
        loop.run_until_complete(loop.shutdown_asyncgens())
        loop.close()
        asyncio.set_event_loop(None)
