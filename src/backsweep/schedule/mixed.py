r"""Checkpointing that mixes snapshots with the residuals of single steps.

A slot holds a state, from which steps can be run again, or the residuals of one step, which
is then reversed without being run again. Both are taken to be of the same size.

The fewest forward steps, those run again for a `Reverse` from a state included, are

.. math:: m(n, s) = \min\bigl(1 + m(n-1, s-1),\ \min_{1 < i < n} i + m(i, s) + m(n-i, s-1)\bigr)

with :math:`m(n, s) = n` for :math:`n \le s + 1` and :math:`m(n, 1) = n (n + 1) / 2 - 1`.
No closed form is known to us: m is piecewise linear in n, but not convex.

Source: Maddison 2024, see `Mixed`.

Known to be suboptimal: a step that reads its residuals from a state, as the compiled reverse
kernels do, gains nothing here, for `Binomial` then needs the fewest advances.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from math import comb
from typing import Final, final

import numpy as np
from numpy.typing import NDArray

from backsweep.errors import ScheduleError
from backsweep.schedule.actions import Action, Advance, Discard, Keep, Level, Load, Reverse, Store
from backsweep.schedule.base import AbstractSchedule, check_n_steps
from backsweep.schedule.binomial import check_n_snapshots

MAX_MIXED_STEPS: Final = 20_000
MAX_MIXED_ENTRIES: Final = 4_000_000
"""Largest ``n_steps * n_snapshots``: the table of m then stays below 16 MB and 10 seconds."""

_Rows = tuple[NDArray[np.int32], ...]


def mixed_forward_steps(n: int, s: int) -> int:
    """Fewest forward steps of a mixed schedule, `m(n, s)`: see the module.

    Parameters
    ----------
    n, s : int
        Steps and slots, at least 1.

    Notes
    -----
    At once where ``n <= s + 1`` or ``s == 1``; else by a table whose cost `Mixed` tells.

    References
    ----------
    Maddison 2024, J. Comput. Sci. 82, 102405, doi:10.1016/j.jocs.2024.102405.

    Examples
    --------
    >>> mixed_forward_steps(1000, 20)
    2823
    """
    _check(n, s)
    if n <= s + 1:
        return n
    if s == 1:
        return n * (n + 1) // 2 - 1
    return int(mixed_table(n, s)[s][n])


@lru_cache(maxsize=4)
def mixed_table(n: int, s: int) -> _Rows:
    """``table[j][k] = m(k, j)`` for j <= s, k <= n; row 0 is not used.

    A row is made in place: as soon as m(i, j) is final, the cost of a first piece of i steps
    is offered to all longer runs. While n <= beta(j, 4), pieces that end where the slope of
    m(., j) rises are enough. That was found, not proved: the rows equal those of the whole
    programme for all n <= 10,000 and s <= 200.
    """
    k = np.arange(n + 1, dtype=np.int32)
    row = k * (k + 1) // 2 - 1
    row[:2] = k[:2]
    rows = [k, row]
    for j in range(2, s + 1):
        below, row = row, k.copy()
        row[j + 2 :] = 1 + below[j + 1 : -1]
        all_pieces = n > comb(j + 4, 4)
        for i in range(2, n):
            if all_pieces or 2 * row[i] < row[i - 1] + row[i + 1]:
                np.minimum(row[i + 1 :], below[1 : n - i + 1] + (i + row[i]), out=row[i + 1 :])
        rows.append(row)
    return tuple(rows)


def _first_piece(n: int, s: int, rows: _Rows) -> int:
    """How far to advance from a snapshot, the longest of the best; 1 to keep the step."""
    if n <= s + 1:
        return 1
    if s == 1:
        return n - 1
    i = np.arange(2, n)
    costs = i + rows[s][2:n] + rows[s - 1][n - 2 : 0 : -1]
    best = np.flatnonzero(costs == rows[s][n])
    return int(i[best[-1]]) if len(best) else 1


def _check(n: int, s: int) -> None:
    check_n_steps(n)
    check_n_snapshots(s)
    needs_table = n > s + 1 and s > 1
    if needs_table and (n > MAX_MIXED_STEPS or n * s > MAX_MIXED_ENTRIES):
        raise ScheduleError(
            f"a mixed schedule of {n} steps with {s} slots takes too long to find: at most "
            f"{MAX_MIXED_STEPS} steps and steps x slots = {MAX_MIXED_ENTRIES}; use Binomial"
        )


@final
@dataclass(frozen=True, slots=True)
class Mixed(AbstractSchedule):
    """The schedule with the fewest forward steps where residuals are as large as states.

    Parameters
    ----------
    n_steps : int
        Number of steps. At most `MAX_MIXED_STEPS`, and ``n_steps * n_snapshots`` at most
        `MAX_MIXED_ENTRIES`, unless there are less than two slots, or as many as steps.
    n_snapshots : int
        Slots in memory, for states and residuals together, at least 1; the initial state
        takes one while it is stored.

    Raises
    ------
    ScheduleError
        If either number is out of its range.

    Notes
    -----
    Advances and reverse steps from a state are ``mixed_forward_steps(n, s)`` together, one
    more where no slot is left for the residuals of the last step.

    A table of n s numbers of 4 bytes is made when the first action is asked for: 0.02 s for
    (1000, 20) and 1 s for (10,000, 200), measured. A split then costs O(n) in NumPy; of
    the stream itself only what is held is remembered, O(s).

    References
    ----------
    Maddison 2024, J. Comput. Sci. 82, 102405, doi:10.1016/j.jocs.2024.102405.

    Examples
    --------
    >>> for action in Mixed(n_steps=3, n_snapshots=1).actions():
    ...     print(action)
    Store(step=0, level=<Level.MEMORY: 0>)
    Advance(start=0, stop=3)
    Reverse(start=2, stop=3)
    Load(step=0, level=<Level.MEMORY: 0>)
    Discard(step=0, level=<Level.MEMORY: 0>)
    Keep(step=0, level=<Level.MEMORY: 0>)
    Reverse(start=1, stop=2)
    Reverse(start=0, stop=1)
    Discard(step=0, level=<Level.MEMORY: 0>)
    """

    n_steps: int
    n_snapshots: int

    def __post_init__(self) -> None:
        _check(self.n_steps, self.n_snapshots)

    @property
    def n_advances(self) -> int:
        """The single steps that the schedule will run forward; runs through the actions."""
        runs = (action for action in self.actions() if isinstance(action, Advance | Keep))
        return sum(run.stop - run.start if isinstance(run, Advance) else 1 for run in runs)

    def actions(self) -> Iterator[Action]:
        """All actions in order, made one after the other."""
        n, s = self.n_steps, self.n_snapshots
        rows = mixed_table(n, s) if n > s + 1 and s > 1 else ()
        held: list[Store | Keep] = []
        end, at = n, 0
        while end:
            yield from self._forward(rows, held, end, at)
            yield Reverse(end - 1, end)
            end -= 1
            if held and end == n - 1 and held[-1] == Keep(end, Level.MEMORY):
                yield Discard(held.pop().step, Level.MEMORY)
            while held and isinstance(held[-1], Keep):
                end = held.pop().step
                yield Reverse(end, end + 1)
                yield Discard(end, Level.MEMORY)
            if held:
                at = held[-1].step
                yield Load(at, Level.MEMORY)

    def _forward(
        self, rows: _Rows, held: list[Store | Keep], end: int, at: int
    ) -> Iterator[Action]:
        """From state `at` to state ``end - 1``; in the forward phase to the end."""
        level = Level.MEMORY
        while True:
            is_stored = bool(held) and held[-1] == Store(at, level)
            n_free = self.n_snapshots - len(held) + is_stored
            piece = _first_piece(end - at, n_free, rows) if at < end - 1 else 1
            if is_stored and piece == 1:
                yield Discard(held.pop().step, level)
            elif piece > 1 and not is_stored:
                held.append(Store(at, level))
                yield held[-1]
            if at == end - 1 and (end < self.n_steps or n_free == 0):
                if end == self.n_steps:
                    yield Advance(at, end)
                return
            if piece == 1:
                held.append(Keep(at, level))
                yield held[-1]
            elif at + piece == self.n_steps - 1 and len(held) == self.n_snapshots:
                yield Advance(at, self.n_steps)
                return
            else:
                yield Advance(at, at + piece)
            at += piece
            if at == self.n_steps:
                return
