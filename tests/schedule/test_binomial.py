"""Closed forms, the table function, and every schedule executed against the rules."""

from __future__ import annotations

import functools
import time
from math import comb

import numpy as np
import pytest

from backsweep.errors import ScheduleError
from backsweep.schedule import (
    ADVANCE,
    FINISHED,
    FORWARD_PHASE,
    MAX_STEPS,
    PHASE,
    REVERSE_PHASE,
    Binomial,
    Level,
    StoreAll,
    beta,
    decode,
    extra_advances,
    fill,
    repetition,
    simulate,
)

# From section 5h of the survey of peers: (n, s, t, stores of the published algorithm).
PUBLISHED = [
    (10, 3, 15, 6),
    (100, 5, 316, 44),
    (100, 10, 222, 55),
    (1000, 10, 3636, 714),
    (1000, 20, 2747, 769),
]


def rows(schedule, n_rows_per_fill, function=fill):
    """The whole action table, and the number of rows after which the loss is due."""
    stack, head = schedule.start()
    table = np.empty((n_rows_per_fill, 4), np.int64)
    parts, loss_at = [], 0
    while n_rows := function(stack, head, table):
        parts.append(table[:n_rows].copy())
        if head[PHASE] == FORWARD_PHASE:
            loss_at += n_rows
        elif loss_at >= 0 and parts[-1][-1, 0] == ADVANCE and parts[-1][-1, 2] == head[1]:
            loss_at = -(loss_at + n_rows)
    assert head[PHASE] == FINISHED
    return np.concatenate([np.empty((0, 4), np.int64), *parts]), -loss_at


def test_closed_form_equals_every_row_of_the_oracle(oracle):
    for row in oracle:
        n, s = row["n"], row["s"]
        assert repetition(n, s) == row["r"], (n, s)
        assert beta(s, repetition(n, s)) == row["beta_s_r"], (n, s)
        assert extra_advances(n, s) == row["t_extra_advances"], (n, s)


def test_closed_form_equals_the_dynamic_programme():
    @functools.cache
    def t(n, s):
        if n <= 1:
            return 0
        if s == 1:
            return n * (n - 1) // 2
        return min(i + t(i, s) + t(n - i, s - 1) for i in range(1, n))

    for n in range(1, 61):
        for s in range(1, 12):
            assert extra_advances(n, s) == t(n, s), (n, s)


def test_closed_form_is_exact_for_large_numbers():
    billion = 10**9
    assert extra_advances(billion, 1) == billion * (billion - 1) // 2
    assert extra_advances(billion, billion) == billion - 1
    assert extra_advances(beta(40, 9), 40) == 9 * beta(40, 9) - comb(49, 41)
    assert Binomial(billion, 100).n_advances == 5898659125


@pytest.mark.parametrize(("n", "s", "t", "n_stores"), PUBLISHED)
def test_published_counts(n, s, t, n_stores):
    summary = simulate(Binomial(n, s))
    assert summary.n_advances == t + 1
    assert summary.n_stores == n_stores
    assert summary.n_loads == n - 1


def test_stores_are_as_few_as_a_dynamic_programme_finds():
    @functools.cache
    def stores(n, s):
        """Fewest stores among the splits with the fewest advances; the first state is held."""
        if s == 1 or n <= 2:
            return 0
        t = extra_advances
        best = t(n, s)
        return min(
            (m < n - 1) + stores(m, s) + stores(n - m, s - 1)
            for m in range(1, n)
            if m + t(m, s) + t(n - m, s - 1) == best
        )

    for n in range(1, 61):
        for s in range(1, 9):
            assert simulate(Binomial(n, s)).n_stores == stores(n, s) + 1, (n, s)


def check(n, s):
    summary = simulate(Binomial(n, s))
    assert summary.n_advances == Binomial(n, s).n_advances
    assert summary.n_reverses == n
    assert summary.n_loads == max(n - 1, 0)
    assert summary.n_stores == summary.n_discards
    assert summary.peak_snapshots <= min(s, max(n - 1, 1))


def test_executed_counts_equal_the_closed_form(pairs):
    for n, s in pairs:
        check(n, s)


@pytest.mark.parametrize(("n", "s"), [(0, 1), (1, 1), (2, 1), (7, 3), (50, 4), (64, 100)])
@pytest.mark.parametrize("n_rows_per_fill", [1, 2, 7, 10_000])
def test_the_table_does_not_depend_on_where_a_fill_ends(n, s, n_rows_per_fill):
    schedule = Binomial(n, s)
    table, loss_at = rows(schedule, n_rows_per_fill)
    assert [decode(row) for row in table.tolist()] == list(schedule.actions())
    if n:
        assert table[loss_at - 1, [0, 2]].tolist() == [ADVANCE, n]
        assert not np.any(table[: loss_at - 1, 2] == n)


