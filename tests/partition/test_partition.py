"""The cut of programs, as far as one process can see it."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest

import backsweep as bs
from backsweep.comm import Decomposition, PlannedComm, serial
from backsweep.comm.base import SerialComm
from backsweep.errors import BacksweepError, DecompositionError, RecordError
from backsweep.passes.partition import steps
from partition import losses, nested, points
from partition.comparing import GRID
from partition.stencils import field


@pytest.fixture(autouse=True)
def in_the_interpreter(monkeypatch):
    monkeypatch.setenv("BACKSWEEP_NO_JIT", "1")


def cut(shape=GRID):
    return Decomposition(shape, (0,), serial())


def test_shots_of_a_sum_have_the_whole_budget_each():
    """They are written out, but one ends before the next one begins."""
    little = bs.Checkpointing(memory="16 KiB")

    def misfit(c):
        def shot(at):
            def step(u, x):
                new = u.copy()
                new[1:] += c[1:] * np.sin(u[:-1])
                return new, new[at, 3] * x

            return np.sum(bs.scan(step, 1.0 * c, np.arange(40.0), checkpointing=little)[1] ** 2)

        return bs.sum_over([1, 4, 8], shot)

    *_, alone = bs.value_and_grad(misfit, has_report=True)(field(GRID))
    *_, blocks = bs.value_and_grad(misfit, has_report=True, decomposition=cut())(field(GRID))
    snapshots = [s.n_snapshots for s in alone.scans]
    assert len(snapshots) == 3
    assert 1 < min(snapshots) < 30
    assert [s.n_snapshots for s in blocks.scans] == snapshots


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


@pytest.mark.compiles
def test_a_collective_that_fails_in_compiled_code_says_why(monkeypatch):
    def fails(self, array, op="sum"):
        raise ValueError("no luck")

    def norm(u0):
        return bs.scan(lambda u, _: (u / np.sum(u**2), None), u0, length=3)[0][2, 3]

    gradient = bs.grad(norm, decomposition=cut())
    gradient(field(GRID))
    monkeypatch.setattr(SerialComm, "allreduce", fails)
    with pytest.raises(ValueError, match="no luck"):
        gradient(field(GRID))


def test_the_adjoint_of_blocks_is_not_recorded_as_that_of_the_grid(tmp_path):
    misfit, args = losses.final_field(GRID)
    with bs.record_adjoint(tmp_path / "adjoint.h5"), pytest.raises(RecordError, match="blocks"):
        bs.value_and_grad(misfit, decomposition=cut())(*args)
    assert not list(tmp_path.iterdir())
