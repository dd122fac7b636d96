"""What a reproducer reads at the end: how the results of this run compare with those in git.

A result holds its numbers under keys, one number or lists of numbers under each. The numbers under one key
are compared together:

    difference = max |fresh - committed| / max(|fresh|, |committed|)      both maxima over all numbers under the key

so that a bin of a histogram next to zero is not judged by its own tiny size. 0 is equal, 0.01 is one per cent; 2, the
largest, is the same number with the other sign. Whole numbers (counts, seeds, numbers of pictures and features), names,
gaps (None) and lists of another length have no such size: they are equal or not. A key with at least one decimal number
is decimal, and 1 equals 1.0. The order of keys means nothing.
"""

import io
import json
import math
import subprocess
import tarfile
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from statistics import median
from typing import Any, NamedTuple

from sae_lib.cache.artefact import ROOT
from sae_lib.companion.verdicts import bare

Record = Mapping[str, Any]
WITHIN = "every verdict's value is within its committed 95 % interval"
REASON = "Trained SAEs differ in the last digits from one processor to another, and then single features do too."
OTHER = "The parameters were not those of the committed run."
GONE = object()
"""Stands for a value that one of the two results lacks."""


class Difference(NamedTuple):
    """How far the decimal numbers under one key differ."""

    size: float
    """Between 0, equal, and 2."""
    place: str
    """Figure and key, as in "figure3: curves > turbo/mid.0"."""


@dataclass
class Comparison:
    """The results of one notebook beside the committed ones; made by `compare`."""

    comparable: bool = True
    """False at smoke and sdxl scale and in rehearsals, whose figures git does not have."""
    figures: int = 0
    """Number of figures that both have."""
    new: list[str] = field(default_factory=list)
    """Figures that git has no record of."""
    missing: list[str] = field(default_factory=list)
    """Figures that git has a record of and this run did not make."""
    decimals: list[Difference] = field(default_factory=list)
    """One difference per key with decimal numbers, also where they are equal."""
    parameters: bool = False
    """Whether a result was made with other parameters than the committed one."""
    exact: int = 0
    """Number of keys with counts, names or gaps."""
    unequal: list[str] = field(default_factory=list)
    """Places where counts, names, gaps or lengths differ, and places that only one of the two has."""
    changed: list[str] = field(default_factory=list)
    """Verdicts whose word changed, as in "Base: the overlap rises: holds -> fails"."""
    outside: list[str] = field(default_factory=list)
    """Claims whose verdict has the same word, but a value outside the committed 95 % interval."""

    @property
    def largest(self) -> Difference:
        """The largest difference of decimal numbers; its size is 0 where there is none."""
        return max(self.decimals, key=lambda difference: difference.size, default=Difference(0.0, ""))

    @property
    def median(self) -> float:
        """The median difference: half of the keys with decimal numbers differ by at most this."""
        return median(difference.size for difference in self.decimals) if self.decimals else 0.0

    @property
    def word(self) -> str:
        """The first of these that is true: not compared, new, verdict changed, missing, differs, close, equal.

        close: the verdicts' words are as committed, and their values are within the committed 95 % intervals. differs:
        a value is outside. Neither word concerns numbers without a verdict; the median and the largest difference do.
        """
        if not self.comparable or not (self.figures or self.new or self.missing):
            return "not compared"
        if self.new and not (self.figures or self.missing):
            return "new"
        if self.changed:
            return "verdict changed"
        if self.missing:
            return "missing"
        if self.outside:
            return "differs"
        return "close" if self.largest.size or self.unequal else "equal"

    def __str__(self) -> str:
        """The word and its details, short enough for a table."""
        details = {"verdict changed": f": {'; '.join(self.changed)}", "missing": f": {', '.join(self.missing)}"}
        sizes = f", median {_per_cent(self.median)}, up to {_per_cent(self.largest.size)}"
        names = f" but for {len(self.unequal)} of {self.exact} counts and names"
        details |= dict.fromkeys(("differs", "close"), sizes if self.largest.size else names)
        more = f", {len(self.new)} new" if self.new and self.word != "new" else ""
        return self.word + details.get(self.word, "") + more


def committed_records(notebook: str) -> dict[str, dict[str, Any]]:
    """The notebook's records in git's HEAD by the figure's name; empty without git or where HEAD has none."""
    archive = _git("archive", "--format=tar", "HEAD", f":(glob)figures/{notebook}/*.json")
    if not archive:
        return {}
    with tarfile.open(fileobj=io.BytesIO(archive)) as files:
        records = [member for member in files if member.isfile()]
        return {PurePosixPath(member.name).stem: json.load(files.extractfile(member)) for member in records}


