"""The artefact cache: what a run computed once is kept under a hash of everything that went into it.

Also the two places on disk, each decided here and nowhere else: the repository's root and the cache's root.
"""

import ctypes
import errno
import functools
import hashlib
import importlib.metadata
import json
import os
import platform
import re
import shutil
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import psutil
from filelock import FileLock

from sae_lib.cache import reach

PACKAGE = Path(__file__).resolve().parents[1]
ROOT = PACKAGE.parent
"""The clone's root: notebooks/ and figures/ are beside the package."""
CLONE = reach.Clone(ROOT, ("sae_lib", "notebooks", "tests"))
"""The packages whose code an artefact's key follows."""

COMPUTES = ("torch", "diffusers", "transformers", "numpy")
"""Packages whose versions an artefact's key holds."""

made: list[str] = []
"""Folder names of the artefacts that this process made."""
waited: list[str] = []
"""Folder names of the artefacts that another process made while this one waited."""
reused: list[str] = []
"""Folder names of the artefacts that an earlier run made."""

_TENSORS = "tensors.safetensors"
_FULL = (errno.ENOSPC, errno.EDQUOT)

_making = threading.local()
reach.remember(PACKAGE)


def cache_root() -> Path:
    """Folder that holds everything git does not track: `.cache`, or what the variable SAE_LIB_CACHE names."""
    return Path(os.environ.get("SAE_LIB_CACHE") or ROOT / ".cache").absolute()


@functools.cache
def _versions() -> dict[str, str]:
    return {package: importlib.metadata.version(package) for package in COMPUTES}


def _record(name: str, inputs: Mapping[str, Any], make: Callable) -> str:
    if not re.fullmatch(r"[a-z0-9][a-z0-9_.-]*", name):
        raise ValueError(f"artefact name {name!r}: wanted lower-case letters, digits, '_', '-' and '.'")
    reached = reach.follow(make, CLONE)
    weights = hashlib.sha256("\n".join(reached.weights).encode()).hexdigest() if reached.weights else "none"
    key = {"name": name, "inputs": inputs, "code": reached.code, "weights": weights, "versions": _versions()}
    return json.dumps(key, indent=1, sort_keys=True, allow_nan=False)


def cached(name: str, inputs: Mapping[str, Any], make: Callable[[Path], None], resumable: bool = False) -> Path:
    """Folder of the artefact `name` made from `inputs`; `make(folder)` writes into it if no earlier run did.

    The key is a hash of the name, the inputs, the code and the shipped weights that `make` reaches (`cache.reach`), and
    the versions of the packages that compute. A changed parameter, weight or line that `make` runs gives another
    artefact; a comment, a docstring, a colour or a line that it does not run gives none. What the key cannot see must
    show in `inputs`: files and environment variables that `make` reads, values and functions that a library function
    got from its caller, methods of objects whose class no reached line names. The processor does not count.

    One process at a time makes an artefact, another waits for it. `inputs.json` in the folder says what went in. A
    `make` that raises or is killed leaves nothing under the final name. resumable: what it left is handed to it again;
    otherwise it is thrown away.

    Raises ValueError if the name is no plain lower-case name, an input is NaN or infinite, the source of `make` cannot
    be read or the kept folder is damaged; TypeError if an input has no JSON form or `make` is no function;
    PermissionError if the cache's folder cannot be made; OSError if the disk is full; RuntimeError if `make` asks for
    the artefact that it makes.
    """
    return _keep(name, _record(name, inputs, make), make, resumable)


def cached_tensors(
    name: str, inputs: Mapping[str, Any], make: Callable[[], Mapping[str, Any]]
) -> tuple[Path, dict[str, Any]]:
    """`cached` for a maker that gives tensors by name: the artefact's folder, and the tensors.

    Raises what `cached` raises.
    """
    from safetensors.torch import save_file

    from sae_lib.cache.reading import read_safetensors  # here: it imports torch, and who only asks for ROOT waits

    def save(folder: Path) -> None:
        save_file({key: tensor.contiguous() for key, tensor in make().items()}, folder / _TENSORS)

    folder = _keep(name, _record(name, inputs, make), save)
    return folder, read_safetensors(folder / _TENSORS)


