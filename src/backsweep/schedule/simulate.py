"""Execute any stream of actions against the rules, without a model.

Used by the tests on every schedule and by ``backsweep plan``. The state of the machine:
the step whose state is in the work buffer (`work`), the one before it if the last action
was an Advance (`previous`), the snapshots held, and the steps ``[0, end)`` still to be
reversed.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import NoReturn, Protocol, assert_never

from backsweep.errors import ScheduleError
from backsweep.schedule.actions import Action, Advance, Discard, Level, Load, Reverse, Store


class ActionStream(Protocol):
    """What `simulate` needs to know of a schedule."""

    @property
    def n_steps(self) -> int:
        """Number of steps to be reversed."""

    @property
    def n_snapshots(self) -> int:
        """Snapshots that may be held at a time."""

    def actions(self) -> Iterable[Action]:
        """All actions in order."""


@dataclass(frozen=True, slots=True)
class Summary:
    """What a schedule did: counts of single steps, of copies, and the most snapshots held."""

    n_actions: int
    n_advances: int
    n_reverses: int
    n_stores: int
    n_loads: int
    n_discards: int
    peak_snapshots: int


def simulate(schedule: ActionStream) -> Summary:
    """Execute `schedule` against the rules and count what it does.

    Parameters
    ----------
    schedule : object with n_steps, n_snapshots and actions()
        Not changed; its actions are run through once.

    Returns
    -------
    Summary

    Raises
    ------
    ScheduleError
        At the first action that breaks a rule, named by its number (from 0), or at the end.

    Notes
    -----
    The rules. (1) `Advance` starts from the state in the work buffer, and never runs past
    the last state that is still of use. (2) `Store` copies the state in the work buffer, to
    a place that does not hold it yet, and never makes more snapshots than allowed. (3)
    `Load` and `Discard` name a snapshot that is held. (4) `Reverse` takes one step, the last
    not yet reversed, and uses up its state in the work buffer. (5) The advance that ends at
    `n_steps` leaves state n and state n - 1; the first `Reverse` uses the latter, with no
    advance, store or load in between. (6) At the end every step is reversed and no snapshot
    is left. Work buffers hold two states, counted apart from snapshots.

    Examples
    --------
    >>> from backsweep.schedule import Binomial
    >>> simulate(Binomial(1000, 20)).n_advances
    2748
    """
    machine = _Machine(schedule.n_steps, schedule.n_snapshots)
    for number, action in enumerate(schedule.actions()):
        machine.number, machine.action = number, action
        machine.execute(action)
    return machine.finish()


@dataclass(slots=True)
class _Machine:
    """The work buffers and snapshots of a run, by step numbers alone."""

    n_steps: int
    n_snapshots: int
    number: int = -1
    action: Action | None = None
    work: int | None = 0
    previous: int | None = None
    held: set[tuple[int, Level]] = field(default_factory=set)
    end: int = 0
    n_advances: int = 0
    n_stores: int = 0
    n_loads: int = 0
    n_discards: int = 0
    peak: int = 0

    def __post_init__(self) -> None:
        self.end = self.n_steps

    @property
    def loss_is_due(self) -> bool:
        """Whether the forward phase has just ended, so that only Reverse may follow."""
        return self.work == self.n_steps > 0

    def execute(self, action: Action) -> None:
        match action:
            case Advance(start, stop):
                self.advance(start, stop)
            case Store(step, level):
                self.store(step, level)
            case Load(step, level):
                self.load(step, level)
            case Discard(step, level):
                self.discard(step, level)
            case Reverse(start, stop):
                self.reverse(start, stop)
            case _:
                assert_never(action)

    def advance(self, start: int, stop: int) -> None:
        self.check_loss_is_not_due()
        if self.work != start:
            self.fail(f"it starts at step {start}, but the work buffer holds {self.describe()}")
        # Only the first sweep needs the state behind the last step.
        last = self.n_steps if self.end == self.n_steps else self.end - 1
        if not start < stop <= last:
            self.fail(f"its range must be ascending and end at step {last} or before")
        self.work, self.previous = stop, stop - 1
        self.n_advances += stop - start

    def store(self, step: int, level: Level) -> None:
        self.check_loss_is_not_due()
        if self.work != step or step >= self.end:
            self.fail(f"the work buffer holds {self.describe()}, not that state")
        if (step, level) in self.held:
            self.fail("this snapshot is already stored")
        if len(self.held) >= self.n_snapshots:
            self.fail(f"all {self.n_snapshots} snapshots allowed are held: {self.steps()}")
        self.held.add((step, level))
        self.n_stores += 1
        self.peak = max(self.peak, len(self.held))

    def load(self, step: int, level: Level) -> None:
        self.check_loss_is_not_due()
        if (step, level) not in self.held:
            self.fail(f"no such snapshot is stored; held are the steps {self.steps()}")
        self.work, self.previous = step, None
        self.n_loads += 1

    def discard(self, step: int, level: Level) -> None:
        if (step, level) not in self.held:
            self.fail(f"nothing to discard; held are the steps {self.steps()}")
        self.held.remove((step, level))
        self.n_discards += 1

    def reverse(self, start: int, stop: int) -> None:
        if (start, stop) != (self.end - 1, self.end):
            self.fail(f"the next step to be reversed is ({self.end - 1}, {self.end})")
        available = self.previous if self.end == self.n_steps else self.work
        if available != start:
            self.fail(f"it needs state {start}, but the work buffer holds {self.describe()}")
        if self.end == self.n_steps and not self.loss_is_due:
            self.fail(f"the loss needs state {self.n_steps}, which was not reached")
        self.end = start
        self.work = self.previous = None

    def finish(self) -> Summary:
        if self.end:
            raise ScheduleError(
                f"the schedule ended after {self.number + 1} actions with the steps "
                f"[0, {self.end}) not reversed"
            )
        if self.held:
            raise ScheduleError(
                f"the schedule ended after {self.number + 1} actions with the snapshots of "
                f"the steps {self.steps()} still stored"
            )
        return Summary(
            n_actions=self.number + 1,
            n_advances=self.n_advances,
            n_reverses=self.n_steps,
            n_stores=self.n_stores,
            n_loads=self.n_loads,
            n_discards=self.n_discards,
            peak_snapshots=self.peak,
        )

    def check_loss_is_not_due(self) -> None:
        if self.loss_is_due:
            self.fail(
                f"after the advance to step {self.n_steps} the next must be "
                f"Reverse({self.n_steps - 1}, {self.n_steps})"
            )

    def steps(self) -> list[int]:
        return sorted(step for step, _ in self.held)

    def describe(self) -> str:
        return "nothing" if self.work is None else f"state {self.work}"

    def fail(self, reason: str) -> NoReturn:
        raise ScheduleError(f"action {self.number}, {self.action}, breaks the rules: {reason}")
