"""Both ways to the derivative of an extremum give it to the same element, ties and NaN included."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from backsweep.ir import ArrayType, Builder, evaluate
from backsweep.passes import vjp_program
from backsweep.primitives import REGISTRY


@pytest.mark.parametrize("name", ["reduce_max", "reduce_min"])
@pytest.mark.parametrize("axes", [(0,), (1,), (2,), (0, 1), (0, 2), (1, 2), (2, 0), (0, 1, 2)])
@pytest.mark.parametrize("has_nan", [False, True])
def test_the_lowest_index_has_the_derivative(name, axes, has_nan):
    rng = np.random.default_rng(len(axes))
    for seed in range(5):
        values = np.random.default_rng(seed).integers(0, 3, (3, 4, 5)).astype(float)
        if has_nan:
            values[rng.random(values.shape) < 0.1] = np.nan
        bars = []
        for more in ({}, {"by_number": True}):
            b = Builder()
            x = b.input(ArrayType(values.shape, values.dtype))
            program = b.build([b(REGISTRY[name], x, axes=axes, **more)])
            (out,) = evaluate(program, [values])
            bars += evaluate(vjp_program(program, [True], [True]), [values, 1 + np.ones_like(out)])
        assert np.array_equal(*bars)
        kept = [range(n) for k, n in enumerate(values.shape) if k not in axes]
        assert np.count_nonzero(bars[0]) == len(list(itertools.product(*kept)))
