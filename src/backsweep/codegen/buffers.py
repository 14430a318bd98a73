"""Where the values of a step live in memory."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, slots=True)
class Buffer:
    """A flat piece of memory that holds one value, with margins of zeros around it.

    Attributes
    ----------
    number : int
        Its place among the arguments of the step.
    strides : tuple of int
        In elements, margins included.
    offset : int
        The element where the value itself begins.
    """

    number: int
    name: str
    shape: tuple[int, ...]
    dtype: np.dtype
    margins: tuple[tuple[int, int], ...]
    strides: tuple[int, ...]
    offset: int
    n_elements: int

    @property
    def nbytes(self) -> int:
        return self.n_elements * self.dtype.itemsize


def make_buffer(
    number: int,
    name: str,
    shape: tuple[int, ...],
    dtype: np.dtype,
    margins: tuple[tuple[int, int], ...] | None = None,
) -> Buffer:
    """A row-major buffer."""
    margins = margins or ((0, 0),) * len(shape)
    full = [n + lo + hi for n, (lo, hi) in zip(shape, margins, strict=True)]
    strides = [1] * len(shape)
    for k in range(len(shape) - 2, -1, -1):
        strides[k] = strides[k + 1] * full[k + 1]
    offset = sum(lo * s for (lo, _), s in zip(margins, strides, strict=True))
    return Buffer(
        number,
        name,
        shape,
        dtype,
        margins,
        tuple(strides),
        offset,
        int(np.prod(full, dtype=np.int64)),
    )


def reshaped(buffer: Buffer, shape: tuple[int, ...], dtype: np.dtype) -> Buffer:
    """The same memory without margins in another shape."""
    assert all(m == (0, 0) for m in buffer.margins)
    return make_buffer(buffer.number, buffer.name, shape, dtype)
