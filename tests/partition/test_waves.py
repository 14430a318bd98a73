"""Compiled sweeps of blocks keep residuals and carry products, and have the bits of one process."""

from pathlib import Path

import pytest
from marks import more

RANKS = Path(__file__).with_name("waves.py")


@pytest.mark.parametrize("ranks", [2, more(4)])
def test_a_wave_that_crosses_blocks(is_right, ranks):
    is_right(RANKS, ranks, "all_cuts", is_compiled=True)
