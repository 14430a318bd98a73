"""What a step may call: gradients, checkpoint, jit, sums, scans; and which of it Python runs."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from test_inner_scans import STORE_ALL, A, B, Loss, agree, equal, gradients

import backsweep as bs
from backsweep.codegen import statistics
from backsweep.runtime import scan


def test_gradient_inside_a_step() -> None:
    """A step that descends: the inner sweep is reversed in the forward program."""
    target = A[::-1].copy()

    def step(v: Any, _: Any) -> Any:
        def misfit(v: Any) -> Any:
            w, _ = bs.scan(lambda w, _: (w + 0.1 * np.cos(w) * B, None), v, length=3)
            return np.sum((w - target) ** 2)

        value, slope = bs.value_and_grad(misfit)(v)
        return v - 0.2 * slope, value

    v, values = bs.scan(step, A, length=20)
    assert np.all(np.diff(values) < 0) and values[-1] < 1e-3 * values[0]
    before = statistics.copy()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("BACKSWEEP_NO_JIT", "1")
        reference = bs.scan(step, A, length=20)
    assert statistics == before
    assert np.array_equal(v, reference[0]) and np.array_equal(values, reference[1])


def test_remat_jit_and_sums_inside_a_step(monkeypatch: pytest.MonkeyPatch) -> None:
    def loss(scan: Any, request: Any, u: Any, c: Any) -> Any:
        def dear(v: Any) -> Any:
            return scan(lambda v, _: (v - 0.1 * v * v * c, None), v * c, length=3)[0]

        def step(u: Any, _: Any) -> Any:
            v = bs.checkpoint(dear)(u)
            w = bs.jit(lambda v: v * u + 0.1)(v)
            total = bs.sum_over([0.1, 0.2, 0.3, 0.5, 0.7], lambda k: k * np.sum(w * v))
            return w + 0.05 * v, total

        u, ys = bs.scan(step, u, length=4, checkpointing=request)
        return np.sum(u**2) + np.sum(ys)

    agree(loss, monkeypatch, A, B)


def _limited(inner: Any) -> Loss:
    def loss(scan: Any, request: Any, u: Any) -> Any:
        def step(u: Any, _: Any) -> Any:
            return scan(lambda v, _: (v - 0.1 * v * v, None), u, length=4, checkpointing=inner)[
                0
            ], None

        return np.sum(bs.scan(step, u, length=3, checkpointing=request)[0] ** 2)

    return loss


def test_an_inner_checkpointing_is_run_by_python() -> None:
    own = gradients(_limited(bs.Checkpointing(snapshots=2)), (A,), STORE_ALL)
    assert "checkpointing of its own" in own[2].scans[0].executor
    native = gradients(_limited(STORE_ALL), (A,), STORE_ALL)
    assert native[2].scans[0].executor == "native"
    assert equal(own, native)


def test_inner_states_that_do_not_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    native = gradients(_limited(None), (A,), STORE_ALL)
    assert native[2].scans[0].executor == "native"
    monkeypatch.setattr(scan, "available_bytes", lambda: 600)
    other = gradients(_limited(None), (A,), STORE_ALL)
    assert "half of the memory" in other[2].scans[0].executor
    assert equal(native, other)


def test_other_arrays_and_constants_compile_nothing() -> None:
    def run(u: Any, dt: float, at: int) -> Any:
        def loss(u: Any) -> Any:
            def step(u: Any, _: Any) -> Any:
                v, _ = bs.scan(lambda v, _: (v - dt * v * v * B, None), u, length=3)
                v[at] += 3.7 * dt
                return v, None

            return np.sum(bs.scan(step, u, length=4)[0] ** 2)

        return bs.grad(loss)(u)

    first = run(A, 0.1, 2)
    before = statistics.compilations
    others = [run(A + 1, 0.1, 2), run(A, 0.2, 2), run(A, 0.1, 3)]
    assert statistics.compilations == before
    assert all(not np.allclose(first, other) for other in others)
    assert np.array_equal(run(A, 0.1, 2), first)
