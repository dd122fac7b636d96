"""Does it fit? Refusals before something large is loaded, kept or written, each with the way out."""

import shutil
from pathlib import Path

import psutil
import torch


def refuse_without_memory(need_gb: float, device: torch.device, what: str, way: str, installed: bool = False) -> None:
    """Raises MemoryError if a device has less memory free (or installed) than is needed, in 10^9 bytes.

    what: subject and verb of the message, such as "the weights need". way: what the reader can do.
    """
    there_gb = (_installed(device) if installed else _free(device)) / 1e9
    if need_gb > there_gb:
        state = "of memory" if installed else "free"
        raise MemoryError(f"{what} {need_gb:.1f} GB and {device} has {there_gb:.1f} GB {state}: {way}")


def refuse_without_disk(need_gb: float, folder: Path, what: str, way: str) -> None:
    """Raises OSError if less is free on the folder's disk than is needed; see `refuse_without_memory`."""
    free_gb = shutil.disk_usage(folder).free / 1e9
    if need_gb > free_gb:
        raise OSError(f"{what} {need_gb:.3g} GB and {free_gb:.3g} GB are free: {way}")


def _free(device: torch.device) -> int:
    if device.type == "cuda":
        kept = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)  # by torch, for the next tensor
        return torch.cuda.mem_get_info(device)[0] + kept
    return psutil.virtual_memory().available  # with what the system only keeps of files


def _installed(device: torch.device) -> int:
    if device.type == "cuda":
        return torch.cuda.get_device_properties(device).total_memory
    return psutil.virtual_memory().total
