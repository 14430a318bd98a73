"""The traps of DESIGN section 3 that belong to tracing, one by one."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from harness import check, run_traced

from backsweep import grad, scan
from backsweep import numpy as bnp
from backsweep.errors import BacksweepError, MutationError, ShapeError, TraceError
from backsweep.ir import ArrayType
from backsweep.trace.array import lift, wrap
from backsweep.trace.tracing import content_checksum, new_trace

U = np.arange(12.0).reshape(3, 4) - 4
F = U.astype(np.float32)
WAVELET = np.linspace(0.0, 1.0, 5)


def refused(
    function: Callable[..., Any],
    match: str | None,
    *arguments: np.ndarray,
    error: type[BaseException] = TraceError,
) -> str:
    """The message; it names this file and the function's own lines."""
    with pytest.raises(error, match=match) as caught:
        run_traced(function, arguments or (U,))
    message = str(caught.value)
    lines, first = inspect.getsourcelines(function)
    places = [f"{__file__}:{first + k}" for k in range(len(lines))]
    assert any(place in message for place in places), message
    return message


# --------------------------------------------------------------------------- scalars are values


def test_scalars_are_values() -> None:
    def function(u: Any) -> Any:
        s = u.sum()
        t = s
        s += 1
        q = u[0]
        p = u[0, 0]
        u[0] = 9
        return s, t, q, p, u

    check(function, U, exact=True)


def test_scalar_is_not_written_to() -> None:
    def function(u: Any) -> Any:
        s = u.sum()
        s[...] = 1

    refused(function, "a scalar cannot be written to")


# --------------------------------------------------------------------------- weak scalars


def test_python_scalars_are_weak() -> None:
    def function(u: Any) -> Any:
        u *= 0.1
        u[0] = 1.5
        return (
            u * 2.0,
            1 / u,
            np.where(u > 0, u, 0.0),
            np.clip(u, 0.25, 1),
            u.mean() * 3,
            np.maximum(u, 0),
            np.power(u, 2),
            np.full_like(u, 0.5),
            u + np.float32(3),
            u + np.float64(3),
            u[0, 0] + np.arange(2),
        )

    check(function, F)


def test_weak_inputs_stay_weak() -> None:
    with new_trace() as t:
        weak = ArrayType((), np.dtype(np.float64), weak=True)
        s = wrap(t.builder.input(weak, "s"))
        u = wrap(t.builder.input(ArrayType((3,), np.dtype(np.float32)), "u"))
        for value in (s * u, u + (2 * s - 1), np.where(u > 0, u, s), np.clip(u, s, None)):
            assert value.dtype == np.float32
        assert (s * 2).dtype == np.float64
        assert np.stack([s, s]).dtype == np.float64
        assert not lift(np.stack([s, s])).type.weak  # type: ignore[union-attr]
        assert not lift(s.astype(float)).type.weak  # type: ignore[union-attr]


def test_arrays_of_python_numbers_are_float64() -> None:
    """As NumPy: weakness is for operands, not for the items of a list."""
    check(lambda u: (np.stack([u[0, 0], 1.0]), np.concatenate([u[0], [2.0]])), F, exact=True)


# --------------------------------------------------------------------------- index arrays


def test_same_cell_twice() -> None:
    def function(u: Any) -> Any:
        u[[0, 1, 0]] += np.array([[1.0], [2.0], [3.0]])
        return u

    with pytest.warns(UserWarning, match=r"np\.add\.at.*"):
        check(function, U, exact=True)


def test_same_cell_twice_with_add_at() -> None:
    def function(u: Any) -> Any:
        np.add.at(u, [0, 1, 0], np.array([[1.0], [2.0], [3.0]]))
        np.subtract.at(u, ([0, 0], [1, 1]), 1.5)
        return u

    check(function, U, exact=True)


def test_plain_array_at_traced_index() -> None:
    def slot(u: Any) -> Any:
        return WAVELET[np.argmax(u)]

    def size(u: Any) -> Any:
        return range(np.argmax(u))

    def converted(u: Any) -> Any:
        return bnp.asarray(WAVELET)[np.argmax(u[0])]

    for function in (slot, size):
        message = refused(function, "pass (that|the) array as xs of the scan")
        assert "backsweep.numpy.asarray(array)" in message
    check(converted, U, exact=True)


