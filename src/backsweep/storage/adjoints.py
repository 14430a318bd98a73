"""Cotangents of simulations while they are swept back, in one HDF5 file, readable with h5py alone.

HDF5 makes all datasets of a sweep before its first step, contiguous and at fixed places; records
are then plain writes to these places. So a process that is killed while it sweeps leaves a file
that can be read, a full disk is met at the start, and a resumed run goes on in the same rows.

Known to be suboptimal: a kill within the milliseconds in which the group of a *second* sweep is
added may spoil the file.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import h5py
import numpy as np
from h5py import h5d, h5p, h5s, h5t

from backsweep.errors import ResultError
from backsweep.storage.base import Array
from backsweep.storage.files import CANNOT_RESERVE, reason, remove_temporaries, write_at
from backsweep.storage.results import HDF5_ERRORS

FORMAT_VERSION: Final = 1

_MARK: Final = "backsweep_adjoint"
_METADATA_BYTES: Final = 1 << 20


@dataclass(frozen=True, slots=True)
class SweepLayout:
    """What is recorded of one sweep.

    Parameters
    ----------
    n_steps, every : int
        Rows are the steps 0, every, 2 * every, ... below n_steps.
    program : str
        Hash of the step.
    names : tuple of str
        Of all cotangents: each has a norm.
    fields : mapping of str to (shape, dtype)
        Those of which the arrays are recorded.
    """

    n_steps: int
    every: int
    program: str
    names: tuple[str, ...]
    fields: Mapping[str, tuple[tuple[int, ...], np.dtype]]

    @property
    def n_records(self) -> int:
        return -(-self.n_steps // self.every)

    @property
    def datasets(self) -> dict[str, tuple[tuple[int, ...], np.dtype]]:
        """Shape and dtype of each, but for the steps."""
        rows = (self.n_records,)
        norms = {norm_name(name): (rows, np.dtype(np.float64)) for name in self.names}
        fields = {name: ((*rows, *shape), dtype) for name, (shape, dtype) in self.fields.items()}
        return norms | fields

    @property
    def nbytes(self) -> int:
        return sum(
            dtype.itemsize * int(np.prod(shape, dtype=np.int64))
            for shape, dtype in self.datasets.values()
        )


def norm_name(name: str) -> str:
    return f"{name}_norm"


class AdjointSweep:
    """The rows of one sweep in a file; the file is open only while a row is written."""

    def __init__(self, path: Path, layout: SweepLayout, offsets: Mapping[str, int]) -> None:
        self.path, self.layout, self._offsets = path, layout, offsets

    def write(self, step: int, cotangents: Mapping[str, Array]) -> None:
        """Write the row of a step: all norms, and the arrays of the fields.

        Raises
        ------
        ResultError
            If the file is gone or cannot be written.
        """
        row = step // self.layout.every
        try:
            fd = os.open(self.path, os.O_WRONLY)
            try:
                for name, (_, dtype) in self.layout.fields.items():
                    self._put(fd, name, row, np.ascontiguousarray(cotangents[name], dtype))
                for name in self.layout.names:  # last: a row with norms is whole
                    self._put(fd, norm_name(name), row, _norm(cotangents[name]))
            finally:
                os.close(fd)
        except OSError as error:
            raise ResultError(
                f"the adjoint of step {step} could not be written to {self.path}: {reason(error)}"
            ) from error

    def clear(self) -> None:
        """No row is recorded: all norms are NaN."""
        fd = os.open(self.path, os.O_WRONLY)
        try:
            for name in self.layout.names:
                nothing = np.full(self.layout.n_records, np.nan)
                self._put(fd, norm_name(name), 0, nothing)
        finally:
            os.close(fd)

    def _put(self, fd: int, name: str, row: int, value: Array) -> None:
        """Write one row, or several that begin with it."""
        if value.size:
            shape, dtype = self.layout.datasets[name]
            row_bytes = dtype.itemsize * int(np.prod(shape[1:], dtype=np.int64))
            data = value.reshape(-1).view(np.uint8).data
            write_at(fd, data, self._offsets[name] + row * row_bytes)


def _norm(value: Array) -> Array:
    wide = np.complex128 if value.dtype.kind == "c" else np.float64
    with np.errstate(all="ignore"):
        return np.asarray(np.linalg.norm(np.asarray(value, wide).reshape(-1)), np.float64)


class AdjointFile:
    """A file with a group ``sweep0``, ``sweep1``, ... for each reverse sweep.

    Parameters
    ----------
    path : path
        In an existing folder. An older record is replaced when the first sweep begins.

    Raises
    ------
    ResultError
        If there is a file that is no record of adjoints: it is left alone.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path).absolute()
        if self.path.exists():
            self._check_mark()
        elif not os.access(self.path.parent, os.W_OK):
            raise ResultError(f"{self.path.parent}, the folder for {self.path.name}, is missing")

    def begin(self, number: int, layout: SweepLayout, *, is_resumed: bool) -> AdjointSweep:
        """Make room for the rows of a sweep, or with `is_resumed` find those of an earlier run.

        Raises
        ------
        ResultError
            If there is no room for it, or the file cannot be written.
        """
        try:
            offsets = self._find(number, layout) if number or is_resumed else None
            if offsets is None:
                self._check_room(layout)
                offsets = self._create(number, layout)
                is_resumed = False
            sweep = AdjointSweep(self.path, layout, offsets)
            if not is_resumed:
                sweep.clear()
        except HDF5_ERRORS as error:
            raise ResultError(
                f"{self.path} cannot take the adjoints of a sweep: {reason(error)}"
            ) from error
        return sweep

    def _check_mark(self) -> None:
        try:
            with h5py.File(self.path, "r", locking=False) as file:
                is_ours = _MARK in file.attrs
        except HDF5_ERRORS:
            is_ours = False
        if not is_ours:
            raise ResultError(
                f"{self.path} exists and is no record of adjoints: give another path, or remove it"
            )

    def _check_room(self, layout: SweepLayout) -> None:
        disk = os.statvfs(self.path.parent)
        free = disk.f_bavail * disk.f_frsize
        if layout.nbytes + _METADATA_BYTES > free:
            raise ResultError(
                f"the adjoints of {layout.n_records} steps take {layout.nbytes / 1e9:.3g} GB in "
                f"{self.path}, where {free / 1e9:.3g} GB are free: record fewer fields, or a "
                "larger every="
            )

    def _find(self, number: int, layout: SweepLayout) -> dict[str, int] | None:
        """Places of the datasets of a sweep, if they are there as they should be."""
        if not self.path.exists():
            return None
        with h5py.File(self.path, "r", locking=False) as file:
            group = file.get(f"sweep{number}")
            if group is None or dict(group.attrs) != _attributes(layout):
                return None
            found = {k: (v.shape, v.dtype) for k, v in group.items() if k != "step"}
            return _offsets(group) if found == layout.datasets else None

    def _create(self, number: int, layout: SweepLayout) -> dict[str, int]:
        if number and self.path.exists():
            return _add(self.path, number, layout)
        remove_temporaries(self.path)
        temporary = self.path.with_name(f".{self.path.name}.{os.getpid()}.tmp")
        try:
            offsets = _add(temporary, number, layout)
            os.replace(temporary, self.path)
        finally:
            temporary.unlink(missing_ok=True)
        return offsets


