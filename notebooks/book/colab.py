"""Links that run a chapter elsewhere, for a book that knows its repository: Colab and Binder, neither tested by us."""

import copy
import re
import tomllib
from pathlib import Path
from urllib.parse import quote

import nbformat

from notebooks.workshop.kit.build import read_lock

NOT_INSTALLED = {
    "torch": "Colab's own fits its GPU",
    **dict.fromkeys(("beautifulsoup4", "jinja2", "jupyterlab", "traitlets", "voila"), "no notebook imports it"),
    **dict.fromkeys(("nbval", "pytest", "pytest-xdist", "ruff", "setuptools"), "no notebook imports it"),
}
"""Direct dependencies that Colab's first cell leaves alone, and why."""

FIRST_CELL = """\
# Only for Google Colab (untested): fetches the repository and the packages that are missing. PyTorch stays Colab's own.
import importlib.metadata
import os
import subprocess
import sys

there = {{each.name.lower().replace("_", "-") for each in importlib.metadata.distributions()}}
wanted = {packages}
missing = [package for package in wanted if package.split("==")[0] not in there]
if not os.path.isdir("/content/{name}"):
    subprocess.run(["git", "clone", "--depth=1", "https://github.com/{repository}", "/content/{name}"], check=True)
if missing:
    subprocess.run([sys.executable, "-m", "pip", "install", "--quiet", *missing], check=True)
sys.path.insert(0, "/content/{name}")
os.environ["PYTHONPATH"] = "/content/{name}"
os.chdir("/content/{name}/{folder}")"""


def check_repository(repository: str) -> str:
    """The repository, "owner/name" or empty. Raises ValueError for anything else."""
    if repository and not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9-]*/[A-Za-z0-9._-]+", repository):
        raise ValueError(f"REPOSITORY={repository} is not owner/name, as in REPOSITORY=ada/engine")
    return repository


def packages_for_colab(root: Path) -> list[str]:
    """The lock's pins of the project's direct dependencies, without NOT_INSTALLED."""
    direct = tomllib.loads((root / "pyproject.toml").read_text())["project"]["dependencies"]
    pins = read_lock(root / "requirements.lock")
    return [f"{name}=={pin.version}" for name, pin in pins.items() if name in direct and name not in NOT_INSTALLED]


def colab_copy(notebook: nbformat.NotebookNode, source: str, repository: str, root: Path) -> nbformat.NotebookNode:
    """A copy of a notebook whose first cell makes Colab ready for it. source: "notebooks/04_transfer.ipynb"."""
    ready = copy.deepcopy(notebook)
    values = {"repository": repository, "name": repository.split("/")[1], "folder": str(Path(source).parent)}
    cell = nbformat.v4.new_code_cell(FIRST_CELL.format(packages=packages_for_colab(root), **values), id="colab")
    ready.cells.insert(0, cell)
    return ready


def addresses(source: str, repository: str) -> dict[str, str]:
    """Where a notebook runs, by name. The book must be what the branch gh-pages of the repository holds."""
    colab = f"https://colab.research.google.com/github/{repository}/blob/gh-pages/colab/{Path(source).name}"
    binder = f"https://mybinder.org/v2/gh/{repository}/HEAD?labpath={quote(source, safe='')}"
    return {"Open in Colab": colab, "Open in Binder": binder}
