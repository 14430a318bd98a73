"""Schedules of the package ``checkpoint_schedules`` as streams of our actions.

That package (Dolci, Maddison, Ham, Pallez & Herrmann 2024, doi:10.21105/joss.06148) has
H-Revolve, disk-revolve, periodic disk-revolve and two-level schedules, which this one has
not. It is not imported here: its objects are known by the names of their actions.

Known to be suboptimal: a schedule is run through once before it is used, for its counts and
to check it against the rules, and H-Revolve itself takes long to find schedules of thousands
of steps.
"""

from __future__ import annotations

from collections.abc import Iterator
from copy import deepcopy
from dataclasses import dataclass, field
from typing import Any, Final, final

from backsweep.errors import ScheduleError
from backsweep.schedule.actions import Action, Advance, Discard, Keep, Level, Load, Reverse, Store
from backsweep.schedule.base import AbstractSchedule, check_n_steps
from backsweep.schedule.simulate import Summary, simulate

_LEVELS: Final = {"RAM": Level.MEMORY, "DISK": Level.DISK, "WORK": Level.MEMORY}


def from_checkpoint_schedules(schedule: Any, n_steps: int) -> AdaptedSchedule:
    """Make a schedule of the package ``checkpoint_schedules`` one of ours.

    Parameters
    ----------
    schedule : checkpoint_schedules.CheckpointSchedule
        Not iterated yet; a copy of it is.
    n_steps : int
        Number of steps, at least 1; that of the schedule if it was made for a number.

    Returns
    -------
    AdaptedSchedule

    Raises
    ------
    ScheduleError
        If the object is none of that package's schedules, was iterated before, was made for
        another number of steps, does not reverse every step, or moves data between memory
        and disk, which no schedule of that package does.

    Notes
    -----
    A forward run whose adjoint dependencies are kept in memory, on disk or, for more than
    one step, in the working storage becomes a `Keep` of each step; a step that is reversed
    right after its run is reversed from its state. The last step of all always is, from the
    work buffers, even where the schedule (two-level) would run it again. What is still held
    of a step is discarded as soon as the step is reversed: the result serves one adjoint.
    Working storage for several steps counts as memory.

    Examples
    --------
    >>> from checkpoint_schedules import HRevolve  # doctest: +SKIP
    >>> from_checkpoint_schedules(HRevolve(100, 3, 5), 100).n_advances  # doctest: +SKIP
    256
    """
    check_n_steps(n_steps)
    made_for = getattr(schedule, "max_n", None)
    if n_steps < 1 or made_for not in (None, n_steps):
        raise ScheduleError(
            f"{type(schedule).__name__} was made for {made_for} steps and cannot reverse {n_steps}"
        )
    return AdaptedSchedule(schedule, n_steps, simulate(_Stream(schedule, n_steps)))


@final
@dataclass(frozen=True, slots=True)
class AdaptedSchedule(AbstractSchedule):
    """A foreign schedule, from `from_checkpoint_schedules`.

    Parameters
    ----------
    schedule : checkpoint_schedules.CheckpointSchedule
    n_steps : int
    summary : Summary
        What it does, found by `simulate`.
    """

    schedule: Any
    n_steps: int
    summary: Summary

    @property
    def n_snapshots(self) -> int:  # type: ignore[override]
        """Most slots in use at a time, at both levels together."""
        return self.summary.peak_snapshots

    @property
    def n_memory(self) -> int:
        """Most slots in use in memory at a time."""
        return self.summary.peak_memory

    @property
    def n_disk(self) -> int:
        """Most slots in use on disk at a time."""
        return self.summary.peak_disk

    @property
    def n_advances(self) -> int:
        """The single steps that the schedule will run forward."""
        return self.summary.n_advances

    def actions(self) -> Iterator[Action]:
        """All actions in order, made one after the other."""
        return _Stream(self.schedule, self.n_steps).actions()


