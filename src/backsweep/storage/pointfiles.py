"""The files of points that one process writes into a folder; which of them count is said elsewhere.

    point-00000008.h5      generation 8: arrays, notes, and what a manifest would say about it
    attached-NAME.h5       arrays that are written once, and that points refer to

Where ranks share a folder the names end in the number of the rank, ``point-00000008-rank-3.h5``.
"""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any, Final, final

from backsweep.errors import SnapshotError
from backsweep.storage.base import Array
from backsweep.storage.files import delete, reason
from backsweep.storage.points import ArrayFile, write_arrays

MANIFEST: Final = "manifest.json"
OURS: Final = r"(manifest\.json|point-\d{8,}(-rank-\d+)?\.h5|attached-[\w.-]+\.h5)"
_NAME: Final = re.compile(r"[\w][\w.-]*", re.ASCII)


@final
class PointFiles:
    """The files of one process.

    Parameters
    ----------
    directory : Path
    program : str
        Hash of what is computed, which is in each file.
    suffix : str
        Of their names.
    """

    def __init__(self, directory: Path, program: str, suffix: str = "") -> None:
        self.directory, self.program, self.suffix = directory, program, suffix

    def write(self, number: int, arrays: Mapping[str, Array], about: Mapping[str, Any]) -> int:
        """Make a point durable; its checksum. Raises SnapshotError."""
        path = self.path(number)
        try:
            return write_arrays(
                path, arrays, about, program=self.program, number=number, what="point"
            )
        except OSError as error:
            raise SnapshotError(
                f"the resume point {path} could not be written: {reason(error)}"
            ) from error

    def attach(self, name: str, arrays: Mapping[str, Array], known: Collection[str]) -> int:
        """Write arrays under a name that is not known yet; their checksum. Raises SnapshotError."""
        if not _NAME.fullmatch(name):
            raise SnapshotError(f"{name!r} cannot name attached arrays: use letters and digits")
        if name in known:
            raise SnapshotError(f"{name!r} is attached already; attach under another name")
        path = self.attached_path(name)
        try:
            return write_arrays(
                path, arrays, {"attached as": name}, program=self.program, number=0, what="attached"
            )
        except OSError as error:
            raise SnapshotError(f"{path} could not be written: {reason(error)}") from error

    def verified(
        self, number: int, checksum: int, attached: Mapping[str, int] | None = None
    ) -> ArrayFile:
        """The intact file of a point; without `attached` the point says what it needs.

        Raises
        ------
        SnapshotError
            If it is damaged, or another one, or something that it needs is.
        """
        path = self.path(number)
        file = ArrayFile(path)
        if file.number != number:
            raise SnapshotError(f"{path} holds generation {file.number}")
        if (file.program, file.checksum) != (self.program, checksum):
            raise SnapshotError(f"{path} is another file than the one that was saved")
        file.verify()
        needed = file.about["attached"] if attached is None else attached
        for name, own in needed.items():
            self._open_attached(name, own).verify()
        return file

    def attached(self, name: str, known: Mapping[str, int]) -> dict[str, Array]:
        """Copies of what was attached under a name. Raises SnapshotError."""
        file = self._open_attached(name, checksum_of(name, known))
        return {each: file.read(each) for each in file.names}

    def numbers(self) -> set[int]:
        """Generations of which there is a file."""
        pattern = re.compile(rf"point-(\d{{8,}}){re.escape(self.suffix)}\.h5")
        return {int(m[1]) for name in names_in(self.directory) if (m := pattern.fullmatch(name))}

    def sweep(self, numbers: Collection[int], attached: Collection[str]) -> None:
        """Remove all but the files of these generations, and of these attached arrays."""
        kept = {*map(self.path, numbers), *map(self.attached_path, attached)}
        pattern = rf"(point-\d{{8,}}|attached-[\w.-]+){re.escape(self.suffix)}\.h5"
        for name in names_in(self.directory):
            path = self.directory / name
            if re.fullmatch(pattern, name) and path not in kept:
                delete(path)

    def path(self, number: int) -> Path:
        return self.directory / f"point-{number:08d}{self.suffix}.h5"

    def attached_path(self, name: str) -> Path:
        return self.directory / f"attached-{name}{self.suffix}.h5"

    def _open_attached(self, name: str, checksum: int) -> ArrayFile:
        file = ArrayFile(path := self.attached_path(name))
        if (file.program, file.checksum) != (self.program, checksum):
            raise SnapshotError(f"{path} is another file than the one that was attached")
        return file


def checksum_of(name: str, known: Mapping[str, int]) -> int:
    """Of attached arrays. Raises SnapshotError if nothing is known under the name."""
    if name not in known:
        raise SnapshotError(f"nothing is attached as {name!r}; {(*known,)} are")
    return known[name]


def names_in(directory: Path) -> list[str]:
    """Of the files in a folder."""
    try:
        return os.listdir(directory)
    except OSError:
        return []  # Writing will say what is wrong with the folder.
