"""Snapshot files of several scans and processes in one folder."""

from __future__ import annotations

import dataclasses

import h5py
import numpy as np
import pytest

import backsweep as bs
from backsweep.errors import ScheduleError
from backsweep.ir import ArrayType, Builder
from backsweep.primitives.control import ScanShape
from backsweep.runtime.checkpointing import Checkpointing
from backsweep.runtime.choose import Demand, choose
from backsweep.runtime.journal import NOT_RESUMABLE
from backsweep.runtime.plan import ScanPlan
from backsweep.runtime.snapshots import open_store


def test_no_prefix_follows_from_an_address(tmp_path):
    """Ranks may have the same addresses, as has here what takes the place of a freed object."""
    request = Checkpointing(memory=0, disk="1 MB", directory=str(tmp_path))
    type, demand = ArrayType((3,), np.dtype(float)), Demand(9, 64, 24, 9 * 64)
    b = Builder()
    step = b.build((b.input(type),), "step")
    plan = ScanPlan(
        request, choose(request, demand, 0, 10**6), demand, None, step, ScanShape(0, 1, 9)
    )
    prefixes = {open_store(plan, step, (type,), NOT_RESUMABLE).prefix for _ in range(100)}
    assert len(prefixes) == 100


def test_files_speak_for_themselves(tmp_path):
    """h5py alone reads names, units, axes, step, time and program."""
    labels = bs.Labels(dt=0.5, units={"u": "Pa"}, dimensions={"u": ("x", "z")})
    request = Checkpointing(
        memory=0, disk="1 MB", directory=str(tmp_path), snapshots=4, labels=labels
    )

    def step(carry, _):
        u, count = carry
        return (0.9 * u, count + 1), None

    def last(u):
        return bs.scan(step, (u, 0.0), length=30, checkpointing=request)[0][0]

    u = np.arange(6.0).reshape(2, 3)
    _, pullback = bs.vjp(last, u)
    files = sorted(tmp_path.iterdir())
    assert len(files) == 3
    for path in files:
        with h5py.File(path) as file:
            n = int(file["backsweep/step"][()])
            assert float(file["backsweep/time"][()]) == 0.5 * n
            assert file["u"].attrs["units"] == "Pa" and file["count"][()] == n
            assert [d.label for d in file["u"].dims] == ["x", "z"]
            np.testing.assert_allclose(file["u"][...], u * 0.9**n)
            assert file.attrs["program"] and "checksum" in file["backsweep"]
    pullback.close()
    request = dataclasses.replace(request, labels=bs.Labels(units={"v": "Pa"}))
    with pytest.raises(ScheduleError, match="labels of v: .* has the components u, count"):
        bs.vjp(last, u)
