"""Footprints: what lies outside of one can be anything."""

from __future__ import annotations

import numpy as np
import pytest
from declared_examples import EXAMPLES

from backsweep.ir import ArrayType, Builder, evaluate
from backsweep.passes.footprint import footprint
from backsweep.primitives import REGISTRY

KINDS = ("elementwise", "index", "reduce", "contract", "scan")
LOCAL = sorted(n for n in EXAMPLES if REGISTRY[n].kind in KINDS)


def _index(ranges: tuple[tuple[int, int], ...]) -> tuple[slice, ...]:
    return tuple(slice(lo, hi) for lo, hi in ranges)


@pytest.mark.parametrize("name", LOCAL)
def test_values_outside_do_not_matter(name: str) -> None:
    rng = np.random.default_rng(3)
    for example in EXAMPLES[name]:
        b = Builder()
        variables = [b.input(ArrayType(a.shape, a.dtype)) for a in example.args]
        out = b(REGISTRY[name], *variables, **example.params)
        program = b.build([out], name)
        reference = np.asarray(evaluate(program, example.args)[0])
        for _ in range(4 if reference.size else 0):
            lows = [int(rng.integers(0, n)) for n in reference.shape]
            part = tuple(
                (lo, int(rng.integers(lo + 1, n + 1)))
                for lo, n in zip(lows, reference.shape, strict=True)
            )
            read = footprint(program, 0, part)
            changed = [
                _spoiled(a, r) if a.dtype.kind in "fc" else a
                for a, r in zip(example.args, read, strict=True)
            ]
            value = np.asarray(evaluate(program, changed)[0])
            np.testing.assert_array_equal(value[_index(part)], reference[_index(part)])


def _spoiled(array: np.ndarray, read: tuple[tuple[int, int], ...] | None) -> np.ndarray:
    """The array with another value wherever it should not be read."""
    other = np.full_like(array, 0.123)
    if read is not None:
        other[_index(read)] = array[_index(read)]
    return other


def test_a_stencil_reads_its_neighbours_and_no_more() -> None:
    b = Builder()
    u = b.input(ArrayType((20,), np.dtype(float)))
    take = REGISTRY["slice"]
    left = b(take, u, starts=(0,), steps=(1,), sizes=(18,))
    right = b(take, u, starts=(2,), steps=(1,), sizes=(18,))
    inner = b(REGISTRY["add"], left, right)
    out = b(REGISTRY["pad"], inner, shape=(20,), starts=(1,), steps=(1,))
    program = b.build([out])
    assert footprint(program, 0, ((5, 8),)) == [((4, 9),)]
    assert footprint(program, 0, ((0, 1),)) == [None]


def test_a_value_that_is_joined_to_itself_is_read_in_both_places() -> None:
    b = Builder()
    x = b.input(ArrayType((4,), np.dtype(float)))
    out = b(REGISTRY["concatenate"], x, x, axis=0)
    assert footprint(b.build([out]), 0, ((3, 6),)) == [((0, 4),)]
    assert footprint(b.build([out]), 0, ((5, 7),)) == [((1, 3),)]
