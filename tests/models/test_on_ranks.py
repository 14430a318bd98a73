"""Models on ranks: the bits of one process."""

from pathlib import Path

import pytest

RANKS = Path(__file__).with_name("on_ranks.py")


@pytest.mark.parametrize("ranks", [2, 3, 4])
def test_all_models_in_blocks(is_right, ranks):
    """By the reference evaluator, whose bits are those of compiled steps; four ranks make 2 x 2."""
    is_right(RANKS, ranks, "all_models")


@pytest.mark.slow_all
def test_shallow_water_in_compiled_blocks(is_right):
    is_right(RANKS, 2, "shallow_water_alone", is_compiled=True)
