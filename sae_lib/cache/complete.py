"""Models and tokenizers of diffusers and transformers: complete from their files, or refused by name."""

import json
import re
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import torch
from safetensors import SafetensorError, safe_open
from torch import nn

from sae_lib.cache.reading import reason_of

Loaded = TypeVar("Loaded")
_NAMED = 3


def load_complete(kind: type[Loaded], source: str | Path, **settings: Any) -> Loaded:
    """`kind.from_pretrained(source)`, with every tensor from the files and no tensor of the files left over.

    By themselves the two libraries draw at random what the files lack, and skip what the model has no place for. kind:
    the class of a model, which is set to evaluation, or of a tokenizer. source: a folder, or a name on the Hub.

    Not checked: what a configuration leaves to its defaults, and wrong numbers that are finite.

    Raises ValueError for tensors that are missing, left over, of another shape or of integers, for NaN and infinity,
    for a tokenizer that lacks words or merges, and for whatever cannot be read in a folder; OSError if a model of the
    Hub is not on this machine and cannot be fetched.
    """
    is_folder = Path(source).is_dir()
    try:
        if issubclass(kind, nn.Module):
            settings |= {"output_loading_info": True, "ignore_mismatched_sizes": True}  # refused below, by name
            loaded, report = kind.from_pretrained(source, local_files_only=is_folder, **settings)
            faults = _faults(loaded.eval(), report, tensors_in(Path(source), settings.get("variant")))
        else:
            loaded = kind.from_pretrained(source, local_files_only=is_folder, **settings)
            faults = _faults_of_tokenizer(loaded)
    except MemoryError:
        raise
    except Exception as error:  # each library has errors of its own for a missing file or one cut short
        if isinstance(error, OSError) and not is_folder:
            raise
        raise ValueError(f"{source} holds no readable {kind.__name__} ({reason_of(error)})") from error
    if faults:
        raise ValueError(f"{source} holds no complete {kind.__name__}: {'; '.join(faults)}")
    return loaded


def find_folder(source: str) -> Path | None:
    """The folder that a source names; None if it is a name on the Hub, such as stabilityai/sdxl-turbo.

    Raises FileNotFoundError for a path where nothing is, ValueError for a file.
    """
    path = Path(source).expanduser()
    if path.is_dir():
        return path
    if path.exists():
        raise ValueError(
            f"{source!r} is a file, wanted a folder: read it with diffusers' from_single_file and write the folder "
            "with save_pretrained"
        )
    if re.fullmatch(r"\w[\w.-]*/[\w.-]+", source, re.ASCII) and not path.parent.is_dir():
        return None
    raise FileNotFoundError(
        f"there is no folder {source!r}: give one written by save_pretrained, or a name on the Hub (owner/model)"
    )


def has_variant(file: Path) -> bool:
    """Whether a file of weights is of the variant fp16."""
    return ".fp16" in file.name


def tensors_in(folder: Path, variant: str | None = None) -> dict[str, tuple[str, list[int]]]:
    """Type (in safetensors' words) and shape by name of the tensors in a folder's files, of variant fp16 or of none.

    Raises ValueError for a damaged file.
    """
    found = {}
    for path in (file for file in folder.glob("*.safetensors") if has_variant(file) == bool(variant)):
        try:
            with safe_open(path, "pt") as file:
                slices = {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118  it is no dict
                found |= {name: (x.get_dtype(), x.get_shape()) for name, x in slices.items()}
        except SafetensorError as error:
            raise ValueError(f"{path} is damaged: {reason_of(error)}") from error
    return found


def _faults(model: nn.Module, report: Mapping[str, Iterable], files: Mapping[str, tuple[str, list[int]]]) -> list[str]:
    empty = {name for name, x in model.state_dict().items() if x.is_meta}  # an index names them, and no file has them
    misshapen = {name for name, *_ in report["mismatched_keys"]}
    faults = {
        "it lacks": {*report["missing_keys"], *empty} - misshapen,
        "it has no place for": list(report["unexpected_keys"]),
        "of another shape are": misshapen,
        "integers stand in": [name for name, (dtype, _) in files.items() if not _may_be_weights(name, dtype)],
    }
    if not any(faults.values()):
        floats = {name: x for name, x in model.state_dict().items() if x.is_floating_point() and x.numel()}
        broken = [name for name, x in floats.items() if not torch.stack(x.aminmax()).isfinite().all()]
        faults["NaN or infinity stands in"] = broken
    return [f"{what} {_some(names)}" for what, names in faults.items() if names]


def _may_be_weights(name: str, dtype: str) -> bool:
    """The libraries take integers for weights; only positions are meant to be integers."""
    return dtype.startswith(("F", "BF")) or name.endswith("position_ids")


def _faults_of_tokenizer(tokenizer: Any) -> list[str]:
    """Words are missing if there are none; merges if they do not make every word that is longer than a letter."""
    model = json.loads(tokenizer.backend_tokenizer.to_str())["model"]
    listed = model["vocab"] if isinstance(model["vocab"], dict) else [word for word, _ in model["vocab"]]  # T5: scores
    words = set(listed) - {*tokenizer.all_special_tokens, *tokenizer.get_added_vocab()}
    if not words:
        return ["it lacks its words"]
    made = {"".join(merge) for merge in model["merges"]} if "merges" in model else words
    lost = [word for word in words - made if len(word.removesuffix("</w>")) > 1]
    return [f"it lacks the merges of {_some(lost)}"] if lost else []


def _some(names: Collection[str]) -> str:
    rest = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return ", ".join(sorted(names)[:_NAMED]) + rest
