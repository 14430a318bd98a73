"""The store on disk, and every fault that a disk can have, made for real."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from dataclasses import replace

import h5py
import numpy as np
import pytest
from contract import LAYOUT, StoreContract, assert_holds, empty, state

from backsweep.errors import SnapshotError
from backsweep.storage import Layout
from backsweep.storage.checksum import checksum_of
from backsweep.storage.hdf5 import HDF5Store
from backsweep.storage.image import make_image


@pytest.fixture
def store(tmp_path):
    with HDF5Store(tmp_path, LAYOUT) as store:
        yield store


class TestHDF5Store(StoreContract):
    @pytest.fixture
    def store(self, tmp_path):
        with HDF5Store(tmp_path, LAYOUT) as store:
            yield store
        assert os.listdir(tmp_path) == []


def flip(path, position):
    content = bytearray(path.read_bytes())
    content[position] ^= 1
    path.write_bytes(content)


def position_of(path, name):
    """Where the data of a dataset starts in its file."""
    with h5py.File(path) as file:
        return file[name].id.get_offset()


NAMED = replace(
    LAYOUT,
    dimensions=(("x", "z"), ("i",), (), ("a", "b"), ("m",), ("p", "q"), ("n",)),
    dt=0.25,
)


def test_files_are_readable_with_h5py_alone(tmp_path):
    with HDF5Store(tmp_path, NAMED) as store:
        store.put(417, state(417))
        with h5py.File(store.path(417)) as file:
            assert file.attrs["program"] == LAYOUT.program
            assert file.attrs["format_version"] == 2
            own = file["backsweep"]
            assert own["step"][()] == 417
            assert own["time"][()] == 417 * 0.25 and own["time"].attrs["units"] == "s"
            assert [name.decode() for name in own["checksum"].attrs["fields"]] == [*LAYOUT.names]
            assert set(file) == {*LAYOUT.names, "backsweep"}
            for i, (name, array) in enumerate(zip(LAYOUT.names, state(417), strict=True)):
                np.testing.assert_array_equal(file[name][()], array, strict=True)
                assert own["checksum"][i] == checksum_of(memoryview(array.tobytes()))
                assert tuple(dim.label for dim in file[name].dims) == NAMED.dimensions[i]
            assert file["v"].attrs["units"] == "µm/s"


def test_h5dump_reads_files(store):
    if shutil.which("h5dump") is None:
        pytest.skip("h5dump is not installed")
    store.put(417, state(417))
    done = subprocess.run(
        ["h5dump", "-d", "/v", "-d", "/backsweep/step", store.path(417)],
        capture_output=True,
        text=True,
        check=True,
    )
    assert "(0): 417" in done.stdout
    assert "(0): " + ", ".join(f"{x:g}" for x in state(417)[1]) in done.stdout


def test_large_fields_are_aligned(tmp_path):
    layout = Layout(("a", "u", "v"), ((3,), (1000,), (70_000,)), ("i2", "f8", "f4"))
    with HDF5Store(tmp_path, layout) as store:
        store.put(5, state(5, layout))
        out = empty(layout)
        store.get(5, out)
        assert all(np.array_equal(a, b) for a, b in zip(out, state(5, layout), strict=True))
        assert position_of(store.path(5), "u") % 4096 == position_of(store.path(5), "v") % 4096 == 0
        flip(store.path(5), position_of(store.path(5), "v") + 250_001)
        with pytest.raises(SnapshotError, match=r"step 5 .*checksum in the dataset 'v'"):
            store.get(5, out)


def test_an_image_takes_no_space(tmp_path):
    image = make_image(Layout(("u", "v"), ((10**10,), (10**10,)), ("f8", "f8")))
    assert image.n_bytes > 16 * 10**10 and len(image.head) < 20_000


def test_a_file_laid_out_by_another_hdf5_is_read(tmp_path, monkeypatch):
    with HDF5Store(tmp_path, NAMED) as store:
        store.put(3, state(3))
        # As if our HDF5 had made another head.
        monkeypatch.setattr(
            store, "_image", replace(store._image, head=bytes(len(store._image.head)))
        )
        assert_holds(store, 3, state(3))
        with pytest.raises(SnapshotError, match="holds step 3"):
            shutil.copy(store.path(3), store.path(4))
            store._steps.add(4)
            store.get(4, empty())


def test_the_space_reserved_is_the_size_of_the_file(store):
    store.put(1, state(1))
    assert store.path(1).stat().st_size == store._image.file_nbytes


def test_one_file_per_snapshot(store):
    store.put(1, state(1))
    store.put(2, state(2))
    assert sorted(os.listdir(store.directory)) == [store.path(1).name, store.path(2).name]
    store.delete(1)
    assert [n for n in os.listdir(store.directory) if n[0] != "."] == [store.path(2).name]


def test_the_file_of_a_deleted_snapshot_is_written_over(store):
    for key in (1, 2):
        store.put(key, state(key))
    numbers = {key: store.path(key).stat().st_ino for key in (1, 2)}
    store.delete(1)
    store.delete(2)
    for key in (3, 4, 5):
        store.put(key, state(key))
    assert {store.path(key).stat().st_ino for key in (3, 4)} == set(numbers.values())
    assert len(os.listdir(store.directory)) == 3
    for key in (3, 4, 5):
        assert_holds(store, key, state(key))
    store.delete(3)
    store.delete(4)
    spares = [path for path in store.directory.iterdir() if path.name[0] == "."]
    os.truncate(spares[0], 10)
    spares[1].unlink()
    for key in (6, 7):
        store.put(key, state(key))
        assert_holds(store, key, state(key))
    store.close()
    assert os.listdir(store.directory) == []


def test_truncated_file(store):
    store.put(3, state(3))
    size = store.path(3).stat().st_size
    for length in (size - 1, size // 2, 50, 0):
        os.truncate(store.path(3), length)
        with pytest.raises(SnapshotError, match=rf"step 3 is lost: {store.path(3)}"):
            store.get(3, empty())


def test_one_flipped_bit_in_the_data(store):
    store.put(3, state(3))
    flip(store.path(3), position_of(store.path(3), "v") + 17)
    with pytest.raises(SnapshotError, match=rf"step 3 .*{store.path(3)} has a wrong checksum"):
        store.get(3, empty())


def test_a_flipped_bit_anywhere_never_gives_wrong_values(store):
    store.put(3, state(3))
    whole = store.path(3).read_bytes()
    n_noticed = 0
    for position in range(0, len(whole), 3):
        flip(store.path(3), position)
        out = empty()
        try:
            store.get(3, out)
        except SnapshotError:
            n_noticed += 1
        else:
            assert all(np.array_equal(a, b) for a, b in zip(out, state(3), strict=True)), position
        store.path(3).write_bytes(whole)
    assert n_noticed == len(range(0, len(whole), 3))


def test_file_of_another_step(store):
    store.put(3, state(3))
    store.put(4, state(4))
    shutil.copy(store.path(4), store.path(3))
    with pytest.raises(SnapshotError, match=rf"step 3 .*{store.path(3)} holds step 4"):
        store.get(3, empty())


def test_file_that_is_gone(store):
    store.put(3, state(3))
    store.path(3).unlink()
    with pytest.raises(SnapshotError, match="No such file"):
        store.get(3, empty())
    store.delete(3)
    assert store.keys() == ()


def test_file_of_another_layout_program_or_format(tmp_path):
    def overwrite(**changes):
        with HDF5Store(tmp_path, replace(LAYOUT, **changes), keep=True) as other:
            other.put(1, empty(other.layout))

    with HDF5Store(tmp_path, LAYOUT) as store:
        store.put(1, state(1))
        overwrite(shapes=((4, 3), *LAYOUT.shapes[1:]))
        with pytest.raises(SnapshotError, match=r"'u' as float32 of shape \(4, 3\), expected"):
            store.get(1, empty())
        overwrite(dtypes=("f4", "f4", *LAYOUT.dtypes[2:]))
        with pytest.raises(SnapshotError, match=r"'v' as float32 of shape \(5,\), expected float6"):
            store.get(1, empty())
        overwrite(names=("w", *LAYOUT.names[1:]))
        with pytest.raises(SnapshotError, match="has no dataset 'u'"):
            store.get(1, empty())
        overwrite(program="another")
        with pytest.raises(SnapshotError, match="program 'another', expected '0123"):
            store.get(1, empty())
        with h5py.File(store.path(1), "w") as file:
            file["u"] = np.zeros((3, 4), np.float32)
        with pytest.raises(SnapshotError, match="no file of this version of backsweep"):
            store.get(1, empty())


def test_folder_that_is_missing_or_cannot_be_written_to(tmp_path):
    (tmp_path / "file").touch()
    for path in (tmp_path / "missing", tmp_path / "file", tmp_path / "file" / "x", "/proc"):
        with pytest.raises(SnapshotError, match=f"cannot be written to the folder {path}"):
            HDF5Store(path, LAYOUT)


def test_folder_removed_in_between(tmp_path):
    folder = tmp_path / "scratch"
    folder.mkdir()
    with HDF5Store(folder, LAYOUT) as store:
        store.put(1, state(1))
        shutil.rmtree(folder)
        with pytest.raises(SnapshotError, match="step 2 could not be written"):
            store.put(2, state(2))
        with pytest.raises(SnapshotError, match="step 1 is lost"):
            store.get(1, empty())
        assert store.keys() == (1,)


FULL_DISK = """
import errno, os, resource, signal, sys
import numpy as np
from backsweep.errors import SnapshotError
from backsweep.storage import Layout
from backsweep.storage.checksum import checksum_of
from backsweep.storage.hdf5 import HDF5Store

