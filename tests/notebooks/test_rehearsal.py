"""Every notebook at sdxl scale without weights: SDXL's own configuration, random, every width divided by 16.

The same at full width, on a GPU: `python notebooks/run.py reproduce -p scale sdxl -p source random`.
"""

import nbformat
import pytest

from notebooks import run
from sae_lib.cache.artefact import cache_root
from tests.saes.test_checkpoints import write_published

SOURCES = run.find_sources()


@pytest.fixture(scope="module")
def folder(empty_cache, tmp_path_factory):
    """Where the executed copies go."""
    return tmp_path_factory.mktemp("copies")


@pytest.mark.parametrize("source", SOURCES, ids=lambda source: source.stem)
def test_the_notebook_runs_at_sdxl_scale_with_random_weights(source, folder):
    copy = folder / source.name.replace(".py", ".ipynb")
    assert not run.execute(source, copy, {"scale": "sdxl", "source": "random/16"}).failure
    figures = list((cache_root() / "rehearsal" / "figures" / source.stem).glob("*.json"))
    assert figures
    outputs = [output for cell in nbformat.read(copy, as_version=4).cells for output in cell.get("outputs", [])]
    assert not [output for output in outputs if output.get("name") == "stderr"]


@pytest.mark.parametrize("stem", ["03_train_saes", "04_transfer"])
def test_published_saes_take_the_place_of_trained_ones(stem, folder, tmp_path):
    for k in (8, 10):
        write_published(tmp_path / f"k{k}", ks=(k,), n_f=320, d_model=80)
    (source,) = run.find_sources([stem])
    parameters = {"scale": "sdxl", "source": "random/16", "sae_folder": str(tmp_path)}
    assert not run.execute(source, folder / f"{stem}_published.ipynb", parameters).failure


def test_notebook_06_draws_the_grid_of_published_saes(folder, tmp_path):
    write_published(tmp_path / "wide", ks=(5, 8, 10, 20, 160), n_f=320, d_model=80)  # 8: panels of this width
    write_published(tmp_path / "narrow", ks=(5, 10, 20), n_f=40, d_model=80)
    (source,) = run.find_sources(["06_reconstruction"])
    parameters = {"scale": "sdxl", "source": "random/16", "sae_folder": str(tmp_path)}
    assert not run.execute(source, folder / "06_reconstruction_published.ipynb", parameters).failure
