"""What ranks that run blocks of one program do together, so that none waits for another in vain."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np

from backsweep.comm import AbstractComm
from backsweep.errors import SnapshotError


@dataclass(frozen=True)
class Blocks:
    """Whose part of a program on global arrays a program is.

    Attributes
    ----------
    comm : AbstractComm
        Of the ranks that run the other parts.
    labels : callable
        Returns what the rank knows of the identity of the whole computation.
    """

    comm: AbstractComm
    labels: Callable[[], dict[str, str]]

    def identity(self) -> dict[str, str]:
        """What all ranks know of it; what differs between them is hashed together. Collective."""
        every = self.comm.allgather(self.labels())
        found = {}
        for label in every[0]:
            texts = [own.get(label, "") for own in every]
            same = len(set(texts)) == 1
            found[label] = texts[0] if same else hashlib.sha256(repr(texts).encode()).hexdigest()
        return found


@contextmanager
def shared_failure(comm: AbstractComm | None) -> Iterator[None]:
    """If the block fails with a `SnapshotError` on any rank: so on all.

    Collective: every rank must enter. Costs one small reduction where nothing fails.

    Parameters
    ----------
    comm : AbstractComm, optional
        None: there is one rank.
    """
    if comm is None or comm.size == 1:
        yield
        return
    error: SnapshotError | None = None
    try:
        yield
    except SnapshotError as caught:
        error = caught
    if not is_any(comm, error is not None):
        return
    messages = comm.allgather(None if error is None else str(error))
    failed = [rank for rank, message in enumerate(messages) if message is not None]
    raise SnapshotError(f"rank {failed[0]}: {messages[failed[0]]}") from error


def is_any(comm: AbstractComm, flag: bool) -> bool:
    """Whether something is so on any rank. Collective: every rank must call."""
    return bool(comm.allreduce(np.array([flag], np.int64), "max")[0])
