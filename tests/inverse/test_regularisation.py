"""Penalties against plain formulas; gradients at flat models; what weights mean."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import backsweep as bs
from backsweep import testing
from backsweep.errors import ModelError, ShapeError
from backsweep.inverse.regularisation import Tikhonov, TotalVariation

ALL = [Tikhonov(0.3, order=0), Tikhonov(0.3), TotalVariation(0.3, epsilon=0.5)]
each = pytest.mark.parametrize("penalty", ALL, ids=["distance", "roughness", "variation"])


def make(shape: tuple[int, ...], dtype: Any = np.float64) -> tuple[Any, Any]:
    """Parameter and start."""
    rng = np.random.default_rng(5)
    start = rng.uniform(1, 3, shape)
    model = start + 0.5 * rng.standard_normal(shape)
    if np.dtype(dtype).kind == "c":
        start, model = start * (1 - 1j), model * (1 + 0.3j)
    return np.asarray(model, dtype), np.asarray(start, dtype)


@each
@pytest.mark.parametrize("shape", [(), (1,), (9,), (6, 5), (1, 4), (4, 3, 2)])
@pytest.mark.parametrize("dtype", [np.float64, np.float32, np.complex128])
def test_gradients(penalty: Any, shape: Any, dtype: Any) -> None:
    model, start = make(shape, dtype)
    testing.check_grads(lambda p: penalty(p, start), (model,))
    value, gradient = bs.value_and_grad(lambda p: penalty(p, start))(model)
    assert value == pytest.approx(penalty(model, start), rel=1e-5)
    assert np.isrealobj(value) and value.dtype == model.real.dtype
    assert gradient.dtype == dtype


@each
@pytest.mark.parametrize("level", [0.0, 2000.0])
def test_flat_models_have_finite_gradients(penalty: Any, level: float) -> None:
    flat = np.full((6, 5), level)
    with np.errstate(all="raise"):
        value, gradient = bs.value_and_grad(lambda p: penalty(p, flat))(flat)
    assert value == 0
    assert not gradient.any()


def test_values() -> None:
    p, start = make((6, 5))
    scale = np.mean(np.abs(start))
    q, m = (p - start) / scale, p / scale

    def gradient(a: Any) -> Any:
        return np.diff(a, axis=0, append=a[-1:]), np.diff(a, axis=1, append=a[:, -1:])

    distance, roughness, variation = (penalty(p, start) for penalty in ALL)
    assert distance == pytest.approx(0.15 * np.mean(q**2), rel=1e-13)
    dz, dx = gradient(q)
    assert roughness == pytest.approx(0.15 * np.mean(dz**2 + dx**2), rel=1e-13)
    dz, dx = gradient(m)
    expected = 0.3 * np.mean(np.sqrt(dz**2 + dx**2 + 0.5**2) - 0.5)
    assert variation == pytest.approx(expected, rel=1e-12)


@each
def test_values_have_no_unit(penalty: Any) -> None:
    p, start = make((6, 5))
    assert penalty(1e3 * p, 1e3 * start) == pytest.approx(penalty(p, start), rel=1e-12)


@pytest.mark.parametrize("make_penalty", [Tikhonov, TotalVariation])
def test_weights_are_comparable_across_grids(make_penalty: Any) -> None:
    def value(n: int) -> float:
        z, x = np.meshgrid((np.arange(n) + 0.5) / n, (np.arange(2 * n) + 0.5) / n, indexing="ij")
        start = 2 + 0 * z
        penalty = make_penalty(1.0, spacing=1 / n)
        return float(penalty(start + 0.3 * np.sin(3 * z) * np.cos(2 * x), start))

    assert value(160) == pytest.approx(value(80), rel=0.02)


def test_spacing_may_differ_between_axes() -> None:
    p, start = make((6, 5))
    both = Tikhonov(1.0, spacing=(2.0, 0.5))(p, start)
    alone = [Tikhonov(1.0, spacing=s)(p, start) for s in ((2.0, 1e9), (1e9, 0.5))]
    assert both == pytest.approx(sum(alone), rel=1e-12)


def test_variation_of_an_edge_is_that_of_a_ramp() -> None:
    edge, ramp = np.where(np.arange(100) < 50, 1.0, 2.0), np.linspace(1, 2, 100)
    penalty = TotalVariation(1.0, epsilon=1e-6)
    assert penalty(edge, edge) == pytest.approx(1 / 100 / 1.5, rel=1e-4)
    assert penalty(ramp, ramp) == pytest.approx(penalty(edge, edge), rel=1e-3)


def test_epsilon_smaller_than_single_precision_resolves() -> None:
    p, start = make((6, 5), np.float32)
    value, gradient = bs.value_and_grad(lambda p: TotalVariation(1.0, 1e-15)(p, start))(0 * p + 2)
    assert value == 0
    assert np.all(np.isfinite(gradient))
    assert TotalVariation(1.0, 1e-15)(p, start) > 0


@pytest.mark.parametrize(
    ("make_penalty", "settings", "message"),
    [
        (Tikhonov, {"weight": -1}, "weight=-1"),
        (Tikhonov, {"weight": np.nan}, "weight=nan"),
        (Tikhonov, {"weight": 1, "order": 2}, "order=2, 0 and 1 are supported"),
        (Tikhonov, {"weight": 1, "spacing": 0.0}, "spacing=0.0"),
        (TotalVariation, {"weight": np.inf}, "weight=inf"),
        (TotalVariation, {"weight": 1, "epsilon": 0}, "epsilon=0, at least 1e-15"),
        (TotalVariation, {"weight": 1, "spacing": (1, np.nan)}, "spacing="),
    ],
)
def test_settings_that_are_refused(make_penalty: Any, settings: Any, message: str) -> None:
    with pytest.raises(ModelError, match=message):
        make_penalty(**settings)


def test_shapes_that_do_not_fit() -> None:
    p, start = make((6, 5))
    with pytest.raises(ShapeError, match="must be the same"):
        Tikhonov(1.0)(p, start[:1])
    with pytest.raises(ShapeError, match="2 axes"):
        TotalVariation(1.0, spacing=(1.0,))(p, start)
