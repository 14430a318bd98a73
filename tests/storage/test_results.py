"""Result files: what xarray, h5py and `read_result` find; what a disk and a kill do to them."""

from __future__ import annotations

import os
import subprocess
import sys

import h5py
import numpy as np
import pytest
import xarray as xr

from backsweep.errors import ResultError
from backsweep.storage.results import Variable, read_result, write_result

SPECTRUM = np.exp(1j * np.arange(4))
VARIABLES = {
    "time": Variable(np.arange(4) * 0.5, ("time",), "s", "time after the shot"),
    "velocity": Variable(np.arange(6, dtype=np.float32).reshape(2, 3), ("z", "x"), "m/s"),
    "data": Variable(np.arange(8.0).reshape(4, 2)[:, ::-1], ("time", "receiver"), "µPa"),
    "spectrum": Variable(SPECTRUM, ("time",)),
    "narrow": Variable(SPECTRUM.astype(np.complex64), ("time",)),
    "is_sought": Variable(np.array([True, False, True]), ("x",)),
    "count": Variable(np.array([3, -1], np.int32), ("receiver",)),
    "misfit": Variable(np.float64(2.5), (), long_name="at the end"),
    "history": Variable(np.empty((0, 3)), ("evaluation", "x"), "1"),
    "half": Variable(np.array([1.5, np.nan], np.float16), ("receiver",)),
}
ATTRIBUTES = {
    "title": "Inversion of γ-rays",
    "empty": "",
    "n_evaluations": 40,
    "tolerance": 1e-9,
    "is_converged": True,
    "bytes": 2**62,
    **{f"setting_{k}": k for k in range(20)},  # HDF5 stores more than 8 otherwise
}


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "result.h5"
    write_result(path, VARIABLES, ATTRIBUTES)
    assert os.listdir(tmp_path) == [path.name]
    return path


def assert_same(found, expected):
    assert list(found) == list(expected)
    for name, variable in expected.items():
        np.testing.assert_array_equal(found[name].values, variable.values, strict=True)
        assert found[name].dims == variable.dims
        assert (found[name].unit, found[name].long_name) == (variable.unit, variable.long_name)


def test_what_was_written_is_read(path):
    variables, attributes = read_result(str(path))
    assert_same(variables, VARIABLES)
    assert attributes == ATTRIBUTES
    assert [type(v) for v in attributes.values()] == [type(v) for v in ATTRIBUTES.values()]


def test_xarray_reads_it(path):
    with xr.open_dataset(path, engine="h5netcdf") as dataset:
        assert dict(dataset.sizes) == {"time": 4, "z": 2, "x": 3, "receiver": 2, "evaluation": 0}
        assert set(dataset.coords) == {"time"}
        assert set(dataset.variables) == set(VARIABLES)
        for name, variable in VARIABLES.items():
            found = dataset[name]
            np.testing.assert_array_equal(found.values, variable.values, strict=True)
            assert found.dims == variable.dims
            assert found.attrs.get("units", "") == variable.unit
            assert found.attrs.get("long_name", "") == variable.long_name
        assert {k: v for k, v in dataset.attrs.items() if k != "backsweep_result"} == ATTRIBUTES
        assert float(dataset["data"].sel(time=1.5, receiver=0)) == 7.0


def test_h5py_reads_it(path):
    with h5py.File(path) as file:
        assert file["velocity"].dtype == np.float32
        assert [axis[0].name for axis in file["data"].dims] == ["/time", "/receiver"]
        assert file["data"].attrs["units"] == "µPa"
        assert file["spectrum"].dtype == np.complex128
        assert file["time"].is_scale
        assert file["x"].attrs["NAME"].startswith(b"This is a netCDF dimension but not a netCDF")
        assert file.attrs["title"] == ATTRIBUTES["title"]


