"""Reading and writing files whose layout is known to the byte, with checksums.

An `Image` says where everything lies; `storage.image` has HDF5 make one. A file is its *head*
(what all files of the layout share, and some numbers of its own), data, and a *footer* behind
what HDF5 knows of the file: a mark and the head's checksum. So a head is verified before HDF5
is let near it, which can hang on a flipped bit.

The checksum of 1 MiB is taken just before it is written or just after it is read, while it is
in a cache; both let other Python threads run.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from zlib import crc32

import numpy as np

from backsweep.errors import SnapshotError
from backsweep.storage.base import Array, Layout
from backsweep.storage.checksum import checksum_of
from backsweep.storage.files import read_at, reason, reserve, write_at

#: Starts the footer; the digit is the version of the format.
MARK: Final = b"bsweep-2"

#: Mark, bytes of the head, checksum of the head.
_FOOTER: Final = struct.Struct("<8sQI")
FOOTER_NBYTES: Final = _FOOTER.size
_CHUNK: Final = 1 << 20


def _do_nothing() -> None:
    pass


@dataclass(frozen=True, slots=True)
class Place:
    """Where a dataset lies in a file."""

    start: int
    n_bytes: int

    @property
    def stop(self) -> int:
        return self.start + self.n_bytes


@dataclass(frozen=True, slots=True)
class Image:
    """A file without its numbers and data.

    Parameters
    ----------
    layout : Layout
    head : bytes
        The start of every file, with zeros where numbers and data are.
    n_bytes : int
        Of a whole file, without its footer.
    fields : tuple of Place
        One per field; an empty field has none in the file, and the place (0, 0).
    numbers : dict of str to Place
        Those of ``step``, ``checksum`` and, if known, ``time``.
    """

    layout: Layout
    head: bytes
    n_bytes: int
    fields: tuple[Place, ...]
    numbers: dict[str, Place]

    @property
    def file_nbytes(self) -> int:
        """Bytes of a whole file."""
        return self.n_bytes + FOOTER_NBYTES

    def write(
        self,
        fd: int,
        step: int,
        arrays: Sequence[Array],
        during: Callable[[], None] = _do_nothing,
    ) -> int:
        """Write a whole file; its space is reserved first, head and footer come last.

        Parameters
        ----------
        fd : int
            Of an empty file, or of one of this layout.
        step : int
        arrays : sequence of ndarray
            That fit the layout; those that are not contiguous are copied, one at a time.
        during : callable
            Called when data are written and the head is not.

        Returns
        -------
        int
            The checksum of the head, which holds all other checksums.
        """
        reserve(fd, self.file_nbytes)
        head = bytearray(self.head)
        checksums = np.zeros(len(arrays), "<u4")
        for i, array in enumerate(arrays):
            # Not `ascontiguousarray`, which makes an axis of none.
            data, place = _bytes_of(np.asarray(array, order="C")), self.fields[i]
            if place.stop <= len(head):
                head[place.start : place.stop] = data
                checksums[i] = checksum_of(data)
            else:
                checksums[i] = _write_data(fd, data, place.start)
        during()
        for name, value in self._values(step, checksums):
            place = self.numbers[name]
            head[place.start : place.stop] = value
        checksum = crc32(head)
        write_at(fd, head, 0)
        write_at(fd, _FOOTER.pack(MARK, len(head), checksum), self.n_bytes)
        return checksum

    def read(self, fd: int, path: Path, step: int | None, out: Sequence[Array]) -> int:
        """Fill arrays that fit the layout, and verify all that the file says.

        Parameters
        ----------
        fd : int
        path : Path
            Named in errors.
        step : int or None
            None takes the file's own.
        out : sequence of ndarray

        Returns
        -------
        int
            The checksum of the head, as `write` returned it.

        Raises
        ------
        SnapshotError
            That starts with the path and says what is wrong with the file.
        """
        head = read_head(fd, path)
        size = os.fstat(fd).st_size
        if size != self.file_nbytes:
            raise SnapshotError(f"{path} has {size} bytes, {self.file_nbytes} are expected")
        if not self.fits(head):
            raise SnapshotError(f"{path} has another layout than expected")
        own = self.step_of(head)
        if step is not None and own != step:
            raise SnapshotError(f"{path} holds step {own}")
        for name, value in self._values(own, self._checksums(head)):
            if self._number(head, name) != value:
                raise SnapshotError(f"{path} has a wrong {name}")
        for i, array in enumerate(out):
            self.read_field(fd, path, head, i, array)
        return crc32(head)

    def read_field(self, fd: int, path: Path, head: bytes, i: int, out: Array) -> None:
        """Fill an array with one field of a file, whose head has been read. Raises as `read`."""
        data = out if out.flags.c_contiguous else np.empty(out.shape, out.dtype)
        try:
            found = _read_data(fd, _bytes_of(data), self.fields[i].start)
        except (OSError, EOFError) as error:
            raise SnapshotError(f"{path} cannot be read: {reason(error)}") from error
        if found != self._checksums(head)[i]:
            raise SnapshotError(
                f"{path} has a wrong checksum in the dataset {self.layout.names[i]!r}"
            )
        if data is not out:
            out[...] = data

    def fits(self, head: bytes) -> bool:
        """Whether a file's head is this image's but for numbers and data."""
        return self.blank(head) == self.head

    def step_of(self, head: bytes) -> int:
        """The step that a head holds."""
        return int.from_bytes(self._number(head, "step"), "little", signed=True)

    def blank(self, head: bytes) -> bytes:
        """A head with zeros where numbers and data are."""
        blank = bytearray(head)
        for place in (*self.numbers.values(), *self.fields):
            if place.stop <= len(blank):
                blank[place.start : place.stop] = bytes(place.n_bytes)
        return bytes(blank)

    def _number(self, head: bytes, name: str) -> bytes:
        return head[self.numbers[name].start : self.numbers[name].stop]

    def _values(self, step: int, checksums: Array) -> Iterator[tuple[str, bytes]]:
        """The bytes of all numbers."""
        yield "step", np.array(step, "<i8").tobytes()
        yield "checksum", checksums.tobytes()
        if self.layout.dt is not None:
            yield "time", np.array(step * self.layout.dt, "<f8").tobytes()

    def _checksums(self, head: bytes) -> Array:
        return np.frombuffer(self._number(head, "checksum"), "<u4")


def read_head(fd: int, path: Path) -> bytes:
    """The verified head of a file of any layout.

    Raises
    ------
    SnapshotError
        That starts with the path and says what is wrong with the file.
    """
    try:
        size = os.fstat(fd).st_size
        footer = os.pread(fd, _FOOTER.size, max(0, size - _FOOTER.size))
        if len(footer) != _FOOTER.size or not footer.startswith(MARK):
            raise SnapshotError(
                f"{path} of {size} bytes is cut short, or no file of this version of backsweep"
            )
        _, n_head, checksum = _FOOTER.unpack(footer)
        head = bytearray(n_head if n_head <= size - _FOOTER.size else 0)
        read_at(fd, memoryview(head), 0)
    except (OSError, EOFError) as error:
        if isinstance(error, SnapshotError):
            raise
        raise SnapshotError(f"{path} cannot be read: {reason(error)}") from error
    if len(head) != n_head or crc32(head) != checksum:
        raise SnapshotError(f"{path} has a wrong checksum of its head")
    return bytes(head)


def _bytes_of(array: Array) -> memoryview:
    """All bytes of a contiguous array; also of those that memoryview itself cannot cast."""
    view: Any = array.reshape(-1).view(np.uint8)
    return memoryview(view)


def _write_data(fd: int, data: memoryview, start: int) -> int:
    checksum = 0
    for i in range(0, len(data), _CHUNK):
        part = data[i : i + _CHUNK]
        checksum = checksum_of(part, checksum)
        write_at(fd, part, start + i)
    return checksum


def _read_data(fd: int, target: memoryview, start: int) -> int:
    checksum = 0
    for i in range(0, len(target), _CHUNK):
        part = target[i : i + _CHUNK]
        read_at(fd, part, start + i)
        checksum = checksum_of(part, checksum)
    return checksum
