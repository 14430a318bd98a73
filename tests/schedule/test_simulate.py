"""The simulator accepts what is right and, rule by rule, refuses what is wrong."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from backsweep.errors import ScheduleError
from backsweep.schedule import (
    Advance,
    Binomial,
    Discard,
    Keep,
    Level,
    Load,
    Reverse,
    Store,
    Summary,
    simulate,
)

M, D = Level.MEMORY, Level.DISK


@dataclass
class Listed:
    """A schedule given by its actions."""

    n_steps: int
    n_snapshots: int
    listed: list

    def actions(self):
        return iter(self.listed)


# Three steps, two snapshots.
RIGHT = [
    Store(0, M),
    Advance(0, 1),
    Store(1, D),
    Advance(1, 3),
    Reverse(2, 3),
    Load(1, D),
    Reverse(1, 2),
    Discard(1, D),
    Load(0, M),
    Reverse(0, 1),
    Discard(0, M),
]


def test_a_right_schedule():
    assert simulate(Listed(3, 2, RIGHT)) == Summary(
        n_actions=11,
        n_advances=3,
        n_reverses=3,
        n_reverses_from_state=3,
        n_stores=2,
        n_keeps=0,
        n_loads=2,
        n_discards=2,
        n_memory_writes=1,
        n_memory_reads=1,
        n_disk_writes=1,
        n_disk_reads=1,
        peak_snapshots=2,
        peak_memory=1,
        peak_disk=1,
    )


def changed(number, *actions, drop=1):
    """The right schedule with `drop` actions from `number` on replaced."""
    return RIGHT[:number] + list(actions) + RIGHT[number + drop :]


@pytest.mark.parametrize(
    ("actions", "number", "reason"),
    [
        pytest.param(changed(1, Advance(1, 2)), 1, "starts at step 1", id="advance-from-other"),
        pytest.param(changed(1, Advance(0, 0)), 1, "ascending", id="empty-advance"),
        pytest.param(changed(3, Advance(1, 4)), 3, "step 3 or before", id="beyond-the-end"),
        pytest.param(
            changed(9, Advance(0, 1)), 9, "end at step 0 or before", id="advance-without-use"
        ),
        pytest.param(changed(2, Store(2, D)), 2, "holds state 1, not", id="store-of-other-state"),
        pytest.param(
            changed(1, Store(0, M), drop=0), 1, "already holds", id="store-of-the-same-twice"
        ),
        pytest.param(
            changed(1, Store(0, D), drop=0), 3, "all 2 snapshots allowed", id="too-many-snapshots"
        ),
        pytest.param(
            changed(4, Load(0, M), drop=0), 4, "next must be Reverse", id="load-when-loss-is-due"
        ),
        pytest.param(
            changed(4, Advance(3, 4), drop=0), 4, "next must be", id="advance-when-loss-is-due"
        ),
        pytest.param(
            changed(4, Store(3, M), drop=0), 4, "next must be", id="store-when-loss-is-due"
        ),
        pytest.param(changed(5, Load(1, M)), 5, "no such snapshot", id="load-from-other-level"),
        pytest.param(changed(5, Load(2, M)), 5, "no such snapshot", id="load-of-what-is-not-held"),
        pytest.param(changed(7, Discard(1, M)), 7, "nothing to discard", id="discard-not-held"),
        pytest.param(changed(6, drop=1), 8, "next step to be reversed", id="step-left-out"),
        pytest.param(changed(4, Reverse(1, 3)), 4, "next step to be", id="two-steps-at-once"),
        pytest.param(
            changed(7, Reverse(1, 2), drop=0), 7, "next step to be", id="step-reversed-twice"
        ),
        pytest.param(changed(5, drop=1), 5, "holds nothing", id="reverse-uses-up-the-state"),
        pytest.param(changed(6, Load(0, M), drop=0), 7, "it needs state 1", id="reverse-other"),
        pytest.param(changed(3, Advance(1, 2)), 4, "it needs state 2", id="loss-not-reached"),
        pytest.param(
            changed(2, Reverse(2, 3), drop=3), 2, "needs state 2", id="reverse-before-the-end"
        ),
    ],
)
def test_each_rule_is_noticed(actions, number, reason):
    with pytest.raises(ScheduleError, match=rf"action {number}, .*{reason}"):
        simulate(Listed(3, 2, actions))


# Three steps, two slots: the residuals of step 1 are kept.
WITH_KEEP = [
    Store(0, M),
    Advance(0, 1),
    Keep(1, D),
    Advance(2, 3),
    Reverse(2, 3),
    Reverse(1, 2),
    Discard(1, D),
    Load(0, M),
    Reverse(0, 1),
    Discard(0, M),
]


def with_keep(number, *actions, drop=1):
    return WITH_KEEP[:number] + list(actions) + WITH_KEEP[number + drop :]


def test_a_right_schedule_with_kept_residuals():
    summary = simulate(Listed(3, 2, WITH_KEEP))
    assert (summary.n_advances, summary.n_keeps, summary.n_stores) == (3, 1, 1)
    assert summary.n_reverses_from_state == 2
    assert (summary.n_disk_writes, summary.n_disk_reads, summary.peak_disk) == (1, 1, 1)


def test_the_last_step_may_be_kept():
    actions = [Keep(0, M), Reverse(0, 1), Discard(0, M)]
    assert simulate(Listed(1, 1, actions)).n_reverses_from_state == 0


@pytest.mark.parametrize(
    ("actions", "number", "reason"),
    [
        pytest.param(with_keep(2, Keep(2, D)), 2, "starts at step 2", id="keep-of-other-step"),
        pytest.param(
            with_keep(1, Keep(0, M)), 1, "already holds this step", id="state-and-residuals"
        ),
        pytest.param(with_keep(7, Load(1, M)), 7, "no such snapshot", id="residuals-are-discarded"),
        pytest.param(with_keep(5, Load(1, D)), 5, "no such snapshot", id="no-start-from-residuals"),
        pytest.param(
            with_keep(2, Advance(1, 2)), 5, "holds nothing", id="reverse-without-residuals"
        ),
        pytest.param(
            with_keep(7, Load(0, M), Keep(0, D), Keep(1, M)), 9, "to be reversed", id="late-keep"
        ),
        pytest.param(with_keep(6, drop=1), 9, "still stored", id="residuals-left"),
    ],
)
def test_each_rule_of_keeping_is_noticed(actions, number, reason):
    with pytest.raises(ScheduleError, match=rf"(action {number}, |after {number} ).*{reason}"):
        simulate(Listed(3, 2, actions))


def test_reverse_empties_the_work_buffer_even_where_it_does_not_need_it():
    actions = [
        Store(0, M),
        Keep(0, D),
        Advance(1, 2),
        Reverse(1, 2),
        Load(0, M),
        Reverse(0, 1),
        Store(0, D),
    ]
    with pytest.raises(ScheduleError, match="action 6, .*holds nothing"):
        simulate(Listed(2, 3, actions))


def test_the_state_before_the_one_in_work_may_be_stored_after_an_advance():
    right = [
        Store(0, M),
        Advance(0, 2),
        Store(1, M),
        Advance(2, 3),
        Reverse(2, 3),
        Load(1, M),
        Reverse(1, 2),
        Discard(1, M),
        Load(0, M),
        Reverse(0, 1),
        Discard(0, M),
    ]
    assert simulate(Listed(3, 2, right)).n_advances == 3
    with pytest.raises(ScheduleError, match="action 2, .*holds state 2, not"):
        simulate(Listed(3, 2, [*right[:2], Store(0, D), *right[2:]]))


@pytest.mark.parametrize(("limit", "level"), [("n_memory", "MEMORY"), ("n_disk", "DISK")])
def test_limits_of_a_level(limit, level):
    schedule = Listed(3, 2, RIGHT)
    setattr(schedule, limit, 0)
    with pytest.raises(ScheduleError, match=f"all 0 slots in {level}"):
        simulate(schedule)


def test_reverse_of_the_last_step_needs_the_final_state():
    # Work holds state n - 1 and "previous" n - 2: the loss was never reached.
    actions = [Store(0, M), Advance(0, 2), Reverse(2, 3)]
    with pytest.raises(ScheduleError, match="action 2"):
        simulate(Listed(3, 1, actions))


def test_steps_left_at_the_end():
    with pytest.raises(ScheduleError, match=r"after 8 actions with the steps \[0, 1\)"):
        simulate(Listed(3, 2, RIGHT[:8]))


def test_snapshots_left_at_the_end():
    with pytest.raises(ScheduleError, match=r"snapshots of the steps \[0\] still stored"):
        simulate(Listed(3, 2, RIGHT[:-1]))


def test_every_dropped_action_is_noticed():
    actions = list(Binomial(40, 4).actions())
    for i in range(len(actions)):
        with pytest.raises(ScheduleError):
            simulate(Listed(40, 4, actions[:i] + actions[i + 1 :]))


def test_no_steps():
    assert simulate(Listed(0, 1, [])).n_actions == 0
    with pytest.raises(ScheduleError, match="action 0"):
        simulate(Listed(0, 1, [Store(0, M)]))
