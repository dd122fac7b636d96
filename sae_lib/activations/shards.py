"""Update vectors on disk: one safetensors file per portion of a stream, and a manifest that says what they are."""

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from sae_lib.activations.processes import alone, rank_and_size
from sae_lib.activations.stream import TrainingStream, mix
from sae_lib.cache.artefact import write_if_changed
from sae_lib.cache.identity import differences
from sae_lib.cache.space import refuse_without_disk

MANIFEST = "manifest.json"
_WAY_OUT = "free some (what is written is kept), or train without a store"
DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}


def write_shards(stream: TrainingStream, folder: str | Path, dtype: str = "float16") -> Path:
    """Writes each portion of one pass of the stream, in the order prompt, step, position; gives the folder.

    A shard depends on the stream's description and its number only. Complete shards are not made again, so that a run
    that died goes on. dtype: of the stored vectors, "float32", "float16" or "bfloat16".

    Raises ValueError for an unknown dtype, if the folder holds shards of another stream or dtype, in a run of several
    processes, and where a vector exceeds float16's range; OSError if the disk has no room for them, nothing can be
    written into the folder, or another run is in it.
    """
    if dtype not in DTYPES:
        raise ValueError(f"unknown dtype {dtype!r}; choose one of {', '.join(DTYPES)}")
    if rank_and_size()[1] > 1:
        raise ValueError("a store is written by one process: start the harvest without torchrun")
    folder = Path(folder)
    with alone(folder):
        _write_missing(stream, folder, dtype)
    return folder


def _write_missing(stream: TrainingStream, folder: Path, dtype: str) -> None:
    identity = {"stream": {**stream.description, "passes": 1}, "dtype": dtype}
    fresh = {**identity, "origin": stream.origin, "portions": stream.portions, "shards": {}}
    manifest = _read_manifest(folder) if (folder / MANIFEST).is_file() else fresh
    if different := differences({name: manifest[name] for name in identity}, identity):
        raise ValueError(f"{folder} holds other shards, of which {different}: use another folder, or remove it")
    all_gb = sum(rows * width for rows, width in stream.shapes.values()) * DTYPES[dtype].itemsize / 1e9
    names = [f"shard_{number:05d}.safetensors" for number in range(stream.portions)]
    missing = [number for number, name in enumerate(names) if not _is_whole(folder / name, manifest)]
    for done, number in enumerate(missing):
        name = names[number]
        need_gb = all_gb * (len(missing) - done) / stream.portions
        refuse_without_disk(need_gb, folder, "the rest of the shards needs", _WAY_OUT)
        vectors = {block: x.to("cpu", DTYPES[dtype]) for block, x in stream.in_order(number).items()}
        _refuse_overflow(vectors, number)
        # One entry of metadata: safetensors writes several in any order.
        content = save(vectors, {"stream": _fingerprint(identity)})
        write_if_changed(folder / name, content)
        manifest["shards"][name] = hashlib.sha256(content).hexdigest()
        _write_manifest(folder, manifest)
    _write_manifest(folder, manifest)  # unchanged; what a process left that was killed at its end is removed


class ShardStream(Sequence):
    """What `write_shards` wrote, as a stream for `train_saes`: `stream[i]` is a shard, mixed as `TrainingStream` would.

    Shards are memory-mapped. A shard is checked against the manifest's hash when it is first read. In float32 the
    portions are those of the `TrainingStream` itself, bit for bit.

    Raises FileNotFoundError without a manifest, ValueError for a store whose harvest was stopped; from reading,
    ValueError that names a shard which is missing, cut short, changed, or of another stream.
    """

    def __init__(self, folder: str | Path, passes: int = 1, seed: int = 0):
        self.folder, self.passes, self.seed = Path(folder), passes, seed
        self._manifest = _read_manifest(self.folder)
        self._names = [f"shard_{number:05d}.safetensors" for number in range(self._manifest["portions"])]
        if missing := set(self._names) - set(self._manifest["shards"]):
            raise ValueError(
                f"{folder} holds {len(self._names) - len(missing)} of {len(self._names)} shards: its harvest was "
                "stopped; start it again, and it goes on"
            )
        self._checked: set[str] = set()

    @property
    def description(self) -> dict[str, Any]:
        """The description of the stream that was stored, and how it was stored and is read."""
        store = {name: self._manifest[name] for name in ("dtype", "shards")}
        return {**self._manifest["stream"], "passes": self.passes, "seed": self.seed, "store": store}

    @property
    def origin(self) -> dict[str, Any]:
        """Where the stored vectors come from, for readers."""
        return self._manifest["origin"]

    def __len__(self) -> int:
        return self.passes * len(self._names)

    def __getitem__(self, number: int) -> dict[str, Tensor]:
        if not 0 <= number < len(self):
            raise IndexError(f"portion {number} of {len(self)}")
        return mix(self._read(number % len(self._names)), self.seed, number)

    def _read(self, number: int) -> dict[str, Tensor]:
        name = self._names[number]
        path, again = self.folder / name, "remove it and harvest again, which makes this shard only"
        if not path.is_file():
            raise ValueError(f"shard {path} is missing: {again}")
        if name not in self._checked:
            if _hash(path) != self._manifest["shards"][name]:
                raise ValueError(f"shard {path} is cut short or changed (its hash is not the manifest's): {again}")
            self._checked.add(name)
        try:
            with safe_open(path, "pt") as stored:
                identity = {key: self._manifest[key] for key in ("stream", "dtype")}
                if (stored.metadata() or {}).get("stream") != _fingerprint(identity):
                    raise ValueError(f"shard {path} belongs to another stream: {again}")
                return {block: stored.get_tensor(block) for block in stored.offset_keys()}
        except SafetensorError as error:
            raise ValueError(f"shard {path} is damaged ({error}): {again}") from error


def _write_manifest(folder: Path, manifest: dict[str, Any]) -> None:
    write_if_changed(folder / MANIFEST, (json.dumps(manifest, indent=1) + "\n").encode())


def _read_manifest(folder: Path) -> dict[str, Any]:
    if not (folder / MANIFEST).is_file():
        raise FileNotFoundError(f"no {MANIFEST} in {folder}: give a folder that `python -m sae_lib harvest` wrote")
    try:
        manifest = json.loads((folder / MANIFEST).read_text())
        [manifest[name] for name in ("stream", "dtype", "origin", "portions", "shards")]
    except (json.JSONDecodeError, KeyError, TypeError) as error:
        raise ValueError(f"{folder / MANIFEST} is damaged ({error!r}): remove the folder and harvest again") from error
    return manifest


def _is_whole(path: Path, manifest: dict[str, Any]) -> bool:
    whole = manifest["shards"].get(path.name)
    return whole is not None and path.is_file() and _hash(path) == whole


def _fingerprint(identity: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()


def _hash(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _refuse_overflow(vectors: dict[str, Tensor], number: int) -> None:
    for block, x in vectors.items():
        if not x.isfinite().all():
            raise ValueError(
                f"shard {number}: an update vector of {block} exceeds {x.dtype}'s range: "
                "store them as bfloat16 or float32"
            )
