"""Checks what install.py installed: imports, the pocket models and one picture; says the seconds and the
memory that they took."""

import time

start = time.time()

import anywidget  # noqa: F401
import ipykernel  # noqa: F401
import jupyterlab  # noqa: F401
import matplotlib.pyplot  # noqa: F401
import pandas  # noqa: F401
import torch

from sae_lib import load_pipeline, load_saes
from sae_lib.cache import cache_root
from sae_lib.training import peak_memory_gb


def main() -> None:
    """Draw `first_picture.png` in the cache. Raises ValueError if it has hardly a colour, since
    then the model failed."""
    pipe, saes = load_pipeline("turbo"), load_saes()
    imported, settings = time.time() - start, {"num_inference_steps": 1, "guidance_scale": 0.0}
    picture = pipe("a red heart at sea", generator=torch.Generator().manual_seed(0), **settings).images[0]
    if picture.getcolors(50):
        raise ValueError("the picture has at most 50 colours")
    cache_root().mkdir(parents=True, exist_ok=True)
    picture.resize((256, 256), 0).save(cache_root() / "first_picture.png")
    took = f"in {time.time() - start - imported:.1f} s after {imported:.0f} s of importing and loading"
    memory = f"{peak_memory_gb(torch.device('cpu')):.1f} GB of memory at most"
    print(f"It works: {len(saes)} SAEs, and a picture {took}; {memory}.")


if __name__ == "__main__":
    main()
