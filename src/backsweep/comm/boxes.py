"""Boxes of cells, and which ghost cells are images of which owned ones."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence

import numpy as np

from backsweep.errors import CommError

Box = tuple[tuple[int, int], ...]
"""(first, last + 1) per dimension."""


def as_box(box: Box) -> Box:
    return tuple((int(lo), int(hi)) for lo, hi in box)


def box_shape(box: Box) -> tuple[int, ...]:
    return tuple(hi - lo for lo, hi in box)


def slices_in(box: Box, layout: Box) -> tuple[slice, ...]:
    """Where a box lies in the local array of a layout."""
    return tuple(slice(lo - a, hi - a) for (lo, hi), (a, _) in zip(box, layout, strict=True))


def intersection(one: Box, other: Box) -> Box:
    return tuple((max(a, c), min(b, d)) for (a, b), (c, d) in zip(one, other, strict=True))


def is_inside(box: Box, other: Box) -> bool:
    return all(c <= a and b <= d for (a, b), (c, d) in zip(box, other, strict=True))


def hull(one: Box, other: Box) -> Box:
    """The smallest box around two."""
    return tuple((min(a, c), max(b, d)) for (a, b), (c, d) in zip(one, other, strict=True))


def volume(box: Box) -> int:
    return math.prod(max(0, n) for n in box_shape(box))


def is_empty(box: Box) -> bool:
    return any(n <= 0 for n in box_shape(box))


def ghosts(
    fields: Sequence[tuple[int, ...]],
    layouts: Sequence[Box],
    owned: Sequence[Box],
    is_own: bool = False,
) -> Iterator[tuple[int, Box, Box]]:
    """The boxes of some layouts that are images of owned boxes: (field, image, original).

    By field, then by shift. `is_own` leaves out the owned boxes themselves.
    """
    for field, (shape, layout, box) in enumerate(zip(fields, layouts, owned, strict=True)):
        for shift in itertools.product(*map(_shifts, layout, shape)):
            if is_own and not any(shift):
                continue
            moved = tuple((lo + s, hi + s) for (lo, hi), s in zip(box, shift, strict=True))
            image = intersection(layout, moved)
            if all(lo < hi for lo, hi in image):
                original = ((lo - s, hi - s) for (lo, hi), s in zip(image, shift, strict=True))
                yield field, image, tuple(original)


def _shifts(span: tuple[int, int], n: int) -> range:
    """By how much range(n) is shifted in the images that a span meets."""
    lo, hi = span
    return range(lo // n * n, hi, n) if n and lo < hi else range(0)


def check_common(common: Sequence[object]) -> None:
    differing = [rank for rank, entry in enumerate(common) if entry != common[0]]
    if differing:
        raise CommError(
            f"halo exchange: ranks {differing} ask for other fields than rank 0: "
            f"{common[differing[0]]} instead of {common[0]} (global shapes, dtypes, tags)"
        )


def check_boxes(
    fields: Sequence[tuple[int, ...]],
    owned: Sequence[Box],
    layouts: Sequence[Box],
    dtypes: Sequence[np.dtype],
) -> None:
    if not len(fields) == len(owned) == len(layouts) == len(dtypes):
        raise CommError(
            f"halo exchange: {len(fields)} shapes, {len(owned)} owned boxes, {len(layouts)} "
            f"layouts and {len(dtypes)} dtypes; each field needs one of each"
        )
    for i, (shape, box, layout) in enumerate(zip(fields, owned, layouts, strict=True)):
        what = f"halo exchange, field {i} of shape {shape}"
        if not len(shape) == len(box) == len(layout):
            raise CommError(f"{what}: owned box {box} and layout {layout} do not have its rank")
        if any(lo > hi for lo, hi in (*box, *layout)):
            raise CommError(f"{what}: owned box {box} or layout {layout} ends before it begins")
        whole = tuple((0, n) for n in shape)
        if math.prod(box_shape(box)) and not (is_inside(box, whole) and is_inside(box, layout)):
            raise CommError(f"{what}: owned box {box} is not inside the field and layout {layout}")


def check_cover(
    fields: Sequence[tuple[int, ...]],
    me: int,
    layouts: Sequence[Box],
    owned: Sequence[Sequence[Box]],
) -> None:
    """Each cell of this rank's layouts has one owner."""
    found: list[list[tuple[int, Box]]] = [[] for _ in fields]
    for rank, boxes in enumerate(owned):
        for field, image, _ in ghosts(fields, layouts, boxes):
            found[field].append((rank, image))
    for field, images in enumerate(found):
        what = f"halo exchange, field {field} of shape {fields[field]}"
        for (a, one), (b, other) in itertools.combinations(images, 2):
            both = intersection(one, other)
            if all(lo < hi for lo, hi in both):
                raise CommError(f"{what}: ranks {a} and {b} both own {both}")
        n_cells = math.prod(box_shape(layouts[field]))
        n_found = sum(math.prod(box_shape(image)) for _, image in images)
        if n_found != n_cells:
            raise CommError(
                f"{what}: {n_cells - n_found} of the {n_cells} cells of layout {layouts[field]} "
                f"are owned by no rank; owned near it: {images}"
            )
