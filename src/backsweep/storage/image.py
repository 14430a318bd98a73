"""HDF5 files whose data we write and read ourselves.

HDF5 makes an *image* once per layout: a file that has all its datasets, each contiguous and at
a known place, and no data (`storage.raw` reads and writes such files). It is made through a
file object that keeps what HDF5 writes as its metadata and drops the rest, so that an image of
100 GB takes a few KiB. So HDF5 has nothing to flush when a disk is full, and holds no global
lock while we write.

Numbers of a file are small datasets and no attributes, since object headers have checksums:

    backsweep/step          int64
    backsweep/time          float64, step * dt in seconds; where dt is known
    backsweep/checksum      uint32 per field, in the order of its attribute ``fields``; see
                            `storage.checksum`

and constant are the attributes ``format_version`` and ``program`` of the file, ``units`` and
``DIMENSION_LABELS`` of the fields. See docs/decisions/0013-raw-writes-into-an-hdf5-image.md.
"""

from __future__ import annotations

import io
import os
from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any, Final

import h5py
import numpy as np
from h5py import h5d, h5p, h5s, h5t

from backsweep.errors import SnapshotError
from backsweep.storage.base import OWN_NAME, Array, Layout
from backsweep.storage.files import reason
from backsweep.storage.raw import FOOTER_NBYTES, Image, Place, read_head

FORMAT_VERSION: Final = 2

_ALIGNMENT: Final = 4096


# --------------------------------------------------------------------------- making


class _Metadata(io.RawIOBase):
    """A file in memory that drops what is written behind a limit."""

    def __init__(self) -> None:
        super().__init__()
        self.content = bytearray()
        self.size = 0
        self.limit: int | None = None
        self._position = 0

    def readable(self) -> bool:
        return True

    def writable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        self._position = offset + (0, self._position, self.size)[whence]
        return self._position

    def tell(self) -> int:
        return self._position

    def truncate(self, size: int | None = None) -> int:
        self.size = self._position if size is None else size
        return self.size

    def readinto(self, target: Any) -> int:
        start, view = self._position, memoryview(target).cast("B")
        found = self.content[start : start + len(view)]
        view[:] = bytes(found) + bytes(len(view) - len(found))
        self._position += len(view)
        return len(view)

    def write(self, data: Any) -> int:
        view = memoryview(data).cast("B")
        start, stop = self._position, self._position + len(view)
        if self.limit is None or start < self.limit:
            self.content.extend(bytes(max(0, stop - len(self.content))))
            self.content[start:stop] = view
        self._position = stop
        self.size = max(self.size, stop)
        return len(view)


@lru_cache(maxsize=32)
def make_image(layout: Layout) -> Image:
    """The image of all files of a layout: a few milliseconds, once."""
    target = _Metadata()
    with h5py.File(
        target,
        "w",
        # Object headers since HDF5 1.8 carry checksums of their own; any later HDF5 reads them.
        libver=("v108", "v108"),
        alignment_threshold=_ALIGNMENT,
        alignment_interval=_ALIGNMENT,
    ) as file:
        file.attrs["format_version"] = FORMAT_VERSION
        file.attrs["program"] = layout.program
        numbers, fields = _create_numbers(file, layout), _create_fields(file, layout)
        # All metadata have their places now. Data come behind, each when its first value comes.
        file.flush()
        target.limit = target.size
        for dataset in (*numbers.values(), *fields):
            _touch(dataset)
        number_places = {name: _place(dataset) for name, dataset in numbers.items()}
        field_places = tuple(_place(dataset) for dataset in fields)
        n_head = max(target.limit, *(place.stop for place in number_places.values()))
    head = bytes(target.content[:n_head]).ljust(n_head, b"\0")
    image = Image(layout, head, target.size, field_places, number_places)
    return replace(image, head=image.blank(head))


def _create_numbers(file: h5py.File, layout: Layout) -> dict[str, h5py.Dataset]:
    kinds: dict[str, tuple[tuple[int, ...], str]] = {
        "step": ((), "<i8"),
        "checksum": ((len(layout.names),), "<u4"),
    }
    if layout.dt is not None:
        kinds["time"] = (), "<f8"
    file.create_group(OWN_NAME)
    made = {
        name: _create(file, f"{OWN_NAME}/{name}", shape, np.dtype(kind))
        for name, (shape, kind) in kinds.items()
    }
    _set_texts(made["checksum"], "fields", layout.names)
    if layout.dt is not None:
        made["time"].attrs["units"] = "s"
        made["time"].attrs["dt"] = layout.dt
    return made


def _create_fields(file: h5py.File, layout: Layout) -> list[h5py.Dataset]:
    made = []
    for i, name in enumerate(layout.names):
        dataset = _create(file, name, layout.shapes[i], layout.dtypes[i])
        if layout.units:
            dataset.attrs["units"] = layout.units[i]
        if layout.dimensions:
            for axis, label in enumerate(layout.dimensions[i]):
                dataset.dims[axis].label = label
        made.append(dataset)
    return made


