"""Execute any stream of actions against the rules, without a model.

Used by the tests on every schedule and by ``backsweep plan``. The state of the machine:
the step whose state is in the work buffer (`work`), the one before it if the last action
ran a step (`previous`), the snapshots and residuals held, and the steps ``[0, end)`` still
to be reversed.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import NoReturn, Protocol, assert_never

from backsweep.errors import ScheduleError
from backsweep.schedule.actions import Action, Advance, Discard, Keep, Level, Load, Reverse, Store


class ActionStream(Protocol):
    """What `simulate` needs to know of a schedule; `n_memory` and `n_disk` if it has them."""

    @property
    def n_steps(self) -> int:
        """Number of steps to be reversed."""

    @property
    def n_snapshots(self) -> int:
        """Snapshots and kept steps that may be held at a time, at all levels together."""

    def actions(self) -> Iterable[Action]:
        """All actions in order."""


@dataclass(frozen=True, slots=True)
class Summary:
    """What a schedule did: counts of single steps and of copies, and the most slots in use.

    A write is a `Store` or a `Keep`, a read a `Load` or a `Reverse` from residuals.
    """

    n_actions: int
    n_advances: int
    n_reverses: int
    n_reverses_from_state: int
    n_stores: int
    n_keeps: int
    n_loads: int
    n_discards: int
    n_memory_writes: int
    n_memory_reads: int
    n_disk_writes: int
    n_disk_reads: int
    peak_snapshots: int
    peak_memory: int
    peak_disk: int


def simulate(schedule: ActionStream) -> Summary:
    """Execute `schedule` against the rules and count what it does.

    Parameters
    ----------
    schedule : object with n_steps, n_snapshots and actions()
        Not changed; its actions are run through once. Where it has `n_memory` or `n_disk`,
        these limits are checked too.

    Returns
    -------
    Summary

    Raises
    ------
    ScheduleError
        At the first action that breaks a rule, named by its number (from 0), or at the end.

    Notes
    -----
    The rules. (1) `Advance` and `Keep` start from the state in the work buffer; `Advance`
    never runs past the last state that is still of use, `Keep` never takes a step that is
    reversed. (2) `Store` copies the state in the work buffer or the one before it. (3)
    `Store` and `Keep` write to a level that holds nothing of that step yet, and never fill
    more slots than allowed. (4) `Load` names a snapshot that is held, `Discard` a snapshot
    or residuals. (5) `Reverse` takes one step, the last not yet reversed, from its residuals
    if they are held, else from its state in the work buffer, and leaves the work buffer
    empty. (6) The advance that ends at `n_steps` leaves state n and state n - 1; the first
    `Reverse` uses the latter, with nothing but `Discard` in between. (7) At the end every
    step is reversed and nothing is held. Work buffers hold two states, counted apart.

    Examples
    --------
    >>> from backsweep.schedule import Binomial
    >>> simulate(Binomial(1000, 20)).n_advances
    2748
    """
    n = schedule.n_snapshots
    limits = {
        Level.MEMORY: getattr(schedule, "n_memory", n),
        Level.DISK: getattr(schedule, "n_disk", n),
    }
    machine = _Machine(schedule.n_steps, n, limits)
    for number, action in enumerate(schedule.actions()):
        machine.number, machine.action = number, action
        machine.execute(action)
    return machine.finish()


@dataclass(slots=True)
class _Machine:
    """The work buffers and slots of a run, by step numbers alone."""

    n_steps: int
    n_snapshots: int
    limits: dict[Level, int]
    number: int = -1
    action: Action | None = None
    work: int | None = 0
    previous: int | None = None
    snapshots: set[tuple[int, Level]] = field(default_factory=set)
    residuals: set[tuple[int, Level]] = field(default_factory=set)
    end: int = 0
    n: Counter[str] = field(default_factory=Counter)
    n_writes: Counter[Level] = field(default_factory=Counter)
    n_reads: Counter[Level] = field(default_factory=Counter)
    used: Counter[Level] = field(default_factory=Counter)
    peaks: Counter[Level] = field(default_factory=Counter)
    peak: int = 0

    def __post_init__(self) -> None:
        self.end = self.n_steps

    @property
    def loss_is_due(self) -> bool:
        """Whether the forward phase has just ended, so that only Reverse may follow."""
        return self.work == self.n_steps == self.end > 0

    def execute(self, action: Action) -> None:
        match action:
            case Advance(start, stop):
                self.advance(start, stop)
            case Store(step, level):
                self.store(step, level)
            case Keep(step, level):
                self.keep(step, level)
            case Load(step, level):
                self.load(step, level)
            case Discard(step, level):
                self.discard(step, level)
            case Reverse(start, stop):
                self.reverse(start, stop)
            case _:
                assert_never(action)

    def advance(self, start: int, stop: int) -> None:
        self.check_start(start)
        # Only the first sweep needs the state behind the last step.
        last = self.n_steps if self.end == self.n_steps else self.end - 1
        if not start < stop <= last:
            self.fail(f"its range must be ascending and end at step {last} or before")
        self.work, self.previous = stop, stop - 1
        self.n["advances"] += stop - start

    def store(self, step: int, level: Level) -> None:
        self.check_loss_is_not_due()
        if step not in (self.work, self.previous) or step >= self.end:
            self.fail(f"the work buffer holds {self.describe()}, not that state")
        self.write(self.snapshots, step, level)
        self.n["stores"] += 1

    def keep(self, step: int, level: Level) -> None:
        self.check_start(step)
        if step >= self.end:
            self.fail(f"only the steps [0, {self.end}) are still to be reversed")
        self.write(self.residuals, step, level)
        self.work, self.previous = step + 1, step
        self.n["advances"] += 1
        self.n["keeps"] += 1

    def write(self, kind: set[tuple[int, Level]], step: int, level: Level) -> None:
        """Fill a slot."""
        if (step, level) in self.snapshots or (step, level) in self.residuals:
            self.fail(f"level {level.name} already holds this step")
        if self.used[level] >= self.limits[level]:
            self.fail(f"all {self.limits[level]} slots in {level.name} are held: {self.steps()}")
        if self.used.total() >= self.n_snapshots:
            self.fail(f"all {self.n_snapshots} snapshots allowed are held: {self.steps()}")
        kind.add((step, level))
        self.used[level] += 1
        self.n_writes[level] += 1
        self.peaks[level] = max(self.peaks[level], self.used[level])
        self.peak = max(self.peak, self.used.total())

    def load(self, step: int, level: Level) -> None:
        self.check_loss_is_not_due()
        if (step, level) not in self.snapshots:
            self.fail(f"no such snapshot is stored; held are the steps {self.steps()}")
        self.work, self.previous = step, None
        self.n["loads"] += 1
        self.n_reads[level] += 1

    def discard(self, step: int, level: Level) -> None:
        for kind in (self.snapshots, self.residuals):
            if (step, level) in kind:
                kind.remove((step, level))
                self.used[level] -= 1
                self.n["discards"] += 1
                return
        self.fail(f"nothing to discard; held are the steps {self.steps()}")

    def reverse(self, start: int, stop: int) -> None:
        if (start, stop) != (self.end - 1, self.end):
            self.fail(f"the next step to be reversed is ({self.end - 1}, {self.end})")
        kept = [level for level in Level if (start, level) in self.residuals]
        available = self.previous if self.end == self.n_steps else self.work
        if not kept and available != start:
            self.fail(f"it needs state {start}, but the work buffer holds {self.describe()}")
        if self.end == self.n_steps and not self.loss_is_due:
            self.fail(f"the loss needs state {self.n_steps}, which was not reached")
        if kept:
            self.n_reads[kept[0]] += 1
        else:
            self.n["reverses_from_state"] += 1
        self.end = start
        self.work = self.previous = None

    def finish(self) -> Summary:
        if self.end:
            raise ScheduleError(
                f"the schedule ended after {self.number + 1} actions with the steps "
                f"[0, {self.end}) not reversed"
            )
        if self.used.total():
            raise ScheduleError(
                f"the schedule ended after {self.number + 1} actions with the snapshots of "
                f"the steps {self.steps()} still stored"
            )
        return Summary(
            n_actions=self.number + 1,
            n_advances=self.n["advances"],
            n_reverses=self.n_steps,
            n_reverses_from_state=self.n["reverses_from_state"],
            n_stores=self.n["stores"],
            n_keeps=self.n["keeps"],
            n_loads=self.n["loads"],
            n_discards=self.n["discards"],
            n_memory_writes=self.n_writes[Level.MEMORY],
            n_memory_reads=self.n_reads[Level.MEMORY],
            n_disk_writes=self.n_writes[Level.DISK],
            n_disk_reads=self.n_reads[Level.DISK],
            peak_snapshots=self.peak,
            peak_memory=self.peaks[Level.MEMORY],
            peak_disk=self.peaks[Level.DISK],
        )

    def check_start(self, start: int) -> None:
        self.check_loss_is_not_due()
        if self.work != start:
            self.fail(f"it starts at step {start}, but the work buffer holds {self.describe()}")

    def check_loss_is_not_due(self) -> None:
        if self.loss_is_due:
            self.fail(
                f"after the advance to step {self.n_steps} the next must be "
                f"Reverse({self.n_steps - 1}, {self.n_steps})"
            )

    def steps(self) -> list[int]:
        return sorted(step for step, _ in self.snapshots | self.residuals)

    def describe(self) -> str:
        return "nothing" if self.work is None else f"state {self.work}"

    def fail(self, reason: str) -> NoReturn:
        raise ScheduleError(f"action {self.number}, {self.action}, breaks the rules: {reason}")
