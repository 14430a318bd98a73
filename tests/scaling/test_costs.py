"""The cost model: sums that can be done by hand."""

from __future__ import annotations

from dataclasses import replace

import pytest

from backsweep.comm.tree import TreeSum, items_of_rank
from backsweep.errors import MachineError
from backsweep.runtime import costs
from backsweep.runtime.costs import (
    Nodes,
    Prediction,
    Shots,
    compute_seconds,
    memory_seconds,
    nodes_of_share,
    predict,
    predict_shots,
    reduction_seconds,
    round_seconds,
)
from backsweep.runtime.machine import Machine, StepRates
from backsweep.runtime.work import Round, ScanWork, Work

MACHINE = Machine(
    cores=4,
    memory_bytes=16 * 10**9,
    cache_bytes=0,
    core_bandwidth=1e10,
    node_bandwidth=2e10,
    round_seconds=10e-6,
    message_seconds=2e-6,
    waiting_seconds=50e-6,
    bandwidth=1e9,
    stage_seconds=5e-6,
    object_seconds=1e-5,
    setup_seconds=1e-4,
    network_seconds=1e-6,
    network_bandwidth=1e10,
    file_seconds=1e-3,
    write_bandwidth=1e9,
    read_bandwidth=1e9,
    metadata_rate=1000.0,
)
RATES = StepRates(1e-9, 3e-9)


def nodes(n_ranks: int, per_node: int = 4, **changes: float) -> Nodes:
    return Nodes(n_ranks, per_node, replace(MACHINE, **changes))  # type: ignore[arg-type]


def near(value: float) -> object:
    return pytest.approx(value, rel=1e-12)


def test_steps_are_shared_by_threads_and_wait_for_cores() -> None:
    assert compute_seconds(10**6, 1e-9, nodes(1)) == near(1e-3 / 4)  # four threads
    assert compute_seconds(10**6, 1e-9, nodes(2)) == near(1e-3 / 2)
    assert compute_seconds(10**6, 1e-9, nodes(4)) == near(1e-3)
    assert compute_seconds(10**6, 1e-9, nodes(8, per_node=8)) == near(2e-3)  # two ranks a core
    assert compute_seconds(10**6, 1e-9, nodes(8)) == near(1e-3)  # on two nodes
    assert compute_seconds(1000, 1e-9, nodes(1)) == near(1e-6)  # too short for threads
    assert compute_seconds(10**6, 1e-9, Nodes(1, 4, MACHINE, threads=2)) == near(1e-3 / 2)
    assert compute_seconds(10**6, 1e-9, Nodes(2, 4, MACHINE, threads=4)) == near(1e-3 / 4 * 2)
    busy = Nodes(1, 4, MACHINE, n_others=7)  # the cores of its node have other work
    assert compute_seconds(10**6, 1e-9, busy) == near(1e-3)


def test_ranks_of_a_node_share_its_memory() -> None:
    assert memory_seconds(10**6, nodes(1)) == near(5e-5)  # the node's 20 GB/s
    assert memory_seconds(10**6, nodes(4)) == near(2e-4)
    assert memory_seconds(10**6, nodes(64)) == near(2e-4)
    alone = nodes(1, cores=1)
    assert memory_seconds(10**6, alone) == near(1e-4)  # one core's 10 GB/s
    assert memory_seconds(10**6, nodes(4, cache_bytes=4 * 10**6)) == 0.0
    assert memory_seconds(10**6, nodes(4, cache_bytes=4 * 10**6 - 1)) > 0.0


def test_a_round_pays_for_messages_and_bytes() -> None:
    both = Round(n_near=2, near_bytes=1000, n_far=1, far_bytes=2000)
    overhead, transfer = round_seconds(both, nodes(8))
    assert overhead == near(10e-6 + 3 * 2e-6 + 1e-6)
    assert transfer == near(1e-6 + 4 * 2000 / 1e10)  # four ranks share the wire
    assert round_seconds(None, nodes(8)) == (0.0, 0.0)
    assert round_seconds(Round(), nodes(1)) == (near(10e-6), 0.0)  # without neighbours
    overhead, _ = round_seconds(Round(1, 8), nodes(8, per_node=8))
    assert overhead == near(2 * 12e-6 + 50e-6)  # two ranks a core
    assert round_seconds(Round(), nodes(8, per_node=8))[0] == near(2 * 10e-6)


