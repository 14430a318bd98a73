"""What a long computation has found out so far, one record after the other, on disk.

    manifest.json           identity of the computation; with lock: a `durable.DurableFolder`
    records-00000012.h5     the 13th record and those that were written with it

A file is written whole and durably, and never changed: after a kill at any moment there are the
first n records. One that is damaged ends the list.
"""

from __future__ import annotations

import os
import re
import shutil
import warnings
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, final

from backsweep.closing import Closing
from backsweep.errors import SnapshotError
from backsweep.storage.base import Array
from backsweep.storage.durable import DurableFolder
from backsweep.storage.files import delete, reason
from backsweep.storage.manifest import hash_identity
from backsweep.storage.points import ArrayFile, write_arrays

_FILE: Final = re.compile(r"records-(\d{8})\.h5")
_TEMPORARY: Final = re.compile(r"\.records-\d{8}\.h5\.\d+\.tmp")
_UNDER_WAY: Final = re.compile(r"call-\d{8}-[0-9a-f]+")


@dataclass(frozen=True)
class Record:
    """What is known of a record without reading its arrays."""

    about: Mapping[str, Any]
    names: tuple[str, ...]
    file: ArrayFile
    prefix: str

    def read(self) -> dict[str, Array]:
        """Copies of its arrays. Raises SnapshotError if one is damaged."""
        return {name: self.file.read(self.prefix + name) for name in self.names}


@final
class RecordFolder(Closing):
    """The records of one computation; a context manager that releases the folder.

    Parameters
    ----------
    directory : path
        Made if it is missing, with its parents.
    identity : mapping of str to str
        As for `DurableFolder`.
    fresh : bool
        Whether what is there is removed first.

    Attributes
    ----------
    records : list of Record

    Raises
    ------
    ResumeError
        If another process uses the folder, or it belongs to another computation.
    SnapshotError
        If the folder cannot be made or written to.
    """

    def __init__(
        self,
        directory: str | os.PathLike[str],
        identity: Mapping[str, str],
        *,
        fresh: bool = False,
    ) -> None:
        self.directory = Path(directory)
        self._folder = DurableFolder(directory, identity, fresh=fresh)
        self._hash = hash_identity(identity)
        self._is_open = True
        self.records: list[Record] = []
        try:
            self._remove(_TEMPORARY)
            if fresh:
                self.remove_folders()
                self._remove(_FILE)
            self._is_named = self._folder.latest() is not None
            self._find()
        except BaseException:
            self._folder.close()
            raise

    def append(self, records: Sequence[tuple[Mapping[str, Any], Mapping[str, Array]]]) -> None:
        """Write records durably: what is known of each, and its arrays.

        Raises
        ------
        SnapshotError
            If they cannot be written; those that were there before still are.
        """
        self.name()
        first = len(self.records)
        arrays = {_prefix(k) + n: a for k, (_, own) in enumerate(records) for n, a in own.items()}
        about = {"records": [[dict(a), list(own)] for a, own in records]}
        path = self._path(first)
        try:
            write_arrays(path, arrays, about, program=self._hash, number=first, what="record")
        except OSError as error:
            raise SnapshotError(f"{path} could not be written: {reason(error)}") from error
        self._take(path)

    def name(self) -> None:
        """Have the identity of the computation on disk, before anything of it is there."""
        if not self._is_named:
            self._folder.save({}, {})
            self._is_named = True

    def truncate(self, n: int) -> None:
        """Forget all records but the first n. Raises SnapshotError within a file of several."""
        if n < len(self.records) and self.records[n].prefix != _prefix(0):
            raise SnapshotError(f"{self.records[n].file.path} was damaged while in use")
        for number in sorted(self._numbers(), reverse=True):
            if number >= n:
                delete(self._path(number))
        del self.records[n:]

    @property
    def folders(self) -> list[Path]:
        """Folders in this one."""
        with suppress(OSError):
            return sorted(p for p in self.directory.iterdir() if p.is_dir())
        return []

    def remove_folders(self, but: Path | None = None) -> None:
        """Remove folders of what was under way, that are not needed any more."""
        for path in self.folders:
            if path != but and _UNDER_WAY.fullmatch(path.name):
                shutil.rmtree(path, ignore_errors=True)

    def clear(self) -> None:
        """Remove everything, since it is not needed any more, and close."""
        self.remove_folders()
        self.truncate(0)
        self._folder.clear()
        self._is_open = False

    def close(self) -> None:
        """Release the folder, and keep the records, if there are any; may be called again."""
        if not self._is_open:
            return
        if not self.records and not any(p.is_file() for f in self.folders for p in f.rglob("*")):
            self.clear()
        self._folder.close()
        self._is_open = False

    def _find(self) -> None:
        while (path := self._path(len(self.records))).exists():
            try:
                self._take(path)
            except (SnapshotError, LookupError, TypeError, ValueError) as error:
                warnings.warn(
                    f"resume: {error}; the records before it are used", RuntimeWarning, stacklevel=4
                )
                break
        self.truncate(len(self.records))

    def _take(self, path: Path) -> None:
        file = ArrayFile(path)
        if (file.program, file.number) != (self._hash, len(self.records)):
            raise SnapshotError(f"{path} belongs to another computation")
        found = [
            Record(about, tuple(names), file, _prefix(k))
            for k, (about, names) in enumerate(file.about["records"])
        ]
        if len(found) > 1:  # Small ones: none of them is missed later.
            file.verify()
        self.records += found

    def _numbers(self) -> list[int]:
        with suppress(OSError):
            return [int(m[1]) for n in os.listdir(self.directory) if (m := _FILE.fullmatch(n))]
        return []

    def _remove(self, pattern: re.Pattern[str]) -> None:
        with suppress(OSError):
            for name in os.listdir(self.directory):
                if pattern.fullmatch(name):
                    delete(self.directory / name)

    def _path(self, number: int) -> Path:
        return self.directory / f"records-{number:08d}.h5"


def _prefix(k: int) -> str:
    return f"{k}."
