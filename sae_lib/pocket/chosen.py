"""What was chosen by rule for the pocket models and stored with them: the blocks, and the sizes of their SAEs.

`notebooks.experiments.pocket` holds the rules, `choose` and `sizes`.
"""

import functools
import hashlib
import json
from pathlib import Path
from typing import Any

from sae_lib.cache.artefact import write_if_changed

WANTED_MEAN, WANTED_LEAST, MOST = 0.8, 0.4, 7

BLOCKS_FILE = Path(__file__).with_name("chosen_blocks.json")
FLUX_BLOCKS_FILE = Path(__file__).with_name("chosen_flux_blocks.json")
SIZES_FILE = Path(__file__).with_name("sae_sizes.json")
_UNET = Path(__file__).parent / "weights" / "unet" / "diffusion_pytorch_model.safetensors"
_TRANSFORMER = Path(__file__).parent / "weights" / "flux" / "transformer" / "diffusion_pytorch_model.safetensors"
BLOCKS_FILES = {"sdxl": BLOCKS_FILE, "flux": FLUX_BLOCKS_FILE}
_MODELS = {"sdxl": _UNET, "flux": _TRANSFORMER}


def load_choice(architecture: str = "sdxl") -> dict:
    """What `choose_blocks` stored: the blocks `chosen`, and the `path` to them.

    The path gives with each block the share that it and the blocks before it carry. Raises FileNotFoundError if nothing
    was chosen and ValueError if it was chosen for other weights, both with the way out.
    """
    stage, model = ("blocks", "U-Net") if architecture == "sdxl" else ("flux_blocks", "FLUX")
    again, file = f"choose with `python -m notebooks.experiments.pocket.train {stage}`", BLOCKS_FILES[architecture]
    if not file.exists():
        raise FileNotFoundError(f"no blocks were chosen for the pocket {model}: {again}")
    record = json.loads(file.read_text())
    if record["unet" if architecture == "sdxl" else "transformer"] != hash_of_model(architecture):
        raise ValueError(
            f"the blocks in {file.name} were chosen for another {model} than the one that is there: {again}"
        )
    return record


def load_sizes() -> dict[int, dict[str, int]]:
    """By width of a block, the `k` and `n_f` of the SAEs whose features are looked at.

    Raises FileNotFoundError if no sizes were chosen.
    """
    if not SIZES_FILE.exists():
        raise FileNotFoundError(
            "no sizes were chosen for the pocket SAEs: choose with `python -m notebooks.experiments.pocket.train sizes`"
        )
    return {int(width): size for width, size in json.loads(SIZES_FILE.read_text())["chosen"].items()}


def hash_of_model(architecture: str = "sdxl") -> str:
    """The hash of the shipped U-Net's, or FLUX's, file. It is kept until the file changes: a painter asks at every
    stroke."""
    about = _MODELS[architecture].stat()
    return _hash(architecture, about.st_mtime_ns, about.st_size)


@functools.cache
def _hash(architecture: str, _written: int, _size: int) -> str:
    return hashlib.sha256(_MODELS[architecture].read_bytes()).hexdigest()


def store(file: Path, record: dict[str, Any]) -> None:
    """Writes one of the two records, completely or not at all."""
    write_if_changed(file, (json.dumps(record, indent=1) + "\n").encode())
