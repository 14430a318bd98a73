"""Result files of runs: named arrays with named dimensions and units, in HDF5.

The layout is that of netCDF-4: each dimension is an HDF5 dimension scale, so that
``xarray.open_dataset(path, engine="h5netcdf")`` and h5py alone read a file. It is made by
HDF5 in memory and then written as any bytes are: a full disk is met by our own writing, not
by HDF5, which after a failed flush crashes the process at its end (`storage.hdf5`). The
file is synced and renamed, so that an existing good one is never lost.

Known to be suboptimal: while it is written, a result is in memory twice.
"""

from __future__ import annotations

import io
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TypeAlias

import h5py
import numpy as np

from backsweep.errors import ResultError
from backsweep.storage.base import Array
from backsweep.storage.files import reason, write_durably

FORMAT_VERSION: Final = 1

Attribute: TypeAlias = str | int | float | bool

_MARK = "backsweep_result"
_BARE = "This is a netCDF dimension but not a netCDF variable."
HDF5_ERRORS = (OSError, RuntimeError, KeyError, ValueError, TypeError, OverflowError)
_ITEM_SIZES = {"b": (1,), "i": (1, 2, 4, 8), "u": (1, 2, 4, 8), "f": (2, 4, 8), "c": (8, 16)}


@dataclass(frozen=True, eq=False, slots=True)
class Variable:
    """A named array of a result.

    Parameters
    ----------
    values : array_like
        Of booleans, integers, floats or complex numbers.
    dims : tuple of str
        The name of each axis. A variable whose only dimension has its own name is the
        coordinate of that dimension.
    unit, long_name : str
        Written as the attributes ``units`` and ``long_name`` unless empty.
    """

    values: Array
    dims: tuple[str, ...]
    unit: str = ""
    long_name: str = ""


def write_result(
    path: str | os.PathLike[str],
    variables: Mapping[str, Variable],
    attributes: Mapping[str, Attribute],
) -> None:
    """Write a result file, or replace it.

    Parameters
    ----------
    path : path
        In an existing folder. One process writes it at a time.
    variables : mapping of str to Variable
    attributes : mapping of str to str, int, float or bool
        Of the file.

    Raises
    ------
    ResultError
        If the file cannot be written, or the variables do not fit together. The file that was
        there before is still there.

    Notes
    -----
    Dtypes are kept. Complex numbers are h5py's compound of ``r`` and ``i``: h5py and xarray
    with h5netcdf show them as complex; tools built on the netCDF library do not know them.
    Booleans are 8-bit integers with the attribute ``dtype = "bool"``, which is xarray's way.
    The file's own attribute ``backsweep_result`` is the version of the format.
    """
    path = Path(path)
    arrays = {name: np.asarray(v.values) for name, v in variables.items()}
    try:
        sizes = _dimensions(variables, arrays)
        _check_attributes(attributes)
        write_durably(path, _image(variables, arrays, sizes, attributes))
    except HDF5_ERRORS as error:
        raise ResultError(f"the result {path} could not be written: {reason(error)}") from error


def read_result(path: str | os.PathLike[str]) -> tuple[dict[str, Variable], dict[str, Any]]:
    """Variables and attributes of a result file, as they were given to `write_result`.

    Parameters
    ----------
    path : path

    Returns
    -------
    variables : dict of str to Variable
    attributes : dict of str to str, int, float or bool

    Raises
    ------
    ResultError
        If the file is missing, damaged or no result of backsweep.
    """
    try:
        with h5py.File(path, "r", locking=False) as file:
            _check_mark(file)
            datasets = {k: v for k, v in file.items() if isinstance(v, h5py.Dataset)}
            variables = {k: _read(v) for k, v in datasets.items() if not is_bare(v)}
            attributes = {k: _plain(v) for k, v in file.attrs.items() if k != _MARK}
    except HDF5_ERRORS as error:
        raise ResultError(f"the result {path} could not be read: {reason(error)}") from error
    return variables, attributes


# --------------------------------------------------------------------------- checks


def _dimensions(variables: Mapping[str, Variable], arrays: Mapping[str, Array]) -> dict[str, int]:
    """Sizes of all dimensions, in the order in which variables name them."""
    found: dict[str, tuple[int, str]] = {}
    for name, variable in variables.items():
        _check_name(name)
        array, dims = arrays[name], tuple(variable.dims)
        if array.dtype.itemsize not in _ITEM_SIZES.get(array.dtype.kind, ()):
            raise ValueError(f"the variable {name!r} has dtype {array.dtype}, which is no number")
        if len(dims) != array.ndim or len(set(dims)) != len(dims):
            raise ValueError(
                f"the variable {name!r} of shape {array.shape} has the dimensions {dims}, one "
                "name is needed for each axis"
            )
        for dim, size in zip(dims, array.shape, strict=True):
            _check_name(dim)
            first, other = found.setdefault(dim, (size, name))
            if first != size:
                raise ValueError(
                    f"the dimension {dim!r} has {first} points in {other!r} and {size} in {name!r}"
                )
    for name in found.keys() & variables.keys():
        if tuple(variables[name].dims) != (name,):
            raise ValueError(
                f"the variable {name!r} has the name of a dimension, but the dimensions "
                f"{tuple(variables[name].dims)}"
            )
    return {dim: size for dim, (size, _) in found.items()}


