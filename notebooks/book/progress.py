"""What a person sees while the book is made."""

import sys
import time
from collections.abc import Callable

from notebooks.progress import roughly

OnStep = Callable[[str, int, int, str], None]
"""Is told what is done, how much of it, of how much, and where."""
HEARTBEAT = 15.0
"""Seconds between two lines where each stays."""


def silent(what: str, done: int, total: int, where: str) -> None:
    """Says nothing."""


class Progress:
    """How far the book is: one line that changes on a terminal, anywhere else a line now and then."""

    def __init__(self) -> None:
        self._live, self._what = sys.stdout.isatty(), ""

    def tell(self, what: str, done: int, total: int, where: str = "") -> None:
        """Say that so much of something is done, where, and how long the rest will take."""
        now = time.monotonic()
        begins = what != self._what
        if begins:
            self.end()
            self._what, self._start, self._first, self._last = what, now, done, 0.0
        if not (self._live or begins or done == total or now - self._last >= HEARTBEAT):
            return
        line = f"{what}: {done} of {total}" + f", {where}" * bool(where)
        if self._first < done < total:
            line += f", {roughly((now - self._start) / (done - self._first) * (total - done))} left"
        print(f"\r\033[K{line}" if self._live else line, end="" if self._live else "\n", flush=True)
        self._last = now

    def end(self) -> None:
        """Leave the line that stands on a terminal."""
        if self._live and self._what:
            print(flush=True)
        self._what = ""