def test_what_the_network_takes_is_hidden_behind_rows() -> None:
    far = Round(n_far=1, far_bytes=5000, is_overlapped=True)  # 1 us and 4 * 5000 / 10 GB/s
    assert round_seconds(far, nodes(8)) == (near(12e-6 + 1e-6), near(2e-6))
    assert round_seconds(far, nodes(8), 1e-6) == (near(12e-6 + 1e-6), near(1e-6))
    assert round_seconds(far, nodes(8), 2.5e-6) == (near(12e-6 + 0.5e-6), near(0.0))
    assert round_seconds(far, nodes(8), 1.0) == (near(12e-6), 0.0)
    not_hidden = replace(far, is_overlapped=False)
    assert round_seconds(not_hidden, nodes(8), 1.0) == (near(12e-6 + 1e-6), near(2e-6))


def test_reductions() -> None:
    assert reduction_seconds(8, nodes(1)) == 0.0
    assert reduction_seconds(8, nodes(2)) == near(5e-6 + 16 / 1e9)
    assert reduction_seconds(8, nodes(3)) == near(2 * 5e-6 + 24 / 1e9)
    assert reduction_seconds(8, nodes(8)) == near(3 * (5e-6 + 1e-6) + 64 / 1e9)
    long = 3 * 2e-6 + 2 * 2 * 5e-6 + 2 * 10**6 * 3 / 4 / 1e9 + 10**6 / 1e10
    assert reduction_seconds(10**6, nodes(4)) == near(long)
    pieces = 2 * (2e-6 + 2 * 5e-6) + (1 << 27) / 1e9 + (1 << 27) / 1e10
    assert reduction_seconds(1 << 27, nodes(2)) == near(pieces)
    crossing = 2 * 10**6 * 7 / 8 / 1e9  # 10 GB/s of four ranks are more than 1 GB/s of each
    long = 7 * 2e-6 + 2 * 3 * 6e-6 + crossing + 1e-4
    assert reduction_seconds(10**6, nodes(8)) == near(long)


def test_a_gradient_is_the_sum_of_its_terms() -> None:
    scan = ScanWork(
        30, 10, (10**6, 2 * 10**6), (10**7, 10**8), (Round(1, 1000), Round(2, 2000)), 6, n_sums=1
    )
    work = Work((scan,), sums=(8,), n_gathers=5, memory_bytes=7)
    found = predict(replace(work, fixed_seconds=0.5, cut_seconds=2.0), [RATES], nodes(4))
    expected = {
        costs.COMPUTE: 30 * 1e-3 + 10 * 6e-3,
        costs.MEMORY_BANDWIDTH: 30 * (2e-3 - 1e-3) + 10 * (20e-3 - 6e-3),
        costs.LATENCY: 30 * 12e-6 + 10 * 14e-6,
        costs.MESSAGE_BANDWIDTH: 30 * 1e-6 + 10 * 2e-6,
        costs.SUMS: 41 * (2 * 5e-6 + 32 / 1e9),
        costs.AGREE: 5 * (2 * 2 * 5e-6 + 4 * 1e-5),
        costs.DISK: 0.0,
        costs.FIXED: 0.5,
    }
    assert dict(found.terms) == {name: near(seconds) for name, seconds in expected.items()}
    assert found.seconds == near(sum(expected.values()))
    assert found.memory_bytes == 7
    assert found.first_seconds == near(2.0 + 6 * 4 * 1e-4)
    assert found.breaks_first == costs.FIXED
    with pytest.raises(MachineError, match="rates of 2 scan.s. were measured.*has 1"):
        predict(work, [RATES, RATES], nodes(4))
    with pytest.raises(MachineError, match="at least 1 of each"):
        nodes(0)


