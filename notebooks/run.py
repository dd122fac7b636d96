"""Run the notebooks: `python notebooks/run.py reproduce` and `python notebooks/run.py build`.

reproduce [NAME ...] [-p PARAMETER VALUE]   run copies below .cache/reproduce/, write figures/, end with a table
build [NAME ...]                            make notebooks/NN_name.ipynb, executed, from notebooks/src/NN_name.py

Both run several notebooks at once: one per core, or `--jobs N`.
"""

import argparse
import base64
import json
import os
import signal
import sys
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NoReturn

import nbformat
import yaml
from filelock import FileLock, Timeout
from nbconvert.preprocessors import CoalesceStreamsPreprocessor

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # as a script it is not run from the clone's root

from notebooks import costs, machine
from notebooks.artefacts import index
from notebooks.execution import (
    Outcome,
    Step,
    disk_error,
    execute,
    parameters_of,
    read_source,
    use_this_interpreter,
)
from notebooks.jobs import Schedule, Stopped, count_jobs, most_at_once
from notebooks.progress import clock, lines_for
from notebooks.readmes import write_readmes
from notebooks.summary import summary
from sae_lib.cache.artefact import ROOT, cache_root, write_if_changed
from sae_lib.companion.figures import with_palette
from sae_lib.companion.run import Run, refuse_unknown

FOLDER = Path(__file__).resolve().parent
SOURCES = FOLDER / "src"
MAX_BYTES = 1_000_000
"""The largest size of a stored notebook; GitHub shows nothing of a larger one."""


def find_sources(names: Sequence[str] = (), folder: Path = SOURCES) -> list[Path]:
    """Sources of the numbered notebooks, all or those named ("04_transfer"), in order.

    Raises ValueError for an unknown name.
    """
    sources = {path.stem: path for path in sorted(folder.glob("[0-9][0-9]_*.py"))}
    if unknown := sorted(set(names) - set(sources)):
        raise ValueError(f"no notebook {', '.join(unknown)}; there are {', '.join(sources) or 'none yet'}")
    return [path for stem, path in sources.items() if not names or stem in names]


def reproduce(
    sources: Sequence[Path], target_folder: Path, parameters: Mapping[str, Any], jobs: str | None = None
) -> list[str]:
    """Run copies of the notebooks and print a table of what they made; returns the failures, one sentence per failure.

    Raises ValueError, before anything runs, for a parameter that one of them does not have and for
    `jobs` that are none.
    """
    runs = {source.stem: _run_of(source, parameters) for source in sources}
    before = time.time()
    outcomes, at_once = run_all(
        sources,
        _scale_of(parameters),
        jobs,
        lambda source, on_cell: execute(source, target_folder / f"{source.stem}.ipynb", parameters, on_cell),
    )
    print("", *summary(outcomes, runs, before, target_folder), sep="\n")
    print(
        f"{len(outcomes)} {'notebook' if len(outcomes) == 1 else 'notebooks'} in {clock(time.time() - before)}, "
        f"{at_once} at once.",
        flush=True,
    )
    if set(parameters) <= {"scale"}:  # with other parameters a notebook takes another time
        costs.keep(_scale_of(parameters), outcomes)
    return [outcome.failure for outcome in outcomes if outcome.failure]


def _run_of(source: Path, parameters: Mapping[str, Any]) -> Run:
    declared = parameters_of(read_source(source))
    refuse_unknown(source.stem, set(parameters), declared)
    return Run(source.stem, declared | parameters)


def _scale_of(parameters: Mapping[str, Any]) -> str:
    return parameters.get("scale", "pocket")


def run_all(
    sources: Sequence[Path], scale: str, jobs: str | None, run_one: Callable[..., Outcome]
) -> tuple[list[Outcome], int]:
    """Run notebooks, several at once, and show how it goes.

    Returns the outcomes in the order of `sources`, and how many notebooks ran at once at most. `run_one(source,
    on_cell)` runs one. Raises ValueError for `jobs` that are none, jobs.Stopped when interrupted.
    """
    known = costs.known(scale)
    expected = {source.stem: known.get(source.stem, costs.Cost()) for source in sources}
    at_once = _at_once(count_jobs(jobs, scale), expected.values())
    by_name = {source.stem: source for source in sources}
    with lines_for(len(sources)) as show:
        done = Schedule(expected, at_once, show, lambda name, on_cell: run_one(by_name[name], on_cell)).run()
    return [done[source.stem] for source in sources], at_once


def _at_once(asked: int, expected: Collection[costs.Cost]) -> int:
    """How many notebooks run at once: as many as asked, at most all; fewer, with a sentence, if
    memory holds no more."""
    peaks, free = [cost.peak_gb for cost in expected], machine.free_gb()
    wanted = max(1, min(asked, len(peaks)))
    at_once = min(wanted, most_at_once(free, peaks))
    if at_once < wanted:
        many = "1 notebook" if at_once == 1 else f"{at_once} notebooks"
        room = f"{free:.1f} GB free, up to {max(peaks):.1f} GB each"
        print(f"JOBS={asked}: memory allows {many} at once ({room}); running {at_once}", flush=True)
    return at_once


def build(sources: Sequence[Path], target_folder: Path, jobs: str | None = None) -> list[str]:
    """Make the committed notebooks: executed, without anything that differs between two equal runs.

    Returns the failures; a notebook that fails or is larger than MAX_BYTES leaves the one that was there.
    Raises ValueError for `jobs` that are none.
    """
    there_before = {path.name for path in cache_root().glob("artefacts/*")}
    outcomes, _ = run_all(sources, "pocket", jobs, lambda source, on_cell: build_one(source, target_folder, on_cell))
    costs.keep("pocket", outcomes)
    if {source.stem for source in find_sources()} <= {outcome.name for outcome in outcomes}:
        costs.commit(outcomes, there_before)
    failures = [outcome.failure for outcome in outcomes if outcome.failure]
    print(*failures, sep="\n")
    return failures