def test_xarray_writes_it_again(path, tmp_path):
    with xr.open_dataset(path, engine="h5netcdf") as dataset:
        real = dataset.drop_vars(["spectrum", "narrow", "half"])
        real.attrs["is_converged"] = 1  # netCDF has no boolean attributes
        real.to_netcdf(tmp_path / "copy.nc", engine="h5netcdf")
    variables, attributes = read_result(tmp_path / "copy.nc")
    assert variables["velocity"].dims == ("z", "x")
    assert variables["is_sought"].values.dtype == bool
    assert attributes["title"] == ATTRIBUTES["title"]


def test_nothing_and_dimensions_of_any_size(tmp_path):
    write_result(tmp_path / "empty.h5", {}, {})
    assert read_result(tmp_path / "empty.h5") == ({}, {})
    # A dimension without coordinate takes no space.
    wide = {"wide": Variable(np.zeros(10**6, np.int8), ("x",))}
    write_result(tmp_path / "wide.h5", wide, {})
    assert (tmp_path / "wide.h5").stat().st_size < 1.1e6


@pytest.mark.parametrize(
    ("variables", "message"),
    [
        (
            {"a": Variable(np.ones(3), ("x",)), "b": Variable(np.ones((2, 4)), ("z", "x"))},
            "the dimension 'x' has 3 points in 'a' and 4 in 'b'",
        ),
        ({"a": Variable(np.ones(3), ("z", "x"))}, "one name is needed for each axis"),
        ({"a": Variable(np.ones((3, 3)), ("x", "x"))}, "one name is needed for each axis"),
        (
            {"x": Variable(np.ones((3, 2)), ("x", "z"))},
            r"'x' has the name of a dimension, but the dimensions \('x', 'z'\)",
        ),
        (
            {"x": Variable(np.ones(()), ()), "y": Variable(np.ones(3), ("x",))},
            "'x' has the name of a dimension",
        ),
        ({"a": Variable(np.array(["s"]), ("x",))}, "dtype <U1, which is no number"),
        ({"a": Variable(np.array([None]), ("x",))}, "dtype object, which is no number"),
        ({"a": Variable(np.ones(1, np.longdouble), ("x",))}, "which is no number"),
        ({"a/b": Variable(np.ones(1), ("x",))}, "'a/b' cannot be a name"),
        ({"a": Variable(np.ones(1), ("",))}, "'' cannot be a name"),
        ({"a": Variable(np.ones(1), ("x",), unit="a\0b")}, "NULL"),
    ],
)
def test_variables_that_are_refused(path, variables, message):
    with pytest.raises(ResultError, match=f"the result {path} could not be written: .*{message}"):
        write_result(path, variables, {})
    assert_same(read_result(path)[0], VARIABLES)


@pytest.mark.parametrize(
    ("attributes", "message"),
    [
        ({"a": None}, "the attribute 'a' is a NoneType"),
        ({"a": [1, 2]}, "the attribute 'a' is a list"),
        ({"a": "one\0two"}, "NULL"),
        ({"a": 2**70}, ""),
        ({1: "a"}, "1 cannot be a name"),
        ({"backsweep_result": 2}, "backsweep's own"),
    ],
)
def test_attributes_that_are_refused(path, attributes, message):
    with pytest.raises(ResultError, match=f"could not be written: .*{message}"):
        write_result(path, {}, attributes)
    assert read_result(path)[1] == ATTRIBUTES


def test_folders_that_are_missing_or_none(tmp_path):
    (tmp_path / "file").touch()
    (tmp_path / "folder").mkdir()
    for path, why in (
        (tmp_path / "missing" / "result.h5", "No such file or directory"),
        (tmp_path / "file" / "result.h5", "Not a directory"),
        (tmp_path / "folder", "Is a directory"),
    ):
        with pytest.raises(ResultError, match=f"the result {path} could not be written: {why}"):
            write_result(path, VARIABLES, {})
    assert sorted(os.listdir(tmp_path)) == ["file", "folder"]


def test_a_folder_that_cannot_be_written_to(tmp_path):
    folder = tmp_path
    if os.geteuid() == 0:
        folder = type(tmp_path)("/proc")  # not even by root
    else:
        folder.chmod(0o500)
    with pytest.raises(ResultError, match=f"the result {folder}/result.h5 could not be written"):
        write_result(folder / "result.h5", VARIABLES, {})