def _attributes(layout: SweepLayout) -> dict[str, Any]:
    return {"n_steps": layout.n_steps, "every": layout.every, "program": layout.program}


def _offsets(group: h5py.Group) -> dict[str, int]:
    return {k: v.id.get_offset() or 0 for k, v in group.items() if k != "step"}


def _add(path: Path, number: int, layout: SweepLayout) -> dict[str, int]:
    """Make the group of a sweep with all its space; returns where its datasets are."""
    with h5py.File(path, "a", locking=False) as file:
        file.attrs[_MARK] = FORMAT_VERSION
        name = f"sweep{number}"
        if name in file:
            del file[name]
        group = file.create_group(name, track_order=True)
        group.attrs.update(_attributes(layout))
        step = group.create_dataset("step", data=np.arange(0, layout.n_steps, layout.every))
        step.make_scale("step")
        for key, (shape, dtype) in layout.datasets.items():
            dataset = _allocated(group, key, shape, dtype)
            labels = ("step", *(f"{key}_{axis}" for axis in range(len(shape) - 1)))
            for axis, label in enumerate(labels):
                dataset.dims[axis].label = label
            dataset.dims[0].attach_scale(step)
        offsets = _offsets(group)
    _reserve(path)
    return offsets


def _allocated(group: h5py.Group, name: str, shape: Sequence[int], dtype: np.dtype) -> h5py.Dataset:
    """A contiguous dataset that has its place in the file, and no content."""
    how = h5p.create(h5p.DATASET_CREATE)
    how.set_layout(h5d.CONTIGUOUS)
    how.set_alloc_time(h5d.ALLOC_TIME_EARLY)
    how.set_fill_time(h5d.FILL_TIME_NEVER)
    kind, space = h5t.py_create(dtype, logical=True), h5s.create_simple(tuple(shape))
    return h5py.Dataset(h5d.create(group.id, name.encode(), kind, space, how))


def _reserve(path: Path) -> None:
    """Let a full disk be met now; what the file holds stays."""
    fd = os.open(path, os.O_WRONLY)
    try:
        size = os.fstat(fd).st_size
        if size and hasattr(os, "posix_fallocate"):
            try:
                os.posix_fallocate(fd, 0, size)
            except OSError as error:
                if error.errno not in CANNOT_RESERVE:
                    raise
    finally:
        os.close(fd)
