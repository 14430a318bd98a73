"""`backsweep.numpy`: creators and joiners that can hold traced values."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from harness import check

from backsweep import numpy as bnp
from backsweep.ir import ArrayType, evaluate
from backsweep.trace.array import lift, wrap
from backsweep.trace.tracing import new_trace

U = np.arange(12.0).reshape(3, 4) - 4


def test_creators_of_backsweep_numpy() -> None:
    def function(u: Any) -> Any:
        total = bnp.zeros(4)
        total += u[0]
        total[0] = u[1, 1]
        grid = bnp.linspace(0, 1, 4)
        grid[1:] *= u[0, 1:]
        return (
            total,
            grid,
            bnp.array([[u[0, 0], 1.0], [2, u.sum()]]),
            bnp.array([u[0], [1, 2, 3, 4]]),
            bnp.stack([u[0], u[1]]),
            bnp.concatenate([[u[0, 0], u[1, 1]], u[2]]),
            bnp.full(2, u[0, 1]),
            bnp.arange(3) * u[0, 0],
            bnp.eye(3) @ u,
            bnp.ones((2, 2), np.float32),
            bnp.sqrt(abs(u)),
        )

    check(function, U)


def test_backsweep_numpy_outside_of_a_trace() -> None:
    for value in (bnp.zeros(3), bnp.array([1, 2]), bnp.stack([U, U]), bnp.asarray([1.0])):
        assert type(value) is np.ndarray
    assert bnp.asarray(U) is U
    assert bnp.pi == np.pi and bnp.sin is np.sin and bnp.float32 is np.float32
    assert bnp.linalg is np.linalg
    assert not set(np.__all__) - set(dir(bnp))
    with pytest.raises(AttributeError):
        bnp.no_such_name  # noqa: B018


def test_created_arrays_are_separate() -> None:
    """Arrays with equal contents are one captured input, but not one array."""

    def function(u: Any) -> Any:
        a, b = bnp.arange(4.0), bnp.arange(4.0)
        a[0] = u[0, 0]
        return a, b, bnp.zeros(4), bnp.arange(4)

    with new_trace() as t:
        u = wrap(t.builder.input(ArrayType(U.shape, U.dtype), "u"))
        program = t.builder.build([lift(v) for v in function(u)])
    captured = [array for _, array in t.captured.values()]
    a, b, zeros, integers = evaluate(program, [U, *captured])
    np.testing.assert_array_equal(a, [U[0, 0], 1, 2, 3])
    np.testing.assert_array_equal(b, np.arange(4.0))
    assert integers.dtype == np.int64 and not zeros.any()
