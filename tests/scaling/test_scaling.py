"""From a program to its terms: what a step, a round and a sum are, counted by hand."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

import backsweep as bs
from backsweep.comm import PlannedComm
from backsweep.errors import CommError, MachineError
from backsweep.runtime import costs
from backsweep.runtime.machine import Machine, Measured, StepRates
from backsweep.runtime.work import sampled_ranks

N_STEPS, N_RECEIVERS = 10, 3
QUIET = Machine(cores=8, memory_bytes=10**15, bandwidth=1e300, stage_seconds=1e-300)
MEASURED = Measured(
    replace(QUIET, round_seconds=1.0, message_seconds=100.0), (StepRates(1.0, 5.0),)
)


def misfit(k: Any) -> Any:
    """Heat on a grid, seen at some points."""

    def step(t: Any, _: Any) -> Any:
        around = t[2:, 1:-1] + t[:-2, 1:-1] + t[1:-1, 2:] + t[1:-1, :-2]
        t = t.copy()
        t[1:-1, 1:-1] += k[1:-1, 1:-1] * (around - 4 * t[1:-1, 1:-1])
        return t, t[np.array([1, 9, 33]), np.array([2, 30, 31])]

    every = bs.Checkpointing(schedule="store_all")
    return np.sum(bs.scan(step, np.ones((64, 64)), length=N_STEPS, checkpointing=every)[1] ** 2)


def make(measured: Measured = MEASURED, axes: Any = (0, 1)) -> Any:
    cut = bs.Decomposition((64, 64), axes=axes, comm=PlannedComm(1))
    return bs.scaling(misfit, decomposition=cut, measured=measured)(np.full((64, 64), 0.1))


@pytest.fixture(autouse=True)
def interpreted(monkeypatch: pytest.MonkeyPatch) -> None:
    """Operations of a step are its carried values then, which are easy to count."""
    monkeypatch.setenv("BACKSWEEP_NO_JIT", "1")


def test_terms_of_a_block_with_neighbours_on_all_sides() -> None:
    found = make().on(16, ranks_per_node=8)
    # Blocks of 16 x 16 with a ghost on each side, forward and back.
    assert found.terms[costs.COMPUTE] == pytest.approx(N_STEPS * 18 * 18 * (1.0 + 5.0))
    overhead = 1.0 + 8 * 100.0 + MEASURED.machine.network_seconds
    assert found.terms[costs.LATENCY] == pytest.approx(2 * N_STEPS * overhead)
    # Of two nodes one holds two rows of blocks: three neighbours of eight are on the other one.
    far = 8 * (16 + 2) * 8 / MEASURED.machine.network_bandwidth
    assert found.terms[costs.MESSAGE_BANDWIDTH] == pytest.approx(2 * N_STEPS * far)


def test_terms_of_blocks_in_a_row() -> None:
    found = make(axes=0).on(4)
    assert found.terms[costs.COMPUTE] == pytest.approx(N_STEPS * 18 * 64 * (1.0 + 5.0))
    assert found.terms[costs.LATENCY] == pytest.approx(2 * N_STEPS * (1.0 + 2 * 100.0))
    alone = make(axes=0).on(1, threads=2)
    assert alone.terms[costs.LATENCY] == 0.0  # one rank runs the program itself
    assert alone.terms[costs.AGREE] == alone.terms[costs.SUMS] == 0.0


@pytest.mark.parametrize(("axes", "is_hidden"), [(0, True), (1, False), ((0, 1), False)])
def test_messages_travel_while_rows_are_computed(axes: Any, is_hidden: bool) -> None:
    slow = Measured(replace(QUIET, network_bandwidth=1e3, network_seconds=9.0), MEASURED.steps)
    found = make(slow, axes).on(8, ranks_per_node=2)
    assert (found.terms[costs.MESSAGE_BANDWIDTH] < 1e-9) == is_hidden
    assert (found.terms[costs.LATENCY] < 2 * N_STEPS * 9.0) == is_hidden


def test_records_are_added_up_on_all_ranks() -> None:
    slow = Measured(replace(QUIET, bandwidth=1.0, core_bandwidth=1e300), MEASURED.steps)
    found = make(slow).on(4)
    n_bytes = N_STEPS * N_RECEIVERS * 8
    assert found.terms[costs.SUMS] == pytest.approx(4 * n_bytes)


def test_what_cannot_be_predicted() -> None:
    with pytest.raises(CommError, match="cannot be cut"):
        make().on(64 * 64 * 2)
    with pytest.raises(MachineError, match="rates of 0 scan"):
        make(Measured()).on(4)
    with pytest.raises(MachineError, match="at least 1 of each"):
        make().on(1, ranks_per_node=-1)
    serial = bs.scaling(misfit, measured=MEASURED)(np.full((64, 64), 0.1))
    assert serial.on(1).terms[costs.LATENCY] == 0.0
    with pytest.raises(MachineError, match="give decomposition="):
        serial.on(2)


def test_a_loop_of_unknown_length_is_refused() -> None:
    def loop(u: Any) -> Any:
        return np.sum(bs.while_loop(lambda u: np.sum(u) > 1, lambda u: 0.5 * u, u, max_steps=9))

    for measured in (None, MEASURED):
        with pytest.raises(MachineError, match="ends where its condition fails"):
            bs.scaling(loop, measured=measured)(np.ones(4)).on(1)


def test_ranks_that_stand_for_all() -> None:
    def sampled(shape: tuple[int, ...], axes: Any, n: int) -> list[int]:
        return sampled_ranks(bs.Decomposition(shape, axes, PlannedComm(n)))

    assert sampled((64, 64), (0, 1), 16) == [0, 5, 15]
    assert sampled((64,), 0, 2) == [0, 1]
    assert sampled((64,), 0, 1) == [0]
    assert sampled((10,), 0, 4) == [0, 1, 3]  # 2, 3, 2 and 3 cells
    assert sampled((64, 64, 64), (0, 1, 2), 64) == [0, 21, 63]