@dataclass(slots=True)
class _Stream:
    """The translation of one run; what is held is all that is remembered."""

    schedule: Any
    n_steps: int
    end: int = 0
    pending: int | None = None
    """A step whose adjoint dependencies were asked for, not run yet."""
    snapshots: set[tuple[int, Level]] = field(default_factory=set)
    residuals: set[tuple[int, Level]] = field(default_factory=set)

    @property
    def n_snapshots(self) -> int:
        """No limit: what is used is found by running it."""
        return 2 * self.n_steps

    @property
    def name(self) -> str:
        return type(self.schedule).__name__

    def actions(self) -> Iterator[Action]:
        self.end = self.n_steps
        for action in self.foreign_actions():
            match type(action).__name__:
                case "Forward":
                    yield from self.forward(action)
                case "Reverse":
                    for step in reversed(range(int(action.n0), int(action.n1))):
                        yield from self.reverse(step)
                case "Copy" | "Move" as kind:
                    yield from self.transfer(kind, action)
                case "EndForward":
                    if self.pending is not None:
                        yield Advance(self.pending, self.pending + 1)
                    # The last step is reversed from the work buffers, whatever comes.
                    yield from self.reverse(self.n_steps - 1)
                case "EndReverse":
                    return
                case other:
                    raise ScheduleError(f"{self.name} has the unknown action {other}: {action!r}")
        raise ScheduleError(f"{self.name} ended with the steps [0, {self.end}) not reversed")

    def foreign_actions(self) -> Iterator[Any]:
        """The other package's actions; it learns the number of steps where it has to."""
        try:
            schedule = deepcopy(self.schedule)
            stream = iter(schedule)
        except TypeError as error:
            raise ScheduleError(
                f"{self.name} is no schedule of checkpoint_schedules that was not iterated yet"
            ) from error
        for action in stream:
            yield action
            is_forward = type(action).__name__ == "Forward"
            if is_forward and action.n1 >= self.n_steps and schedule.max_n is None:
                schedule.finalize(self.n_steps)

    def forward(self, action: Any) -> Iterator[Action]:
        if action.storage.name == "NONE":
            raise ScheduleError(
                f"{self.name} keeps nothing to reverse from; it is for forward runs alone"
            )
        start, stop = int(action.n0), min(int(action.n1), self.end)
        if start >= stop:
            return
        if self.pending is not None:  # its residuals have to wait after all
            yield self.kept(self.pending, Level.MEMORY)
            self.pending = None
        if action.write_ics:
            if action.write_adj_deps:
                raise ScheduleError(f"{self.name}: {action!r} stores state and residuals at once")
            place = start, _LEVELS[action.storage.name]
            if place not in self.snapshots:
                self.snapshots.add(place)
                yield Store(*place)
        if not action.write_adj_deps:
            stop = stop if self.end == self.n_steps else min(stop, self.end - 1)
            if start < stop:
                yield Advance(start, stop)
            return
        in_work = action.storage.name == "WORK"
        for step in range(start, stop - in_work):
            yield self.kept(step, _LEVELS[action.storage.name])
        if in_work:
            self.pending = stop - 1

    def kept(self, step: int, level: Level) -> Keep:
        self.residuals.add((step, level))
        return Keep(step, level)

    def reverse(self, step: int) -> Iterator[Action]:
        self.pending = None
        if step >= self.end:
            return
        yield Reverse(step, step + 1)
        self.end = step
        for level in Level:
            for held in (self.snapshots, self.residuals):
                if (step, level) in held:
                    held.remove((step, level))
                    yield Discard(step, level)

    def transfer(self, kind: str, action: Any) -> Iterator[Action]:
        target = action.to_storage.name
        place = int(action.n), _LEVELS[action.from_storage.name]
        if target not in ("WORK", "NONE"):
            raise ScheduleError(f"{self.name}: {action!r} is not to the working storage")
        if action.n >= self.end:
            return
        if place in self.snapshots:
            if target == "WORK":
                yield Load(*place)
            if kind == "Move":
                self.snapshots.remove(place)
                yield Discard(*place)
        elif target == "WORK" and place not in self.residuals:
            raise ScheduleError(f"{self.name}: {action!r} names what is not stored")
        # Residuals are read where they lie, and discarded once they are used.
