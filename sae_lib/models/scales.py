"""The three scales of every notebook, and what each of them counts."""

import ctypes
import random
from contextlib import suppress
from dataclasses import dataclass, replace

import numpy as np
import torch

_ALL_THREADS = torch.get_num_threads()
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # of glibc's malloc.h


@dataclass(frozen=True)
class Scale:
    """How much of everything a scale does; the mathematics is the same at every scale."""

    name: str
    train_prompts: int
    """Prompts whose one-step updates train the SAEs."""
    passes: int
    """How often the training vectors are seen (the paper: once)."""
    transfer_prompts: int
    """Held-out prompts on which Figure 3 is measured (authors' code: 100)."""
    base_steps: int
    """Denoising steps of the base model in Figure 3 (authors' code: 20)."""
    base_guidance: float
    """Guidance of the base model (authors' code: 7.5 in Figure 3)."""
    harvest_batch: int
    """Prompts per one-step pipeline call."""
    transfer_batch: int
    """Prompts per pipeline call of several steps."""
    bootstrap: int
    """Resamples per interval."""


SCALES = {
    "smoke": Scale("smoke", 96, 1, 8, 4, 4.0, 16, 12, 200),
    "pocket": Scale("pocket", 2_048, 4, 100, 20, 4.0, 16, 16, 1_000),  # more at once leave a core's cache
    "sdxl": Scale("sdxl", 1_500_000, 1, 100, 20, 7.5, 50, 10, 1_000),
}


def get_scale(name: str, rehearsal: bool = False) -> Scale:
    """The scale of that name; a rehearsal keeps its settings and has smaller counts.

    Raises ValueError for an unknown name.
    """
    if name not in SCALES:
        raise ValueError(f"unknown scale {name!r}; choose one of {', '.join(SCALES)}")
    scale, smoke = SCALES[name], SCALES["smoke"]
    if not rehearsal:
        return scale
    # Batches of unequal size; a pass of SDXL's many layers costs the same for one row as for six.
    counts = {"train_prompts": 8, "transfer_prompts": 4, "base_steps": 2, "harvest_batch": 6, "transfer_batch": 3}
    return replace(scale, bootstrap=smoke.bootstrap, **counts)


def set_up_torch(scale: str) -> None:
    """Let torch compute from here on with one thread at pocket and smoke scale, with all threads at sdxl scale.

    The pocket models are too small to be shared out: two threads draw at best as fast as two processes of one thread,
    and at a tenth of that speed beside a busy program, because each waits for the other. With one thread the numbers of
    a run do not depend on the number of cores or on OMP_NUM_THREADS either.

    Freed memory is kept for the next tensor. That saves a sixth of the U-Net's time, in which the system would clear it
    page by page. `start_run` and `load_pipeline` call this function.
    """
    torch.set_num_threads(_ALL_THREADS if scale == "sdxl" else 1)
    if scale != "sdxl":
        _keep_freed_memory()


def _keep_freed_memory() -> None:
    """Tell the C library to keep up to 1 GiB of freed memory. Does nothing where it is not glibc."""
    with suppress(AttributeError, OSError, TypeError):  # as macOS and Windows answer
        mallopt = ctypes.CDLL(None).mallopt
        for parameter in (_M_MMAP_THRESHOLD, _M_TRIM_THRESHOLD):
            mallopt(parameter, 2**30)


def seed_everything(seed: int) -> None:
    """Seed the three global generators. Draws that a result depends on have their own generators besides."""
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)
