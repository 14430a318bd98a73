"""Programs that call collectives themselves, on real ranks."""

from __future__ import annotations

from pathlib import Path

import pytest
from marks import more

RANKS = Path(__file__).with_name("ranks.py")


@pytest.mark.parametrize("ranks", [1, 2, more(3), more(4)])
def test_dot_products_of_each_collective(is_right, ranks):
    is_right(RANKS, ranks, "products_of_each")


@pytest.mark.parametrize(
    ("ranks", "first", "last"),
    [(1, 0, 4), (2, 10, 15), (3, 20, 25), more(4, 30, 40), more(3, 100, 400), more(4, 400, 600)],
)
def test_dot_products_of_random_programs(is_right, ranks, first, last):
    is_right(RANKS, ranks, "products_of_random", first, last)


@pytest.mark.parametrize("ranks", [1, more(2), 3, more(4)])
def test_gradients_are_those_of_one_process(is_right, ranks):
    is_right(RANKS, ranks, "gradients")


@pytest.mark.parametrize("ranks", [more(1), 3])
def test_directions_and_second_derivatives(is_right, ranks):
    is_right(RANKS, ranks, "directions")


@pytest.mark.parametrize("ranks", [more(1), 2])
def test_every_schedule_has_the_same_bits(is_right, ranks):
    is_right(RANKS, ranks, "schedules")


@pytest.mark.parametrize(
    "job",
    [
        "extrema",
        "reductions",
        "noticed",
        "own_arithmetic",
        "constant_on_one",
        "ensembles",
        "nested",
        "own_steps",
    ],
)
def test_on_three_ranks(is_right, job):
    is_right(RANKS, 3, job)


@pytest.mark.parametrize(
    ("job", "ranks", "says"),
    [
        ("other_operation", 3, "the list of collectives, from number 0 on ("),
        ("one_more", 3, "the list of collectives, from number 0 on ("),
        ("none_on_one", 2, "the list of collectives, from number 0 on"),
        ("other_dtype", 2, "allreduce_sum 0 float32[3]"),
        ("other_size", 2, "allreduce_sum 0 float64[4]"),
        ("other_width", 3, "width=(2)"),
        ("in_the_step", 2, "scan of 3 steps: allreduce_max 0 float64[3]"),
        ("other_length", 2, "scan of 4 steps"),
        ("in_a_plain_scan", 2, "the list of collectives"),
        ("other_values", 3, "what is said to be replicated is not the same on all ranks: ranks 1"),
        ("other_cotangents", 2, "what is said to be replicated is not the same on all ranks"),
        ("other_arithmetic", 2, "allreduce_sum(np.sum(u), comm) * (comm.rank + 1.0)"),
        ("inactive_on_one", 2, "the list of collectives"),
        ("one_raises", 3, "OSError: the model's file is not there"),
    ],
    ids=lambda value: value if str(value).isidentifier() else "",
)
def test_what_does_not_fit_ends_all_ranks_within_seconds(ends_all_ranks, job, ranks, says):
    ends_all_ranks(RANKS, job, ranks, says)
