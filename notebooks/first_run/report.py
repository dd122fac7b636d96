"""The report: one page that needs nothing else, and one JSON, both written whole or not at all."""

import base64
import json
import math
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from notebooks.first_run.judging import AGREES, DIFFERS, FAILED, REHEARSAL, UNPUBLISHED, WORDS, Comparison, Record
from sae_lib.cache.artefact import write_together

HERE = Path(__file__).parent
BOOK_STYLE = HERE.parent / "book" / "book.css"
"""Its colours and type, up to the frame, are the report's too."""
PAGE = "first_run.html"
ADVICE = "Nothing in this report may be taken for a result: weights are random and counts are cut."
MARKS = {AGREES: "✓", DIFFERS: "≠", UNPUBLISHED: "–", FAILED: "✕", "not run": "○", REHEARSAL: "–"}
"""Signs beside the words, for whoever does not see the colours."""


def summary(records: list[Record], rehearsal: bool) -> str:
    """The report's first line."""
    if rehearsal:
        ran = sum(record.verdict == REHEARSAL for record in records)
        return f"{REHEARSAL[0].upper()}{REHEARSAL[1:]}. {ran} of {len(records)} steps ran."
    counts = Counter(record.verdict for record in records)
    return "Of the {} steps: {}.".format(
        len(records), ", ".join(f"{counts[word]} {word}" for word in WORDS if counts[word])
    )


def number(value: float | None) -> str:
    """A number for a reader, in at most four digits; a dash where there is none."""
    if value is None or not math.isfinite(value):
        return "–"
    return f"{value:.4g}" if abs(value) < 1e4 else f"{value:,.0f}"


def duration(seconds: float | None) -> str:
    """Seconds below two minutes, then minutes."""
    return "–" if seconds is None else f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.0f} min"


def headline(record: Record, rehearsal: bool) -> str:
    """How many of a step's numbers agree, and the one that is furthest from what is published."""
    rows = [row for row in record.comparisons if row.expected is not None]
    if not rows:
        return record.error or f"{len(record.comparisons)} numbers of ours, below"
    if rehearsal:
        return f"{len(rows)} {'number' if len(rows) == 1 else 'numbers'} would be compared"
    agree = sum(row.word == AGREES for row in rows)
    far = max(rows, key=distance)
    return f"{agree} of {len(rows)} agree; furthest: {far.name}"


def distance(row: Comparison) -> float:
    """How far the measured number is from the published one, in tolerances; infinity where it is missing."""
    if row.measured is None:
        return math.inf
    return abs(row.measured - row.expected) / (row.tolerance or 1e-9)


def furthest(record: Record) -> Comparison | None:
    """The comparison that is furthest out, of those with a published number."""
    rows = [row for row in record.comparisons if row.expected is not None]
    return max(rows, key=distance, default=None)


def embed(content: bytes) -> str:
    """A picture as an address that holds it."""
    kind = "png" if content.startswith(b"\x89PNG") else "webp"
    return f"data:image/{kind};base64,{base64.b64encode(content).decode()}"


def page(results: Mapping[str, Any]) -> str:
    """The report as HTML; every text in it is escaped."""
    env = Environment(loader=FileSystemLoader(HERE), autoescape=True, undefined=StrictUndefined)
    env.trim_blocks = env.lstrip_blocks = True
    env.filters |= {"number": number, "duration": duration, "embed": embed}
    style = BOOK_STYLE.read_text().partition("/* Frame */")[0]
    records, rehearsal = results["records"], results["rehearsal"]
    return env.get_template("report.html.j2").render(
        **results,
        style=style,
        summary=summary(records, rehearsal),
        advice=ADVICE if rehearsal else "",
        headlines={record.step: headline(record, rehearsal) for record in records},
        furthest={record.step: furthest(record) for record in records},
        marks=MARKS,
    )


def as_json(results: Mapping[str, Any]) -> dict[str, Any]:
    """The same numbers for a program."""
    records, rehearsal = results["records"], results["rehearsal"]
    return {
        "rehearsal": rehearsal,
        "summary": summary(records, rehearsal),
        "machine": results["machine"],
        "checks": [vars(check) for check in results["checks"]],
        "steps": [record.as_json() for record in records],
    }


def write_report(folder: Path, results: Mapping[str, Any]) -> Path:
    """Writes `first_run.html` and `first_run.json`, together or not at all; gives the page's path."""
    html, content = page(results), json.dumps(as_json(results), indent=1, allow_nan=False) + "\n"

    def write(unfinished: Path) -> None:
        (unfinished / PAGE).write_text(html, encoding="utf-8")
        (unfinished / PAGE).with_suffix(".json").write_text(content, encoding="utf-8")

    write_together(folder, PAGE, write, replace=True)
    return folder / PAGE
