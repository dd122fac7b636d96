"""What a notebook costs, counted inside its kernel.

The runner calls `start` before the first cell and `report` after the last.
Both calls are silent: neither the notebook's history, its cells nor its outputs show them.
"""

import functools
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import psutil
from IPython import get_ipython

counts = {"forward_passes": 0, "sae_steps": 0}
watched: list[bool] = []


class Account(NamedTuple):
    """What one notebook cost."""

    peak_gb: float = 0.0
    """Most memory that its kernel had at once, in 10^9 bytes."""
    forward_passes: int = 0
    """Rows that went into the U-Net or FLUX's transformer: pictures times steps, twice that under guidance; cut passes
    count too."""
    sae_steps: int = 0
    """Training steps, summed over SAEs."""
    made: tuple[str, ...] = ()
    """Names of the artefact folders that it made."""
    reused: tuple[str, ...] = ()
    """Names of the artefact folders that it needed and that were there already."""


def start() -> None:
    """Count, from now on, what this kernel computes."""
    get_ipython().events.register("pre_run_cell", _watch)


def _watch(info) -> None:
    """Begins to count at the first cell that names the library, so that other notebooks need not
    wait for its imports."""
    if "sae_lib" in (info.raw_cell or "") and not watched:
        watched.append(True)
        _watch_rows()
        _watch_steps()


def _watch_rows() -> None:
    from diffusers import FluxTransformer2DModel, UNet2DConditionModel

    for denoiser, name in ((UNet2DConditionModel, "sample"), (FluxTransformer2DModel, "hidden_states")):
        denoiser.forward = _counting(denoiser.forward, name)


def _counting(forward: Callable, name: str) -> Callable:
    """A denoiser's `forward` that counts the rows of the latents, its first argument; torch's hook for all modules
    would slow down each of them."""

    @functools.wraps(forward)
    def count(self, *arguments, **keywords):
        counts["forward_passes"] += len(arguments[0] if arguments else keywords[name])
        return forward(self, *arguments, **keywords)

    return count


def _watch_steps() -> None:
    from torch.optim.optimizer import register_optimizer_step_post_hook

    register_optimizer_step_post_hook(_count_step)


def report() -> str:
    """The account so far, as JSON."""
    from sae_lib.cache import artefact

    folders = {"made": tuple(artefact.made), "reused": tuple(artefact.reused)}
    return json.dumps(Account(_peak_bytes() / 1e9, **counts, **folders)._asdict())


def _count_step(optimizer, arguments, keywords) -> None:
    counts["sae_steps"] += 1


def _peak_bytes() -> int:
    status = Path("/proc/self/status")
    if status.is_file():  # getrusage would count the runner's own peak in, which a child inherits
        (line,) = (line for line in status.read_text().splitlines() if line.startswith("VmHWM:"))
        return int(line.split()[1]) * 1024
    if sys.platform == "win32":
        return psutil.Process().memory_info().peak_wset
    import resource  # not there on Windows

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
