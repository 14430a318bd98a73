"""Messages about boxes of arrays, and the exchange of certain arrays, ready to be repeated."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, final

import numpy as np

from backsweep.comm.base import Parts

if TYPE_CHECKING:
    from backsweep.comm.halo import HaloExchange

Slices = tuple[slice, ...]
Copies = list[tuple[np.ndarray, np.ndarray]]


@dataclass(frozen=True, slots=True)
class Piece:
    """A box of a field's local array and where it lies in a message.

    `number` counts the boxes between two ranks, by field, then by shift.
    """

    number: int
    field: int
    where: Slices
    view: np.ndarray


@dataclass(frozen=True, slots=True)
class Message:
    """Boxes that travel together between this rank and another one."""

    rank: int
    buffer: np.ndarray
    pieces: tuple[Piece, ...]


@dataclass(frozen=True, slots=True)
class Image:
    """A box of ghost cells of a rank that it owns itself, elsewhere in its array."""

    field: int
    ghost: Slices
    owned: Slices


@final
class PreparedExchange:
    """The exchange of certain arrays, made by `HaloExchange.prepared`. Collective.

    It has persistent requests of its own. A message of one box that is contiguous travels from
    where it lies to where it belongs; the others are packed.
    """

    def __init__(
        self,
        halo: HaloExchange,
        outgoing: Sequence[Message],
        incoming: Sequence[Message],
        images: Sequence[Image],
        arrays: Sequence[np.ndarray],
        tag: int,
    ) -> None:
        self._halo = halo
        to_send, self._packed = _in_place(outgoing, arrays)
        to_receive, self._unpacked = _in_place(incoming, arrays)
        self._messages = halo.comm.messages(to_send, to_receive, tag)
        self._images = [(arrays[i.field][i.ghost], arrays[i.field][i.owned]) for i in images]

    def __call__(self) -> None:
        """Fill the ghost cells of the arrays."""
        self.start()
        self.finish()

    def start(self) -> None:
        """Begin, to compute in the meantime.

        Until `finish` ghost cells must not be read or written, and owned cells that other ranks
        see must not be written: contiguous boxes travel from where they lie.
        """
        self._halo.begin("exchange")
        for buffer, cells in self._packed:
            np.copyto(buffer, cells)
        self._messages.start()
        for ghost, owned in self._images:
            np.copyto(ghost, owned)

    def finish(self) -> None:
        """Fill the ghost cells with what has arrived since `start`."""
        self._halo.end("exchange")
        self._messages.wait()
        for buffer, cells in self._unpacked:
            np.copyto(cells, buffer)

    def close(self) -> None:
        """Give the requests back."""
        self._messages.close()


def _in_place(messages: Sequence[Message], arrays: Sequence[np.ndarray]) -> tuple[Parts, Copies]:
    """Ranks with what their messages lie in, and copies for those that are packed."""
    parts, copies = [], []
    for message in messages:
        cells = [(p.view, arrays[p.field][p.where]) for p in message.pieces]
        if len(cells) == 1 and cells[0][1].flags.c_contiguous:
            parts.append((message.rank, cells[0][1]))
        else:
            parts.append((message.rank, message.buffer))
            copies += cells
    return parts, copies


__all__ = ["Image", "Message", "Piece", "PreparedExchange"]
