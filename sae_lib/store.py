"""The artefact cache: what a run computed once is found again by a hash of everything that went into it.

Also the two places on disk, each decided here and nowhere else: the repository's root and the cache's root.
"""

import functools
import hashlib
import json
import os
import re
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from filelock import FileLock

PACKAGE = Path(__file__).resolve().parent
ROOT = PACKAGE.parent
"""The clone's root: notebooks/ and figures/ are beside the package."""


def cache_root() -> Path:
    """Folder that holds everything git does not track: `.cache`, or what the variable SAE_LIB_CACHE names."""
    return Path(os.environ.get("SAE_LIB_CACHE") or ROOT / ".cache").absolute()


@functools.cache
def library_fingerprint() -> str:
    """sha256 over the package's code, weights and their configurations, as they were at the first call."""
    files = sorted(path for path in PACKAGE.rglob("*") if path.suffix in {".py", ".safetensors", ".json"})
    lines = [
        f"{hashlib.sha256(path.read_bytes()).hexdigest()} {path.relative_to(PACKAGE).as_posix()}" for path in files
    ]
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def cached(name: str, inputs: Mapping[str, Any], make: Callable[[Path], None], resumable: bool = False) -> Path:
    """Folder of the artefact `name` made from `inputs`; `make(folder)` fills it if no earlier run did.

    The key is a hash of the name, the inputs and the library's own files, so a changed parameter, a changed line of
    code or other shipped weights give another artefact. It is not a hash of `make`: what a notebook does in it beyond
    the library must show in `inputs`. `inputs.json` in the folder says what went in. A `make` that raises or is killed
    leaves nothing under the final name; of two processes that make the same artefact, the first to finish wins.

    resumable: what `make` left behind when it died is handed to it again. Then only one process at a time makes the
    artefact, and another waits for it.

    Raises ValueError if the name is no plain lower-case name or an input is NaN or infinite, TypeError if an input has
    no JSON form, PermissionError if the cache's folder cannot be made.
    """
    if not re.fullmatch(r"[a-z0-9][a-z0-9_.-]*", name):
        raise ValueError(f"artefact name {name!r}: wanted lower-case letters, digits, '_', '-' and '.'")
    record = json.dumps(
        {"name": name, "inputs": inputs, "library": library_fingerprint()}, indent=1, sort_keys=True, allow_nan=False
    )
    folder = cache_root() / "artefacts" / f"{name}-{hashlib.sha256(record.encode()).hexdigest()[:12]}"
    if folder.is_dir():
        return folder
    _make_cache(folder.parent)

    def fill(unfinished: Path) -> None:
        unfinished.mkdir(exist_ok=True)
        make(unfinished)
        (unfinished / "inputs.json").write_text(record)
        try:
            unfinished.rename(folder)
        except OSError:
            if not folder.is_dir():  # otherwise another process was first, and its artefact is as good
                raise

    if resumable:
        unfinished = folder.with_name(f".unfinished-{folder.name}")
        with FileLock(f"{unfinished}.lock"):
            if not folder.is_dir():
                fill(unfinished)
    else:
        with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".unfinished-") as temporary:
            fill(Path(temporary, "artefact"))
    return folder


def _make_cache(folder: Path) -> None:
    why = "it may not be written"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if os.access(folder, os.W_OK):
            return
    except OSError as error:
        why = error.strerror
    raise PermissionError(
        f"no artefact can be kept in {folder} ({why}): name a folder that you may write in the variable SAE_LIB_CACHE"
    )


def write_if_changed(path: Path, content: bytes) -> bool:
    """Write a file as a whole or not at all, and only if its content differs; whether it was written."""
    if path.is_file() and path.read_bytes() == content:
        return False
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        unfinished.write_bytes(content)
        unfinished.replace(path)
    finally:
        unfinished.unlink(missing_ok=True)
    return True
