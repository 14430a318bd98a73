"""An unknown number of steps: every end of the loop is tried."""

from __future__ import annotations

from itertools import islice

import pytest

from backsweep.errors import ScheduleError
from backsweep.schedule import (
    Advance,
    Discard,
    Online,
    OnlineRun,
    Store,
    beta,
    extra_advances,
    simulate,
)


def excess(s, longest):
    """Advances beyond the optimum, relative, for all n up to the longest, in one forward run."""
    result, held = {}, []
    for action in Online(s).forward():
        match action:
            case Store(step, _):
                held.append(step)
            case Discard(step, _):
                held.remove(step)
            case Advance(start, stop):
                for n in range(start + 1, min(stop, longest) + 1):
                    ends = [*held[1:], n - 1]
                    pieces = zip(held, ends, strict=True)
                    again = sum(extra_advances(b - a, s - i) for i, (a, b) in enumerate(pieces))
                    result[n] = (n + again) / (extra_advances(n, s) + 1) - 1
                if stop >= longest:
                    return result


@pytest.mark.parametrize("s", [*range(1, 26), 50])
def test_as_good_as_if_the_number_of_steps_were_known(s):
    longest = (s + 1) * (s + 2) // 2
    assert longest == beta(s, 2)
    assert set(excess(s, longest).values()) == {0}


@pytest.mark.parametrize(
    ("s", "mean", "most"), [(5, 0.0119, 0.0489), (20, 0.0002, 0.0023), (50, 0.00003, 0.0004)]
)
def test_not_much_worse_beyond(s, mean, most):
    found = excess(s, 10_000).values()
    assert sum(found) / len(found) <= mean
    assert max(found) <= most


def test_every_run_keeps_the_rules(pairs):
    for n, s in pairs:
        schedule = OnlineRun(n, s)
        summary = simulate(schedule)
        assert summary.n_advances == schedule.n_advances
        assert summary.n_reverses == n
        if n <= beta(s, 2):
            assert summary.n_advances == (extra_advances(n, s) + 1) * (n > 0), (n, s)


def test_a_loop_that_drives_it():
    online, n, held, work = Online(3), 17, [], 0
    actions = online.forward()
    while work < n:  # the condition, evaluated at the state in the work buffer
        match next(actions):
            case Store(step, _):
                assert step in (work, work - 1)
                held.append(step)
            case Discard(step, _):
                held.remove(step)
            case Advance(start, stop):
                assert start == work
                work = min(stop, n)
        assert len(held) <= 3
    rest = list(online.reverse(n, held))
    assert list(OnlineRun(n, online.n_snapshots).actions())[-len(rest) :] == rest


def test_one_snapshot_is_never_replaced():
    assert len(list(islice(Online(1).forward(), 2))) == 2
    assert simulate(OnlineRun(50, 1)).n_stores == 1


def test_many_slots_store_every_state_but_the_last_two():
    assert simulate(OnlineRun(20, 30)).n_stores == 19
    assert simulate(OnlineRun(20, 30)).n_advances == 20


def test_no_steps():
    assert list(Online(3).reverse(0, [])) == []
    assert simulate(OnlineRun(0, 3)).n_actions == 0
    assert OnlineRun(0, 3).n_advances == 0


def test_requests_that_cannot_be_met():
    with pytest.raises(ScheduleError, match="at least 1"):
        Online(0)
    with pytest.raises(ScheduleError, match="no snapshot behind the end"):
        list(Online(3).reverse(5, [0, 6]))
