"""Stores of snapshots. A leaf of the layer diagram: imports only `backsweep.errors`.

`HDF5Store` is in `backsweep.storage.hdf5` and not imported here, so that importing
backsweep does not load HDF5.
"""

from backsweep.storage.base import AbstractStore, Layout
from backsweep.storage.memory import MemoryStore, slot_nbytes

__all__ = ["AbstractStore", "Layout", "MemoryStore", "slot_nbytes"]
