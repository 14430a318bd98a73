"""Ghost cells filled from the ranks that own them, and the adjoint of that.

A field is known by its global shape and two boxes per rank: the cells that the rank owns and its
layout, the range of its local array. Everything else in the layout is ghost: faces, edges and
corners alike, from however many owners, so that a round has no order of axes: it is one message to
each peer, with all fields in it. Layouts are given in *unwrapped* coordinates: entry i stands
for the global index i modulo n, so that periodic images need no case of their own.

Messages are packed into buffers, which costs a copy on either side. Boxes of 64 KiB and more are
messages of their own. A message of one box that is contiguous (cuts along the first axis) travels
from where it lies to where it belongs. (Several boxes in one message by an MPI datatype took MPICH
a hundred times as long.)

Known to be suboptimal: long boxes that are not contiguous are packed by NumPy.
"""

from __future__ import annotations

import math
import weakref
from collections.abc import Iterable, Iterator, Sequence
from typing import final

import numpy as np
import numpy.typing as npt

from backsweep.closing import Closing
from backsweep.comm.base import AbstractComm
from backsweep.comm.boxes import (
    Box,
    as_box,
    box_shape,
    check_boxes,
    check_common,
    check_cover,
    ghosts,
    slices_in,
)
from backsweep.comm.errors import agreement
from backsweep.comm.prepared import Image, Message, Piece, PreparedExchange
from backsweep.errors import CommError

LONG = 1 << 16  # bytes: from here on a copy costs more than a message


