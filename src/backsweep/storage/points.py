"""Files of named arrays with a JSON text that says what they are: what a durable folder holds.

They are files of `storage.image`: every byte is checked, and h5py alone reads them. The text is
one more array of bytes.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, TypeAlias, final
from zlib import crc32

import numpy as np

from backsweep.errors import SnapshotError
from backsweep.storage.base import Array, Layout
from backsweep.storage.faults import reached
from backsweep.storage.files import replace_file
from backsweep.storage.image import find_image, make_image, open_file
from backsweep.storage.raw import read_head

Json: TypeAlias = "str | int | float | bool | None | list[Json] | dict[str, Json]"

_ABOUT: Final = "backsweep (JSON)"
_TEXT_UNIT: Final = 1024
"""Bytes to a multiple of which a text is filled up: files of one kind share one image."""


def write_arrays(
    path: Path,
    arrays: Mapping[str, Array],
    about: Mapping[str, Any],
    *,
    program: str,
    number: int,
    what: str,
) -> int:
    """Write a file durably, or replace it; its checksum.

    Raises
    ------
    OSError
        If it cannot be written; the one that was there before is still there.
    ShapeError
        If a name or dtype cannot be stored.
    """
    content = json.dumps(about).encode()
    content = content.ljust(-(-len(content) // _TEXT_UNIT) * _TEXT_UNIT)
    text = np.frombuffer(content, np.uint8)
    values = [text, *(np.asarray(array) for array in arrays.values())]
    layout = Layout(
        (_ABOUT, *arrays), [v.shape for v in values], [v.dtype for v in values], program=program
    )
    image = make_image(layout)
    checksum = 0

    def fill(fd: int) -> None:
        nonlocal checksum
        checksum = image.write(fd, number, values, lambda: reached(f"{what}.during-write"))

    replace_file(path, fill, what=what, is_durable=True)
    return checksum


@final
class ArrayFile:
    """A file that `write_arrays` has made; its head is verified at once, an array when read.

    Raises
    ------
    SnapshotError
        If it is missing or damaged.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._image = find_image(path)
        layout = self._image.layout
        fd = open_file(path)
        try:
            head = read_head(fd, path)
            # All about size and numbers.
            self.checksum = self._image.read(fd, path, None, [])
        finally:
            os.close(fd)
        if crc32(head) != self.checksum or layout.names[:1] != (_ABOUT,):
            raise SnapshotError(f"{path} is no resume point")
        self._head = head
        self.names = layout.names[1:]
        self.program = layout.program
        self.number = self._image.step_of(head)
        try:
            self.about: dict[str, Any] = json.loads(self.read(_ABOUT).tobytes())
        except ValueError as error:
            raise SnapshotError(f"{path} is no resume point") from error

    def read(self, name: str) -> Array:
        """A copy of one array.

        Raises
        ------
        SnapshotError
            If there is none of this name, or it is damaged.
        """
        layout = self._image.layout
        if name not in layout.names:
            raise SnapshotError(f"{self.path} has no array {name!r}, it has {self.names}")
        i = layout.names.index(name)
        out = np.empty(layout.shapes[i], layout.dtypes[i])
        fd = open_file(self.path)
        try:
            self._image.read_field(fd, self.path, self._head, i, out)
        finally:
            os.close(fd)
        return out

    def verify(self) -> None:
        """Read all arrays, one at a time, for their checksums. Raises SnapshotError."""
        for name in self.names:
            self.read(name)


@final
class Point:
    """A verified resume point.

    Attributes
    ----------
    generation : int
    notes : dict
        As they were given to `DurableFolder.save`.
    names : tuple of str
        Of its arrays.
    attached : tuple of str
        Names of what it refers to; `DurableFolder.attached` reads them.
    """

    def __init__(self, file: ArrayFile) -> None:
        self._file = file
        self.generation = file.number
        self.notes: dict[str, Json] = file.about["notes"]
        self.names = file.names
        self.attached: tuple[str, ...] = tuple(file.about["attached"])

    def read(self, name: str) -> Array:
        """A copy of one array. Raises SnapshotError if it was damaged since."""
        return self._file.read(name)

    def arrays(self) -> dict[str, Array]:
        """Copies of all arrays. Raises SnapshotError if one was damaged since."""
        return {name: self.read(name) for name in self.names}
