import subprocess
import sys
import tomllib

import pytest

import sae_lib
from sae_lib.cache.artefact import PACKAGE, ROOT
from tests.conftest import LONG


@pytest.mark.parametrize("name", sae_lib.__all__)
def test_every_public_name_is_there(name):
    assert getattr(sae_lib, name) is not None
    assert name in dir(sae_lib)


def test_an_unknown_name_is_refused():
    with pytest.raises(AttributeError, match="No sae_lib attribute load_pipelines"):
        _ = sae_lib.load_pipelines


def test_saes_are_read_trained_and_measured_without_importing_diffusers():
    code = (
        "from sae_lib import TopKSAE, explained_variance, train_saes; import sys; sys.exit('diffusers' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_importing_the_package_imports_nothing_heavy():
    code = "import sys, sae_lib; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_what_lies_beside_the_code_is_installed_with_it():
    told = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["package-data"]["sae_lib"]
    there = {path.suffix for path in PACKAGE.rglob("*.*") if path.is_file()} - {".py", ".pyc"}
    assert {f"**/*{suffix}" for suffix in there} == set(told)


@pytest.mark.parametrize("name", sorted(LONG))
def test_a_file_that_is_known_to_take_long_is_there(name):
    *room, module = name.split("/")
    assert ROOT.joinpath("tests", *room, f"test_{module}.py").is_file()
