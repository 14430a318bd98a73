"""Loops whose number of steps is found on the way."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import pytest
from loops import U, assert_same, counted_loop, gradient_of, known_scan

import backsweep as bs
from backsweep.codegen import statistics
from backsweep.errors import DifferentiationError, LoopError, ScheduleError, ShapeError, TraceError
from backsweep.schedule import OnlineRun, extra_advances


@pytest.fixture(params=["compiled", "python"])
def executor(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    if request.param == "python":
        monkeypatch.setenv("BACKSWEEP_NO_JIT", "1")
    return str(request.param)


@pytest.mark.parametrize("n", [0, 1, 2, 37])
def test_equals_the_scan(n: int, executor: str) -> None:
    found = gradient_of(counted_loop(n))
    assert_same(found, gradient_of(known_scan(n)))
    scan = found[2].scans[0]
    assert (scan.schedule, scan.n_steps, scan.n_reverses) == ("Online", n, n)
    assert scan.executor.startswith("native" if executor == "compiled" else "python")


@pytest.mark.slow_all
def test_of_many_points_on_threads() -> None:
    u = np.sin(np.linspace(0.1, 30, 40_000))
    found = gradient_of(counted_loop(50), u)
    assert_same(found, gradient_of(known_scan(50), u))


@pytest.mark.parametrize("snapshots", [1, 2, 5, 50])
def test_any_number_of_snapshots(snapshots: int, executor: str) -> None:
    request = bs.Checkpointing(snapshots=snapshots)
    found = gradient_of(counted_loop(60, request))
    assert_same(found, gradient_of(counted_loop(60)))
    assert found[2].n_advances == OnlineRun(60, snapshots).n_advances
    assert found[2].scans[0].n_snapshots == snapshots


def test_counts_and_no_compilation_for_another_length() -> None:
    gradient_of(counted_loop(2.5, bs.Checkpointing(snapshots=2)))
    before = statistics.compilations
    for s in (1, 2, 3, 7, 20):
        for n in (1, 2, 3, s + 1, 2 * s + 3, (s + 1) * (s + 2) // 2):
            report = gradient_of(counted_loop(n - 0.5, bs.Checkpointing(snapshots=s)))[2]
            if n <= (s + 1) * (s + 2) // 2:
                assert report.n_advances == extra_advances(n, s) + 1, (n, s)
            assert (report.n_reverses, report.scans[0].n_steps) == (n, n)
    report = gradient_of(counted_loop(2999.5, bs.Checkpointing(snapshots=6)))[2]
    assert report.n_advances == OnlineRun(3000, 6).n_advances
    assert statistics.compilations == before


def test_second_pullback(executor: str) -> None:
    for n in (0, 1, 40):
        request = bs.Checkpointing(snapshots=4)
        value, pullback = bs.vjp(counted_loop(n, request), U, np.array(0.2))
        expected = gradient_of(known_scan(n))
        for _ in range(3):
            assert_same((value, pullback(np.float64(1))), expected)
        pullback.close()


def test_outside_of_a_trace() -> None:
    cond, step = lambda c: c["x"] < 100, lambda c: {"x": c["x"] * 3, "name": c["name"]}
    assert bs.while_loop(cond, step, {"x": 1, "name": "a"}) == {"x": 243, "name": "a"}
    assert bs.while_loop(cond, step, {"x": 100.0, "name": None}) == {"x": 100.0, "name": None}
    assert bs.while_loop(lambda c: c < 9, lambda c: c + 0.5, 1) == 9.0  # a weak int becomes float


def _root(a: Any) -> Any:
    return bs.while_loop(lambda x: np.abs(x * x - a) > 1e-12, lambda x: 0.5 * (x + a / x), a)


def test_newton(executor: str) -> None:
    """The number of steps depends on the differentiated value."""
    for a in (2.0, 1e4, 1e-5):
        value, slope = bs.value_and_grad(_root)(a)
        np.testing.assert_allclose(value, np.sqrt(a), rtol=1e-6)
        np.testing.assert_allclose(slope, 0.5 / np.sqrt(a), rtol=1e-6)
        np.testing.assert_allclose(bs.jvp(_root, (a,), (1.0,))[1], slope, rtol=1e-12)


def _doubled(x: Any) -> Any:
    return bs.while_loop(lambda y: np.max(y) < 10, lambda y: y * y + 1, x)


def test_gradient_is_that_of_the_steps_that_were_made(executor: str) -> None:
    for x in (0.5, 1.0, 2.9, 3.1, 11.0):
        n, y, slope = 0, x, 1.0
        while y < 10:
            n, slope, y = n + 1, slope * 2 * y, y * y + 1
        value, found, report = bs.value_and_grad(_doubled, has_report=True)(x)
        assert (value, found) == (y, slope)
        assert report.scans[0].n_steps == n


# --------------------------------------------------------------------------- adaptive steps

END, TOLERANCE = 2.0, 1e-9


def _bogacki_shampine(u: Any, p: Any) -> Any:
    """u' = -p u**2 to t = END with error control: rejected steps are made again, shorter."""

    def slope(u: Any) -> Any:
        return -p * u * u

    def step(carry: Any) -> Any:
        t, h, u, n_rejected = carry
        k1 = slope(u)
        k2 = slope(u + 0.5 * h * k1)
        k3 = slope(u + 0.75 * h * k2)
        new = u + h * (2 * k1 + 3 * k2 + 4 * k3) / 9
        k4 = slope(new)
        error = np.max(np.abs(h * (-5 * k1 / 72 + k2 / 12 + k3 / 9 - k4 / 8))) + 1e-30
        is_accepted = error <= TOLERANCE
        factor = np.clip(0.9 * (TOLERANCE / error) ** (1 / 3), 0.2, 3.0)
        t = np.where(is_accepted, t + h, t)
        u = np.where(is_accepted, new, u)
        h = np.minimum(h * factor, np.maximum(END - t, 1e-30))
        return t, h, u, n_rejected + np.where(is_accepted, 0, 1)

    cond = lambda c: END - c[0] > 1e-13  # noqa: E731
    return bs.while_loop(cond, step, (0.0, 0.5, u, 0), max_steps=100_000)


