"""What is refused of a program that calls collectives, in one process."""

from __future__ import annotations

import numpy as np
import pytest

import backsweep as bs
from backsweep.comm import (
    BlockedArray,
    Decomposition,
    allreduce_max,
    allreduce_sum,
    broadcast,
    gather,
    halo_exchange,
    scatter,
    serial,
    world,
)
from backsweep.errors import (
    CommError,
    DifferentiationError,
    ProgramError,
    ScheduleError,
    ShapeError,
)
from backsweep.passes.ranks import place
from backsweep.passes.ranks.place import _Placer

DEC = Decomposition((8,), comm=world())
V, R = "varying", "replicated"
U = np.linspace(0.0, 1.0, 10)


def refuses(says, loss, *args, error=DifferentiationError, **how):
    with pytest.raises(error, match=says) as caught:
        bs.grad(loss, **how)(*args)
    return str(caught.value)


def test_a_loss_that_is_each_ranks_own_names_its_line():
    def loss(u):
        u = halo_exchange(u, DEC)
        return np.sum(u[1:-1] ** 2)  # never added up

    message = refuses("is not the same on all ranks", loss, U, placement=V)
    assert "# never added up" in message and "allreduce_sum" in message


def test_a_loss_that_is_added_up_too_early_is_each_ranks_own():
    refuses(
        "not the same on all ranks",
        lambda u: allreduce_sum(np.sum(u)) * np.sum(u),
        U,
        placement=V,
    )


def test_arguments_of_which_nothing_is_said_name_the_first_collective():
    def loss(u):
        return allreduce_sum(np.sum(u))  # the first one

    assert "# the first one" in refuses("nothing is said of its arguments", loss, U)


@pytest.mark.parametrize("given", ["local", (V,), (V, V, V), (V, 1)])
def test_placements_of_other_arguments(given):
    loss = lambda u, s: allreduce_sum(np.sum(u * s))  # noqa: E731
    refuses("for each of the 2 arguments", loss, U, 2.0, placement=given)


def test_placement_goes_without_decomposition():
    refuses("leave one of the two out", lambda u: np.sum(u), U, placement=V, decomposition=DEC)
    refuses("leave one of the two out", lambda u: allreduce_sum(np.sum(u)), U, decomposition=DEC)


def test_a_program_without_collectives_has_no_common_loss():
    refuses("not the same on all ranks", lambda u: np.sum(u), U, placement=V)
    assert np.all(bs.grad(lambda u: np.sum(u), placement=R)(U) == 1)


def test_inner_derivatives():
    loss = lambda u: allreduce_sum(np.sum(u**3))  # noqa: E731
    with pytest.raises(DifferentiationError, match="by the outermost transformation alone"):
        bs.jvp(bs.grad(loss, placement=V), (U,), (U,), placement=V)
    with pytest.raises(DifferentiationError, match="placement="):
        bs.hvp(loss, (U,), (U,))
    np.testing.assert_allclose(bs.hvp(loss, (U,), (U,), placement=V)[1], 6 * U**2)


def test_what_is_the_same_already_is_not_added_up():
    refuses(
        "is the same on all ranks already",
        lambda s: allreduce_sum(s) ** 2,
        2.0,
        placement=R,
    )
    refuses("is the same on all ranks already", lambda s: broadcast(s) ** 2, 2.0, placement=R)
    refuses(
        "not the same on all ranks; pass it through broadcast",
        lambda u: allreduce_sum(np.sum(scatter(u, DEC))),
        np.ones(8),
        placement=V,
    )


def test_loops_and_calls_around_collectives():
    inside = lambda u: u - 0.1 * allreduce_sum(u)  # noqa: E731
    for says, around in [
        (
            "inside of while_loop is not supported",
            lambda u: bs.while_loop(lambda u: np.sum(u) > 1, inside, u),
        ),
        ("inside of checkpoint is not supported", bs.checkpoint(inside)),
        (
            "inside of sum_over is not supported",
            lambda u: bs.sum_over([1.0, 2.0], lambda k: np.sum(inside(k * u))),
        ),
    ]:
        refuses(says, lambda u, a=around: allreduce_sum(np.sum(a(u))), U, placement=V)


