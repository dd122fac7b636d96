"""Where prompts come from: the pocket world's captions, a text file, or the paper's data set."""

import itertools
from pathlib import Path

from sae_lib.scales import get_scale

LAION = "guangyil/laion-coco-aesthetic"
"""The authors' data set on the Hub (split train, column caption, shuffled with seed 42)."""

_SPLIT_SEEDS = {"train": 0, "held-out": 1}


def load_prompts(scale: str, count: int, split: str = "train", source: str = "") -> list[str]:
    """`count` prompts for training (`"train"`) or for measuring (`"held-out"`); the two never share a prompt's scene.

    pocket and smoke: captions of the pocket world (held-out ones are of scenes that no model or SAE was trained on).
    sdxl: `source` is a text file with one prompt a line, of which the last tenth is held out; `"pocket"` for a rehearsal;
    empty for the authors' data set, streamed from the Hub, of which the first 1,000 are held out.

    Raises ValueError for an unknown split or too few prompts, FileNotFoundError for a missing file, ConnectionError without network.
    """
    get_scale(scale)
    _refuse_unknown_split(split)
    if scale != "sdxl" or source == "pocket":
        return [caption.text for caption in load_pocket_captions(count, split)]
    prompts = _read_file(Path(source), split) if source else _stream_laion(count, split)
    if len(prompts) < count:
        raise ValueError(
            f"{count} {split} prompts were asked for and {source or LAION} has {len(prompts)}: ask for fewer, or give a longer file"
        )
    return prompts[:count]


def load_pocket_captions(count: int, split: str = "train") -> list:
    """The pocket world's `Caption`s, which say what each of them states, for the judge; their texts are what `load_prompts` gives.

    Raises ValueError for an unknown split.
    """
    from sae_lib.pocket.captions import sample_captions

    _refuse_unknown_split(split)
    return sample_captions(count, _SPLIT_SEEDS[split], "train" if split == "train" else "test")


def _refuse_unknown_split(split: str) -> None:
    if split not in _SPLIT_SEEDS:
        raise ValueError(f"unknown split {split!r}; choose one of {', '.join(_SPLIT_SEEDS)}")


def _read_file(path: Path, split: str) -> list[str]:
    if not path.is_file():
        raise FileNotFoundError(f"no prompt file {path}: give a text file with one prompt a line")
    try:
        lines = [line.strip() for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    except UnicodeDecodeError as error:
        raise ValueError(f"the prompt file {path} is not UTF-8 ({error}): convert it") from error
    cut = len(lines) - len(lines) // 10
    return lines[:cut] if split == "train" else lines[cut:]


def _stream_laion(count: int, split: str) -> list[str]:
    from datasets import load_dataset

    try:
        rows = load_dataset(LAION, split="train", streaming=True).shuffle(seed=42)
        first = 0 if split == "held-out" else 1_000
        return [row["caption"] for row in itertools.islice(rows, first, first + count)]
    except OSError as error:
        raise ConnectionError(
            f"the data set {LAION} cannot be reached: connect to the internet, or give a prompt file as source. {error}"
        ) from error
