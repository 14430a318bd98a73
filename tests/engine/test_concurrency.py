"""Several Python threads and forked processes may take gradients at the same time."""

from __future__ import annotations

import multiprocessing
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest

import backsweep as bs
from backsweep.runtime import compiled


def _loss(u: Any) -> Any:
    def step(c: Any, _: Any) -> Any:
        c = c.copy()
        c[1:-1] += 0.1 * (c[2:] - 2 * c[1:-1] + c[:-2])
        return c, None

    return np.sum(bs.scan(step, u, length=300)[0] ** 2)


def _gradient(_: int = 0) -> np.ndarray:
    u: np.ndarray = bs.grad(_loss)(np.sin(np.arange(5000.0)))
    return u


@pytest.fixture
def three_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BACKSWEEP_NUM_THREADS", "3")
    monkeypatch.setattr(compiled, "MIN_WORK_FOR_THREADS", 0)


def test_gradients_from_several_python_threads(three_threads: None) -> None:
    expected = _gradient()
    with ThreadPoolExecutor(4) as pool:
        results = [pool.submit(_gradient) for _ in range(12)]
        for future in results:
            np.testing.assert_array_equal(future.result(timeout=60), expected)


def test_gradient_in_a_forked_child(three_threads: None) -> None:
    expected = _gradient()
    with multiprocessing.get_context("fork").Pool(1) as pool:
        result = pool.apply_async(_gradient, (0,)).get(timeout=60)
    np.testing.assert_array_equal(result, expected)
