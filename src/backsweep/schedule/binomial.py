r"""Optimal (binomial, "revolve") checkpointing for a known number of steps.

With `s` snapshots, the initial state among them, and every step advanced at most `r`
times, ``beta(s, r) = C(s + r, s)`` steps can be reversed and no more. `fill` walks the
optimal schedule with nothing but the stack of the snapshots held: the steps still to be
reversed always are ``[0, end)`` and the youngest snapshot `a` always is the lowest state
of the segment ``[a, end)`` that comes next, so no segment ends need be remembered.

`fill` is written in the subset of Python that Numba compiles; this package imports no
compiler, the runtime compiles it (``numba.njit(fill)``), and `Binomial.actions` runs it as
it stands: one logic.

Source: Griewank & Walther 2000, see `extra_advances`.

Known to be suboptimal: a schedule that keeps residuals as well as states (Maddison 2024)
needs fewer steps where they fit. That the number of *stores* is least is tested, not proved.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import comb
from typing import Final, final

import numpy as np
from numpy.typing import NDArray

from backsweep.errors import ScheduleError
from backsweep.schedule.actions import ADVANCE, DISCARD, LOAD, REVERSE, STORE
from backsweep.schedule.base import TableSchedule, check_n_steps

FORWARD_PHASE: Final = 0
REVERSE_PHASE: Final = 1
FINISHED: Final = 2

PHASE: Final = 0
"""Index in `head` of the phase: `FORWARD_PHASE`, `REVERSE_PHASE` or `FINISHED`."""
_N, _S, _TOP, _END, _AT = 1, 2, 3, 4, 5
_HEAD_SIZE = 6


def beta(s: int, r: int) -> int:
    r"""Longest chain that `s` snapshots reverse with every step advanced at most `r` times.

    .. math:: \beta(s, r) = \binom{s + r}{s}

    The initial state is one of the `s` snapshots. ``beta(s, -1)`` is 0.

    References
    ----------
    Griewank & Walther 2000, ACM TOMS 26(1), 19-45, Prop. 1, doi:10.1145/347837.347846.

    Examples
    --------
    >>> beta(3, 2)
    10
    """
    check_n_snapshots(s)
    return comb(s + r, s) if r >= 0 else 0


def repetition(n: int, s: int) -> int:
    r"""How often a step is advanced at most: :math:`r = \min\{r : \beta(s, r) \ge n\}`.

    References
    ----------
    Griewank & Walther 2000, ACM TOMS 26(1), 19-45, Prop. 1, doi:10.1145/347837.347846.

    Examples
    --------
    >>> repetition(1000, 20)
    3
    """
    if n < 0:
        raise ScheduleError(f"a schedule of n = {n} steps was asked for; n must be 0 or more")
    high = 1
    while beta(s, high) < n:
        high *= 2
    low = -1
    while high - low > 1:
        middle = (low + high) // 2
        if beta(s, middle) >= n:
            high = middle
        else:
            low = middle
    return max(high, 0)


def extra_advances(n: int, s: int) -> int:
    r"""Fewest advances that reversing `n` steps with `s` snapshots takes, `t(n, s)`.

    .. math:: t(n, s) = r n - \binom{s + r}{s + 1}, \qquad r = \min\{r : \beta(s, r) \ge n\}

    The last step is not counted: the schedule that also runs it forward, because the loss
    needs its result, makes ``t(n, s) + 1`` advances. Exact for integers of any size.

    References
    ----------
    Griewank & Walther 2000, ACM TOMS 26(1), 19-45, Prop. 1 and eq. (2),
    doi:10.1145/347837.347846.

    Examples
    --------
    >>> extra_advances(1000, 20)
    2747
    """
    r = repetition(n, s)
    return r * n - comb(s + r, s + 1)


def fill(stack: NDArray[np.int64], head: NDArray[np.int64], table: NDArray[np.int64]) -> int:
    r"""Write the next rows of the binomial schedule to `table`.

    Parameters
    ----------
    stack, head : ndarray, int64
        From `Binomial.start`; hold all that is remembered between calls. ``head[PHASE]``
        may be read by the caller, the rest is private.
    table : ndarray, shape (at least 1, 4), int64
        Receives rows ``(kind, start, stop, slot)``.

    Returns
    -------
    n_rows : int
        Rows written. 0 when the schedule is finished. Fewer than fit right after the row
        that ends the forward phase (``head[PHASE]`` then turns to `REVERSE_PHASE`), so that
        the caller can evaluate the loss, and after the last row.

    Notes
    -----
    Each turn of the loop writes one row, chosen from the state alone. A segment of `n`
    steps with `s` snapshots is split after `m` steps, where any `m` with

    .. math:: \beta(s, r-2) \le m \le \beta(s, r-1), \quad
              \beta(s-1, r-1) \le n - m \le \beta(s-1, r)

    is optimal, for `t(., s)` is convex and has slope `r` between :math:`\beta(s, r-1)` and
    :math:`\beta(s, r)`. Of these the one nearest to
    :math:`n - m = \beta(s-1, r-1) + \beta(s-2, r-1)` is taken: it needs the fewest stores
    (as few as a dynamic programme finds for n < 300, s <= 30; nearly twice as many for the
    smallest or the largest `m` at n = 13465, s = 116). O(s) memory, O(r) time per split.

    References
    ----------
    Griewank & Walther 2000, ACM TOMS 26(1), 19-45, doi:10.1145/347837.347846.
    """
    phase, n, s = head[PHASE], head[_N], head[_S]
    top, end, at = head[_TOP], head[_END], head[_AT]
    i = 0
    while i < len(table) and phase != FINISHED:
        kind, start, stop, slot = REVERSE, end - 1, end, -1
        if end == 0 and top < 0:
            phase = FINISHED
            break
        if top >= 0 and stack[top] == end:
            kind, start, stop, slot = DISCARD, end, end, top
            top -= 1
        elif at < 0:
            at = stack[top]
            kind, start, stop, slot = LOAD, at, at, top
        elif phase == REVERSE_PHASE and at == end - 1:
            end -= 1
            at = -1
        else:
            # Where the segment from the youngest snapshot on is split.
            low, free = stack[top] if top >= 0 else at, s - top
            length = end - low
            stop = end - 1
            if free > 1 and length > 2:
                # b = beta(free, r), p = beta(free, r-1), q = beta(free-1, r-1), and by
                # Pascal's rule beta(free, r-2) = p - q, beta(free-1, r) = b - p.
                r, p, b = 1, 1, free + 1
                while b < length:
                    r += 1
                    p, b = b, b * (free + r) // r
                q = p * free // (free + r - 1)
                m = length - q - q * (free - 1) // (free + r - 2)
                m = max(m, p - q, length - (b - p))
                stop = low + min(m, p, length - q)
            # After a restart it may be full, or `at` lie before or behind the split.
            if top < 0 or (free > 1 and low < at >= stop):
                top += 1
                stack[top] = at
                kind, start, stop, slot = STORE, at, at, top
            else:
                kind, start = ADVANCE, at
                at = stop
                if phase == FORWARD_PHASE and stop == end - 1:
                    stop = n
                    phase = REVERSE_PHASE
        table[i, 0], table[i, 1], table[i, 2], table[i, 3] = kind, start, stop, slot
        i += 1
        if kind == ADVANCE and stop == n:
            break
    head[PHASE], head[_TOP], head[_END], head[_AT] = phase, top, end, at
    return i


@final
@dataclass(frozen=True, slots=True)
class Binomial(TableSchedule):
    """The schedule with the fewest advances for a known number of steps.

    Parameters
    ----------
    n_steps : int
        Number of steps, 0 to 2**31.
    n_snapshots : int
        Snapshots that may be held at a time, the initial state included; at least 1. More
        than ``n_steps - 1`` are never used.

    Raises
    ------
    ScheduleError
        If either number is out of its range.

    Notes
    -----
    ``extra_advances(n, s) + 1`` advances, n reverse steps, n - 1 loads. Slots follow stack
    discipline: the snapshot in slot d is older than that in slot d + 1; slot 0 holds the
    initial state.

    References
    ----------
    Griewank & Walther 2000, ACM TOMS 26(1), 19-45, doi:10.1145/347837.347846.

    Examples
    --------
    >>> for action in Binomial(n_steps=2, n_snapshots=1).actions():
    ...     print(action)
    Store(step=0, level=<Level.MEMORY: 0>)
    Advance(start=0, stop=2)
    Reverse(start=1, stop=2)
    Load(step=0, level=<Level.MEMORY: 0>)
    Reverse(start=0, stop=1)
    Discard(step=0, level=<Level.MEMORY: 0>)
    """

    n_steps: int
    n_snapshots: int

    fill = staticmethod(fill)

    def __post_init__(self) -> None:
        check_n_steps(self.n_steps)
        check_n_snapshots(self.n_snapshots)

    @property
    def n_advances(self) -> int:
        """``t(n, s) + 1``: the single steps that the schedule will run forward."""
        return extra_advances(self.n_steps, self.n_snapshots) + 1 if self.n_steps else 0

    def start(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Fresh ``(stack, head)`` for `fill`, before the first action."""
        return initial_state(self.n_steps, self.n_snapshots)