def test_adaptive_runge_kutta(executor: str) -> None:
    u, p = np.array([0.3, 1.0, 2.5]), np.array(0.8)
    weights = np.array([1.0, -2.0, 0.5])

    def loss(u: Any, p: Any) -> Any:
        return np.sum(weights * _bogacki_shampine(u, p)[2])

    n_rejected = _bogacki_shampine(u, p)[3]
    value, (u_bar, p_bar), report = bs.value_and_grad(loss, (0, 1), has_report=True)(u, p)
    assert n_rejected > 0 and report.scans[0].n_steps > 100
    below = 1 + p * u * END
    np.testing.assert_allclose(value, np.sum(weights * u / below), rtol=1e-6)
    np.testing.assert_allclose(u_bar, weights / below**2, rtol=1e-5)
    np.testing.assert_allclose(p_bar, -np.sum(weights * u**2 * END / below**2), rtol=1e-5)
    # The program itself, while it makes the same steps: central differences.
    h = 1e-7
    numeric = (loss(u, p + h) - loss(u, p - h)) / (2 * h)
    np.testing.assert_allclose(p_bar, numeric, rtol=1e-6)
    dot = bs.jvp(loss, (u, p), (np.ones(3), np.array(1.0)))[1]
    np.testing.assert_allclose(dot, np.sum(u_bar) + p_bar, rtol=1e-10)


# --------------------------------------------------------------------------- derivatives


def test_forward_mode(executor: str) -> None:
    loop, scan, dots = counted_loop(30), known_scan(30), (np.cos(U), np.array(0.7))
    args = (U, np.array(0.2))
    expected = bs.jvp(scan, args, dots)
    assert bs.jvp(loop, args, dots) == expected
    value, push = bs.linearize(loop, *args)
    assert (value, push(*dots)) == expected
    assert (value, push(*dots)) == expected


