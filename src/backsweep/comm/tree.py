"""Sums over numbered items whose bits depend neither on the ranks nor on the order of finishing."""

from __future__ import annotations

from collections.abc import Sequence
from typing import final

import numpy as np

from backsweep.comm.base import AbstractComm

Terms = Sequence[np.ndarray]

Node = tuple[int, int]
"""Level and number of a node of the tree."""


def items_of_rank(n_items: int, rank: int, size: int) -> range:
    """Contiguous numbers, so that a rank holds few partial sums."""
    return range(n_items * rank // size, n_items * (rank + 1) // size)


@final
class TreeSum:
    """The sum of n terms along the binary tree of their numbers.

    A node of the tree is added as soon as both of its halves are there. Neighbours form whole
    nodes: a rank with contiguous numbers holds at most 2 log2(n) partial sums.

    Parameters
    ----------
    n : int
        Number of terms.
    """

    def __init__(self, n: int) -> None:
        self.n = n
        self._partial: dict[Node, Terms] = {}

    def add(self, number: int, terms: Terms) -> None:
        """Add the arrays of one item."""
        self.put(0, number, terms)

    def nodes(self) -> dict[Node, Terms]:
        """The sums so far by (level, k): of the items from k 2^level to (k + 1) 2^level - 1."""
        return dict(self._partial)

    def put(self, level: int, k: int, terms: Terms) -> None:
        """Add a node of a tree with as many terms."""
        while (1 << level) < self.n:
            sibling = k ^ 1
            if sibling << level < self.n:
                other = self._partial.pop((level, sibling), None)
                if other is None:
                    break
                left, right = (terms, other) if k < sibling else (other, terms)
                terms = [a + b for a, b in zip(left, right, strict=True)]
            level, k = level + 1, k >> 1
        self._partial[level, k] = terms

    def reduce(self, comm: AbstractComm) -> Terms | None:
        """The whole sum, on the root. Collective: every rank must call."""
        nodes = self.collect(comm)
        if nodes is None:
            return None
        (total,) = nodes.values()
        return total

    def collect(self, comm: AbstractComm) -> dict[Node, Terms] | None:
        """The sums of all ranks together, on the root. Collective: every rank must call."""
        step = 1
        while step < comm.size:
            if comm.rank % (2 * step):
                comm.send(list(self._partial.items()), comm.rank - step)
                self._partial.clear()
                return None
            if comm.rank + step < comm.size:
                for (level, k), terms in comm.receive(comm.rank + step):
                    self.put(level, k, terms)
            step *= 2
        return self.nodes()
