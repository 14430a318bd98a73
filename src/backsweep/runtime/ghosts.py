"""Fetches the ghosts of what a scan carries from the ranks that own them, after each step."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from backsweep.comm import AbstractComm, HaloExchange
from backsweep.comm.prepared import PreparedExchange
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


ALL_ROWS = 1 << 40


class Fetch:
    """The ghosts of certain arrays. Collective."""

    def __init__(self, exchange: PreparedExchange | None, carried: Carried) -> None:
        self._exchange, self._again = exchange, carried.again

    def __call__(self) -> None:
        self.start()
        self.finish()

    def start(self) -> None:
        if self._exchange is not None:
            self._exchange.start()

    def finish(self) -> None:
        if self._exchange is None:
            return
        self._exchange.finish()
        for make in self._again:
            make()


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
        self.components = components(fields, range(len(fields)))

    def begin(self, carried: Carried) -> None:
        """Fetch all ghosts of the first arrays, in place."""
        self.all.prepared(carried)()

    def step(self, carried: Carried) -> Fetch:
        """What fetches the ghosts of arrays that a step has made; what it handed on has them."""
        return self.made.prepared(carried)

    def quiet_rows(self, component: int) -> tuple[int, int]:
        """Rows of a local array that no message after a step touches: first, last + 1."""
        return self.made.quiet_rows(component)

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

    def prepared(self, carried: Carried) -> Fetch:
        if self.exchange is None:
            return Fetch(None, carried)
        arrays = [
            nothing if f.component < 0 else carried.arrays[f.component]
            for f, nothing in zip(self.fields, self._nothing, strict=True)
        ]
        return Fetch(self.exchange.prepared(arrays), carried)  # type: ignore[arg-type]

    def quiet_rows(self, component: int) -> tuple[int, int]:
        for k, f in enumerate(self.fields):
            if f.component == component and self.exchange is not None:
                return self.exchange.quiet_rows(k)
        return 0, ALL_ROWS

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
            round_: Round = getattr(self, what)
            made = sweeper.bind(f"{what}_made", np.zeros(max(1, n), np.int64))
            server = Server(sweeper.failure, round_, made[:n], find)
            for name, call in server.calls().items():
                sweeper.keep.append(call)
                sweeper.values[f"{name}_{what}"] = address_of(call)
            for k in round_.components:
                first, last = round_.quiet_rows(k)
                sweeper.values[f"{what}_first{k}"] = first
                sweeper.values[f"{what}_last{k}"] = last

    def close(self) -> None:
        """Give buffers and requests back."""
        self.states.close()
        self.bars.close()


class Server:
    """What compiled code calls to have ghosts fetched: where they are it has told before."""

    def __init__(self, failure: Failure, round_: Round, made: np.ndarray, find: Found) -> None:
        self._failure, self._round, self._made, self._find = failure, round_, made, find
        self._known: dict[tuple[int, ...], Fetch] = {}
        self._under_way: Fetch | None = None

    def calls(self) -> dict[str, Any]:
        """For compiled code, by what they do: start or finish an exchange."""
        works = {"start": self._start, "finish": self._finish}
        return {name: CALL(partial(self._serve, work)) for name, work in works.items()}

    def _serve(self, work: Callable[[], None]) -> None:
        if self._failure.error is not None:
            return
        try:
            work()
        except BaseException as error:  # compiled code cannot raise it
            self._failure.error = error

    def _start(self) -> None:
        key = tuple(self._made.tolist())
        if key not in self._known:
            if len(self._known) >= MAX_PREPARED:
                self._known.clear()  # a trajectory has each address once
            self._known[key] = self._round.step(self._find(key))
        self._under_way = self._known[key]
        self._under_way.start()

    def _finish(self) -> None:
        assert self._under_way is not None
        self._under_way.finish()
        self._under_way = None


def exchanged(params: Mapping[str, Any]) -> tuple[int, ...] | None:
    """Carried components of which messages may travel after a step; None if it is not cut.

    Those that the step of the whole grid computes, be it that it hands them on on this rank.
    """
    halo = params.get("halo")
    if halo is None:
        return None
    made = [k for k, f in enumerate(halo.states) if f.source == k]
    return components(halo.states, made)


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
