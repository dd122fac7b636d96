"""What the tests share: shapes checked at run time, a small pipeline with random weights, and who runs which test."""

import os
import re

os.environ.setdefault("HF_HUB_OFFLINE", "1")

from jaxtyping import install_import_hook

# Every annotated shape in the library is checked by beartype at each call that a test makes.
install_import_hook("sae_lib", "beartype.beartype")

import pytest
import torch

from sae_lib.models.scales import set_up_torch

set_up_torch("pocket")

GB_PER_PROCESS = 3.5
"""A process of the tests with the kernel that it waits for, in 10^9 bytes."""

LONG = {
    "bench/scores",
    "editing/edit",
    "faults",
    "features/dictionaries",
    "features/writing",
    "main",
    "models/rehearsal",
    "notebooks/first_run",
    "notebooks/jobs",
    "notebooks/killed",
    "notebooks/pocket_train",
    "notebooks/run",
    "notebooks/warm",
    "paint/catalogue",
    "paint/painter",
    "training/resume",
}
"""Files of tests, as room and module, of half a minute and more; what comes last should be short, so that no process
waits long."""


def pytest_addoption(parser):
    parser.addoption(
        "--write-costs",
        action="store_true",
        help="write what the notebooks cost at smoke scale to notebooks/costs.json",
    )


@pytest.hookimpl(optionalhook=True)  # where pytest-xdist is not installed
def pytest_xdist_auto_num_workers():
    """One process per core, as far as memory holds them; `make test JOBS=1` says otherwise."""
    from notebooks.jobs import count_jobs
    from notebooks.machine import free_gb

    try:
        jobs = count_jobs(os.environ.get("JOBS") or None, "smoke")
    except ValueError as error:
        raise pytest.UsageError(str(error)) from error
    return max(1, min(jobs, int(free_gb() / GB_PER_PROCESS)))


def unit_of(nodeid):
    """What one process does as a whole: all tests of a file, or those of a notebook where a file runs many."""
    notebook = re.match(r"(tests/notebooks/test_(?:notebooks|rehearsal|workshop)\.py)::.*\[(\d+_\w+)\]$", nodeid)
    return " ".join(notebook.groups()) if notebook else nodeid.split("::")[0]


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config, log):
    """Processes take whole units in the order of collection.

    pytest-xdist's own groups are no choice: with pytest 9.2 its `loadgroup` tears them apart without a word.
    """
    from xdist.scheduler import LoadScopeScheduling

    class Units(LoadScopeScheduling):
        _split_scope = staticmethod(unit_of)

    config.option.loadscopereorder = False
    return Units(config, log)


def pytest_collection_modifyitems(config, items):
    """With several processes: notebooks come first, those that compute most before all, then the LONG files."""
    if not hasattr(config, "workerinput"):
        return
    from notebooks.costs import counts

    computes = {name: sum(each) for name, each in counts().items()}
    units = {item: unit_of(item.nodeid) for item in items}
    long = {"tests/" + re.sub("[^/]+$", r"test_\g<0>.py", name) for name in LONG}

    def place(item):
        unit = units[item]
        return " " not in unit, -computes.get(unit.split()[-1], 0), unit not in long

    items.sort(key=place)


@pytest.fixture(scope="session")
def pipe():
    """A pocket Turbo pipeline with random weights; not to be changed by a test."""
    from sae_lib.pocket.models import build_pipeline

    pipe = build_pipeline("turbo", seed=0)
    pipe.set_progress_bar_config(disable=True)
    return pipe


@pytest.fixture(scope="session")
def call(pipe):
    """A seeded pipeline call, by default one prompt, one step, no guidance; gives latents `[images, 4, 32, 32]`."""

    def call(prompt="a red circle", steps=1, guidance_scale=0.0, seed=0, **arguments):
        return pipe(
            prompt,
            num_inference_steps=steps,
            guidance_scale=guidance_scale,
            generator=torch.Generator().manual_seed(seed),
            height=64,
            width=64,
            output_type="latent",
            **arguments,
        ).images

    return call


@pytest.fixture
def hook_count(pipe):
    """A function that counts the forward hooks and pre-hooks on all modules of the U-Net."""
    return lambda: sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in pipe.unet.modules())


@pytest.fixture(scope="module")
def empty_cache(tmp_path_factory):
    """The notebooks that a module's tests run share a cache that is empty at first, and run in this interpreter."""
    from notebooks import run

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SAE_LIB_CACHE", str(tmp_path_factory.mktemp("cache")))
        patch.setenv("JUPYTER_PATH", "")
        run.use_this_interpreter()
        yield
