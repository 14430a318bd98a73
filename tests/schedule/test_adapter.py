"""Every schedule of checkpoint_schedules, through the adapter and the simulator."""

from __future__ import annotations

import pytest

from backsweep.errors import ScheduleError
from backsweep.schedule import (
    extra_advances,
    from_checkpoint_schedules,
    mixed_forward_steps,
    simulate,
)

cs = pytest.importorskip("checkpoint_schedules")
RAM, DISK = cs.StorageType.RAM, cs.StorageType.DISK

MAKERS = {
    "Revolve": lambda n: cs.Revolve(n, 4),
    "DiskRevolve": lambda n: cs.DiskRevolve(n, 3),
    "PeriodicDiskRevolve": lambda n: cs.PeriodicDiskRevolve(n, 3),
    "HRevolve": lambda n: cs.HRevolve(n, 3, 5),
    "Multistage": lambda n: cs.MultistageCheckpointSchedule(n, 3, 5),
    "TwoLevel on disk": lambda n: cs.TwoLevelCheckpointSchedule(10, 3),
    "TwoLevel": lambda n: cs.TwoLevelCheckpointSchedule(10, 3, binomial_storage=RAM),
    "Mixed": lambda n: cs.MixedCheckpointSchedule(n, 5, storage=RAM),
    "Mixed on disk": lambda n: cs.MixedCheckpointSchedule(n, 5, storage=DISK),
    "SingleMemory": lambda n: cs.SingleMemoryStorageSchedule(),
    "SingleDisk": lambda n: cs.SingleDiskStorageSchedule(),
    "SingleDisk moved": lambda n: cs.SingleDiskStorageSchedule(move_data=True),
}


def test_no_class_is_forgotten():
    names = {name for name in dir(cs) if name.endswith(("Schedule", "Revolve"))}
    tried = {type(make(12)).__name__ for make in MAKERS.values()}
    assert names - tried == {"CheckpointSchedule", "NoneCheckpointSchedule"}


@pytest.mark.parametrize("make", MAKERS.values(), ids=MAKERS)
@pytest.mark.parametrize("n", [2, 3, 5, 10, 11, 37, 100])
def test_it_keeps_the_rules(make, n):
    schedule = from_checkpoint_schedules(make(n), n)
    summary = simulate(schedule)
    assert summary == schedule.summary
    assert summary.n_reverses == n
    assert schedule.n_advances == summary.n_advances
    assert schedule.n_snapshots <= schedule.n_memory + schedule.n_disk


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        # Advances, slots in memory and on disk, disk writes and reads.
        ("Revolve", (extra_advances(100, 4) + 1, 4, 0, 0, 0)),
        ("Multistage", (extra_advances(100, 8) + 1, 3, 5, 25, 45)),
        ("HRevolve", (256, 3, 5, 7, 12)),
        ("DiskRevolve", (176, 3, 22, 22, 22)),
        ("SingleMemory", (100, 99, 0, 0, 0)),
        ("SingleDisk", (100, 0, 100, 100, 100)),
    ],
)
def test_counts_are_those_of_the_peer(name, expected):
    did = from_checkpoint_schedules(MAKERS[name](100), 100).summary
    counts = (did.n_advances, did.peak_memory, did.peak_disk, did.n_disk_writes, did.n_disk_reads)
    assert counts == expected


@pytest.mark.parametrize("name", ["Mixed", "Mixed on disk"])
def test_kept_residuals_stay_kept(name):
    did = from_checkpoint_schedules(MAKERS[name](100), 100).summary
    assert did.n_keeps + did.n_reverses_from_state == 100
    assert did.n_advances + did.n_reverses_from_state == mixed_forward_steps(100, 5) + 1


def test_it_can_be_run_again():
    schedule = from_checkpoint_schedules(MAKERS["HRevolve"](30), 30)
    assert list(schedule.actions()) == list(schedule.actions())


def test_a_schedule_without_a_reverse_is_refused():
    with pytest.raises(ScheduleError, match=r"^NoneCheckpointSchedule keeps nothing to reverse"):
        from_checkpoint_schedules(cs.NoneCheckpointSchedule(), 10)


def test_what_is_no_such_schedule_is_refused():
    with pytest.raises(ScheduleError, match="object is no schedule of checkpoint_schedules"):
        from_checkpoint_schedules(object(), 10)
    with pytest.raises(ScheduleError, match="unknown action int"):
        from_checkpoint_schedules([1], 10)


def test_a_schedule_that_was_iterated_is_refused():
    schedule = cs.Revolve(10, 3)
    next(schedule)
    with pytest.raises(ScheduleError, match="Revolve is no schedule .* not iterated yet"):
        from_checkpoint_schedules(schedule, 10)


def test_another_number_of_steps_is_refused():
    with pytest.raises(ScheduleError, match="Revolve was made for 10 steps and cannot reverse 11"):
        from_checkpoint_schedules(cs.Revolve(10, 3), 11)


class Listed:
    """A schedule of that package given by its actions."""

    max_n = 2

    def __init__(self, *actions):
        self.listed = actions

    def __iter__(self):
        return iter(self.listed)


@pytest.mark.parametrize(
    ("action", "reason"),
    [
        (lambda: cs.Copy(0, RAM, DISK), "not to the working storage"),
        (lambda: cs.Copy(1, RAM, cs.StorageType.WORK), "names what is not stored"),
        (lambda: cs.Forward(1, 2, True, True, RAM), "state and residuals at once"),
        (lambda: cs.EndReverse(), r"with the steps \[0, 2\) not reversed"),
    ],
)
def test_actions_that_have_no_meaning_here_are_refused(action, reason):
    first = cs.Forward(0, 1, True, False, RAM)
    with pytest.raises(ScheduleError, match=reason):
        from_checkpoint_schedules(Listed(first, action()), 2)
