"""Run under mpiexec by test_blocks.py: each rank checks, the root says "right"."""

import gc
import itertools
import os
import sys

import numpy as np

from backsweep.comm import (
    BlockedArray,
    Decomposition,
    HaloExchange,
    mpi,
    require_equal,
    serial,
    world,
)
from backsweep.comm import halo as halo_module
from backsweep.errors import CommError

CUTS = (((17,), 0), ((11, 9), 1), ((11, 9), (0, 1)), ((6, 5, 8), (2, 0)), ((5, 6, 7), (0, 1, 2)))
DTYPES = ("f8", "f4", "c16", "i4", "?")


def make_fields(comm, shape, axes, periodic, seed=0):
    """Owned boxes and layouts of three fields with as many ways of being padded and staggered."""
    cut = Decomposition(shape, axes, comm, periodic=periodic)
    shapes, owned, layouts = [], [], []
    for low, high, extra in ((1, 1, 0), (0, 3, 1), (2, 5, 0)):
        if any(cut.periodic):
            extra = 0  # what closes upon itself has no cell between its last and its first
        sizes = tuple(n + extra for n in shape)
        box = [cut.owned(axis, 0, 1, n) for axis, n in enumerate(sizes)]
        layout = []
        for axis, ((lo, hi), n) in enumerate(zip(box, sizes, strict=True)):
            if axis not in cut.axes:
                layout.append((0, n))
            elif cut.periodic[cut.axes.index(axis)]:
                layout.append((lo - low, hi + high))
            else:
                layout.append((max(lo - low, 0), min(hi + high, n)))
        shapes.append(sizes)
        owned.append(tuple(box))
        layouts.append(tuple(layout))
    return shapes, owned, layouts


def part_of(whole, layout):
    indices = [np.arange(lo, hi) % n for (lo, hi), n in zip(layout, whole.shape, strict=True)]
    return whole[np.ix_(*indices)]


def inside(box, layout):
    return tuple(slice(lo - a, hi - a) for (lo, hi), (a, _) in zip(box, layout, strict=True))


def all_cuts(comm):
    for (shape, axes), is_periodic in itertools.product(CUTS, (False, True)):
        n_axes = 1 if isinstance(axes, int) else len(axes)
        try:
            Decomposition(shape, axes, comm)
        except CommError:
            continue
        yield shape, axes, is_periodic
        if is_periodic and n_axes > 1:
            yield shape, axes, (True,) + (False,) * (n_axes - 1)


def ghosts_are_what_their_owners_hold(comm):
    rng = np.random.default_rng(0)
    n_checked = 0
    for shape, axes, periodic in all_cuts(comm):
        shapes, owned, layouts = make_fields(comm, shape, axes, periodic)
        dtypes = [DTYPES[(n_checked + i) % len(DTYPES)] for i in range(len(shapes))]
        with HaloExchange(comm, shapes, owned, layouts, dtypes) as halo:
            for _ in range(2):
                wholes = [
                    (100 * rng.standard_normal(s)).astype(d)
                    for s, d in zip(shapes, dtypes, strict=True)
                ]
                expected = [part_of(w, box) for w, box in zip(wholes, layouts, strict=True)]
                arrays = []
                for part, box, layout in zip(expected, owned, layouts, strict=True):
                    # Not contiguous: every other entry of a larger array, in Fortran order.
                    array = np.full((2 * part.shape[0], *part.shape[1:]), 77, part.dtype, "F")[::2]
                    array[inside(box, layout)] = part[inside(box, layout)]
                    arrays.append(array)
                contiguous = [np.empty(a.shape, a.dtype) for a in arrays]
                repeated = halo.prepared(contiguous)
                for _ in range(2):
                    for again, array in zip(contiguous, arrays, strict=True):
                        again[...] = array
                    repeated()
                halo.exchange(arrays)
                for array, again, part in zip(arrays, contiguous, expected, strict=True):
                    assert np.array_equal(array, part), (shape, axes, periodic)
                    assert np.array_equal(again, part), (shape, axes, periodic)
            n_peers = len({m.rank for m in halo._outgoing})
            assert halo.n_messages == n_peers or halo_module.LONG == 1
            assert halo.n_bytes >= sum(p.view.nbytes for m in halo._outgoing for p in m.pieces)
        n_checked += 1
    assert n_checked >= 5


def dot_products(comm, halo, rng):
    """<exchange(x), y> and <x, transposed(y)>, over all local entries of all ranks."""
    x = [rng.standard_normal(s) for s in halo.shapes]
    y = [rng.standard_normal(s) for s in halo.shapes]
    image, back = [a.copy() for a in x], [a.copy() for a in y]
    halo.exchange(image)
    halo.transposed(back)
    pairs = ((image, y), (x, back))
    sums = [sum(float(np.vdot(a, b)) for a, b in zip(p, q, strict=True)) for p, q in pairs]
    return comm.allreduce(np.array(sums))