def test_second_derivatives(executor: str) -> None:
    args, dots = (U, np.array(0.2)), (np.cos(U), np.array(0.7))
    for request in (None, bs.Checkpointing(snapshots=3)):
        found = bs.hvp(counted_loop(25, request), args, dots)
        expected = bs.hvp(known_scan(25), args, dots)
        for x, y in zip((*found[0], *found[1]), (*expected[0], *expected[1]), strict=True):
            np.testing.assert_array_equal(x, y)


def test_reverse_over_reverse_is_refused() -> None:
    gradient = bs.grad(counted_loop(3))
    with pytest.raises(DifferentiationError, match="through a scan or a loop"):
        bs.grad(lambda u: np.sum(gradient(u, np.array(0.2))))(U)


def test_no_derivative_flows_through_the_condition(executor: str) -> None:
    def loss(u: Any, tolerance: Any) -> Any:
        return np.sum(bs.while_loop(lambda u: np.sum(u * u) > tolerance, lambda u: 0.5 * u, u))

    u_bar, t_bar = bs.grad(loss, (0, 1))(np.array([3.0, 4.0]), 1.0)
    np.testing.assert_array_equal(u_bar, [0.125, 0.125])
    assert t_bar == 0
    assert bs.jvp(loss, (np.array([3.0, 4.0]), 1.0), (np.zeros(2), 1.0))[1] == 0


def test_one_array_in_many_parts(executor: str) -> None:
    """As first carry that moves, as one that stays, captured by the step and by the condition."""

    def loss(a: Any, b: Any) -> Any:
        cond = lambda c: np.sum(c[0]) < 40 + 0 * np.sum(a) + 0 * np.sum(b)  # noqa: E731
        step = lambda c: (c[0] * a + c[1], c[1], c[2] + b)  # noqa: E731
        u, v, w = bs.while_loop(cond, step, (a, a, b))
        return np.sum(u * v) + np.sum(w)

    a, b = np.array([1.5, 2.0]), np.array([1.0, 3.0])
    a_bar, b_bar = bs.grad(loss, (0, 1))(a, b)
    h = 1e-6
    for k, e in enumerate(np.eye(2)):
        assert a_bar[k] == pytest.approx((loss(a + h * e, b) - loss(a - h * e, b)) / (2 * h))
        assert b_bar[k] == pytest.approx((loss(a, b + h * e) - loss(a, b - h * e)) / (2 * h))


# --------------------------------------------------------------------------- carries


def _mixed(u: Any, z: Any) -> Any:
    """Complex, integer, boolean and constant parts; the condition is one of them."""

    def step(c: Any) -> Any:
        k = c["k"] + 1
        z = c["z"] * (0.9 + 0.1j) + 0.01 * c["u"] * c["fixed"]
        return {"u": np.sin(c["u"]) + c["old"], "old": 0.5 * c["u"], "z": z, "k": k,
                "more": k < 12, "fixed": c["fixed"], "name": c["name"]}  # fmt: skip

    init = {"u": u, "old": np.zeros_like(u), "z": z, "k": 0, "more": True, "fixed": 2.0}
    last = bs.while_loop(lambda c: c["more"], step, init | {"name": "mixed"})
    assert last["name"] == "mixed"
    return np.sum(last["u"]) + np.sum(np.abs(last["z"]) ** 2)


def test_carries_that_are_no_float_arrays(executor: str) -> None:
    u, z = np.linspace(0.1, 0.9, 7), np.linspace(0, 1, 7) + 0.5j
    value, (u_bar, z_bar) = bs.value_and_grad(_mixed, (0, 1))(u, z)
    h = 1e-6
    numeric = (_mixed(u + h, z) - _mixed(u - h, z)) / (2 * h)
    np.testing.assert_allclose(np.sum(u_bar), numeric, rtol=1e-7)
    numeric = (_mixed(u, z + 1j * h) - _mixed(u, z - 1j * h)) / (2 * h)
    np.testing.assert_allclose(np.sum(z_bar.imag), numeric, rtol=1e-7)


