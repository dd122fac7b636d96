"""`make reproduce`, killed with SIGKILL at random moments and started again each time, beside a run left alone.

python -m tests.notebooks.killed --scale smoke --kills 5 --seed 0 03_train_saes 08_writing_with_features
python -m tests.notebooks.killed --scale pocket     # in a fresh clone: all notebooks, compared with what git has

At smoke scale the run left alone comes first, with a cache of its own, and says how long a run takes. At pocket scale
the committed records and notebooks take its place, and `notebooks/costs.json` says how long. The kills hit the main
process alone and its whole process group in turn. The status is 0 if the last run ended well, every record and every
cell is as in the run left alone, and no process outlived a killed run by more than PATIENCE.
"""

import argparse
import functools
import json
import operator
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import nbformat
import psutil

from notebooks import costs, run
from notebooks.comparison import committed_records
from notebooks.jobs import count_jobs, in_order, seconds_left
from sae_lib.cache.artefact import ROOT, cache_root

PATIENCE = 10.0
"""Seconds within which everything that a killed run had started must be gone."""


class Kill(NamedTuple):
    """One SIGKILL."""

    seconds: float
    """Since the start of the run that it hit."""
    group: bool
    """Whether it hit the whole process group, or the main process alone."""
    running: str
    """What had been started, and what was half-made."""
    outlived: Future[float]
    """Seconds until the last process of that run was gone."""


def pauses(length: float, kills: int, seed: int) -> list[float]:
    """Seconds from each start to the kill: their sum is a moment within a run of that length, in seconds."""
    draws = random.Random(seed)
    moments = sorted(draws.uniform(0, length) for _ in range(kills))
    return [moment - before for before, moment in zip([0.0, *moments], moments, strict=False)]


def run_killed(
    command: Sequence[str], cache: Path, moments: Sequence[Callable[[float], bool]], log: Path
) -> tuple[list[Kill], int]:
    """Start a command with a cache, kill it at each of the moments and start it again at once; the last one may end.

    moments: each is asked again and again, with the seconds since the start, until it says that now is the time.
    Returns the kills, fewer than `moments` if a run ended before its moment, and the status of the last run. What the
    runs print goes into `log`.
    """
    kills: list[Kill] = []
    settings = {"cwd": ROOT, "stderr": subprocess.STDOUT, "start_new_session": True}
    settings["env"] = os.environ | {"SAE_LIB_CACHE": str(cache), "PYTHONPATH": str(ROOT)}
    with log.open("a") as printed, ThreadPoolExecutor() as watching:
        for moment in [*moments, lambda seconds: False]:
            begun, at = time.monotonic(), log.stat().st_size
            process = subprocess.Popen(command, stdout=printed, **settings)
            while not moment(time.monotonic() - begun):
                if process.poll() is not None:
                    return kills, process.returncode
                time.sleep(0.02)
            family = psutil.Process(process.pid).children(recursive=True)
            group = len(kills) % 2 == 1
            (os.killpg if group else os.kill)(process.pid, signal.SIGKILL)
            end = time.monotonic()
            process.wait()
            words = _running(log.read_text()[at:], cache)
            kills.append(Kill(end - begun, group, words, watching.submit(_outlived, family, end)))
    raise AssertionError("the last run is left alone")


def _outlived(family: Sequence[psutil.Process], end: float) -> float:
    while time.monotonic() - end < 6 * PATIENCE and any(map(_lives, family)):
        time.sleep(0.02)
    return time.monotonic() - end


