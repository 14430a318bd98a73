"""The one place that reads the environment.

BACKSWEEP_DEBUG       0..5, what is printed (CONTRIBUTING.md)
BACKSWEEP_CACHE_DIR   folder of compiled code
BACKSWEEP_NO_JIT      1: steps are run by the reference interpreter
BACKSWEEP_NUM_THREADS threads of a sweep
BACKSWEEP_VERIFY      0..2, verification of programs after passes
"""

from __future__ import annotations

import os
import socket
from collections.abc import Sequence
from pathlib import Path


def debug() -> int:
    return int(os.environ.get("BACKSWEEP_DEBUG", "0") or 0)


def is_jit_disabled() -> bool:
    return os.environ.get("BACKSWEEP_NO_JIT", "0") not in ("", "0")


def verify_level() -> int:
    return int(os.environ.get("BACKSWEEP_VERIFY", "1") or 0)


def _positive(name: str) -> int | None:
    value = os.environ.get(name, "")
    return int(value) if value.isdigit() and int(value) > 0 else None


def n_cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def ranks_on_node() -> int:
    """MPI processes on this node, from the launcher's environment."""
    for name in ("MPI_LOCALNRANKS", "OMPI_COMM_WORLD_LOCAL_SIZE", "SLURM_NTASKS_PER_NODE"):
        value = _positive(name)
        if value is not None:
            return value
    return 1


def launched_rank() -> int | None:
    """This process's rank, from the launcher's environment."""
    for name in ("PMI_RANK", "OMPI_COMM_WORLD_RANK", "MV2_COMM_WORLD_RANK"):
        value = os.environ.get(name, "")
        if value.isdigit():
            return int(value)
    is_step = "SLURM_STEP_ID" in os.environ and "SLURM_PROCID" in os.environ
    return int(os.environ["SLURM_PROCID"]) if is_step else None


def n_launched() -> int | None:
    """Processes that an MPI launcher started; None if no launcher started this one.

    A batch script outside of srun and mpiexec sees SLURM's variables too: there is then no rank.
    """
    for name in ("PMI_SIZE", "OMPI_COMM_WORLD_SIZE", "MV2_COMM_WORLD_SIZE"):
        value = _positive(name)
        if value is not None:
            return value
    if "SLURM_STEP_ID" in os.environ and "SLURM_PROCID" in os.environ:
        return _positive("SLURM_STEP_NUM_TASKS")
    return None


def n_threads() -> int:
    """Threads of a sweep: BACKSWEEP_NUM_THREADS, OMP_NUM_THREADS, or the rank's share of cores."""
    for name in ("BACKSWEEP_NUM_THREADS", "OMP_NUM_THREADS"):
        value = _positive(name)
        if value is not None:
            return value
    return max(1, n_cores() // ranks_on_node())


def place() -> tuple[str, tuple[int, ...]]:
    """The node and the cores of this process."""
    cores = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else range(n_cores())
    return socket.gethostname(), tuple(sorted(cores))


def share_cores(places: Sequence[tuple[str, tuple[int, ...]]], rank: int) -> None:
    """Divide cores among the ranks that may use the same ones; a number given by the user stays."""
    if _positive("BACKSWEEP_NUM_THREADS") or _positive("OMP_NUM_THREADS"):
        return
    cores = places[rank][1]
    os.environ["BACKSWEEP_NUM_THREADS"] = str(max(1, len(cores) // places.count(places[rank])))


def cache_folder() -> Path:
    given = os.environ.get("BACKSWEEP_CACHE_DIR")
    if given:
        return Path(given)
    base = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Path(base) / "backsweep"
