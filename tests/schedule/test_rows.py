"""Action tables of any stream: executed against the meaning of rows."""

from __future__ import annotations

from itertools import islice

import numpy as np
import pytest

from backsweep.errors import ScheduleError
from backsweep.schedule import (
    ADVANCE,
    DISCARD,
    DISK_SLOT,
    LOAD,
    REVERSE,
    STORE,
    Binomial,
    Discard,
    Keep,
    Level,
    Load,
    Mixed,
    Multistage,
    OnlineRun,
    RowWriter,
    Store,
    from_checkpoint_schedules,
    simulate,
    to_rows,
)


def execute(tables, n, n_memory):
    """A driver that knows rows alone, and states by their step: counts of advances, reverses."""
    memory, disk = [None] * n_memory, set()
    work, previous, end, n_advances = 0, None, n, 0
    for kind, start, stop, slot in np.concatenate(tables).tolist():
        if kind == ADVANCE:
            assert work == start < stop
            work, previous = stop, stop - 1
            n_advances += stop - start
        elif kind == STORE:
            assert stop == work
            assert start in (work, previous)
            if slot == DISK_SLOT:
                disk.add(start)
            else:
                assert memory[slot] is None
                memory[slot] = start
        elif kind == LOAD:
            assert start in disk if slot == DISK_SLOT else memory[slot] == start
            work, previous = start, None
        elif kind == DISCARD:
            if slot == DISK_SLOT:
                disk.remove(start)
            else:
                assert memory[slot] == start
                memory[slot] = None
        else:
            assert kind == REVERSE
            assert stop == end == start + 1
            assert start == (previous if end == n else work)
            end, work, previous = start, None, None
    assert end == 0
    assert not disk
    assert memory == [None] * n_memory
    return n_advances


SCHEDULES = [
    Binomial(60, 4),
    Multistage(60, 2, 3),
    Mixed(60, 4),
    Mixed(5, 9),
    Mixed(1, 1),
    OnlineRun(60, 4),
]


@pytest.mark.parametrize("schedule", SCHEDULES, ids=repr)
@pytest.mark.parametrize("n_rows", [1, 7, 4096])
def test_rows_do_what_the_actions_say(schedule, n_rows):
    n = schedule.n_steps
    tables = list(to_rows(schedule.actions(), n, schedule.n_memory, n_rows))
    assert execute(tables, n, schedule.n_memory) == simulate(schedule).n_advances
    assert all(len(table) <= n_rows for table in tables)
    ends = [i for i, table in enumerate(tables) if table[-1, 0] == ADVANCE and table[-1, 2] == n]
    assert len(ends) == 1
    assert not any(REVERSE in table[:, 0] for table in tables[: ends[0] + 1])


@pytest.mark.parametrize("name", ["HRevolve", "SingleDiskStorageSchedule"])
def test_rows_of_a_foreign_schedule(name):
    cs = pytest.importorskip("checkpoint_schedules")
    schedule = cs.HRevolve(50, 3, 4) if name == "HRevolve" else cs.SingleDiskStorageSchedule()
    adapted = from_checkpoint_schedules(schedule, 50)
    tables = list(to_rows(adapted.actions(), 50, adapted.n_memory))
    assert execute(tables, 50, adapted.n_memory) == adapted.n_advances


def test_a_stack_gets_the_slots_that_fill_gives_it():
    schedule = Binomial(60, 4)
    stack, head = schedule.start()
    table = np.empty((10_000, 4), np.int64)
    for ours in to_rows(schedule.actions(), 60, 4):
        n_rows = schedule.fill(stack, head, table)
        np.testing.assert_array_equal(ours, table[:n_rows])


def test_the_stream_is_asked_no_further_than_the_loss():
    asked = []
    actions = (asked.append(action) or action for action in Mixed(10, 3).actions())
    tables = to_rows(actions, 10, 3)
    next(tables)
    assert asked[-1].stop == 10
    assert len(list(islice(tables, 1))) == 1


def test_a_writer_knows_what_is_held():
    writer = RowWriter(2)
    for action in (Store(0, Level.DISK), Keep(0, Level.MEMORY), Store(1, Level.MEMORY)):
        writer.rows(action)
    assert writer.slots == {(0, Level.DISK): -1, (0, Level.MEMORY): 0, (1, Level.MEMORY): 1}
    assert writer.kept == {(0, Level.MEMORY)}
    writer.rows(Discard(0, Level.MEMORY))
    assert not writer.kept
    assert writer.rows(Store(5, Level.MEMORY))[0][3] == 0


def test_requests_that_cannot_be_met():
    writer = RowWriter(1)
    writer.rows(Store(0, Level.MEMORY))
    with pytest.raises(ScheduleError, match="no slot is left for state 1: all 1"):
        writer.rows(Store(1, Level.MEMORY))
    with pytest.raises(ScheduleError, match="nothing is held of step 3 at level DISK"):
        writer.rows(Load(3, Level.DISK))
