"""The folder in which an inversion, or a gradient, is kept while it runs."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

from backsweep.comm import AbstractComm, agreement
from backsweep.runtime import stop
from backsweep.runtime.checkpointing import Checkpointing
from backsweep.storage.records import RecordFolder


@contextmanager
def recording(
    request: Checkpointing, comm: AbstractComm, identity: Callable[[], Mapping[str, str]]
) -> Iterator[RecordFolder | None]:
    """The root's folder of records, if there is to be one. Collective: every rank must call.

    Within the block SIGUSR1 and SIGTERM are noted, if it can be resumed.

    Raises
    ------
    ResumeError
        If the folder is that of another identity, or another process uses it.
    """
    if not request.resume:
        yield None
        return
    folder: RecordFolder | None = None
    with stop.watching(comm):
        with agreement(comm):
            if comm.is_root:
                assert request.directory is not None
                folder = RecordFolder(request.directory, identity(), fresh=request.fresh)
        if folder is None:
            yield None
            return
        with folder:
            yield folder
