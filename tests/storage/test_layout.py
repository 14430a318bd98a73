"""The layout that the snapshots of a store share."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest

from backsweep.errors import ShapeError
from backsweep.storage import Layout


def test_layouts_are_values():
    a = Layout(["u"], [[np.int64(3), 4]], ["f4"], units=["Pa"])
    b = Layout(("u",), ((3, 4),), (np.float32,), units=("Pa",))
    assert a == b and hash(a) == hash(b)
    assert Layout(["u"], [[3]], ["f4"], dimensions=[["x"]], dt=1).dimensions == (("x",),)
    assert a.nbytes == 48 and a.field_nbytes == (48,)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((["u"], [], ["f4"]), "0 shapes"),
        ((["u", "u"], [(), ()], ["f4", "f4"]), "not unique"),
        ((["u/v"], [()], ["f4"]), "'u/v' cannot name"),
        (([""], [()], ["f4"]), "cannot name"),
        ((["u"], [()], [object]), "dtype object"),
        ((["u"], [()], ["f4"], ["m", "s"]), "2 units"),
        ((["backsweep"], [()], ["f4"]), "'backsweep' cannot name"),
        ((["u"], [(2, 3)], ["f4"], [], "", [["x"]]), "do not name each axis"),
        ((["u"], [(2,)], ["f4"], [], "", [["x"], ["y"]]), "do not name each axis"),
    ],
)
def test_layouts_that_cannot_be_stored(arguments, message):
    with pytest.raises(ShapeError, match=message):
        Layout(*arguments)


def test_importing_storage_does_not_load_hdf5():
    code = "import sys, backsweep.storage; sys.exit('h5py' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
