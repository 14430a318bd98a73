"""Counts and parameters on real ranks."""

from __future__ import annotations

from pathlib import Path

import pytest

RANKS = Path(__file__).with_name("ranks.py")


@pytest.mark.parametrize("ranks", [2, 4])
def test_counts(run_program, ranks):
    checks = ["messages_are_counted", "a_machine_is_measured"]
    if ranks == 2:
        checks += ["objects_through_the_root_are_counted", "trials_are_each_ranks_own"]
    done = run_program(RANKS, *checks, ranks=ranks, timeout=60, BACKSWEEP_NO_JIT="1")
    assert done.code == 0, done.err
    assert done.out.split() == ["right", str(ranks)]
