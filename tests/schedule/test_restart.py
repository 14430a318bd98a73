"""A schedule that begins in the middle: executed from what is held."""

from __future__ import annotations

import random

import numpy as np
import pytest

from backsweep.errors import ScheduleError
from backsweep.schedule import (
    Advance,
    Binomial,
    Discard,
    Level,
    Load,
    Reverse,
    Store,
    decode,
    extra_advances,
    fill,
    resume_state,
    simulate,
    worth_keeping,
)

M = Level.MEMORY


def resumed(n, s, held, end, at=None, n_rows_per_fill=5):
    """The actions from the middle on; slots are checked against the stack."""
    stack, head = resume_state(n, s, held, end, at)
    table, slots = np.empty((n_rows_per_fill, 4), np.int64), dict(enumerate(held))
    while n_rows := fill(stack, head, table):
        for row in table[:n_rows].tolist():
            action = decode(row)
            if isinstance(action, Store):
                assert row[3] not in slots
                assert row[3] < max(s, len(held))
                slots[row[3]] = row[1]
            elif row[3] >= 0:
                assert slots[row[3]] == row[1]
                if isinstance(action, Discard):
                    del slots[row[3]]
            yield action


class Restarted:
    """A whole stream for `simulate`: first what led to the middle, by the plainest way."""

    def __init__(self, n, s, held, end, at=None):
        self.n_steps, self.n_snapshots = n, max(s, len(held) + (end < n))
        self.case = n, s, held, end, at

    def actions(self):
        n, s, held, end, at = self.case
        places = [*held[1:], n if at is None else at]
        for a, b in zip(held, places, strict=True):
            yield Store(a, M)
            if b > a:
                yield Advance(a, b)
        if at is None:
            yield from self.backwards(n, end, held)
        yield from resumed(n, s, held, end, at)

    def backwards(self, n, end, held):
        for step in range(n - 1, end - 1, -1):
            if step < n - 1:
                yield Load(held[-1], M)
                if step > held[-1]:
                    yield Advance(held[-1], step)
            yield Reverse(step, step + 1)


def draw_case(draw):
    n = draw.randint(2, 80)
    end = draw.randint(1, n - 1)
    held = [0, *sorted(draw.sample(range(1, end + 1), min(end, draw.choice([0, 1, 2, 5, 20]))))]
    return n, len(held) + draw.choice([0, 0, 1, 2, 5]), held, end


def test_from_any_snapshots_in_the_reverse_phase():
    draw = random.Random(0)
    for _ in range(1500):
        n, s, held, end = draw_case(draw)
        ends = [*held[1:], end]
        before = n + sum(step - held[-1] for step in range(end, n - 1))
        expected = sum(
            extra_advances(b - a, s - i) for i, (a, b) in enumerate(zip(held, ends, strict=True))
        )
        summary = simulate(Restarted(n, s, held, end))
        assert summary.n_advances == before + expected, (n, s, held, end)
        assert summary.n_reverses == n


def test_from_any_snapshots_in_the_forward_phase():
    draw = random.Random(1)
    for _ in range(1500):
        n, s, held, at = draw_case(draw)
        at = max(at, held[-1])
        lengths = [b - a for a, b in zip(held, [*held[1:], at], strict=True)]
        expected = at + sum(extra_advances(length, s - i) for i, length in enumerate(lengths[:-1]))
        low, free = held[-1], s - len(held) + 1
        whole = extra_advances(n - low, free) + 1
        if free == 1 and at > low:
            rest = n - at + extra_advances(n - 1 - low, 1)
        elif at < low + split(n - low, free):
            rest = whole - (at - low)
        else:
            rest = extra_advances(at - low, free) + extra_advances(n - at, free - 1) + 1
            assert rest <= whole, "no worse than from the last snapshot on"
        assert simulate(Restarted(n, s, held, n, at)).n_advances == expected + rest, (n, s, held)


def split(n, s):
    """How far the schedule goes before it stores for the second time."""
    return next(a.stop for a in Binomial(n, s).actions() if isinstance(a, Advance))


def test_a_state_that_was_saved_is_never_worse_than_starting_over():
    for n, s in [(150, 2), (150, 3), (100, 7), (41, 40)]:
        for at in range(1, n):
            assert n_advances(n, s, [0], n, at) <= extra_advances(n, s) + 1, (n, s, at)


def test_snapshots_that_are_not_worth_keeping():
    draw = random.Random(2)
    n_given_up = 0
    for _ in range(1500):
        n, s, held, end = draw_case(draw)
        at = draw.choice([None, draw.randint(held[-1], n - 1)])
        last = n if at is not None else end
        costs = [n_advances(n, s, held[: k + 1], last, at) for k in range(len(held))]
        kept = worth_keeping(s, held, last, at)
        assert kept == held[: len(kept)]
        assert costs[len(kept) - 1] == min(costs), (n, s, held, last, at)
        assert min(costs) <= extra_advances(last, s) + (at is not None)
        n_given_up += len(kept) < len(held)
    assert n_given_up > 100


def n_advances(n, s, held, end, at):
    """Advances of the rest."""
    actions = resumed(n, s, held, end, at)
    return sum(a.stop - a.start for a in actions if isinstance(a, Advance))


def test_from_the_start_it_is_the_whole_schedule():
    for n, s in [(1, 1), (2, 1), (30, 4), (100, 7)]:
        assert list(resumed(n, s, [], n, at=0)) == list(Binomial(n, s).actions())


def test_from_a_state_of_the_schedule_itself_it_goes_on_as_it_would_have():
    actions = list(Binomial(100, 7).actions())
    held = []
    for i, action in enumerate(actions):
        match action:
            case Store(step, _):
                held.append(step)
            case Advance(_, 100):
                rest = actions[i + 2 :]
                break
    assert list(resumed(100, 7, held, 99)) == rest


def test_nothing_left():
    assert list(resumed(5, 2, [], 0)) == []
    assert len(list(resumed(5, 2, [0], 0))) == 1


@pytest.mark.parametrize(
    ("case", "reason"),
    [
        ((10, 3, [0, 4, 4], 8), "must ascend"),
        ((10, 3, [1, 4], 8), "begin with the initial state"),
        ((10, 2, [0, 4, 6], 8), "3 snapshots are held, but n_snapshots = 2"),
        ((10, 3, [0, 9], 8), "no snapshot behind the end"),
        ((10, 3, [], 8), "the initial state is needed"),
        ((10, 3, [0], 11), "of 10"),
        ((10, 3, [0], 8, 4), "end must be n_steps = 10"),
        ((10, 3, [0], 10, 10), "at lie before it"),
        ((10, 3, [0, 5], 10, 4), "at = 4 must not lie before"),
        ((10, 3, [], 10, 4), "at = 4 must not lie before"),
        ((10, 0, [], 10, 0), "at least 1"),
    ],
)
def test_requests_that_contradict_themselves(case, reason):
    with pytest.raises(ScheduleError, match=reason):
        resume_state(*case)
