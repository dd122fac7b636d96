"""Several notebooks at once: which comes next, whether there is memory for it, how long the rest will take."""

import functools
import heapq
import queue
import threading
import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Protocol

from notebooks import machine
from notebooks.costs import Cost
from notebooks.execution import Outcome, Step, in_own_loop

BEFORE = {"03_train_saes": "04_transfer"}
"""Notebooks that start before others, since they first make what the others need later.

03 begins with the one-step SAEs; 04 trains its own SAEs first. Whichever needs an artefact first makes it, and the
other one waits for it.
"""
LAST = "99_"
"""How the name of the notebook starts that reads the figures of all others, and therefore runs last."""


class Show(Protocol):
    """What a person sees while a run goes on."""

    def started(self, name: str) -> None: ...

    def ended(self, outcome: Outcome, done: int, left: float) -> None: ...

    def tick(self, running: Collection["Running"], done: int, left: float) -> None: ...


@dataclass
class Running:
    """A notebook that runs in a thread of this process, with its kernel."""

    name: str
    cost: Cost
    step: Step | None = None
    """The cell that it is at; None before the first."""
    start: float = field(default_factory=time.monotonic)

    @property
    def seconds(self) -> float:
        """Seconds since its start."""
        return time.monotonic() - self.start


class Stopped(KeyboardInterrupt):
    """Ctrl-C or a signal ended the run; `done` notebooks were done by then."""

    def __init__(self, done: int):
        super().__init__(done)
        self.done = done


def count_jobs(words: str | None, scale: str) -> int:
    """How many notebooks may run at once: what `--jobs` says, by default one per core, at sdxl scale one per machine.

    Raises ValueError for anything but a whole number from 1 up.
    """
    default = 1 if scale == "sdxl" else machine.cores()  # at sdxl scale one notebook wants the whole GPU
    if words is None:
        return default
    if not (words.isascii() and words.isdigit() and int(words)):
        raise ValueError(
            f"JOBS is {words!r}: it is the number of notebooks that run at once, a whole number from 1 up; "
            f"leave it out for {default}, which is what this machine is good for"
        )
    return int(words)


def in_order(costs: Mapping[str, Cost]) -> list[str]:
    """Names in the order in which they start: long ones first, those of BEFORE as if they took as
    long as both; 99 last."""

    def length(name: str) -> float:
        return costs[name].seconds + costs.get(BEFORE.get(name, ""), Cost(0.0)).seconds

    return sorted(costs, key=lambda name: (name.startswith(LAST), -length(name), name))


def next_of(waiting: Sequence[str], running: Collection[str]) -> str | None:
    """Which of the waiting notebooks, given in their order, starts next; None if all must wait for the running ones."""
    if not waiting or (waiting[0].startswith(LAST) and running):
        return None
    return waiting[0]


def fits(next_gb: float, free_gb: float, running: Iterable[tuple[float, float]]) -> bool:
    """Whether free memory holds one more notebook beside what the running ones will still take.

    running: per notebook, its peak and the memory that it has now. All numbers are in 10^9 bytes.
    """
    return free_gb - sum(max(0.0, peak - now) for peak, now in running) >= next_gb


def most_at_once(free_gb: float, peaks_gb: Iterable[float]) -> int:
    """How many notebooks memory holds at once, whichever they are; at least one."""
    count, left = 0, free_gb
    for peak in sorted(peaks_gb, reverse=True):
        left -= peak
        count += left >= 0
    return max(1, count)


def seconds_left(running: Sequence[float], waiting: Sequence[float], jobs: int) -> float:
    """Seconds until the last notebook ends, given what is left of the running ones and the
    whole of the waiting ones."""
    ends = [*running, *[0.0] * (jobs - len(running))]
    heapq.heapify(ends)
    for seconds in waiting:
        heapq.heapreplace(ends, ends[0] + seconds)
    return max(ends)