def test_what_is_no_result(path, tmp_path):
    content = path.read_bytes()
    text, short, foreign, later = (tmp_path / f"{k}.h5" for k in range(4))
    text.write_text("velocity = 2000\n")
    short.write_bytes(content[: len(content) // 2])
    with h5py.File(foreign, "w") as file:
        file["u"] = np.zeros(3)
    with h5py.File(later, "w") as file:
        file.attrs["backsweep_result"] = 2
    for wrong, why in (
        (text, "file signature not found"),
        (short, "truncated file"),
        (foreign, "it is no result of backsweep"),
        (later, "it has format 2, 1 is expected"),
        (tmp_path / "none.h5", "No such file or directory"),
        (tmp_path, ""),
    ):
        with pytest.raises(ResultError, match=f"the result {wrong} could not be read: .*{why}"):
            read_result(wrong)


def test_an_axis_that_lost_its_name(path):
    with h5py.File(path, "r+") as file:
        file["data"].dims[1].detach_scale(file["receiver"])
    with pytest.raises(ResultError, match="'data' has an axis without a name"):
        read_result(path)


def test_errors_are_one_sentence(tmp_path):
    (tmp_path / "text").write_text("no")
    with pytest.raises(ResultError) as caught:
        read_result(tmp_path / "text")
    assert "\n" not in str(caught.value)
    assert isinstance(caught.value, OSError)


FULL_DISK = """
import os, resource, signal, sys
import numpy as np
from backsweep.errors import ResultError
from backsweep.storage.results import Variable, read_result, write_result

path = sys.argv[1]
ones, zeros = [{"u": Variable(np.full(5000, x), ("x",))} for x in (1.0, 0.0)]
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
write_result(path, ones, {})
n_open = len(os.listdir("/proc/self/fd"))
for n in (0, 100, 9000, os.path.getsize(path) - 1):
    resource.setrlimit(resource.RLIMIT_FSIZE, (n, resource.RLIM_INFINITY))
    try:
        write_result(path, zeros, {})
        sys.exit(f"a limit of {n} bytes was not noticed")
    except ResultError as error:
        message = str(error)
    assert os.listdir(os.path.dirname(path)) == [os.path.basename(path)]
    assert len(os.listdir("/proc/self/fd")) == n_open
    assert np.all(read_result(path)[0]["u"].values == 1)
resource.setrlimit(resource.RLIMIT_FSIZE, (os.path.getsize(path), resource.RLIM_INFINITY))
write_result(path, zeros, {})
assert np.all(read_result(path)[0]["u"].values == 0)
print(message)
"""


def run(code, path):
    return subprocess.run(
        [sys.executable, "-c", code, str(path)], capture_output=True, text=True, check=False
    )


def test_full_disk(tmp_path):
    # A limit on file sizes fails as a full disk does, in the middle of a file.
    path = tmp_path / "result.h5"
    done = run(FULL_DISK, path)
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"the result {path} could not be written: File too large\n"


KILLED = """
import os, signal, sys
from backsweep.storage.results import write_result

def kill(*_):
    os.kill(os.getpid(), signal.SIGKILL)

os.CALL = kill
write_result(sys.argv[1], {}, {"title": "new"})
"""


@pytest.mark.parametrize("call", ["write", "fsync", "close", "replace"])
def test_a_kill_leaves_the_old_file_and_its_remains_are_swept(path, call):
    done = run(KILLED.replace("CALL", call), path)
    assert done.returncode == -9
    assert len(os.listdir(path.parent)) == 2
    assert_same(read_result(path)[0], VARIABLES)
    others = path.with_name(f".other-{path.name}.4711.tmp")
    others.touch()
    write_result(path, {}, {"title": "newer"})
    assert read_result(path)[1] == {"title": "newer"}
    assert sorted(os.listdir(path.parent)) == [others.name, path.name]
