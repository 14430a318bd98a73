"""A program on blocks has the bits of the same program in one process.

The ranks of one job do many programs, one after the other, in the reference interpreter: what is
tested is the cut, not compilation. A few are compiled besides.
"""

from __future__ import annotations

from pathlib import Path

import pytest
from marks import MORE, more

RANKS = Path(__file__).with_name("ranks.py")


@pytest.mark.slow
@pytest.mark.parametrize("ranks", [2, more(4)])
def test_programs(is_right, ranks):
    is_right(RANKS, ranks, "programs")


@pytest.mark.slow
@pytest.mark.parametrize("ranks", [3, more(5), more(7), more(8)])
def test_programs_on_one_cut_each(is_right, ranks):
    is_right(RANKS, ranks, "programs_in_turn")


@MORE
@pytest.mark.parametrize("ranks", [3, 5, 7, 8])
def test_programs_on_all_cuts(is_right, ranks):
    is_right(RANKS, ranks, "programs")


@pytest.mark.slow
@pytest.mark.parametrize(("ranks", "first", "last"), [more(2, 0, 12), (3, 12, 24), more(8, 24, 30)])
def test_random_programs(is_right, ranks, first, last):
    is_right(RANKS, ranks, "random_programs", first, last)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("ranks", "first", "last"), [more(3, 0, 4), more(2, 4, 30), more(8, 30, 40)]
)
def test_random_loops(is_right, ranks, first, last):
    is_right(RANKS, ranks, "random_loops", first, last)


@MORE
@pytest.mark.parametrize("first", range(100, 500, 50))
@pytest.mark.parametrize("ranks", [2, 3, 4, 5, 8])
def test_many_random_programs(is_right, ranks, first):
    is_right(RANKS, ranks, "random_programs", first, first + 50, timeout=3000)


@pytest.mark.compiles
@MORE
def test_compiled_programs(is_right):
    is_right(RANKS, 2, "schedules", is_compiled=True)


@MORE
@pytest.mark.parametrize("name", ["staggered", "padded_state", "between_cells", "periodic"])
def test_more_compiled_programs(is_right, name):
    is_right(RANKS, 4, "programs", name, timeout=1200, is_compiled=True)


@pytest.mark.compiles
@MORE
@pytest.mark.parametrize("name", ["implicit", "substeps", "reactions"])
def test_compiled_loops(is_right, name):
    is_right(RANKS, 2, "programs", name, timeout=1800, is_compiled=True)


@pytest.mark.compiles
@MORE
def test_a_compiled_loop_while_messages_travel(is_right):
    is_right(RANKS, 2, "on_a_wide_grid", "between_stencils", timeout=1200, is_compiled=True)
