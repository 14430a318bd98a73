"""Run under mpiexec by test_comm.py: each rank checks, the root says "right"."""

import itertools
import sys

import numpy as np

from backsweep.comm import Agreed, Team, TreeSum, agreement, connect
from backsweep.comm.tree import items_of_rank
from backsweep.errors import ModelError
from backsweep.primitives.control import tree_sum


def objects_travel(comm):
    value = {
        "vector": np.arange(5.0),
        "empty": np.zeros((0, 3)),
        "columns": np.asfortranarray(np.arange(12.0).reshape(3, 4)),
        "part": np.arange(12.0).reshape(3, 4)[:, ::2],
        "text": "so",
    }
    got = comm.broadcast(value if comm.is_root else None)
    for name, expected in value.items():
        assert np.array_equal(got[name], expected), name
    got["vector"][0] = 7  # what arrives can be changed
    everything = comm.allgather((comm.rank, np.full(3, comm.rank)))
    assert [rank for rank, _ in everything] == list(range(comm.size))
    assert all(np.all(array == rank) for rank, array in everything)


def sums_have_the_same_bits(comm):
    rng = np.random.default_rng(0)
    for n in range(comm.size, 14):
        terms = rng.standard_normal((n, 4)) * 10.0 ** rng.integers(-8, 8, (n, 4))
        tree = TreeSum(n)
        for number in reversed(items_of_rank(n, comm.rank, comm.size)):
            tree.add(number, [terms[number]])
        total = tree.reduce(comm)
        if comm.is_root:
            assert np.array_equal(total[0], tree_sum([t] for t in terms)[0])
        else:
            assert total is None


def reductions_have_the_bits_of_a_loop(comm):
    rng = np.random.default_rng(0)
    for n in (0, 1, 3, 100, 1023, 5000, 12345):
        for dtype, op in itertools.product(("f8", "f4", "c16", "i8"), ("sum", "max", "min")):
            scale = 10.0 ** rng.integers(-8, 8, (comm.size, n))
            terms = (rng.standard_normal((comm.size, n)) * scale).astype(dtype)
            expected = terms[0].copy()
            ufunc = {"sum": np.add, "max": np.maximum, "min": np.minimum}[op]
            for term in terms[1:]:
                expected = ufunc(expected, term)
            got = comm.allreduce(terms[comm.rank], op)
            assert got.dtype == expected.dtype
            assert got.tobytes() == expected.tobytes(), (n, dtype, op)
    whole = rng.standard_normal((comm.size, 7, 300))
    expected = whole[0].copy()
    for term in whole[1:]:
        expected += term
    given = whole[comm.rank]
    for array in (given, np.asfortranarray(given), given[:, ::3]):
        got = comm.allreduce(array)
        assert np.array_equal(got, expected[:, ::3] if array.shape[1] == 100 else expected)
        assert got.flags.c_contiguous
    both = comm.allreduce(given[:2, :150]), comm.allreduce(given)[:2, :150]  # 2400 and 16800 bytes
    assert both[0].tobytes() == both[1].tobytes()
    assert comm.allreduce(np.float64(comm.rank), "max").shape == ()
    assert comm.allreduce(np.float64(comm.rank), "max") == comm.size - 1
    assert np.isnan(comm.allreduce([np.nan if comm.rank == 0 else 1.0], "max"))


def long_reductions_go_piece_by_piece(comm):
    from backsweep.comm import base

    terms = np.random.default_rng(0).standard_normal((comm.size, 5000))
    expected = comm.allreduce(terms[comm.rank])
    before, base.PIECE = base.PIECE, 1 << 13
    assert comm.allreduce(terms[comm.rank]).tobytes() == expected.tobytes()
    base.PIECE = before


def errors_are_agreed_on(comm):
    failing = comm.size - 1
    try:
        with agreement(comm):
            if comm.rank == failing:
                raise ModelError("too coarse")
    except ModelError:
        assert comm.size == 1, "one rank alone raises the error itself"
    except Agreed as error:
        assert comm.size > 1
        assert error.rank == failing
        assert "too coarse" in str(error)
    else:
        raise AssertionError("no error was raised")


def teams_work(comm):
    seen = []

    def task(value):
        seen.append(value)
        return sum(comm.allgather(value * comm.rank))

    with Team(comm, {"task": task}) as team:
        if comm.is_root:
            assert team("task", 2) == sum(range(comm.size)) * 2
            assert team("task", 3) == sum(range(comm.size)) * 3
    assert seen == [2, 3]


def one_rank_fails(comm):
    if comm.rank == comm.size - 1:
        comm.abort(3)
    comm.receive((comm.rank + 1) % comm.size)  # for ever, were it not for the abort


def one_rank_raises(comm):
    if comm.rank == comm.size - 1:
        raise OSError(f"in the way of rank {comm.rank}")
    comm.receive((comm.rank + 1) % comm.size)


def one_rank_is_interrupted(comm):
    if comm.rank == comm.size - 1:
        raise KeyboardInterrupt(f"in the way of rank {comm.rank}")
    comm.receive((comm.rank + 1) % comm.size)


def all_ranks_fail(comm):
    with agreement(comm):
        if comm.rank == comm.size - 1:
            raise ModelError("too coarse")


def messages_travel_in_pieces(comm):
    """As those beyond 256 MiB do, whose counts would not fit."""
    from backsweep.comm import mpi

    mpi._PIECE = 1000
    value = [np.arange(10_000.0), "x" * 2500, np.zeros((0, 3)), np.arange(125.0)]
    got = comm.broadcast(value if comm.is_root else None)
    assert all(np.array_equal(a, b) for a, b in zip(got, value, strict=True))


if __name__ == "__main__":
    comm = connect()
    for name in sys.argv[1:]:
        globals()[name](comm)
    if comm.is_root:
        print("right", comm.size)
