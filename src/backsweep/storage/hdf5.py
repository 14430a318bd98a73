"""Snapshots on disk: one HDF5 file per snapshot, readable with h5py alone.

A file holds one contiguous dataset per field with the attributes ``crc32`` and, if
known, ``units``; the file's attributes are ``step``, ``program`` and ``format_version``.

All that is the same in every file of a store is made once, by HDF5 in memory: the
*template*. To write, the space of the whole file is reserved under a temporary name, the
template is written, HDF5 opens it and adds data, checksums and step, and the file is
renamed. Reserving first means that a full disk is met before HDF5 has anything to flush:
after a failed flush HDF5 cannot close the file any more, keeps its disk space although it
is removed, and crashes the process at its end. Nothing is fsynced: a snapshot can be
recomputed.

Known to be suboptimal: the caller waits for the write (a background thread belongs to the
runtime), and the copy to the page cache and the checksum are two passes over the data.
See docs/decisions/0002-hdf5-snapshot-files.md.
"""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Final, final
from zlib import crc32

import numpy as np
from h5py import h5a, h5d, h5f, h5p, h5s, h5t

from backsweep.errors import SnapshotError
from backsweep.storage.base import AbstractStore, Array, Layout
from backsweep.storage.files import reason, write_all

FORMAT_VERSION: Final = 1

_HDF5_ERRORS = (OSError, RuntimeError, KeyError, ValueError, TypeError)
_CANNOT_RESERVE = (errno.EOPNOTSUPP, errno.EINVAL, errno.ENOSYS)
_CHUNK = 1 << 20


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
    ``layout.nbytes`` and a few hundred bytes per field on disk; no copy of contiguous
    arrays is made in memory. Cost measured in docs/decisions/0002-hdf5-snapshot-files.md.
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
        self._access = _file_access()
        self._types = tuple(h5t.py_create(dtype) for dtype in layout.dtypes)
        self._names = tuple(name.encode() for name in layout.names)
        self._template = _make_template(layout)
        self._check_directory()
        self._remove_temporaries()
        if adopt:
            self._steps.update(self._matching(rf"{re.escape(prefix)}-(\d{{12,}})\.h5"))

    def path(self, key: int) -> Path:
        """File of the snapshot of step `key`, whether or not it is there."""
        return self.directory / f"{self.prefix}-{key:012d}.h5"

    def _write(self, key: int, arrays: Sequence[Array]) -> None:
        path = self.path(key)
        temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
        try:
            self._write_template(temporary)
            self._write_state(temporary, key, arrays)
            os.replace(temporary, path)
        except BaseException as error:
            with suppress(OSError):
                temporary.unlink()
            if isinstance(error, _HDF5_ERRORS):
                raise SnapshotError(
                    f"the snapshot of step {key} could not be written to {path}: {reason(error)}"
                ) from error
            raise

    def _write_template(self, temporary: Path) -> None:
        """Reserve the space of a whole file and write what all files share."""
        fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o666)
        try:
            _reserve(fd, len(self._template) + self.layout.nbytes)
            write_all(fd, self._template)
        finally:
            os.close(fd)

    def _write_state(self, temporary: Path, key: int, arrays: Sequence[Array]) -> None:
        file = h5f.open(os.fsencode(temporary), h5f.ACC_RDWR, fapl=self._access)
        try:
            for name, kind, array in zip(self._names, self._types, arrays, strict=True):
                data = np.asarray(array, order="C")
                dataset = h5d.open(file, name)
                dataset.write(h5s.ALL, h5s.ALL, data, kind)
                _write_integer(dataset, b"crc32", crc32(data.data))
            _write_integer(file, b"step", key)
            file.close()
        except BaseException:
            _abandon(file, temporary)
            raise

    def _read(self, key: int, out: Sequence[Array]) -> None:
        path = self.path(key)
        try:
            file = h5f.open(os.fsencode(path), h5f.ACC_RDONLY, fapl=self._access)
        except _HDF5_ERRORS as error:
            raise _damage(path, key, f"cannot be opened ({reason(error)})") from error
        try:
            self._check_file(file, path, key)
            for i, array in enumerate(out):
                self._read_field(file, path, key, i, array)
        finally:
            file.close()

    def _check_file(self, file: h5f.FileID, path: Path, key: int) -> None:
        """Compare what the file says about itself with what is wanted."""
        try:
            version = _read_integer(file, b"format_version")
            step = _read_integer(file, b"step")
            program = _read_text(file, b"program")
        except _HDF5_ERRORS as error:
            raise _damage(path, key, f"has no readable attributes ({reason(error)})") from error
        if version != FORMAT_VERSION:
            raise _damage(path, key, f"has format {version}, expected {FORMAT_VERSION}")
        if step != key:
            raise _damage(path, key, f"holds step {step}")
        if program != self.layout.program:
            raise _damage(
                path, key, f"is of the program {program!r}, expected {self.layout.program!r}"
            )

    def _read_field(self, file: h5f.FileID, path: Path, key: int, i: int, array: Array) -> None:
        name = self.layout.names[i]
        shape, dtype = self.layout.shapes[i], self.layout.dtypes[i]
        try:
            dataset = h5d.open(file, self._names[i])
            found = dataset.shape, dataset.dtype
            if found == (shape, dtype):
                data = array if array.flags.c_contiguous else np.empty(shape, dtype)
                dataset.read(h5s.ALL, h5s.ALL, data, self._types[i])
                expected = _read_integer(dataset, b"crc32")
        except _HDF5_ERRORS as error:
            raise _damage(
                path, key, f"has no readable dataset {name!r} ({reason(error)})"
            ) from error
        if found != (shape, dtype):
            raise _damage(
                path,
                key,
                f"holds the dataset {name!r} as {found[1]} of shape {found[0]}, "
                f"expected {dtype} of shape {shape}",
            )
        if crc32(data.data) != expected:
            raise _damage(path, key, f"has a wrong checksum in the dataset {name!r}")
        if data is not array:
            array[...] = data

    def _remove(self, key: int) -> None:
        # The file may be gone with its folder; it is not needed any more anyhow.
        with suppress(OSError):
            self.path(key).unlink()

    def _release(self) -> None:
        if not self.keep:
            for key in self._steps:
                self._remove(key)
        self._remove_temporaries()

    def _check_directory(self) -> None:
        probe = self.path(0).with_name(f".{self.path(0).name}.{os.getpid()}.tmp")
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


