"""What every snapshot store offers, and the layout that all snapshots of a store share.

A store holds snapshots: for a step number, one array per field of the state. It knows
nothing about schedules or models. Checks that all stores need are here; a store
implements the four private methods at the end.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from typing import Any, Final, TypeAlias

import numpy as np
from numpy.typing import DTypeLike, NDArray

from backsweep.closing import Closing
from backsweep.errors import ShapeError, SnapshotError

Array: TypeAlias = NDArray[Any]

OWN_NAME: Final = "backsweep"
"""No field is named so: it is where files keep step, time and checksums."""

_KINDS = "biufc"


@dataclass(frozen=True, slots=True)
class Layout:
    """Names, shapes, dtypes and units of the fields of a state, and the program's hash.

    All but names, shapes and dtypes is written to files for their readers.

    Parameters
    ----------
    names : tuple of str
        One per field; not empty, unique, without ``/``.
    shapes : tuple of tuple of int
    dtypes : tuple of dtype
        Booleans, integers, floats or complex numbers.
    units : tuple of str, optional
        One per field, or empty.
    program : str, optional
        Hash of the program whose states these are; a file of another one is refused.
    dimensions : tuple of tuple of str, optional
        The names of each field's axes, or empty.
    dt : float, optional
        Seconds from step to step; a snapshot's time is its step times `dt`.

    Raises
    ------
    ShapeError
        If lengths differ, or a name or dtype cannot be stored.

    Examples
    --------
    >>> Layout(("u", "v"), ((3, 4), ()), ("float32", "float64")).nbytes
    56
    """

    names: tuple[str, ...]
    shapes: tuple[tuple[int, ...], ...]
    dtypes: tuple[np.dtype[Any], ...]
    units: tuple[str, ...] = ()
    program: str = ""
    dimensions: tuple[tuple[str, ...], ...] = ()
    dt: float | None = None

    def __init__(
        self,
        names: Sequence[str],
        shapes: Sequence[Sequence[int]],
        dtypes: Sequence[DTypeLike],
        units: Sequence[str] = (),
        program: str = "",
        dimensions: Sequence[Sequence[str]] = (),
        dt: float | None = None,
    ) -> None:
        set_field = object.__setattr__
        set_field(self, "names", tuple(names))
        set_field(self, "shapes", tuple(tuple(int(n) for n in shape) for shape in shapes))
        set_field(self, "dtypes", tuple(np.dtype(dtype) for dtype in dtypes))
        set_field(self, "units", tuple(units))
        set_field(self, "program", program)
        set_field(self, "dimensions", tuple(tuple(names) for names in dimensions))
        set_field(self, "dt", None if dt is None else float(dt))
        self._check()

    def _check(self) -> None:
        n_fields = len(self.names)
        if not n_fields == len(self.shapes) == len(self.dtypes):
            raise ShapeError(
                f"a layout of {n_fields} names has {len(self.shapes)} shapes and "
                f"{len(self.dtypes)} dtypes; each field needs one of each"
            )
        if len(self.units) not in (0, n_fields):
            raise ShapeError(f"a layout of {n_fields} fields has {len(self.units)} units")
        if self.dimensions and [*map(len, self.dimensions)] != [*map(len, self.shapes)]:
            raise ShapeError(
                f"the dimensions {self.dimensions} of a layout do not name each axis of the "
                f"shapes {self.shapes}"
            )
        if len(set(self.names)) != n_fields:
            raise ShapeError(f"the names {self.names} of a layout are not unique")
        for name, dtype in zip(self.names, self.dtypes, strict=True):
            if name in ("", ".", OWN_NAME) or "/" in name or "\0" in name:
                raise ShapeError(f"{name!r} cannot name a field of a snapshot")
            if dtype.kind not in _KINDS:
                raise ShapeError(f"field {name!r} has dtype {dtype}, which cannot be stored")

    @property
    def field_nbytes(self) -> tuple[int, ...]:
        """Bytes of each field."""
        return tuple(
            prod(shape) * dtype.itemsize
            for shape, dtype in zip(self.shapes, self.dtypes, strict=True)
        )

    @property
    def nbytes(self) -> int:
        """Bytes of one state, without any padding."""
        return sum(self.field_nbytes)

    def check(self, arrays: Sequence[Array], *, writable: bool = False) -> None:
        """Refuse arrays that are not those of this layout.

        Raises
        ------
        ShapeError
            If the number of arrays, a shape or a dtype differs, or if `writable` is asked
            for and an array is read-only.
        """
        if len(arrays) != len(self.names):
            raise ShapeError(f"{len(arrays)} arrays for the {len(self.names)} fields {self.names}")
        for name, shape, dtype, array in zip(
            self.names, self.shapes, self.dtypes, arrays, strict=True
        ):
            if array.shape != shape or array.dtype != dtype:
                raise ShapeError(
                    f"field {name!r} of a snapshot is {dtype} of shape {shape}, "
                    f"the array is {array.dtype} of shape {array.shape}"
                )
            if writable and not array.flags.writeable:
                raise ShapeError(f"the array that field {name!r} is to be read to is read-only")


class AbstractStore(Closing):
    """Snapshots by step number; a context manager that closes itself.

    Parameters
    ----------
    layout : Layout
        Of every snapshot in the store.

    Notes
    -----
    Not safe for use from several threads at a time: one thread owns a store.
    """

    #: Whether snapshots outlive the store.
    keep: bool = False
    waited_seconds: float = 0.0

    def __init__(self, layout: Layout) -> None:
        self.layout = layout
        self._steps: set[int] = set()
        self._is_closed = False

    def put(self, key: int, arrays: Sequence[Array]) -> None:
        """Copy the state of step `key` into the store; replaces an earlier one of that step.

        Parameters
        ----------
        key : int
            Step number, 0 or more.
        arrays : sequence of ndarray
            One per field, shapes and dtypes as in the layout, any strides; not kept.

        Raises
        ------
        SnapshotError
            If it cannot be stored; the store then holds what it held before.
        ShapeError
            If the arrays do not fit the layout.
        """
        self._check_open()
        if key < 0:
            raise SnapshotError(f"{key} is no step number: snapshots have keys from 0 on")
        self.layout.check(arrays)
        self._write(key, arrays)
        self._steps.add(key)

    def get(self, key: int, out: Sequence[Array]) -> None:
        """Fill the caller's arrays with the state of step `key`; the snapshot stays.

        Parameters
        ----------
        key : int
        out : sequence of ndarray
            One per field, shapes and dtypes as in the layout, any strides. After an error
            their contents are undefined.

        Raises
        ------
        SnapshotError
            If there is no such snapshot, or it cannot be read, or is damaged.
        ShapeError
            If the arrays do not fit the layout or are read-only.
        """
        self._check_held(key)
        self.layout.check(out, writable=True)
        self._read(key, out)

    def delete(self, key: int) -> None:
        """Forget the snapshot of step `key`.

        Raises
        ------
        SnapshotError
            If there is no such snapshot.
        """
        self._check_held(key)
        self._steps.discard(key)
        self._remove(key)

    def prefetch(self, key: int) -> None:
        """Say that the snapshot of step `key` is read soon; most stores do nothing about it.

        Raises
        ------
        SnapshotError
            If there is no such snapshot.
        """
        self._check_held(key)

    def flush(self) -> None:
        """Wait until nothing is on its way to the store; most stores have nothing to wait for."""
        self._check_open()

    def close(self) -> None:
        """Give back all that the store holds; may be called again."""
        if not self._is_closed:
            self._is_closed = True
            self._release()
            self._steps.clear()

    def keys(self) -> tuple[int, ...]:
        """The steps whose snapshots are held, ascending."""
        return tuple(sorted(self._held()))

    @property
    def nbytes(self) -> int:
        """Bytes of the snapshots held now, without padding or file headers."""
        return len(self._held()) * self.layout.nbytes

    def __contains__(self, key: object) -> bool:
        return key in self._held()

    def __len__(self) -> int:
        return len(self._held())

    def _held(self) -> set[int]:
        """The steps whose snapshots are held now."""
        return self._steps

    def _check_open(self) -> None:
        if self._is_closed:
            raise SnapshotError(f"this {type(self).__name__} is closed")

    def _check_held(self, key: int) -> None:
        self._check_open()
        if key not in self._held():
            raise SnapshotError(f"no snapshot of step {key} is held; held are {self.keys()}")

    @abstractmethod
    def _write(self, key: int, arrays: Sequence[Array]) -> None:
        """Store arrays that fit the layout."""

    @abstractmethod
    def _read(self, key: int, out: Sequence[Array]) -> None:
        """Fill arrays that fit the layout with a snapshot that is held."""

    @abstractmethod
    def _remove(self, key: int) -> None:
        """Give back what the snapshot occupies."""

    @abstractmethod
    def _release(self) -> None:
        """Give back everything."""
