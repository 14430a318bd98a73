"""Ghost cells filled from the ranks that own them, and the adjoint of that.

A field is known by its global shape and two boxes per rank: the cells that the rank owns and its
layout, the range of its local array. Everything else in the layout is ghost: faces, edges and
corners alike, from however many owners, so that a round is one message to each peer with all
fields in it and has no order of axes. Layouts are given in *unwrapped* coordinates: entry i stands
for the global index i modulo n, so that periodic images need no case of their own.

A message is packed into a buffer, which costs a copy in memory on either side; a long one whose
boxes are contiguous (cuts along the first axis) is sent from where it lies and needs none.

Known to be suboptimal: long messages of boxes that are not contiguous are packed by NumPy.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Self, final

import numpy as np
import numpy.typing as npt

from backsweep.comm.base import AbstractComm, Messages
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
from backsweep.errors import CommError

Slices = tuple[slice, ...]

_DIRECT = 1 << 16  # bytes: from here on a copy costs more than a message of its own kind


@dataclass(frozen=True, slots=True)
class _Piece:
    """A box of a field's local array and where it lies in a message."""

    field: int
    where: Slices
    view: np.ndarray


@dataclass(frozen=True, slots=True)
class _Message:
    rank: int
    buffer: np.ndarray
    pieces: tuple[_Piece, ...]


@dataclass(frozen=True, slots=True)
class _Image:
    """A box of ghost cells of a rank that it owns itself, elsewhere in its array."""

    field: int
    ghost: Slices
    owned: Slices


