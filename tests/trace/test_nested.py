"""A trace inside a trace: what the inner one reads from outside is captured."""

from __future__ import annotations

from typing import Any

import numpy as np

from backsweep.ir import ArrayType, evaluate, verify
from backsweep.trace.array import lift, wrap
from backsweep.trace.tracing import new_trace

C = np.arange(12.0).reshape(3, 4)
X = np.array([2.0, 1.0, 5.0])


def _function(c: Any, x: Any) -> Any:
    i = np.argmin(x)
    row = c[i]
    block = c.T[1:, ::-1].reshape(3, 3)
    total = c.copy()
    total[i] += x.sum()
    return row * 2, block @ x, total, np.roll(c, 1, axis=0), np.where(c > x[1], c, 0.0), c[i, 1]


def test_views_of_outer_values() -> None:
    array = ArrayType(C.shape, C.dtype)
    with new_trace() as outer:
        c = wrap(outer.builder.input(array, "c"))
        with new_trace() as inner:
            x = wrap(inner.builder.input(ArrayType(X.shape, X.dtype), "x"))
            program = verify(inner.builder.build([lift(v) for v in _function(c, x)]))
        constants = [atom for _, atom in inner.captured.values()]
        outside = verify(outer.builder.build(constants))
    values = evaluate(outside, [C, *(v for _, v in outer.captured.values())])
    for actual, expected in zip(
        evaluate(program, [X, *values]), _function(C.copy(), X), strict=True
    ):
        np.testing.assert_array_equal(actual, expected)
