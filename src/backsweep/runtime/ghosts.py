"""Fetches the ghosts of what a scan carries from the ranks that own them, after each step."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from backsweep.comm import AbstractComm, HaloExchange
from backsweep.passes.partition.halo import Halo, HaloField, components, made_of_read
from backsweep.runtime.arrays import CALL, address_of
from backsweep.runtime.pace import SharedPace

if TYPE_CHECKING:
    from backsweep.runtime.sweeper import Failure, Sweeper


@dataclass(frozen=True)
class Carried:
    """Local arrays whose ghosts are fetched.

    Attributes
    ----------
    arrays : list of ndarray or None
        By their component; None of what no rank reads beyond its block.
    again : sequence of callable
        What depends on ghosts, to be made again after them.
    """

    arrays: Sequence[np.ndarray | None]
    again: Sequence[Callable[[], None]] = ()


Found = Callable[[tuple[int, ...]], Carried]
"""The arrays at addresses that compiled code has told."""

MAX_PREPARED = 64
"""Sets of arrays whose exchange is prepared: rings have a few positions."""


class Round:
    """The ghosts of some carried arrays.

    Parameters
    ----------
    fields : sequence of HaloField
        The same ones on every rank.
    comm : AbstractComm

    Raises
    ------
    CommError
        If the ranks do not fit together.
    """

    def __init__(self, fields: Sequence[HaloField], comm: AbstractComm) -> None:
        needs = comm.allgather([f.is_read for f in fields])
        read = [any(own[k] for own in needs) for k in range(len(fields))]
        made = made_of_read(fields, read)
        everywhere = [f for k, f in enumerate(fields) if read[k] or k in made]
        self.all = _Exchange(everywhere, comm)
        self.made = _Exchange([fields[k] for k in made], comm)
        self.fetched = components(fields, made)

    def begin(self, carried: Carried) -> None:
        """Fetch all ghosts of the first arrays, in place."""
        self.all.prepared(carried)()

    def step(self, carried: Carried) -> Callable[[], None]:
        """What fetches the ghosts of arrays that a step has made; what it handed on has them."""
        return self.made.prepared(carried)

    def close(self) -> None:
        self.all.close()
        self.made.close()


class _Exchange:
    """One round of messages about some of the local arrays."""

    def __init__(self, fields: Sequence[HaloField], comm: AbstractComm) -> None:
        self.fields = fields
        self._nothing = [np.empty((0,) * len(f.shape), f.dtype) for f in fields]
        self.exchange: HaloExchange | None = None
        if fields:
            self.exchange = HaloExchange(
                comm,
                [f.shape for f in fields],
                [f.owned for f in fields],
                [f.layout for f in fields],
                [f.dtype for f in fields],
            )

    def prepared(self, carried: Carried) -> Callable[[], None]:
        if self.exchange is None:
            return lambda: None
        arrays = [
            nothing if f.component < 0 else carried.arrays[f.component]
            for f, nothing in zip(self.fields, self._nothing, strict=True)
        ]
        exchange = self.exchange.prepared(arrays)  # type: ignore[arg-type]

        def fetch() -> None:
            exchange()
            for make in carried.again:
                make()

        return fetch

    def close(self) -> None:
        if self.exchange is not None:
            self.exchange.close()


class Ghosts:
    """Rounds for the states of a scan and for their cotangents. Collective."""

    def __init__(self, halo: Halo) -> None:
        self.comm = halo.comm
        self.states = Round(halo.states, halo.comm)
        self.bars = Round(halo.bars, halo.comm)

    def serve(self, sweeper: Sweeper, served: Mapping[str, tuple[int, Found]]) -> None:
        """Let compiled code fetch ghosts: it writes addresses of its arrays and calls back.

        `served` has the number of addresses, and what lies there. From now on the sweep pauses
        after the same steps as those of the other ranks.
        """
        sweeper.pace = SharedPace(sweeper.pace.steps, self.comm)
        for what, (n, find) in served.items():
            made = sweeper.bind(f"{what}_made", np.zeros(max(1, n), np.int64))
            call = CALL(self._server(sweeper.failure, getattr(self, what), made[:n], find))
            sweeper.keep.append(call)
            sweeper.values[f"fetch_{what}"] = address_of(call)

    @staticmethod
    def _server(
        failure: Failure, round_: Round, made: np.ndarray, find: Found
    ) -> Callable[[], None]:
        known: dict[tuple[int, ...], Callable[[], None]] = {}

        def serve() -> None:
            if failure.error is not None:
                return
            try:
                key = tuple(made.tolist())
                if key not in known:
                    if len(known) >= MAX_PREPARED:
                        known.clear()  # a trajectory has each address once
                    known[key] = round_.step(find(key))
                known[key]()
            except BaseException as error:  # compiled code cannot raise it
                failure.error = error

        return serve

    def close(self) -> None:
        """Give buffers and requests back."""
        self.states.close()
        self.bars.close()


@contextlib.contextmanager
def ghosts_of(params: Mapping[str, Any]) -> Iterator[Ghosts | None]:
    """Of a scan that is cut into blocks; None of any other. They are kept for its next run."""
    halo = params.get("halo")
    if halo is None:
        yield None
        return
    if not halo.kept:
        halo.kept.append(Ghosts(halo))
    try:
        yield halo.kept[0]
    except BaseException:  # of messages that may still be under way
        halo.kept.pop().close()
        raise