def pace(pairs: Iterable[tuple[float, float]]) -> float:
    """How much longer notebooks took than expected, as a factor, from pairs (taken, expected); 1 if none is done."""
    taken, expected = (sum(column) for column in zip(*pairs, strict=True)) if (pairs := list(pairs)) else (0, 0)
    return taken / expected if taken and expected else 1.0


class Schedule:
    """Runs notebooks, each in a thread with a kernel of its own, until all have ended."""

    def __init__(self, costs: Mapping[str, Cost], jobs: int, show: Show, run_one: Callable[..., Outcome]):
        """costs: by name, of the notebooks to run. run_one: `run_one(name, on_cell)` runs one and raises nothing."""
        self.costs, self.jobs, self.show, self.run_one = costs, jobs, show, run_one
        self.waiting = in_order(costs)
        self.running: dict[str, Running] = {}
        self.outcomes: dict[str, Outcome] = {}
        self._events: queue.SimpleQueue[tuple[str, Step | Future]] = queue.SimpleQueue()
        self._stopping = threading.Event()
        self._threads = ThreadPoolExecutor(jobs, thread_name_prefix="notebook")
        self._futures: list[Future] = []

    def run(self) -> dict[str, Outcome]:
        """The outcome of each notebook, by name.

        Raises Stopped after a KeyboardInterrupt, when all kernels have ended.
        """
        try:
            while self.waiting or self.running:
                self._start_what_fits()
                self.show.tick(self.running.values(), len(self.outcomes), self._seconds_left())
                self._hear()
        except KeyboardInterrupt as error:
            self._end_all()
            raise Stopped(len(self.outcomes)) from error
        except BaseException:
            self._end_all()
            raise
        self._threads.shutdown()
        return self.outcomes

    def _start_what_fits(self) -> None:
        while len(self.running) < self.jobs and (name := next_of(self.waiting, self.running)):
            now = [
                (job.cost.peak_gb, machine.memory_gb(job.step.pid) if job.step else 0.0)
                for job in self.running.values()
            ]
            if self.running and not fits(self.costs[name].peak_gb, machine.free_gb(), now):
                return
            self.waiting.remove(name)
            self.running[name] = Running(name, self.costs[name])
            self.show.started(name)
            future = self._threads.submit(in_own_loop, self.run_one, name, functools.partial(self._tell, name))
            future.add_done_callback(functools.partial(self._tell_the_end, name))
            self._futures.append(future)

    def _tell(self, name: str, step: Step) -> None:
        if self._stopping.is_set():
            raise Stopped(len(self.outcomes))
        self._events.put((name, step))

    def _tell_the_end(self, name: str, future: Future) -> None:
        self._events.put((name, future))

    def _hear(self, patience: float = 0.2) -> None:
        """Take in what the threads report; wait for it some tenths of a second."""
        try:
            name, event = self._events.get(timeout=patience)
        except queue.Empty:
            return
        if isinstance(event, Step):
            self.running[name].step = event
            return
        self.outcomes[name] = event.result()
        del self.running[name]
        self.show.ended(self.outcomes[name], len(self.outcomes), self._seconds_left())

    def _seconds_left(self) -> float:
        factor = pace((one.seconds, self.costs[one.name].seconds) for one in self.outcomes.values() if not one.failure)
        # One that takes longer than expected is taken to be nearly done.
        running = [max(factor * job.cost.seconds - job.seconds, 0.1 * job.seconds) for job in self.running.values()]
        return seconds_left(running, [factor * self.costs[name].seconds for name in self.waiting], self.jobs)

    def _end_all(self, patience: float = 1.5) -> None:
        """Kill the kernels, then wait for the threads, which clear away what they did not finish."""
        self._stopping.set()
        self._threads.shutdown(wait=False)
        end = time.monotonic() + patience
        while not all(future.done() for future in self._futures) and time.monotonic() < end:
            machine.end_children()  # again and again: a thread may just have started one
            time.sleep(0.05)
