"""Resume points, and all that can happen to them."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import warnings

import h5py
import numpy as np
import pytest

from backsweep.errors import ResumeError, SnapshotError
from backsweep.storage.durable import DurableFolder

# What a test looks for is caught by `pytest.warns`, which passes on the others.
pytestmark = pytest.mark.filterwarnings("ignore:resume points")

IDENTITY = {"backsweep": "0.1.0", "program": "0123456789abcdef" * 2, "input c2": "aa" * 16}


def arrays_of(number):
    """All kinds of arrays, different for each generation."""
    random = np.random.default_rng(number)
    return {
        "u": random.normal(size=(30, 40)).astype(np.float32),
        "psi": (random.normal(size=70) + 1j * random.normal(size=70))[::2],
        "mask": random.random((3, 5)) < 0.5,
        "count": np.array(number),
        "empty": np.zeros((0, 3), np.int16),
        "field": np.asfortranarray(random.normal(size=(200, 100))),
        "special": np.array([np.nan, -0.0, np.inf, 5e-324]),
    }


def assert_same(found, expected):
    assert list(found) == list(expected)
    for name, array in expected.items():
        assert found[name].dtype == array.dtype and found[name].shape == array.shape
        assert found[name].tobytes() == array.tobytes(), name


def assert_point(point, number):
    assert point.generation == number
    assert point.notes == {"step": number, "phase": ["forward", None, 0.5]}
    assert_same(point.arrays(), arrays_of(number))


def save(folder, number):
    notes = {"step": number, "phase": ["forward", None, 0.5]}
    assert folder.save(arrays_of(number), notes) == number


@pytest.fixture
def directory(tmp_path):
    """Three generations, of which two are there, and one attachment."""
    directory = tmp_path / "a" / "points"
    with DurableFolder(directory, IDENTITY) as folder:
        assert folder.latest() is None
        save(folder, 1)
        folder.attach("done-0", {"gradient": np.arange(9.0), "value": np.array(2.5)})
        save(folder, 2)
        save(folder, 3)
    return directory


def reopen(directory, **options):
    return DurableFolder(directory, IDENTITY, **options)


def test_saved_and_found(directory):
    files = ["attached-done-0.h5", "manifest.json", "point-00000002.h5", "point-00000003.h5"]
    assert sorted(os.listdir(directory)) == files
    with warnings.catch_warnings(action="error"), reopen(directory) as folder:
        point = folder.latest()
        assert_point(point, 3)
        assert point.attached == ("done-0",)
        assert_same(folder.attached("done-0"), {"gradient": np.arange(9.0), "value": np.array(2.5)})
        save(folder, 4)
    with h5py.File(directory / "point-00000004.h5") as file:
        assert file["backsweep/step"][()] == 4
        np.testing.assert_array_equal(file["u"], arrays_of(4)["u"])


def test_attachments_that_no_point_needs_are_removed(directory):
    with reopen(directory) as folder:
        folder.latest()
        folder.attach("done-1", {"value": np.array(1)})
        with pytest.raises(SnapshotError, match="'done-1' is attached already"):
            folder.attach("done-1", {})
        with pytest.raises(SnapshotError, match="'a/b' cannot name"):
            folder.attach("a/b", {})
        with pytest.raises(SnapshotError, match="nothing is attached as 'done-7'"):
            folder.save({}, {}, attached=["done-7"])
        folder.save({}, {}, attached=["done-1"])
        assert (directory / "attached-done-0.h5").exists()
        folder.save({}, {}, attached=["done-1"])
        assert not (directory / "attached-done-0.h5").exists()
        with pytest.raises(SnapshotError, match="nothing is attached as 'done-0'"):
            folder.attached("done-0")
        assert folder.attached("done-1") == {"value": 1}


def test_clear(directory, tmp_path):
    with reopen(directory) as folder:
        folder.clear()
        with pytest.raises(SnapshotError, match="is closed"):
            folder.save({}, {})
    assert not directory.exists() and directory.parent.exists()
    with reopen(tmp_path) as folder:
        (tmp_path / "point of mine.h5").touch()
        save(folder, 1)
        folder.clear()
    assert sorted(os.listdir(tmp_path)) == ["a", "point of mine.h5"]


def test_another_computation(directory):
    other = {**IDENTITY, "input c2": "bb" * 16, "dt": "0.5"}
    with pytest.raises(ResumeError) as caught:
        DurableFolder(directory, other)
    text = str(caught.value)
    assert "'input c2' was 'aaaaaaaaaaaa...', is 'bbbbbbbbbbbb...'" in text
    assert "'dt' was absent, is '0.5'" in text and "--fresh" in text and "program" not in text
    (directory / "manifest.json").unlink()
    with pytest.raises(ResumeError, match="'dt' was absent"):
        DurableFolder(directory, other)
    (directory / "mine.txt").touch()
    with DurableFolder(directory, other, fresh=True) as folder:
        assert sorted(os.listdir(directory)) == ["lock", "mine.txt"]
        assert folder.latest() is None
        save(folder, 1)


def truncate(path):
    os.truncate(path, path.stat().st_size - 1)


def halve(path):
    os.truncate(path, path.stat().st_size // 2)


def lengthen(path):
    with open(path, "ab") as file:
        file.write(b"x")


def remove(path):
    path.unlink()


@pytest.mark.parametrize("damage", [truncate, halve, lengthen, remove])
def test_a_damaged_point(directory, damage):
    damage(directory / "point-00000003.h5")
    with reopen(directory) as folder:
        with pytest.warns(UserWarning, match=r"point-00000003.h5 .*; an older is used"):
            assert_point(folder.latest(), 2)
        save(folder, 3)
        assert_point(folder.latest(), 3)
    damage(directory / "point-00000003.h5")
    damage(directory / "point-00000002.h5")
    with reopen(directory) as folder:
        with pytest.warns(UserWarning, match=r"point-00000002.h5 .*; the computation starts over"):
            assert folder.latest() is None
        save(folder, 1)
        assert_point(folder.latest(), 1)


def test_a_flipped_byte_anywhere(directory):
    path = directory / "point-00000003.h5"
    whole = path.read_bytes()
    with h5py.File(path) as file:
        places = [file[name].id.get_offset() for name in ("u", "field", "backsweep/step")]
        places.append(file["backsweep/checksum"].id.get_offset())
    random = np.random.default_rng(0)
    places += [*random.integers(0, len(whole), 150), *random.integers(0, 4000, 50)]
    n_noticed = 0
    for place in map(int, places):
        content = bytearray(whole)
        content[place] ^= 1 << int(random.integers(8))
        path.write_bytes(content)
        with warnings.catch_warnings(record=True), reopen(directory) as folder:
            point = folder.latest()
            assert_point(point, point.generation)
            n_noticed += point.generation == 2
    # What lies between datasets is nobody's.
    assert n_noticed > 0.9 * len(places)
    path.write_bytes(whole)


def test_a_generation_in_place_of_another(directory):
    shutil.copy(directory / "point-00000002.h5", directory / "point-00000003.h5")
    with reopen(directory) as folder, pytest.warns(UserWarning, match="3.h5 holds generation 2"):
        assert_point(folder.latest(), 2)


def test_a_damaged_attachment(directory):
    with reopen(directory) as folder:
        folder.latest()
        folder.attach("done-1", {"value": np.array(1)})
        save(folder, 4)
    with reopen(directory) as folder:
        shutil.copy(directory / "attached-done-0.h5", directory / "attached-done-1.h5")
        with pytest.warns(UserWarning, match="attached-done-1.h5 is another file"):
            assert_point(folder.latest(), 3)


@pytest.mark.parametrize("damage", [truncate, halve, remove])
def test_a_damaged_manifest(directory, damage):
    damage(directory / "manifest.json")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        with reopen(directory) as folder:
            assert_point(folder.latest(), 3)
            save(folder, 4)
    # Where there is none, somebody was killed before the first.
    assert ["manifest.json cannot be used" in str(w.message) for w in caught] == (
        [] if damage is remove else [True]
    )


def test_an_edited_manifest(directory):
    path = directory / "manifest.json"
    document = json.loads(path.read_text())
    document["content"]["generations"][0]["number"] = 2
    path.write_text(json.dumps(document))
    with pytest.warns(UserWarning, match="its checksum is wrong; points are used without it"):
        folder = reopen(directory)
    with folder:
        assert_point(folder.latest(), 3)
    path.write_text("[" * 100_000)
    for number in (2, 3):
        truncate(directory / f"point-0000000{number}.h5")
    with pytest.warns(UserWarning, match="manifest.json cannot be used.*; no point is usable"):
        folder = reopen(directory)
    with folder:
        assert folder.latest() is None


def test_one_process_at_a_time(directory):
    with reopen(directory):
        with pytest.raises(
            ResumeError, match=rf"in use by this process itself \(pid {os.getpid()}"
        ):
            reopen(directory)
        code = (
            "import sys; from backsweep.storage.durable import DurableFolder; "
            f"DurableFolder({str(directory)!r}, {{}})"
        )
        done = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=False
        )
        assert f"ResumeError: {directory} is in use by process {os.getpid()} on " in done.stderr
    reopen(directory).close()
    dropped = reopen(directory)
    del dropped
    reopen(directory).close()


def test_folders_that_cannot_be_used(tmp_path):
    (tmp_path / "file").touch()
    for path in (tmp_path / "file", tmp_path / "file" / "x"):
        with pytest.raises(SnapshotError, match=f"cannot be written to the folder {path}"):
            DurableFolder(path, {})


def test_folder_removed_in_between(directory):
    with reopen(directory) as folder:
        shutil.rmtree(directory)
        with pytest.raises(SnapshotError, match=r"point-00000001.h5 could not be written: No such"):
            folder.save({}, {})


def test_what_cannot_be_stored(directory):
    with reopen(directory) as folder:
        with pytest.raises(ValueError, match="dtype object"):
            folder.save({"x": np.array([None])}, {})
        with pytest.raises(TypeError, match="not JSON serializable"):
            folder.save({}, {"x": object()})
        assert_point(folder.latest(), 3)


def test_nothing_grows(tmp_path):
    with DurableFolder(tmp_path, IDENTITY) as folder:
        n_handles = len(os.listdir("/proc/self/fd"))
        for number in range(1, 101):
            save(folder, number)
            assert_point(folder.latest(), number)
        assert len(os.listdir("/proc/self/fd")) == n_handles
        assert len(os.listdir(tmp_path)) == 4
