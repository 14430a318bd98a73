"""Arrays in HDF5 files of any origin: our results, other programs' files, MATLAB 7.3."""

from __future__ import annotations

import os

import h5py
import numpy as np

from backsweep.errors import ResultError
from backsweep.storage.base import Array
from backsweep.storage.files import reason
from backsweep.storage.results import HDF5_ERRORS, is_bare, read_values


def list_arrays(path: str | os.PathLike[str]) -> list[str]:
    """Names of the arrays of numbers, those in groups as "group/name".

    Raises
    ------
    ResultError
        If the file cannot be read.
    """
    names: list[str] = []

    def visit(name: str, found: h5py.Dataset | h5py.Group) -> None:
        # MATLAB keeps what cells refer to in a group of this name.
        if isinstance(found, h5py.Dataset) and not name.startswith("#"):
            kind = np.dtype(found.dtype).kind
            if kind in "biufc" and found.shape is not None and not is_bare(found):
                names.append(name)

    try:
        with h5py.File(path, "r", locking=False) as file:
            file.visititems(visit)
    except HDF5_ERRORS as error:
        raise ResultError(f"{path} is no readable HDF5 file: {reason(error)}") from error
    return names


def shape_of(path: str | os.PathLike[str], name: str) -> tuple[int, ...]:
    """Shape of one of the arrays that `list_arrays` names.

    Raises
    ------
    ResultError
        If it cannot be read.
    """
    try:
        with h5py.File(path, "r", locking=False) as file:
            return tuple(file[name].shape)
    except HDF5_ERRORS as error:
        raise ResultError(f"{path}: {name} cannot be read: {reason(error)}") from error


def read_dataset(path: str | os.PathLike[str], name: str, rows: slice | None = None) -> Array:
    """One of the arrays that `list_arrays` names, or some of its rows.

    Raises
    ------
    ResultError
        If it cannot be read.
    """
    try:
        with h5py.File(path, "r", locking=False) as file:
            return read_values(file[name], rows)
    except HDF5_ERRORS as error:
        raise ResultError(f"{path}: {name} cannot be read: {reason(error)}") from error
