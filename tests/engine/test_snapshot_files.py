"""Snapshot files of several scans and processes in one folder."""

from __future__ import annotations

import numpy as np

from backsweep.ir import ArrayType, Builder
from backsweep.runtime.checkpointing import Checkpointing
from backsweep.runtime.choose import Demand, choose
from backsweep.runtime.journal import NOT_RESUMABLE
from backsweep.runtime.plan import ScanPlan
from backsweep.runtime.snapshots import open_store


def test_no_prefix_follows_from_an_address(tmp_path):
    """Ranks may have the same addresses, as has here what takes the place of a freed object."""
    request = Checkpointing(memory=0, disk="1 MB", directory=str(tmp_path))
    type, demand = ArrayType((3,), np.dtype(float)), Demand(9, 64, 24, 9 * 64)
    plan = ScanPlan(request, choose(request, demand, 0, 10**6), demand, None, None)
    b = Builder()
    step = b.build((b.input(type),), "step")
    prefixes = {open_store(plan, step, (type,), NOT_RESUMABLE).prefix for _ in range(100)}
    assert len(prefixes) == 100