def test_index_out_of_bounds() -> None:
    def function(u: Any) -> Any:
        return u[1, 4]

    def by_array(u: Any) -> Any:
        return u[[0, 3]]

    refused(function, "out of bounds", error=IndexError)
    refused(by_array, "out of bounds", error=IndexError)


def test_slice_with_traced_bound() -> None:
    def function(u: Any) -> Any:
        return u[: np.argmax(u[0])]

    refused(function, "a slice has a traced bound")


# --------------------------------------------------------------------------- masks


def test_masks() -> None:
    def augmented(u: Any) -> Any:
        u[u < -2] *= 2

    def function(u: Any) -> Any:
        u[u > 3] = 0
        u[u[:, 0] > 0] = 7
        u[np.isnan(u)] = 0.5
        u[np.eye(3, 4) > 0] = np.arange(3.0)
        return u

    check(function, U, exact=True)
    refused(augmented, r"u\[mask\] with a traced mask")


def test_mask_as_a_value() -> None:
    def function(u: Any) -> Any:
        return u[u > 0]

    refused(function, r"np\.where\(mask, u, 0\)")


# --------------------------------------------------------------------------- plain arrays


def test_plain_targets() -> None:
    def in_place(u: Any) -> Any:
        total = np.zeros(4)
        total += u[0]

    def by_slice(u: Any) -> Any:
        total = np.zeros(4)
        total[1:] = u[0, 1:]

    def from_list(u: Any) -> Any:
        return np.array([u[0, 0], 1.0])

    for function in (in_place, by_slice, from_list):
        message = refused(function, "plain array")
        assert "np.zeros_like(u)" in message


def test_plain_target_of_one_element() -> None:
    """NumPy puts its own words over ours; ours are raised all the same."""

    def function(u: Any) -> Any:
        np.zeros(4)[0] = u[0, 0]

    with pytest.raises(TraceError, match=r"np\.zeros_like\(u\)"):
        run_traced(function, [U])


def test_captured_array_that_is_written_before_it_is_read() -> None:
    work = np.zeros((3, 4))

    def function(u: Any) -> Any:
        work[0] += 1.0
        return u + work

    with pytest.raises(MutationError, match="was changed"):
        grad(lambda u: np.sum(scan(lambda c, _: (function(c), None), u, length=2)[0]))(U)


def test_captured_array_that_changes() -> None:
    work = np.zeros((3, 4))

    def function(u: Any) -> Any:
        v = u + work
        work[...] = 1
        return v

    with pytest.raises(MutationError, match=r"read at .*test_traps\.py:\d+"):
        run_traced(function, [U])


@pytest.mark.parametrize("dtype", ["f4", "f8", "c16", "i8"])
def test_all_bits_of_an_array_and_their_order_count(dtype: str) -> None:
    """Even those that a sum of words does not see: all signs, two elements that change places."""
    x = np.arange(1, 8193).astype(dtype)
    swapped = x.copy()
    swapped[[5, 9]] = x[[9, 5]]
    found = [content_checksum(a) for a in (x, -x, swapped, x[::-1], np.roll(x, 1))]
    assert len(set(found)) == 5
    assert content_checksum(x.copy()) == found[0]


def test_writing_to_a_captured_value() -> None:
    with new_trace() as outer:
        u = wrap(outer.builder.input(ArrayType((3,), np.dtype(float)), "u"))
        with new_trace():
            i = np.argmax(u)
            for write in (
                lambda: u.__setitem__(0, 1.0),
                lambda: u.__iadd__(1.0),
                lambda: u.T.fill(0),
                lambda: np.copyto(u, 1.0),
            ):
                with pytest.raises(TraceError, match="writes to a captured array"):
                    write()
            with pytest.raises(BacksweepError):
                np.stack([u, u])[i] = u[:2]
            copy = u.copy()
            copy[0] = 1.0


def test_asarray_of_a_plain_array_is_read_only() -> None:
    def function(u: Any) -> Any:
        bnp.asarray(WAVELET)[0] = u[0, 0]

    refused(function, "read-only", error=MutationError)


def test_argument_stays() -> None:
    def function(u: Any) -> Any:
        u[...] = 0
        return u

    given = U.copy()
    run_traced(function, [given])
    np.testing.assert_array_equal(given, U)


# --------------------------------------------------------------------------- frozen numbers


