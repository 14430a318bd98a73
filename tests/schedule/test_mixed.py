"""Mixed schedules: counts of the literature, and every schedule executed."""

from __future__ import annotations

import functools

import pytest

from backsweep.errors import ScheduleError
from backsweep.schedule import (
    Advance,
    Binomial,
    Keep,
    Level,
    Mixed,
    Reverse,
    mixed_forward_steps,
    simulate,
)
from backsweep.schedule.mixed import MAX_MIXED_STEPS, mixed_table


def test_counts_equal_every_row_of_the_oracle(oracle):
    rows = [row for row in oracle if "mixed_total_forward_steps" in row]
    assert len(rows) > 10_000
    table = mixed_table(200, 60)
    for i, row in enumerate(rows):
        n, s = row["n"], row["s"]
        by_hand = n <= s + 1 or s == 1
        steps = mixed_forward_steps(n, s) if by_hand or i % 50 == 0 else table[s][n]
        assert steps == row["mixed_total_forward_steps"], (n, s)


def test_counts_equal_the_dynamic_programme():
    @functools.cache
    def m(n, s):
        if n <= s + 1:
            return n
        if s == 1:
            return n * (n + 1) // 2 - 1
        return min(1 + m(n - 1, s - 1), *(i + m(i, s) + m(n - i, s - 1) for i in range(2, n)))

    for s in range(1, 9):
        for n in range(90, 0, -1):
            assert mixed_forward_steps(n, s) == m(n, s), (n, s)


@pytest.mark.parametrize(("s", "ratio"), [(5, 6.828), (10, 3.921), (20, 2.823), (80, 1.932)])
def test_published_counts(s, ratio):
    assert mixed_forward_steps(1000, s) == round(1000 * ratio)


def test_executed_counts_equal_the_optimum(pairs):
    for n, s in sorted(pairs, key=lambda pair: (pair[1], pair[0]), reverse=True):
        schedule = Mixed(n, s)
        summary = simulate(schedule)
        total = summary.n_advances + summary.n_reverses_from_state
        last_is_kept = summary.n_reverses_from_state == 0
        if n:
            assert total == mixed_forward_steps(n, s) + (not last_is_kept), (n, s)
        assert last_is_kept == (n <= s), (n, s)
        assert summary.peak_snapshots <= s
        assert schedule.n_advances == summary.n_advances


def test_no_fewer_advances_than_binomial():
    # Where a state stands for residuals, the binomial schedule is the better one.
    for n, s in [(10, 3), (100, 5), (100, 10), (1000, 20)]:
        assert Mixed(n, s).n_advances >= Binomial(n, s).n_advances


def test_enough_slots_keep_all_steps():
    m = Level.MEMORY
    actions = list(Mixed(3, 3).actions())
    assert actions[:3] == [Keep(0, m), Keep(1, m), Keep(2, m)]
    assert list(Mixed(3, 2).actions())[:4] == [Keep(0, m), Keep(1, m), Advance(2, 3), Reverse(2, 3)]


def test_requests_that_cannot_be_met():
    with pytest.raises(ScheduleError, match="at least 1"):
        Mixed(10, 0)
    with pytest.raises(ScheduleError, match="n_steps = -1"):
        Mixed(-1, 1)
    with pytest.raises(ScheduleError, match="takes too long to find.*use Binomial"):
        Mixed(MAX_MIXED_STEPS + 1, 2)
    assert simulate(Mixed(MAX_MIXED_STEPS + 1, MAX_MIXED_STEPS)).n_advances == MAX_MIXED_STEPS + 1
