"""Where prompts come from: the pocket world's captions, a file, or the paper's data set.

Held-out prompts are never trained on.
"""

import functools
import itertools
import json
from collections.abc import Iterable
from pathlib import Path

from sae_lib.models.scales import get_scale

LAION = "guangyil/laion-coco-aesthetic"
"""The authors' data set on the Hub (split train, column caption, shuffled with seed 42)."""

LAION_REVISION = "82e12b49d1bcc684a604e92373bffe98adcea0b1"
"""The revision read unless another is named. Later than the data's last change; the authors named none."""

HELD_OUT = 1_000
"""Prompts held out of the pocket world and of the authors' data set; of a file it is the last tenth."""

_SPLIT_SEEDS = {"train": 0, "held-out": 1}
_COLUMNS = ("caption", "prompt", "text")


def load_prompts(scale: str, count: int, split: str = "train", source: str = "") -> list[str]:
    """`count` prompts for training (`"train"`) or for measuring (`"held-out"`); no training prompt is a held-out one.

    At pocket and smoke scale they are captions of the pocket world (held-out ones are of scenes that no model or SAE
    was trained on). At sdxl scale `source` says where they come from:

    - a file, of which the last tenth is held out: text with one prompt per line, or JSONL or Parquet with a column
      caption, prompt or text;
    - "pocket", for a rehearsal;
    - empty: the authors' data set, streamed from the Hub and shuffled as they do; the first 1,000 are held out;
    - "NAME@REVISION": another revision of that data set than `LAION_REVISION`.

    Raises ValueError for an unknown split, too few prompts, or a damaged file; FileNotFoundError for a missing file,
    ConnectionError without network.
    """
    get_scale(scale)
    _refuse_unknown_split(split)
    if scale != "sdxl" or source == "pocket":
        return [caption.text for caption in load_pocket_captions(count, split)]
    if source and not source.startswith(LAION):
        lines = list(_read_file(Path(source)))
        cut = len(lines) - len(lines) // 10
        held_out, train = lines[cut:], iter(lines[:cut])
    else:
        stream = _stream_laion(source.removeprefix(LAION).removeprefix("@") or LAION_REVISION)
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


def _read_file(path: Path) -> Iterable[str]:
    if not path.is_file():
        raise FileNotFoundError(f"no prompt file {path}: give a text, JSONL or Parquet file")
    if path.suffix == ".parquet":
        return _read_parquet(path)
    try:
        lines = [line.strip() for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    except UnicodeDecodeError as error:
        raise ValueError(f"the prompt file {path} is not UTF-8 ({error}): convert it") from error
    if path.suffix == ".jsonl":
        lines = [_prompt_of(line, path, number) for number, line in enumerate(lines, 1)]
    if not lines:
        raise ValueError(f"the prompt file {path} is empty: give one prompt per line")
    return lines


def _prompt_of(line: str, path: Path, number: int) -> str:
    try:
        row = json.loads(line)
        return next(row[column] for column in _COLUMNS if column in row)
    except (json.JSONDecodeError, StopIteration, TypeError) as error:
        raise ValueError(f"line {number} of {path} is no JSON object with {', '.join(_COLUMNS)}: mend it") from error


def _read_parquet(path: Path) -> list[str]:
    import pyarrow
    import pyarrow.parquet

    try:
        names = pyarrow.parquet.read_schema(path).names
        column = next(column for column in _COLUMNS if column in names)
        return [text.strip() for text in pyarrow.parquet.read_table(path, columns=[column])[column].to_pylist() if text]
    except (pyarrow.ArrowInvalid, StopIteration) as error:
        raise ValueError(f"{path} is no Parquet file with a column {', '.join(_COLUMNS)}") from error


def _stream_laion(revision: str) -> Iterable[str]:
    from datasets import load_dataset

    try:
        rows = load_dataset(LAION, split="train", columns=["caption"], streaming=True, revision=revision)
        for row in rows.shuffle(seed=42):
            yield row["caption"]
    except OSError as error:
        raise ConnectionError(
            f"the data set {LAION} cannot be reached: connect to the internet, or give a prompt file as source. {error}"
        ) from error
