"""Adjoints of stencils: carried products, margins of cotangents, shared coefficients."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from marks import more

import backsweep as bs
from backsweep.codegen.cache import load_sweep
from backsweep.runtime import compiled
from backsweep.testing import check_grads

N_Z, N_X, N_STEPS = 150, 40, 13
ROWS = np.array([40, 41, 77, 0, 1, N_Z - 1, 60, 60, 61, 60])
COLUMNS = np.array([9, 20, 30, 0, N_X - 1, 5, 1, 12, 12, 12])
"""Records inside, in the frame that the stencil leaves out, and one twice."""


def _scale() -> np.ndarray:
    z, x = np.mgrid[:N_Z, :N_X]
    return (0.1 + 0.02 * np.sin(z) * np.cos(x)).astype(np.float32)


def _fields(seed: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    return tuple(rng.standard_normal((2, N_Z, N_X)).astype(np.float32))  # type: ignore


def _interior(u: Any) -> Any:
    total = -5.0 * u[2:-2, 2:-2]
    for k, a in ((1, 4.0 / 3), (2, -1.0 / 12)):
        rows = u[2 - k : N_Z - 2 - k, 2:-2] + u[2 + k : N_Z - 2 + k, 2:-2]
        columns = u[2:-2, 2 - k : N_X - 2 - k] + u[2:-2, 2 + k : N_X - 2 + k]
        total = total + a * (rows + columns)
    return total


def _in_a_frame(scale: Any, u: Any) -> Any:
    out = np.zeros_like(u)
    out[2:-2, 2:-2] = scale[2:-2, 2:-2] * _interior(u)
    return out


def _whole_grid(scale: Any, u: Any) -> Any:
    v = np.pad(u, 1)
    return scale * (v[2:, 1:-1] + v[:-2, 1:-1] + v[1:-1, 2:] + v[1:-1, :-2] - 4 * u)


def _constant(scale: Any, u: Any) -> Any:
    out = np.zeros_like(u)
    out[2:-2, 2:-2] = 0.125 * _interior(u)
    return out + scale * u


def _function_of_scale(scale: Any, u: Any) -> Any:
    return _in_a_frame(scale * (1.0 + scale), u)


OPERATORS = {
    "frame": _in_a_frame,
    "whole": _whole_grid,
    "constant": _constant,
    "function": _function_of_scale,
}


def _loss(operator: Callable[..., Any], checkpointing: Any = None) -> Callable[..., Any]:
    def loss(scale: Any, u: Any, u_prev: Any) -> Any:
        def step(carry: Any, _: Any) -> Any:
            u, u_prev = carry
            u_next = 1.9 * u - 0.95 * u_prev + operator(scale, u)
            return (u_next, u), u_next[ROWS, COLUMNS]

        (u, u_prev), traces = bs.scan(
            step, (u, u_prev), length=N_STEPS, checkpointing=checkpointing
        )
        return np.sum(traces**2) + 0.5 * np.sum(u * u) - np.sum(u_prev)

    return loss


@pytest.mark.parametrize("name", [more(n) if n in ("whole", "frame") else n for n in OPERATORS])
def test_bits_of_the_interpreter(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    args = (_scale(), *_fields(0))
    results = []
    for environment in ({"BACKSWEEP_NUM_THREADS": "1"}, {"BACKSWEEP_NUM_THREADS": "2"},
                        {"BACKSWEEP_NO_JIT": "1"}):  # fmt: skip
        for key, setting in environment.items():
            monkeypatch.setenv(key, setting)
        loss = _loss(OPERATORS[name])
        *found, report = bs.value_and_grad(loss, (0, 1, 2), has_report=True)(*args)
        assert report.scans[0].executor.startswith("python" if len(results) == 2 else "native")
        results.append(found)
    binomial = _loss(OPERATORS[name], bs.Checkpointing(snapshots=3))
    monkeypatch.setenv("BACKSWEEP_NO_JIT", "0")
    results.append(bs.value_and_grad(binomial, (0, 1, 2))(*args))
    for value, gradient in results[1:]:
        assert value == results[0][0]
        for a, b in zip(gradient, results[0][1], strict=True):
            np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("name", ["frame", more("constant")])
def test_differences(name: str) -> None:
    args = [a.astype(np.float64) for a in (_scale(), *_fields(1))]
    check_grads(_loss(OPERATORS[name]), tuple(args))


def _bars_of_columns(c: Any, u: Any) -> Any:
    """Nested pads cut boxes whose rows overlap: sums in narrower loops were added twice."""

    def step(carry: Any, _: Any) -> Any:
        u, u_prev = carry
        v = 2 * u - u_prev
        v[:, 4:-4] += 0.1 * c * (u[:, 3:-5] + u[:, 5:-3] - 2 * u[:, 4:-4])
        v[3:-3, 4:-4] += 0.1 * (u[:, 4:-4] * (1.0 + np.arange(22.0)))[3:-3]
        return (v, u), v[np.array([5, 9, 11]), np.array([7, 12, 9])]

    return np.sum(bs.scan(step, (u, u), length=4)[1] ** 2)


def _bars_of_rows(c: Any, u: Any) -> Any:
    """The narrower loops have rows that the whole one does not have."""

    def step(carry: Any, _: Any) -> Any:
        u, w = carry
        v = w[1:-1] + 0.1 * c[1:-1] * (u[2:] - 2 * u[1:-1] + u[:-2])
        w = w.copy()
        w[:, 3:-3] += 0.2 * v[0, 3:-3] + 0.1 * c[:, 3:-3] * (w[:, 2:-4] - w[:, 4:-2])
        return (np.pad(v, ((1, 1), (0, 0))), w), w[2, np.array([3, 9])]

    (u, w), traces = bs.scan(step, (u, u), length=4)
    return np.sum(traces**2) + np.sum(u * w)


@pytest.mark.parametrize(
    "loss, shape", [(_bars_of_columns, (20, 22)), more(_bars_of_rows, (20, 30))]
)
def test_loops_over_parts_of_rows(
    loss: Callable[..., Any], shape: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = np.random.default_rng(0)
    args = (rng.random(shape), rng.random((20, 30)))
    compiled_gradient = bs.grad(loss, (0, 1))(*args)
    check_grads(loss, args)
    monkeypatch.setenv("BACKSWEEP_NO_JIT", "1")
    for a, b in zip(compiled_gradient, bs.grad(loss, (0, 1))(*args), strict=True):
        np.testing.assert_array_equal(a, b)


def test_one_kernel_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    """The reverse step of a wave equation stores no product for a second kernel."""
    written: list[str] = []

    def load(text: str) -> Any:
        written.append(text)
        return load_sweep(text)

    monkeypatch.setattr(compiled, "load_sweep", load)
    scale = _scale()[:, :-1]  # a shape that no other test has remembered

    def loss(scale: Any) -> Any:
        def step(carry: Any, _: Any) -> Any:
            u, u_prev = carry
            return (2 * u - u_prev + _whole_grid(scale, u), u), None

        ones = np.ones_like(scale)
        return np.sum(bs.scan(step, (ones, ones), length=4)[0][0] ** 2)

    bs.grad(loss)(scale)
    reverse = next(text for text in written if "def reverse(" in text)
    assert reverse.count("def reverse_k") == 1