def _git(*arguments: str) -> bytes | None:
    """What git prints in the clone's root; None where the command fails, such as without git or a repository."""
    try:
        return subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError):
        return None


def compare(committed: Mapping[str, Record], fresh: Mapping[str, Record]) -> Comparison:
    """Compares one notebook's records of this run with the committed ones, both by the figure's name."""
    if any(record["run"]["scale"] != "pocket" or _rehearsed(record) for record in fresh.values()):
        return Comparison(comparable=False)
    comparison = Comparison(new=sorted(set(fresh) - set(committed)), missing=sorted(set(committed) - set(fresh)))
    for figure in sorted(set(committed) & set(fresh)):
        old, new = committed[figure]["result"], fresh[figure]["result"]
        comparison.figures += 1
        comparison.parameters |= _other_parameters(committed[figure], fresh[figure])
        _compare_verdicts(comparison, _by_claim(old), _by_claim(new))
        for keys, *pair in _leaves(_with_numbers_of_verdicts(old), _with_numbers_of_verdicts(new)):
            _compare_leaf(comparison, f"{figure}: {' > '.join(keys)}", *pair)
    return comparison


def _rehearsed(record: Record) -> bool:
    return record["run"]["parameters"]["source"].startswith("random")


def _other_parameters(committed: Record, fresh: Record) -> bool:
    """Whether a parameter has another value. One that only one of the two has was added to the notebook in between."""
    old, new = committed["run"]["parameters"], fresh["run"]["parameters"]
    return any(old[name] != new[name] for name in old.keys() & new.keys())


def _by_claim(result: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    return {verdict["claim"]: verdict for verdict in result["verdicts"]}


def _compare_verdicts(comparison: Comparison, committed: Mapping[str, Record], fresh: Mapping[str, Record]) -> None:
    for claim in filter(fresh.__contains__, committed):
        old, new = committed[claim], fresh[claim]
        low, high = old["interval"]
        if old["word"] != new["word"]:
            comparison.changed.append(f"{claim}: {bare(old['word'])} -> {bare(new['word'])}")
        elif not low <= new["value"] <= high:
            comparison.outside.append(claim)


def _with_numbers_of_verdicts(result: Mapping[str, Any]) -> dict[str, Any]:
    """The result with each verdict's value and interval under its claim, without its word, which
    is compared by itself."""
    numbers = {claim: [verdict["value"], *verdict["interval"]] for claim, verdict in _by_claim(result).items()}
    return {**result, "verdicts": numbers}


def _leaves(committed: Any, fresh: Any, keys: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any, Any]]:
    """Every key that holds no further keys, with the values of both under it; GONE where one of them lacks the key.

    In a list that has keys inside, the places count as keys.
    """
    old, new = _with_keys(committed), _with_keys(fresh)
    if old is None or new is None:
        yield keys, committed, fresh
        return
    for key in {**old, **new}:
        yield from _leaves(old.get(key, GONE), new.get(key, GONE), (*keys, key))


def _with_keys(value: Any) -> Mapping[str, Any] | None:
    if isinstance(value, list) and any(_with_keys(item) is not None for item in value):
        return {str(place): item for place, item in enumerate(value)}
    return value if isinstance(value, Mapping) else None


def _compare_leaf(comparison: Comparison, place: str, committed: Any, fresh: Any) -> None:
    if _shape(committed) != _shape(fresh):
        comparison.exact += 1
        comparison.unequal.append(place)
        return
    pairs = list(zip(_items(committed), _items(fresh), strict=True))
    if any(isinstance(item, float) for pair in pairs for item in pair):
        numbers = [pair for pair in pairs if all(map(_is_number, pair))]
        pairs = [pair for pair in pairs if not all(map(_is_number, pair))]
        comparison.decimals += [Difference(_difference(numbers), place)] * bool(numbers)
    if pairs:
        comparison.exact += 1
        comparison.unequal += [place] * any(json.dumps(old) != json.dumps(new) for old, new in pairs)


def _shape(value: Any) -> Any:
    """The nested lengths of lists; all other values have the same shape."""
    return tuple(map(_shape, value)) if isinstance(value, list) else "gone" if value is GONE else "item"