def test_files_are_hidden_behind_steps_where_a_core_is_free() -> None:
    scan = ScanWork(
        10, 0, (10**6, 0), (0, 0), n_transfers=10, transfer_bytes=10**6, is_overlapped=True
    )

    def disk(scan: ScanWork, on: Nodes) -> float:
        return predict(Work((scan,)), [RATES], on).terms[costs.DISK]

    assert disk(scan, nodes(4)) == near(10 * (1e-3 + 4e-3))  # no core is free
    assert disk(scan, nodes(3)) == near(10 * (1e-3 + 3e-3) - 10 * 1e-3)
    assert disk(replace(scan, is_overlapped=False), nodes(3)) == near(10 * (1e-3 + 3e-3))
    assert disk(replace(scan, n_transfers=1, n_advances=50), nodes(3)) == 0.0
    slow = nodes(1, read_bandwidth=0.5e9)  # a write in 1 ms, a read in 2 ms
    assert disk(scan, slow) == near(10 * (1e-3 + 1.5e-3))


def gradient(seconds: float, n_ranks: int = 1, n_others: int = 0) -> Prediction:
    on = Nodes(n_ranks, 4, MACHINE, n_others)
    return Prediction(on, {costs.COMPUTE: seconds}, memory_bytes=10**9, first_seconds=0.25)


HOP = 5e-6 + 1e-5
"""An object from one rank to another."""


def test_shots_wait_for_the_group_with_the_most_of_them() -> None:
    shots = Shots(10, 1, model_bytes=10**6, file_operations=3)
    found = predict_shots(shots, gradient(2.0, n_others=3), nodes(4))
    assert found.terms[costs.COMPUTE] == near(2.5 * 2.0)
    assert found.terms[costs.IDLE] == near(0.5 * 2.0)  # three of the ten on one rank
    assert found.terms[costs.METADATA] == near(10 * 3 / 1000)  # slower than 3 ms by four groups
    spread = 2 * (HOP + 1e-3)
    tree = 2 * (HOP + 2 * 1e-3 + 1e-4)  # two partial sums travel
    assert found.terms[costs.TREE] == near(spread + tree)
    assert found.memory_bytes == 10**9 + 2 * 2 * 10**6
    assert found.first_seconds == near(3 * 0.25)  # each shot is a program of its own

    groups = predict_shots(replace(shots, ranks_per_shot=2), gradient(2.0, 2, 2), nodes(4))
    assert groups.terms[costs.IDLE] == 0.0
    gathered = 5 * (HOP + 1e-3)
    stages = HOP + nodes_of_share(10, 2) * 1e-3 + 1e-4
    assert groups.terms[costs.TREE] == near(spread + gathered + stages)
    with pytest.raises(MachineError, match="16 rank.s. in groups of 1 for 10 shot.s.: 6 group"):
        predict_shots(shots, gradient(2.0), nodes(16))


def test_partial_sums_are_as_many_as_the_tree_holds() -> None:
    for n in (1, 2, 7, 8, 10, 64, 100):
        for groups in {1, 2, 3, n} - set(range(n + 1, 4)):
            held = []
            for k in range(groups):
                tree = TreeSum(n)
                for number in items_of_rank(n, k, groups):
                    tree.add(number, ())
                held.append(len(tree.nodes()))
            found = nodes_of_share(n, groups)
            assert found >= max(held)
            assert found == max(held) or n & (n - 1), (n, groups)


@pytest.mark.parametrize(
    ("terms", "memory", "expected"),
    [
        ({costs.COMPUTE: 9.0, costs.LATENCY: 1.0, costs.SUMS: 0.5}, 10**9, costs.LATENCY),
        ({costs.COMPUTE: 9.0, costs.AGREE: 20.0, costs.DISK: 19.0}, 10**9, costs.AGREE),
        ({costs.COMPUTE: 9.0, costs.DISK: 0.0}, 10**9, costs.COMPUTE),
        ({costs.COMPUTE: 9.0, costs.LATENCY: 1.0}, 5 * 10**9, costs.MEMORY),
        ({costs.COMPUTE: 90_000.0, costs.LATENCY: 1.0}, 10**9, costs.JOB_TIME),
    ],
)
def test_what_breaks_first(terms: dict[str, float], memory: int, expected: str) -> None:
    found = Prediction(nodes(4), terms, memory)
    assert found.breaks_first == expected
    assert expected in str(found)
    assert found.fits == (expected != costs.MEMORY)
