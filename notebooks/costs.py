"""What each notebook costs: as last measured on this machine, otherwise as committed in `notebooks/costs.json`."""

import json
import math
from collections.abc import Collection, Iterable
from pathlib import Path
from typing import NamedTuple

from filelock import FileLock

from notebooks.execution import Outcome
from sae_lib.cache.artefact import cache_root, write_if_changed

COMMITTED = Path(__file__).resolve().with_name("costs.json")


class Cost(NamedTuple):
    """What a run of a notebook takes."""

    seconds: float = 60.0
    """Time on one core."""
    peak_gb: float = 1.0
    """The most memory that its kernel had at once, in 10^9 bytes."""


class Counts(NamedTuple):
    """What a notebook computes at smoke scale from an empty cache: the same on every machine, unlike seconds."""

    forward_passes: int
    """Rows that go into the U-Net."""
    sae_steps: int
    """Training steps."""

    def differences(self, committed: "Counts") -> list[str]:
        """A sentence for each count that differs from the committed one by more than a tenth."""
        return [
            f"{now:,} {kind.replace('_', ' ')}, {then:,} are committed"
            for kind, now, then in zip(self._fields, self, committed, strict=True)
            if 10 * abs(now - then) > then
        ]


def known(scale: str) -> dict[str, Cost]:
    """The costs of the notebooks at a scale, by name; a notebook of unknown cost is left out."""
    return committed(scale) | _costs(measured_file(), scale)


def committed(scale: str) -> dict[str, Cost]:
    """The costs that are committed, by name."""
    return _costs(COMMITTED, scale)


def _costs(file: Path, scale: str) -> dict[str, Cost]:
    entries = _read(file).get(scale, {}).items()
    return {name: Cost(entry["seconds"], entry["peak_gb"]) for name, entry in entries if "seconds" in entry}


def measured_file() -> Path:
    """The file with the times of this machine."""
    return cache_root() / "run_times.json"


def keep(scale: str, outcomes: Iterable[Outcome]) -> None:
    """Remember what notebooks took on this machine; what is known about others stays."""
    file = measured_file()
    file.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{file}.lock"):
        _write(file, scale, {outcome.name: _entry(outcome) for outcome in outcomes if not outcome.failure})


def commit(outcomes: Iterable[Outcome], there_before: Collection[str], file: Path = COMMITTED) -> None:
    """Write what notebooks took at pocket scale into the committed file, rounded so that it seldom changes.

    A notebook that reused an artefact that was `there_before` the run took less time than it costs: its
    entry stays as it was.
    """
    fresh = [one for one in outcomes if not one.failure and not set(one.account.reused) & set(there_before)]
    _write(file, "pocket", {outcome.name: _rounded(outcome) for outcome in fresh})


def counts(file: Path = COMMITTED) -> dict[str, Counts]:
    """What the notebooks compute at smoke scale, by name."""
    entries = _read(file).get("smoke", {}).items()
    return {name: Counts(*map(entry.get, Counts._fields)) for name, entry in entries if "sae_steps" in entry}


def commit_counts(outcome: Outcome, file: Path = COMMITTED) -> None:
    """Write what a notebook computed at smoke scale, from an empty cache, into the committed file."""
    _write(file, "smoke", {outcome.name: counts_of(outcome)._asdict()})


def counts_of(outcome: Outcome) -> Counts:
    """What a run computed."""
    return Counts(*(getattr(outcome.account, kind) for kind in Counts._fields))


def _entry(outcome: Outcome) -> dict[str, float]:
    return {"seconds": round(outcome.seconds, 1), "peak_gb": round(outcome.account.peak_gb, 2)}


def _rounded(outcome: Outcome) -> dict[str, float]:
    digits = 1 - math.floor(math.log10(max(outcome.seconds, 1)))
    return {"seconds": int(round(outcome.seconds, digits)), "peak_gb": round(outcome.account.peak_gb, 1)}


def _read(file: Path) -> dict[str, dict[str, dict]]:
    try:
        return json.loads(file.read_text())
    except (FileNotFoundError, json.JSONDecodeError):
        return {}


def _write(file: Path, scale: str, entries: dict[str, dict]) -> None:
    everything = _read(file)
    of_scale = everything.get(scale, {})
    everything[scale] = {name: of_scale.get(name, {}) | entries.get(name, {}) for name in sorted({*of_scale, *entries})}
    write_if_changed(file, (json.dumps(everything, indent=1) + "\n").encode())