def _items(value: Any) -> list[Any]:
    return [item for part in value for item in _items(part)] if isinstance(value, list) else [value]


def _is_number(item: Any) -> bool:
    return isinstance(item, int | float) and not isinstance(item, bool) and math.isfinite(item)


def _difference(pairs: Sequence[tuple[float, float]]) -> float:
    """The formula at the top of this file; 0 where all numbers are 0."""
    largest = max(max(abs(old), abs(new)) for old, new in pairs)
    return max(abs(new - old) for old, new in pairs) / largest if largest else 0.0


def conclusion(comparisons: Mapping[str, Comparison]) -> str:
    """A few sentences about all comparisons, by the notebook's name; the last has the command that undoes the run."""
    compared = {name: comparison for name, comparison in comparisons.items() if comparison.word != "not compared"}
    if not compared:
        return "Results not compared: git has those of the pocket scale with the shipped models only."
    if _git("rev-parse", "--verify", "HEAD") is None:
        return "No git: nothing to compare with."
    return " ".join(filter(None, (_verdicts(compared), _counts(compared), _differences(compared), _way_back())))


def _verdicts(compared: Mapping[str, Comparison]) -> str:
    """Verdicts that changed and figures that are missing; empty without any."""
    lists = {"changed": [], "outside": [], "missing": []}
    for kind, items in lists.items():
        items += [f"{name}: {item}" for name, comparison in compared.items() for item in getattr(comparison, kind)]
    sentences = {
        "changed": f"{_count(lists['changed'], 'verdict')} changed: ",
        "outside": "The same word, but a value outside the committed 95 % interval: ",
        "missing": f"{_count(lists['missing'], 'committed figure')} not made: ",
    }
    return " ".join(f"{sentences[kind]}{'; '.join(items)}." for kind, items in lists.items() if items)


def _counts(compared: Mapping[str, Comparison]) -> str:
    """How many notebooks have the committed results, and how many figures have no record in git."""
    equal = sum(comparison.word == "equal" for comparison in compared.values())
    new = [figure for comparison in compared.values() for figure in comparison.new]
    if equal == len(compared):
        lines = [f"{f'All {equal} notebooks have' if equal > 1 else 'The notebook has'} the committed results."]
    else:
        lines = [f"{equal} of {len(compared)} notebooks {'has' if equal == 1 else 'have'} the committed results."]
    lines += [f"Git has no record of {_count(new, 'figure')}."] if new else []
    return " ".join(lines[len(compared) == 1 and not equal :])


def _differences(compared: Mapping[str, Comparison]) -> str:
    """How large the differences are in the notebooks that have some, and why they are there; empty without any."""
    others = {name: one for name, one in compared.items() if one.largest.size or one.unequal or one.changed}
    if not others:
        return ""
    changed, outside, other = (
        any(getattr(e, k) for e in others.values()) for k in ("changed", "outside", "parameters")
    )
    parts = [] if changed else ["no verdict changed" if outside else f"no verdict changed and {WITHIN}"]
    name = max(others, key=lambda name: others[name].largest.size)
    sizes = [difference.size for one in others.values() for difference in one.decimals]
    if largest := others[name].largest.size:
        parts.append(f"half of the numbers differ by at most {_per_cent(median(sizes))}, single ones by up to")
        parts[-1] += f" {_per_cent(largest)} ({name}, {others[name].largest.place})"
    unequal, exact = sum(len(one.unequal) for one in others.values()), sum(one.exact for one in others.values())
    parts += [f"{unequal} of {exact} counts and names are different"] if unequal else []
    which = f"{len(others)} differ" if len(others) > 1 else "1 differs" if len(compared) > 1 else "The notebook differs"
    return f"{which}: {'; '.join(parts)}. {OTHER if other else REASON}"


def _way_back() -> str:
    """The command that brings the committed files back; empty where none are changed."""
    changed = (_git("diff", "--name-only", "--", "figures") or b"").splitlines()
    return f"`git restore figures` brings {_count(changed, 'committed file')} back." if changed else ""


def _count(things: Collection[Any], word: str) -> str:
    return f"{len(things)} {word}{'' if len(things) == 1 else 's'}"


def _per_cent(share: float) -> str:
    """With two digits, or all before the point. Records have six digits, so less than a thousandth is rounding."""
    if 0 < share < 1e-5:
        return "0.001 %"
    return f"{100 * share:.0f} %" if share >= 0.1 or not share else f"{100 * share:.2g} %"