def the_transpose_is_one(comm):
    rng = np.random.default_rng(comm.rank)
    for shape, axes, periodic in all_cuts(comm):
        fields = make_fields(comm, shape, axes, periodic)
        with HaloExchange(comm, *fields, ["f8"] * 3) as halo:
            forward, backward = dot_products(comm, halo, rng)
            assert abs(forward - backward) < 1e-11 * max(1, abs(forward)), (shape, axes, periodic)
            y = [rng.standard_normal(s) for s in halo.shapes]
            results = []
            for _ in range(3):
                arrays = [a.copy() for a in y]
                halo.transposed(arrays)
                results.append(arrays)
            for arrays, box, layout in zip(zip(*results, strict=True), *fields[1:], strict=True):
                assert all(np.array_equal(a, arrays[0]) for a in arrays), "other bits"
                ghost = arrays[0].copy()
                ghost[inside(box, layout)] = 0
                assert not ghost.any(), "ghosts stayed"


def a_lost_addition_is_noticed(comm):
    """That check would fail if one message of one rank were not added."""
    fields = make_fields(comm, (40,), 0, True)
    with HaloExchange(comm, *fields, ["f8"] * 3) as halo:
        transposed = halo.transposed

        def forget_one(arrays):
            """Of a message, and of the own periodic images."""
            halo._additions_after = halo._additions_after[1:]
            halo._images = halo._images[1:]
            transposed(arrays)

        if comm.rank == 0:
            halo.transposed = forget_one
        forward, backward = dot_products(comm, halo, np.random.default_rng(comm.rank))
        assert abs(forward - backward) > 1e-6


def additions_have_an_order(comm):
    """By rank, then field, then image: checked with numbers whose sum depends on it."""
    n = 4 * comm.size
    owned, layout = ((4 * comm.rank, 4 * comm.rank + 4),), ((0, n),)
    rng = np.random.default_rng(5)
    terms = rng.standard_normal((comm.size, n)) * 10.0 ** rng.integers(-9, 9, (comm.size, n))
    with HaloExchange(comm, [(n,)], [owned], [layout], ["f8"]) as halo:
        array = terms[comm.rank].copy()
        halo.transposed([array])
    expected = terms[comm.rank].copy()
    for rank in range(comm.size):
        if rank != comm.rank:
            expected += terms[rank]
    mine = slice(*owned[0])
    assert np.array_equal(array[mine], expected[mine])


def long_messages_travel_without_a_copy(comm):
    """Checked with the limit at one byte: the same results, from contiguous boxes and others."""
    before, halo_module.LONG = halo_module.LONG, 1
    ghosts_are_what_their_owners_hold(comm)
    the_transpose_is_one(comm)
    n, (lo, hi) = 4 * comm.size, (4 * comm.rank, 4 * comm.rank + 4)
    whole = np.arange(5.0 * n).reshape(n, 5)
    layout = ((lo - 2, hi + 1), (0, 5))
    for copies in (1, 3):
        boxes = [((lo, hi), (0, 5))] * copies, [layout] * copies
        with HaloExchange(comm, [whole.shape] * copies, *boxes, ["f8"] * copies) as halo:
            for _ in range(3):
                arrays = [np.zeros((7, 5)) for _ in range(copies)]
                for k, array in enumerate(arrays):
                    array[2:-1] = whole[lo:hi] + k
                halo.exchange(arrays)
                assert not any(m.buffer.any() for m in halo._outgoing)
                for k, array in enumerate(arrays):
                    assert np.array_equal(array, part_of(whole, layout) + k)
    halo_module.LONG = before


def messages_of_two_exchanges_do_not_mix(comm):
    n, (lo, hi) = 3 * comm.size, (3 * comm.rank, 3 * comm.rank + 3)
    arguments = [(n,)], [((lo, hi),)], [((lo - 1, hi + 1),)], ["f8"]
    whole = np.arange(float(n))
    with HaloExchange(comm, *arguments) as one, HaloExchange(comm, *arguments) as other:
        arrays = []
        for sign in (1, -1):
            array = np.full(5, np.nan)
            array[1:-1] = sign * whole[lo:hi]
            arrays.append(array)
        first, second = one.prepared(arrays[:1]), other.prepared(arrays[1:])
        first.start()
        second.start()
        comm.allgather("objects in between")
        second.finish()
        first.finish()
    for array, sign in zip(arrays, (1, -1), strict=True):
        assert np.array_equal(array, sign * part_of(whole, ((lo - 1, hi + 1),)))


def many_exchanges_leave_nothing_behind(comm):
    fields = make_fields(comm, (24, 6), 0, True)

    def count():
        gc.collect()
        objects = gc.get_objects()
        return sum(type(o).__name__ in ("MPIMessages", "_Message", "ndarray") for o in objects)

    sizes = []
    for turn in range(50):
        with HaloExchange(comm, *fields, ["f8"] * 3) as halo:
            arrays = [np.zeros(s) for s in halo.shapes]
            for _ in range(50 if turn == 0 else 1):
                halo.exchange(arrays)
                halo.transposed(arrays)
            ready = halo.prepared(arrays)
            ready()
            if comm.size > 1:
                assert len(ready._messages._sends) == halo.n_messages
                assert not ready._messages._active
        halo.close()
        assert not getattr(ready._messages, "_sends", [])
        sizes.append((count(), len(os.listdir("/proc/self/fd"))))
    assert sizes[-1] == sizes[5], sizes
    forgotten = HaloExchange(comm, *fields, ["f8"] * 3)  # freed when it is collected, or at the end
    assert forgotten.n_messages == halo.n_messages