def test_random_numbers() -> None:
    def function(u: Any) -> Any:
        return u + np.random.normal(size=4)

    with pytest.raises(TraceError, match=r"pass them as xs\n  at .*(harness|test_traps)\.py"):
        run_traced(function, [U])


@pytest.mark.parametrize("convert", [float, int, bool, complex, range, len, list, max, sorted])
def test_conversions(convert: Any) -> None:
    def function(u: Any) -> Any:
        return convert(u[0] if convert in (bool, max, sorted) else u[0, 0])

    error = TypeError if convert in (len, list) else TraceError
    with pytest.raises(error):
        run_traced(function, [U])


def test_branch() -> None:
    def function(u: Any) -> Any:
        return u if u.sum() > 0 else -u

    refused(function, r"np\.where\(condition, a, b\)")


# --------------------------------------------------------------------------- refusals


@pytest.mark.parametrize(
    "function, match",
    [
        (lambda u: np.round(u), "numpy.round is not supported"),
        (lambda u: np.sort(u), "numpy.sort is not supported"),
        (lambda u: np.fft.fft(u), "numpy.fft.fft is not supported"),
        (lambda u: np.linalg.solve(u, u), "numpy.linalg.solve is not supported"),
        (lambda u: np.spacing(u), "numpy.spacing is not supported"),
        (lambda u: u.item(), "it has no number yet"),
        (lambda u: u.tolist(), "it has no numbers yet"),
        (lambda u: u.round(2), "derivative is zero"),
        (lambda u: u.view(np.int64), "bytes cannot be reinterpreted"),
        (lambda u: u.sort(), "sorting is not supported"),
        (lambda u: np.sum(u, where=u > 0), "the argument where="),
        (lambda u: np.sum(u, initial=3.0), "the argument initial=3.0"),
        (lambda u: np.where(u > 0), "with one argument"),
        (lambda u: np.pad(u, 1, "linear_ramp"), "mode 'linear_ramp'"),
        (lambda u: np.einsum(u, [0, 1]), "write the subscripts as text"),
        (lambda u: np.max(u * 1j), "complex values"),
        (lambda u: (u * 1j).astype(float), "a complex value cannot become"),
        (lambda u: u.reshape(4, 3, order="A"), "order='A'"),
        (lambda u: np.linalg.norm(u, "nuc"), "ord='nuc'"),
        (lambda u: np.gradient(u, np.arange(3.0), 1.0), "one scalar spacing"),
    ],
)
def test_refused_functions(function: Any, match: str) -> None:
    refused(function, match)


@pytest.mark.parametrize(
    "function",
    [
        lambda u: u + np.ones(3),
        lambda u: u @ np.ones(3),
        lambda u: np.dot(np.ones(4), u),
        lambda u: np.einsum("ij,jk", u, u),
        lambda u: np.einsum("ijk->i", u),
        lambda u: np.concatenate([u, u[:, :2]]),
        lambda u: np.stack([u, u[0]]),
        lambda u: u.reshape(5, 2),
        lambda u: np.broadcast_to(u, (3, 5)),
        lambda u: np.squeeze(u, 0),
        lambda u: u.__setitem__(0, np.ones(3)),
        lambda u: np.concatenate([u[0, 0], u[0, 1]]),
    ],
)
def test_shapes_that_do_not_fit(function: Any) -> None:
    refused(function, None, error=ShapeError)


def test_in_place_keeps_the_dtype() -> None:
    def float_into_int(u: Any) -> Any:
        k = u.astype(np.int64)
        k += 0.5

    def int_assignment(u: Any) -> Any:
        k = u.astype(np.int64)
        k[0] = u[1] / 3
        k[1] = 2.75
        return k

    def double_into_single(u: Any) -> Any:
        u += np.linspace(0.0, 1.0, 4)
        u[1:] *= np.pi * np.ones(4)
        return u

    refused(float_into_int, "cannot be written into int64")
    check(int_assignment, U)
    check(double_into_single, F)


def test_value_that_left_its_trace() -> None:
    kept: list[Any] = []
    run_traced(lambda u: kept.append(u) or u, [U])
    with pytest.raises(TraceError, match="after its function was traced"):
        kept[0] + 1
    with pytest.raises(TraceError, match="must not leave the function"):
        run_traced(lambda u: u + kept[0], [U])