def _keep(name: str, record: str, make: Callable[[Path], None], resumable: bool = False) -> Path:
    folder = cache_root() / "artefacts" / f"{name}-{hashlib.sha256(record.encode()).hexdigest()[:12]}"
    if folder.is_dir():
        reused.append(folder.name)
        _remove(_lock_of(folder))  # left by a process that was killed after it had made the artefact
    else:
        with _full_disk_in_words(folder, "name a folder on another disk in the variable SAE_LIB_CACHE"):
            _make_cache(folder.parent)
            mine = _make_alone(folder, record, make, resumable)
        (made if mine else waited).append(folder.name)
    _check(folder, record)
    return folder


def _make_alone(folder: Path, record: str, make: Callable[[Path], None], resumable: bool) -> bool:
    """Make the artefact while no other process does; False if another has made it meanwhile."""
    mine = _making.__dict__.setdefault("names", set())
    if folder.name in mine:
        raise RuntimeError(
            f"artefact {folder.name} is asked for by its own maker: give the inner one a name of its own"
        )
    unfinished, lock = folder.with_name(f".unfinished-{folder.name}"), _lock_of(folder)
    mine.add(folder.name)
    try:
        with FileLock(lock):
            if folder.is_dir():
                return False
            _make_in(unfinished, record, make, resumable)
            unfinished.rename(folder)
    finally:
        mine.discard(folder.name)
        if folder.is_dir():
            _remove(lock)
    return True


def _lock_of(folder: Path) -> Path:
    return folder.with_name(f".unfinished-{folder.name}.lock")


def _make_in(unfinished: Path, record: str, make: Callable[[Path], None], resumable: bool) -> None:
    if not resumable:
        shutil.rmtree(unfinished, ignore_errors=True)
    unfinished.mkdir(exist_ok=True)
    try:
        make(unfinished)
        (unfinished / "inputs.json").write_text(record)
    except BaseException as error:
        if isinstance(error, FileNotFoundError) and not unfinished.is_dir():
            where = f"the cache in {unfinished.parent} was emptied while {unfinished.name} was made"
            raise FileNotFoundError(f"{where}: run again, without `make fresh` beside it") from error
        if not resumable:
            shutil.rmtree(unfinished, ignore_errors=True)
        raise


@contextmanager
def _full_disk_in_words(path: Path, way: str) -> Iterator[None]:
    try:
        yield
    except Exception as error:
        # safetensors and torch raise errors of their own, which say so only in words.
        by_number = getattr(error, "errno", None) in _FULL
        if not by_number and "No space left on device" not in str(error):
            raise
        there = next(folder for folder in path.parents if folder.is_dir())
        free = shutil.disk_usage(there).free / 2**20
        text = f"the disk is full, {path.name} could not be made: {free:,.0f} MiB are free in {there}"
        raise OSError(errno.ENOSPC, f"{text}; free some space, or {way}") from error


def _check(folder: Path, record: str) -> None:
    file = folder / "inputs.json"
    if not file.is_file() or file.read_text() != record:
        state = "is another" if file.is_file() else "is missing"
        raise ValueError(
            f"the artefact in {folder} is half-made or of another version (its inputs.json {state}): "
            "delete this folder, or all that is kept with `make fresh`"
        )


def _make_cache(folder: Path) -> None:
    why = "it may not be written"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if os.access(folder, os.W_OK):
            return
    except OSError as error:
        if error.errno in _FULL:
            raise
        why = error.strerror
    raise PermissionError(
        f"no artefact can be kept in {folder} ({why}): name a folder that you may write in the variable SAE_LIB_CACHE"
    )


def write_whole(path: str | Path, write: Callable[[Path], object]) -> Path:
    """A file or a folder, written completely or not at all, in place of what was there.

    `write(unfinished)` makes it under its name in a hidden folder beside it. If it raises or is killed, what was there
    stays as it was. On Linux and macOS a folder takes the place of another in one step. Elsewhere it takes two: a
    process killed between them leaves the old folder as `.NAME.replaced`, and the next call puts it back before it
    writes.

    Raises OSError if nothing can be written there or the disk is full.
    """
    path = Path(path)
    with _hidden_folder(path) as folder:
        write(folder / path.name)
        _put(folder / path.name, path)
    return path


def refuse_folder(path: Path) -> None:
    """Raises IsADirectoryError where a folder is, for a path that a file is to get."""
    if path.is_dir():
        raise IsADirectoryError(f"{path} is a folder, wanted the name of a file")


