"""Processes that are killed, and disks that fail or are full, at each point that storage passes."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
from fault_run import IDENTITY, LAYOUT, N_GENERATIONS, folder_needs, main, named, values

from backsweep.errors import BacksweepError, SnapshotError
from backsweep.storage import faults
from backsweep.storage.background import BackgroundStore
from backsweep.storage.durable import DurableFolder
from backsweep.storage.faults import POINTS
from backsweep.storage.hdf5 import HDF5Store
from backsweep.storage.records import RecordFolder
from backsweep.storage.results import read_result

RUN = Path(__file__).with_name("fault_run.py")


def run(directory, fault=""):
    return subprocess.run(
        [sys.executable, RUN, directory],
        env={**os.environ, "BACKSWEEP_FAULT": fault},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )


def assert_intact(directory):
    """What a process left is whole, and found without a warning."""
    if (directory / "snapshots").exists():
        with HDF5Store(directory / "snapshots", LAYOUT, keep=True, adopt=True) as store:
            out = values(-1)
            held = store.keys()
            for key in held:
                store.get(key, out)
                assert all(np.array_equal(*pair) for pair in zip(out, values(key), strict=True))
    generation = 0
    if (directory / "points").exists():
        with DurableFolder(directory / "points", IDENTITY) as folder:
            point = folder.latest()
            if point is not None:
                generation = point.generation
                assert point.notes == {"number": generation}
                assert_named(point.arrays(), generation)
                assert [*point.attached] == folder_needs(generation)
                for name in point.attached:
                    assert_named(folder.attached(name), int(name.removeprefix("done-")))
    if (directory / "records").exists():
        with RecordFolder(directory / "records", IDENTITY) as folder:
            for number, record in enumerate(folder.records):
                assert record.about == {"number": number}
                assert_named(record.read(), number)
    if (directory / "result.h5").exists():
        variables, attributes = read_result(directory / "result.h5")
        assert (variables["u"].values == attributes["number"]).all()
    return generation


def assert_named(found, number):
    for name, array in named(number).items():
        np.testing.assert_array_equal(found[name], array, strict=True)


def temporaries(directory, *folders):
    return [name for each in folders for name in directory.glob(f"{each}/.*.tmp")]


@pytest.mark.parametrize("point", POINTS)
def test_killed_at(tmp_path, point):
    for count in (1, 3):
        directory = tmp_path / str(count)
        directory.mkdir()
        assert run(directory, f"{point}:{count}:kill").returncode == -signal.SIGKILL
        with warnings.catch_warnings(action="error"):
            found = assert_intact(directory)
        assert temporaries(directory, "snapshots", "points", "records") == []
        if point.partition(".")[0] in ("point", "manifest") and count == 3:
            # Half of generation 3 was written; or all of it, but not its manifest.
            assert found == (3 if point == "manifest.after-rename" else 2)
    # The process that comes next goes on to the end, and nothing is left over.
    done = run(directory)
    assert (done.returncode, done.stderr) == (0, "")
    assert assert_intact(directory) == N_GENERATIONS
    assert temporaries(directory, "snapshots", "points", "records", ".") == []
    # The manifest, two generations, and the three attachments that these need.
    assert len(os.listdir(directory / "points")) == 6
    # The manifest, the point that has the identity, and five files of six records.
    assert len(os.listdir(directory / "records")) == 7


@pytest.mark.parametrize("action", ["raise", "full"])
def test_a_disk_that_fails(tmp_path, monkeypatch, action):
    """In this process: each failure is one clear error, and the process goes on after it."""
    number = errno.EIO if action == "raise" else errno.ENOSPC
    for point in POINTS:
        directory = tmp_path / point
        directory.mkdir()
        faults._counts.clear()
        monkeypatch.setenv("BACKSWEEP_FAULT", f"{point}:2:{action}")
        n_handles = len(os.listdir("/proc/self/fd"))
        if point.startswith("delete"):
            # What cannot be removed is left, and goes later.
            main(directory)
        else:
            with pytest.raises(BacksweepError, match=os.strerror(number)):
                main(directory)
        assert len(os.listdir("/proc/self/fd")) == n_handles
        assert temporaries(directory, "snapshots", "points", "records", ".") == []
        assert_intact(directory)
        main(directory)
        assert assert_intact(directory) == N_GENERATIONS


@pytest.fixture
def tiny_disk(tmp_path):
    """A file system of 256 KiB, where we may make one."""
    folder = tmp_path / "tiny"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(folder)]
    if os.geteuid() or subprocess.run(command, capture_output=True, check=False).returncode:
        pytest.skip("only root may mount a file system; test_hdf5 has limits on file sizes")
    yield folder
    subprocess.run(["umount", folder], check=True)


def test_a_full_disk(tiny_disk):
    with HDF5Store(tiny_disk, LAYOUT) as store:
        with pytest.raises(SnapshotError, match="No space left"):
            for key in range(20):
                store.put(key, values(key))
        assert 2 < len(store) < 20
        assert len(os.listdir(tiny_disk)) == len(store)
        out = values(-1)
        held = store.keys()
        for key in held:
            store.get(key, out)
            assert out[0][0] == key + 0.5
        with BackgroundStore(HDF5Store(tiny_disk, LAYOUT, prefix="b"), 2) as behind:
            for key in range(3):
                behind.put(key, values(key))
            behind.flush()
            assert behind.keys() == () and "No space left" in str(behind.failures[2])


def test_a_disk_full_of_points(tiny_disk):
    with DurableFolder(tiny_disk / "points", IDENTITY) as folder:
        folder.save(named(1), {})
        folder.save(named(2), {})
        (tiny_disk / "others").write_bytes(bytes(256 * 1024 - 130_000))
        with pytest.raises(SnapshotError, match="point-00000003.h5 could not .*: No space left"):
            for _ in range(3, 20):
                folder.attach(f"more-{_}", named(1))
                folder.save(named(3), {})
    with DurableFolder(tiny_disk / "points", IDENTITY) as folder:
        assert folder.latest().generation >= 2


def test_unknown_faults(tmp_path, monkeypatch):
    monkeypatch.setenv("BACKSWEEP_FAULT", "nowhere:1:kill")
    with pytest.raises(ValueError, match="BACKSWEEP_FAULT=nowhere:1:kill names no fault"):
        main(tmp_path)
