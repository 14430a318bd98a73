"""Values against plain formulas, gradients by the checks of backsweep.testing."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import backsweep as bs
from backsweep import testing
from backsweep.errors import ModelError, ShapeError
from backsweep.inverse.misfits import L2, MISFITS, Huber, NormalizedCorrelation

ALL = [L2(), Huber(0.7), NormalizedCorrelation()]
SHAPES = [(30,), (30, 4), (12, 3, 2)]


def make(shape: tuple[int, ...], dtype: Any = np.float64, seed: int = 0) -> tuple[Any, Any, Any]:
    """Predicted and observed data, weights."""
    rng = np.random.default_rng(seed)
    p, o = rng.standard_normal((2, *shape))
    if np.dtype(dtype).kind == "c":
        p, o = p + 1j * rng.standard_normal(shape), o + 1j * rng.standard_normal(shape)
    return p.astype(dtype), o.astype(dtype), rng.uniform(0.5, 2, shape)


@pytest.mark.parametrize("misfit", ALL, ids=lambda m: m.name)
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("dtype", [np.float64, np.float32, np.complex128])
@pytest.mark.parametrize("weighted", [False, True])
def test_gradients(misfit: Any, shape: Any, dtype: Any, weighted: bool) -> None:
    predicted, observed, weights = make(shape, dtype)
    w = weights.astype(np.zeros(1, dtype).real.dtype) if weighted else None
    # Differences may cross the threshold, where the second derivative jumps.
    rtol = 1e-4 if misfit == Huber(0.7) and dtype != np.float32 else None
    testing.check_grads(lambda p: misfit(p, observed, w), (predicted,), rtol=rtol)
    value, gradient = bs.value_and_grad(lambda p: misfit(p, observed, w))(predicted)
    np.testing.assert_allclose(value, misfit(predicted, observed, w), rtol=1e-6)
    assert gradient.dtype == dtype


def test_l2_is_the_sum_of_squares() -> None:
    p, o, w = make((30, 4))
    assert L2()(p, o, w) == pytest.approx(0.5 * np.sum((w * (p - o)) ** 2), rel=1e-14)
    z, y, _ = make((30, 4), np.complex128)
    assert L2()(z, y) == pytest.approx(0.5 * np.sum(np.abs(z - y) ** 2), rel=1e-14)


def test_huber_is_the_piecewise_formula() -> None:
    p, o, w = make((200,))
    limit = 0.7 * np.sqrt(np.mean((w * o) ** 2))
    r = np.abs(w * (p - o))
    inside = r <= limit
    assert 0.2 < inside.mean() < 0.8
    expected = np.sum(np.where(inside, 0.5 * r**2, limit * (r - 0.5 * limit)))
    assert Huber(0.7)(p, o, w) == pytest.approx(expected, rel=1e-14)
    assert Huber(1e9)(p, o, w) == pytest.approx(L2()(p, o, w), rel=1e-14)


def test_huber_is_continuous_with_its_derivative_at_the_threshold() -> None:
    o = np.array([3.0, -4.0])
    limit = 0.5 * np.sqrt(12.5)
    at = [o + np.array([limit + e, 0]) for e in (-1e-9, 0.0, 1e-9)]
    values, gradients = zip(
        *(bs.value_and_grad(lambda p: Huber(0.5)(p, o))(p) for p in at), strict=True
    )
    np.testing.assert_allclose(values, 0.5 * limit**2, rtol=1e-8)
    np.testing.assert_allclose([g[0] for g in gradients], limit, rtol=1e-8)


def test_correlation_counts_each_trace_whatever_its_amplitude() -> None:
    p, o, _ = make((50, 3))
    expected = sum(
        1 - p[:, k] @ o[:, k] / np.linalg.norm(p[:, k]) / np.linalg.norm(o[:, k]) for k in range(3)
    )
    misfit = NormalizedCorrelation()
    assert misfit(p, o) == pytest.approx(expected, rel=1e-13)
    assert misfit(p * [1e-30, 1, 1e9], o * [7, 1e-8, 1]) == pytest.approx(expected, rel=1e-12)
    assert misfit(3 * o, o) == pytest.approx(0, abs=1e-14)
    assert misfit(-o, o) == pytest.approx(6, rel=1e-14)


@pytest.mark.parametrize("dtype", [np.float64, np.float32, np.complex64])
@pytest.mark.parametrize("misfit", ALL, ids=lambda m: m.name)
@pytest.mark.parametrize("zero", ["predicted", "observed", "both", "weights", "one trace", "equal"])
def test_zero_traces_have_finite_values_and_gradients(misfit: Any, zero: str, dtype: Any) -> None:
    p, o, w = make((20, 3), dtype)
    w = w.astype(p.real.dtype)
    if zero in ("predicted", "both"):
        p = 0 * p
    if zero in ("observed", "both"):
        o = 0 * o
    if zero == "weights":
        w = 0 * w
    if zero == "one trace":
        p[:, 1] = o[:, 1] = 0
    if zero == "equal":
        p = o
    with np.errstate(all="raise"):
        value, gradient = bs.value_and_grad(lambda p: misfit(p, o, w))(p)
    assert np.isfinite(value)
    assert np.all(np.isfinite(gradient))
    assert np.isrealobj(value)


def test_dead_traces_do_not_count_in_the_correlation() -> None:
    p, o, _ = make((20, 3))
    alive = NormalizedCorrelation()(p[:, 1:], o[:, 1:])
    o[:, 0] = 0
    value, gradient = bs.value_and_grad(lambda p: NormalizedCorrelation()(p, o))(p)
    assert value == pytest.approx(alive, rel=1e-14)
    assert not gradient[:, 0].any()
    p[:, 0], o[:, 0] = 0, 1
    assert NormalizedCorrelation()(p, o) == pytest.approx(alive + 1, rel=1e-14)


def test_huber_without_observed_data_is_l2() -> None:
    p, o, _ = make((20, 3))
    assert Huber(0.1)(p, 0 * o) == pytest.approx(L2()(p, 0 * o), rel=1e-14)


@pytest.mark.parametrize("misfit", ALL, ids=lambda m: m.name)
@pytest.mark.parametrize("shape", [(0,), (0, 3), (20, 0)])
def test_no_data(misfit: Any, shape: Any) -> None:
    nothing = np.empty(shape)
    with np.errstate(all="raise"):
        value, gradient = bs.value_and_grad(lambda p: misfit(p, nothing))(nothing)
    assert value == 0
    assert gradient.shape == shape


def test_amplitudes_whose_squares_vanish_in_single_precision() -> None:
    p, o, _ = make((20, 3), np.float32)
    small = np.float32(1e-30)
    assert NormalizedCorrelation()(small * p, small * o) == pytest.approx(
        NormalizedCorrelation()(p, o), rel=1e-5
    )
    gradient = bs.grad(lambda q: Huber(0.7)(q, small * o))(small * p)
    expected = bs.grad(lambda q: Huber(0.7)(q, o))(p)
    np.testing.assert_allclose(gradient / small, expected, rtol=1e-4, atol=1e-4)


def test_weights_are_broadcast_to_the_data_only() -> None:
    p, o, _ = make((20, 3))
    taper = np.linspace(0, 1, 20)[:, None]
    for misfit in ALL:
        assert misfit(p, o, taper) == pytest.approx(
            misfit(p, o, np.broadcast_to(taper, p.shape)), rel=1e-14
        )
        for wrong in (np.ones(20), np.ones((2, 20, 3))):
            with pytest.raises(ShapeError, match=r"weights of shape .* do not fit data"):
                misfit(p, o, wrong)
        with pytest.raises(ShapeError, match="must be the same"):
            misfit(p[:, :1], o)


@pytest.mark.parametrize("threshold", [0, -1.0, np.nan, np.inf])
def test_thresholds_that_are_refused(threshold: float) -> None:
    with pytest.raises(ModelError, match="must be positive and finite"):
        Huber(threshold)


def test_correlation_needs_a_time_axis() -> None:
    with pytest.raises(ShapeError, match="axis 0 must be time"):
        NormalizedCorrelation()(np.array(1.0), np.array(2.0))


def test_registry() -> None:
    assert [make.name for make in MISFITS.values()] == list(MISFITS)  # type: ignore[attr-defined]
    assert MISFITS["huber"](threshold=2.0) == Huber(2.0)