directory, can_reserve = sys.argv[1], sys.argv[2] == "reserve"
if not can_reserve:
    def refuse(*_):
        raise OSError(errno.EOPNOTSUPP, "not supported")
    os.posix_fallocate = refuse

def limit(n):
    resource.setrlimit(resource.RLIMIT_FSIZE, (n, resource.RLIM_INFINITY))

ones, zeros = [[np.full(1000, x), np.full(1000, x)] for x in (1.0, 0.0)]
out = [np.empty(1000), np.empty(1000)]
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
with HDF5Store(directory, Layout(("u", "v"), ((1000,), (1000,)), ("f8", "f8"))) as store:
    store.put(1, ones)
    n_open = len(os.listdir("/proc/self/fd"))
    for n in (0, 100, 600, 9000, 16000, store.path(1).stat().st_size - 1):
        limit(n)
        try:
            store.put(1, zeros)
            sys.exit(f"a limit of {n} bytes was not noticed")
        except SnapshotError as error:
            message = str(error)
        limit(resource.RLIM_INFINITY)
        assert os.listdir(directory) == [store.path(1).name]
        assert len(os.listdir("/proc/self/fd")) == n_open
        store.get(1, out)
        assert all(np.array_equal(*pair) for pair in zip(out, ones))
    limit(store.path(1).stat().st_size)
    store.put(2, zeros)
    store.get(2, out)
    assert all(np.array_equal(*pair) for pair in zip(out, zeros))
