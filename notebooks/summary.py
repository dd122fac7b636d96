"""What `make reproduce` says at its end: a table with one row per notebook, and what a person should do next."""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

from notebooks.comparison import Comparison, committed_records, compare, conclusion
from notebooks.execution import Outcome, shown
from notebooks.progress import clock
from sae_lib.cache.artefact import cache_root
from sae_lib.companion.figures import figure_folder
from sae_lib.companion.run import Run

COLUMNS = ("notebook", "time", "figures", "artefacts made/found", "verdicts", "against the committed records")


def summary(outcomes: Sequence[Outcome], runs: Mapping[str, Run], since: float, copies: Path) -> list[str]:
    """The lines for a run that began at `since` (as of time.time()) and whose executed notebooks are in `copies`."""
    records = {outcome.name: fresh_records(runs[outcome.name], since) for outcome in outcomes}
    against = _comparisons({name: fresh for name, fresh in records.items() if fresh and runs[name].compared_with})
    rows = [COLUMNS, *(_row(outcome, records[outcome.name], against.get(outcome.name, "-")) for outcome in outcomes)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    table = ["  ".join(map(str.ljust, row, widths)).rstrip() for row in rows]
    failures = [outcome.failure for outcome in outcomes if outcome.failure]
    places = [f"The executed copies are in {shown(copies)}/."]
    if any(records.values()):
        folder = _above(figure_folder(runs[outcomes[0].name]), outcomes[0].name)
        places.insert(0, f"The figures are in {shown(folder)}/, as PNG and PDF, each with a JSON record beside it.")
    return [*table, "", *failures, *places, *_conclusion(against), *_left_over()]


def fresh_records(run: Run, since: float) -> dict[str, dict]:
    """The records that a notebook has written since a time (as of time.time()), by the figure's name."""
    files = sorted(figure_folder(run).glob("*.json"))
    # A file's time may be a little older than the clock's.
    return {file.stem: json.loads(file.read_text()) for file in files if file.stat().st_mtime > since - 0.1}


def _row(outcome: Outcome, records: Mapping[str, dict], against: object) -> tuple[str, ...]:
    artefacts = f"{len(outcome.account.made)}/{len(outcome.account.reused)}"
    verdicts = "FAILED" if outcome.failure else _verdicts(records)
    return outcome.name, clock(outcome.seconds), str(len(records)), artefacts, verdicts, str(against)


def _verdicts(records: Mapping[str, dict]) -> str:
    verdicts = [verdict for record in records.values() for verdict in record["result"]["verdicts"]]
    words = Counter(verdict["word"] or "no verdict" for verdict in verdicts)
    return ", ".join(f"{count} {word}" for word, count in sorted(words.items())) or "-"


def _comparisons(records: Mapping[str, Mapping[str, dict]]) -> dict[str, Comparison]:
    return {name: compare(committed_records(name), fresh) for name, fresh in records.items()}


def _conclusion(comparisons: Mapping[str, Comparison]) -> list[str]:
    return [conclusion(comparisons)] if comparisons else []


def _left_over() -> list[str]:
    """A sentence about artefacts with an older kind of key: no run uses them, and they are not deleted unasked."""
    keys = cache_root().glob("artefacts/*/inputs.json")
    outdated = [key for key in keys if "code" not in json.loads(key.read_text())]
    if not outdated:
        return []
    size = sum(file.stat().st_size for key in outdated for file in key.parent.rglob("*") if file.is_file()) / 1e6
    many = "1 artefact" if len(outdated) == 1 else f"{len(outdated)} artefacts"
    return [
        f"The cache holds {many} ({size:,.0f} MB) of an older version, which nothing uses: `make fresh` empties it."
    ]


def _above(folder: Path, name: str) -> Path:
    return next(parent for parent in (folder, *folder.parents) if parent.name == name).parent
