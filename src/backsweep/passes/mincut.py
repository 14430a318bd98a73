"""Which values to keep so that others can be computed again: a minimum cut.

Each value that is wanted later is either kept, or computed again from values that are kept,
computed again or there anyway. Two yes-or-no questions describe this: is value v *needed*, and is
equation e *run again*? Their costs are those of a cut between what is answered yes (on the side of
the source) and no (on the side of the sink):

* source -> v, infinite: v is wanted;
* v -> e that computes v, keeping(v): v is needed and e is not run again, so v is kept;
* e -> sink, running(e);
* e -> u for each input u, infinite: an equation that is run again needs its inputs;
* v -> sink, keeping(v), for an input v of the program that is not there anyway.

Capacities are Python's integers: no rounding, no overflow. Of all minimum cuts the one with the
fewest values on the side of the source is taken: it is the same whatever flow is found, and where
keeping and running cost the same it keeps.

Known to be suboptimal: SciPy's `maximum_flow` would be faster on programs of many thousand
equations, but its capacities have 32 bits (larger ones give a flow of 0, without an error), and
importing it takes 0.3 s.

References
----------
E. A. Dinic (1970), Algorithm for solution of a problem of maximum flow in networks with power
estimation, Soviet Math. Doklady 11, 1277-1280. The cut is that of "min-cut rematerialisation"
(PyTorch's functorch.compile.min_cut_rematerialization_partition), with a cost of running.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass

from backsweep.ir import Equation, Program, Var


@dataclass(frozen=True, slots=True)
class Keeping:
    """What to keep.

    Attributes
    ----------
    kept : tuple of Var
        In the order of the program: inputs, then values by their equations.
    cost : int
        Of keeping them and of running what is run again.
    """

    kept: tuple[Var, ...]
    cost: int


def cheapest_keeping(
    program: Program,
    available: Collection[Var],
    wanted: Iterable[Var],
    keeping: Callable[[Var], int | None],
    running: Callable[[Equation], int],
) -> Keeping:
    """The values to keep, at the least cost, so that the wanted ones can be had later.

    Parameters
    ----------
    program : Program
    available : collection of Var
        Inputs that are there later as well.
    wanted : iterable of Var
    keeping : callable Var -> int or None
        Cost of keeping a value; None if that is impossible.
    running : callable Equation -> int
        Cost of running an equation again.
    """
    network = _Network()
    needed = {v: network.node() for v in program.inputs if v not in available}
    for v, node in needed.items():
        network.connect(node, SINK, keeping(v))
    again: dict[Var, int] = {}
    for eqn in program.equations:
        node = network.node()
        network.connect(node, SINK, running(eqn))
        for a in eqn.inputs:
            if isinstance(a, Var) and a in needed:
                network.connect(node, needed[a], None)
        for v in eqn.outputs:
            needed[v], again[v] = network.node(), node
            network.connect(needed[v], node, keeping(v))
    for v in wanted:
        if v in needed:
            network.connect(SOURCE, needed[v], None)
    yes = network.minimum_cut()
    kept = tuple(v for v, k in needed.items() if k in yes and again.get(v) not in yes)
    run = {id(e): e for e in program.equations for v in e.outputs if again[v] in yes}
    cost = sum(keeping(v) or 0 for v in kept) + sum(map(running, run.values()))
    return Keeping(kept, cost)


SOURCE, SINK = 0, 1


class _Network:
    """Capacities between nodes, and Dinic's maximum flow through them."""

    def __init__(self) -> None:
        self.edges: list[list[int]] = [[], []]
        """Of each node: numbers of the edges that leave it. Edge k ^ 1 is the reverse of k."""
        self.heads: list[int] = []
        self.capacities: list[int | None] = []

    def node(self) -> int:
        self.edges.append([])
        return len(self.edges) - 1

    def connect(self, tail: int, head: int, capacity: int | None) -> None:
        """Add an edge; None is infinite."""
        for node, other, value in ((tail, head, capacity), (head, tail, 0)):
            self.edges[node].append(len(self.heads))
            self.heads.append(other)
            self.capacities.append(value)

    def minimum_cut(self) -> set[int]:
        """The nodes on the side of the source, as few as possible."""
        infinite = 1 + sum(c for c in self.capacities if c is not None)
        left = [infinite if c is None else c for c in self.capacities]
        while True:
            levels = self._levels(left)
            if SINK not in levels:
                return set(levels)
            self._augment(left, levels)

    def _levels(self, left: Sequence[int]) -> dict[int, int]:
        """Distance from the source of what can be reached along edges with capacity left."""
        levels = {SOURCE: 0}
        queue = [SOURCE]
        for node in queue:
            for k in self.edges[node]:
                if left[k] and self.heads[k] not in levels:
                    levels[self.heads[k]] = levels[node] + 1
                    queue.append(self.heads[k])
        return levels

    def _augment(self, left: list[int], levels: dict[int, int]) -> None:
        """A blocking flow: along paths from level to level, until none is left."""
        tried = [0] * len(self.edges)
        path: list[int] = []
        node = SOURCE
        while True:
            k = self._next(node, tried, left, levels)
            if k is not None:
                path.append(k)
                node = self.heads[k]
            elif path:
                node = self.heads[path.pop() ^ 1]
                tried[node] += 1
            else:
                return
            if node == SINK:
                amount = min(left[k] for k in path)
                for k in path:
                    left[k] -= amount
                    left[k ^ 1] += amount
                path, node = [], SOURCE

    def _next(
        self, node: int, tried: list[int], left: Sequence[int], levels: dict[int, int]
    ) -> int | None:
        """The first edge of a node that leads to the next level and has capacity left."""
        edges = self.edges[node]
        while tried[node] < len(edges):
            k = edges[tried[node]]
            if left[k] and levels.get(self.heads[k]) == levels[node] + 1:
                return k
            tried[node] += 1
        return None
