"""Stores of snapshots, resume points and result files. A leaf of the layers.

It imports only `backsweep.errors` and `backsweep.config`. In the order of the layers inside:

    files, faults, locks     whole writes, injected faults, one process at a time
    raw, image               files of HDF5 whose data we write ourselves
    closing, base, hdf5      stores of snapshots
    worker, background       a store whose disk works in a thread
    points, pointfiles       files of resume points
    manifest, owned, durable    which of them count, and whose they are
    results, arrays          result files, and other programs' files

All but `base` and `background` need HDF5 and are not imported here, so that importing
backsweep does not load it.
"""

from backsweep.storage.background import BackgroundStore
from backsweep.storage.base import AbstractStore, Layout

__all__ = ["AbstractStore", "BackgroundStore", "Layout"]