def test_fill_stops_once_where_the_loss_is_due():
    stack, head = Binomial(6, 2).start()
    table = np.empty((100, 4), np.int64)
    assert head[PHASE] == FORWARD_PHASE
    n_rows = fill(stack, head, table)
    assert table[n_rows - 1, :3].tolist() == [ADVANCE, 3, 6]
    assert head[PHASE] == REVERSE_PHASE
    assert fill(stack, head, table) > 0
    assert head[PHASE] == FINISHED
    assert fill(stack, head, table) == 0


def test_slots_are_a_stack():
    for n, s in [(30, 4), (100, 7), (9, 20)]:
        held = []
        for kind, step, _, slot in rows(Binomial(n, s), 64)[0].tolist():
            name = type(decode((kind, step, step, slot))).__name__
            if name == "Store":
                assert slot == len(held)
                assert not held or step > held[-1]
                held.append(step)
            elif name in ("Load", "Discard"):
                assert slot == len(held) - 1
                assert held[slot] == step
                if name == "Discard":
                    held.pop()
        assert not held


def test_consecutive_advances_are_merged():
    for n, s in [(30, 4), (100, 7)]:
        kinds = rows(Binomial(n, s), 64)[0][:, 0]
        assert not np.any((kinds[1:] == ADVANCE) & (kinds[:-1] == ADVANCE))


@pytest.mark.compiles
def test_compiled_fill():
    import numba

    compiled = numba.njit(fill)
    count_advances = numba.njit(_count_advances)
    for n, s in [(0, 1), (1, 1), (57, 4), (1000, 20)]:
        expected, expected_loss_at = rows(Binomial(n, s), 64)
        table, loss_at = rows(Binomial(n, s), 64, compiled)
        np.testing.assert_array_equal(table, expected)
        assert loss_at == expected_loss_at

    for n in range(1, 201):
        for s in range(1, 31):
            table = rows(Binomial(n, s), 4096, compiled)[0]
            advances = table[table[:, 0] == ADVANCE]
            assert np.sum(advances[:, 2] - advances[:, 1]) == extra_advances(n, s) + 1, (n, s)

    for n, s in [(10**6, 20), (10**6, 2500), (10**6, 10**6)]:
        stack, head = Binomial(n, s).start()
        table = np.empty((4096, 4), np.int64)
        start, n_advances = time.perf_counter(), 0
        while n_rows := compiled(stack, head, table):
            n_advances += count_advances(table, n_rows)
        # Measured: 0.01-0.03 s.
        assert time.perf_counter() - start < 1.0
        assert n_advances == extra_advances(n, s) + 1


def _count_advances(table, n_rows):
    total = 0
    for i in range(n_rows):
        if table[i, 0] == ADVANCE:
            total += table[i, 2] - table[i, 1]
    return total


@pytest.mark.parametrize("n", [0, 1, 2, 3, 10, 1000])
def test_store_all(n):
    schedule = StoreAll(n)
    summary = simulate(schedule)
    assert summary.n_advances == schedule.n_advances == n
    assert summary.n_reverses == n
    assert summary.peak_snapshots == schedule.n_snapshots == (n - 1 if n > 1 else n)
    for _, step, _, slot in rows(schedule, 64)[0].tolist():
        assert slot in (-1, step)


def test_requests_that_cannot_be_met():
    with pytest.raises(ScheduleError, match="at least 1"):
        Binomial(10, 0)
    with pytest.raises(ScheduleError, match="n_steps = -1"):
        Binomial(-1, 1)
    with pytest.raises(ScheduleError, match=str(MAX_STEPS)):
        StoreAll(MAX_STEPS + 1)
    with pytest.raises(ScheduleError, match="n = -3"):
        repetition(-3, 1)
    with pytest.raises(ScheduleError, match="unknown kind 9"):
        decode((9, 0, 0, 0), Level.DISK)


@pytest.mark.parametrize("s", [2, 3, 100, 10**6, MAX_STEPS])
def test_no_product_of_fill_leaves_64_bits(s):
    # The products are largest in the first split, of all steps.
    r = repetition(MAX_STEPS, s)
    assert beta(s, r - 1) * (s + r) < 2**63
    assert beta(s, r - 1) * s < 2**63


def test_first_split_of_the_longest_schedule():
    stack, head = Binomial(MAX_STEPS, 100).start()
    table = np.empty((2, 4), np.int64)
    with np.errstate(over="raise"):
        assert fill(stack, head, table) == 2
    m = int(table[1, 2])
    t = extra_advances
    assert m + t(m, 100) + t(MAX_STEPS - m, 99) == t(MAX_STEPS, 100)
