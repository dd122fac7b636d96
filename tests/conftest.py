"""What the tests share: shapes checked at run time, and a small pipeline with random weights."""

import os

os.environ.setdefault("HF_HUB_OFFLINE", "1")

from jaxtyping import install_import_hook

# Every annotated shape in the library is checked by beartype at each call that a test makes.
install_import_hook("sae_lib", "beartype.beartype")

import pytest
import torch

from sae_lib.scales import set_threads

set_threads("pocket")


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
