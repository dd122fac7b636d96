"""The dated register of the rules that turn numbers into words; `python notebooks/register.py` enters new ones.

A rule is a claim's text with its bounds in one notebook. `rules.json` says when each rule was entered, at which commit,
and whether its numbers had been looked at before: a rule that is written after a look proves less. No rule is ever
taken out; a rule that changes is entered again.
"""

import argparse
import json
import subprocess
from collections.abc import Iterator
from datetime import date
from pathlib import Path
from typing import NamedTuple

from sae_lib.cache.artefact import write_if_changed

FOLDER = Path(__file__).resolve().parent
REGISTER = FOLDER / "rules.json"
FIGURES = FOLDER.parent / "figures"
LOOKS = ("before", "after other blocks", "after")
"""When a rule was written: "before" any of its numbers had been seen; "after other blocks", when numbers of the test,
or of one like it, had been seen on other blocks or SAEs only; "after" its own numbers had been seen."""


class Rule(NamedTuple):
    """One entry of the register."""

    notebook: str
    claim: str
    id: str
    primary: bool
    at_least: float | None
    at_most: float | None
    control: str
    date: str
    commit: str
    look: str

    @property
    def key(self) -> tuple:
        """The values that a verdict must share with its rule."""
        return self[:7]


def rules() -> list[Rule]:
    """The register, oldest first."""
    return [Rule(**entry) for entry in json.loads(REGISTER.read_text())] if REGISTER.exists() else []


def verdicts() -> Iterator[tuple[str, dict]]:
    """Every verdict of the pocket scale's records, with its notebook; fields that a record leaves out are empty."""
    for path in sorted(FIGURES.glob("[0-9][0-9]_*/*.json")):
        for verdict in json.loads(path.read_text())["result"].get("verdicts", []):
            yield path.parent.name, {"id": "", "control": ""} | verdict


def key_of(notebook: str, verdict: dict) -> tuple:
    """The key of a verdict's rule."""
    return (notebook, *(verdict[name] for name in Rule._fields[1:7]))


def enter(look: str) -> list[Rule]:
    """Enter rules for all verdicts that have none; returns the new rules."""
    known = rules()
    keys = {rule.key for rule in known}
    commit = subprocess.check_output(["git", "rev-parse", "--short", "HEAD"], cwd=FOLDER, text=True).strip()
    new = {}
    for notebook, verdict in verdicts():
        key = key_of(notebook, verdict)
        if key not in keys:
            new[key] = Rule(*key, date.today().isoformat(), commit, look)
    if new:
        entries = [rule._asdict() for rule in (*known, *new.values())]
        write_if_changed(REGISTER, (json.dumps(entries, indent=1) + "\n").encode())
    return list(new.values())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--look", choices=LOOKS, default="before", help="whether the numbers were seen before the rule")
    for rule in enter(parser.parse_args().look):
        print(f"entered: {rule.notebook}: {rule.claim}")


if __name__ == "__main__":
    main()
