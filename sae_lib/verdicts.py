"""From numbers to a word, by a rule that is written down before the run."""

import math
from dataclasses import dataclass

from sae_lib.runs import Run

SOURCES = ("code", "code-flux", "riebench", "audit", "digitised", "checkpoint", "reported")
"""Where a published number may come from; anything less certain is never printed as published."""


@dataclass(frozen=True)
class Verdict:
    """A claim with this run's numbers and the word that the claim's rule gave them; made by `Claim.judge`."""

    claim: str
    word: str | None
    """None where the run allows no conclusion (smoke, rehearsal)."""
    value: float
    interval: tuple[float, float]
    """95 % interval of the value."""
    published: float | None
    source: str
    id: str = ""
    """Of the paper's claim that it bears on."""

    def __str__(self) -> str:
        low, high = self.interval
        published = "" if self.published is None else f"; published {self.published:.4g} [{self.source}]"
        return f"{self.word or 'no verdict'}: {self.claim} ({self.value:.4g}, 95 % {low:.4g} to {high:.4g}{published})"


@dataclass(frozen=True)
class Claim:
    """A sentence of the paper and the rule that turns a run's number into a verdict on it.

    On the pocket model, by the whole 95 % interval:
        holds if it satisfies at_least <= value <= at_most, fails if it lies outside, undecided otherwise.
    At sdxl scale with published weights, by the value alone:
        reproduced if |value - published| <= tolerance, close if <= 2 tolerance, not reproduced otherwise,
        not published if there is no number to compare with.
    """

    text: str
    at_least: float = -math.inf
    at_most: float = math.inf
    published: float | None = None
    tolerance: float | None = None
    """In the value's unit: how far the published number itself can be read or was seen to vary."""
    source: str = ""
    """Where the published number comes from, one of SOURCES."""
    id: str = ""
    """The paper's claim that this one tests, "C1" to "C14" of the scorecard; empty if it is ours alone."""

    def __post_init__(self) -> None:
        if not self.at_least <= self.at_most:
            raise ValueError(f"claim {self.text!r}: at_least {self.at_least} is above at_most {self.at_most}")
        if self.at_least == -math.inf and self.at_most == math.inf:
            raise ValueError(f"claim {self.text!r}: give at_least or at_most, or no number could decide it")
        if self.published is not None and (self.tolerance is None or self.source not in SOURCES):
            raise ValueError(
                f"claim {self.text!r}: a published number needs a tolerance and a source (one of {', '.join(SOURCES)}), "
                f"got {self.tolerance} and {self.source!r}"
            )

    def judge(self, run: Run, value: float, interval: tuple[float, float]) -> Verdict:
        """The verdict of this run's value, with its 95 % interval.

        Raises ValueError if a number is not finite or the interval is the wrong way round.
        """
        low, high = interval
        if not all(map(math.isfinite, (value, low, high))) or low > high:
            raise ValueError(f"claim {self.text!r}: value {value} with interval {low} to {high} decides nothing")
        return Verdict(
            self.text, self._word(run, value, low, high), value, (low, high), self.published, self.source, self.id
        )

    def _word(self, run: Run, value: float, low: float, high: float) -> str | None:
        if run.compared_with is None:
            return None
        if run.compared_with == "pocket":
            if self.at_least <= low and high <= self.at_most:
                return "holds on the pocket model"
            outside = high < self.at_least or low > self.at_most
            return f"{'fails' if outside else 'undecided'} on the pocket model"
        if self.published is None:
            return "not published"
        distance = abs(value - self.published) / self.tolerance
        return "reproduced" if distance <= 1 else "close" if distance <= 2 else "not reproduced"