@final
class HaloExchange:
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
        self._is_direct: list[bool] = []
        fields = tuple(tuple(int(n) for n in shape) for shape in shapes)
        mine = (tuple(map(as_box, owned)), tuple(map(as_box, layouts)))
        tags = comm.new_tag(), comm.new_tag()
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
        self._forward = comm.messages(
            [(m.rank, m.buffer) for m in self._outgoing],
            [(m.rank, m.buffer) for m in self._incoming],
            tags[0],
        )
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
            _Image(field, slices_in(box, layouts[me][field]), slices_in(source, layouts[me][field]))
            for field, box, source in ghosts(fields, layouts[me], owned[me], is_own=True)
        )
        incoming, outgoing = [], []
        for rank in range(self.comm.size):
            if rank == me:
                continue
            # Both sides list the boxes in the same order: by field, then by shift.
            from_rank = list(ghosts(fields, layouts[me], owned[rank]))
            to_rank = list(ghosts(fields, layouts[rank], owned[me]))
            if from_rank:
                boxes = [(field, box) for field, box, _ in from_rank]
                incoming.append(self._message(rank, boxes, layouts[me]))
            if to_rank:
                boxes = [(field, source) for field, _, source in to_rank]
                outgoing.append(self._message(rank, boxes, layouts[me]))
        self._incoming, self._outgoing = tuple(incoming), tuple(outgoing)

    def _message(
        self, rank: int, boxes: Sequence[tuple[int, Box]], layouts: Sequence[Box]
    ) -> _Message:
        # The widest first, so that all are aligned without gaps; within a field by shift.
        boxes = sorted(boxes, key=lambda entry: -self.dtypes[entry[0]].itemsize)
        starts, end = [], 0
        for field, box in boxes:
            starts.append(end)
            end += math.prod(box_shape(box)) * self.dtypes[field].itemsize
        buffer = np.zeros(end, np.uint8)
        pieces = []
        for start, (field, box) in zip(starts, boxes, strict=True):
            view = np.ndarray(box_shape(box), self.dtypes[field], buffer, start)
            pieces.append(_Piece(field, slices_in(box, layouts[field]), view))
        return _Message(rank, buffer, tuple(pieces))

    def exchange(self, arrays: Sequence[np.ndarray]) -> None:
        """Fill the ghost cells of each field in place. Collective: every rank must call.

        Parameters
        ----------
        arrays : sequence of ndarray
            The local arrays, one per field, with the shapes of the layouts; contiguous or not.
        """
        self.start(arrays)
        self.finish(arrays)

    def start(self, arrays: Sequence[np.ndarray]) -> None:
        """Begin an exchange, to compute in the meantime.

        Until `finish` ghost cells must not be read or written, and owned cells that other ranks
        see must not be written: long messages travel from where they lie.
        """
        self._begin("exchange", arrays)
        self._is_direct = [
            _receive(self._forward, number, message, arrays)
            for number, message in enumerate(self._incoming)
        ]
        for number, message in enumerate(self._outgoing):
            _send(self._forward, number, message, arrays)
        for image in self._images:
            array = arrays[image.field]
            array[image.ghost] = array[image.owned]

    def finish(self, arrays: Sequence[np.ndarray]) -> None:
        """Fill the ghost cells with what has arrived since `start`, of the same arrays."""
        self._end("exchange")
        self._forward.wait()
        for message, is_direct in zip(self._incoming, self._is_direct, strict=True):
            if not is_direct:
                for piece in message.pieces:
                    arrays[piece.field][piece.where] = piece.view

    def transposed(self, arrays: Sequence[np.ndarray]) -> None:
        """The adjoint of `exchange`, in place. Collective: every rank must call.

        Cotangents of ghost cells are added to the owner's, in the order of ranks, then of
        fields, then of periodic images: the same bits in every run. Ghost cells become zero.

        Parameters
        ----------
        arrays : sequence of ndarray
            As in `exchange`.
        """
        self.start_transposed(arrays)
        self.finish_transposed(arrays)

    def start_transposed(self, arrays: Sequence[np.ndarray]) -> None:
        """Begin a transposed exchange; until it is finished ghost cells must not be touched."""
        self._begin("transposed exchange", arrays)
        for number in range(len(self._outgoing)):
            self._backward.receive(number)
        for number, message in enumerate(self._incoming):
            _send(self._backward, number, message, arrays)

    def finish_transposed(self, arrays: Sequence[np.ndarray]) -> None:
        """Add what has arrived to the owned cells of the same arrays, and set ghosts to zero."""
        self._end("transposed exchange")
        self._backward.wait()
        for message in self._incoming:
            for piece in message.pieces:
                arrays[piece.field][piece.where] = 0
        is_before = [m for m in self._outgoing if m.rank < self.comm.rank]
        self._add(arrays, is_before)
        for image in self._images:
            array = arrays[image.field]
            array[image.owned] += array[image.ghost]
        for image in self._images:
            arrays[image.field][image.ghost] = 0
        self._add(arrays, self._outgoing[len(is_before) :])

    def _add(self, arrays: Sequence[np.ndarray], messages: Sequence[_Message]) -> None:
        for message in messages:
            for piece in message.pieces:
                arrays[piece.field][piece.where] += piece.view

    def close(self) -> None:
        """Give buffers and requests back. May be called twice."""
        self._is_open = False
        self._forward.close()
        self._backward.close()
        self._outgoing = self._incoming = ()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def _begin(self, what: str, arrays: Sequence[np.ndarray]) -> None:
        if not self._is_open:
            raise CommError(f"{what}: these buffers are closed; make a new HaloExchange")
        if self._in_flight:
            raise CommError(f"{what}: the {self._in_flight} before it is not finished")
        if len(arrays) != len(self.shapes):
            raise CommError(f"{what}: {len(arrays)} arrays for {len(self.shapes)} fields")
        for i, (array, shape, dtype) in enumerate(
            zip(arrays, self.shapes, self.dtypes, strict=True)
        ):
            if array.shape != shape or array.dtype != dtype:
                raise CommError(
                    f"{what}: field {i} is {array.dtype}{list(array.shape)}, but its layout was "
                    f"declared as {dtype}{list(shape)}"
                )
        self._in_flight = what

    def _end(self, what: str) -> None:
        if self._in_flight != what:
            raise CommError(f"there is no {what} to finish: start one first")
        self._in_flight = ""


def _send(messages: Messages, number: int, message: _Message, arrays: Sequence[np.ndarray]) -> None:
    boxes = _contiguous(message, arrays)
    if not boxes:
        for piece in message.pieces:
            piece.view[...] = arrays[piece.field][piece.where]
    messages.send(number, boxes)


def _receive(
    messages: Messages, number: int, message: _Message, arrays: Sequence[np.ndarray]
) -> bool:
    """Whether a message comes at once to where it belongs."""
    boxes = _contiguous(message, arrays)
    messages.receive(number, boxes)
    return bool(boxes)


def _contiguous(message: _Message, arrays: Sequence[np.ndarray]) -> list[np.ndarray]:
    """The boxes of a long message, if all are contiguous; else nothing."""
    if message.buffer.nbytes < _DIRECT:
        return []
    boxes = [arrays[piece.field][piece.where] for piece in message.pieces]
    return boxes if all(box.flags.c_contiguous for box in boxes) else []


__all__ = ["HaloExchange"]
