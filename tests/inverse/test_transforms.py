"""Unknowns to parameters: values, exactness at the start, bounds, adjoints, refusals."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import scipy.ndimage
import scipy.optimize

import backsweep as bs
from backsweep import testing
from backsweep.errors import ModelError, ShapeError
from backsweep.inverse.smoothing import gaussian_matrix
from backsweep.inverse.transforms import Unknown, Unknowns

RNG = np.random.default_rng(3)
START = 1500 + 1000 * RNG.random((6, 5))
MASK = RNG.random((6, 5)) > 0.4
DEPTH = np.linspace(1, 3, 6)[:, None]
BOUNDS = (1400.0, 2600.0)
SETTINGS = {
    "none": Unknown(scale=100 * DEPTH),
    "bounded": Unknown(scale=50, bounds=BOUNDS),
    "log": Unknown(transform="log", scale=0.2, bounds=BOUNDS),
    "slowness": Unknown(transform="slowness", scale=3e-5, bounds=BOUNDS),
    "logistic": Unknown(transform="logistic", bounds=BOUNDS, scale=DEPTH),
    "masked": Unknown(transform="log", mask=MASK, scale=0.1 * DEPTH),
    "smooth": Unknown(smoothing=(1.5, 0.7), scale=200),
    "smooth logistic": Unknown(
        transform="logistic", bounds=BOUNDS, smoothing=1.2, mask=MASK, scale=DEPTH
    ),
}
each_setting = pytest.mark.parametrize("setting", SETTINGS.values(), ids=SETTINGS)


def unknowns_of(setting: Unknown, start: Any = START) -> Unknowns:
    return Unknowns({"c": start}, {"c": setting})


@each_setting
@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_the_start_comes_back_bit_for_bit(setting: Unknown, dtype: Any) -> None:
    start = START.astype(dtype)
    unknowns = unknowns_of(setting, start)
    traced = bs.vjp(unknowns.parameters, unknowns.x0)[0]
    for found in (unknowns.parameters(unknowns.x0)["c"], traced["c"]):
        assert found.dtype == dtype
        np.testing.assert_array_equal(found.view(np.uint8), start.view(np.uint8))


@each_setting
def test_derivatives(setting: Unknown) -> None:
    rng = np.random.default_rng(4)
    unknowns = unknowns_of(setting)
    x = 0.3 * rng.standard_normal(unknowns.n)
    testing.check_grads(unknowns.parameters, (x,))
    traced = bs.vjp(unknowns.parameters, x)[0]["c"]
    np.testing.assert_allclose(traced, unknowns.parameters(x)["c"], rtol=1e-14)


@each_setting
@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_pullback_is_the_adjoint_of_a_small_move(setting: Unknown, dtype: Any) -> None:
    rng = np.random.default_rng(4)
    unknowns = unknowns_of(setting, START.astype(dtype))
    x, dx = 0.3 * rng.standard_normal((2, unknowns.n))
    bar = rng.standard_normal(START.shape).astype(dtype)
    gradient = unknowns.pullback(x, {"c": bar})
    assert gradient.dtype == np.float64
    assert gradient.shape == (unknowns.n,)
    wide = unknowns_of(setting)
    ahead, behind = (wide.parameters(x + h * dx)["c"] for h in (1e-5, -1e-5))
    expected = np.vdot(bar, (ahead - behind) / 2e-5)
    assert np.vdot(gradient, dx) == pytest.approx(expected, rel=1e-5)


def test_transforms_are_what_they_say() -> None:
    rng = np.random.default_rng(4)
    z = 0.5 * rng.standard_normal(START.size)
    d = z.reshape(START.shape)

    def logit(p: Any) -> Any:
        return np.log((p - 1400) / (2600 - p))

    for name, scale, transform in (
        ("none", 100.0, lambda p: p),
        ("log", 0.2, np.log),
        ("slowness", 3e-5, lambda p: 1 / p),
        ("logistic", 2.0, logit),
    ):
        bounds = BOUNDS if name == "logistic" else None
        unknowns = unknowns_of(Unknown(transform=name, scale=scale, bounds=bounds))
        p = unknowns.parameters(z)["c"]
        np.testing.assert_allclose(transform(p) - transform(START), scale * d, rtol=1e-9)


@pytest.mark.parametrize("name", ["bounded", "log", "slowness"])
def test_bounds_of_unknowns_are_those_of_parameters(name: str) -> None:
    unknowns = unknowns_of(SETTINGS[name])
    assert unknowns.bounds is not None
    low, high = (np.array(side) for side in zip(*unknowns.bounds, strict=True))
    assert np.all(low < 0) and np.all(high > 0)
    if name == "slowness":
        low, high = high, low
    np.testing.assert_allclose(unknowns.parameters(low)["c"], 1400, rtol=1e-14)
    np.testing.assert_allclose(unknowns.parameters(high)["c"], 2600, rtol=1e-14)


def test_bounds_that_are_infinite_or_below_zero_or_touched() -> None:
    one = np.array([2.0])
    infinite = (-np.inf, np.inf)
    assert unknowns_of(Unknown(bounds=infinite), one).bounds is None
    assert unknowns_of(Unknown(bounds=(1, np.inf), scale=1), one).bounds == [(-1.0, None)]
    assert unknowns_of(Unknown(transform="log", bounds=(-3, 2)), one).bounds == [(None, 0.0)]
    slow = unknowns_of(Unknown(transform="slowness", bounds=(0, 4), scale=1), one)
    assert slow.bounds == [(-0.25, None)]
    assert unknowns_of(Unknown(), np.array([3.0, -4.0])).parameters(np.ones(2))[
        "c"
    ] == pytest.approx(np.array([3.0, -4.0]) + np.sqrt(12.5))
    mixed = Unknowns({"a": one, "b": one}, {"b": Unknown(bounds=(2, 3), scale=2)})
    assert mixed.bounds == [(None, None), (0.0, 0.5)]


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_logistic_never_leaves_its_bounds(dtype: Any) -> None:
    start = np.nextafter(np.array([1, 2, 3], dtype), np.array(2, dtype))
    setting = Unknown(transform="logistic", bounds=(1, 3))
    unknowns = unknowns_of(setting, start)
    assert unknowns.bounds is None
    for size in (1.0, 30.0, 1e3, 1e300):
        for sign in (-1, 1):
            x = np.full(3, sign * size)
            with np.errstate(over="raise", invalid="raise", divide="raise"):
                p = unknowns.parameters(x)["c"]
                gradient = unknowns.pullback(x, {"c": np.ones(3, dtype)})
            assert np.all((p >= 1) & (p <= 3))
            assert np.all(np.isfinite(gradient))


def test_mask_leaves_the_rest_untouched() -> None:
    for name in ("masked", "smooth logistic"):
        unknowns = unknowns_of(SETTINGS[name])
        assert unknowns.n == np.count_nonzero(MASK)
        p = unknowns.parameters(np.ones(unknowns.n))["c"]
        assert np.array_equal(p[~MASK], START[~MASK])
        assert np.all(p[MASK] != START[MASK])


def test_what_is_not_sought_need_not_fit() -> None:
    start = START.copy()
    start[~MASK] = -5
    unknowns_of(Unknown(transform="log", mask=MASK, bounds=BOUNDS), start)


def test_several_parameters_have_their_parts_in_order() -> None:
    start = {"c": START.astype(np.float32), "q": 2.5, "w": np.zeros(3)}
    unknowns = Unknowns(start, {"q": Unknown(scale=1), "w": Unknown(scale=2)})
    assert unknowns.n == START.size + 1 + 3
    p = unknowns.parameters(np.arange(unknowns.n, dtype=float))
    assert list(p) == ["c", "q", "w"]
    assert np.shape(p["q"]) == ()
    assert p["q"] == 2.5 + START.size
    np.testing.assert_array_equal(p["w"], 2.0 * np.arange(START.size + 1, START.size + 4))
    testing.check_grads(
        lambda x: {k: v for k, v in unknowns.parameters(x).items() if k != "c"},
        (np.ones(unknowns.n),),
    )


@pytest.mark.parametrize("dtype", [np.complex128, np.complex64])
@pytest.mark.parametrize("mask", [None, np.array([True, False, True, True])])
def test_complex_parameters_have_real_unknowns(dtype: Any, mask: Any) -> None:
    rng = np.random.default_rng(4)
    start = np.array([1 + 2j, 3j, 4, -1 - 1j], dtype)
    unknowns = unknowns_of(Unknown(mask=mask, smoothing=0.5, scale=2.0), start)
    m = 4 if mask is None else 3
    assert unknowns.n == 2 * m
    assert np.array_equal(unknowns.parameters(unknowns.x0)["c"], start)
    x = rng.standard_normal(unknowns.n)
    moved = unknowns.parameters(x)["c"]
    assert moved.dtype == dtype
    if mask is None:
        expected = start + 2 * gaussian_matrix(4, 0.5) @ (x[:4] + 1j * x[4:])
        np.testing.assert_allclose(moved, expected, rtol=1e-6)
    testing.check_grads(unknowns.parameters, (x,), rtol=1e-2 if dtype == np.complex64 else None)
    bar = (rng.standard_normal(4) + 1j * rng.standard_normal(4)).astype(dtype)
    gradient = unknowns.pullback(x, {"c": bar})
    expected_slope = np.real(np.vdot(bar, moved - start))
    assert np.vdot(gradient, x) == pytest.approx(expected_slope, rel=1e-5, abs=1e-5)  # linear in x


@pytest.mark.parametrize("deviation", [0.3, 2.0, 30.0])
@pytest.mark.parametrize("n", [1, 2, 9])
def test_smoothing_is_a_symmetric_gaussian(n: int, deviation: float) -> None:
    matrix = gaussian_matrix(n, deviation)
    assert np.array_equal(matrix, matrix.T)
    np.testing.assert_allclose(matrix.sum(axis=0), 1, rtol=1e-12)
    assert np.linalg.eigvalsh(matrix).min() > -1e-8


def test_smoothing_is_along_each_axis_as_asked() -> None:
    rng = np.random.default_rng(4)
    shape, deviations = (7, 5, 4), (1.0, 0.0, 2.0)
    unknowns = unknowns_of(Unknown(smoothing=deviations), np.zeros(shape))
    z = rng.standard_normal(shape)
    expected = scipy.ndimage.gaussian_filter(z, deviations, mode="reflect", truncate=6.0)
    found = unknowns.parameters(z.ravel())["c"]
    np.testing.assert_allclose(found, expected, rtol=1e-10, atol=1e-12)
    bar = rng.standard_normal(shape)
    twice = unknowns.pullback(unknowns.x0, {"c": bar})
    np.testing.assert_allclose(twice, unknowns.parameters(bar.ravel())["c"].ravel(), rtol=1e-12)


def test_an_optimiser_holds_the_bounds() -> None:
    target = np.array([1000.0, 2000.0, 9000.0])
    setting = Unknown(transform="slowness", scale=1e-4, bounds=(1500, 4500))
    unknowns = unknowns_of(setting, np.full(3, 2500.0))

    def evaluate(x: Any) -> Any:
        residual = 1e3 / unknowns.parameters(x)["c"] - 1e3 / target
        bar = -residual * 1e3 / unknowns.parameters(x)["c"] ** 2
        return 0.5 * np.sum(residual**2), unknowns.pullback(x, {"c": bar})

    found = scipy.optimize.minimize(
        evaluate, unknowns.x0, jac=True, method="L-BFGS-B", bounds=unknowns.bounds
    )
    np.testing.assert_allclose(unknowns.parameters(found.x)["c"], [1500, 2000, 4500], rtol=1e-3)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"transform": "lgo"}, "did you mean 'log'"),
        ({"transform": "zzz"}, "known are: none, log, slowness, logistic"),
        ({"transform": "logistic"}, "needs two finite bounds, not None"),
        ({"transform": "logistic", "bounds": (0, np.inf)}, "needs two finite bounds"),
        ({"bounds": (2, 1)}, "first must be below"),
        ({"bounds": (np.nan, 1)}, "first must be below"),
        ({"bounds": (0, 9e9), "smoothing": (0, 1)}, 'use transform="logistic"'),
        ({"smoothing": -1.0}, "zero or positive"),
        ({"smoothing": np.nan}, "zero or positive"),
        ({"smoothing": (1.0, 1.0, 1.0)}, "c: smoothing .* its 2 axes"),
        ({"scale": 0.0}, "positive and finite"),
        ({"scale": np.nan}, "positive and finite"),
        ({"scale": np.inf}, "positive and finite"),
        ({"scale": np.ones(6)}, r"c: scale of shape \(6,\) does not fit"),
        ({"scale": np.ones((2, 6, 5))}, r"c: scale of shape \(2, 6, 5\) does not fit"),
        ({"mask": MASK.T}, r"c: a mask of bool of shape \(5, 6\)"),
        ({"mask": MASK.astype(int)}, "c: a mask of int64"),
        ({"mask": np.zeros((6, 5), bool)}, "c: no cell is sought"),
        ({"bounds": (1700, 9000)}, "is not between its bounds 1700 and 9000"),
        ({"bounds": (0, 1700)}, "is not between its bounds"),
        (
            {"transform": "logistic", "bounds": (float(START.min()), 9e3)},
            "is not strictly between",
        ),
    ],
)
def test_settings_that_are_refused(settings: Any, message: str) -> None:
    with pytest.raises(ModelError, match=message) as caught:
        unknowns_of(Unknown(**settings))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("start", "settings", "message"),
    [
        ([1.0, 0.0], {"transform": "log"}, "'log' needs a positive start, its least value is 0"),
        ([1.0, -2.0], {"transform": "slowness"}, "'slowness' needs a positive start"),
        ([1.0, np.nan], {}, "not finite everywhere"),
        ([1.0, np.inf], {}, "not finite everywhere"),
        ([1, 2], {}, "dtype int64"),
        ([1j, 2], {"transform": "log"}, "a complex parameter"),
        ([1j, 2], {"bounds": (0, 1)}, "a complex parameter"),
        ([], {}, "no cell is sought"),
    ],
)
def test_starts_that_are_refused(start: Any, settings: Any, message: str) -> None:
    with pytest.raises(ModelError, match=f"^c: .*{message}"):
        unknowns_of(Unknown(**settings), np.asarray(start))


def test_names_and_shapes_that_do_not_fit() -> None:
    with pytest.raises(ModelError, match="'velocty', no parameter: did you mean 'velocity'?"):
        Unknowns({"velocity": START}, {"velocty": Unknown()})
    unknowns = Unknowns({"c": START})
    with pytest.raises(ShapeError, match=r"\(30,\) is needed"):
        unknowns.parameters(np.zeros(29))
    with pytest.raises(ShapeError, match=r"\['c'\] needed"):
        unknowns.pullback(unknowns.x0, {"d": START})
    with pytest.raises(ShapeError):
        unknowns.pullback(unknowns.x0, {"c": START.T})


def test_the_start_is_copied_and_results_are_new() -> None:
    start = START.copy()
    unknowns = unknowns_of(SETTINGS["masked"], start)
    start[:] = 0
    first = unknowns.parameters(unknowns.x0)["c"]
    first[:] = 0
    assert np.array_equal(unknowns.parameters(unknowns.x0)["c"], START)
