"""The packages that only these tests need fit to requirements.lock, on top of which they are installed."""

import importlib.metadata
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from notebooks.workshop.kit.build import read_lock
from tests.test_environment import LOCK

ADDED = read_lock(Path(__file__).parent / "requirements.lock")


def test_what_is_installed_is_what_the_lock_says():
    assert {name: importlib.metadata.version(name) for name in ADDED} == {n: pin.version for n, pin in ADDED.items()}
    assert not set(ADDED) & set(LOCK)


def test_all_that_they_ask_for_is_in_one_of_the_two_locks():
    there = LOCK | ADDED
    for package in ADDED:
        for requirement in map(Requirement, importlib.metadata.requires(package) or []):
            if requirement.marker is None or requirement.marker.evaluate({"extra": ""}):
                name = canonicalize_name(requirement.name)
                assert name in there and there[name].version in requirement.specifier, (package, str(requirement))