def _reserve(fd: int, n_bytes: int) -> None:
    """Make sure that writing the first bytes of a file cannot fail for want of space."""
    try:
        os.posix_fallocate(fd, 0, n_bytes)
    except OSError as error:
        if error.errno not in _CANNOT_RESERVE:
            raise
        for start in range(0, n_bytes, _CHUNK):
            write_all(fd, bytes(min(_CHUNK, n_bytes - start)))
        os.lseek(fd, 0, os.SEEK_SET)


def _file_access() -> h5p.PropFAID:
    access = h5p.create(h5p.FILE_ACCESS)
    # Headers since HDF5 1.8 carry checksums of their own.
    access.set_libver_bounds(h5f.LIBVER_V18, h5f.LIBVER_LATEST)
    access.set_fclose_degree(h5f.CLOSE_STRONG)
    # One process uses a file, and parallel file systems often know no locks.
    access.set_file_locking(False, True)
    return access


def _make_template(layout: Layout) -> bytes:
    """A file with all datasets and attributes, but no data, made in memory."""
    access = _file_access()
    access.set_fapl_core(1 << 16, False)
    creation = h5p.create(h5p.DATASET_CREATE)
    creation.set_layout(h5d.CONTIGUOUS)
    creation.set_alloc_time(h5d.ALLOC_TIME_LATE)
    creation.set_fill_time(h5d.FILL_TIME_NEVER)
    creation.set_obj_track_times(False)
    file = h5f.create(b"template", h5f.ACC_TRUNC, fapl=access)
    try:
        for i, name in enumerate(layout.names):
            shape = layout.shapes[i]
            space = h5s.create_simple(shape) if shape else h5s.create(h5s.SCALAR)
            kind = h5t.py_create(layout.dtypes[i], logical=True)
            dataset = h5d.create(file, name.encode(), kind, space, creation)
            _create_integer(dataset, b"crc32", 0)
            if layout.units:
                _create_text(dataset, b"units", layout.units[i])
        _create_integer(file, b"step", -1)
        _create_integer(file, b"format_version", FORMAT_VERSION)
        _create_text(file, b"program", layout.program)
        h5f.flush(file)
        return bytes(file.get_file_image())
    finally:
        file.close()


def _create_integer(owner: Any, name: bytes, value: int) -> None:
    h5a.create(owner, name, h5t.STD_I64LE, h5s.create(h5s.SCALAR))
    _write_integer(owner, name, value)


def _write_integer(owner: Any, name: bytes, value: int) -> None:
    h5a.open(owner, name).write(np.array(value, np.int64))


def _read_integer(owner: Any, name: bytes) -> int:
    value = np.empty((), np.int64)
    h5a.open(owner, name).read(value)
    return int(value)


def _create_text(owner: Any, name: bytes, text: str) -> None:
    value = np.array(text.encode() or b"\0")
    kind = h5t.C_S1.copy()
    kind.set_size(value.itemsize)
    kind.set_cset(h5t.CSET_UTF8)
    kind.set_strpad(h5t.STR_NULLPAD)
    h5a.create(owner, name, kind, h5s.create(h5s.SCALAR)).write(value, kind)


def _read_text(owner: Any, name: bytes) -> str:
    attribute = h5a.open(owner, name)
    value = np.empty((), attribute.dtype)
    attribute.read(value, attribute.get_type())
    return bytes(value.item()).decode(errors="replace")


def _abandon(file: h5f.FileID, temporary: Path) -> None:
    """Close a file whose writing failed, giving back its disk space in any case."""
    with suppress(OSError):
        os.truncate(temporary, 0)
    with suppress(*_HDF5_ERRORS):
        file.close()


def _damage(path: Path, key: int, what: str) -> SnapshotError:
    return SnapshotError(f"the snapshot of step {key} is lost: {path} {what}")