def _create(
    file: h5py.File, name: str, shape: tuple[int, ...], dtype: np.dtype[Any]
) -> h5py.Dataset:
    creation = h5p.create(h5p.DATASET_CREATE)
    creation.set_layout(h5d.CONTIGUOUS)
    creation.set_alloc_time(h5d.ALLOC_TIME_LATE)
    creation.set_fill_time(h5d.FILL_TIME_NEVER)
    # Else two images of one layout would differ.
    creation.set_obj_track_times(False)
    space = h5s.create_simple(shape) if shape else h5s.create(h5s.SCALAR)
    kind = h5t.py_create(dtype, logical=True)
    return h5py.Dataset(h5d.create(file.id, name.encode(), kind, space, creation))


def _set_texts(owner: h5py.Dataset, name: str, texts: Sequence[str]) -> None:
    """Of fixed length: HDF5 has no checksum over those of variable length."""
    if texts:
        encoded = [text.encode() for text in texts]
        kind = h5py.string_dtype("utf-8", max(map(len, encoded)))
        owner.attrs.create(name, np.array(encoded, kind))


def _touch(dataset: h5py.Dataset) -> None:
    """Write one value, so that HDF5 allots the place of all."""
    if dataset.size:
        space = dataset.id.get_space()
        memory = h5s.create_simple((1,))
        if dataset.shape:
            space.select_hyperslab((0,) * dataset.ndim, (1,) * dataset.ndim)
        dataset.id.write(memory, space, np.zeros(1, dataset.dtype))


def _place(dataset: h5py.Dataset) -> Place:
    start = dataset.id.get_offset()
    return Place(0, 0) if start is None else Place(start, dataset.size * dataset.dtype.itemsize)


# --------------------------------------------------------------------------- finding


def find_image(path: Path) -> Image:
    """The image of an existing file, whoever's layout it has, with its head verified.

    HDF5 itself looks for the datasets, so that also files whose head another version of HDF5
    has laid out can be read.

    Raises
    ------
    SnapshotError
        That starts with the path and says what is wrong with the file.
    """
    fd = open_file(path)
    try:
        head = read_head(fd, path)
    finally:
        os.close(fd)
    try:
        with h5py.File(path, "r", locking=False) as file:
            image = _describe(file, head)
    except Exception as error:
        # A file made to deceive may raise anything inside h5py.
        raise SnapshotError(f"{path} is no readable HDF5 file ({reason(error)})") from error
    return image


def open_file(path: Path) -> int:
    """A descriptor for reading. Raises as `find_image`."""
    try:
        return os.open(path, os.O_RDONLY)
    except OSError as error:
        raise SnapshotError(f"{path} cannot be opened ({reason(error)})") from error


def _describe(file: h5py.File, head: bytes) -> Image:
    """What a file says about itself."""
    numbers = dict(file[OWN_NAME].items())
    names = [bytes(name).decode() for name in numbers["checksum"].attrs.get("fields", ())]
    fields = [file[name] for name in names]
    layout = Layout(
        names,
        [field.shape for field in fields],
        [field.dtype for field in fields],
        [str(field.attrs["units"]) for field in fields if "units" in field.attrs],
        str(file.attrs["program"]),
        _labels(fields),
        float(numbers["time"].attrs["dt"]) if "time" in numbers else None,
    )
    places = {name: _place(dataset) for name, dataset in numbers.items()}
    size = file.id.get_filesize() - FOOTER_NBYTES
    image = Image(layout, head, size, tuple(map(_place, fields)), places)
    return replace(image, head=image.blank(head))


def _labels(fields: Sequence[h5py.Dataset]) -> list[tuple[str, ...]]:
    """The dimensions of a layout: none where no axis has a label."""
    labels = [tuple(dim.label for dim in field.dims) for field in fields]
    return labels if any(map(any, labels)) else []


# --------------------------------------------------------------------------- reading


def read_file(path: Path, image: Image, step: int, out: Sequence[Array]) -> int:
    """Fill arrays from a file of the image's layout, whichever HDF5 laid it out.

    Returns
    -------
    int
        The file's checksum.

    Raises
    ------
    SnapshotError
        That starts with the path and says what is wrong with the file.
    """
    fd = open_file(path)
    try:
        if not image.fits(read_head(fd, path)):
            found = find_image(path)
            difference = _tell_layouts_apart(found.layout, image.layout)
            if difference:
                raise SnapshotError(f"{path} {difference}")
            image = found
        return image.read(fd, path, step, out)
    finally:
        os.close(fd)


def _tell_layouts_apart(found: Layout, expected: Layout) -> str:
    """What differs first between two layouts; empty if nothing does."""
    for i, name in enumerate(expected.names):
        if name not in found.names:
            return f"has no dataset {name!r}"
        k = found.names.index(name)
        was, wanted = (found.dtypes[k], found.shapes[k]), (expected.dtypes[i], expected.shapes[i])
        if was != wanted:
            return (
                f"holds the dataset {name!r} as {was[0]} of shape {was[1]}, "
                f"expected {wanted[0]} of shape {wanted[1]}"
            )
    if found.names != expected.names:
        return f"holds the datasets {found.names}, expected {expected.names}"
    if found.program != expected.program:
        return f"is of the program {found.program!r}, expected {expected.program!r}"
    for what in ("units", "dimensions", "dt"):
        was, wanted = getattr(found, what), getattr(expected, what)
        if was != wanted:
            return f"has the {what} {was}, expected {wanted}"
    return ""
