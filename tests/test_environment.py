"""The environment's files say the same: pyproject.toml, requirements.lock, environment.yml, and what is installed."""

import importlib.metadata
import os
import re
import subprocess
import tomllib

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name
from packaging.version import Version

from notebooks.workshop.kit.build import CPU_LOCK, read_lock
from sae_lib.cache.artefact import ROOT

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
CONDA = yaml.safe_load((ROOT / "environment.yml").read_text())
LOCK = read_lock()
HERE = {name: pin for name, pin in LOCK.items() if pin.marker is None or pin.marker.evaluate()}
CUDA = read_lock(ROOT / "requirements-cuda.lock")
LOCKS = sorted(ROOT.glob("*.lock")) + sorted((ROOT / "tests").glob("*/*.lock"))


@pytest.mark.parametrize("path", LOCKS, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_a_lock_pins_every_package_exactly_once_and_lists_the_hashes_of_its_files(path):
    entries = [line for line in path.read_text().replace("\\\n", "").splitlines() if not line.startswith("#")]
    pinned = re.compile(r"[\w.-]+==[0-9][\w.+]*( ; [^;]+?)?(\s+--hash=sha256:[0-9a-f]{64})+")
    assert all(pinned.fullmatch(entry) for entry in entries)
    assert len(read_lock(path)) == len(entries) > 0
    assert "://" not in path.read_text()  # a lock names no registry: pip asks those that it is set up for


def test_the_makefile_installs_no_package_without_a_hash():
    lines = (ROOT / "Makefile").read_text().replace("\\\n", "").splitlines()
    installs = [part for line in lines for part in line.split("||") if "pip install" in part]
    ours = [part for part in installs if part.rstrip().endswith("--editable .")]
    assert len(ours) == 2 and all("--no-deps --no-build-isolation" in part for part in ours)
    others = [part for part in installs if part not in ours]
    assert len(others) == 5 and all("--no-deps --require-hashes" in part for part in others)


def test_torch_comes_in_one_version_as_two_builds():
    (name, cpu), interop = *read_lock(CPU_LOCK).items(), read_lock(ROOT / "tests" / "interop" / "requirements.lock")
    assert name == "torch" and cpu.version == f"{LOCK['torch'].version}+cpu"
    assert interop["torch"] == LOCK["torch"] and not set(cpu.hashes) & set(LOCK["torch"].hashes)


def test_what_torch_for_cuda_needs_is_in_no_other_lock_and_stays_on_linux():
    assert not CUDA.keys() & LOCK.keys() and "nvidia-cublas" in CUDA
    assert {str(pin.marker) for pin in CUDA.values()} == {'sys_platform == "linux"'}


def test_the_lock_has_all_that_the_project_asks_for():
    missing = [name for name in PROJECT["dependencies"] if canonicalize_name(name) not in LOCK]
    assert missing == []


def test_the_lock_has_all_that_its_packages_ask_for():
    missing = {}
    for package in HERE:
        for requirement in map(Requirement, importlib.metadata.requires(package) or []):
            needed = requirement.marker is None or requirement.marker.evaluate({"extra": ""})
            name = canonicalize_name(requirement.name)
            pin = LOCK.get(name) or CUDA.get(name)
            if needed and name != "pip" and not (pin and pin.version in requirement.specifier):
                missing[package] = str(requirement)
    assert missing == {}


def test_what_is_installed_is_what_the_lock_says():
    installed = {package: Version(importlib.metadata.version(package)).public for package in HERE}
    assert installed == {package: pin.version for package, pin in HERE.items()}


def test_conda_takes_a_python_that_the_project_accepts_and_all_else_from_the_lock():
    python, pip = CONDA["dependencies"]
    assert python == "python=3.11" and python.split("=")[1] in SpecifierSet(PROJECT["requires-python"])
    assert pip == "pip"  # for `make install`, which Binder's postBuild calls
    script = ROOT / "postBuild"
    assert script.read_text().splitlines()[-1] == "exec make install PYTHON=python" and os.access(script, os.X_OK)
    words = ["make", "-n", "install", "PYTHON=python"]
    told = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=True)
    assert "python -m pip install" in told.stdout and "--requirement requirements.lock" in told.stdout
