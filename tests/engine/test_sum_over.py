"""`sum_over`: values and gradients along a fixed binary tree, in little memory."""

from __future__ import annotations

import gc
import tracemalloc
import weakref
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

import backsweep as bs
from backsweep.api.tracer import trace_function
from backsweep.api.tree import flatten
from backsweep.ir import ArrayType
from backsweep.primitives import control as c
from backsweep.primitives.control import tree_sum

COUNTS = range(1, 10)


def _tree(terms: list[Any]) -> Any:
    """The definition: halves at the largest power of two below the number of terms."""
    n = len(terms)
    if n == 1:
        return terms[0]
    middle = 1 << (n - 1).bit_length() - 1
    return _tree(terms[:middle]) + _tree(terms[middle:])


def _uneven(n: int, shape: tuple[int, ...] = (50,)) -> np.ndarray:
    """Terms of very different size: another order gives other bits."""
    rng = np.random.default_rng(n)
    return rng.standard_normal((n, *shape)) * 10.0 ** rng.uniform(-8, 8, (n, *shape))


@pytest.mark.parametrize("n", COUNTS)
def test_the_tree(n: int) -> None:
    terms = _uneven(n)
    (found,) = tree_sum((t,) for t in terms)
    np.testing.assert_array_equal(found, _tree(list(terms)))
    if n > 4:  # and the test would notice
        assert not np.array_equal(found, sum(terms))


@pytest.mark.parametrize("n", COUNTS)
def test_value_and_gradient_follow_the_tree(n: int) -> None:
    weights = _uneven(n)
    x = np.linspace(0.5, 1.5, 50)

    def item(x: Any, k: int) -> Any:
        return np.sum(weights[k] * np.sin(x) * x)

    value, gradient = bs.value_and_grad(lambda x: bs.sum_over(range(n), lambda k: item(x, k)))(x)
    singles = [bs.value_and_grad(lambda x, k=k: item(x, k))(x) for k in range(n)]
    assert value == _tree([v for v, _ in singles])
    np.testing.assert_array_equal(gradient, _tree([g for _, g in singles]))
    dot = np.cos(x)
    tangents = [bs.jvp(lambda x, k=k: item(x, k), (x,), (dot,))[1] for k in range(n)]
    _, found = bs.jvp(lambda x: bs.sum_over(range(n), lambda k: item(x, k)), (x,), (dot,))
    assert found == _tree(tangents)


def test_few_partial_sums_are_alive() -> None:
    alive: list[weakref.ref[np.ndarray]] = []
    most = 0

    def terms(n: int) -> Iterator[tuple[np.ndarray]]:
        nonlocal most
        for k in range(n):
            term = np.full(3, float(k))
            alive.append(weakref.ref(term))
            yield (term,)
            del term
            most = max(most, sum(ref() is not None for ref in alive))

    (total,) = tree_sum(terms(64))
    assert total[0] == 64 * 63 / 2
    assert most <= 2  # the sums themselves are new arrays


def _peak(n: int) -> int:
    x = np.linspace(0, 1, 250_000)
    gradient = bs.grad(lambda x: bs.sum_over(range(n), lambda k: np.sum(x**2 * (k + 0.5))))
    gc.collect()
    tracemalloc.start()
    try:
        gradient(x)
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_memory_does_not_grow_with_the_items() -> None:
    few, many = _peak(4), _peak(32)
    gradients = (many - few) / 2e6
    assert gradients < 3 + 0.5  # log2(32) - log2(4) partial sums of 2 MB more, not 28


def _inputs_of_sum(function: Any, x: np.ndarray) -> list[str]:
    _, tree = flatten((x,))
    program = trace_function(function, [ArrayType(x.shape, x.dtype)], tree).program
    (eqn,) = (e for e in program.equations if e.primitive is c.sum_of)
    return [str(a.type) for a in eqn.inputs]


@pytest.mark.parametrize("view", ["slice", "row", "transposed", "of a slice"])
def test_views_of_a_traced_array_share_its_gradient(view: str) -> None:
    """A slice that an item takes is no input of the sum: it would have a gradient per item."""
    x = np.linspace(-1, 2, 60).reshape(10, 6)
    take = {
        "slice": lambda x, k: x[k : k + 3],
        "row": lambda x, k: x[k],
        "transposed": lambda x, k: x.T[2:, k : k + 2],
        "of a slice": lambda x, k: x[1:][k, ::2],
    }[view]

    def total(x: Any) -> Any:
        return bs.sum_over(range(7), lambda k: np.sum(take(x, k) ** 3) * (k + 1))

    assert _inputs_of_sum(total, x) == ["f64[10,6]"]
    expected = np.zeros_like(x)
    for k in range(7):
        one = take(expected, k)
        one += 3 * (k + 1) * take(x, k) ** 2
    np.testing.assert_allclose(bs.grad(total)(x), expected, rtol=1e-13)


def test_a_view_that_all_items_read_stays_outside() -> None:
    x = np.linspace(-1, 2, 60)

    def total(x: Any) -> Any:
        window = x[10:20].copy()
        return bs.sum_over(range(3), lambda k: np.sum(window**2) * (k + 1))

    assert _inputs_of_sum(total, x) == ["f64[10]"]
    expected = np.where((np.arange(60) >= 10) & (np.arange(60) < 20), 12 * x, 0)
    np.testing.assert_allclose(bs.grad(total)(x), expected, rtol=1e-13)
