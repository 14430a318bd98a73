"""Two levels: the binomial schedule, with its coldest snapshots on disk."""

from __future__ import annotations

import numpy as np
import pytest

from backsweep.errors import ScheduleError
from backsweep.schedule import (
    LOAD,
    STORE,
    Binomial,
    Level,
    Multistage,
    extra_advances,
    from_checkpoint_schedules,
    simulate,
)


def test_executed_counts_equal_the_closed_form(pairs):
    for n, s in pairs:
        n_disk = (7 * n) % (s + 1)
        schedule = Multistage(n, s - n_disk, n_disk)
        summary = simulate(schedule)
        assert summary.n_advances == schedule.n_advances == (extra_advances(n, s) + 1) * (n > 0)
        assert summary.peak_disk <= schedule.n_disk <= n_disk
        assert summary.peak_memory <= s - n_disk


def test_the_actions_are_those_of_one_level():
    two = [type(action).__name__ for action in Multistage(100, 3, 4).actions()]
    assert two == [type(action).__name__ for action in Binomial(100, 7).actions()]


def test_the_bottom_of_the_stack_is_on_disk():
    schedule = Multistage(1000, 5, 15)
    assert [schedule.level_of(slot) for slot in (0, 14, 15, 19)] == [
        Level.DISK,
        Level.DISK,
        Level.MEMORY,
        Level.MEMORY,
    ]


def test_disk_is_left_alone_where_memory_is_enough():
    assert Multistage(10, 9, 5).n_disk == 0
    assert Multistage(10, 7, 5).n_disk == 2
    assert Multistage(0, 0, 5).n_disk == 1
    assert simulate(Multistage(10, 0, 5)).peak_memory == 0


def transfers(n, s):
    """Writes and reads of each slot."""
    schedule = Binomial(n, s)
    stack, head = schedule.start()
    table, count = np.empty((4096, 4), np.int64), np.zeros(s, np.int64)
    while n_rows := schedule.fill(stack, head, table):
        rows = table[:n_rows]
        moved = rows[(rows[:, 0] == STORE) | (rows[:, 0] == LOAD)]
        count += np.bincount(moved[:, 3], minlength=s)
    return count


# Bounds of the docstring: steps per snapshot from, to, and how much more than the best choice.
RANGES = [(1, 2, 0), (2, 3, 0.65), (3, 4, 0.39), (4, 6, 0.27), (6, 10, 0.17), (10, 20, 0.07)]


def test_how_far_the_slots_on_disk_are_from_the_best():
    for n in [*range(5, 201, 13), 333, 500, 1000, 3000]:
        for s in [*range(2, 31, 4), 50, 80]:
            if s > n - 1:
                continue
            count = transfers(n, s)
            ours, best = np.cumsum(count)[:-1], np.cumsum(np.sort(count))[:-1]
            bound = next((more for a, b, more in RANGES if a <= n / s < b), 0.02)
            assert np.all(ours <= (1 + bound) * best), (n, s)
            assert np.all(ours - best <= 0.4 * n), (n, s)


@pytest.mark.parametrize(
    ("n", "n_memory", "n_disk"), [(100, 3, 5), (1000, 10, 10), (1000, 5, 15), (300, 5, 5)]
)
def test_no_more_transfers_than_the_peer(n, n_memory, n_disk):
    cs = pytest.importorskip("checkpoint_schedules")
    peer = cs.MultistageCheckpointSchedule(n, n_memory, n_disk)
    theirs = from_checkpoint_schedules(peer, n).summary
    ours = simulate(Multistage(n, n_memory, n_disk))
    assert ours.n_advances == theirs.n_advances
    assert ours.n_disk_writes + ours.n_disk_reads <= theirs.n_disk_writes + theirs.n_disk_reads


def test_a_short_run_where_the_peer_needs_fewer_transfers():
    # The price of the simple rule: 8 against 6.
    summary = simulate(Multistage(10, 2, 2))
    assert summary.n_disk_writes + summary.n_disk_reads == 8


def test_requests_that_cannot_be_met():
    with pytest.raises(ScheduleError, match="must not be negative"):
        Multistage(10, -1, 3)
    with pytest.raises(ScheduleError, match="at least 1"):
        Multistage(10, 0, 0)
