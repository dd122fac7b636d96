"""A claim, its rule, which is written down before the run, and the verdict that a number gets by it."""

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from sae_lib.companion.run import Run

WORDS = ("holds", "fails", "undecided", "reproduced", "close", "not reproduced", "not published", "no verdict")
"""First words of all verdicts, in the order in which they are shown."""

SOURCES = ("code", "code-flux", "riebench", "audit", "digitised", "checkpoint", "reported")
"""Where a published number may come from; a less certain number is never printed as published."""


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
    """The paper's claim that it bears on, "C1" to "C14"; empty if it is ours alone."""
    at_least: float | None = None
    at_most: float | None = None
    """The rule's bounds; None where there is no bound on that side."""
    primary: bool = False
    """Whether it decides the paper's claim."""
    control: str = ""
    """What could have passed the rule as well, and is therefore subtracted or shown beside it."""

    def __str__(self) -> str:
        low, high = self.interval
        published = "" if self.published is None else f"; published {self.published:.4g} [{self.source}]"
        numbers = f"{self.value:.4g}, 95 % {low:.4g} to {high:.4g}; {self.rule}{published}"
        return f"{self.word or 'no verdict'}: {self.claim} ({numbers})"

    @property
    def yes_or_no(self) -> str:
        """Whether the claim is right, for the first word of an answer: "Yes", "Nearly", "No" or "Undecided".

        Where no number is published, the rule's bounds decide, as they do on the pocket model.
        """
        word = bare(self.word)
        if word == "not published":
            at_least = -math.inf if self.at_least is None else self.at_least
            word = _by_bounds(self.interval, at_least, math.inf if self.at_most is None else self.at_most)
        words = {"holds": "Yes", "reproduced": "Yes", "close": "Nearly", "fails": "No", "not reproduced": "No"}
        return words.get(word, "Undecided")

    @property
    def rule(self) -> str:
        """The bounds in words, such as "wanted: at least 0.15"; a bound that only keeps zero out is "above 0"."""
        low, high = self.at_least, self.at_most
        if low is None:
            return f"wanted: at most {high:.4g}"
        if high is None:
            return "wanted: above 0" if 0 < low < 1e-4 else f"wanted: at least {low:.4g}"
        return f"wanted: {low:.4g}" if low == high else f"wanted: {low:.4g} to {high:.4g}"


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
    primary: bool = False
    """Whether this one test, named beforehand, decides the paper's claim; the others of the same id are secondary."""
    control: str = ""
    """What could have passed the rule without the claim being true, and is therefore subtracted: a few words."""

    def __post_init__(self) -> None:
        if not self.at_least <= self.at_most:
            raise ValueError(f"claim {self.text!r}: at_least {self.at_least} is above at_most {self.at_most}")
        if self.at_least == -math.inf and self.at_most == math.inf:
            raise ValueError(f"claim {self.text!r}: give at_least or at_most, or no number could decide it")
        if self.primary and not (self.id and self.control):
            raise ValueError(f"claim {self.text!r}: a primary test needs the id of its claim and a control")
        if self.published is not None and (self.tolerance is None or self.source not in SOURCES):
            raise ValueError(
                f"claim {self.text!r}: a published number needs a tolerance and a source "
                f"(one of {', '.join(SOURCES)}), got {self.tolerance} and {self.source!r}"
            )

    def judge(self, run: Run, value: float, interval: tuple[float, float]) -> Verdict:
        """The verdict of this run's value, with its 95 % interval.

        Raises ValueError if a number is not finite or the interval is the wrong way round.
        """
        low, high = interval
        if not all(map(math.isfinite, (value, low, high))) or low > high:
            raise ValueError(f"claim {self.text!r}: value {value} with interval {low} to {high} decides nothing")
        bounds = (bound if math.isfinite(bound) else None for bound in (self.at_least, self.at_most))
        word = self._word(run, value, low, high)
        about = self.published, self.source, self.id, *bounds, self.primary, self.control
        return Verdict(self.text, word, value, (low, high), *about)

    def _word(self, run: Run, value: float, low: float, high: float) -> str | None:
        if run.compared_with is None:
            return None
        if run.compared_with == "pocket":
            return f"{_by_bounds((low, high), self.at_least, self.at_most)} on the pocket model"
        if self.published is None:
            return "not published"
        distance = abs(value - self.published) / self.tolerance
        return "reproduced" if distance <= 1 else "close" if distance <= 2 else "not reproduced"


def _by_bounds(interval: tuple[float, float], at_least: float, at_most: float) -> str:
    """The word of a whole interval: it lies within the bounds, outside of them, or neither."""
    low, high = interval
    if at_least <= low and high <= at_most:
        return "holds"
    return "fails" if high < at_least or low > at_most else "undecided"


def bare(word: str | None) -> str:
    """A verdict's word without the model that it was found on: "holds" of "holds on the pocket model"."""
    return (word or "no verdict").removesuffix(" on the pocket model")


def in_words(words: Iterable[str | None]) -> str:
    """How often each word was given, as one says it: "8 hold, 1 fails, 2 undecided"; empty without words."""
    counts = Counter(map(bare, words))
    several = {"holds": "hold", "fails": "fail"}
    found = [word for word in WORDS if counts[word]]
    return ", ".join(f"{counts[word]} {several.get(word, word) if counts[word] > 1 else word}" for word in found)


def margin(value: float, interval: Sequence[float], at_least: float | None, at_most: float | None) -> tuple[float, ...]:
    """How far a value and the ends of its 95 % interval are inside a rule, in half-widths of the interval.

    The value fails the rule below -1 and holds above 1. Of two bounds the nearer one counts. The half-width is at least
    a thousandth of the value's distance from the bound.
    """
    sides = [(at_least, 1.0), (at_most, -1.0)]
    bound, sign = min(((b, s) for b, s in sides if b is not None), key=lambda side: side[1] * (value - side[0]))
    inside = sorted(sign * (end - bound) for end in interval)
    half = max((inside[1] - inside[0]) / 2, 1e-3 * abs(value - bound), 1e-12)
    return tuple(distance / half for distance in (sign * (value - bound), *inside))


def holm(p_values: Mapping[str, float], level: float = 0.05) -> dict[str, bool]:
    """Which of several tests are significant when all are made at once (Holm 1979).

    Tests are gone through by rising p-value until one is not significant.
    """
    significant, rest = dict.fromkeys(p_values, False), len(p_values)
    for name in sorted(p_values, key=p_values.__getitem__):
        if p_values[name] > level / rest:
            break
        significant[name], rest = True, rest - 1
    return significant


def decide(margins: Mapping[str, float], level: float = 0.05) -> dict[str, str]:
    """The words of several primary tests that are made at once, from the `margin` of their values.

    They are "holds" or "fails" where Holm's procedure allows it, else "undecided". A margin of 1 is half of a 95 %
    interval, 1.96 standard errors. A test may decide in both directions, so it counts once, with its two-sided p.
    """
    p_values = {name: 2 * (1 - _normal(1.959964 * abs(distance))) for name, distance in margins.items()}
    return {
        name: ("holds" if margins[name] > 0 else "fails") if sure else "undecided"
        for name, sure in holm(p_values, level).items()
    }


def _normal(z: float) -> float:
    return 0.5 * (1 + math.erf(z / math.sqrt(2)))
