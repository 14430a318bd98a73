"""Schedules, memory, lost messages and errors of programs on blocks."""

from __future__ import annotations

import pytest
from marks import more

from partition.test_programs import RANKS


@pytest.mark.parametrize("ranks", [2, 3])
def test_every_schedule_and_store(is_right, ranks):
    is_right(RANKS, ranks, "schedules")


def test_fifty_gradients_leave_nothing_behind(is_right):
    is_right(RANKS, 2, "many_gradients")


def test_a_lost_message_is_noticed(is_right):
    is_right(RANKS, 3, "lost_messages")


def test_too_little_room_for_a_loop_is_noticed(is_right):
    is_right(RANKS, 2, "too_little_room")


def test_arrays_that_the_ranks_hold_may_be_arguments(is_right):
    is_right(RANKS, 3, "parts_as_arguments")


@pytest.mark.compiles
@pytest.mark.parametrize(("threads", "few"), [(1, ["few"]), more(2, [])])
def test_rows_are_computed_while_messages_travel(is_right, monkeypatch, threads, few):
    monkeypatch.setenv("BACKSWEEP_NUM_THREADS", str(threads))
    is_right(RANKS, 2, "messages_that_travel", *few, is_compiled=True)


def test_shots_of_a_sum_have_the_whole_budget_each(is_right):
    is_right(RANKS, 2, "shots_of_a_sum")


def test_the_adjoint_of_blocks_is_not_recorded_as_that_of_the_grid(is_right):
    is_right(RANKS, 2, "recorded")


@pytest.mark.compiles
def test_compiled_code_that_calls_back_leaves_nothing_and_says_what_failed(run_program):
    done = run_program(RANKS, "called_back", ranks=2, timeout=120)
    assert done.code == 1
    assert "ValueError: no luck" in done.err, done.err + done.out


def test_no_rank_has_a_global_array(run_program):
    taken = {}
    for ranks in (1, 2, 4):
        done = run_program(RANKS, "memory", ranks=ranks, BACKSWEEP_NO_JIT="1")
        assert done.out.endswith("MiB\n"), done.err
        taken[ranks] = float(done.out.split()[0])
    assert taken[1] > 60, "a grid has 15 MiB more"
    assert taken[2] < 0.65 * taken[1], taken
    assert taken[4] < 0.4 * taken[1], taken


@pytest.mark.parametrize(
    ("job", "ranks", "says"),
    [
        ("other_programs", 3, "the traced program is not the same on all ranks: ranks 1, 2 of 3"),
        ("other_shapes", 3, "the traced program is not the same on all ranks: rank"),
        ("other_indices", 3, "not the same on all ranks: ranks 1, 2 of 3 differ from rank 0"),
        (
            "other_values",
            3,
            "what its inputs are given is not the same on all ranks: ranks 1, 2 of 3",
        ),
        ("one_raises", 3, "OSError: the model's file is not there"),
        ("wrong_grid", 2, "nothing would be cut: the last dimensions of no argument"),
        ("far_reads", 5, "return 0.5 * u + 0.1 * (u - u[0]) * c, u[3, 3:5]): cut the grid along"),
    ],
    ids=lambda value: value if str(value).isidentifier() else "",
)
def test_what_cannot_go_on_ends_all_ranks_within_seconds(ends_all_ranks, job, ranks, says):
    ends_all_ranks(RANKS, job, ranks, says)
