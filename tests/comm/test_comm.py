"""Communication between real MPI ranks."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from backsweep import config
from backsweep.comm import SerialComm, TreeSum, connect
from backsweep.comm.tree import items_of_rank
from backsweep.errors import CommError

RANKS = Path(__file__).with_name("ranks.py")
CHECKS = (
    "objects_travel",
    "sums_have_the_same_bits",
    "reductions_have_the_bits_of_a_loop",
    "long_reductions_go_piece_by_piece",
    "errors_are_agreed_on",
    "teams_work",
)


@pytest.mark.parametrize("ranks", [0, 1, 2, 3, 4, 7])
def test_ranks_agree(run_program, ranks):
    done = run_program(RANKS, *CHECKS, ranks=ranks)
    assert (done.code, done.out.strip()) == (0, f"right {max(1, ranks)}"), done.err


def test_an_abort_ends_ranks_that_wait(run_program):
    begin = time.monotonic()
    done = run_program(RANKS, "one_rank_fails", ranks=3)
    assert done.code == 3
    assert "right" not in done.out
    assert time.monotonic() - begin < 20


@pytest.mark.parametrize(("name", "code"), [("raises", 1), ("is_interrupted", 130)])
def test_an_error_that_nobody_catches_ends_ranks_that_wait(run_program, name, code):
    """As in a user's own script, without the command line."""
    done = run_program(RANKS, f"one_rank_{name}", ranks=3, timeout=30)
    assert done.code == code
    assert "in the way of rank 2" in done.err


def test_an_error_that_all_agree_on_ends_them_without_an_abort(run_program):
    done = run_program(RANKS, "all_ranks_fail", ranks=3, timeout=30)
    assert done.code == 1
    assert "too coarse" in done.err
    assert "MPI_Abort" not in done.err


def test_long_messages_travel_in_pieces(run_program):
    done = run_program(RANKS, "messages_travel_in_pieces", ranks=2)
    assert done.code == 0, done.err


def test_a_tree_without_all_of_its_terms_is_noticed():
    tree = TreeSum(3)
    tree.add(0, [1.0])
    tree.add(2, [1.0])
    with pytest.raises(ValueError, match="unpack"):
        tree.reduce(SerialComm())


@pytest.mark.parametrize(("n", "size"), [(1, 1), (5, 2), (8, 3), (7, 7), (100, 64)])
def test_each_item_has_one_rank(n, size):
    numbers = [k for rank in range(size) for k in items_of_rank(n, rank, size)]
    assert numbers == list(range(n))
    assert all(len(items_of_rank(n, rank, size)) for rank in range(size))


def test_a_launcher_without_its_mpi_is_refused(monkeypatch):
    """As `srun --mpi=none` does it: processes that each believe to be alone."""
    monkeypatch.setenv("PMI_SIZE", "2")
    with pytest.raises(CommError, match="started 2 processes"):
        connect()


def test_mpi_missing_under_mpiexec_is_one_sentence(run_program):
    """mpi4py finds no MPI library."""
    code = (
        "import sys; sys.modules['mpi4py'] = None\n"
        "from backsweep.cli.main import main; sys.argv[1:] = ['plan', 'x.toml']; main()"
    )
    done = run_program("-c", code, ranks=2)
    assert done.code == 2
    assert "mpi4py cannot load MPI" in done.err
    assert "Traceback" not in done.err


def test_without_a_launcher_there_is_one_rank(monkeypatch):
    for name in ("PMI_SIZE", "OMPI_COMM_WORLD_SIZE", "SLURM_STEP_ID"):
        monkeypatch.delenv(name, raising=False)
    assert isinstance(connect(), SerialComm)


@pytest.mark.parametrize(
    ("step", "own", "chosen"),
    [
        ({"PMI_JOBID": "7.0", "SLURM_STEP_ID": "0", "SLURM_PROCID": "1"}, "", "ofi"),
        ({"PMI_JOBID": "7.0", "SLURM_STEP_ID": "0", "SLURM_PROCID": "1"}, "ucx", ""),
        ({"SLURM_STEP_ID": "0", "SLURM_PROCID": "1"}, "", ""),  # mpiexec in a job
        ({}, "", ""),
    ],
)
def test_only_ranks_of_pmi2_have_a_netmod_chosen(monkeypatch, step, own, chosen):
    for name in ("PMI_JOBID", "SLURM_STEP_ID", "SLURM_PROCID", "MPIR_CVAR_CH4_NETMOD"):
        monkeypatch.setenv(name, "")  # restored afterwards, also what is set below
        monkeypatch.delenv(name)
    for name, value in (*step.items(), ("MPICH_CH4_NETMOD", own)):
        monkeypatch.setenv(name, value)
    config.choose_netmod()
    assert os.environ.get("MPIR_CVAR_CH4_NETMOD", "") == chosen


