"""Halo exchange, reductions and arrays in parts, between real MPI ranks."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from marks import more

RANKS = Path(__file__).with_name("blocks.py")
CHECKS = (
    "ghosts_are_what_their_owners_hold",
    "the_transpose_is_one",
    "a_lost_addition_is_noticed",
    "additions_have_an_order",
    "long_messages_travel_without_a_copy",
    "messages_of_two_exchanges_do_not_mix",
    "parts_of_a_job",
    "same_digests_pass",
    "arrays_in_parts",
    "refusals_are_agreed_on",
)


@pytest.mark.parametrize("ranks", [0, 2, 3, 8, *(more(n) for n in (1, 4, 5, 7))])
def test_blocks_talk(run_program, ranks):
    more = ("many_exchanges_leave_nothing_behind",) if ranks in (0, 2, 4) else ()
    done = run_program(RANKS, *CHECKS, *more, ranks=ranks)
    assert (done.code, done.out.strip()) == (0, f"right {max(1, ranks)}"), done.err
    assert not done.err, "MPI complains of requests that were not freed"


def test_a_rank_that_waits_for_a_message_calls_back(run_program):
    done = run_program(RANKS, "signals_are_seen_in_an_exchange", ranks=2)
    assert done.code == 0, done.err


def test_digests_that_differ_end_all_ranks(run_program):
    done = run_program(RANKS, "digests_differ", ranks=3, timeout=30)
    assert done.code == 1
    assert done.err.count("the traced program is not the same on all ranks: ranks 1, 2 of 3") == 3
    assert "MPI_Abort" not in done.err


def test_a_rank_that_raises_ends_those_that_exchange(run_program):
    begin = time.monotonic()
    done = run_program(RANKS, "one_rank_raises_while_others_exchange", ranks=3, timeout=30)
    assert done.code == 1
    assert "no more paper on rank 1" in done.err
    assert time.monotonic() - begin < 10
