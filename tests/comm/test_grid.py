"""Blocks of a grid."""

from __future__ import annotations

import itertools
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backsweep.comm import AbstractComm, Decomposition
from backsweep.errors import CommError


class Ranks(AbstractComm):
    """A communicator of which only rank and size are asked."""

    broadcast = send = receive = raise_alarm = alarm = abort = None
    messages = split = join_parts = swap_parts = None

    def __init__(self, size, rank=0):
        self.size, self.rank = size, rank


@st.composite
def decompositions(draw):
    n_cut = draw(st.integers(1, 3))
    ranks = tuple(draw(st.integers(1, 4)) for _ in range(n_cut))
    n_dims = draw(st.integers(n_cut, 4))
    axes = tuple(draw(st.permutations(range(n_dims)))[:n_cut])
    shape = [draw(st.integers(1, 9)) for _ in range(n_dims)]
    for axis, n in zip(axes, ranks, strict=True):
        shape[axis] += n
    is_given = draw(st.booleans())
    return Decomposition(
        shape, axes, Ranks(math.prod(ranks)), ranks=ranks if is_given or n_cut > 1 else None
    )


@given(decompositions())
def test_each_cell_has_one_rank_and_blocks_are_balanced(cut):
    cells = [
        cell
        for rank in range(cut.n_ranks)
        for cell in itertools.product(*(range(*span) for span in cut.block(rank)))
    ]
    assert len(cells) == len(set(cells)) == math.prod(cut.shape)
    for axis in range(len(cut.shape)):
        sizes = {hi - lo for lo, hi in (cut.block(rank)[axis] for rank in range(cut.n_ranks))}
        assert max(sizes) - min(sizes) <= 1
        assert min(sizes) >= 1


@given(decompositions())
def test_ranks_are_in_c_order_of_their_coordinates(cut):
    coordinates = [cut.coordinates(rank) for rank in range(cut.n_ranks)]
    assert coordinates == list(itertools.product(*map(range, cut.ranks)))


@given(
    decompositions(),
    st.integers(-12, 24),
    st.integers(-3, 3).filter(bool),
    st.integers(0, 24),
    st.integers(-4, 3),
)
def test_owned_ranges_are_a_partition(cut, start, step, extent, axis):
    """And each index is where its coordinate is, or at the nearer edge."""
    axis = max(axis, -len(cut.shape)) % len(cut.shape)
    n = cut.shape[axis]
    seen = {}
    for rank in range(cut.n_ranks):
        lo, hi = cut.owned(axis, start, step, extent, rank)
        assert 0 <= lo <= hi <= extent
        block = cut.block(rank)[axis]
        seen[block] = range(lo, hi)
        for i in range(lo, hi):
            assert block[0] <= min(max(start + step * i, 0), n - 1) < block[1]
    assert sorted(i for found in seen.values() for i in found) == list(range(extent))


@given(st.integers(1, 60), st.tuples(*[st.integers(20, 200)] * 3))
def test_the_surface_between_blocks_is_the_smallest(size, shape):
    try:
        cut = Decomposition(shape, (0, 1, 2), Ranks(size))
    except CommError:
        assert size > 20
        return

    def surface(ranks):
        n = math.prod(shape)
        return sum((p - 1) * n // length for p, length in zip(ranks, shape, strict=True))

    every = itertools.product(range(1, size + 1), repeat=2)
    others = [(p, q, size // (p * q)) for p, q in every if size % (p * q) == 0]
    fitting = [r for r in others if all(p <= n for p, n in zip(r, shape, strict=True))]
    assert surface(cut.ranks) == min(map(surface, fitting))
    assert cut == Decomposition(shape, (0, 1, 2), Ranks(size, size - 1))


def test_without_axes_the_longest_one_is_cut():
    assert Decomposition((5, 9, 9), comm=Ranks(3)).axes == (1,)


def test_equal_cuts_have_a_value_whatever_the_communicator():
    one = Decomposition((8, 6), (0, -1), Ranks(4), periodic=(True, False))
    other = Decomposition([8, 6], [0, 1], Ranks(4, 2), periodic=(True, False), ranks=(2, 2))
    assert one == other
    assert hash(one) == hash(other)
    assert one != Decomposition((8, 6), (0, 1), Ranks(4), periodic=True)
    assert (one.local_shape, other.local_shape) == ((4, 3), (4, 3))
    assert other.coordinates() == (1, 0)
    with pytest.raises(AttributeError):
        one.shape = (1, 1)


def test_periodic_grids_have_the_same_blocks():
    one, other = (Decomposition((7, 5), (0, 1), Ranks(4), periodic=p) for p in (False, True))
    assert [one.block(r) for r in range(4)] == [other.block(r) for r in range(4)]


def test_what_a_decomposition_says_of_itself():
    cut = Decomposition((7, 6), (0, 1), Ranks(6), periodic=(False, True), ranks=(2, 3))
    assert cut.describe() == (
        "a grid of 7 x 6 cells on 6 ranks; axis 0: 2 x 3 or 4 cells; axis 1: 3 x 2 cells, periodic"
    )
    assert repr(cut) == ("Decomposition((7, 6), axes=(0, 1), ranks=(2, 3), periodic=(False, True))")


@pytest.mark.parametrize(
    ("arguments", "options", "text"),
    [
        (((4, 4), 0, Ranks(5)), {}, "at least one cell each; cut along more axes"),
        (((4, 4), 2, Ranks(2)), {}, "has no axis 2"),
        (((4, 4), (0, 0), Ranks(2)), {}, "one to three different axes"),
        (((4, 4), (), Ranks(2)), {}, "one to three different axes"),
        (((4, 0), 0, Ranks(2)), {}, "has no cells"),
        (((4, 4), 0, Ranks(2)), {"ranks": 3}, "make 3, but the communicator has 2"),
        (((4, 4), (0, 1), Ranks(8)), {"ranks": (8, 1)}, "8 ranks along an axis of 4 cells"),
        (((4, 4), (0, 1), Ranks(2)), {"periodic": (True,)}, "give one for each"),
    ],
)
def test_what_does_not_fit_is_refused(arguments, options, text):
    with pytest.raises(CommError, match=text):
        Decomposition(*arguments, **options)


def test_other_questions_are_refused():
    cut = Decomposition((4, 4), 0, Ranks(2))
    with pytest.raises(CommError, match="no rank 2"):
        cut.block(2)
    with pytest.raises(CommError, match="step is 0"):
        cut.owned(0, 0, 0, 4)
    with pytest.raises(CommError, match="no axis 3"):
        cut.owned(3, 0, 1, 4)
    assert cut.owned(1, -3, -1, 9) == (0, 9)