def test_ranks_share_cores_only_with_ranks_on_the_same_ones(monkeypatch):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setenv("BACKSWEEP_RANKS_ON_NODE", "")
    whole, half = ("a", tuple(range(8))), ("b", (0, 1, 2, 3))
    other = ("b", (4, 5, 6, 7))
    for rank, expected in enumerate((4, 4, 4, 4)):
        monkeypatch.setenv("BACKSWEEP_NUM_THREADS", "")
        config.share_node([whole, whole, half, other], rank)
        assert config.n_threads() == expected


def test_threads_that_the_user_asks_for_stay(monkeypatch):
    monkeypatch.setenv("BACKSWEEP_NUM_THREADS", "3")
    monkeypatch.setenv("BACKSWEEP_RANKS_ON_NODE", "")
    config.share_node([("a", (0, 1))] * 2, 0)
    assert config.n_threads() == 3


def test_ranks_of_a_node_share_its_memory_whatever_started_them(monkeypatch):
    """`srun --ntasks=4` says nothing of ranks per node."""
    for name in ("MPI_LOCALNRANKS", "OMPI_COMM_WORLD_LOCAL_SIZE", "SLURM_NTASKS_PER_NODE"):
        monkeypatch.delenv(name, raising=False)
    for name in ("BACKSWEEP_NUM_THREADS", "BACKSWEEP_RANKS_ON_NODE"):
        monkeypatch.setenv(name, "")
    assert config.ranks_on_node() == 1
    config.share_node([("a", (0,)), ("b", (0,)), ("b", (1,)), ("b", (2,))], 2)
    assert config.ranks_on_node() == 3


def test_a_batch_script_without_a_launcher_has_the_node_for_itself(monkeypatch):
    for name in ("MPI_LOCALNRANKS", "OMPI_COMM_WORLD_LOCAL_SIZE", "BACKSWEEP_RANKS_ON_NODE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.delenv("SLURM_STEP_ID", raising=False)
    monkeypatch.setenv("SLURM_PROCID", "0")
    monkeypatch.setenv("SLURM_NTASKS_PER_NODE", "8")
    assert config.ranks_on_node() == 1
    monkeypatch.setenv("SLURM_STEP_ID", "0")
    assert config.ranks_on_node() == 8


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({}, 4),
        ({"SLURM_CPUS_PER_TASK": "2"}, 2),
        ({"SLURM_CPUS_ON_NODE": "4"}, 2),
        ({"SLURM_CPUS_PER_TASK": "8", "SLURM_CPUS_ON_NODE": "8"}, 4),
        ({"SLURM_CPUS_PER_TASK": "2", "BACKSWEEP_NUM_THREADS": "5"}, 5),
    ],
)
def test_threads_keep_to_what_slurm_has_allocated(monkeypatch, given, expected):
    """Also where it binds no process to its cores; here two ranks may use all eight."""
    for name in ("OMP_NUM_THREADS", "SLURM_CPUS_PER_TASK", "SLURM_CPUS_ON_NODE"):
        monkeypatch.delenv(name, raising=False)
    for name in ("BACKSWEEP_NUM_THREADS", "BACKSWEEP_RANKS_ON_NODE"):
        monkeypatch.setenv(name, "")
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    config.share_node([("a", tuple(range(8)))] * 2, 0)
    assert config.n_threads() == expected


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({}, None),
        ({"SLURM_MEM_PER_NODE": "2048"}, 2 << 30),
        ({"SLURM_MEM_PER_NODE": "0"}, None),  # --mem=0: all of it
        ({"SLURM_MEM_PER_CPU": "1024", "SLURM_CPUS_ON_NODE": "3"}, 3 << 30),
    ],
)
def test_memory_that_slurm_has_allocated(monkeypatch, given, expected):
    for name in ("SLURM_MEM_PER_NODE", "SLURM_MEM_PER_CPU", "SLURM_CPUS_ON_NODE"):
        monkeypatch.delenv(name, raising=False)
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    assert config.allocated_bytes() == expected
