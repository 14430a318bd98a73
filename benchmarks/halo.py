"""Halo exchange between two ranks, against persistent requests by hand on contiguous buffers.

    mpiexec -n 2 python -m benchmarks.halo [--repeat N] [--json FILE]

The ranks exchange a halo in a ring of two; a message is what one rank sends to the other. By hand
nothing is packed: what the goal of 1.2 leaves is all that fields and boxes may cost. The ways are
taken in turns, each call has its own look at the clock, and medians are compared: where other
processes want the cores, a few calls wait for milliseconds and would settle any mean.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable, Iterator

import numpy as np
from mpi4py import MPI

from backsweep.comm import AbstractComm, HaloExchange, world
from benchmarks.rows import Row, make_parser, run_script

GOAL = 1.2
SIZES = {"8 KiB": 1 << 13, "64 KiB": 1 << 16, "1 MiB": 1 << 20}
N_CALLS = 1000  # of one turn


def make_raw(n_bytes: int) -> tuple[Callable[[], None], Callable[[], None]]:
    """Persistent requests on two buffers, and what frees them."""
    peer = 1 - MPI.COMM_WORLD.rank
    outgoing, incoming = np.ones(n_bytes, np.uint8), np.zeros(n_bytes, np.uint8)
    requests = [
        MPI.COMM_WORLD.Recv_init([incoming, MPI.BYTE], peer, 7),
        MPI.COMM_WORLD.Send_init([outgoing, MPI.BYTE], peer, 7),
    ]

    def exchange() -> None:
        MPI.Prequest.Startall(requests)
        MPI.Request.Waitall(requests)

    def close() -> None:
        for request in requests:
            request.Free()

    return exchange, close


def make_packed_raw(n_bytes: int) -> tuple[Callable[[], None], Callable[[], None]]:
    """The same with the two copies that cells which do not lie in a row need."""
    peer = 1 - MPI.COMM_WORLD.rank
    n = n_bytes // 4
    array = np.ones((n // 4, 12), np.float32)
    outgoing, incoming = np.ones((n // 4, 4), np.float32), np.zeros((n // 4, 4), np.float32)
    requests = [
        MPI.COMM_WORLD.Recv_init([incoming, MPI.BYTE], peer, 7),
        MPI.COMM_WORLD.Send_init([outgoing, MPI.BYTE], peer, 7),
    ]
    sent = np.s_[:, 4:8] if peer else np.s_[:, :4]
    ghost = np.s_[:, 8:] if peer else np.s_[:, :4]

    def exchange() -> None:
        outgoing[...] = array[sent]
        MPI.Prequest.Startall(requests)
        MPI.Request.Waitall(requests)
        array[ghost] = incoming

    def close() -> None:
        for request in requests:
            request.Free()

    return exchange, close


def make_halo(
    comm: AbstractComm, n_bytes: int, n_fields: int, is_in_rows: bool
) -> tuple[Callable[[], None], Callable[[], None]]:
    """float32 fields with halos of 4 cells that make one message of n_bytes."""
    length = n_bytes // 4 // 4 // n_fields
    across = (0, 8) if comm.is_root else (8, 16)
    padded = (0, 12) if comm.is_root else (4, 16)
    along = (0, length)
    order = (lambda a, b: (a, b)) if is_in_rows else (lambda a, b: (b, a))
    halo = HaloExchange(
        comm,
        [order(16, length)] * n_fields,
        [order(across, along)] * n_fields,
        [order(padded, along)] * n_fields,
        [np.float32] * n_fields,
    )
    assert halo.n_bytes == n_bytes
    arrays = [np.ones(shape, np.float32) for shape in halo.shapes]
    return halo.prepared(arrays), halo.close


def measure(
    comm: AbstractComm, works: dict[str, Callable[[], None]], repeats: int
) -> dict[str, float]:
    """Median seconds of one call of each; the same on all ranks."""
    seconds: dict[str, list[float]] = {name: [] for name in works}
    for _ in range(repeats):
        for name, work in works.items():
            comm.allgather(None)
            for _ in range(N_CALLS):
                start = time.perf_counter()
                work()
                seconds[name].append(time.perf_counter() - start)
    medians = [statistics.median(taken) for taken in seconds.values()]
    return dict(zip(seconds, map(float, comm.allreduce(medians, "max")), strict=True))


def measure_rows(arguments: argparse.Namespace) -> Iterator[Row]:
    comm = world()
    if comm.size != 2:
        raise SystemExit("two ranks: mpiexec -n 2 python -m benchmarks.halo")
    for size, n_bytes in SIZES.items():
        makers = {
            "by hand": make_raw(n_bytes),
            "by hand, packed": make_packed_raw(n_bytes),
            "one field, rows": make_halo(comm, n_bytes, 1, True),
            "one field, columns": make_halo(comm, n_bytes, 1, False),
            "four fields, rows": make_halo(comm, n_bytes, 4, True),
        }
        seconds = measure(
            comm, {name: work for name, (work, _) in makers.items()}, arguments.repeat
        )
        for _, close in makers.values():
            close()
        if comm.is_root:
            print(size, *(f"{name}: {1e6 * s:.1f} us" for name, s in seconds.items()), sep="; ")
        for name, goal in (
            ("one field, rows", GOAL),
            ("four fields, rows", None),
            ("one field, columns", None),
        ):
            base = "by hand, packed" if name.endswith("columns") else "by hand"
            pair = {key: seconds[key] for key in (name, base)}
            row = Row(
                f"halo exchange of two ranks, {size}, {name}",
                f"backsweep / {base}",
                seconds[name] / seconds[base],
                goal,
                seconds=pair,
            )
            if comm.is_root:
                print(row, flush=True)
                yield row


if __name__ == "__main__":
    run_script(measure_rows, make_parser(__doc__))
