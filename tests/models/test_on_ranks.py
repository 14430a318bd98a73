"""Models on ranks: the bits of one process."""

from pathlib import Path

import pytest

RANKS = Path(__file__).with_name("on_ranks.py")


@pytest.mark.parametrize("ranks", [2, 3, 4])
def test_all_models_in_blocks(run_program, ranks):
    """By the reference evaluator, whose bits are those of compiled steps; four ranks make 2 x 2."""
    done = run_program(RANKS, "all_models", ranks=ranks, BACKSWEEP_NO_JIT="1")
    assert (done.code, done.out.strip()) == (0, f"right {ranks}"), done.err


@pytest.mark.slow_all
def test_shallow_water_in_compiled_blocks(run_program):
    done = run_program(RANKS, "shallow_water_alone", ranks=2, timeout=400)
    assert (done.code, done.out.strip()) == (0, "right 2"), done.err
