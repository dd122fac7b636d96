"""What figures/ says about the artefacts and their verdicts: nothing here is typed, everything is read."""

import json
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from notebooks.artefacts import records_of
from sae_lib.companion.verdicts import WORDS


@dataclass(frozen=True)
class Finding:
    """A verdict of a record, and the figure that it belongs to."""

    figure: str
    """"04_transfer/figure3"."""
    scale: str
    word: str
    """One of WORDS, without the words that say on which model."""
    whole_word: str
    """With these words, such as "holds on the pocket model"."""
    claim: str
    id: str
    """The paper's claim, such as "C2", or empty."""
    value: str
    interval: str
    published: str
    """The published value and its source; empty if there is none."""


def read_index(figures: Path) -> list[dict[str, Any]]:
    """The rows of figures/index.json. Raises ValueError if it is missing or damaged."""
    path = figures / "index.json"
    try:
        rows = json.loads(path.read_text())
        wanted = {"id", "title", "files", "status", "notebooks"}
        if not (isinstance(rows, list) and rows and all(wanted <= set(row) for row in rows)):
            raise ValueError("it is no list of artefacts")
    except (OSError, ValueError, TypeError) as error:
        raise ValueError(
            f"{path.parent.name}/{path.name} is missing or damaged ({error}): run make notebooks"
        ) from None
    return rows


def titles_of(rows: Iterable[dict[str, Any]]) -> dict[str, str]:
    """By figure ("04_transfer/figure3") the titles of the artefacts that it belongs to."""
    titles_by_file: dict[str, list[str]] = {}
    for row in rows:
        for file in row["files"]:
            titles_by_file.setdefault(file, []).append(f"{row['id']}: {row['title']}")
    return {file: "; ".join(titles) for file, titles in titles_by_file.items()}


def findings(rows: Iterable[dict[str, Any]], figures: Path) -> list[Finding]:
    """The verdicts of all records of the artefacts' figures, each figure once, in the artefacts' order.

    Raises ValueError for a record that cannot be read.
    """
    files = dict.fromkeys(file for row in rows for file in row["files"])
    return [
        _finding(file, scale, verdict)
        for file in files
        for scale, record in records_of(file, figures)
        for verdict in _verdicts(record)
    ]


def _verdicts(record: Path) -> list[dict[str, Any]]:
    try:
        return json.loads(record.read_text())["result"]["verdicts"]
    except (ValueError, KeyError, TypeError):
        raise ValueError(f"figures/{record.parent.name}/{record.name} is damaged: run make notebooks") from None


def _finding(figure: str, scale: str, verdict: dict[str, Any]) -> Finding:
    whole_word = verdict["word"] or "no verdict"
    word = next((word for word in WORDS if whole_word.startswith(word)), whole_word)
    low, high = verdict["interval"]
    published = verdict.get("published")
    beside = "" if published is None else f"{published:.3g} ({verdict.get('source', 'no source')})"
    interval = f"{low:.3g} to {high:.3g}"
    claim, id = verdict["claim"], verdict.get("id", "")
    return Finding(figure, scale, word, whole_word, claim, id, f"{verdict['value']:.3g}", interval, beside)


def counted(words: Iterable[str]) -> dict[str, int]:
    """How often each word occurs, in the order of WORDS."""
    counts = Counter(words)
    order = sorted(counts, key=lambda word: WORDS.index(word) if word in WORDS else len(WORDS))
    return {word: counts[word] for word in order}


def claims_of(figures: Path) -> dict[str, dict[str, Any]]:
    """The paper's claims with their words from the scorecard's record; empty if there is none."""
    path = figures / "99_scorecard" / "scorecard.json"
    return json.loads(path.read_text())["result"]["claims"] if path.is_file() else {}