print(message)
"""


HANDLES = """
import os, resource, sys
import numpy as np
from backsweep.errors import SnapshotError
from backsweep.storage import Layout
from backsweep.storage.checksum import checksum_of
from backsweep.storage.hdf5 import HDF5Store

with HDF5Store(sys.argv[1], Layout(("u",), ((9,),), ("f8",))) as store:
    store.put(1, [np.ones(9)])
    resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))
    taken = []
    try:
        while True:
            taken.append(os.open("/dev/null", os.O_RDONLY))
    except OSError:
        pass
    for act in (lambda: store.put(2, [np.ones(9)]), lambda: store.get(1, [np.ones(9)])):
        try:
            act()
        except SnapshotError as error:
            print(error)
    for fd in taken:
        os.close(fd)
    store.put(2, [np.ones(9)])
    store.get(1, [np.ones(9)])
"""


def test_no_more_handles(tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", HANDLES, str(tmp_path)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    first, second = done.stdout.splitlines()
    assert first.startswith("the snapshot of step 2 could not be written") and "Too many" in first
    assert second.startswith("the snapshot of step 1 is lost") and "Too many" in second


@pytest.mark.parametrize("mode", ["reserve", "file system that cannot reserve"])
def test_full_disk(tmp_path, mode):
    # A limit on file sizes fails as a full disk does, in the middle of a file. In a process
    # of its own: HDF5 crashes at the *end* of one in which it could not flush.
    done = subprocess.run(
        [sys.executable, "-c", FULL_DISK, str(tmp_path), mode],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == (
        f"the snapshot of step 1 could not be written to {tmp_path}/snapshot-000000000001.h5: "
        "File too large\n"
    )
    assert os.listdir(tmp_path) == []


def test_keep_and_adopt(tmp_path):
    with HDF5Store(tmp_path, LAYOUT, keep=True) as store:
        store.put(1, state(1))
        store.put(2, state(2))
    with HDF5Store(tmp_path, LAYOUT) as fresh:
        assert fresh.keys() == ()
    with HDF5Store(tmp_path, LAYOUT, adopt=True) as store:
        assert store.keys() == (1, 2)
        assert_holds(store, 2, state(2))
        assert_holds(store, 1, state(1))
    assert os.listdir(tmp_path) == []


def test_what_a_killed_process_left_is_removed(tmp_path):
    mine = tmp_path / ".snapshot-000000000007.h5.4711.tmp"
    others = tmp_path / ".snapshot-r1-000000000007.h5.4711.tmp"
    mine.touch()
    others.touch()
    with HDF5Store(tmp_path, LAYOUT):
        assert os.listdir(tmp_path) == [others.name]


def test_prefixes_keep_ranks_apart(tmp_path):
    with (
        HDF5Store(tmp_path, LAYOUT, prefix="r0") as first,
        HDF5Store(tmp_path, LAYOUT, prefix="r1") as second,
    ):
        first.put(1, state(10))
        second.put(1, state(11))
        assert_holds(first, 1, state(10))
        first.close()
        assert_holds(second, 1, state(11))


def test_a_state_without_fields(tmp_path):
    with HDF5Store(tmp_path, Layout((), (), ())) as store:
        store.put(0, [])
        store.get(0, [])
