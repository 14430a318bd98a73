"""A program on blocks has the bits of the same program in one process.

The ranks of one job do many programs, one after the other, in the reference interpreter: what is
tested is the cut, not compilation. A few are compiled besides.
"""

from __future__ import annotations

from pathlib import Path

import pytest

RANKS = Path(__file__).with_name("ranks.py")
MORE = pytest.mark.slow_all
"""For `make test-all`: the ordinary suite has 25 minutes on two cores."""


def more(*values):
    return pytest.param(*values, marks=MORE)


def assert_right(run_program, ranks, *args, timeout=600, no_jit="1"):
    done = run_program(RANKS, *args, ranks=ranks, timeout=timeout, BACKSWEEP_NO_JIT=no_jit)
    assert (done.code, done.out.strip()) == (0, f"right {ranks}"), done.out + done.err


@pytest.mark.slow
@pytest.mark.parametrize("ranks", [more(1), 2, more(4)])
def test_programs(run_program, ranks):
    assert_right(run_program, ranks, "programs")


@pytest.mark.slow
@pytest.mark.parametrize("ranks", [3, more(5), more(7), more(8)])
def test_programs_on_one_cut_each(run_program, ranks):
    assert_right(run_program, ranks, "programs_in_turn")


@pytest.mark.slow_all
@pytest.mark.parametrize("ranks", [3, 5, 7, 8])
def test_programs_on_all_cuts(run_program, ranks):
    assert_right(run_program, ranks, "programs")


@pytest.mark.slow
@pytest.mark.parametrize(("ranks", "first", "last"), [more(2, 0, 12), (3, 12, 24), more(8, 24, 30)])
def test_random_programs(run_program, ranks, first, last):
    assert_right(run_program, ranks, "random_programs", first, last)


@pytest.mark.slow_all
@pytest.mark.parametrize("first", range(100, 500, 50))
@pytest.mark.parametrize("ranks", [2, 3, 4, 5, 8])
def test_many_random_programs(run_program, ranks, first):
    assert_right(run_program, ranks, "random_programs", first, first + 50, timeout=3000)


@pytest.mark.compiles
@pytest.mark.slow_all
def test_compiled_programs(run_program):
    assert_right(run_program, 2, "schedules", no_jit="0")


@pytest.mark.slow_all
@pytest.mark.parametrize("name", ["staggered", "padded_state", "between_cells", "periodic"])
def test_more_compiled_programs(run_program, name):
    assert_right(run_program, 4, "programs", name, timeout=1200, no_jit="0")
