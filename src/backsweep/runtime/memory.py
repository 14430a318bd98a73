"""How much memory the job may still use."""

from __future__ import annotations

from pathlib import Path

import psutil

from backsweep import config
from backsweep.runtime.arrays import spare_bytes


def _read_number(path: Path) -> int | None:
    try:
        text = path.read_text().strip()
    except OSError:
        return None
    return int(text) if text.isdigit() else None


def _cgroup_free() -> int | None:
    """Bytes left in the control group (version 2, then 1)."""
    try:
        lines = Path("/proc/self/cgroup").read_text().splitlines()
    except OSError:
        return None
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers == "":
            folder = Path("/sys/fs/cgroup") / path.lstrip("/")
            limit, used = "memory.max", "memory.current"
        elif "memory" in controllers.split(","):
            folder = Path("/sys/fs/cgroup/memory") / path.lstrip("/")
            limit, used = "memory.limit_in_bytes", "memory.usage_in_bytes"
        else:
            continue
        total, current = _read_number(folder / limit), _read_number(folder / used)
        if total is not None and current is not None:
            return max(0, total - current)
    return None


def _slurm_free() -> int | None:
    """Bytes of the allocation that this process does not use yet."""
    allocated = config.allocated_bytes()
    if allocated is None:
        return None
    return max(0, allocated - psutil.Process().memory_info().rss)


def available_bytes() -> int:
    """The smallest of free memory, cgroup and SLURM limits, divided by the ranks on the node."""
    limits = [psutil.virtual_memory().available]
    limits += [n for n in (_cgroup_free(), _slurm_free()) if n is not None]
    return (min(limits) + spare_bytes()) // config.ranks_on_node()