def build_one(source: Path, target_folder: Path, on_cell: Callable[[Step], Any] | None = None) -> Outcome:
    """Execute a notebook in the cache and store it in a folder, if it did not fail and is not too large."""
    executed = cache_root() / "build" / f"{source.stem}.ipynb"
    outcome = execute(source, executed, {}, on_cell)
    if outcome.failure:
        return outcome
    content = nbformat.writes(without_traces(nbformat.read(executed, as_version=4))).encode()
    if len(content) > MAX_BYTES:
        too_large = f"{source.stem} is {len(content):,} bytes, the limit is {MAX_BYTES:,}: draw less in it"
        return outcome._replace(failure=too_large)
    write_if_changed(target_folder / f"{source.stem}.ipynb", content + b"\n")
    return outcome


def write_index(path: Path = ROOT / "figures" / "index.json") -> None:
    """Every artefact with its status, scales and verdicts."""
    write_if_changed(path, (json.dumps(index(), indent=1) + "\n").encode())


def without_traces(notebook: nbformat.NotebookNode) -> nbformat.NotebookNode:
    """The executed notebook without timings, versions, widgets and papermill's notes; its pictures in 256 colours.

    A widget's text stays: without a kernel, its view would show an error message.
    """
    # A kernel sends what is printed in pieces, which differ from run to run.
    notebook, _ = CoalesceStreamsPreprocessor().preprocess(notebook, {})
    notebook.metadata = {key: notebook.metadata[key] for key in ("kernelspec", "language_info")}
    notebook.metadata["language_info"] = {"name": "python"}
    for cell in notebook.cells:
        cell.metadata = {"tags": cell.metadata["tags"]} if cell.metadata.get("tags") else {}
        for output in cell.get("outputs", []):
            output.get("data", {}).pop("application/vnd.jupyter.widget-view+json", None)
            if "image/png" in output.get("data", {}):
                png = with_palette(base64.b64decode(output["data"]["image/png"]))
                output["data"]["image/png"] = base64.b64encode(png).decode() + "\n"
    return notebook


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; 1 if a notebook failed, 2 if the command itself is wrong, 130 if it was interrupted."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("command", choices=["reproduce", "build"])
    parser.add_argument(
        "names", nargs="*", metavar="NAME", help='notebooks such as "04_transfer"; all if none is given'
    )
    parser.add_argument("-p", nargs=2, action="append", default=[], metavar=("PARAMETER", "VALUE"))
    parser.add_argument("--jobs", metavar="N", help="how many notebooks run at once; by default one per core")
    options = parser.parse_args(arguments)
    if options.command == "build" and options.p:
        parser.error("committed notebooks are built with their default parameters: -p goes with reproduce")
    try:
        with alone(options.command), ended_by_signals():
            return bool(run_command(options))
    except ValueError as error:
        print(error, file=sys.stderr)
        return 2
    except KeyboardInterrupt as error:
        count = error.done if isinstance(error, Stopped) else 0
        print(
            f"Stopped: {count} {'notebook was' if count == 1 else 'notebooks were'} done. "
            "The same command takes up what the cache holds.",
            file=sys.stderr,
        )
        return 130
    except OSError as error:
        print(f"{error.filename or 'A file'} could not be written: {disk_error(error)}", file=sys.stderr)
        return 1


def run_command(options: argparse.Namespace) -> list[str]:
    """Does what the command line asks for; returns the failures, one sentence per failure.

    Raises ValueError for what it must not ask for.
    """
    sources = find_sources(options.names)
    use_this_interpreter()
    if options.command == "build":
        failures = build(sources, FOLDER, options.jobs)
        write_index()
        write_readmes()
        return failures
    parameters = {name: yaml.safe_load(value) for name, value in options.p}
    return reproduce(sources, cache_root() / "reproduce", parameters, options.jobs)


@contextmanager
def alone(command: str) -> Iterator[None]:
    """Only one such command at a time uses a cache, and with it a clone's figures and notebooks.

    Raises ValueError if another one runs.
    """
    about = cache_root() / "running.json"
    about.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(about.with_suffix(".lock"), timeout=0)
    try:
        lock.acquire()
    except Timeout as error:
        other = json.loads(about.read_text()) if about.is_file() else {}
        raise ValueError(
            f"`{other.get('command', 'notebooks/run.py')}` runs here already, "
            f"as process {other.get('pid', 'unknown')}, since {other.get('since', 'just now')}: wait for its end, "
            f"or end it with `kill {other.get('pid', 'PID')}`"
        ) from error
    words = {"command": f"notebooks/run.py {command}", "pid": os.getpid(), "since": time.strftime("%H:%M:%S")}
    try:
        write_if_changed(about, json.dumps(words).encode())
        yield
    finally:
        about.unlink(missing_ok=True)
        lock.release()


@contextmanager
def ended_by_signals() -> Iterator[None]:
    """Within it Ctrl-C and SIGTERM raise KeyboardInterrupt, once, even where the parent process ignores them."""

    def interrupt(number, frame):
        for kind in (signal.SIGINT, signal.SIGTERM):
            signal.signal(kind, signal.SIG_IGN)
        raise KeyboardInterrupt

    before = {kind: signal.signal(kind, interrupt) for kind in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for kind, handler in before.items():
            signal.signal(kind, handler)


def leave(status: int) -> NoReturn:
    """End the process; a thread that could not be ended in time does not keep it."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


if __name__ == "__main__":
    leave(main())
