"""The data set: a block's update vectors with what is true of each of them, in files that any library reads.

Which files there are, and how they are written and read; `bench.export` makes what stands in them.
"""

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save
from torch import Tensor

from sae_lib.activations.processes import alone
from sae_lib.cache.artefact import write_if_changed
from sae_lib.cache.identity import differences
from sae_lib.cache.reading import file_in, read_object, read_safetensors, refuse_other_type
from sae_lib.cache.space import refuse_without_disk

DATASET_FILE, CAPTIONS_FILE, CARD_FILE = "dataset.json", "captions.jsonl", "README.md"

DTYPES = {"float16": torch.float16, "float32": torch.float32}
"""What update vectors may be stored in: the types that numpy has too."""

TENSORS = {
    "updates": "what the block adds, at each cell; cells lie row by row, from the top left",
    "present": "whether the judge sees the value in the cell: it fills at least half of it",
    "valid": "whether that can be said; false where the cell lies on a border or the judge is in doubt",
    "shows": "whether the judge sees the value anywhere in the picture",
    "stated": "whether the caption states the value",
}
"""The tensors of a shard, and what they hold."""

_WAY_OUT = "free some (what is written is kept), or export fewer prompts"


def write_dataset(
    folder: str | Path,
    about: Mapping[str, Any],
    captions: Sequence[Mapping[str, Any]],
    make: Callable[[range], Mapping[str, Tensor]],
) -> Path:
    """Writes a data set, or what is missing of it; gives the folder.

    about: all that the numbers depend on, in JSON: at least `block`, `d_model`, `grid` (cells down and across),
    `values` (attribute and value), `dtype`, `pictures` and `pictures_per_shard`. captions: one object per picture, with
    its `caption`. make: the tensors named in `TENSORS` of the pictures with some numbers; it must depend on these only.

    A shard appears under its name only when it is complete. One that is there and has its hash is not made again, so
    that an export that was killed goes on.

    Raises ValueError if the folder holds a data set that differs in `about` (which names the fields) or other files,
    and for an update that exceeds float16's range; OSError if the disk has no room, nothing can be written into the
    folder, or another export is in it.
    """
    folder = Path(folder)
    with alone(folder):
        shards = _shards_there(folder, about)
        lines = [json.dumps({"row": row, **caption}) + "\n" for row, caption in enumerate(captions)]
        _write_description(folder, about, shards)  # first: where it stands, the other files are its own
        write_if_changed(folder / CAPTIONS_FILE, "".join(lines).encode())
        write_if_changed(folder / CARD_FILE, _card(about).encode())
        rows = _rows_by_shard(about)
        missing = [name for name in rows if not _is_whole(folder / name, shards)]
        for done, name in enumerate(missing):
            need_gb = _gigabytes(about) * (len(missing) - done) / len(rows)
            refuse_without_disk(need_gb, folder, "the rest of the shards needs", _WAY_OUT)
            content = save(_stored(make(rows[name]), about, rows[name]))
            write_if_changed(folder / name, content)
            shards[name] = hashlib.sha256(content).hexdigest()
            _write_description(folder, about, {name: shards[name] for name in rows if name in shards})
    return folder


