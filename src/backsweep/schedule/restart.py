r"""What a run that goes on in the middle has to advance, and which snapshots it should start with.

Snapshots that a run finds are not always worth keeping: they were placed for other steps left, or
another number of snapshots, and what is held is not moved. Known to be suboptimal: only the
youngest ones are given up, not those between.

Source: the rules of `binomial.resume_state`, and Griewank & Walther 2000,
doi:10.1145/347837.347846, for the segments.
"""

from __future__ import annotations

from collections.abc import Sequence

from backsweep.schedule.binomial import beta, extra_advances, repetition


def worth_keeping(
    n_snapshots: int, held: Sequence[int], end: int, at: int | None = None
) -> list[int]:
    """Of the snapshots held the older ones, as many as make for the fewest advances.

    So a run that goes on takes at most one advance up to `at` (or `end`) more than it would have
    taken without having been stopped, wherever its snapshots are.

    Parameters
    ----------
    n_snapshots, held, end, at
        As for `resume_state`; `held` is not empty.

    Returns
    -------
    list of int
        The first one of `held`, the initial state, at least.

    Examples
    --------
    >>> worth_keeping(3, [0, 50, 75], end=76)
    [0, 50, 75]
    >>> worth_keeping(3, [0, 1, 2], end=76)
    [0]
    """
    best, best_cost, before = 1, -1, 0
    for k, low in enumerate(held):
        cost = before + _rest(n_snapshots - k, low, end, at)
        if best_cost < 0 or cost <= best_cost:
            best, best_cost = k + 1, cost
        if k + 1 < len(held):
            before += extra_advances(held[k + 1] - low, n_snapshots - k)
    return list(held[:best])


def _rest(free: int, low: int, end: int, at: int | None) -> int:
    """Advances that the segment [low, end) takes; `free` snapshots, the one of `low` included."""
    length = end - low
    if at is None:
        return extra_advances(length, free)
    done = at - low
    if free == 1 and done:
        return length - done + extra_advances(length - 1, 1)
    r = repetition(length, free)
    if free == 1 or done <= min(beta(free, r - 1), length - beta(free - 1, r - 1)):
        return extra_advances(length, free) + 1 - done
    return extra_advances(done, free) + extra_advances(length - done, free - 1) + 1
