"""Rows of a loop whose end is found on the way, then those of its reverse sweep.

`schedule.Online` says where snapshots go; what it says depends on their number alone, so that
rows are made once per process. They are handed out in blocks, ahead of the run: the machine
halts where the condition fails and ignores the rest of a block, and what is held then is read off
the rows that it has executed.

Known to be suboptimal: `Online` is Python, and with 64 snapshots the rows of 100,000 steps take
1.5 s when they are made for the first time, which steps of less than 15 us feel.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from functools import lru_cache
from itertools import islice

import numpy as np

from backsweep.errors import SnapshotError
from backsweep.primitives.control import too_many_steps
from backsweep.runtime.rows import OUTSIDE, TableRows
from backsweep.schedule import (
    ADVANCE,
    MAX_STEPS,
    REVERSE,
    STORE,
    Binomial,
    Online,
    RowWriter,
    resume_state,
)

FIRST_BLOCK, LAST_BLOCK = 64, 4096
"""Rows of a block: they grow, for a loop may be short."""

MAX_BLOCKS = 256
"""Blocks that are kept for the next loop: of about a million steps with 64 snapshots."""

Position = Callable[[], tuple[int, bool]]
"""Step of the state in work, and whether the loop is over."""


class OnlineRows:
    """Rows of both phases, for one loop.

    Parameters
    ----------
    n_snapshots : int
        The initial state included, which is kept outside of the arena.
    position : callable
    max_steps : int, optional
        More steps are an error.
    at : int
        The step whose state is in work at the start.

    Attributes
    ----------
    n_steps : int or None
        Known after the first phase.
    """

    def __init__(
        self, n_snapshots: int, position: Position, max_steps: int | None = None, at: int = 0
    ) -> None:
        self.n_snapshots, self.position, self.at = n_snapshots, position, at
        self.limit = MAX_STEPS if max_steps is None else max_steps
        self.n_steps: int | None = None
        self.steps = np.full(n_snapshots - 1, -1, np.int64)
        """Of the snapshot in each slot; -1 where there is none."""

    def blocks(self) -> Iterator[np.ndarray]:
        """Rows of the phase that comes next."""
        return self._forward() if self.n_steps is None else self._reverse(self.n_steps)

    def lose(self, n_done: int, error: SnapshotError) -> None:
        """Nothing is on disk."""
        raise error

    def _forward(self) -> Iterator[np.ndarray]:
        for block in self._placed_blocks():
            yield block
            at, is_over = self.position()
            self._follow(block, at, is_over)
            if is_over:
                self.n_steps = at
                return
            if at >= self.limit:
                raise too_many_steps(at)

    def _placed_blocks(self) -> Iterator[np.ndarray]:
        """Rows from the first step of this run on, up to the step that is one too many."""
        # The state of a run that begins in the middle is a snapshot like any other.
        n_own = self.n_snapshots - (self.at > 0)
        if n_own == 0:
            yield np.array([[ADVANCE, self.at, self.limit, -1]], np.int64)
            return
        for known in online_blocks(n_own):
            block = known.copy()
            block[:, 1:3] += self.at
            if self.at == 0:
                block[:, 3] = np.maximum(block[:, 3] - 1, OUTSIDE)
            is_beyond = (block[:, 0] == ADVANCE) & (block[:, 1] >= self.limit)
            if is_beyond.any():
                block = block[: int(np.argmax(is_beyond))]
            np.minimum(block[:, 2], self.limit, out=block[:, 2])
            yield block

    def _follow(self, block: np.ndarray, at: int, is_over: bool) -> None:
        """Note what is held after the rows of a block that were executed."""
        if is_over:
            is_last = (block[:, 0] == ADVANCE) & (block[:, 2] >= at)
            block = block[: int(np.argmax(is_last))]
        keyed = block[(block[:, 0] != ADVANCE) & (block[:, 3] != OUTSIDE)]
        slots, last = np.unique(keyed[::-1, 3], return_index=True)
        rows = keyed[::-1][last]
        self.steps[slots] = np.where(rows[:, 0] == STORE, rows[:, 1], -1)

    def _reverse(self, n: int) -> Iterator[np.ndarray]:
        """As `Online.reverse`; the slots stay where they are."""
        if n == 0:
            return
        order = np.argsort(self.steps, kind="stable")
        n_free = int(np.count_nonzero(self.steps < 0))
        places = np.concatenate([order[n_free:], order[:n_free]])
        held = [0, *self.steps[order[n_free:]].tolist()]
        state = resume_state(n, self.n_snapshots, held, n - 1)
        yield np.array([[REVERSE, n - 1, n, -1]], np.int64)
        for rows in TableRows(Binomial(n, self.n_snapshots), 1, state).blocks():
            is_placed = rows[:, 3] != OUTSIDE
            rows[is_placed, 3] = places[rows[is_placed, 3]]
            yield rows


class _Known:
    """The first blocks for a number of snapshots, made when they are first needed."""

    def __init__(self, n_snapshots: int) -> None:
        self.source = _made(n_snapshots)
        self.blocks: list[np.ndarray] = []
        self.lock = threading.Lock()

    def block(self, k: int) -> np.ndarray:
        with self.lock:
            while len(self.blocks) <= k:
                self.blocks.append(next(self.source))
            return self.blocks[k]


_known = lru_cache(maxsize=4)(_Known)


def online_blocks(n_snapshots: int) -> Iterator[np.ndarray]:
    """Rows of the forward phase of `Online`, without end; not to be written to."""
    known = _known(n_snapshots)
    for k in range(MAX_BLOCKS):
        yield known.block(k)
    yield from islice(_made(n_snapshots), MAX_BLOCKS, None)


def _made(n_snapshots: int) -> Iterator[np.ndarray]:
    writer, size = RowWriter(n_snapshots), FIRST_BLOCK
    block: list[tuple[int, int, int, int]] = []
    for action in Online(n_snapshots).forward():
        block += writer.rows(action)
        if len(block) >= size or block[-1][2] >= MAX_STEPS:
            yield np.array(block, np.int64)
            block, size = [], min(2 * size, LAST_BLOCK)