def parts_of_a_job(comm):
    part = comm.split(comm.rank % 2, key=-comm.rank)
    numbers = [r for r in reversed(range(comm.size)) if r % 2 == comm.rank % 2]
    assert part.size == len(numbers)
    assert numbers[part.rank] == comm.rank
    assert part.allgather(comm.rank) == numbers
    assert part.allreduce(np.array([comm.rank]))[0] == sum(numbers)
    messages_of_two_exchanges_do_not_mix(part)
    alone = serial()
    assert alone.size == 1
    assert alone.allgather("me") == ["me"]
    assert world() is comm
    assert part.alarm() == 0


def same_digests_pass(comm):
    require_equal(comm, "the program", "abc")


def arrays_in_parts(comm):
    rng = np.random.default_rng(3)
    whole = rng.standard_normal((12, 5))
    box = Decomposition(whole.shape, 0, comm).block()
    where = tuple(slice(*span) for span in box)
    array = BlockedArray.from_parts(whole.shape, "f8", box, whole[where], comm)
    for root in {0, comm.size - 1}:
        got = array.gather(root)
        assert np.array_equal(got, whole) if comm.rank == root else got is None
    if comm.is_root:
        np.save("whole.npy", np.zeros_like(whole))
    comm.allgather(None)
    array.write(np.load("whole.npy", mmap_mode="r+"))
    assert np.array_equal(np.load("whole.npy"), whole)
    target = np.zeros_like(whole) if comm.is_root else None
    array.write(target)
    assert target is None or np.array_equal(target, whole)
    write_in_turn(comm, array, whole)


def write_in_turn(comm, array, whole):
    """HDF5 lets one process at a time write a file."""
    from contextlib import contextmanager

    import h5py

    if comm.is_root:
        with h5py.File("whole.h5", "w") as file:
            file.create_dataset("u", whole.shape, whole.dtype)
    comm.allgather(None)

    @contextmanager
    def opened():
        with h5py.File("whole.h5", "r+") as file:
            yield file["u"]

    array.write(opened)
    comm.allgather(None)
    with h5py.File("whole.h5") as file:
        source = BlockedArray(whole.shape, "f8", file["u"])
        assert np.array_equal(source.read(array.box), array.local)


def refusals_are_agreed_on(comm):
    """Of a cell that nobody owns, on all ranks; and what one of them says."""
    n = 2 * comm.size
    lo, hi = 2 * comm.rank, 2 * comm.rank + 2
    cases = {
        "owned by no rank": [((lo, hi - (comm.rank == 0)),)],
        "ends before it begins": [((hi, lo) if comm.rank == 0 else (lo, hi),)],
        "both own": [((0, n) if comm.rank == 0 else (lo, hi),)] if comm.size > 1 else None,
    }
    for text, owned in cases.items():
        if owned is None:
            continue
        try:
            HaloExchange(comm, [(n,)], owned, [((0, n),)], ["f8"])
        except CommError as error:
            assert text in str(error), error
            assert "field 0" in str(error)
        else:
            raise AssertionError(f"not refused: {text}")
    if comm.size > 1:
        try:
            HaloExchange(comm, [(n,)], [((lo, hi),)], [((lo, hi),)], ["f4" if lo else "f8"])
        except CommError as error:
            assert "other fields than rank 0" in str(error)
        else:
            raise AssertionError("other dtypes were not refused")


def digests_differ(comm):
    require_equal(comm, "the traced program", f"hash {min(comm.rank, 1)}")


def one_rank_raises_while_others_exchange(comm):
    fields = make_fields(comm, (24, 6), 0, True)
    halo = HaloExchange(comm, *fields, ["f8"] * 3)
    arrays = [np.zeros(s) for s in halo.shapes]
    halo.exchange(arrays)
    if comm.rank == 1:
        raise OSError("no more paper on rank 1")
    halo.exchange(arrays)


def signals_are_seen_in_an_exchange(comm):
    """`while_waiting` is called by a rank that waits for a message."""
    called = []
    comm.while_waiting = lambda: called.append(1)
    fields = make_fields(comm, (24, 6), 0, True)
    with HaloExchange(comm, *fields, ["f8"] * 3) as halo:
        arrays = [np.zeros(s) for s in halo.shapes]
        if comm.rank == comm.size - 1:
            mpi.time.sleep(0.3)
        called.clear()
        halo.exchange(arrays)
    comm.while_waiting = lambda: None
    assert called or comm.rank not in (0, comm.size - 2) or comm.size < 2


if __name__ == "__main__":
    comm = world()
    for name in sys.argv[1:]:
        globals()[name](comm)
        if os.environ.get("TELL"):
            print(comm.rank, name, flush=True)
    if comm.is_root:
        print("right", comm.size)
