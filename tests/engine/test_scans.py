"""Scans of every form, against the same loop unrolled in Python."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import optree
import pytest

import backsweep as bs

FIVE = bs.Checkpointing(snapshots=3)
STORE_ALL = bs.Checkpointing(schedule="store_all")
A = np.linspace(0.2, 1.4, 6)
B = np.cos(np.arange(6.0))


def unrolled(
    step: Any, init: Any, xs: Any = None, length: int | None = None, checkpointing: Any = None
) -> Any:
    """What `scan` means."""
    if length is None:
        length = len(optree.tree_leaves(xs)[0])
    carry, rows = init, []
    for n in range(length):
        x = optree.tree_map(lambda v, n=n: v[n], xs)
        carry, y = step(carry, x)
        rows.append(y)
    ys = optree.tree_map(lambda *leaves: bs.numpy.stack(leaves), *rows) if rows else None
    return carry, ys


def agree(make_loss: Callable[..., Any], *args: Any, rtol: float = 1e-12) -> Any:
    """Value and gradient through `scan`, under two schedules, and unrolled."""
    argnums = tuple(range(len(args)))
    expected = bs.value_and_grad(lambda *a: make_loss(unrolled, STORE_ALL, *a), argnums)(*args)
    for request in (STORE_ALL, FIVE):
        loss = lambda *a, r=request: make_loss(bs.scan, r, *a)  # noqa: E731
        *found, report = bs.value_and_grad(loss, argnums, has_report=True)(*args)
        assert all(s.executor == "native" for s in report.scans), report
        pairs = zip(optree.tree_leaves(tuple(found)), optree.tree_leaves(expected), strict=True)
        for a, b in pairs:
            assert (np.shape(a), np.asarray(a).dtype) == (np.shape(b), np.asarray(b).dtype)
            scale = np.max(np.abs(b), initial=1e-30)
            np.testing.assert_allclose(a, b, rtol=rtol, atol=rtol * scale)
    return report


def test_gradients_of_init_xs_and_captured() -> None:
    def loss(scan: Any, request: Any, init: Any, xs: Any, c: Any, k: Any) -> Any:
        def step(u: Any, x: Any) -> Any:
            u = u + 0.1 * k * c * u * x["a"] - 0.05 * u**3
            return u, {"energy": np.sum(u * u), "edge": u[::5] * x["b"]}

        xs = {"a": xs, "b": xs[:, 0]}
        u, ys = scan(step, init, xs, checkpointing=request)
        return np.sum(u * c) + np.sum(ys["energy"] ** 2) + np.sum(ys["edge"])

    xs = np.sin(np.arange(72.0)).reshape(12, 6)
    agree(loss, A, xs, B, np.array(0.7))


def test_carry_is_a_pytree_with_static_leaves() -> None:
    def loss(scan: Any, request: Any, u: Any) -> Any:
        def step(carry: Any, _: Any) -> Any:
            assert carry["name"] == "state"
            p, q = carry["pair"]
            pair = (p + 0.1 * q, q - 0.1 * p * carry["inner"]["w"])
            return {**carry, "pair": pair, "inner": {"w": carry["inner"]["w"] * 0.9}}, None

        init = {"pair": (u, 2 * u), "inner": {"w": u[0]}, "name": "state", "none": None}
        carry, _ = scan(step, init, length=9, checkpointing=request)
        assert carry["none"] is None
        return np.sum(carry["pair"][0] * carry["pair"][1]) * carry["inner"]["w"]

    agree(loss, A)


def test_integer_and_boolean_carries() -> None:
    def loss(scan: Any, request: Any, u: Any) -> Any:
        def step(carry: Any, _: Any) -> Any:
            u, count, flag = carry
            u = np.where(flag, 1.1 * u, u * u / (1.0 + count))
            return (u, count + 1, np.logical_not(flag)), u[0] * count

        init = (u, np.array(2), np.array(True))
        (u, count, flag), ys = scan(step, init, length=7, checkpointing=request)
        return np.sum(u * u) * count + np.sum(ys)

    agree(loss, A)
    carry, _ = bs.scan(lambda c, _: (c + 1, None), 3, length=5)
    assert carry == 8 and np.asarray(carry).dtype == np.int64


def test_constant_carries() -> None:
    def loss(scan: Any, request: Any, u: Any, c: Any) -> Any:
        def step(carry: Any, _: Any) -> Any:
            u, c = carry
            return (u + 0.1 * c * u, c), u[0]

        (u, c), ys = scan(step, (u, c), length=8, checkpointing=request)
        return np.sum(u * c) + np.sum(ys)

    report = agree(loss, A, B)
    assert report.scans[0].snapshot_bytes_memory <= 3 * 64  # c is not stored


@pytest.mark.parametrize("length", [0, 1, 2, 9])
def test_handed_on_carries(length: int) -> None:
    """u becomes u_prev becomes u_older: kept once."""

    def loss(scan: Any, request: Any, a: Any, b: Any) -> Any:
        def step(carry: Any, x: Any) -> Any:
            u, prev, older = carry
            return (1.5 * u - 0.6 * prev * x + 0.05 * older * u, u, prev), None

        xs = np.linspace(0.5, 1.0, length)
        carry, _ = scan(step, (a, b, a * b), xs, checkpointing=request)
        return np.sum(carry[0] * carry[1]) + np.sum(carry[2] ** 2)

    agree(loss, A, B)


@pytest.mark.parametrize("length", [1, 4, 9])
def test_swapped_carries(length: int) -> None:
    def loss(scan: Any, request: Any, a: Any, b: Any) -> Any:
        def step(carry: Any, _: Any) -> Any:
            a, b, s = carry
            return (b, a, s + np.sum(a * a * b)), a[1]

        carry, ys = scan(step, (a, b, np.zeros((), like=a)), length=length, checkpointing=request)
        return np.sum(carry[0] * A) + np.sum(carry[1] ** 3) + carry[2] + np.sum(ys**2)

    agree(loss, A, B)


def test_rotated_triple_and_one_handed_to_two() -> None:
    def loss(scan: Any, request: Any, a: Any, b: Any) -> Any:
        def step(carry: Any, _: Any) -> Any:
            p, q, r, u, v, w = carry
            u_next = u + 0.1 * v * w + 0.01 * p
            return (q, r, p, u_next, u, u), None

        carry, _ = scan(step, (a, b, a + b, a, b, a * b), length=8, checkpointing=request)
        return sum(np.sum(c * (k + A)) for k, c in enumerate(carry))

    agree(loss, A, B)


def test_one_new_value_for_two_components() -> None:
    def loss(scan: Any, request: Any, a: Any, b: Any) -> Any:
        def step(carry: Any, x: Any) -> Any:
            u, v = carry
            new = u * np.cos(v)
            return (new, new), new

        (u, v), ys = scan(step, (a, b), length=6, checkpointing=request)
        return np.sum(u * B) + np.sum(v**2) + np.sum(ys[2] * ys[3])

    agree(loss, A, B)


def test_step_that_ignores_its_carry() -> None:
    def loss(scan: Any, request: Any, a: Any, xs: Any) -> Any:
        def step(u: Any, x: Any) -> Any:
            return x * A, u[0]

        u, ys = scan(step, a, xs, checkpointing=request)
        return np.sum(u) + np.sum(ys**2)

    agree(loss, A, np.arange(1.0, 6.0))


def test_carry_becomes_a_constant_or_a_literal() -> None:
    def loss(scan: Any, request: Any, a: Any, c: Any) -> Any:
        def step(carry: Any, _: Any) -> Any:
            u, v, w = carry
            return (u * v + w, c, np.zeros_like(w)), v[1]

        (u, v, _), ys = scan(step, (a, a * a, a), length=5, checkpointing=request)
        return np.sum(u * v) + np.sum(ys)

    agree(loss, A, B)


def test_step_without_carry() -> None:
    def loss(scan: Any, request: Any, xs: Any, c: Any) -> Any:
        _, ys = scan(lambda carry, x: ((), np.sum(c * x) ** 2), (), xs, checkpointing=request)
        return np.sum(ys * np.arange(4.0))

    agree(loss, np.sin(np.arange(24.0)).reshape(4, 6), B)


def test_several_scans_in_one_loss() -> None:
    def loss(scan: Any, request: Any, u: Any, c: Any) -> Any:
        def first(u: Any, _: Any) -> Any:
            return u + 0.1 * c * u, np.sum(u)

        def second(u: Any, x: Any) -> Any:
            return u - 0.1 * u * x, None

        u, ys = scan(first, u, length=7, checkpointing=request)
        v, _ = scan(second, u * 2, ys, checkpointing=request)
        w, _ = scan(first, v, length=3, checkpointing=request)
        return np.sum(w * v) + np.sum(u * c)

    report = agree(loss, A, B)
    assert [s.n_steps for s in report.scans] == [7, 7, 3]


@pytest.mark.parametrize("length", [0, 1])
def test_short_scans(length: int) -> None:
    def loss(scan: Any, request: Any, u: Any, c: Any) -> Any:
        u, _ = scan(lambda u, x: (u * c, None), u, length=length, checkpointing=request)
        return np.sum(u**2)

    agree(loss, A, B)


def test_length_zero_returns_init_and_empty_records() -> None:
    u, ys = bs.scan(lambda u, x: (u * 2, u[:2]), A, length=0)
    assert np.array_equal(u, A)
    assert ys.shape == (0, 2)


def test_results_may_be_changed() -> None:
    """They are no views of arguments, of captured arrays or of residuals."""
    init, c = A.copy(), B.copy()
    u, _ = bs.scan(lambda u, x: (u, None), init, length=3)
    u[:] = 0
    gradient = bs.grad(lambda u: np.sum(c * u))(init)
    gradient[:] = 0
    bs.grad(lambda u: np.sum(u))(init)[:] = 0
    _, pullback = bs.vjp(lambda u: np.sum(c * u), init)
    first = pullback(1.0)[0]
    first[:] = 0
    assert np.array_equal(pullback(1.0)[0], B)
    assert np.array_equal(init, A) and np.array_equal(c, B)


def test_step_may_mutate_its_carry() -> None:
    def loss(scan: Any, request: Any, u: Any) -> Any:
        def step(u: Any, _: Any) -> Any:
            u = u.copy() if scan is unrolled else u
            u[1:] += 0.3 * u[:-1] * u[1:]
            u[0] *= 0.5
            return u, None

        return np.sum(scan(step, u, length=5, checkpointing=request)[0] ** 2)

    start = A.copy()
    agree(loss, start)
    assert np.array_equal(start, A)


def test_python_scalar_carries_stay_weak() -> None:
    u = np.ones(3, np.float32)
    (u, k), _ = bs.scan(lambda c, _: ((c[0] * c[1], c[1] * 0.5), None), (u, 2.0), length=4)
    assert u.dtype == np.float32 and k == 0.125


def test_scan_inside_jit_and_checkpoint() -> None:
    def loss(scan: Any, request: Any, u: Any) -> Any:
        def inside(u: Any) -> Any:
            return scan(lambda u, _: (u * np.cos(u), None), u, length=4, checkpointing=request)[0]

        return np.sum(bs.checkpoint(inside)(u) ** 2)

    agree(loss, A)


def test_stop_gradient_in_a_step() -> None:
    def loss(u: Any) -> Any:
        def step(u: Any, _: Any) -> Any:
            return u * bs.stop_gradient(u), None

        return np.sum(bs.scan(step, u, length=2)[0])

    np.testing.assert_allclose(bs.grad(loss)(A), A**3)  # u (u) then (u^2) (u^2): factors fixed


@pytest.mark.parametrize("schedule", ["store_all", "binomial"])
def test_float32_gradients_accumulate_in_float64(schedule: Any) -> None:
    """100,000 terms: a float32 sum would lose three digits."""
    request = bs.Checkpointing(snapshots=60 if schedule == "binomial" else None, schedule=schedule)
    n, xs = 100_000, np.float32(0.1) * np.ones(100_000, np.float32)

    def loss(c: Any) -> Any:
        def recorded(u: Any, x: Any) -> Any:
            return u, c[0] * x

        _, ys = bs.scan(recorded, np.float32(1) * c, xs, checkpointing=request)
        return np.sum(ys)

    gradient = bs.grad(loss)(np.array([0.3, 0.4], np.float32))
    assert gradient.dtype == np.float32
    exact = n * float(np.float32(0.1))
    assert abs(float(gradient[0]) - exact) < 2e-7 * exact


def test_a_gradient_that_is_read_at_an_offset_as_well() -> None:
    """The cotangent of c is summed over the steps; u's is the same value, shifted."""

    def loss(scan: Any, request: Any, u: Any, c: Any) -> Any:
        def step(u: Any, _: Any) -> Any:
            t = c + np.roll(u, 1)
            return 0.3 * t * t, None

        return np.sum(scan(step, u, length=4, checkpointing=request)[0])

    agree(loss, A, B)


def test_a_running_sum_makes_a_cotangent_that_is_read_beyond_its_edges() -> None:
    """A serial operation writes plain memory: its ring must have no margins."""

    def loss(scan: Any, request: Any, u: Any) -> Any:
        def step(u: Any, _: Any) -> Any:
            v = np.cumsum(u)
            wide = bs.numpy.zeros(v.size + 2)
            wide[1:-1] = v
            return 0.3 * v + 0.05 * (wide[2:] - 2 * v + wide[:-2]), None

        return np.sum(scan(step, u, length=4, checkpointing=request)[0] ** 2)

    agree(loss, A)


def test_a_constant_is_added_to_one_cell() -> None:
    def loss(scan: Any, request: Any, u: Any) -> Any:
        def step(u: Any, _: Any) -> Any:
            u = u * u
            u[2] += 0.37
            return u, None

        return np.sum(scan(step, u, length=3, checkpointing=request)[0])

    agree(loss, A)


def test_randomness_is_refused() -> None:
    def step(u: Any, _: Any) -> Any:
        return u + np.random.normal(size=6), None

    with pytest.raises(bs.BacksweepError, match="random"):
        bs.scan(step, A, length=3)