def test_calls_without_collectives_stay():
    """They are all of them each rank's own."""

    def loss(u, s):
        u = bs.checkpoint(lambda u: np.sin(u) * s)(u)
        u = bs.while_loop(lambda u: np.sum(u * s) > 1, lambda u: 0.5 * u * s, u)
        total = bs.sum_over([1.0, 2.0], lambda k: np.sum(np.sin(k * u * s)))
        return allreduce_sum(total)

    n = 0
    u = np.sin(U) * 1.1
    while np.sum(u * 1.1) > 1:
        u, n = 0.5 * u * 1.1, n + 1
    assert n > 1

    def unrolled(u, s):
        u = np.sin(u) * s
        for _ in range(n):
            u = 0.5 * u * s
        return np.sum(np.sin(u * s)) + np.sum(np.sin(2 * u * s))

    found = bs.grad(loss, (0, 1), placement=(V, R))(U, 1.1)
    for a, b in zip(found, bs.grad(unrolled, (0, 1))(U, 1.1), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-13)


def test_a_resumed_run(tmp_path):
    budget = bs.Checkpointing(directory=tmp_path, resume=True)

    def loss(u):
        u, _ = bs.scan(lambda u, _: (u - allreduce_sum(u), None), u, length=3, checkpointing=budget)
        return allreduce_sum(np.sum(u))

    refuses("resume=True is not supported", loss, U, placement=V, error=ScheduleError)


def test_two_communicators():
    refuses(
        "collectives of two communicators",
        lambda u: allreduce_sum(np.sum(u), serial()) + allreduce_sum(np.sum(u), serial()),
        U,
        placement=V,
        error=CommError,
    )


def test_wrong_arrays():
    for says, call in [
        ("this rank's block", lambda u: halo_exchange(u[1:], DEC)),
        ("last dimensions should be those of this rank's block", lambda u: gather(u, DEC)),
        ("last dimensions should be those of the grid", lambda u: scatter(u, DEC)),
    ]:
        with pytest.raises(ShapeError, match=says):
            call(U)
        refuses(says, lambda u, c=call: np.sum(c(u)), U, placement=V, error=ShapeError)
    for says, call in [
        ("give one number of cells", lambda u: halo_exchange(u, DEC, (1, 2))),
        ("there is no rank 1", lambda u: broadcast(u, 1)),
        ("dtype bool", lambda u: allreduce_sum(u > 0)),
        ("dtype complex128", lambda u: allreduce_max(1j * u)),
    ]:
        with pytest.raises(CommError, match=says):
            call(U)


def test_blocked_arrays_belong_to_decompositions():
    blocked = BlockedArray((8,), np.float64, np.ones(8))
    with pytest.raises(bs.BacksweepError):
        bs.grad(lambda u: allreduce_sum(np.sum(u)), placement=V)(blocked)


# --------------------------------------------------------------------------- ghosts

GRID = Decomposition((6, 7), axes=(0, 1), comm=world(), periodic=True)
FIELD = np.sin(np.arange(72.0)).reshape(8, 9)


def _exchanged(u):
    return halo_exchange(u, GRID, (1, 1))


def _written(u):
    v = _exchanged(u).copy()
    v[1:-1, 1:-1] *= 2.0
    return v


