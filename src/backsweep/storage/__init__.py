"""Stores of snapshots and result files. A leaf of the layers: imports only `backsweep.errors`.

`HDF5Store` is in `backsweep.storage.hdf5`, result files are in `backsweep.storage.results`;
neither is imported here, so that importing backsweep does not load HDF5.
"""

from backsweep.storage.base import AbstractStore, Layout
from backsweep.storage.memory import MemoryStore, slot_nbytes

__all__ = ["AbstractStore", "Layout", "MemoryStore", "slot_nbytes"]
