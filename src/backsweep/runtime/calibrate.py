"""Finds the parameters of a machine (`machine`) on the ranks that are there, in a few seconds.

Bandwidths are medians of a few large copies, messages are those of a cut scan, files those of
the snapshot store, the page cache included. What cannot be measured (messages on one rank, a
network on one node) keeps its assumed value.
"""

from __future__ import annotations

import contextlib
import itertools
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from backsweep import config
from backsweep.comm import AbstractComm, Decomposition, PlannedComm, agreement
from backsweep.comm.boxes import check_cover, ghosts
from backsweep.errors import MachineError
from backsweep.passes.partition.halo import HaloField
from backsweep.runtime.compiled import threads_for
from backsweep.runtime.forecast import Forecast
from backsweep.runtime.ghosts import Carried, Round, Server
from backsweep.runtime.machine import PARAMETERS, Machine, StepRates
from backsweep.runtime.memory import available_bytes
from backsweep.runtime.sweeper import Failure
from backsweep.runtime.work import check_lengths
from backsweep.storage import Layout

N_COPIES, COPIED_BYTES = 7, 1 << 25
N_SHORT, N_LONG, LONG_BYTES = 200, 30, 1 << 20
N_MESSAGES = 8
"""In a round, by which the seconds of one more are found."""
FILE_BYTES, N_FILES = 1 << 25, 5
METADATA_SECONDS = 0.2
N_PLANNED = 256
BUSY_SECONDS = 1e-3


def measure_machine(comm: AbstractComm, folder: Path | str = ".") -> Machine:
    """Measure all that can be. Collective: every rank must call.

    Parameters
    ----------
    comm : AbstractComm
    folder : path
        Where snapshots on disk would go; what is written there is removed.

    Raises
    ------
    MachineError
        If nothing can be written to the folder.
    """
    places = comm.allgather(config.place())
    hosts = [host for host, _ in places]
    host = hosts[comm.rank]
    cores = sorted({core for other, own in places if other == host for core in own})
    crowding = max(1.0, hosts.count(host) / len(cores))
    found: dict[str, Any] = {
        "cores": len(cores),
        "memory_bytes": available_bytes() * config.ranks_on_node(),
        "cache_bytes": cache_bytes(cores),
    }
    found["setup_seconds"] = _setup_seconds()
    found |= _copies(len(cores)) if hosts.index(host) == comm.rank else {}
    comm.allgather(None)
    found |= _messages(comm, hosts, crowding)
    with agreement(comm):
        try:
            there = next(p for p in (Path(folder), *Path(folder).absolute().parents) if p.is_dir())
            with tempfile.TemporaryDirectory(dir=there, prefix="backsweep-") as own:
                found |= _files(Path(own)) if hosts.index(host) == comm.rank else {}
                rate = _metadata_rate(Path(own))
        except OSError as error:
            raise MachineError(f"the folder {folder} cannot be written to: {error}") from error
    found["metadata_rate"] = sum(comm.allgather(rate))
    everywhere = comm.allgather(found)
    slowest = {name: _worst(name, everywhere) for name in PARAMETERS if name in everywhere[0]}
    return Machine(**slowest, assumed=tuple(n for n in PARAMETERS if n not in slowest))


def step_rates(forecast: Forecast, comm: AbstractComm) -> tuple[StepRates, ...]:
    """Core seconds per operation of each scan that was tried. Collective: every rank must call.

    Raises
    ------
    MachineError
        If the number of steps of a scan is not known before it runs.
    """
    check_lengths(forecast)
    crowding = max(1.0, config.ranks_on_node() / config.n_cores())
    found = []
    for scan in forecast.scans:
        seconds = (0.0, 0.0) if scan.rates is None else (scan.rates.advance, scan.rates.reverse)
        pairs = zip(seconds, scan.operations, strict=True)
        found.append([s * threads_for(n, config.n_threads()) / max(1, n) for s, n in pairs])
    slowest = np.max(comm.allgather(np.array(found).reshape(-1, 2)), axis=0) / crowding
    return tuple(StepRates(float(a), float(b)) for a, b in slowest)


def cache_bytes(cores: Sequence[int], root: Path = Path("/sys/devices/system/cpu")) -> int:
    """Of the last level of caches that some cores have together; 0 where nothing is said."""
    found: dict[str, int] = {}
    for core in cores:
        levels = sorted((root / f"cpu{core}" / "cache").glob("index*"))
        try:
            text = (levels[-1] / "size").read_text().strip()
            sharing = (levels[-1] / "shared_cpu_list").read_text().strip()
        except (IndexError, OSError):
            continue
        unit = {"K": 1 << 10, "M": 1 << 20, "G": 1 << 30}.get(text[-1:], 0)
        if unit and text[:-1].isdigit():
            found[sharing] = int(text[:-1]) * unit
    return sum(found.values())


