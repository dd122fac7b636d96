"""What a person sees while notebooks run: live lines on a terminal, plain lines anywhere else."""

import sys
import time
from collections.abc import Collection

from rich.console import Console, Group
from rich.live import Live
from rich.text import Text

from notebooks.execution import Outcome
from notebooks.jobs import Running

HEARTBEAT = 60.0
"""Seconds without a line after which plain lines say where the run is."""


def clock(seconds: float) -> str:
    """A time as "3:12" or "1:02:03"."""
    minutes, seconds = divmod(round(seconds), 60)
    return f"{minutes}:{seconds:02}" if minutes < 60 else f"{minutes // 60}:{minutes % 60:02}:{seconds:02}"


def roughly(seconds: float) -> str:
    """A time that is an estimate: "some 9 min", "less than a minute"."""
    minutes = round(seconds / 60)
    if minutes < 2:
        return "about a minute" if minutes else "less than a minute"
    return f"some {minutes} min" if minutes < 100 else f"some {minutes / 60:.0f} h"


def place(job: Running) -> str:
    """A running notebook with its cell: "04_transfer 12/57"."""
    return f"{job.name} {job.step.cell}/{job.step.cells}" if job.step else f"{job.name} starting"


class PlainLines:
    """One line when a notebook starts, one when it ends, and one per quiet minute."""

    def __init__(self, total: int):
        self.total, self.last = total, time.monotonic()

    def __enter__(self):
        return self

    def __exit__(self, *error):
        pass

    def started(self, name: str) -> None:
        """Say that a notebook starts."""
        self._print(f"{name} ...")

    def ended(self, outcome: Outcome, done: int, left: float) -> None:
        """Say that a notebook ended, and how."""
        how = "FAILED after" if outcome.failure else "done in"
        self._print(f"{outcome.name} {how} {clock(outcome.seconds)}, {self._overall(done, left)}")

    def tick(self, running: Collection[Running], done: int, left: float) -> None:
        """Say where the run is, if there was no line for long."""
        if time.monotonic() - self.last >= HEARTBEAT:
            self._print(f"running {', '.join(map(place, running))}; {self._overall(done, left)}")

    def _overall(self, done: int, left: float) -> str:
        return f"{done} of {self.total}" + (f", {roughly(left)} left" if done < self.total else "")

    def _print(self, line: str) -> None:
        self.last = time.monotonic()
        print(line, flush=True)


class LiveLines(PlainLines):
    """A line per running notebook and one for all, drawn again and again; above them a line for each that ended."""

    def __init__(self, total: int):
        super().__init__(total)
        self.live = Live(console=Console(highlight=False), auto_refresh=False, transient=True)

    def __enter__(self):
        self.live.start()
        return self

    def __exit__(self, *error):
        self.live.stop()

    def started(self, name: str) -> None:
        """Say nothing: the notebook's line appears by itself."""

    def tick(self, running: Collection[Running], done: int, left: float) -> None:
        """Draw the lines."""
        lines = [self._line(job) for job in running] + [f"done {self._overall(done, left)}"]
        texts = [Text(line, no_wrap=True, overflow="ellipsis") for line in lines]
        self.live.update(Group(*texts), refresh=True)

    def _line(self, job: Running) -> str:
        cell = f"{job.step.cell:>3}/{job.step.cells:<3} {job.step.heading}" if job.step else "starting"
        return f"{job.name:<26} {clock(job.seconds):>8}  {cell}"

    def _print(self, line: str) -> None:
        self.live.console.print(line, markup=False)


def lines_for(total: int) -> PlainLines:
    """The lines that fit where standard output goes, for a run of `total` notebooks."""
    return LiveLines(total) if sys.stdout.isatty() and not Console().is_dumb_terminal else PlainLines(total)
