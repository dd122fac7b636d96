"""Files are read whole or refused in one sentence that names the file and what is wrong in it.

The counterpart of `write_whole`. What no reader can see: numbers changed into other finite numbers of the same type.
"""

import functools
import json
import os
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
"""The types of numbers that weights may be stored in. Eight bits want a scale that none of our formats has."""

_KINDS = {dict: "JSON object", Mapping: "collection of tensors by name", bool: "boolean"}


def reason_of(error: Exception) -> str:
    """The first sentence of another library's error, without its advice, which can be to run what a file holds."""
    return str(error).partition("\n")[0].partition(". ")[0][:300] or type(error).__name__


def file_in(folder: str | Path, name: str, way: str) -> Path:
    """The file of that name in a folder, whose `~` is written out. way: what to do where it is missing.

    Raises FileNotFoundError if there is no such file.
    """
    path = Path(os.path.expanduser(folder), name)
    if path.is_file():
        return path
    state = "" if path.parent.is_dir() else ", which is a file" if path.parent.exists() else ", which does not exist"
    raise FileNotFoundError(f"no {name} in {path.parent}{state}: {way}")


def read_object(path: Path, keys: Sequence[str] = ()) -> dict[str, Any]:
    """The JSON object in a file, which must have some keys.

    Raises FileNotFoundError if the file is missing, ValueError if it holds anything else.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} is no JSON ({reason_of(error)}): copy or make it again") from error
    refuse_other_type(content, dict, f"the content of {path}")
    if missing := [key for key in keys if key not in content]:
        raise ValueError(f"{path} lacks {', '.join(missing)}: it belongs to another format")
    return content


def refuse_other_type(value: Any, wanted: type, name: str) -> None:
    """Raises ValueError, which calls the value by its name, if it is not of the wanted type."""
    if not isinstance(value, wanted):
        raise ValueError(f"{name} is {value!r:.80}; wanted a {_KINDS[wanted]}")  # noqa: TRY004 (no fault of the caller)


def whole_number(path: Path, content: Mapping[str, Any], key: str, least: int = 1) -> int:
    """A whole number of a JSON object. Raises ValueError for any other value, and for one below `least`."""
    value = content.get(key)
    if not isinstance(value, int) or isinstance(value, bool) or value < least:
        raise ValueError(f"{path} says {key} is {value!r:.80}; wanted a whole number of at least {least}")
    return value


def read_safetensors(path: Path) -> dict[str, Tensor]:
    """All tensors of a file, by name. Raises FileNotFoundError if it is missing, ValueError if it is damaged."""
    from safetensors.torch import load_file

    return _read(path, load_file, "truncated or of another format")


def read_pickle(path: Path) -> Any:
    """What `torch.save` wrote, on the CPU, if it is of tensors, numbers and names only; code is not run.

    Raises FileNotFoundError if it is missing, ValueError if it is damaged or holds code.
    """
    load = functools.partial(torch.load, map_location="cpu", weights_only=True)
    return _read(path, load, "truncated, of another format, or holds code, which was not run")


def check_tensors(
    path: Path, tensors: Any, shapes: Mapping[str, Sequence[int]], counts: Collection[str] = ()
) -> dict[str, Tensor]:
    """The tensors of a file if they are those that are wanted, no more and no fewer; floating-point ones in float32.

    shapes: by name. counts: the names of those that hold whole numbers (int64).

    Raises ValueError, which names the file and the tensor, for a tensor that is missing, unknown, of another shape or
    another type, sparse or without data, and for NaN or infinite numbers.
    """
    refuse_other_type(tensors, Mapping, f"the state_dict in {path}")
    if missing := [name for name in shapes if name not in tensors]:
        raise ValueError(f"{path} lacks {', '.join(missing)}: it belongs to another format or is not complete")
    if unknown := [str(name) for name in tensors if name not in shapes]:
        raise ValueError(f"{path} also holds {', '.join(unknown)}, which nothing here would use: of another format")
    different = []
    for name, shape in shapes.items():
        tensor, types = tensors[name], (torch.int64,) if name in counts else FLOATS
        if not isinstance(tensor, Tensor) or tensor.device.type != "cpu" or tensor.layout is not torch.strided:
            raise ValueError(f"{name} in {path} is no tensor of plain numbers: copy or make it again")
        if tensor.dtype not in types:
            raise ValueError(f"{name} in {path} is of {tensor.dtype}, wanted {' or '.join(map(str, types))}")
        if list(tensor.shape) != list(shape):
            different.append(f"{name} {list(tensor.shape)} (wanted {list(shape)})")
    if different:
        raise ValueError(f"the tensors in {path} do not fit its configuration: {', '.join(different)}")
    return {name: _finite(path, name, tensors[name]) for name in shapes}


def _finite(path: Path, name: str, tensor: Tensor) -> Tensor:
    if not tensor.is_floating_point():
        return tensor
    tensor = tensor.float()
    if wrong := int((~tensor.isfinite()).sum()):
        raise ValueError(f"{wrong} of {tensor.numel()} numbers of {name} in {path} are NaN or infinite: make it again")
    return tensor


def _read(path: Path, load: Callable[[Path], Any], otherwise: str) -> Any:
    file_in(path.parent, path.name, "not completely copied; copy or make it again")
    try:
        return load(path)
    except (OSError, MemoryError):
        raise
    except Exception as error:  # a damaged file may break its reader anywhere
        raise ValueError(f"{path} is {otherwise} ({reason_of(error)}): copy or make it again") from error