def _worst(name: str, everywhere: Sequence[dict[str, Any]]) -> Any:
    values = [own[name] for own in everywhere if name in own]
    return max(values) if name.endswith("_seconds") else min(values)


def _median(work: Callable[[], object], n: int) -> float:
    """Seconds of a call."""
    work()
    found = []
    for _ in range(n):
        begin = time.perf_counter()
        work()
        found.append(time.perf_counter() - begin)
    return statistics.median(found)


def _copies(n_cores: int) -> dict[str, float]:
    """Bandwidths of one core and of all cores of this node, read and written bytes together."""
    n = int(min(COPIED_BYTES, available_bytes() // (8 * n_cores)))
    pairs = [(np.ones(n, np.uint8), np.zeros(n, np.uint8)) for _ in range(n_cores)]

    def copy(k: int) -> None:
        np.copyto(pairs[k][1], pairs[k][0])  # without the interpreter's lock

    alone = _median(lambda: copy(0), N_COPIES)
    with ThreadPoolExecutor(n_cores) as pool:
        together = _median(lambda: list(pool.map(copy, range(n_cores))), N_COPIES)
    core = 2 * n / alone
    return {"core_bandwidth": core, "node_bandwidth": max(core, 2 * n * n_cores / together)}


# --------------------------------------------------------------------------- messages


def partners(hosts: Sequence[str], is_far: bool) -> list[int | None]:
    """Whom each rank exchanges messages with: on its node, or on another one.

    On a node the first rank with the second, the third with the fourth ...; of nodes the k-th
    rank of the first with the k-th of the second ....
    """
    found: list[int | None] = [None] * len(hosts)
    ranks = [[r for r, own in enumerate(hosts) if own == h] for h in dict.fromkeys(hosts)]
    pairs = [p for own in ranks for p in zip(own[::2], own[1::2], strict=False)]
    if is_far:
        both = zip(ranks[::2], ranks[1::2], strict=False)
        pairs = [pair for one, other in both for pair in zip(one, other, strict=False)]
    for a, b in pairs:
        found[a], found[b] = b, a
    return found


def _messages(comm: AbstractComm, hosts: Sequence[str], crowding: float) -> dict[str, float]:
    """Seconds of messages and of collectives; divided by ranks per core, which `costs` multiplies.

    On one rank nothing but what Python takes for a round is found.
    """
    near = partners(hosts, is_far=False)
    found = {"round_seconds": _halo_round(comm, near) / crowding}
    if crowding > 1:
        busy = _halo_round(comm, near, BUSY_SECONDS)
        waiting = busy - crowding * (BUSY_SECONDS + found["round_seconds"])
        found["waiting_seconds"] = max(waiting, busy / 100) / (crowding - 1)
    if comm.size == 1:
        return found
    n_stages = (comm.size - 1).bit_length()
    if any(partner is not None for partner in near):
        one, many, long = _rounds(comm, near)
        each = _beyond(many, one) / (N_MESSAGES - 1)
        found["message_seconds"] = each / crowding
        found["round_seconds"] = _beyond(found["round_seconds"], found["message_seconds"])
        found["bandwidth"] = LONG_BYTES / _beyond(long, one)
        far = partners(hosts, is_far=True)
        if any(partner is not None for partner in far):
            one_far, _, long_far = _rounds(comm, far)
            found["network_seconds"] = _beyond(one_far, one)
            per_node = max(hosts.count(h) for h in hosts)
            found["network_bandwidth"] = per_node * LONG_BYTES / _beyond(long_far, one_far)
    zero = np.zeros(1)
    stages = _slowest(comm, lambda: comm.allreduce(zero), N_SHORT) / n_stages
    found["stage_seconds"] = stages / crowding
    objects = _slowest(comm, lambda: comm.allgather(None), N_SHORT)
    found["object_seconds"] = _beyond(objects, 2 * n_stages * stages) / comm.size / crowding
    return found


def _beyond(whole: float, part: float) -> float:
    """What is left of some seconds; a tenth at least, for others may have used the cores."""
    return max(whole - part, whole / 10)


def _slowest(comm: AbstractComm, work: Callable[[], object], n: int) -> float:
    """Median seconds of a call on the slowest rank; the same on all ranks."""
    comm.allgather(None)
    return float(comm.allreduce([_median(work, n)], "max")[0])


def _rounds(comm: AbstractComm, partner_of: Sequence[int | None]) -> tuple[float, float, float]:
    """Seconds of a round of one short message, of several, and of a long one, each way."""
    partner = partner_of[comm.rank]
    found = []
    for n_messages, n_bytes, n in (
        (1, 8, N_SHORT),
        (N_MESSAGES, 8, N_SHORT),
        (1, LONG_BYTES, N_LONG),
    ):
        tag = comm.new_tag()
        n_own = 0 if partner is None else n_messages
        to_send = [(partner or 0, np.zeros(n_bytes, np.uint8)) for _ in range(n_own)]
        to_receive = [(partner or 0, np.zeros(n_bytes, np.uint8)) for _ in range(n_own)]
        with comm.messages(to_send, to_receive, tag) as messages:

            def work(messages: Any = messages, n_own: int = n_own) -> None:
                if n_own:
                    messages.start()
                    messages.wait()

            found.append(_slowest(comm, work, n))
    return found[0], found[1], found[2]


def _halo_round(
    comm: AbstractComm, partner_of: Sequence[int | None], busy_seconds: float = 0.0
) -> float:
    """Seconds of an exchange of one ghost cell with the partner, as compiled code asks for it.

    That is through two callbacks, of an array whose exchange is prepared. Before it each rank
    computes for some seconds of its core.
    """
    lo, hi = 2 * comm.rank, 2 * comm.rank + 2
    partner = partner_of[comm.rank]
    layout = (lo, hi)
    if partner is not None:
        # Ranks between partners lie between their cells: the layout would hold those as well.
        other = (2 * partner, 2 * partner + 2)
        layout = (min(lo, other[1] - 1), max(hi, other[0] + 1))
    array = np.zeros(layout[1] - layout[0])
    field = HaloField((2 * comm.size,), array.dtype, ((lo, hi),), (layout,), 0, True, 0)
    failure, told = Failure(), np.zeros(1, np.int64)
    with contextlib.closing(Round([field], comm)) as round_:
        calls = Server(failure, round_, told, lambda _: Carried([array])).calls()

        def serve() -> None:
            end = time.thread_time() + busy_seconds
            while busy_seconds and time.thread_time() < end:
                pass
            calls["start"]()
            calls["finish"]()

        seconds = _slowest(comm, serve, N_SHORT)
    if failure.error is not None:
        raise failure.error
    return seconds


def _setup_seconds() -> float:
    """What one more rank takes a rank that finds out which messages it exchanges, for a field.

    As a `HaloExchange` does it, for ranks that are not there.
    """
    grid, n = (8 * N_PLANNED,), N_PLANNED
    blocks = Decomposition(grid, comm=PlannedComm(n, n // 2))
    owned = [blocks.block(rank) for rank in range(n)]
    layouts = [tuple((max(0, lo - 1), min(grid[0], hi + 1)) for lo, hi in box) for box in owned]
    me = blocks.comm.rank

    def work() -> None:
        check_cover([grid], me, [layouts[me]], [(box,) for box in owned])
        for rank in range(n):
            list(ghosts([grid], [layouts[me]], [owned[rank]]))
            list(ghosts([grid], [layouts[rank]], [owned[me]]))

    return _median(work, 3) / n


# --------------------------------------------------------------------------- files


def _files(folder: Path) -> dict[str, float]:
    """Seconds of a snapshot's file, and its bandwidths."""
    small_write, small_read = _file_seconds(folder, 1 << 12)
    write, read = _file_seconds(folder, FILE_BYTES)
    return {
        "file_seconds": (small_write + small_read) / 2,
        "write_bandwidth": FILE_BYTES / _beyond(write, small_write),
        "read_bandwidth": FILE_BYTES / _beyond(read, small_read),
    }


def _file_seconds(folder: Path, n_bytes: int) -> tuple[float, float]:
    """To write a snapshot of so many bytes, and to read it."""
    from backsweep.storage.hdf5 import HDF5Store  # importing backsweep does not load HDF5

    state = [np.zeros(n_bytes, np.uint8)]
    layout = Layout(("u",), (state[0].shape,), (state[0].dtype,))
    with HDF5Store(folder, layout, prefix=f"trial-{n_bytes}") as store:
        keys = itertools.count(1)
        write = _median(lambda: store.put(next(keys), state), N_FILES)
        return write, _median(lambda: store.get(1, state), N_FILES)


def _metadata_rate(folder: Path) -> float:
    """Files made, named and removed per second by this rank."""
    n, begin = 0, time.perf_counter()
    while (seconds := time.perf_counter() - begin) < METADATA_SECONDS:
        path, name = folder / f"{n}.tmp", folder / f"{n}"
        path.touch()
        path.rename(name)
        name.unlink()
        n += 3
    return n / seconds
