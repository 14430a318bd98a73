"""Snapshot files of several scans and processes in one folder."""

from __future__ import annotations

import numpy as np

from backsweep.ir import ArrayType, Builder
from backsweep.runtime.checkpointing import Checkpointing
from backsweep.runtime.snapshots import open_store


def test_no_prefix_follows_from_an_address(tmp_path):
    """Ranks may have the same addresses, as has here what takes the place of a freed object."""
    request = Checkpointing(disk="1 MB", directory=str(tmp_path))
    type = ArrayType((3,), np.dtype(float))
    b = Builder()
    step = b.build((b.input(type),), "step")
    prefixes = {open_store(request, step, (type,), 1).prefix for _ in range(100)}
    assert len(prefixes) == 100