def write_if_changed(path: Path, content: bytes) -> bool:
    """Write a file as `write_whole` does, but only if its content differs; whether it was written.

    Raises IsADirectoryError where a folder is, which stays as it was.
    """
    refuse_folder(path)
    if path.is_file() and path.read_bytes() == content:
        _remove_leftovers(path)
        return False
    write_whole(path, lambda unfinished: unfinished.write_bytes(content))
    return True


def write_together(folder: str | Path, last: str, write: Callable[[Path], object], replace: bool = False) -> None:
    """Files that belong together, written into `folder` so that they never stand among those of another writing.

    `write(unfinished)` makes them in a hidden folder; if it raises or is killed, what was there stays as it was. Then
    they get their names, the one called `last` at the end: where it stands, the others are its own. replace: they may
    take the place of others, whose `last` is removed first.

    Raises FileExistsError if others are there and may not be replaced.
    """
    folder = Path(folder)
    with _hidden_folder(folder / last) as unfinished:
        write(unfinished)
        new = [made.name for made in sorted(unfinished.iterdir()) if not _is_equal(made, folder / made.name)]
        taken = [name for name in new if (folder / name).exists()]
        if taken and not replace and (folder / last).exists():
            raise FileExistsError(
                f"{folder} holds another {' and '.join(taken)}: write into another folder, or remove this one"
            )
        if set(new) - {last}:
            (folder / last).unlink(missing_ok=True)
            new = [*(name for name in new if name != last), last]
        for name in new:
            (unfinished / name).replace(folder / name)


@contextmanager
def _hidden_folder(path: Path) -> Iterator[Path]:
    """A hidden folder beside `path`; those that killed processes left are removed first."""
    folder = path.with_name(f".{path.name}.{_machine()}-{os.getpid()}-{threading.get_ident()}.unfinished")
    with _full_disk_in_words(path, "write to another disk"):
        path.parent.mkdir(parents=True, exist_ok=True)
        _remove_leftovers(path)
        _remove(folder)  # of a process that had this one's number
        folder.mkdir()
        try:
            yield folder
        finally:
            _remove(folder)


def _remove_leftovers(path: Path) -> None:
    """Removes what killed processes left beside `path`, of any name; puts back what they were about to replace."""
    for leftover in path.parent.glob(".*.*.unfinished"):
        machine, _, process = leftover.suffixes[-2][1:].rpartition("-")[0].rpartition("-")
        if machine == _machine() and process.isdecimal() and not psutil.pid_exists(int(process)):
            _remove(leftover)
    _end_replacement(path)


def _machine() -> str:
    """Its name: the numbers of processes are its own."""
    return re.sub(r"[^A-Za-z0-9_]", "_", platform.node())


def _put(unfinished: Path, path: Path) -> None:
    if not path.is_dir():
        unfinished.replace(path)
    elif not _exchange(unfinished, path):
        path.rename(path.with_name(f".{path.name}.replaced"))
        try:
            unfinished.rename(path)
        finally:
            _end_replacement(path)


def _end_replacement(path: Path) -> None:
    """After a replacement in two steps: the old folder goes, or comes back if the new one did not get its name."""
    replaced = path.with_name(f".{path.name}.replaced")
    if replaced.exists():
        _remove(replaced) if path.exists() else replaced.rename(path)


def _exchange(one: Path, other: Path) -> bool:
    """Exchange two names in one step; False where the system or its disk cannot."""
    system = ctypes.CDLL(None, use_errno=True) if sys.platform in ("linux", "darwin") else None
    names, swap = [os.fsencode(path.absolute()) for path in (one, other)], 2  # RENAME_EXCHANGE, RENAME_SWAP
    if hasattr(system, "renameat2"):
        here = -100  # AT_FDCWD, which absolute paths need not
        return system.renameat2(here, names[0], here, names[1], swap) == 0
    return hasattr(system, "renamex_np") and system.renamex_np(*names, swap) == 0


def _is_equal(one: Path, other: Path) -> bool:
    return other.is_file() and _hash(one) == _hash(other)


def _hash(path: Path) -> bytes:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").digest()


def _remove(path: Path) -> None:
    """What is not wanted any more, as far as it can be removed: Windows keeps a lock for which another waits."""
    with suppress(OSError):
        shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink(missing_ok=True)
