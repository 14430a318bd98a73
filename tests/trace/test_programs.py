"""Random programs: what NumPy computes is what the traced program computes."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from harness import check, check_derivative
from hypothesis import given, settings

from programs import ALL, EXACT, SMOOTH, arguments, programs, run

pytestmark = pytest.mark.filterwarnings("ignore:u.i. .= v with an element named twice")


@given(programs(tuple(EXACT)))
@settings(max_examples=400, deadline=None)
def test_exact(program: Any) -> None:
    check(lambda *arrays: run(program, *arrays), *arguments(), exact=True)


@given(programs(tuple(ALL)))
@settings(max_examples=300, deadline=None)
def test_all(program: Any) -> None:
    check(lambda *arrays: run(program, *arrays), *arguments(), ulp=64)


@given(programs(tuple(ALL)))
@settings(max_examples=100, deadline=None)
def test_float32_stays(program: Any) -> None:
    check(lambda *arrays: run(program, *arrays), *arguments(1, np.float32), ulp=64)


@given(programs(tuple(SMOOTH)))
@settings(max_examples=150, deadline=None)
def test_derivatives(program: Any) -> None:
    check_derivative(lambda *arrays: run(program, *arrays), *arguments(2), tolerance=1e-5)


@given(programs(tuple(SMOOTH)))
@settings(max_examples=100, deadline=None)
def test_complex(program: Any) -> None:
    """Products of complex values are rounded by our own order of operations."""
    z = arguments(3, np.complex128)
    check(lambda *arrays: run(program, *arrays), *z, ulp=64)
    check_derivative(lambda *arrays: run(program, *arrays), *z, tolerance=1e-5)