def _check_name(name: Any) -> None:
    if not isinstance(name, str) or not name.strip() or "/" in name or name == ".":
        raise ValueError(f"{name!r} cannot be a name in a file")


def _check_attributes(attributes: Mapping[str, Any]) -> None:
    known = (str, int, float, np.bool_, np.integer, np.floating)
    for name, value in attributes.items():
        _check_name(name)
        if name == _MARK:
            raise ValueError(f"the attribute {name!r} is backsweep's own")
        if not isinstance(value, known):
            raise ValueError(f"the attribute {name!r} is a {type(value).__name__}")


# --------------------------------------------------------------------------- writing


def _image(
    variables: Mapping[str, Variable],
    arrays: Mapping[str, Array],
    sizes: Mapping[str, int],
    attributes: Mapping[str, Attribute],
) -> memoryview:
    """The bytes of the whole file."""
    buffer = io.BytesIO()
    with h5py.File(buffer, "w", track_order=True) as file:
        file.attrs[_MARK] = FORMAT_VERSION
        for name, value in attributes.items():
            file.attrs[name] = value
        for name, variable in variables.items():
            _create(file, name, variable, arrays[name])
        for number, (dim, size) in enumerate(sizes.items()):
            _make_scale(file, dim, size, number)
        for name, variable in variables.items():
            if name not in sizes:
                for axis, dim in enumerate(variable.dims):
                    file[name].dims[axis].attach_scale(file[dim])
    return buffer.getbuffer()


def _create(file: h5py.File, name: str, variable: Variable, array: Array) -> None:
    is_bool = array.dtype.kind == "b"
    dataset = file.create_dataset(name, data=array.astype(np.int8) if is_bool else array)
    if is_bool:
        dataset.attrs["dtype"] = "bool"
    if variable.unit:
        dataset.attrs["units"] = variable.unit
    if variable.long_name:
        dataset.attrs["long_name"] = variable.long_name


def _make_scale(file: h5py.File, dim: str, size: int, number: int) -> None:
    """Make a dimension of its coordinate, or as netCDF does where there is none."""
    if dim in file:
        file[dim].make_scale(dim)
    else:
        # Never written, so that it takes no space in the file.
        file.create_dataset(dim, shape=(size,), dtype=">f4").make_scale(f"{_BARE}{size:10d}")
    file[dim].attrs["_Netcdf4Dimid"] = np.int32(number)


# --------------------------------------------------------------------------- reading


def _check_mark(file: h5py.File) -> None:
    version = file.attrs.get(_MARK)
    if version is None:
        raise ValueError("it is no result of backsweep")
    if version != FORMAT_VERSION:
        raise ValueError(f"it has format {version}, {FORMAT_VERSION} is expected")


def is_bare(dataset: h5py.Dataset) -> bool:
    """Whether it stands for a dimension only."""
    return _text(dataset.attrs.get("NAME", "")).startswith(_BARE)


def read_values(dataset: h5py.Dataset, rows: slice | None = None) -> Array:
    """All values, or those of some rows; what xarray and we mark as booleans is such."""
    values = np.asarray(dataset[()] if rows is None else dataset[rows])
    return values.astype(bool) if _text(dataset.attrs.get("dtype", "")) == "bool" else values


def _read(dataset: h5py.Dataset) -> Variable:
    unit, long_name = (_text(dataset.attrs.get(key, "")) for key in ("units", "long_name"))
    return Variable(read_values(dataset), _read_dims(dataset), unit, long_name)


def _read_dims(dataset: h5py.Dataset) -> tuple[str, ...]:
    if dataset.is_scale:
        return (_short_name(dataset),)
    if not all(len(axis) for axis in dataset.dims):
        raise ValueError(f"the variable {_short_name(dataset)!r} has an axis without a name")
    return tuple(_short_name(axis[0]) for axis in dataset.dims)


def _short_name(dataset: h5py.Dataset) -> str:
    return str(dataset.name).rpartition("/")[2]


def _text(value: Any) -> str:
    return value.decode(errors="replace") if isinstance(value, bytes) else str(value)


def _plain(value: Any) -> Any:
    return value.item() if isinstance(value, np.generic) else value
