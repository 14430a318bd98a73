"""Memory that one sweep leaves for the next never shows in a result."""

from __future__ import annotations

import threading
from typing import Any

import numpy as np
import simulations

import backsweep as bs
from backsweep.runtime.arrays import KEPT_BYTES, MAX_PASSED, spare_bytes, work_array


def _all_equal(a: Any, b: Any) -> None:
    for x, y in zip(a, b, strict=True):
        np.testing.assert_array_equal(x, y)


def test_results_do_not_change_when_others_are_computed() -> None:
    problem = simulations.acoustic()
    loss = problem.make_loss(None)
    both = bs.value_and_grad(loss, (0, 1))
    kept, copies = [], []
    for k in range(4):
        args = (problem.args[0] * np.float32(1 + 0.1 * k), problem.args[1])
        kept.append(both(*args)[1])
        copies.append([np.array(g) for g in kept[-1]])
    for gradient, copy in zip(kept, copies, strict=True):
        _all_equal(gradient, copy)


def test_a_pullback_outlives_other_gradients() -> None:
    problem = simulations.burgers()
    loss = problem.make_loss(None)
    _, pullback = bs.vjp(loss, *problem.args)
    first = [np.array(g) for g in pullback(1.0)]
    for _ in range(3):
        bs.grad(loss)(problem.args[0] * 0.5, problem.args[1])
    _all_equal(pullback(1.0), first)


def test_release_gives_everything_back() -> None:
    problem = simulations.burgers()
    expected = problem.value_and_grad()[1]
    assert bs.release_memory() > 0
    assert spare_bytes() == 0
    assert bs.release_memory() == 0
    _all_equal(problem.value_and_grad()[1], expected)


def test_a_block_is_used_again_and_zeroed() -> None:
    bs.release_memory()
    first = work_array(100_000, np.float64)
    first[:] = 7
    address = first.ctypes.data
    tail = first[50_000:]
    del first
    other = work_array(100_000, np.float64)
    assert other.ctypes.data != address  # a view still lives
    del tail
    small = work_array(90_000, np.float32, zeroed=False)
    assert small.ctypes.data != address  # not even half of the block
    again = work_array(90_000, np.float64)
    assert again.ctypes.data == address
    assert not again.any()


def test_what_waits_is_bounded() -> None:
    """By what was in use at once, with what is in use now."""
    bs.release_memory()
    blocks = [work_array(KEPT_BYTES, np.uint8, zeroed=False) for _ in range(4)]
    blocks.clear()
    assert spare_bytes() == 4 * KEPT_BYTES
    larger = work_array(3 * KEPT_BYTES, np.uint8, zeroed=False)
    assert spare_bytes() <= 2 * KEPT_BYTES
    del larger
    bs.release_memory()


def test_what_waits_in_vain_is_given_back() -> None:
    bs.release_memory()
    large = work_array(KEPT_BYTES, np.uint8, zeroed=False)
    del large
    kept = [work_array(100, np.uint8) for _ in range(MAX_PASSED)]
    assert spare_bytes() == KEPT_BYTES
    kept.append(work_array(100, np.uint8))
    assert spare_bytes() == 0


def test_threads_never_share_a_block() -> None:
    clashes: list[int] = []

    def work(number: int) -> None:
        for _ in range(300):
            array = work_array(20_000, np.int64)
            if array.any():
                clashes.append(number)
            array[:] = number
            if (array != number).any():
                clashes.append(number)

    threads = [threading.Thread(target=work, args=(k,)) for k in range(1, 5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not clashes
