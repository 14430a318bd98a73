r"""Checkpointing while the number of steps is not known yet.

Snapshots are placed so that the run may end at any step. While no step need be advanced more
than r times, segment i between two snapshots, which `s - i` snapshots are free to reverse,
may be up to :math:`\beta(s - i, r - 1)` steps long; a new snapshot takes the place of the one
whose loss costs least. When no loss fits the bounds any more, r grows by one.

Two details make it exact while :math:`n \le \beta(s, 2) = (s + 1)(s + 2) / 2`. A snapshot is
taken of the state *before* the one in the work buffer, as late as possible, so that none is
wasted on a state that the buffers hold at the end. And the places in which every segment is
as long as it may be are always taken, and kept until r grows.

The idea of replacing snapshots is that of Wang, Moin & Iaccarino 2009 and of Stumm & Walther
2010; the rule by cost is ours. Measured in `Online`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import accumulate
from typing import Final, final

import numpy as np

from backsweep.schedule.actions import (
    ROW_WIDTH,
    Action,
    Advance,
    Discard,
    Level,
    Reverse,
    Store,
    decode,
)
from backsweep.schedule.base import MAX_STEPS, AbstractSchedule, check_n_steps
from backsweep.schedule.binomial import (
    beta,
    check_n_snapshots,
    extra_advances,
    fill,
    resume_state,
)

_ROWS_PER_FILL: Final = 256


@final
@dataclass(frozen=True, slots=True)
class Online:
    """A schedule for a loop that ends when a condition fails; all snapshots in memory.

    Parameters
    ----------
    n_snapshots : int
        Snapshots that may be held at a time, the initial state included; at least 1.

    Raises
    ------
    ScheduleError
        If there are none.

    Notes
    -----
    Use: ask `forward` for an action each time that the loop's condition holds; run an
    `Advance` step by step and break it off where the condition fails, at step n; then run
    ``reverse(n, held)`` with the snapshots held.

    ``extra_advances(n, s) + 1`` advances, as if n had been known, for all
    ``n <= (s + 1)(s + 2) / 2`` (tested for s <= 50). Beyond, it makes more, measured for all n
    (in brackets the n of the largest excess):

    ===== ============== ============== ============== ================
    s     mean, to 1000  most, to 1000  mean, to 10^4  most, to 10^4
    ===== ============== ============== ============== ================
    5     1.04 %         4.3 % (326)    1.18 %         4.9 % (2244)
    20    0.02 %         0.22 % (233)   0.02 %         0.22 % (233)
    50    0              0              0.003 %        0.04 % (1328)
    ===== ============== ============== ============== ================

    A store costs O(s) in Python, 0.06 ms for 50 snapshots, measured; there are about ``n / r``
    of them in the forward phase, many more than `Binomial` makes.

    References
    ----------
    Wang, Moin & Iaccarino 2009, SIAM J. Sci. Comput. 31(4), 2549-2567,
    doi:10.1137/080727890. Stumm & Walther 2010, SIAM J. Sci. Comput. 32(2), 836-854,
    doi:10.1137/080742439.

    Examples
    --------
    >>> from itertools import islice
    >>> for action in islice(Online(2).forward(), 3):
    ...     print(action)
    Store(step=0, level=<Level.MEMORY: 0>)
    Advance(start=0, stop=2)
    Store(step=1, level=<Level.MEMORY: 0>)
    """

    n_snapshots: int

    def __post_init__(self) -> None:
        check_n_snapshots(self.n_snapshots)

    def forward(self) -> Iterator[Action]:
        """Actions of the forward phase, without end: `Store`, `Discard` and `Advance`.

        The next action may be asked for only if the loop goes on from the state in work.
        """
        places = _Places(self.n_snapshots)
        yield Store(0, Level.MEMORY)
        at = 0
        while True:
            stop = places.next_decision(at)
            yield Advance(at, stop)
            at = stop
            replaced = places.decide(at - 1)
            if replaced is not None:
                yield Discard(replaced, Level.MEMORY)
            if places.held[-1] == at - 1:
                yield Store(at - 1, Level.MEMORY)

    def reverse(self, n_steps: int, held: Sequence[int]) -> Iterator[Action]:
        """Actions of the reverse phase: the fewest advances from what is held.

        Parameters
        ----------
        n_steps : int
            Where the loop has ended. The work buffers hold states n and n - 1.
        held : sequence of int
            Steps of the snapshots held, ascending.

        Raises
        ------
        ScheduleError
            If `held` does not belong to such a run.
        """
        if not n_steps:
            return
        stack, head = resume_state(n_steps, self.n_snapshots, held, n_steps - 1)
        yield Reverse(n_steps - 1, n_steps)
        table = np.empty((_ROWS_PER_FILL, ROW_WIDTH), np.int64)
        while n_rows := fill(stack, head, table):
            for row in table[:n_rows].tolist():
                yield decode(row)


@final
@dataclass(frozen=True, slots=True)
class OnlineRun(AbstractSchedule):
    """What `Online` does if the loop ends after `n_steps` steps.

    Parameters
    ----------
    n_steps, n_snapshots : int
        As for `Binomial`.
    """

    n_steps: int
    n_snapshots: int

    def __post_init__(self) -> None:
        check_n_steps(self.n_steps)
        check_n_snapshots(self.n_snapshots)

    @property
    def n_advances(self) -> int:
        """The single steps that the schedule will run forward; runs the forward phase."""
        n, s = self.n_steps, self.n_snapshots
        if not n:
            return 0
        held: list[int] = []
        for _ in self._forward(held):
            pass
        ends = [*held[1:], n - 1]
        return n + sum(
            extra_advances(b - a, s - i) for i, (a, b) in enumerate(zip(held, ends, strict=True))
        )

    def actions(self) -> Iterator[Action]:
        """All actions in order, made one after the other."""
        if self.n_steps:
            held: list[int] = []
            yield from self._forward(held)
            yield from Online(self.n_snapshots).reverse(self.n_steps, held)

    def _forward(self, held: list[int]) -> Iterator[Action]:
        """The forward phase; `held` follows what is stored."""
        for action in Online(self.n_snapshots).forward():
            match action:
                case Advance(start, stop) if stop >= self.n_steps:
                    yield Advance(start, self.n_steps)
                    return
                case Store(step, _):
                    held.append(step)
                case Discard(step, _):
                    held.remove(step)
            yield action


@dataclass(slots=True)
class _Places:
    """Where snapshots are held in the forward phase, and which one gives way."""

    n_snapshots: int
    held: list[int] = field(default_factory=lambda: [0])
    r: int = 0
    bounds: list[int] = field(default_factory=list)
    """Longest segment i, of those that s - i snapshots reverse."""
    targets: list[int] = field(default_factory=list)
    """Starts of the segments, were each as long as it may be."""
    costs: dict[tuple[int, int], int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.raise_r()

    def raise_r(self) -> None:
        s = self.n_snapshots
        self.r += 1
        self.costs.clear()
        self.bounds = [beta(s - i, self.r - 1) for i in range(s)]
        self.targets = list(accumulate(self.bounds[:-1], initial=0))

    def next_decision(self, at: int) -> int:
        """The state to go to before a snapshot of the one before it may be needed."""
        if self.n_snapshots == 1:
            return MAX_STEPS
        last = self.held[-1]
        if len(self.held) < self.n_snapshots:
            return last + 2
        due = max(last + self.r + 1, at + 1)
        return min([due, *(p + 1 for p in self.targets if at <= p < due)])

    def decide(self, new: int) -> int | None:
        """Hold state `new` if that is of use; returns the step that gives way to it."""
        if len(self.held) < self.n_snapshots:
            self.held.append(new)
            return None
        is_due = new - self.held[-1] >= self.r
        if not is_due and new not in self.targets:
            return None
        j = self.least_needed(new)
        while j == 0 and is_due:
            self.raise_r()
            is_due = new - self.held[-1] >= self.r
            j = self.least_needed(new) if is_due or new in self.targets else 0
        if j == 0:
            return None
        replaced = self.held.pop(j)
        self.held.append(new)
        return replaced

    def least_needed(self, new: int) -> int:
        """Number of the snapshot whose loss costs the fewest advances; 0 if none fits.

        The segments behind it move to a lower slot, and gain a snapshot.
        """
        s, places = self.n_snapshots, [*self.held, new]
        fixed = set(self.targets)
        best, best_cost, gain = 0, 0, 0
        for j in range(s - 1, 0, -1):
            left, right = places[j] - places[j - 1], places[j + 1] - places[j]
            if left + right <= self.bounds[j - 1] and places[j] not in fixed:
                cost = self.cost(left + right, s - j + 1) - self.cost(left, s - j + 1)
                cost -= self.cost(right, s - j) + gain
                if best == 0 or cost <= best_cost:
                    best, best_cost = j, cost
            gain += self.cost(right, s - j) - self.cost(right, s - j + 1)
        return best

    def cost(self, n: int, s: int) -> int:
        key = n, s
        if key not in self.costs:
            self.costs[key] = extra_advances(n, s)
        return self.costs[key]
