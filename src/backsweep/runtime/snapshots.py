"""Where the snapshots of a scan go, for whoever runs it."""

from __future__ import annotations

import contextlib
import uuid
from collections.abc import Iterator, Sequence
from typing import Protocol

from backsweep.ir import ArrayType, Program, program_hash
from backsweep.runtime.checkpointing import Checkpointing
from backsweep.storage import AbstractStore, Layout, MemoryStore


def open_store(
    request: Checkpointing, step: Program, types: Sequence[ArrayType], n_snapshots: int
) -> AbstractStore:
    """HDF5 files where the request names a directory, else memory for `n_snapshots`."""
    layout = Layout(
        tuple(f"carry{k}" for k in range(len(types))),
        tuple(t.shape for t in types),
        tuple(t.dtype for t in types),
        program=program_hash(step),
    )
    if request.directory is None:
        return MemoryStore(layout, max(1, n_snapshots))
    from backsweep.storage.hdf5 import HDF5Store

    # Ranks share folders: a prefix must be the only one among all processes and nodes.
    return HDF5Store(request.directory, layout, prefix=f"snapshot-{uuid.uuid4().hex}")


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
