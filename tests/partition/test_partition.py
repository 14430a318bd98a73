"""The cut of programs, as far as one process can see it."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest

import backsweep as bs
from backsweep.api import decomposed
from backsweep.api.tracer import trace_function, type_of
from backsweep.api.tree import flatten
from backsweep.codegen.sweep_source import Chain, find_chains
from backsweep.comm import Decomposition, PlannedComm, serial
from backsweep.errors import BacksweepError, DecompositionError
from backsweep.passes.partition import steps
from backsweep.primitives.control import scan_shape
from backsweep.runtime.compiled import compile_forward
from backsweep.runtime.ghosts import exchanged
from partition import losses, nested, points
from partition.comparing import GRID
from partition.stencils import field


@pytest.fixture(autouse=True)
def in_the_interpreter(monkeypatch):
    monkeypatch.setenv("BACKSWEEP_NO_JIT", "1")


def cut(shape=GRID):
    return Decomposition(shape, (0,), serial())


def test_an_error_of_one_rank_alone_is_its_own():
    misfit, args = points.moving_source(GRID)
    with pytest.raises(DecompositionError, match="indices that are only known when it runs"):
        bs.value_and_grad(misfit, decomposition=cut())(*args)


def test_a_loop_in_the_step_that_reads_too_far_is_refused():
    grid = (200, 10)
    cut = Decomposition(grid, (0,), PlannedComm(4))

    def misfit(n, c, u0):
        u = bs.scan(lambda u, _: (nested.relaxed(c, u, u, n), None), u0, length=2)[0]
        return np.sum(u**2)

    args = field(grid), field(grid, 1)
    assert bs.plan(partial(misfit, 10), decomposition=cut)(*args).scans[0].ghost_bytes[0] > 0
    says = r"nested.py:\d+: .*inside a step of 100 steps .* reads v 65 cells .* beyond the 50 of"
    with pytest.raises(BacksweepError, match=says):
        bs.plan(partial(misfit, 100), decomposition=cut)(*args)


def test_a_scan_in_the_step_takes_several_steps_per_exchange():
    grid = (120, 10)
    blocks = Decomposition(grid, (0,), PlannedComm(4, 1))

    def step(u, w):
        v = u.copy()
        v[1:-1] += w * (u[2:] - 2 * u[1:-1] + u[:-2])
        return v, None

    def misfit(several, u0):
        ws = np.linspace(0.1, 0.2, 12)
        if several == 1:
            return np.sum(bs.scan(step, u0, ws)[0] ** 2)
        outer = lambda u, ws: bs.scan(step, u, ws)  # noqa: E731
        return np.sum(bs.scan(outer, u0, ws.reshape(-1, several))[0] ** 2)

    found = {}
    for several in (1, 4):
        (scan,) = bs.plan(partial(misfit, several), decomposition=blocks)(field(grid)).scans
        assert (scan.n_steps, scan.n_reverses) == (12 // several, 12 // several)
        found[several] = scan.ghost_bytes
    row = 2 * 10 * 8  # of two neighbours
    assert found[1] == (row, row)
    assert all(4 * row <= n_bytes <= 5 * row for n_bytes in found[4])
    assert misfit(1, field(grid)) == misfit(4, field(grid))


@pytest.mark.parametrize("build", [nested.substeps, nested.three_deep, nested.reactions])
def test_a_loop_in_the_step_stays_a_loop(build, monkeypatch):
    monkeypatch.setattr(steps, "LARGEST_INNER", 0)
    misfit, args = build(GRID)
    value, _ = bs.value_and_grad(misfit, decomposition=cut())(*args)
    assert value == pytest.approx(misfit(*args), rel=1e-13)


def test_a_long_loop_in_the_step_with_sums_over_ranks_is_refused():
    def misfit(c, u0):
        def inner(v, _):
            return c * v / np.sum(v**2), None

        u = bs.scan(lambda u, _: (bs.scan(inner, u, length=400)[0], None), u0, length=2)[0]
        return np.sum(u**2)

    with pytest.raises(DecompositionError, match=r"400 steps, \d+ operations in all; such a loop"):
        bs.value_and_grad(misfit, decomposition=cut())(field(GRID), field(GRID, 1))


def test_a_grid_that_no_array_has_is_refused():
    misfit, args = losses.final_field(GRID)
    with pytest.raises(DecompositionError, match=r"grid, \(9, 9\); their shapes are \(13, 11\)"):
        bs.value_and_grad(misfit, decomposition=cut((9, 9)))(*args)


def test_one_rank_runs_the_program_itself(monkeypatch):
    """Also what several ranks refuse: recording the adjoint."""
    monkeypatch.setattr(decomposed, "_run_cut", None)
    misfit, args = losses.final_field(GRID)
    (value, found), expected = (
        bs.value_and_grad(misfit, decomposition=d)(*args) for d in (cut(), None)
    )
    assert value == expected[0]
    np.testing.assert_array_equal(found.gather(), expected[1])


def test_what_this_rank_hands_on_but_others_compute_travels_too():
    """Rank 0 hands u on, to which rank 1 adds a source: its rows are sent, not written over."""

    def misfit(u0):
        def step(carry, x):
            u, w = carry
            near = u.copy()
            near[:, 1:-1] = u[:, 2:] + u[:, :-2] - u[:, 1:-1]
            new = np.concatenate([near[:40] * 0.4 + 0.1 * w[:40], u[40:] * 0.5 - 0.1 * w[39:-1]])
            old = u.copy()
            old[60, 7] += x
            return (new, old), None

        return np.sum(bs.scan(step, (u0, 0.5 * u0), np.ones(4))[0][0] ** 2)

    grid = (80, 64)
    halves = Decomposition(grid, (0,), PlannedComm(2, 0))
    traced = trace_function(misfit, [type_of(np.ones(grid))], flatten((np.ones(grid),))[1])
    local = decomposed.cut(traced.program, [*traced.captured, np.ones(grid)], halves).program
    (params,) = (e.params for e in local.equations if e.primitive.name == "scan")
    step, shape = params["step"], scan_shape(params)
    assert find_chains(step, shape.n_consts, 2) == (Chain((0, 1)),), "handed on"
    assert exchanged(params) == (0, 1)
    code = compile_forward(step, shape.any_length, in_place=True, exchanged=exchanged(params))
    assert code.source.advance.travelling is None
    code = compile_forward(step, shape.any_length, in_place=False, exchanged=exchanged(params))
    assert code.source.advance.travelling is not None, "nothing is written over"
