"""Measured results that take an hour or a GPU: a file of numbers, with what made them."""

import json
import platform
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from sae_lib.cache.artefact import ROOT, cache_root, write_if_changed


def result_path(name: str, small: bool = False) -> Path:
    """`figures/results/<name>.json`; of a small run, which shows that it works, `<name>_small.json` in the cache."""
    return cache_root() / f"{name}_small.json" if small else ROOT / "figures" / "results" / f"{name}.json"


def save_result(path: Path, result: Mapping[str, Any], command: str, **about: Any) -> None:
    """Write a record of two parts, as `save_figure` does: `result`, the numbers; `run`, what made them.

    `run` holds the command, the commit, the versions of torch and Python, the device and the threads, and what `about`
    adds or puts in place of these. The file is written as a whole or not at all.
    """
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else platform.processor() or platform.machine()
    run = {"command": command, "commit": commit_hash(), "torch": torch.__version__}
    run |= {"python": platform.python_version(), "device": device, "threads": torch.get_num_threads()}
    write_if_changed(path, (json.dumps({"result": result, "run": run | about}, indent=1) + "\n").encode())


def commit_hash() -> str:
    """Hash of the commit that is checked out, with "-dirty" if files differ from it; "unknown" outside git."""
    command = ["git", "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
    try:
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return done.stdout.strip()
