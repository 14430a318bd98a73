"""Steps that call collectives, run by compiled code on real ranks."""

from __future__ import annotations

from pathlib import Path

import pytest
from marks import MORE, more

RANKS = Path(__file__).with_name("ranks.py")


@pytest.mark.parametrize("ranks", [more(1), 2, more(3), more(4)])
def test_compiled_code_has_the_bits_of_python(is_right, ranks):
    is_right(RANKS, ranks, "small_gradients", is_compiled=True)


@MORE
@pytest.mark.parametrize("ranks", [1, 2, 3, 4])
def test_every_collective_in_one_step(is_right, ranks):
    is_right(RANKS, ranks, "every_collective", is_compiled=True)


@MORE
@pytest.mark.parametrize(
    ("job", "ranks"),
    [("gradients", 3), ("directions", 2), ("schedules", 2), ("reductions", 3), ("nested", 3)],
)
def test_what_python_runs_is_compiled(is_right, job, ranks):
    is_right(RANKS, ranks, job, is_compiled=True)


@MORE
@pytest.mark.parametrize("ranks", [2, 3])
def test_ranks_may_hand_on_other_cotangents(is_right, ranks):
    is_right(RANKS, ranks, "handed_on_by_some", is_compiled=True)


@MORE
@pytest.mark.parametrize("ranks", [1, 2, 3, 4])
def test_dot_products(is_right, ranks):
    is_right(RANKS, ranks, "dot_products", is_compiled=True)


@MORE
@pytest.mark.parametrize(("ranks", "first", "last"), [(1, 1, 5), (2, 11, 17), (3, 21, 27)])
def test_dot_products_of_random_steps(is_right, ranks, first, last):
    is_right(RANKS, ranks, "random_dot_products", first, last, is_compiled=True, timeout=1800)


def test_ranks_that_cannot_all_run_compiled_code_run_python(is_right):
    is_right(RANKS, 2, "not_on_one", is_compiled=True)


def test_ranks_with_other_requests_plan_together(is_right):
    is_right(RANKS, 2, "other_requests")


def test_a_collective_that_fails_in_compiled_code_ends_all_ranks(ends_all_ranks):
    job = "one_raises_compiled"
    ends_all_ranks(RANKS, job, 2, "OSError: the network is gone", is_compiled=True)


@pytest.mark.compiles
def test_ctrl_c_between_two_callbacks_is_not_lost(is_right):
    is_right(RANKS, 1, "interrupted", is_compiled=True)
