"""The environment's files say the same: pyproject.toml, requirements.lock, environment.yml, and what is installed."""

import importlib.metadata
import re
import tomllib

import yaml
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name
from packaging.version import Version

from sae_lib.cache.artefact import ROOT

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
CONDA = yaml.safe_load((ROOT / "environment.yml").read_text())
LINES = (ROOT / "requirements.lock").read_text().splitlines()
LOCK = {canonicalize_name(name): version for name, version in (line.split("==") for line in LINES)}


def test_the_lock_pins_every_package_exactly_once():
    assert all(re.fullmatch(r"[A-Za-z0-9._-]+==[0-9][A-Za-z0-9.]*", line) for line in LINES)
    assert len(LOCK) == len(LINES)


def test_the_lock_has_all_that_the_project_asks_for():
    missing = [name for name in PROJECT["dependencies"] if canonicalize_name(name) not in LOCK]
    assert missing == []


def test_the_lock_has_all_that_its_packages_ask_for():
    missing = {}
    for package in LOCK:
        for requirement in map(Requirement, importlib.metadata.requires(package) or []):
            needed = requirement.marker is None or requirement.marker.evaluate({"extra": ""})
            name = canonicalize_name(requirement.name)
            if needed and name != "pip" and not (name in LOCK and LOCK[name] in requirement.specifier):
                missing[package] = str(requirement)
    assert missing == {}


def test_what_is_installed_is_what_the_lock_says():
    installed = {package: Version(importlib.metadata.version(package)).public for package in LOCK}
    assert installed == LOCK


def test_conda_takes_a_python_that_the_project_accepts_and_all_else_from_the_lock():
    python, pip, packages = CONDA["dependencies"]
    assert python == "python=3.11" and python.split("=")[1] in SpecifierSet(PROJECT["requires-python"])
    assert pip == "pip" and packages == {"pip": ["-r requirements.lock", "-e ."]}