def initial_state(n: int, s: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """``(stack, head)`` of `fill` before the first row of `n` steps and `s` snapshots."""
    s = min(s, max(n - 1, 1))
    head = np.zeros(_HEAD_SIZE, np.int64)
    head[PHASE], head[_N], head[_S] = FORWARD_PHASE, n, s
    head[_TOP], head[_END], head[_AT] = -1, n, 0
    return np.zeros(s, np.int64), head


def resume_state(
    n_steps: int, n_snapshots: int, held: Sequence[int], end: int, at: int | None = None
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    r"""``(stack, head)`` with which `fill` goes on in the middle of a run.

    Parameters
    ----------
    n_steps : int
        Steps of the whole run.
    n_snapshots : int
        Snapshots that may be held from now on, at least as many as are held.
    held : sequence of int
        Steps whose snapshots lie in the slots 0, 1, ..., ascending; the first is 0. None is
        needed where `at` is 0.
    end : int
        The steps ``[0, end)`` are still to be reversed. A snapshot of `end` is discarded.
    at : int, optional
        In the forward phase (`end` is then `n_steps`) the step whose state is in the work
        buffer. None in the reverse phase, in which the first row loads a snapshot.

    Raises
    ------
    ScheduleError
        If the values contradict each other.

    Notes
    -----
    What is held is not moved. The segment from the snapshot in slot i to the next takes
    ``t(length, n_snapshots - i)`` advances, the last one, up to `end`, likewise.

    The forward phase goes on from `at` to where the segment from the last snapshot on is split,
    as if it had begun there; if `at` is behind that, it is stored itself. By the convexity of
    ``t`` both take no more than starting over from that snapshot would. If no slot is left, it
    runs to the end first and then comes back to the last snapshot.

    Examples
    --------
    >>> stack, head = resume_state(100, 3, [0, 40, 62], end=70)
    >>> table = np.empty((2, 4), np.int64)
    >>> n_rows = fill(stack, head, table)
    >>> table.tolist()  # load 62 from slot 2, advance to 69
    [[2, 62, 62, 2], [0, 62, 69, -1]]
    """
    check_n_steps(n_steps)
    check_n_snapshots(n_snapshots)
    steps = [int(step) for step in held]
    if any(b <= a for a, b in zip(steps, steps[1:], strict=False)) or steps[:1] not in ([], [0]):
        raise ScheduleError(f"held = {steps} must ascend and begin with the initial state, 0")
    if len(steps) > n_snapshots:
        raise ScheduleError(
            f"{len(steps)} snapshots are held, but n_snapshots = {n_snapshots} are allowed; "
            "discard some first"
        )
    if at is None and not (0 <= end <= n_steps and (steps or not end) and steps[-1:] <= [end]):
        raise ScheduleError(
            f"held = {steps} cannot reverse the steps [0, {end}) of {n_steps}: the initial "
            "state is needed, and no snapshot behind the end"
        )
    if at is not None and not (end == n_steps and 0 <= at < max(n_steps, 1)):
        raise ScheduleError(
            f"at = {at}, end = {end}: in the forward phase nothing is reversed yet, so end must "
            f"be n_steps = {n_steps} and at lie before it"
        )
    if at is not None and not (steps[-1] <= at if steps else at == 0):
        raise ScheduleError(f"at = {at} must not lie before the snapshots held, {steps}")
    s = max(min(n_snapshots, max(n_steps - 1, 1)), len(steps))
    stack, head = np.zeros(s, np.int64), np.zeros(_HEAD_SIZE, np.int64)
    stack[: len(steps)] = steps
    head[PHASE] = REVERSE_PHASE if at is None else FORWARD_PHASE
    head[_N], head[_S], head[_TOP] = n_steps, s, len(steps) - 1
    head[_END], head[_AT] = end, -1 if at is None else at
    return stack, head


def held_state(stack: NDArray[np.int64], head: NDArray[np.int64]) -> tuple[list[int], int, int]:
    """What `fill` has come to: steps of the snapshots held, steps left, step in work or -1."""
    return stack[: head[_TOP] + 1].tolist(), int(head[_END]), int(head[_AT])


def check_n_snapshots(s: int) -> None:
    """Refuse a number of snapshots that reverses nothing."""
    if s < 1:
        raise ScheduleError(
            f"{s} snapshots cannot reverse anything: the initial state is one of them, "
            "so at least 1 is needed"
        )
