"""The cut of programs, as far as one process can see it."""

from __future__ import annotations

import numpy as np
import pytest

import backsweep as bs
from backsweep.api import decomposed
from backsweep.comm import Decomposition, serial
from backsweep.errors import DecompositionError
from partition import losses, points
from partition.comparing import GRID


@pytest.fixture(autouse=True)
def in_the_interpreter(monkeypatch):
    monkeypatch.setenv("BACKSWEEP_NO_JIT", "1")


def cut(shape=GRID):
    return Decomposition(shape, (0,), serial())


def test_an_error_of_one_rank_alone_is_its_own():
    misfit, args = points.moving_source(GRID)
    with pytest.raises(DecompositionError, match="indices that are only known when it runs"):
        bs.value_and_grad(misfit, decomposition=cut())(*args)


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