@final
class HaloExchange(Closing):
    """The ghost cells of several fields, filled in one round of messages.

    Collective: every rank must call, in the same order as other exchanges.

    Parameters
    ----------
    comm : AbstractComm
    shapes : sequence of tuple of int
        Global shape of each field, the same on all ranks.
    owned : sequence of boxes
        Per field the box of this rank: (first, last + 1) per dimension, within the global shape.
        Boxes of different ranks must not overlap; they may be empty.
    layouts : sequence of boxes
        Per field the range of this rank's local array in unwrapped global coordinates, which
        may begin below 0 and end beyond n: entry i stands for the global index i modulo n. It
        contains what is owned.
    dtypes : sequence of dtype
        Of each field, the same on all ranks.

    Attributes
    ----------
    n_messages, n_bytes : int
        That this rank sends in one exchange.

    Raises
    ------
    CommError
        On all ranks, if a cell of a layout is owned by no rank or by two.

    Notes
    -----
    An exchange is linear: owned cells are kept, ghost cells become copies of the owners' cells.
    `transposed` is its transpose: owners add the cotangents of their copies, ghosts become zero.
    """

    def __init__(
        self,
        comm: AbstractComm,
        shapes: Sequence[Sequence[int]],
        owned: Sequence[Box],
        layouts: Sequence[Box],
        dtypes: Sequence[npt.DTypeLike],
    ) -> None:
        self.comm = comm
        self.dtypes = tuple(np.dtype(d) for d in dtypes)
        self._is_open = True
        self._in_flight = ""
        self._prepared: weakref.WeakSet[PreparedExchange] = weakref.WeakSet()
        fields = tuple(tuple(int(n) for n in shape) for shape in shapes)
        mine = (tuple(map(as_box, owned)), tuple(map(as_box, layouts)))
        tags = comm.new_tag(), comm.new_tag()
        self._tag = tags[0]
        common = (fields, tuple(d.str for d in self.dtypes), tags)
        everyone = comm.allgather((common, *mine))
        with agreement(comm):
            check_common([entry[0] for entry in everyone])
            check_boxes(fields, *mine, self.dtypes)
        all_owned = [entry[1] for entry in everyone]
        with agreement(comm):
            check_cover(fields, comm.rank, mine[1], all_owned)
        all_layouts = [entry[2] for entry in everyone]
        self.shapes = tuple(box_shape(layout) for layout in mine[1])
        self._make_messages(fields, all_owned, all_layouts)
        self._backward = comm.messages(
            [(m.rank, m.buffer) for m in self._incoming],
            [(m.rank, m.buffer) for m in self._outgoing],
            tags[1],
        )
        self.n_messages = len(self._outgoing)
        self.n_bytes = sum(m.buffer.nbytes for m in self._outgoing)

    def _make_messages(
        self,
        fields: Sequence[tuple[int, ...]],
        owned: Sequence[Sequence[Box]],
        layouts: Sequence[Sequence[Box]],
    ) -> None:
        me = self.comm.rank
        self._images = tuple(
            Image(field, slices_in(box, layouts[me][field]), slices_in(source, layouts[me][field]))
            for field, box, source in ghosts(fields, layouts[me], owned[me], is_own=True)
        )
        incoming: list[Message] = []
        outgoing: list[Message] = []
        for rank in range(self.comm.size):
            if rank == me:
                continue
            # Both sides list the boxes in the same order: by field, then by shift.
            from_rank = list(ghosts(fields, layouts[me], owned[rank]))
            to_rank = list(ghosts(fields, layouts[rank], owned[me]))
            if from_rank:
                boxes = [(field, box) for field, box, _ in from_rank]
                incoming += self._messages(rank, boxes, layouts[me])
            if to_rank:
                boxes = [(field, source) for field, _, source in to_rank]
                outgoing += self._messages(rank, boxes, layouts[me])
        self._incoming, self._outgoing = tuple(incoming), tuple(outgoing)
        self._additions_before = _by_field(m for m in outgoing if m.rank < me)
        self._additions_after = _by_field(m for m in outgoing if m.rank > me)

    def _messages(
        self, rank: int, boxes: Sequence[tuple[int, Box]], layouts: Sequence[Box]
    ) -> Iterator[Message]:
        """One message to or from a rank, and one for each of the boxes that are long."""
        short = []
        for number, (field, box) in enumerate(boxes):
            n_bytes = math.prod(box_shape(box)) * self.dtypes[field].itemsize
            if n_bytes < LONG:
                short.append((number, field, box, n_bytes))
            else:
                yield self._message(rank, [(number, field, box, n_bytes)], layouts)
        if short:
            # The widest first, so that all are aligned without gaps.
            short.sort(key=lambda entry: -self.dtypes[entry[1]].itemsize)
            yield self._message(rank, short, layouts)

    def _message(
        self, rank: int, boxes: Sequence[tuple[int, int, Box, int]], layouts: Sequence[Box]
    ) -> Message:
        buffer = np.zeros(sum(n_bytes for *_, n_bytes in boxes), np.uint8)
        pieces, start = [], 0
        for number, field, box, n_bytes in boxes:
            view = np.ndarray(box_shape(box), self.dtypes[field], buffer, start)
            pieces.append(Piece(number, field, slices_in(box, layouts[field]), view))
            start += n_bytes
        return Message(rank, buffer, tuple(pieces))

    def exchange(self, arrays: Sequence[np.ndarray]) -> None:
        """Fill the ghost cells of each field in place. Collective: every rank must call.

        Parameters
        ----------
        arrays : sequence of ndarray
            The local arrays, one per field, with the shapes of the layouts; contiguous or not.
        """
        self.prepared(arrays)()

    def prepared(self, arrays: Sequence[np.ndarray]) -> PreparedExchange:
        """The exchange of these arrays, to be called again and again: what is known is prepared.

        Parameters
        ----------
        arrays : sequence of ndarray
            As in `exchange`.

        Returns
        -------
        PreparedExchange
            Its requests live as long as it does, or until `close`. It can be started and finished
            on its own, to compute in the meantime.
        """
        self._check("exchange", arrays)
        made = PreparedExchange(
            self, self._outgoing, self._incoming, self._images, arrays, self._tag
        )
        self._prepared.add(made)
        return made

    def quiet_rows(self, field: int) -> tuple[int, int]:
        """The longest range of rows of a local array that no exchange reads or writes.

        Parameters
        ----------
        field : int

        Returns
        -------
        first, last + 1 : int
            Along the first axis; (n, n) if there are none.
        """
        n = self.shapes[field][0]
        is_touched = np.zeros(n, bool)
        for message in (*self._incoming, *self._outgoing):
            for piece in message.pieces:
                if piece.field == field:
                    is_touched[piece.where[0]] = True
        for image in self._images:
            if image.field == field:
                is_touched[image.ghost[0]] = is_touched[image.owned[0]] = True
        ends = np.flatnonzero(np.diff(is_touched, prepend=True, append=True)).reshape(-1, 2)
        lengths = ends[:, 1] - ends[:, 0]
        return tuple(ends[np.argmax(lengths)].tolist()) if len(ends) else (n, n)

    def transposed(self, arrays: Sequence[np.ndarray]) -> None:
        """The adjoint of `exchange`, in place. Collective: every rank must call.

        Cotangents of ghost cells are added to the owner's, in the order of ranks, then of
        fields, then of periodic images: the same bits in every run. Ghost cells become zero.

        Parameters
        ----------
        arrays : sequence of ndarray
            As in `exchange`.
        """
        self._check("transposed exchange", arrays)
        self.begin("transposed exchange")
        for message in self._incoming:
            for piece in message.pieces:
                piece.view[...] = arrays[piece.field][piece.where]
        self._backward.start()
        self.end("transposed exchange")
        self._backward.wait()
        for message in self._incoming:
            for piece in message.pieces:
                arrays[piece.field][piece.where] = 0
        _add(arrays, self._additions_before)
        for image in self._images:
            array = arrays[image.field]
            array[image.owned] += array[image.ghost]
        for image in self._images:
            arrays[image.field][image.ghost] = 0
        _add(arrays, self._additions_after)

    def close(self) -> None:
        """Give buffers and requests back. May be called twice."""
        self._is_open = False
        self._backward.close()
        for made in self._prepared:
            made.close()
        self._outgoing = self._incoming = ()
        self._additions_before = self._additions_after = ()

    def _check(self, what: str, arrays: Sequence[np.ndarray]) -> None:
        if len(arrays) != len(self.shapes):
            raise CommError(f"{what}: {len(arrays)} arrays for {len(self.shapes)} fields")
        for array, shape, dtype in zip(arrays, self.shapes, self.dtypes, strict=True):
            if array.shape != shape or array.dtype != dtype:
                found = [f"{a.dtype}{list(a.shape)}" for a in arrays]
                declared = [f"{d}{list(s)}" for s, d in zip(self.shapes, self.dtypes, strict=True)]
                i = [a == b for a, b in zip(found, declared, strict=True)].index(False)
                raise CommError(
                    f"{what}: field {i} is {found[i]}, but its layout was declared as {declared[i]}"
                )

    def begin(self, what: str) -> None:
        """Raise if another exchange is under way."""
        if not self._is_open:
            raise CommError(f"{what}: these buffers are closed; make a new HaloExchange")
        if self._in_flight:
            raise CommError(f"{what}: the {self._in_flight} before it is not finished")
        self._in_flight = what

    def end(self, what: str) -> None:
        """Raise if no such exchange is under way."""
        if self._in_flight != what:
            raise CommError(f"there is no {what} to finish: start one first")
        self._in_flight = ""


def _by_field(messages: Iterable[Message]) -> tuple[Piece, ...]:
    """All pieces, by rank, then by field, then by shift."""
    found = [(m.rank, piece.number, piece) for m in messages for piece in m.pieces]
    return tuple(piece for *_, piece in sorted(found, key=lambda entry: entry[:2]))


def _add(arrays: Sequence[np.ndarray], pieces: Sequence[Piece]) -> None:
    for piece in pieces:
        arrays[piece.field][piece.where] += piece.view


__all__ = ["HaloExchange"]
