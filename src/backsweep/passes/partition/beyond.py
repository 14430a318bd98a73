"""Results of scans that the program around them reads beyond what belongs to the rank."""

from __future__ import annotations

from collections.abc import Iterable

from backsweep.comm import AbstractComm
from backsweep.comm.boxes import Box, is_inside
from backsweep.ir import ArrayType, Atom, Var
from backsweep.passes.partition.cut import enclosing
from backsweep.passes.partition.demand import Demand
from backsweep.passes.partition.localise import Localiser
from backsweep.primitives.communication import fetch_ghosts


class Beyond:
    """Exchanges of ghosts after scans. Collective.

    Parameters
    ----------
    demand : Demand
        Of the program around the scans, complete.
    results : iterable of Var
        Of all scans, in an order that is the same on all ranks.
    comm : AbstractComm
    """

    def __init__(self, demand: Demand, results: Iterable[Var], comm: AbstractComm) -> None:
        self.demand, self.comm = demand, comm
        placed = demand.placed
        owned = [v for v in results if v not in placed.parts and placed.seen[v].has_owner]
        needs = comm.allgather([self._is_short(v) for v in owned])
        self.read = {v for v, *some in zip(owned, *needs, strict=True) if any(some)}

    def _own(self, var: Var) -> Box | None:
        return self.demand.owner.owned(self.demand.placed.seen[var], var.type.shape)

    def _is_short(self, var: Var) -> bool:
        own = self._own(var)
        pieces = self.demand.pieces.get(var, ())
        return any(own is None or not is_inside(piece, own) for piece in pieces)

    def fetch(self, local: Localiser, var: Var, mine: Atom | None) -> None:
        """Give the local program all that it reads of a result, of which a rank has its own."""
        assert isinstance(var.type, ArrayType)
        shape, own = var.type.shape, self._own(var)
        nothing = ((0, 0),) * len(shape)
        pieces = self.demand.pieces.get(var, ())
        layout = enclosing([] if own is None else [own], pieces, shape)
        atom = local.builder(
            fetch_ghosts,
            local.nothing(var.type) if mine is None else mine,
            shape=shape,
            owned=own or nothing,
            layout=layout or nothing,
            comm=self.comm,
        )
        if layout is not None:
            local.has_unwrapped(var, layout, atom, pieces)
