"""Arrays from .npy, .mat and .h5 files, named as "file" or "file:key" in a run file."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import scipy
from pydantic import AfterValidator, ValidationInfo

from backsweep.errors import ResultError, RunFileError, did_you_mean
from backsweep.storage.arrays import list_arrays, read_dataset, shape_of

_H5 = (".h5", ".hdf5", ".nc")


def find_file(name: str, folders: Sequence[Path]) -> Path:
    """The file, looked for in the folders in turn.

    Raises
    ------
    ValueError
        If it is in none of them.
    """
    paths = [folder / os.path.expanduser(name) for folder in folders or (Path(),)]
    try:
        for path in paths:
            if path.is_file():
                return path
        for path in paths:
            if path.exists():
                raise ValueError(f"{path.resolve()} is a folder or device; give a file")
    except OSError as error:
        raise ValueError(f"it cannot be looked for: {error.strerror}") from error
    looked = dict.fromkeys(str(path.resolve().parent) for path in paths)
    raise ValueError(f"there is no such file (looked for in {' and '.join(looked)})")


def _located(name: str, info: ValidationInfo) -> str:
    path, _, key = name.partition(":")
    found = find_file(path, (info.context or {}).get("folders", ()))
    return f"{found}:{key}" if key else str(found)


ArrayFile = Annotated[str, AfterValidator(_located)]
"""A setting that names a file, or an array in a file."""


@dataclass(frozen=True)
class StoredArray:
    """An array in a file.

    Attributes
    ----------
    shape : tuple of int
    read : callable (slice or None) -> ndarray
        Some of its rows, or all of them.
    """

    shape: tuple[int, ...]
    read: Callable[[slice | None], np.ndarray]


def read_array(name: str) -> np.ndarray:
    """An array from "file.npy", "file.mat:key" or "file.h5:key", see `open_array`.

    Raises
    ------
    RunFileError
        If the file cannot be read, or has no such array.
    """
    return open_array(name).read(None)


def open_array(name: str) -> StoredArray:
    """An array in "file.npy", "file.mat:key" or "file.h5:key".

    Where a file holds one numeric array, the key may be left out. Rows are read alone from HDF5
    files; other files are read as a whole.

    Raises
    ------
    RunFileError
        If the file cannot be read, or has no such array.
    """
    text, _, key = name.partition(":")
    path = Path(text)
    if path.suffix == ".npy":
        if key:
            raise RunFileError(f"{path} holds one array; leave out :{key}")
        return _in_memory(_numeric(_loaded(path), name))
    if path.suffix != ".mat" and path.suffix not in _H5:
        raise RunFileError(f"{path} is no .npy, .mat or .h5 file, from which arrays are read")
    keys, find = _open_mat(path) if path.suffix == ".mat" else _open_h5(path)
    if not key and len(keys) == 1:
        (key,) = keys
    if key not in keys:
        raise RunFileError(f"{path}{_choose(path, key, keys)}")
    return find(key)


def _in_memory(array: np.ndarray) -> StoredArray:
    return StoredArray(array.shape, lambda rows: array if rows is None else array[rows])


Opened = tuple[list[str], Callable[[str], StoredArray]]
"""Names of the arrays of a file, and how one of them is found."""


def _choose(path: Path, key: str, keys: Sequence[str]) -> str:
    if not keys:
        return " holds no array of numbers"
    if key:
        return f": {key!r} is not in it; {did_you_mean(key, keys)}"
    return f" holds several arrays; write {path.name}:key with one of {', '.join(keys)}"


def _loaded(path: Path) -> np.ndarray:
    try:
        with open(path, "rb") as file:
            # Not np.load, which takes what is no such file for a pickle.
            return np.lib.format.read_array(file, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise RunFileError(f"{path} is no readable .npy file: {_reason(error)}") from error


def _open_mat(path: Path) -> Opened:
    """MATLAB files up to 7.2; 7.3 is HDF5, with the axes in the other order."""
    try:
        found = scipy.io.loadmat(path, squeeze_me=True)
    except NotImplementedError:
        keys, find = _open_h5(path)
        return keys, lambda key: _in_memory(np.squeeze(find(key).read(None)).T)
    except Exception as error:
        raise RunFileError(f"{path} is no readable .mat file: {_reason(error)}") from error
    numeric = [
        name
        for name, value in found.items()
        if not name.startswith("__") and np.asarray(value).dtype.kind in "biufc"
    ]
    return numeric, lambda key: _in_memory(np.asarray(found[key]))


def _open_h5(path: Path) -> Opened:
    def find(key: str) -> StoredArray:
        with _as_run_file_error():
            return StoredArray(shape_of(path, key), lambda rows: read(key, rows))

    def read(key: str, rows: slice | None) -> np.ndarray:
        with _as_run_file_error():
            return read_dataset(path, key, rows)

    with _as_run_file_error():
        return list_arrays(path), find


@contextmanager
def _as_run_file_error() -> Iterator[None]:
    try:
        yield
    except ResultError as error:
        raise RunFileError(str(error)) from error


def _reason(error: Exception) -> str:
    """The first sentence of a library's error."""
    text = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return str(text.splitlines()[0].partition(". ")[0])


def _numeric(value: Any, name: str) -> np.ndarray:
    array = np.asarray(value)
    if array.dtype.kind not in "biufc":
        raise RunFileError(f"{name} holds {array.dtype}, not numbers")
    return array
