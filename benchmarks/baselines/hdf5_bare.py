"""Put and get of one state with bare h5py, as a person would write it.

One file per state, a temporary name and a rename, a checksum that is verified on reading, no
fsync: what the HDF5 store promises, without the store.
"""

from __future__ import annotations

import os
import zlib
from pathlib import Path

import h5py
import numpy as np


def put(path: Path, arrays: dict[str, np.ndarray]) -> None:
    """Write the arrays and their checksums to a temporary file, then rename it."""
    temporary = path.with_suffix(".tmp")
    with h5py.File(temporary, "w", libver="latest") as file:
        for name, array in arrays.items():
            dataset = file.create_dataset(name, data=array)
            dataset.attrs["crc32"] = zlib.crc32(array)
    os.replace(temporary, path)


def get(path: Path, arrays: dict[str, np.ndarray]) -> None:
    """Read into the arrays and verify their checksums."""
    with h5py.File(path, "r") as file:
        for name, array in arrays.items():
            dataset = file[name]
            dataset.read_direct(array)
            if zlib.crc32(array) != dataset.attrs["crc32"]:
                raise OSError(f"{path}: {name} does not have its checksum")
