"""What the tests share: shapes checked at run time, a small pipeline with random weights, and who runs which test."""

import os

os.environ.setdefault("HF_HUB_OFFLINE", "1")

from jaxtyping import install_import_hook

# Every annotated shape in the library is checked by beartype at each call that a test makes.
install_import_hook("sae_lib", "beartype.beartype")

import pytest
import torch

GB_PER_PROCESS = 3.5
"""A process of the tests with the kernel that it waits for, in 10^9 bytes."""


def pytest_addoption(parser):
    parser.addoption(
        "--write-costs",
        action="store_true",
        help="write what the notebooks cost at smoke scale to notebooks/costs.json",
    )


def pytest_xdist_auto_num_workers():
    """One process per core, as far as memory holds them; `make test JOBS=1` says otherwise."""
    from notebooks.jobs import count_jobs
    from notebooks.machine import free_gb

    try:
        jobs = count_jobs(os.environ.get("JOBS") or None, "smoke")
    except ValueError as error:
        raise pytest.UsageError(str(error)) from error
    return max(1, min(jobs, int(free_gb() / GB_PER_PROCESS)))


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config, items):
    """With several processes: the tests of a file go to one of them, and so do those that run one notebook.

    Runs of notebooks, whose groups are named "notebook 04_transfer" and so on, come first, the longest before all.
    """
    if not hasattr(config, "workerinput"):
        return
    from notebooks.costs import known

    seconds = {f"notebook {name}": cost.seconds for name, cost in known("smoke").items()}

    def group(item):
        return item.get_closest_marker("xdist_group").args[0]

    for item in items:
        if not item.get_closest_marker("xdist_group"):
            item.add_marker(pytest.mark.xdist_group(item.path.stem))
    items.sort(key=lambda item: (" " not in group(item), -seconds.get(group(item), 0)))


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
