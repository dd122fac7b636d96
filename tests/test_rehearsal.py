"""Every notebook at sdxl scale without weights: SDXL's own configuration, random, every width divided by 16.

The same at full width, on a GPU: `python notebooks/run.py reproduce -p scale sdxl -p source random`.
"""

import nbformat
import pytest

from notebooks import run
from sae_lib import store

SOURCES = run.find_sources()


@pytest.fixture(scope="module")
def folder(empty_cache, tmp_path_factory):
    """Where the executed copies go."""
    return tmp_path_factory.mktemp("copies")


@pytest.mark.parametrize("source", SOURCES, ids=lambda source: source.stem)
def test_the_notebook_runs_at_sdxl_scale_with_random_weights(source, folder):
    copy = folder / source.name.replace(".py", ".ipynb")
    assert not run.try_execute(source, copy, {"scale": "sdxl", "source": "random/16"})
    figures = list((store.cache_root() / "rehearsal" / "figures" / source.stem).glob("*.json"))
    assert figures
    outputs = [output for cell in nbformat.read(copy, as_version=4).cells for output in cell.get("outputs", [])]
    assert not [output for output in outputs if output.get("name") == "stderr"]
