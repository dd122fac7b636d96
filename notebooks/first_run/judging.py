"""What was measured beside what is published: the words "agrees" and "differs", and the record of a step."""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from sae_lib.cache.artefact import ROOT
from sae_lib.companion.verdicts import SOURCES

AGREES, DIFFERS = "agrees", "differs"
UNPUBLISHED = "no published number"
NOT_RUN = "not run"
FAILED = "failed"
REHEARSAL = "rehearsal: random weights, no science"
WORDS = (AGREES, DIFFERS, UNPUBLISHED, NOT_RUN, FAILED, REHEARSAL)
"""All verdicts of a step."""


def published(name: str) -> dict[str, Any]:
    """The published numbers of `figures/results/<name>_published.json`, or of RIEBench's preliminary points."""
    folder = ROOT / "figures" / "results"
    paths = (folder / f"{name}_published.json", folder / f"{name}.json")
    return json.loads(next(path for path in paths if path.is_file()).read_text())


@dataclass(frozen=True)
class Comparison:
    """One number beside the published one."""

    name: str
    measured: float | None
    """None where the run gave no finite number."""
    expected: float | None = None
    """None where no number is published."""
    tolerance: float | None = None
    """The largest difference with which the two agree."""
    source: str = ""
    """The source tag of the published number."""
    control: float | None = None
    """The same number of what should not agree; shown, and it must be outside the tolerance where there is one."""

    def __post_init__(self) -> None:
        if self.expected is not None and (self.tolerance is None or self.source not in SOURCES):
            raise ValueError(
                f"{self.name}: an expected number needs a tolerance and a source (one of {', '.join(SOURCES)}), got "
                f"{self.tolerance} and {self.source!r}"
            )
        if self.measured is not None and not math.isfinite(self.measured):
            object.__setattr__(self, "measured", None)

    @property
    def word(self) -> str:
        """The word "agrees" if the measured number is within the tolerance and its control is not, else "differs"."""
        if self.expected is None:
            return UNPUBLISHED
        if self.measured is None:
            return DIFFERS
        within = abs(self.measured - self.expected) <= self.tolerance + 1e-12
        told_apart = self.control is None or abs(self.control - self.expected) > self.tolerance
        return AGREES if within and told_apart else DIFFERS


@dataclass
class Record:
    """What one step gave, as the report shows it."""

    step: str
    title: str
    verdict: str
    comparisons: Sequence[Comparison] = ()
    tolerance_reason: str = ""
    """Why the tolerance is what it is; of a step without published numbers, how to read it."""
    says: str = ""
    """One sentence with the step's main numbers."""
    error: str = ""
    cause: str = ""
    n: int = 0
    """Number of prompts, or of cases."""
    seed: int | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)
    seconds: float | None = None
    peak_gb: float | None = None
    """In 10^9 bytes the GPU's peak; on a CPU what the process holds at the step's end."""
    expected_minutes: float | None = None
    expected_gb: float | None = None
    reused: bool = False
    """Whether an earlier run measured it."""
    pictures: Sequence[tuple[str, bytes]] = ()
    """PNG or WebP with their alternative texts."""

    def as_json(self) -> dict[str, Any]:
        """Everything but the pictures; comparisons with their words."""
        rows = [asdict(row) | {"verdict": row.word} for row in self.comparisons]
        kept = {name: value for name, value in vars(self).items() if name != "pictures"}
        return kept | {"comparisons": rows, "settings": dict(self.settings)}


def verdict_of(comparisons: Sequence[Comparison], rehearsal: bool = False) -> str:
    """The step's verdict: of a rehearsal none; "agrees" only if all rows with a published number agree."""
    if rehearsal:
        return REHEARSAL
    words = {row.word for row in comparisons} - {UNPUBLISHED}
    return DIFFERS if DIFFERS in words else AGREES if words else UNPUBLISHED
