"""Snapshots on disk: one HDF5 file per snapshot, readable with h5py alone.

What a file holds is said in `storage.image`. It is written under a temporary name and renamed;
its space is reserved first, so that a full disk is met before anything is written. Nothing is
synced: a snapshot can be recomputed. HDF5 itself is needed once, when the store is made: reads
and writes are plain system calls, during which other threads run (`storage.background`).
The file of a snapshot that is deleted gets a temporary name and is written over by the next one.
See docs/decisions/0013-raw-writes-into-an-hdf5-image.md.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import final

from backsweep.errors import SnapshotError
from backsweep.storage.base import AbstractStore, Array, Layout
from backsweep.storage.faults import reached
from backsweep.storage.files import delete, reason, replace_file, temporary_of
from backsweep.storage.image import make_image, read_file


@final
class HDF5Store(AbstractStore):
    """Snapshots as HDF5 files in a folder.

    Parameters
    ----------
    directory : path
        An existing, writable folder; best on a disk of the node.
    layout : Layout
        Of every snapshot; its `program` is written to each file and checked on reading.
    prefix : str
        File names are ``{prefix}-{step:012d}.h5``. A store is the only one with its prefix
        in a folder: ranks need different ones.
    keep : bool
        Whether `close` leaves the files.
    adopt : bool
        Whether snapshots that an earlier store of this prefix kept are held from the
        start. They are verified when they are read.

    Raises
    ------
    SnapshotError
        If the folder is missing or cannot be written to.

    Notes
    -----
    ``layout.nbytes``, a few hundred bytes per field and at most 4 KiB before each on disk; no
    copy of contiguous arrays is made in memory.
    """

    def __init__(
        self,
        directory: str | os.PathLike[str],
        layout: Layout,
        *,
        prefix: str = "snapshot",
        keep: bool = False,
        adopt: bool = False,
    ) -> None:
        super().__init__(layout)
        self.directory = Path(directory)
        self.prefix = prefix
        self.keep = keep
        self._image = make_image(layout)
        self._spares: list[Path] = []
        self._check_directory()
        self._remove_temporaries()
        if adopt:
            self._steps.update(self._matching(rf"{re.escape(prefix)}-(\d{{12,}})\.h5"))

    def path(self, key: int) -> Path:
        """File of the snapshot of step `key`, whether or not it is there."""
        return self.directory / f"{self.prefix}-{key:012d}.h5"

    def _write(self, key: int, arrays: Sequence[Array]) -> None:
        path = self.path(key)

        def fill(fd: int) -> None:
            self._image.write(fd, key, arrays, lambda: reached("snapshot.during-write"))

        spare = self._spare()
        try:
            replace_file(path, fill, what="snapshot", is_durable=False, spare=spare)
        except OSError as error:
            raise SnapshotError(
                f"the snapshot of step {key} could not be written to {path}: {reason(error)}"
            ) from error

    def _read(self, key: int, out: Sequence[Array]) -> None:
        try:
            read_file(self.path(key), self._image, key, out)
        except SnapshotError as error:
            raise SnapshotError(f"the snapshot of step {key} is lost: {error}") from error

    def _spare(self) -> Path | None:
        """A file of the right size that is not needed any more and still there."""
        while self._spares:
            spare = self._spares.pop()
            with suppress(OSError):
                if spare.stat().st_size == self._image.file_nbytes:
                    return spare
        return None

    def _remove(self, key: int) -> None:
        path = self.path(key)
        self._spares.append(temporary_of(path))
        delete(path, self._spares[-1])

    def _release(self) -> None:
        if not self.keep:
            for key in self._steps:
                delete(self.path(key))
        self._remove_temporaries()

    def _check_directory(self) -> None:
        probe = temporary_of(self.path(0))
        try:
            probe.touch()
            probe.unlink()
        except OSError as error:
            raise SnapshotError(
                f"snapshots cannot be written to the folder {self.directory}: {reason(error)}"
            ) from error

    def _remove_temporaries(self) -> None:
        """Remove what this or a killed process with this prefix left half-written."""
        for step in self._matching(rf"\.{re.escape(self.prefix)}-(\d{{12,}})\.h5\.\d+\.tmp"):
            for path in self.directory.glob(f".{self.path(step).name}.*.tmp"):
                with suppress(OSError):
                    path.unlink()

    def _matching(self, pattern: str) -> set[int]:
        """The steps in the names of the folder's files that match a pattern."""
        try:
            names = os.listdir(self.directory)
        except OSError:
            return set()
        return {int(match[1]) for name in names if (match := re.fullmatch(pattern, name))}
