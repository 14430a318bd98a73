"""Errors on which all ranks agree, so that the job ends orderly and says a thing once."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from backsweep.comm.base import AbstractComm
from backsweep.errors import BacksweepError, CommError, Stopped


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
    """If the block fails with a `BacksweepError`, or is stopped, on any rank: so on all.

    Collective: every rank must enter. For what is quick (reading files, checks); a rank that fails
    in a long computation ends the job with `AbstractComm.abort` instead. One rank alone raises the
    error itself.
    """
    if comm.size == 1:
        yield
        return
    error: BacksweepError | Stopped | None = None
    try:
        yield
    except (BacksweepError, Stopped) as caught:
        error = caught
    is_stopped = isinstance(error, Stopped)
    found = comm.allgather(
        (None if error is None or is_stopped else str(error), stop_message(error))
    )
    failed = [rank for rank, (message, _) in enumerate(found) if message is not None]
    if failed:
        first = failed[0]
        where = "" if first == 0 else f"rank {first}: "
        raise Agreed(where + found[first][0], first) from error
    for _, stop in found:
        if stop is not None:
            raise Stopped(*stop) from error


def stop_message(error: BaseException | None) -> tuple[str, str] | None:
    """What is sent of an error that stops a rank, to stop the others: arguments of `Stopped`."""
    return (error.signal_name, error.where) if isinstance(error, Stopped) else None


__all__ = ["Agreed", "agreement", "stop_message"]