SUMS_OVER_GHOSTS = {
    "exchanged": lambda u: np.sum(_exchanged(u)),
    "before it is exchanged": lambda u: np.sum(u**2) + 0 * np.sum(_exchanged(u)[1:-1, 1:-1]),
    "elementwise": lambda u: np.sum(np.sin(2.0 * _exchanged(u)) * np.float64(3)),
    "one axis": lambda u: np.sum(_exchanged(u)[1:-1]),
    "one end": lambda u: np.sum(_exchanged(u)[1:-1, 1:]),
    "faces": lambda u: (
        np.sum(np.diff(_exchanged(u)[1:-1], axis=1)[:, :-1] ** 2)
        + np.sum(np.diff(_exchanged(u)[1:-1], axis=1) ** 2)
    ),
    "flat": lambda u: np.sum(_exchanged(u).reshape(-1)[12:30]),
    "transposed": lambda u: np.sum(_exchanged(u).T[:, 1:-1]),
    "mean": lambda u: np.mean(_exchanged(u)),
    "dot": lambda u: np.vdot(_exchanged(u), u),
    "matmul": lambda u: np.sum(_exchanged(u)[1:-1] @ np.ones((9, 2))),
    "carried": lambda u: np.sum(bs.scan(lambda v, _: (_exchanged(v), None), u, length=2)[0]),
    "in the step": lambda u: bs.scan(lambda v, _: (_exchanged(v), np.sum(v)), 1.0 * u, length=2)[1][
        0
    ],
    "written": lambda u: np.sum(_written(u)),
    "joined": lambda u: np.sum(np.concatenate([_exchanged(u), u[:1]])),
}

SUMS_OF_OWN = {
    "own": lambda u: np.sum(_exchanged(u)[1:-1, 1:-1] ** 2),
    "stencil": lambda u: np.sum(
        (lambda v: v[2:, 1:-1] * v[1:-1, 2:] - v[1:-1, 1:-1] * v[:-2, :-2])(_exchanged(u))
    ),
    "centred": lambda u: np.sum((lambda v: v[2:, 1:-1] - v[:-2, 1:-1])(_exchanged(u)) ** 2),
    "padded": lambda u: np.sum(np.pad(np.sin(_exchanged(u)[1:-1, 1:-1]), 1)),
    "along what is not cut": lambda u: np.sum(np.sum(_exchanged(u)[1:-1, 1:-1], axis=0)),
    "points": lambda u: np.sum(_exchanged(u)[np.array([1, 2]), np.array([3, 3])]),
    "largest": lambda u: np.max(_exchanged(u)),
    "written and cut": lambda u: np.sum(_written(u)[1:-1, 1:-1]),
}


@pytest.mark.parametrize("name", SUMS_OVER_GHOSTS)
def test_a_sum_over_ghosts(name):
    loss = SUMS_OVER_GHOSTS[name]
    refuses(
        "slice it to this rank's own cells", lambda u: allreduce_sum(loss(u)), FIELD, placement=V
    )


@pytest.mark.parametrize("name", SUMS_OF_OWN)
def test_a_sum_of_own_cells(name):
    loss = SUMS_OF_OWN[name]
    bs.grad(lambda u: allreduce_sum(loss(u)), placement=V)(FIELD)


# --------------------------------------------------------------------------- the check of types


def test_a_missing_replicate_is_found(monkeypatch):
    """Were nothing put where replicated and varying values meet, no program would run."""
    monkeypatch.setattr(_Placer, "varying", lambda self, atom: atom)
    loss = lambda u, s: allreduce_sum(np.sum(u * s))  # noqa: E731
    refuses("meet without a replicate", loss, U, 2.0, placement=(V, R), error=ProgramError)


def test_a_program_says_its_placements(monkeypatch):
    text = []

    def seen(program, *args):
        placed = place(program, *args)
        text.append(str(placed))
        return placed

    monkeypatch.setattr("backsweep.api.placed.place", seen)
    bs.grad(lambda u, s: allreduce_sum(np.sum(u * s)), placement=(V, R))(U, 2.0)
    assert "f64[10] varying" in text[0] and "f64[] replicated" in text[0]
    assert "replicate[" in text[0]