def test_components_that_are_handed_on() -> None:
    """The leapfrog scheme, and its states in snapshots."""
    c2 = np.linspace(0.1, 0.4, 40)

    def step(carry: Any, _: Any = None) -> Any:
        u, old, k = carry
        new = 2 * u - old
        new[1:-1] += c2[1:-1] * (u[2:] - 2 * u[1:-1] + u[:-2])
        return new, u, k + 1

    def loop(u: Any) -> Any:
        request = bs.Checkpointing(snapshots=3)
        last = bs.while_loop(lambda c: c[2] < 33, step, (u, u, 0), checkpointing=request)
        return np.sum(last[0] ** 2)

    def scan(u: Any) -> Any:
        last = bs.scan(lambda c, x: (step(c), None), (u, u, 0), length=33)[0]
        return np.sum(last[0] ** 2)

    u = np.exp(-((np.arange(40) - 20) ** 2) / 9)
    np.testing.assert_array_equal(bs.grad(loop)(u), bs.grad(scan)(u))


# --------------------------------------------------------------------------- wrong use


def test_too_many_steps(executor: str) -> None:
    grow = partial(bs.while_loop, lambda x: x > 0, lambda x: x + 1)
    with pytest.raises(LoopError, match="max_steps=100 steps"):
        grow(1.0, max_steps=100)
    with pytest.raises(LoopError, match="max_steps=5 steps"):
        bs.grad(lambda x: grow(x, max_steps=5))(1.0)
    with pytest.raises(LoopError, match="max_steps=0 steps"):
        grow(1.0, max_steps=0)
    count = partial(bs.while_loop, lambda x: x < 70, lambda x: x + 1, 0)
    assert count(max_steps=70) == 70
    with pytest.raises(LoopError, match="max_steps=69"):
        count(max_steps=69)


def test_wrong_carry() -> None:
    with pytest.raises(ShapeError, match=r"while_loop: the carry\[0\] came as f64\[3\]"):
        bs.while_loop(lambda c: c[1] < 3, lambda c: (c[0][1:], c[1] + 1), (np.ones(3), 0))
    with pytest.raises(ShapeError, match="while_loop: the carry changes its structure"):
        bs.while_loop(lambda c: c < 3, lambda c: (c, c), 0)
    with pytest.raises(ShapeError, match="convert with"):
        bs.while_loop(lambda c: c < 3, lambda c: c * 0.5, np.int64(1))


def test_wrong_condition() -> None:
    with pytest.raises(ShapeError, match=r"returned b8\[3\]; it must be one bool"):
        bs.while_loop(lambda c: c < 3, lambda c: c + 1, np.ones(3))
    with pytest.raises(ShapeError, match="returned f64"):
        bs.while_loop(lambda c: 3 - c, lambda c: c + 1, 1.0)
    with pytest.raises(ShapeError, match="returned NoneType"):
        bs.while_loop(lambda c: None, lambda c: c + 1, 1.0)
    with pytest.raises(TraceError):
        bs.while_loop(lambda c: c < 3 and c > -3, lambda c: c + 1, 1.0)
    with pytest.raises(TraceError, match="the condition is a bool"):
        bs.while_loop(True, lambda c: c + 1, 1.0)  # type: ignore[arg-type]
    with pytest.raises(TraceError, match="would not end"):
        bs.while_loop(lambda c: c < 3, lambda c: c, 1.0)


def test_what_needs_the_number_of_steps_is_refused(tmp_path: Any) -> None:
    with pytest.raises(ScheduleError, match="schedule='binomial' needs the number of steps"):
        gradient_of(counted_loop(3, bs.Checkpointing(schedule="binomial", snapshots=3)))
    disk = bs.Checkpointing(disk="1 MB", directory=str(tmp_path))
    with pytest.raises(ScheduleError, match="disk= needs the number of steps"):
        gradient_of(counted_loop(3, disk))
    with pytest.raises(ScheduleError, match="smaller than one state"):
        gradient_of(counted_loop(3, bs.Checkpointing(memory=10)))
