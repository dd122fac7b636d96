"""Where prompts come from: the pocket world's captions, a file, or the paper's data set.

Held-out prompts are never trained on.
"""

import functools
import itertools
import json
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from sae_lib.models.scales import get_scale

LAION = "guangyil/laion-coco-aesthetic"
"""The authors' data set on the Hub (split train, column caption, shuffled with seed 42)."""

LAION_REVISION = "82e12b49d1bcc684a604e92373bffe98adcea0b1"
"""The revision read unless another is named. Later than the data's last change; the authors named none."""

HELD_OUT = 1_000
"""Prompts held out of the pocket world and of the authors' data set; of a file it is the last tenth."""

_SPLIT_SEEDS = {"train": 0, "held-out": 1}
_COLUMNS = ("caption", "prompt", "text")
_HALF_CHARACTER = re.compile("[\ud800-\udfff]")  # half of a pair: no text, though JSON can write it


def load_prompts(scale: str, count: int, split: str = "train", source: str = "") -> list[str]:
    """`count` prompts for training (`"train"`) or for measuring (`"held-out"`); no training prompt is a held-out one.

    At pocket and smoke scale they are captions of the pocket world (held-out ones are of scenes that no model or SAE
    was trained on). At sdxl scale `source` says where they come from:

    - a file, of which the last tenth is held out: text (.txt) with one prompt per line, JSONL (.jsonl, .ndjson) or
      Parquet (.parquet) with a column caption, prompt or text. Lines end at \\n; empty lines and white space around a
      prompt are left out; any other value that is no text is refused;
    - "pocket", for a rehearsal;
    - empty: the authors' data set, streamed from the Hub and shuffled as they do; the first 1,000 are held out;
    - "NAME@REVISION": another revision of that data set than `LAION_REVISION`.

    Raises ValueError for an unknown split, a source at another scale, too few prompts, a file of another format, and a
    line or row that holds no prompt; FileNotFoundError for a missing file, ConnectionError without network.
    """
    get_scale(scale)
    _refuse_unknown_split(split)
    if scale != "sdxl" and source not in ("", "pocket"):
        raise ValueError(f"source {source!r} is for scale 'sdxl'; the {scale} prompts are the pocket world's captions")
    if scale != "sdxl" or source == "pocket":
        return [caption.text for caption in load_pocket_captions(count, split)]
    name, _, revision = source.partition("@")
    if name not in ("", LAION):
        lines = _read_file(Path(source).expanduser())
        cut = len(lines) - len(lines) // 10
        held_out, train = lines[cut:], iter(lines[:cut])
    else:
        stream = _stream_laion(revision or LAION_REVISION)
        held_out = list(itertools.islice(stream, HELD_OUT))
        train = stream
    prompts = held_out if split == "held-out" else _without(train, held_out)
    prompts = list(itertools.islice(prompts, count))
    if len(prompts) < count:
        raise ValueError(
            f"{count} {split} prompts were asked for and {source or LAION} has {len(prompts)}: "
            "ask for fewer, or give a longer file"
        )
    return prompts


