"""Arrays of which no rank holds the whole: arguments read by blocks, results in parts."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Any, Protocol, Self, final

import numpy as np
import numpy.typing as npt

from backsweep.comm.base import AbstractComm
from backsweep.comm.boxes import Box, as_box, box_shape, is_inside, slices_in
from backsweep.comm.errors import Agreed, agreement
from backsweep.comm.launch import world
from backsweep.errors import CommError


class _Readable(Protocol):
    def __getitem__(self, ranges: Any, /) -> Any: ...


class _Writable(Protocol):
    def __setitem__(self, ranges: Any, values: Any, /) -> None: ...


Source = Callable[[tuple[slice, ...]], Any] | _Readable
Target = _Writable | Callable[[], AbstractContextManager[_Writable]]


@final
class BlockedArray:
    """A global array that is known by blocks.

    Parameters
    ----------
    shape : sequence of int
        Of the whole array.
    dtype : dtype
    block : callable or indexable
        Gives the values of any box: `block(ranges)`, or `block[ranges]` for an open HDF5 dataset,
        a NumPy array or memmap; `ranges` is a tuple of slices, one per dimension.

    Attributes
    ----------
    shape : tuple of int
    dtype : dtype

    See Also
    --------
    BlockedArray.from_parts : a result of which each rank holds its part.

    Examples
    --------
    >>> import numpy as np
    >>> array = BlockedArray((4, 3), np.float64, np.arange(12.0).reshape(4, 3))
    >>> array.read([(1, 3), (0, 2)])
    array([[3., 4.],
           [6., 7.]])
    """

    def __init__(self, shape: Sequence[int], dtype: npt.DTypeLike, block: Source) -> None:
        self.shape = tuple(int(n) for n in shape)
        self.dtype = np.dtype(dtype)
        self._block = block
        self._part: tuple[Box, np.ndarray] | None = None
        self._comm: AbstractComm | None = None
        if not callable(block) and not hasattr(block, "__getitem__"):
            raise CommError(
                f"a block of an array comes from a function of slices, an HDF5 dataset or an "
                f"array, not from {type(block).__name__}"
            )

    @classmethod
    def from_parts(
        cls,
        shape: Sequence[int],
        dtype: npt.DTypeLike,
        box: Sequence[tuple[int, int]],
        values: np.ndarray,
        comm: AbstractComm | None = None,
    ) -> Self:
        """An array of which this rank holds a box, and other ranks the others.

        Parameters
        ----------
        shape, dtype
            Of the whole array.
        box : sequence of (first, last + 1), one per dimension
            Boxes of different ranks do not overlap; they may be empty.
        values : ndarray, shape of the box
            Kept, not copied.
        comm : AbstractComm, optional
            `world()` without it.
        """
        array = cls(shape, dtype, values)
        own = array._checked(box)
        array._require("the part of this rank", values, own)
        array._part, array._comm = (own, values), comm
        return array

    @property
    def is_held(self) -> bool:
        """Whether each rank holds a part; else blocks are read from a source."""
        return self._part is not None

    @property
    def box(self) -> Box:
        """What this rank holds: (first, last + 1) per dimension."""
        return self._own()[0]

    @property
    def local(self) -> np.ndarray:
        """The values that this rank holds."""
        return self._own()[1]

    @property
    def comm(self) -> AbstractComm:
        """The ranks that hold the parts."""
        return self._comm or world()

    def read(self, box: Sequence[tuple[int, int]]) -> np.ndarray:
        """The values of a box, contiguous in C order.

        Parameters
        ----------
        box : sequence of (first, last + 1), one per dimension

        Returns
        -------
        ndarray, shape of the box
            No view of a larger array.

        Raises
        ------
        CommError
            If the box is not inside the array, the source gives another shape or dtype, or this
            rank does not hold the box.
        """
        wanted = self._checked(box)
        whole: Box = tuple((0, n) for n in self.shape)
        if self._part is not None:
            own, values = self._part
            if not is_inside(wanted, own):
                raise CommError(f"this rank holds the box {own} of the array, not {wanted}")
            return values[slices_in(wanted, own)].copy(order="C")
        ranges, block = slices_in(wanted, whole), self._block
        found = np.asarray(block(ranges) if callable(block) else block[ranges])
        self._require(f"the source of the array, asked for {wanted},", found, wanted)
        return found.copy(order="C") if found.base is not None else np.ascontiguousarray(found)

    def gather(self, root: int = 0) -> np.ndarray | None:
        """The whole array on one rank, None on the others. Collective: every rank must call.

        Raises
        ------
        CommError
            On all ranks, if the parts do not make the whole.
        """
        comm, box, values = self._together()
        if comm.rank != root:
            comm.send((box, values), root)
            return None
        whole = np.empty(self.shape, self.dtype)
        everything: Box = tuple((0, n) for n in self.shape)
        for rank in range(comm.size):
            box_of, part = (box, values) if rank == root else comm.receive(rank)
            whole[slices_in(box_of, everything)] = part
        return whole

    def write(self, target: Target | None) -> None:
        """Each rank writes its part, one after the other. Collective: every rank must call.

        Parameters
        ----------
        target : object with __setitem__, callable, or None
            An HDF5 dataset, array or memmap of the whole shape; or, because HDF5 lets one process
            at a time write a file, a function that opens one in a `with` statement:
            it is called on each rank in its turn. None on all ranks but the root: these send
            their parts to the root, which writes them.
        """
        comm, box, values = self._together()
        is_sent = comm.allgather(target is None)
        if is_sent[0]:
            raise Agreed("there is nothing to write an array to: rank 0 needs a target", 0)
        everything: Box = tuple((0, n) for n in self.shape)
        for rank in range(comm.size):
            with agreement(comm):
                if is_sent[rank] and comm.rank == rank:
                    comm.send((box, values), 0)
                elif is_sent[rank] and comm.is_root:
                    box_of, part = comm.receive(rank)
                    _write(target, slices_in(box_of, everything), part)
                elif comm.rank == rank:
                    _write(target, slices_in(box, everything), values)

    def __repr__(self) -> str:
        kind = "read by blocks" if self._part is None else f"this rank holds {self._part[0]}"
        return f"BlockedArray({self.dtype}{list(self.shape)}, {kind})"

    def _own(self) -> tuple[Box, np.ndarray]:
        if self._part is None:
            raise CommError(
                "this array is read from a source, and no rank holds a part: use `read`"
            )
        return self._part

    def _together(self) -> tuple[AbstractComm, Box, np.ndarray]:
        """Communicator and part, once all ranks know that the parts make the whole."""
        box, values = self._own()
        comm = self.comm
        boxes = comm.allgather(box)
        with agreement(comm):
            n_cells = sum(math.prod(box_shape(part)) for part in boxes)
            if n_cells != math.prod(self.shape):
                raise CommError(
                    f"the parts {boxes} hold {n_cells} cells of the {math.prod(self.shape)} of an "
                    f"array of shape {self.shape}"
                )
        return comm, box, values

    def _checked(self, box: Sequence[tuple[int, int]]) -> Box:
        found = as_box(tuple(box))
        if len(found) != len(self.shape) or not all(
            0 <= lo <= hi <= n for (lo, hi), n in zip(found, self.shape, strict=True)
        ):
            raise CommError(f"box {found} is not inside an array of shape {self.shape}")
        return found

    def _require(self, what: str, values: np.ndarray, box: Box) -> None:
        if values.shape != box_shape(box) or values.dtype != self.dtype:
            raise CommError(
                f"{what} is {values.dtype}{list(values.shape)}, but should be "
                f"{self.dtype}{list(box_shape(box))}"
            )


def _write(target: Any, where: tuple[slice, ...], values: np.ndarray) -> None:
    if not callable(target):
        target[where] = values
        return
    with target() as opened:
        opened[where] = values


__all__ = ["BlockedArray"]
