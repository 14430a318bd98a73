"""Arrays that are known by blocks, and exchanges of one rank."""

from __future__ import annotations

import h5py
import numpy as np
import pytest

from backsweep.comm import BlockedArray, HaloExchange, require_equal, serial
from backsweep.errors import CommError

WHOLE = np.arange(24.0).reshape(4, 6)
BOX = ((1, 3), (2, 6))


@pytest.fixture(params=["function", "array", "memmap", "hdf5"])
def source(request, tmp_path):
    if request.param == "function":
        yield lambda ranges: WHOLE[ranges]
    elif request.param == "array":
        yield WHOLE
    elif request.param == "memmap":
        np.save(tmp_path / "u.npy", WHOLE)
        yield np.load(tmp_path / "u.npy", mmap_mode="r")
    else:
        with h5py.File(tmp_path / "u.h5", "w") as file:
            yield file.create_dataset("u", data=WHOLE)


def test_a_box_is_read_as_an_array_of_its_own(source):
    array = BlockedArray(WHOLE.shape, np.float64, source)
    for box in (BOX, ((0, 4), (0, 6)), ((0, 2), (0, 6)), ((2, 2), (0, 6))):
        got = array.read(box)
        assert type(got) is np.ndarray
        assert got.flags.c_contiguous
        assert got.flags.writeable
        assert not np.shares_memory(got, WHOLE)
        assert np.array_equal(got, WHOLE[slice(*box[0]), slice(*box[1])])


@pytest.mark.parametrize(
    ("block", "text"),
    [
        (lambda ranges: WHOLE[ranges].astype("f4"), r"float32\[2, 4\].*float64\[2, 4\]"),
        (lambda ranges: WHOLE, r"is float64\[4, 6\].*float64\[2, 4\]"),
        (lambda ranges: None, r"is object\[\]"),
    ],
)
def test_a_source_that_gives_something_else_is_named(block, text):
    with pytest.raises(CommError, match=text):
        BlockedArray(WHOLE.shape, "f8", block).read(BOX)


@pytest.mark.parametrize("box", [((0, 5), (0, 6)), ((-1, 2), (0, 6)), ((2, 1), (0, 6)), ((0, 4),)])
def test_a_box_that_is_not_inside_is_refused(box):
    with pytest.raises(CommError, match="not inside an array of shape"):
        BlockedArray(WHOLE.shape, "f8", WHOLE).read(box)


def test_a_source_has_no_part():
    array = BlockedArray(WHOLE.shape, "f8", WHOLE)
    for name in ("box", "local"):
        with pytest.raises(CommError, match="use `read`"):
            getattr(array, name)
    with pytest.raises(CommError, match="use `read`"):
        array.gather()
    with pytest.raises(CommError, match="from a function of slices"):
        BlockedArray(WHOLE.shape, "f8", 3.0)


def test_a_result_has_its_part(tmp_path):
    everything = ((0, 4), (0, 6))
    array = BlockedArray.from_parts(WHOLE.shape, "f8", everything, WHOLE, serial())
    assert array.box == everything
    assert array.local is WHOLE
    assert np.array_equal(array.read(BOX), WHOLE[1:3, 2:6])
    assert np.array_equal(array.gather(), WHOLE)
    assert array.gather() is not WHOLE
    with h5py.File(tmp_path / "u.h5", "w") as file:
        dataset = file.create_dataset("u", WHOLE.shape, WHOLE.dtype)
        array.write(dataset)
        assert np.array_equal(dataset[()], WHOLE)
    with pytest.raises(CommError, match="rank 0 needs a target"):
        array.write(None)


def test_parts_that_do_not_fit_are_refused():
    with pytest.raises(CommError, match="the part of this rank is"):
        BlockedArray.from_parts(WHOLE.shape, "f8", BOX, WHOLE)
    array = BlockedArray.from_parts(WHOLE.shape, "f8", BOX, WHOLE[1:3, 2:6], serial())
    with pytest.raises(CommError, match="this rank holds the box"):
        array.read(((0, 1), (2, 6)))
    with pytest.raises(CommError, match="hold 8 cells of the 24"):
        array.gather()


def make_ring(n=5, halo=2):
    return HaloExchange(serial(), [(n,)], [((0, n),)], [((-halo, n + halo),)], ["f8"])


@pytest.mark.parametrize("halo", [1, 5, 7, 12])
def test_one_rank_sees_its_own_images(halo):
    """Also a halo that is wider than the grid."""
    with make_ring(5, halo) as ring:
        array = np.full(5 + 2 * halo, np.nan)
        array[halo:-halo] = np.arange(5.0)
        ring.exchange([array])
        assert np.array_equal(array, np.arange(-halo, 5 + halo) % 5)
        ones = np.ones(5 + 2 * halo)
        ring.transposed([ones])
        assert ones.sum() == 5 + 2 * halo
        assert not ones[:halo].any()
        assert ring.n_messages == ring.n_bytes == 0


@pytest.mark.parametrize(
    ("arrays", "text"),
    [
        ([np.zeros(8)], r"field 0 is float64\[8\], but .* float64\[9\]"),
        ([np.zeros(9, "f4")], "field 0 is float32"),
        ([], "0 arrays for 1 fields"),
    ],
)
def test_arrays_that_do_not_fit_the_layout_are_refused(arrays, text):
    with make_ring() as ring, pytest.raises(CommError, match=text):
        ring.exchange(arrays)


def test_an_exchange_is_started_once_and_finished_once():
    ring, arrays = make_ring(), [np.zeros(9)]
    made = ring.prepared(arrays)
    with pytest.raises(CommError, match="start one first"):
        made.finish()
    made.start()
    for again in (made.start, lambda: ring.transposed(arrays)):
        with pytest.raises(CommError, match="the exchange before it is not finished"):
            again()
    made.finish()
    ring.close()
    ring.close()
    with pytest.raises(CommError, match="closed"):
        ring.exchange(arrays)


@pytest.mark.parametrize(
    ("shape", "owned", "layout", "text"),
    [
        ((5,), ((0, 4),), ((0, 5),), "1 of the 5 cells"),
        ((5,), ((0, 6),), ((0, 6),), "not inside the field"),
        ((5,), ((0, 5),), ((1, 5),), "not inside the field"),
        ((5,), ((0, 5),), ((0, 5), (0, 1)), "do not have its rank"),
        ((5,), ((5, 0),), ((0, 5),), "ends before it begins"),
    ],
)
def test_boxes_that_cannot_be_are_refused(shape, owned, layout, text):
    with pytest.raises(CommError, match=f"field 0 .*{text}"):
        HaloExchange(serial(), [shape], [owned], [layout], ["f8"])


def test_a_field_without_cells_and_no_field_at_all_are_fine():
    with HaloExchange(serial(), [(0, 3)], [((0, 0), (0, 3))], [((0, 0), (0, 3))], ["f8"]) as halo:
        halo.exchange([np.zeros((0, 3))])
    with HaloExchange(serial(), [], [], [], []) as halo:
        halo.exchange([])


def test_one_rank_alone_adds_nothing():
    given = np.arange(6.0).reshape(2, 3)
    got = serial().allreduce(given, "max")
    assert np.array_equal(got, given)
    assert not np.shares_memory(got, given)
    with pytest.raises(CommError, match="'mean' is none of sum, max, min"):
        serial().allreduce(given, "mean")
    require_equal(serial(), "the program", "abc")
