"""What is a view and what a copy: the table of docs/numpy.md, against NumPy itself."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from harness import check, run_traced

from backsweep.errors import MutationError

U = np.arange(24.0).reshape(4, 6)
Z = U + 1j * U[::-1]

RELATIONS: dict[str, Callable[[Any], Any]] = {
    "slice": lambda u: u[1:, ::2],
    "negative_slice": lambda u: u[::-2, 4:0:-1],
    "row": lambda u: u[-2],
    "new_axis": lambda u: u[:, None, 1],
    "zero_d": lambda u: u[1, 2, ...],
    "T": lambda u: u.T,
    "transpose": lambda u: u.transpose(1, 0),
    "swapaxes": lambda u: np.swapaxes(u, 0, 1),
    "moveaxis": lambda u: np.moveaxis(u, 0, 1),
    "rollaxis": lambda u: np.rollaxis(u, 1),
    "reshape": lambda u: u.reshape(6, 4),
    "reshape_F": lambda u: u.reshape((6, 4), order="F"),
    "reshape_of_T": lambda u: u.T.reshape(4, 6),
    "reshape_of_T_split": lambda u: u.T.reshape(2, 3, 4),
    "reshape_of_columns": lambda u: u[:, :3].reshape(12),
    "reshape_of_rows": lambda u: u[1:3].reshape(12),
    "reshape_of_step": lambda u: u[::2].reshape(2, 3, 2),
    "reshape_of_reversed": lambda u: u[::-1].reshape(24),
    "reshape_of_reversed_line": lambda u: u[0, ::-1].reshape(2, 3),
    "reshape_of_T_F": lambda u: u.T.reshape(24, order="F"),
    "reshape_copy": lambda u: u.reshape(24, copy=True),
    "ravel": lambda u: u.ravel(),
    "ravel_of_T": lambda u: u.T.ravel(),
    "ravel_of_T_F": lambda u: u.T.ravel("F"),
    "ravel_of_row": lambda u: np.ravel(u[2]),
    "ravel_of_column": lambda u: u[:, 1].ravel(),
    "ravel_of_reversed": lambda u: u[0, ::-1].ravel(),
    "ravel_of_reshape": lambda u: u.reshape(2, 12).ravel(),
    "flatten": lambda u: u.flatten(),
    "squeeze": lambda u: np.squeeze(u[:, :1]),
    "squeeze_to_0d": lambda u: np.squeeze(u[1:2, :1]),
    "expand_dims": lambda u: np.expand_dims(u, 1),
    "atleast_3d": lambda u: np.atleast_3d(u),
    "atleast_2d_itself": lambda u: np.atleast_2d(u),
    "flip": lambda u: np.flip(u),
    "fliplr": lambda u: np.fliplr(u),
    "rot90": lambda u: np.rot90(u),
    "rot90_3": lambda u: np.rot90(u, 3),
    "split": lambda u: np.split(u, 2)[1],
    "array_split": lambda u: np.array_split(u, 4, axis=1)[2],
    "real": lambda u: u.real,
    "np_real": lambda u: np.real(u),
    "copy": lambda u: u.copy(),
    "np_copy": lambda u: np.copy(u),
    "astype": lambda u: u.astype(u.dtype),
    "astype_same": lambda u: u.astype(u.dtype, copy=False),
    "index_array": lambda u: u[[0, 2]],
    "zero_d_index_array": lambda u: u[np.array(1)],
    "mask": lambda u: u[np.arange(4) > 1],
    "take": lambda u: np.take(u, 1, axis=0),
    "roll": lambda u: np.roll(u, 0),
    "tile": lambda u: np.tile(u, 1),
    "repeat": lambda u: np.repeat(u, 1),
    "concatenate": lambda u: np.concatenate([u]),
    "pad": lambda u: np.pad(u, 0),
    "where": lambda u: np.where(True, u, u),
    "clip": lambda u: np.clip(u, None, 1e9) if u.dtype.kind == "f" else u.copy(),
    "positive": lambda u: +u,
    "conj": lambda u: u.conj() + 0,
    "meshgrid": lambda u: np.meshgrid(u[0], u[1])[0],
    "iteration": lambda u: list(u)[2],
    "moving_row": lambda u: u[np.argmax(u[:, 0].real) - 1],
    "nan_to_num": lambda u: np.nan_to_num(u) if u.dtype.kind == "f" else u.copy(),
    "chain": lambda u: u[1:].T[::-1].reshape(3, 2, 3)[..., 1:],
}


@pytest.mark.parametrize("u", [U, Z], ids=["real", "complex"])
@pytest.mark.parametrize("name", RELATIONS)
def test_write_through_part(name: str, u: np.ndarray) -> None:
    """Writing to the part changes the whole exactly where it does in NumPy."""
    relation = RELATIONS[name]

    def function(u: Any) -> Any:
        part = relation(u)
        part[...] = 100.0
        part += 7
        return u, part

    check(function, u, exact=True)


@pytest.mark.parametrize("u", [U, Z], ids=["real", "complex"])
@pytest.mark.parametrize("name", RELATIONS)
def test_write_to_whole(name: str, u: np.ndarray) -> None:
    """A view follows its base, a copy does not."""
    relation = RELATIONS[name]

    def function(u: Any) -> Any:
        part = relation(u)
        u[...] = u[::-1] * 3
        u[2, 1] -= 5
        return u, part

    check(function, u, exact=True)


READ_ONLY: dict[str, Callable[[Any], Any]] = {
    "broadcast_to": lambda u: np.broadcast_to(u, (2, 4, 6)),
    "diagonal": lambda u: np.diagonal(u, 1),
    "diag": lambda u: np.diag(u),
    "of_a_read_only": lambda u: np.broadcast_to(u[0], (2, 6))[1],
    "of_a_scalar": lambda u: np.broadcast_to(u[0, 0], (2,)),
}


@pytest.mark.parametrize("name", READ_ONLY)
def test_read_only(name: str) -> None:
    """Writing is refused, as in NumPy; the view follows its base."""
    relation = READ_ONLY[name]

    def follow(u: Any) -> Any:
        part = relation(u)
        u *= 2
        return part if name != "of_a_scalar" else part * 1

    def write(u: Any) -> Any:
        relation(u)[...] = 1.0

    def add(u: Any) -> Any:
        part = relation(u)
        part += 1.0

    check(follow, U, exact=True)
    for function in (write, add):
        with pytest.raises(ValueError, match="read-only"):
            function(U.copy())
        with pytest.raises(MutationError, match=r"read-only.*copy it first\n  at .*test_views.py"):
            run_traced(function, [U])


def test_broadcast_arrays_are_refused() -> None:
    """NumPy still warns here; it, too, says that they will be read-only."""

    def function(u: Any) -> Any:
        np.broadcast_arrays(u[:1], u)[0][...] = 0

    with pytest.raises(MutationError):
        run_traced(function, [U])


def test_imaginary_part() -> None:
    def function(z: Any) -> Any:
        part = z.imag
        part[1:] = 4
        part += z.real
        z.real = 2
        z.imag[0] *= 3
        return z, part

    check(function, Z, exact=True)


def test_reshape_without_copy() -> None:
    def function(u: Any) -> Any:
        return u.T.reshape(24, copy=False)

    with pytest.raises(ValueError, match="without a copy"):
        run_traced(function, [U])


def test_zero_d_views() -> None:
    """A view without dimensions is an array; an element is a value."""

    def function(u: Any) -> Any:
        view, value = u[1, 1, ...], u[1, 1]
        inside = view[()]
        view += 10
        value += 1
        u[1, 1] *= 2
        view *= u[0, 1]
        return u, view, value, inside

    check(function, U, exact=True)


def test_views_of_scalars_are_copies() -> None:
    """A scalar has no memory: its reshape can be written to and the scalar stays."""

    def function(u: Any) -> Any:
        s = u.sum()
        line = np.reshape(s, 1)
        line[0] = 3
        wide = np.atleast_2d(s)
        wide += 1
        return s, line, wide

    check(function, U, exact=True)


def test_moving_row_of_a_base_that_moves_on() -> None:
    def function(u: Any) -> Any:
        i = np.argmax(u[:, 0]) - 2
        row = u[i, 1:5]
        block = u[1:, i]
        u[i] += 1
        row[::2] = -1
        u[i, 2:] *= 2
        block -= 3
        u[i][3] = 50
        return u, row, block

    check(function, U, exact=True)


def test_overlapping_writes() -> None:
    def function(u: Any) -> Any:
        u[1:] = u[:-1]
        u[:, 1:] += u[:, :-1]
        u[::-1][1:] -= u[1:]
        np.add(u[:-1], u[1:], out=u[1:])
        return u

    check(function, U, exact=True)
