"""Whether what install.py installed works: imports, the pocket models, one picture; says the seconds and the memory it took."""

import sys
import time

start = time.time()

import anywidget  # noqa: F401
import ipykernel  # noqa: F401
import jupyterlab  # noqa: F401
import matplotlib.pyplot  # noqa: F401
import pandas  # noqa: F401
import psutil
import torch

from sae_lib import load_pipeline, load_saes
from sae_lib.store import cache_root


def peak_memory_gb() -> float:
    """The most memory that this process has held."""
    if sys.platform == "win32":
        return psutil.Process().memory_info().peak_wset / 1e9
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024) / 1e9


def main() -> None:
    """Draw `first_picture.png` in the cache. Raises ValueError if it is of one colour: then the model did not work."""
    pipe, saes = load_pipeline("turbo"), load_saes(k=10)
    pipe.set_progress_bar_config(disable=True)
    imported, settings = time.time() - start, {"num_inference_steps": 1, "guidance_scale": 0.0}
    picture = pipe("a red heart at sea", generator=torch.Generator().manual_seed(0), **settings).images[0]
    if len(set(picture.getdata())) < 50:
        raise ValueError("the picture has fewer than 50 colours")
    cache_root().mkdir(parents=True, exist_ok=True)
    picture.resize((256, 256), 0).save(cache_root() / "first_picture.png")
    took = f"in {time.time() - start - imported:.1f} s after {imported:.0f} s of importing and loading"
    print(f"It works: {len(saes)} SAEs, and a picture {took}; {peak_memory_gb():.1f} GB of memory at most.")


if __name__ == "__main__":
    main()
