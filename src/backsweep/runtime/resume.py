"""Rows of a whole sweep, and of one that begins in the middle.

A resume point is a step, not a position in a schedule: what is left is planned anew from the
snapshots that are there, by the plan of this process, whose budget may be another one.
"""

from __future__ import annotations

from backsweep.runtime.plan import ScanPlan
from backsweep.runtime.rows import RangeRows, RowSource, StreamRows, TableRows, resumed_rows
from backsweep.runtime.snapshots import keep_only, thinned
from backsweep.schedule import TableSchedule, worth_keeping
from backsweep.storage import AbstractStore


def first_rows(plan: ScanPlan) -> RowSource:
    """Both phases."""
    schedule, choice = plan.schedule, plan.choice
    if choice.keeps_all:
        return RangeRows(schedule.n_steps)
    if isinstance(schedule, TableSchedule):
        return TableRows(schedule, choice.n_disk + 1)
    return StreamRows(schedule)


def second_rows(n: int) -> RowSource:
    """Another reverse sweep over states that are all kept."""
    return RangeRows(n).reverse_only()


def rows_from(plan: ScanPlan, store: AbstractStore | None, n: int, at: int) -> RowSource:
    """Both phases from state `at`, which is in work."""
    if plan.choice.keeps_all:
        return RangeRows(n, at)
    return _resumed(plan, store, n, at)


def rows_of_rest(plan: ScanPlan, store: AbstractStore | None, end: int) -> RowSource:
    """The reverse sweep over the steps [0, end), with no state in work."""
    if plan.choice.keeps_all:
        return RangeRows(end, end).reverse_only()
    return _resumed(plan, store, end, None)


def _resumed(plan: ScanPlan, store: AbstractStore | None, end: int, at: int | None) -> RowSource:
    n_outside = plan.choice.n_disk + 1
    found = thinned(store, end if at is None else at, plan.choice.n_disk, plan.comm)
    held = worth_keeping(plan.choice.n_slots + n_outside, found, end, at)
    keep_only(store, held)
    return resumed_rows(plan.schedule.n_steps, plan.choice.n_slots, n_outside, held, end, at)
