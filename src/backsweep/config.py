"""The one place that reads the environment.

BACKSWEEP_DEBUG       0..5, what is printed (CONTRIBUTING.md)
BACKSWEEP_CACHE_DIR   folder of compiled code
BACKSWEEP_NO_JIT      1: steps are run by the reference interpreter
BACKSWEEP_NUM_THREADS threads of a sweep
BACKSWEEP_VERIFY      0..2, verification of programs after passes
"""

from __future__ import annotations

import os
from pathlib import Path


def debug() -> int:
    return int(os.environ.get("BACKSWEEP_DEBUG", "0") or 0)


def is_jit_disabled() -> bool:
    return os.environ.get("BACKSWEEP_NO_JIT", "0") not in ("", "0")


def verify_level() -> int:
    return int(os.environ.get("BACKSWEEP_VERIFY", "1") or 0)


def n_threads() -> int:
    """Threads of a sweep: BACKSWEEP_NUM_THREADS, OMP_NUM_THREADS, or the usable cores."""
    for name in ("BACKSWEEP_NUM_THREADS", "OMP_NUM_THREADS"):
        value = os.environ.get(name, "")
        if value.isdigit() and int(value) > 0:
            return int(value)
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def cache_folder() -> Path:
    given = os.environ.get("BACKSWEEP_CACHE_DIR")
    if given:
        return Path(given)
    base = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Path(base) / "backsweep"
