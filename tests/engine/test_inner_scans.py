"""Scans inside the step of a scan: native, with the same bits as the Python executor."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from marks import more
from test_scans import unrolled

import backsweep as bs
from backsweep.codegen.cache import load_sweep
from backsweep.runtime import compiled

STORE_ALL = bs.Checkpointing(schedule="store_all")
A = np.linspace(0.2, 1.4, 6)
B = np.cos(np.arange(6.0))
XS = np.sin(np.arange(24.0)).reshape(4, 6)
Loss = Callable[..., Any]


def gradients(loss: Loss, args: tuple[Any, ...], request: Any, inner: Any = bs.scan) -> Any:
    """Value, gradients and report; `inner` runs the inner scans."""
    argnums = tuple(range(len(args)))
    return bs.value_and_grad(lambda *a: loss(inner, request, *a), argnums, has_report=True)(*args)


def equal(a: Any, b: Any) -> bool:
    return a[0] == b[0] and all(np.array_equal(x, y) for x, y in zip(a[1], b[1], strict=True))


def agree(
    loss: Loss, monkeypatch: pytest.MonkeyPatch, *args: Any, rtol: float = 1e-12, bits: bool = True
) -> Any:
    """Native, with the bits of the Python executor; as the inner loop written out."""
    found = gradients(loss, args, STORE_ALL)
    assert [s.executor for s in found[2].scans] == ["native"], found[2]
    assert all(np.all(np.isfinite(g)) for g in found[1])
    with monkeypatch.context() as patch:
        patch.setenv("BACKSWEEP_NO_JIT", "1")
        reference = gradients(loss, args, STORE_ALL)
        written_out = gradients(loss, args, STORE_ALL, unrolled)
    assert reference[2].scans[0].executor.startswith("python")
    if bits:
        assert equal(found, reference)
    for expected in (reference, written_out):
        np.testing.assert_allclose(found[0], expected[0], rtol=rtol)
        for a, b in zip(found[1], expected[1], strict=True):
            assert (np.shape(a), np.asarray(a).dtype) == (np.shape(b), np.asarray(b).dtype)
            scale = np.max(np.abs(b), initial=1e-30)
            np.testing.assert_allclose(a, b, rtol=rtol, atol=rtol * scale)
    return found


def check_slope(
    loss: Loss, monkeypatch: pytest.MonkeyPatch, args: Any, gradient: Any, h: float = 1e-4
) -> None:
    """Central differences of fourth order; the interpreter runs them."""
    rng = np.random.default_rng(7)
    dots = [rng.standard_normal(np.shape(a)) for a in args]

    def at(shift: float) -> float:
        return float(loss(bs.scan, None, *(a + shift * d for a, d in zip(args, dots, strict=True))))

    with monkeypatch.context() as patch:
        patch.setenv("BACKSWEEP_NO_JIT", "1")
        slope = (8 * (at(h) - at(-h)) - (at(2 * h) - at(-2 * h))) / (12 * h)
    found = sum(np.vdot(g, d) for g, d in zip(gradient, dots, strict=True))
    np.testing.assert_allclose(found, slope, rtol=1e-8)


def everything(scan: Any, request: Any, u: Any, c: Any, xs: Any) -> Any:
    """Constants from outside, from the outer step and from its carry; inner xs and records;
    carries that are handed on, integers, and one that is only counted."""
    table = np.sin(np.arange(15.0)).reshape(3, 5)

    def step(carry: Any, x: Any) -> Any:
        u, n = carry
        drive = u * c + x

        def inner(carry: Any, z: Any) -> Any:
            v, old, k = carry
            new = v + 0.1 * drive * v - 0.05 * old * c * z[1] + 0.01 * k * z[0]
            return (new, v, k + 1), {"first": new[:2] * z[2], "middle": v[1]}

        (v, old, k), ys = scan(inner, (u, 0.5 * u, n), table * x[1])
        return (v - 0.1 * old, k - 2), np.sum(ys["first"] ** 2) * v[0] + ys["middle"][1]

    (u, n), ys = bs.scan(step, (u, np.array(1)), xs, checkpointing=request)
    return np.sum(u * c) * n + np.sum(ys**2)


def test_everything(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    args = (A, B, XS)
    found = agree(everything, monkeypatch, *args)
    check_slope(everything, monkeypatch, args, found[1])
    for place in ({}, {"memory": 0, "disk": "1 MB", "directory": str(tmp_path)}):
        other = gradients(everything, args, bs.Checkpointing(snapshots=2, **place))
        report = other[2].scans[0]
        assert report.executor == "native" and equal(found, other)
        assert report.n_advances > 4 and (report.snapshot_bytes_disk > 0) == bool(place)


@pytest.mark.slow_all
def test_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    """Arrays so long that threads share the loops; sums over everything in each inner step."""
    monkeypatch.setattr(compiled, "MIN_WORK_FOR_THREADS", 0)

    def loss(scan: Any, request: Any, u: Any, c: Any, k: Any) -> Any:
        def step(u: Any, _: Any) -> Any:
            def inner(carry: Any, z: Any) -> Any:
                v, total = carry
                v = v + 0.1 * (np.roll(v, 1) - v) * c - k * z * v / (1 + u * u)
                return (v, total + np.sum(v * u)), v[::1000]

            (v, total), ys = scan(inner, (u, 0.0), np.linspace(0.1, 0.2, 4))
            return v + 1e-4 * total, np.sum(ys)

        u, ys = bs.scan(step, u, length=5, checkpointing=request)
        return np.sum(u * u) + np.sum(ys)

    x = np.linspace(0, 1, 9001)
    args, results = (np.sin(7 * x), np.cos(3 * x), np.array(0.3)), []
    for request in (STORE_ALL, bs.Checkpointing(snapshots=2)):
        for n_threads in (1, 2, 3):
            monkeypatch.setenv("BACKSWEEP_NUM_THREADS", str(n_threads))
            results.append(gradients(loss, args, request))
            report = results[-1][2].scans[0]
            assert (report.executor, report.n_threads) == ("native", n_threads)
    assert all(equal(results[0], other) for other in results[1:])
    monkeypatch.setenv("BACKSWEEP_NO_JIT", "1")
    reference = gradients(loss, args, STORE_ALL)
    for a, b in zip((results[0][0], *results[0][1]), (reference[0], *reference[1]), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-11, atol=1e-12)


def test_implicit_heat(monkeypatch: pytest.MonkeyPatch) -> None:
    """Backward Euler in two dimensions: ten sweeps of Jacobi per step."""

    def loss(scan: Any, request: Any, u: Any, kappa: Any) -> Any:
        def step(u: Any, _: Any) -> Any:
            def sweep(v: Any, _: Any) -> Any:
                around = v[2:, 1:-1] + v[:-2, 1:-1] + v[1:-1, 2:] + v[1:-1, :-2]
                new = v.copy()
                new[1:-1, 1:-1] = (u[1:-1, 1:-1] + kappa * around) / (1 + 4 * kappa)
                return new, None

            return scan(sweep, u, length=10)[0], None

        return np.sum(bs.scan(step, u, length=6, checkpointing=request)[0] ** 2)

    u = np.exp(-0.1 * (np.arange(12.0)[:, None] - 5) ** 2 - 0.2 * (np.arange(9.0) - 4) ** 2)
    kappa = 0.2 + 0.05 * np.cos(np.arange(70.0)).reshape(10, 7)
    found = agree(loss, monkeypatch, u, kappa)
    states = 10 * u.nbytes
    assert found[2].scans[0].work_bytes > states  # the inner trajectory is counted
    check_slope(loss, monkeypatch, (u, kappa), found[1])
    assert equal(found, gradients(loss, (u, kappa), bs.Checkpointing(snapshots=2)))


@pytest.mark.parametrize("shape", [more((11,)), (7, 9)])
def test_explicit_diffusion(shape: tuple[int, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    """Zero around the domain: the inner cotangent itself is read beyond its edges, so that
    its ring has margins."""

    inside = tuple(slice(1, -1) for _ in shape)

    def smooth(v: Any) -> Any:
        wide = bs.numpy.zeros([n + 2 for n in shape])
        wide[inside] = v
        around = -2 * len(shape) * v
        for axis in range(len(shape)):
            for side in (slice(2, None), slice(None, -2)):
                around = around + wide[(*inside[:axis], side, *inside[axis + 1 :])]
        return v + 0.2 * around

    def loss(scan: Any, request: Any, u: Any) -> Any:
        def step(u: Any, _: Any) -> Any:
            v, ys = scan(lambda v, _: (smooth(v), v[2]), smooth(u), length=3)
            return smooth(v) + 0.1 * u, np.sum(ys**2)

        u, ys = bs.scan(step, u, length=4, checkpointing=request)
        return np.sum(u**3) + np.sum(ys)

    texts: list[str] = []
    monkeypatch.setattr(compiled, "load_sweep", lambda text: texts.append(text) or load_sweep(text))
    size = int(np.prod(shape))
    agree(loss, monkeypatch, np.sin(np.arange(float(size))).reshape(shape))
    inner = next(t for t in texts if "inner_reverse" in t).split("def reverse_p")[-1]
    assert "copy_exactly" in inner and " if n == 0 else " not in inner  # copied between layouts


@pytest.mark.parametrize("dtype", [more(np.float32), np.complex64])
def test_substeps(dtype: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """An oscillator with five substeps per sample; narrow cotangents add up in float64."""

    def loss(scan: Any, request: Any, state: Any, stiffness: Any) -> Any:
        h = np.float32(0.02)

        def step(carry: Any, push: Any) -> Any:
            def substep(carry: Any, _: Any) -> Any:
                p, q = carry
                q = q + h * p
                return (p + h * (push - stiffness * q * q * q), q), None

            carry, _ = scan(substep, carry, length=5)
            return carry, carry[1][0]

        pushes = np.cos(0.3 * np.arange(8, dtype=np.float32))
        (p, q), ys = bs.scan(step, (state, 0.5 * state), pushes, checkpointing=request)
        return np.sum(np.abs(p + q) ** 2) + np.sum(np.abs(ys) ** 2)

    state = (A + (0.3j * B if np.dtype(dtype).kind == "c" else 0)).astype(dtype)
    agree(loss, monkeypatch, state, 2 + B.astype(dtype), rtol=2e-5)


@pytest.mark.slow_all
def test_three_levels(monkeypatch: pytest.MonkeyPatch) -> None:
    def loss(scan: Any, request: Any, u: Any, c: Any) -> Any:
        def outer(u: Any, x: Any) -> Any:
            def middle(v: Any, y: Any) -> Any:
                def inner(w: Any, z: Any) -> Any:
                    w = w - 0.1 * w * v * y * z + 0.02 * u * c
                    return w, w[0] * w[1]

                w, zs = scan(inner, v, np.linspace(0.5, 1, 3) * x)
                return w, np.sum(zs)

            v, ys = scan(middle, u, np.array([1.0, -0.5]) * x)
            return v * (1 + 0.1 * ys[0]), ys[1]

        u, ys = bs.scan(outer, u, np.linspace(1, 2, 5), checkpointing=request)
        return np.sum(u * c) + np.sum(ys**2)

    agree(loss, monkeypatch, A, B)


@pytest.mark.parametrize("length", [0, 1, more(2)])
def test_short_inner_scans(length: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """The handed-on component is older than the loop is long."""

    def loss(scan: Any, request: Any, u: Any, c: Any, xs: Any) -> Any:
        def step(u: Any, _: Any) -> Any:
            def inner(carry: Any, x: Any) -> Any:
                a, b, d = carry
                return (a * c - 0.3 * b * x + 0.1 * d, a, b), a

            (a, b, d), ys = bs.scan(inner, (u, 2 * u, u * c), xs)
            return a + 0.5 * b * d, ys

        u, ys = bs.scan(step, u, length=3, checkpointing=request)
        return np.sum(u**2) + np.sum(ys)

    agree(loss, monkeypatch, A, B, np.linspace(0.5, 0.7, length))


@pytest.mark.slow_all
def test_two_scans_and_stencils_around_them(monkeypatch: pytest.MonkeyPatch) -> None:
    """One function scanned twice; results and operands that are read at several offsets and
    patched."""

    def loss(scan: Any, request: Any, u: Any, c: Any) -> Any:
        def smooth(v: Any) -> Any:
            around = np.zeros_like(v)
            around[1:-1] += v[2:] - 2 * v[1:-1] + v[:-2]
            return v + 0.2 * around

        def step(u: Any, x: Any) -> Any:
            inner = lambda v, _: (v - 0.1 * v * v * c, v[2])  # noqa: E731
            start = smooth(u)
            v, first = scan(inner, start, length=3)
            v[np.array([1, 4])] += x
            w, second = scan(inner, smooth(v), length=3)
            w[2] += 0.1 * np.max(w) * first[1]
            return 0.5 * smooth(w) + 0.1 * start, np.cumsum(second)

        u, ys = bs.scan(step, u, np.linspace(0, 1, 4), checkpointing=request)
        return np.sum(u**2) + np.sum(ys)

    agree(loss, monkeypatch, A, B)


def test_reduced_and_shared_constants(monkeypatch: pytest.MonkeyPatch) -> None:
    """Cotangents of a scalar and of a broadcast row, of a value that two loops read."""

    def loss(scan: Any, request: Any, u: Any, k: Any, row: Any) -> Any:
        def step(u: Any, _: Any) -> Any:
            shared = np.tanh(u * row)
            v, _ = scan(lambda v, _: (v + k * shared - 0.1 * v * row, None), u, length=4)
            _, ys = scan(lambda s, x: (s, np.sum(shared * x) * k), (), u)
            return v + 0.01 * np.sum(ys), None

        return np.sum(bs.scan(step, u, length=3, checkpointing=request)[0] ** 2)

    u = np.sin(np.arange(12.0)).reshape(3, 4)
    agree(loss, monkeypatch, u, np.array(0.3), B[:4], bits=False)  # tanh is libm's


def test_residuals_instead_of_states(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a loop without derivative leaves is kept; the trajectory of a loop over constants is
    none of the residuals, it is made again."""

    def loss(scan: Any, request: Any, u: Any, c: Any) -> Any:
        def step(u: Any, _: Any) -> Any:
            s, _ = scan(lambda v, _: (v - 0.1 * v * v, None), bs.stop_gradient(u), length=5)
            k, _ = scan(lambda v, _: (v - 0.1 * v * v * c, None), c, length=3)
            return 0.9 * u * s + 0.1 * k, None

        return np.sum(bs.scan(step, u, length=4, checkpointing=request)[0] ** 2)

    found = agree(loss, monkeypatch, A, B)
    assert "residuals" in found[2].scans[0].schedule
    other = gradients(loss, (A, B), bs.Checkpointing(snapshots=2))
    assert other[2].scans[0].executor == "native" and equal(found, other)


@pytest.mark.slow_all
def test_second_derivatives() -> None:
    u = A[:4]

    def loss(scan: Any, u: Any) -> Any:
        def step(u: Any, _: Any) -> Any:
            def inner(v: Any, _: Any) -> Any:
                return v + 0.1 * u * v * v, np.sum(v)

            v, ys = scan(inner, u, length=3)
            return v * 0.5, ys[1] * v[0]

        u, ys = bs.scan(step, u, length=4)
        return np.sum(u**3) + np.sum(ys)

    direction = B[:4]
    _, product = bs.hvp(lambda u: loss(bs.scan, u), (u,), (direction,))
    _, expected = bs.hvp(lambda u: loss(unrolled, u), (u,), (direction,))
    np.testing.assert_allclose(product, expected, rtol=1e-12)
    h = 1e-5
    slope = bs.grad(lambda u: loss(bs.scan, u))
    difference = (slope(u + h * direction) - slope(u - h * direction)) / (2 * h)
    np.testing.assert_allclose(product, difference, rtol=1e-7)
    _, forward = bs.jvp(lambda u: loss(bs.scan, u), (u,), (direction,))
    np.testing.assert_allclose(forward, np.sum(slope(u) * direction), rtol=1e-12)