def load_pocket_captions(count: int, split: str = "train") -> list:
    """The pocket world's `Caption`s, whose texts `load_prompts` gives; they also say, for the judge, what they state.

    Raises ValueError for an unknown split.
    """
    _refuse_unknown_split(split)
    held_out = _sampled(max(count, HELD_OUT), "held-out", "test")
    if split == "held-out":
        return list(held_out[:count])
    texts = {caption.text for caption in held_out[:HELD_OUT]}  # another scene may be described by the same words
    for extra in (count // 4 + 50, 4 * count + 200):
        captions = [caption for caption in _sampled(count + extra, "train", "train") if caption.text not in texts]
        if len(captions) >= count:
            break
    return captions[:count]


@functools.lru_cache(maxsize=8)
def _sampled(count: int, split: str, of_world: str) -> tuple:
    """Captions of the pocket world, sampled once: a thousand take half a second, and a notebook asks for them often."""
    from sae_lib.pocket.captions import sample_captions

    return tuple(sample_captions(count, _SPLIT_SEEDS[split], of_world))


def _refuse_unknown_split(split: str) -> None:
    if split not in _SPLIT_SEEDS:
        raise ValueError(f"unknown split {split!r}; choose one of {', '.join(_SPLIT_SEEDS)}")


def _without(prompts: Iterable[str], held_out: Iterable[str]) -> Iterable[str]:
    held_out = set(held_out)
    return (prompt for prompt in prompts if prompt not in held_out)


def is_text(value: Any) -> bool:
    """Whether a value from a file is text that a tokenizer takes: a string that is not blank, of characters only."""
    return isinstance(value, str) and value.strip() != "" and "\0" not in value and not _HALF_CHARACTER.search(value)


def parse_json(text: str) -> Any:
    """The value that JSON text states; of a key that stands several times in an object a tuple of all its values.

    Raises ValueError for what is no JSON.
    """

    def gather(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        content = dict(pairs)
        if len(content) < len(pairs):
            for key in content:
                values = tuple(value for other, value in pairs if other == key)
                content[key] = values if len(values) > 1 else values[0]
        return content

    try:
        return json.loads(text, object_pairs_hook=gather)
    except RecursionError as error:
        raise ValueError("too many brackets in one another") from error


def _read_file(path: Path) -> list[str]:
    if not path.is_file():
        raise FileNotFoundError(f"no prompt file {path}: give a text, JSONL or Parquet file")
    if path.suffix.lower() not in _READERS:
        raise ValueError(
            f"the prompt file {path} ends in {path.suffix!r}, wanted .txt (a prompt per line), .jsonl or .ndjson "
            "(an object per line) or .parquet: write it as one of these"
        )
    prompts = []
    for place, prompt in _READERS[path.suffix.lower()](path):
        if not is_text(prompt):
            raise ValueError(f"{place} of {path} holds {prompt!r:.80}, wanted a text: mend it")
        prompts.append(prompt.strip())
    if not prompts:
        raise ValueError(f"the prompt file {path} is empty: give one prompt per line")
    return prompts


def _read_lines(path: Path) -> Iterable[tuple[str, Any]]:
    """Lines end at \\n only: a prompt may hold any other character at which `splitlines` would cut it."""
    try:
        lines = path.read_bytes().decode("utf-8-sig").split("\n")
    except UnicodeDecodeError as error:
        raise ValueError(f"the prompt file {path} is not UTF-8 ({error}): convert it") from error
    return ((f"line {number}", line) for number, line in enumerate(lines, 1) if line.strip())


def _read_objects(path: Path) -> Iterable[tuple[str, Any]]:
    for place, line in _read_lines(path):
        try:
            row = parse_json(line)
            column = next(column for column in _COLUMNS if column in row)
            yield place, row[column]
        except (ValueError, StopIteration, TypeError) as error:
            raise ValueError(f"{place} of {path} is no JSON object with {', '.join(_COLUMNS)}: mend it") from error


def _read_parquet(path: Path) -> Iterable[tuple[str, Any]]:
    import pyarrow
    import pyarrow.parquet

    try:
        names = pyarrow.parquet.read_schema(path).names
        column = next(column for column in _COLUMNS if column in names)
        values = pyarrow.parquet.read_table(path, columns=[column])[column].to_pylist()
    except (pyarrow.ArrowException, OSError, ValueError, KeyError, StopIteration) as error:
        raise ValueError(f"{path} is no Parquet file with a column {', '.join(_COLUMNS)}") from error
    return ((f"row {number}", value) for number, value in enumerate(values, 1))


_READERS = {".txt": _read_lines, ".jsonl": _read_objects, ".ndjson": _read_objects, ".parquet": _read_parquet}
"""By suffix what gives each prompt of a file, and where in it the prompt stands."""


def _stream_laion(revision: str) -> Iterable[str]:
    from datasets import load_dataset

    try:
        rows = load_dataset(LAION, split="train", columns=["caption"], streaming=True, revision=revision)
        for number, row in enumerate(rows.shuffle(seed=42), 1):
            if not isinstance(row["caption"], str):
                raise ValueError(  # noqa: TRY004  no fault of the caller
                    f"row {number} of {LAION} holds {row['caption']!r:.80}, wanted a text"
                )
            yield row["caption"]
    except OSError as error:
        raise ConnectionError(
            f"the data set {LAION} cannot be reached: connect to the internet, or give a prompt file as source. {error}"
        ) from error