def read_updates(folder: str | Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """A data set: what `dataset.json` says, and the tensors of all pictures by name, after a check of the hashes.

    Raises FileNotFoundError for a folder without `dataset.json`; ValueError for an export that is not finished, and for
    a shard that is missing, changed or cut short.
    """
    file = file_in(folder, DATASET_FILE, "give a folder that `python -m sae_lib export` wrote")
    about = read_object(file, ("block", "d_model", "grid", "values", "dtype", "pictures", "shards"))
    refuse_other_type(about["shards"], dict, f"shards in {file}")
    rows, again = _rows_by_shard(about), "start the export again, which makes only what is missing"
    if missing := [name for name in rows if name not in about["shards"]]:
        raise ValueError(f"{folder} lacks {len(missing)} of {len(rows)} shards, the first is {missing[0]}: {again}")
    parts: dict[str, list[Tensor]] = {name: [] for name in TENSORS}
    for name in rows:
        path = file.with_name(name)
        if not _is_whole(path, about["shards"]):
            state = "is changed or cut short: its hash is not that of dataset.json" if path.is_file() else "is missing"
            raise ValueError(f"shard {path} {state}; {again}")
        for tensor, part in read_safetensors(path).items():
            parts[tensor].append(part)
    return about, {name: torch.cat(part) for name, part in parts.items()}


def _rows_by_shard(about: Mapping[str, Any]) -> dict[str, range]:
    """By shard's name, the numbers of its pictures."""
    pictures, size = about["pictures"], about["pictures_per_shard"]
    starts = range(0, pictures, size)
    return {
        f"updates-{number:05d}-of-{len(starts):05d}.safetensors": range(start, min(start + size, pictures))
        for number, start in enumerate(starts)
    }


def _shards_there(folder: Path, about: Mapping[str, Any]) -> dict[str, str]:
    """The hashes of the shards that an earlier export of the same data set wrote."""
    if (folder / DATASET_FILE).is_file():
        there = read_object(folder / DATASET_FILE, ("shards",))
        shards = there.pop("shards")
        if different := differences(there, about):
            raise ValueError(f"{folder} holds another data set: its {different}; use another folder, or remove it")
        return shards
    if others := sorted(path.name for path in folder.iterdir() if not path.name.startswith(".")):
        raise ValueError(f"{folder} holds {others[0]} and no {DATASET_FILE}: use a folder that is empty or not there")
    return {}


def _write_description(folder: Path, about: Mapping[str, Any], shards: Mapping[str, str]) -> None:
    content = json.dumps({**about, "shards": shards}, indent=1) + "\n"
    write_if_changed(folder / DATASET_FILE, content.encode())


def _shapes(about: Mapping[str, Any], pictures: int) -> dict[str, tuple[int, ...]]:
    height, width = about["grid"]
    per_cell, values = (pictures, height * width), len(about["values"])
    shapes = {"updates": (*per_cell, about["d_model"]), "present": (*per_cell, values), "valid": (*per_cell, values)}
    return shapes | {"shows": (pictures, values), "stated": (pictures, values)}


def _gigabytes(about: Mapping[str, Any]) -> float:
    """What all shards take."""
    sizes = {name: torch.Size(shape).numel() for name, shape in _shapes(about, about["pictures"]).items()}
    return (sizes.pop("updates") * DTYPES[about["dtype"]].itemsize + sum(sizes.values())) / 1e9


def _stored(made: Mapping[str, Tensor], about: Mapping[str, Any], rows: range) -> dict[str, Tensor]:
    """The tensors as a shard holds them."""
    types = {name: torch.bool for name in TENSORS} | {"updates": DTYPES[about["dtype"]]}
    stored = {name: made[name].to("cpu", kind).contiguous() for name, kind in types.items()}
    wanted = _shapes(about, len(rows))
    if different := [name for name, shape in wanted.items() if stored[name].shape != shape]:
        got = ", ".join(f"{name} {list(stored[name].shape)} (wanted {list(wanted[name])})" for name in different)
        raise ValueError(f"the tensors of pictures {rows.start} to {rows.stop - 1} do not fit the data set: {got}")
    if not stored["updates"].isfinite().all():
        raise ValueError(
            f"an update of pictures {rows.start} to {rows.stop - 1} exceeds {about['dtype']}'s range: "
            "store them as float32"
        )
    return stored


def _is_whole(path: Path, shards: Mapping[str, str]) -> bool:
    if path.name not in shards or not path.is_file():
        return False
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest() == shards[path.name]


def _card(about: Mapping[str, Any]) -> str:
    """The data card."""
    height, width = about["grid"]
    vectors = about["pictures"] * height * width
    shapes = {name: ", ".join(map(str, shape[1:])) for name, shape in _shapes(about, 0).items()}
    types = dict.fromkeys(TENSORS, "bool") | {"updates": about["dtype"]}
    rows = [f"| `{name}` | [pictures, {shapes[name]}] | {types[name]} | {what} |" for name, what in TENSORS.items()]
    families: dict[str, list[str]] = {}
    for family, value in about["values"]:
        families.setdefault(family, []).append(value)
    return _CARD.format(
        **{name: about[name] for name in ("block", "d_model", "pictures")},
        model=about["model"]["name"],
        split=about["prompts"]["split"],
        seed=about["settings"]["seed"],
        vectors=f"{vectors:,}",
        height=height,
        width=width,
        count=len(about["values"]),
        shards=len(_rows_by_shard(about)),
        tensors="\n".join(rows),
        values="\n".join(f"- {family}: {', '.join(names)}" for family, names in families.items()),
    )


_CARD = """# Update vectors of {block}, with what is true of them

{vectors} update vectors of width {d_model}, from {pictures} pictures of {height} x {width} cells: what block
`{block}` of the image generator `{model}` adds to its input at each place of a picture. Beside each vector stands what
the picture shows there, so that a sparse autoencoder (SAE) trained on the vectors can be scored against the truth.

## How it was made
`python -m sae_lib export` of the companion to "One-Step is Enough" drew one picture in one step for each caption of
the pocket world's {split} split, with noise of seed {seed} that depends on the picture's number only. While it drew, it
recorded the block's update (output minus input, before the residual is added). A judge, a network that was trained on
computer-drawn scenes with known contents, then said of each pixel what it shows. `dataset.json` holds the hashes of
the models' weights, of the captions and of each file, and all settings.

## How to read it
```python
import glob
import numpy as np
from safetensors.numpy import load_file
shards = [load_file(path) for path in sorted(glob.glob("updates-*.safetensors"))]
data = {{name: np.concatenate([shard[name] for shard in shards]) for name in shards[0]}}
vectors = data["updates"].reshape(-1, {d_model}).astype(np.float32)  # what an SAE is trained on: mix the rows first
```

| tensor | shape | type | what it holds |
|---|---|---|---|
{tensors}

The last axis of the truth are {count} values, in the order of `values` in `dataset.json`:

{values}

`captions.jsonl` has a line for each picture, in the same order: its caption, and what this states of each object and of
the scene.

## What the truth means
- It is what the judge sees in the drawn picture, not what the caption asked for: the generator does not draw all that a
  caption states.
- Leave out a cell and value where `valid` is false. It counts neither as a hit nor as a miss.
- An object's attributes are true of the cells that the object covers, the background of the others, the style of all.
  "position" is the place of the object that covers the cell.
- `stated` has the position of a single object. Of two objects a caption says only how they stand to each other
  (`relation` in `captions.jsonl`).

## Limits
- The generator is small and knows one kind of drawn scene: what holds here may fail in a large model.
- The judge errs too: the companion's model card says how often.
- Cells of one picture resemble each other: split and resample by picture, never by vector.
- For scores take pictures of the held-out split, whose scenes neither the generator nor a training split has.

## Licence
MIT, as the companion and its models.
"""
