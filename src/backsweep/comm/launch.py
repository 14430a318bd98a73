"""Which communicator this process belongs to, from what the launcher left in the environment."""

from __future__ import annotations

import functools

from backsweep import config
from backsweep.comm.base import AbstractComm, SerialComm
from backsweep.comm.errors import Agreed


def connect() -> AbstractComm:
    """The communicator of this process. Collective: every rank must call.

    Without a launcher there is one rank, and mpi4py is not imported. Threads and memory per rank
    follow from what the ranks of a node share. From now on an exception that nobody catches on
    one of several ranks ends them all, which would wait for it for ever.

    Raises
    ------
    Agreed
        On every rank, if a launcher started several processes, but MPI is missing or does not
        see them.
    """
    n_started = config.n_launched()
    if n_started is None:
        return SerialComm()
    config.choose_netmod()
    try:
        from backsweep.comm.mpi import MPIComm, abort_if_uncaught

        comm = MPIComm()
    except (ImportError, RuntimeError) as error:
        if n_started == 1:
            return SerialComm()
        raise Agreed(
            f"a launcher started {n_started} processes, but mpi4py cannot load MPI "
            f"({str(error).splitlines()[0]}); load the site's MPI module, or pip install "
            "'backsweep[mpich]' and use its mpiexec",
            rank=0,
        ) from error
    if comm.size != n_started:
        raise Agreed(
            f"the launcher started {n_started} processes, but MPI sees {comm.size} rank(s): each "
            "would do the whole work. Launcher and MPI library do not belong together: use the "
            "mpiexec of that library, or srun --mpi=pmi2",
            rank=0,
        )
    places = comm.allgather(config.place())
    config.share_node(places, comm.rank)
    cores = places[comm.rank][1]
    comm.is_crowded = places.count(places[comm.rank]) > len(cores)
    if comm.size > 1:
        abort_if_uncaught()
    return comm


@functools.cache
def world() -> AbstractComm:
    """All ranks of the job: `connect`, remembered. Collective at the first call."""
    return connect()


def serial() -> AbstractComm:
    """A communicator of this process alone, whatever a launcher started."""
    return SerialComm()
