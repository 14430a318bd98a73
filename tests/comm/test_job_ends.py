"""The command line ends all ranks, whatever happens to one of them and when."""

from __future__ import annotations

import signal

import pytest

START = """
import os, signal
from backsweep.cli import main
main.app = lambda: os.kill(os.getpid(), signal.SIGTERM)
main.main()
"""

MODULE = """
import sys
import numpy as np

class Problem:
    items = (0, 1)

    def start(self):
        return {"a": np.ones(3)}

    def prepare(self, items):
        if 1 in items:
            sys.exit("enough")

    def misfit(self, parameters, item):
        return np.sum(parameters["a"] ** 2)
"""


@pytest.mark.parametrize("rank", ["0", "1"])
def test_a_rank_that_is_not_connected_yet_dies_of_a_signal(run_program, rank):
    """It hung when one rank ignored the signal in MPI's start, and the root was gone."""
    assert run_program("-c", START, PMI_RANK=rank).code == -signal.SIGTERM


def test_an_exit_on_one_rank_ends_the_job(run_program, tmp_path):
    (tmp_path / "mine.py").write_text(MODULE)
    (tmp_path / "run.toml").write_text('model = "mine:Problem"\n')
    done = run_program("-m", "backsweep", "invert", "run.toml", ranks=2, timeout=30)
    assert done.code == 1
    assert "rank 1: the program called exit('enough')" in done.err