def _lives(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def _running(printed: str, cache: Path) -> str:
    """The notebooks that had started and not ended, each with its cell, and the artefacts that were half-made."""
    lines = [line.split() for line in printed.splitlines()]
    started = [line[0] for line in lines if line[1:] == ["..."]]
    ended = [line[0] for line in lines if len(line) > 1 and line[1] in ("done", "FAILED")]
    notebooks = [f"{name}{_cell(cache / 'reproduce' / f'.unfinished-{name}.ipynb')}" for name in started]
    notebooks = [words for name, words in zip(started, notebooks, strict=True) if name not in ended]
    making = [path.name.removeprefix(".unfinished-") for path in cache.glob("artefacts/.unfinished-*") if path.is_dir()]
    words = ", ".join(notebooks) or ("between notebooks" if started else "its imports")
    return words + (f"; making {', '.join(making)}" if making else "")


def _cell(copy: Path) -> str:
    try:
        cells = json.loads(copy.read_text())["cells"]
    except (OSError, ValueError):
        return ""
    done = [cell["metadata"].get("papermill", {}).get("status") == "completed" for cell in cells]
    return f" {sum(done)}/{len(cells)}"


def records(folder: Path, since: float = 0.0) -> dict[str, Any]:
    """The results of all records below a folder that were written since a time, by their path in it."""
    files = sorted(folder.rglob("*.json"))
    return {
        str(path.relative_to(folder)): json.loads(path.read_text())["result"]
        for path in files
        if path.stat().st_mtime >= since
    }


def outputs(notebook: Path, stored: bool = False) -> list[str]:
    """What each cell of an executed notebook shows, as the committed notebooks hold it."""
    executed = nbformat.read(notebook, as_version=4)
    cells = (executed if stored else run.without_traces(executed)).cells
    return [json.dumps(cell.get("outputs", []), sort_keys=True) for cell in cells]


def differences(wanted: Mapping[str, Any], got: Mapping[str, Any]) -> list[str]:
    """Names that one of the two lacks, or that hold another value."""
    return sorted(name for name in {*wanted, *got} if name not in wanted or wanted[name] != got.get(name))


def leftovers(*folders: Path) -> Iterator[Path]:
    """Files and folders under hidden names, which no killed run may leave when the next has ended."""
    for folder in folders:
        yield from (path for path in folder.rglob(".*") if path.suffix != ".lock")


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME", help="notebooks; all if none is given")
    parser.add_argument("--scale", choices=("smoke", "pocket"), default="smoke")
    parser.add_argument("--kills", type=int, default=5)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--jobs")
    parser.add_argument("--length", type=float, help="seconds that a run left alone takes; measured if it is not given")
    options = parser.parse_args(arguments)
    names = [source.stem for source in run.find_sources(options.names)]
    folder = cache_root() / "killed"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    command = [sys.executable, "notebooks/run.py", "reproduce", *names]
    command += ["-p", "scale", "smoke"] if options.scale == "smoke" else []
    command += ["--jobs", options.jobs] if options.jobs else []
    alone, killed = folder / "alone", folder / "cache"
    if options.scale == "smoke":
        begun = time.monotonic()
        _, status = run_killed(command, alone, [], folder / "alone.log")
        length = options.length or time.monotonic() - begun
        print(f"left alone: status {status} after {time.monotonic() - begun:.0f} s", flush=True)
    else:
        known = costs.committed("pocket")
        known = {name: known[name] for name in names}
        jobs = count_jobs(options.jobs, "pocket")
        length = options.length or seconds_left([], [known[name].seconds for name in in_order(known)], jobs)
    since, waits = time.time() - 1, pauses(length, options.kills, options.seed)
    moments = [functools.partial(operator.le, wait) for wait in waits]
    kills, status = run_killed(command, killed, moments, folder / "killed.log")
    for number, kill in enumerate(kills, 1):
        where = "process group" if kill.group else "main process"
        print(f"kill {number} after {kill.seconds:6.1f} s, {where}: {kill.running}; ", end="")
        print(f"its last process was gone {kill.outlived.result():.2f} s later")
    print(f"the last run: status {status}; what all of them printed is in {folder / 'killed.log'}")

    if options.scale == "smoke":
        wanted, got = (records(cache / "smoke" / "figures") for cache in (alone, killed))
        cells = {name: outputs(alone / "reproduce" / f"{name}.ipynb") for name in names}
    else:
        wanted = {f"{n}/{f}.json": record["result"] for n in names for f, record in committed_records(n).items()}
        got = {name: result for name, result in records(ROOT / "figures", since).items() if name[:2].isdigit()}
        cells = {name: outputs(ROOT / "notebooks" / f"{name}.ipynb", stored=True) for name in names}
    unequal = differences(wanted, got)
    print(f"records: {len(wanted)} compared, {len(wanted) - len(unequal)} equal", *unequal, sep="\n  ")
    again = {name: outputs(killed / "reproduce" / f"{name}.ipynb") for name in names}
    count = {name: sum(a != b for a, b in zip(cells[name], again[name], strict=True)) for name in names}
    total, other = sum(map(len, cells.values())), sum(count.values())
    print(f"cells: {total} compared, {total - other} equal", *(f"{n}: {c}" for n, c in count.items() if c), sep="\n  ")
    left = sorted(map(str, leftovers(killed, ROOT / "figures")))
    print(f"left under hidden names: {len(left)}", *left, sep="\n  ")
    late = [kill for kill in kills if kill.outlived.result() > PATIENCE]
    return int(bool(status or unequal or other or left or late or len(kills) < options.kills))


if __name__ == "__main__":
    sys.exit(main())
