"""Faults for tests of what writes: a kill, a full disk or one that becomes read-only, at each of its file operations.

A writer runs in a forked child. Its operations are counted by Python's audit events; native code that writes files past
Python is wrapped (`NATIVE`). The fault is set off in the child, so that nothing has to be undone; the parent looks at
what is left.
"""

import errno
import hashlib
import json
import os
import resource
import signal
import sys
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import safetensors.torch
import torch
from safetensors import SafetensorError

from sae_lib.cache import artefact

AUDITED = ("open", "os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.link", "os.symlink", "os.truncate", "os.utime")
"""Events of Python that change something on a disk; "open" counts if it is for writing."""
NATIVE = ((safetensors.torch, "serialize_file", "open"), (artefact, "_exchange", "os.rename"))
"""What writes past Python's events: module, function, and the event that it stands for."""
NEEDS_ROOM = ("open", "os.rename", "os.mkdir", "os.link", "os.symlink")
_WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND

Write = Callable[[Path], object]


class Operation(NamedTuple):
    """One operation on files that an undisturbed writer did."""

    event: str
    path: str
    size: int
    """Bytes of the file at the next operation, if it was opened for writing: 0 where nothing was written."""


class Fault(NamedTuple):
    """What happens at one operation. kind: one of KINDS, with what it does in the child."""

    kind: str
    number: int
    size: int


def _die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def _limit(size: int, handler: Any) -> None:
    """No file grows beyond half of `size`: the kernel writes so much, and then kills (or says EFBIG)."""
    signal.signal(signal.SIGXFSZ, handler)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size // 2, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))


KINDS = ("killed before", "killed half-way", "disk full", "disk full half-way", "read-only")


class _Child:
    """Counts, in a forked child, and sets the fault off."""

    def __init__(self, folder: Path, fault: Fault | None):
        self.folder, self.fault = str(folder), fault
        self.count = 0
        self.operations: list[list[Any]] = []
        self.busy = False

    def audit(self, event: str, arguments: tuple) -> None:
        if event not in AUDITED or self.busy or (event == "open" and not arguments[2] & _WRITES):
            return
        path = arguments[0]
        if not isinstance(path, str | bytes | os.PathLike):
            return
        path = os.fsdecode(path)
        inside = path == self.folder or path.startswith(self.folder + os.sep)
        in_open_folder = not os.path.isabs(path) and isinstance(arguments[-1], int) and arguments[-1] >= 0
        if inside or (in_open_folder and event in ("os.remove", "os.rmdir")):
            self.count_one(event, path)

    def wrap(self, module: Any, name: str, event: str) -> None:
        native = getattr(module, name)

        def wrapped(*arguments: Any, **named: Any) -> Any:
            path = os.fspath(arguments[1] if name == "serialize_file" else arguments[0])
            try:
                self.count_one(event, path)
            except OSError as error:
                raise (SafetensorError(f"I/O error: {error.strerror}") if name == "serialize_file" else error) from None
            return native(*arguments, **named)

        setattr(module, name, wrapped)

    def count_one(self, event: str, path: str) -> None:
        self.busy = True
        try:
            self.measure()
            self.operations.append([event, path, 0])
            self.count += 1
            if self.fault and self.count > self.fault.number:
                self.strike(event, path, first=self.count == self.fault.number + 1)
        finally:
            self.busy = False

    def measure(self) -> None:
        """The size that the last operation's file has now."""
        if self.operations and self.operations[-1][0] == "open" and os.path.isfile(self.operations[-1][1]):
            self.operations[-1][2] = os.path.getsize(self.operations[-1][1])

    def strike(self, event: str, path: str, first: bool) -> None:
        kind, _, size = self.fault
        if kind == "killed before":
            _die()
        elif kind.endswith("half-way"):
            if first:
                _limit(size, signal.SIG_DFL if kind.startswith("killed") else signal.SIG_IGN)
        elif kind == "read-only":
            raise OSError(errno.EROFS, "Read-only file system", path)
        elif event in NEEDS_ROOM:
            raise OSError(errno.ENOSPC, "No space left on device", path)


def start(work: Callable[[int], None]) -> tuple[int, int]:
    """A forked child that does `work(pipe)`: its number, and the other end of the pipe."""
    reading, writing = os.pipe()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # Python 3.12's, of threads that the child does not use
        child = os.fork()
    if not child:
        try:
            resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
            silent = os.open(os.devnull, os.O_WRONLY)
            os.dup2(silent, 1)
            os.dup2(silent, 2)
            torch.set_num_threads(1)
            work(writing)
        finally:
            os._exit(0)
    os.close(writing)
    return child, reading


def run(write: Write, folder: Path, fault: Fault | None = None) -> tuple[int, str, list[Operation]]:
    """`write(folder)` in a child: its exit status (negative: the signal), the error that it raised, its operations."""

    def work(pipe: int) -> None:
        child, error = _Child(folder, fault), ""
        for module, name, event in NATIVE:
            child.wrap(module, name, event)
        sys.addaudithook(child.audit)
        try:
            write(folder)
        except Exception as raised:  # noqa: BLE001 - whatever it is, the test looks at it
            error = f"{type(raised).__name__}: {raised}"
        child.busy = True
        child.measure()
        os.write(pipe, json.dumps([error, child.operations]).encode())

    child, reading = start(work)
    with open(reading, "rb") as pipe:
        said = pipe.read()
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    error, operations = json.loads(said) if said else ["", []]
    return status, error, [Operation(*operation) for operation in operations]


def faults(operations: list[Operation]) -> Iterator[Fault]:
    """Every fault at each operation where it can be; half-way means: in the middle of writing a file."""
    for number, operation in enumerate(operations):
        for kind in KINDS:
            if kind.endswith("half-way") and not operation.size:
                continue
            if kind == "disk full" and operation.event not in NEEDS_ROOM:
                continue
            yield Fault(kind, number, operation.size)


def content(folder: Path) -> dict[str, str]:
    """All that is in a folder, hidden or not: by path the hash of a file, "folder" for a folder."""
    return {
        path.relative_to(folder).as_posix(): "folder"
        if path.is_dir()
        else hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
    }


def read_meanwhile(read: Callable[[], Any], write: Callable[[], object]) -> list[Any]:
    """All that this process reads, again and again, while a child writes."""

    def work(pipe: int) -> None:
        write()

    child, pipe, got = *start(work), []
    while os.waitpid(child, os.WNOHANG) == (0, 0):
        got.append(read())
    os.close(pipe)
    return got
