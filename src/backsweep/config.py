"""The one place that reads the environment.

BACKSWEEP_DEBUG       0..5, what is printed (CONTRIBUTING.md)
BACKSWEEP_CACHE_DIR   folder of compiled code
BACKSWEEP_NO_JIT      1: steps are run by the reference interpreter
BACKSWEEP_NUM_THREADS threads of a sweep
BACKSWEEP_VERIFY      0..2, verification of programs after passes
BACKSWEEP_CHECK_NAN   1: a sweep that becomes infinite or NaN is an error, not a warning
BACKSWEEP_FAULT       a test's fault in a file's life, "name:count:action" (storage.faults)
BACKSWEEP_RANKS_ON_NODE  set by the ranks themselves: they share its memory
SLURM_CPUS_PER_TASK, SLURM_CPUS_ON_NODE, SLURM_MEM_PER_NODE, SLURM_MEM_PER_CPU  bounds in a job
MPIR_CVAR_CH4_NETMOD  MPICH's network layer, set by `choose_netmod` under SLURM's pmi2
"""

from __future__ import annotations

import importlib.metadata
import os
import socket
from collections.abc import Sequence
from pathlib import Path


def debug() -> int:
    return int(os.environ.get("BACKSWEEP_DEBUG", "0") or 0)


def is_jit_disabled() -> bool:
    return os.environ.get("BACKSWEEP_NO_JIT", "0") not in ("", "0")


def is_nan_an_error() -> bool:
    return os.environ.get("BACKSWEEP_CHECK_NAN", "0") not in ("", "0")


def verify_level() -> int:
    return int(os.environ.get("BACKSWEEP_VERIFY", "1") or 0)


def fault_point() -> str:
    """What `storage.faults` does at which point, or an empty text."""
    return os.environ.get("BACKSWEEP_FAULT", "")


def _positive(name: str) -> int | None:
    value = os.environ.get(name, "")
    return int(value) if value.isdigit() and int(value) > 0 else None


def n_cores() -> int:
    """Cores that this process may use."""
    return len(place()[1])


def ranks_on_node() -> int:
    """MPI processes on this node: as they counted themselves, or by the launcher's environment.

    SLURM gives this number only if it was asked for one, and to the batch script as well.
    """
    for name in ("BACKSWEEP_RANKS_ON_NODE", "MPI_LOCALNRANKS", "OMPI_COMM_WORLD_LOCAL_SIZE"):
        value = _positive(name)
        if value is not None:
            return value
    return (_positive("SLURM_NTASKS_PER_NODE") if _is_slurm_step() else None) or 1


def _is_slurm_step() -> bool:
    """Whether srun started this process; a batch script has most of SLURM's variables too."""
    return "SLURM_STEP_ID" in os.environ and "SLURM_PROCID" in os.environ


def launched_rank() -> int | None:
    """This process's rank, from the launcher's environment."""
    for name in ("PMI_RANK", "OMPI_COMM_WORLD_RANK", "MV2_COMM_WORLD_RANK"):
        value = os.environ.get(name, "")
        if value.isdigit():
            return int(value)
    return int(os.environ["SLURM_PROCID"]) if _is_slurm_step() else None


def n_launched() -> int | None:
    """Processes that an MPI launcher started; None if no launcher started this one."""
    for name in ("PMI_SIZE", "OMPI_COMM_WORLD_SIZE", "MV2_COMM_WORLD_SIZE"):
        value = _positive(name)
        if value is not None:
            return value
    return _positive("SLURM_STEP_NUM_TASKS") if _is_slurm_step() else None


def choose_netmod() -> None:
    """Before MPI is loaded: ranks of pip's MPICH that `srun --mpi=pmi2` starts talk through OFI.

    Over UCX they hand their addresses to pmi2 with up to 4 kB of memory that nobody has set, and
    pmi2 loses lines of more than 1 kB: 13 of 19 jobs of four ranks aborted or hung as they
    started, none of 30 over OFI, where such a line has 90 bytes. What the user has set stays.
    """
    names = [f"{prefix}_CH4_NETMOD" for prefix in ("MPIR_CVAR", "MPIR_PARAM", "MPICH")]
    if "PMI_JOBID" not in os.environ or not _is_slurm_step() or any(map(os.environ.get, names)):
        return
    try:
        importlib.metadata.distribution("mpich")
    except importlib.metadata.PackageNotFoundError:
        return
    os.environ[names[0]] = "ofi"


def n_threads() -> int:
    """Threads of a sweep: BACKSWEEP_NUM_THREADS, OMP_NUM_THREADS, or the rank's share of cores."""
    for name in ("BACKSWEEP_NUM_THREADS", "OMP_NUM_THREADS"):
        value = _positive(name)
        if value is not None:
            return value
    return _share(n_cores(), ranks_on_node())


def _share(n_cores: int, n_ranks: int) -> int:
    """Threads of one of the ranks that share some cores.

    Where SLURM does not bind processes to what it has allocated, it is kept to all the same.
    """
    allocated = _positive("SLURM_CPUS_ON_NODE") or n_cores
    share = max(1, min(n_cores, allocated) // n_ranks)
    return min(share, _positive("SLURM_CPUS_PER_TASK") or share)


def allocated_bytes() -> int | None:
    """Memory of a SLURM job on this node; None where it is not said."""
    per_node, per_cpu = _positive("SLURM_MEM_PER_NODE"), _positive("SLURM_MEM_PER_CPU")
    if per_node is not None:
        return per_node << 20
    n_cores = _positive("SLURM_CPUS_ON_NODE")
    return None if per_cpu is None or n_cores is None else (per_cpu * n_cores) << 20


def place() -> tuple[str, tuple[int, ...]]:
    """The node and the cores of this process."""
    has_affinity = hasattr(os, "sched_getaffinity")
    cores = os.sched_getaffinity(0) if has_affinity else range(os.cpu_count() or 1)
    return socket.gethostname(), tuple(sorted(cores))


def share_node(places: Sequence[tuple[str, tuple[int, ...]]], rank: int) -> None:
    """Divide memory among the ranks of a node, and cores among those that may use the same ones.

    A number of threads given by the user stays.
    """
    node = places[rank][0]
    os.environ["BACKSWEEP_RANKS_ON_NODE"] = str(sum(place[0] == node for place in places))
    if _positive("BACKSWEEP_NUM_THREADS") or _positive("OMP_NUM_THREADS"):
        return
    cores = places[rank][1]
    os.environ["BACKSWEEP_NUM_THREADS"] = str(_share(len(cores), places.count(places[rank])))


def cache_folder() -> Path:
    given = os.environ.get("BACKSWEEP_CACHE_DIR")
    if given:
        return Path(given)
    base = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Path(base) / "backsweep"
