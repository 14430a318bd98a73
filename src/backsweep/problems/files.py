"""Arrays from .npy, .mat and .h5 files, named as "file" or "file:key" in a run file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import scipy.io
from pydantic import AfterValidator, ValidationInfo

from backsweep.errors import ResultError, RunFileError
from backsweep.problems.tables import did_you_mean
from backsweep.storage.results import read_result

_H5 = (".h5", ".hdf5", ".nc")


def find_file(name: str, folders: Sequence[Path]) -> Path:
    """The file, looked for in the folders in turn.

    Raises
    ------
    ValueError
        If it is in none of them.
    """
    for folder in folders or (Path(),):
        path = folder / Path(name).expanduser()
        if path.is_file():
            return path
    looked = " and ".join(str(f.resolve()) for f in folders or (Path(),))
    raise ValueError(f"there is no such file (looked for in {looked})")


def _located(name: str, info: ValidationInfo) -> str:
    path, _, key = name.partition(":")
    found = find_file(path, (info.context or {}).get("folders", ()))
    return f"{found}:{key}" if key else str(found)


ArrayFile = Annotated[str, AfterValidator(_located)]
"""A setting that names a file, or an array in a file."""


def read_array(name: str) -> np.ndarray:
    """An array from "file.npy", "file.mat:key" or "file.h5:key".

    Where a file holds one numeric array, the key may be left out.

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
        return _numeric(_loaded(path), name)
    if path.suffix != ".mat" and path.suffix not in _H5:
        raise RunFileError(
            f"{path}: arrays are read from .npy, .mat and .h5 files, not {path.suffix or 'this'}"
        )
    arrays = _read_mat(path) if path.suffix == ".mat" else _read_h5(path)
    if not key and len(arrays) == 1:
        (key,) = arrays
    if key not in arrays:
        listed = f"{key!r} is not in it; {did_you_mean(key, arrays)}" if key else _choose(arrays)
        raise RunFileError(f"{path}: {listed}")
    return _numeric(arrays[key], name)


def _choose(arrays: Mapping[str, Any]) -> str:
    return f"say which of its arrays: file:key, with a key of {', '.join(arrays)}"


def _loaded(path: Path) -> Any:
    try:
        return np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise RunFileError(f"{path} is no readable .npy file: {error}") from error


def _read_mat(path: Path) -> dict[str, Any]:
    """MATLAB files up to 7.2; 7.3 is HDF5, with the axes in the other order."""
    try:
        found = scipy.io.loadmat(path, squeeze_me=True)
    except NotImplementedError:
        return {name: value.T for name, value in _read_h5(path).items()}
    except Exception as error:
        raise RunFileError(f"{path} is no readable .mat file: {error}") from error
    return {
        name: value
        for name, value in found.items()
        if not name.startswith("__") and np.asarray(value).dtype.kind in "biufc"
    }


def _read_h5(path: Path) -> dict[str, Any]:
    try:
        return {name: v.values for name, v in read_result(path)[0].items()}
    except ResultError as error:
        raise RunFileError(str(error)) from error


def _numeric(value: Any, name: str) -> np.ndarray:
    array = np.asarray(value)
    if array.dtype.kind not in "biufc":
        raise RunFileError(f"{name} holds {array.dtype}, not numbers")
    return array
