"""What this process may use of the machine: its cores and its memory, and its child processes."""

import os
from collections.abc import Iterator
from pathlib import Path

import psutil

CGROUPS = Path("/sys/fs/cgroup")
MEMBERSHIP = Path("/proc/self/cgroup")


def cores(root: Path = CGROUPS, membership: Path = MEMBERSHIP) -> int:
    """Number of cores that this process may use: those it may run on, or a container's quota if that is less."""
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quotas = [_quota(folder) for folder in _groups("cpu", root, membership)]
    return max(1, int(min([allowed, *(quota for quota in quotas if quota)])))


def free_gb(root: Path = CGROUPS, membership: Path = MEMBERSHIP) -> float:
    """Free memory in 10^9 bytes: the machine's, or what is left of a container's limit if that is less."""
    rooms = [_room(folder) for folder in _groups("memory", root, membership)]
    return max(0, min([psutil.virtual_memory().available, *(room for room in rooms if room is not None)])) / 1e9


def memory_gb(pid: int) -> float:
    """Memory of a process and of those that it started, in 10^9 bytes; 0 if it is gone."""
    try:
        process = psutil.Process(pid)
        return sum(member.memory_info().rss for member in (process, *process.children(recursive=True))) / 1e9
    except psutil.NoSuchProcess:
        return 0.0


def end_children() -> None:
    """Kill, at once, every process that this one started, and what those started."""
    for process in psutil.Process().children(recursive=True):
        try:
            process.kill()
        except psutil.NoSuchProcess:
            pass


def _groups(controller: str, root: Path, membership: Path) -> Iterator[Path]:
    """Folders of the control groups that may limit this process, of either version, the innermost first."""
    lines = membership.read_text().splitlines() if membership.is_file() else []
    for _, names, path in (line.split(":", 2) for line in lines):
        if names and controller not in names.split(","):
            continue
        top = root / (names and next((name for name in (names, controller) if (root / name).is_dir()), names))
        folder = top / path.lstrip("/")
        yield from (group for group in (folder, *folder.parents) if group.is_relative_to(top) and group.is_dir())


def _number(file: Path) -> int | None:
    try:
        return int(file.read_text())
    except (OSError, ValueError):  # no such file, or the word "max"
        return None


def _quota(folder: Path) -> float | None:
    if (folder / "cpu.max").is_file():
        share, period = (folder / "cpu.max").read_text().split()
        return None if share == "max" else int(share) / int(period)
    share, period = (_number(folder / f"cpu.cfs_{name}_us") for name in ("quota", "period"))
    return share / period if share and period and share > 0 else None


def _room(folder: Path) -> int | None:
    """Bytes left below a group's limit, including pages of files that nobody uses."""
    for limit, usage, idle in (
        ("memory.max", "memory.current", "inactive_file"),
        ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
    ):
        most, used = _number(folder / limit), _number(folder / usage)
        if most is not None and used is not None:
            counts = dict(line.split() for line in (folder / "memory.stat").read_text().splitlines())
            return most - used + int(counts.get(idle, 0))
    return None
