"""Where the snapshots of a scan go that are not kept in memory, for whoever runs it."""

from __future__ import annotations

import contextlib
import uuid
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Protocol

from backsweep.comm import AbstractComm
from backsweep.errors import ScheduleError, SnapshotError
from backsweep.ir import ArrayType, Program, program_hash
from backsweep.runtime.checkpointing import Labels
from backsweep.runtime.journal import Event
from backsweep.runtime.plan import ScanPlan
from backsweep.runtime.watch import field_names
from backsweep.storage import AbstractStore, BackgroundStore, Layout
from backsweep.storage.base import Array


def open_store(
    plan: ScanPlan,
    step: Program,
    types: Sequence[ArrayType],
    event: Event,
    buffers: Sequence[list[Array]] = (),
) -> AbstractStore | None:
    """HDF5 files, with a thread of their own where there are buffers; None without a disk.

    `buffers` are the machine's own, if it has any.

    Files of a scan that can be resumed have names and a hash by which the next process knows
    them; those that an earlier process left are held from the start.
    """
    folder = plan.request.snapshot_folder
    if plan.choice.n_disk == 0 or folder is None:
        return None
    from backsweep.storage.hdf5 import HDF5Store

    layout = _layout(plan, step, types, program_hash(step) + event.identity)
    # Ranks share folders: a prefix must be the only one among all processes and nodes.
    prefix = f"snapshot-{event.identity or uuid.uuid4().hex}-{event.number}"
    with contextlib.suppress(OSError):
        Path(folder).mkdir(parents=True, exist_ok=True)
    store = HDF5Store(folder, layout, prefix=prefix, keep=event.is_durable, adopt=event.is_durable)
    n_buffers = plan.choice.n_buffers
    if n_buffers == 0:
        return store
    return BackgroundStore(store, buffers or n_buffers)


def _layout(plan: ScanPlan, step: Program, types: Sequence[ArrayType], program: str) -> Layout:
    names = field_names(step, plan.shape)
    labels = plan.request.labels or Labels()
    units, dimensions = dict(labels.units), dict(labels.dimensions)
    unknown = (set(units) | set(dimensions)) - set(names)
    if unknown:
        raise ScheduleError(
            f"labels of {', '.join(sorted(unknown))}: the carry of this scan has the components "
            f"{', '.join(names)}"
        )
    return Layout(
        tuple(f"carry_{name}" if name == "backsweep" else name for name in names),
        tuple(t.shape for t in types),
        tuple(t.dtype for t in types),
        units=tuple(units.get(name, "") for name in names) if units else (),
        program=program,
        dimensions=tuple(
            dimensions.get(n, ("",) * len(t.shape)) for n, t in zip(names, types, strict=True)
        )
        if dimensions
        else (),
        dt=labels.dt,
    )


def waited_seconds(store: AbstractStore | None) -> float:
    """How long the run has waited for the disk."""
    return store.waited_seconds if store is not None else 0.0


def thinned(
    store: AbstractStore | None, below: int, n_disk: int, comm: AbstractComm | None = None
) -> list[int]:
    """Steps of the snapshots that a resumed run may start with, the initial state first.

    Those that not all ranks have are left out. Collective where there is a communicator.
    """
    if store is None:
        return [0]
    held = store.keys()
    found = [k for k in held if 0 < k < below]
    if comm is not None:
        everywhere = set(found).intersection(*comm.allgather(found))
        found = [k for k in found if k in everywhere]
    while len(found) > n_disk:
        # Every second one: what is left stays spread over the steps.
        del found[1::2]
    return [0, *found]


def keep_only(store: AbstractStore | None, held: Sequence[int]) -> None:
    """Delete all other snapshots."""
    if store is None:
        return
    for step in set(store.keys()) - set(held):
        if step in store:
            with contextlib.suppress(SnapshotError):
                store.delete(step)


def close_store(store: AbstractStore) -> None:
    """Close without complaint: a finalizer has nobody to tell."""
    with contextlib.suppress(OSError):
        store.close()


class _Closable(Protocol):
    def close(self) -> None: ...


@contextlib.contextmanager
def closed_on_error(track: _Closable) -> Iterator[None]:
    """Snapshots on disk go at once, not when the traceback is dropped."""
    try:
        yield
    except BaseException:
        track.close()
        raise
