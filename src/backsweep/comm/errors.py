"""Errors on which all ranks agree, so that the job ends orderly and says a thing once."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from backsweep.comm.base import AbstractComm
from backsweep.errors import BacksweepError, CommError


class Agreed(CommError):
    """An error that every rank raises together.

    Attributes
    ----------
    rank : int
        The lowest rank on which it arose.
    """

    def __init__(self, message: str, rank: int) -> None:
        super().__init__(message)
        self.rank = rank


@contextmanager
def agreement(comm: AbstractComm) -> Iterator[None]:
    """If the block fails with a `BacksweepError` on any rank, raise it on all.

    Collective: every rank must enter. For what is quick (reading files, checks); a rank that fails
    in a long computation ends the job with `AbstractComm.abort` instead. One rank alone raises the
    error itself.
    """
    if comm.size == 1:
        yield
        return
    error: BacksweepError | None = None
    try:
        yield
    except BacksweepError as caught:
        error = caught
    messages = comm.allgather(None if error is None else str(error))
    failed = [rank for rank, message in enumerate(messages) if message is not None]
    if not failed:
        return
    first = failed[0]
    where = "" if first == 0 else f"rank {first}: "
    raise Agreed(where + messages[first], first) from error


__all__ = ["Agreed", "agreement"]
