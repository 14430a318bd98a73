"""The scripts of slurm/ under a real SLURM (conftest.py).

`.ci/run` installs SLURM and sets BACKSWEEP_TEST_SLURM, which turns the skip into a failure.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest

ROOT = Path(__file__).parent.parent.parent
SCRIPTS = ROOT / "slurm"
MEMORY = "--mem=2G"
FOUND = ("rates", "rates_best", "misfit", "objective", "rates_gradient")


def assert_equal(folder, names, *paths):
    """Bit by bit."""
    with h5py.File(folder / paths[0]) as first:
        for path in paths[1:]:
            with h5py.File(folder / path) as other:
                for name in names:
                    assert np.array_equal(first[name][()], other[name][()]), (path, name)


@pytest.fixture(scope="session")
def uninterrupted(tmp_path_factory):
    """Folder of a run file that takes some seconds, and alone.h5, its result on one process."""
    folder = tmp_path_factory.mktemp("uninterrupted")
    for name in ("own_problem.py", "own_problem.toml"):
        shutil.copy(ROOT / "examples" / name, folder)
    run = folder / "own_problem.toml"
    text = run.read_text().replace("months = 600", "months = 200000\ndt = 1.5e-4")
    steps = "evaluations = 16\ntolerance = 0.0\n[checkpointing]\nsnapshots = 20\n"
    run.write_text(text.replace("evaluations = 40\n", steps))
    command = ["invert", "own_problem.toml", "--set", "output.result=alone.h5"]
    subprocess.run(
        [sys.executable, "-m", "backsweep", *command],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": str(ROOT / "src")},
        check=True,
    )
    return folder


@pytest.fixture
def long_jobs(jobs, uninterrupted):
    for path in uninterrupted.glob("*.*"):
        shutil.copy(path, jobs.folder)
    return jobs


def test_the_scripts_have_the_same_common_lines():
    texts = [path.read_text() for path in SCRIPTS.glob("*.sbatch") if path.name != "reduce.sbatch"]
    found = {re.search(r"# ---- the same lines.*?\n# -{80,}\n", text, re.S)[0] for text in texts}
    assert len(texts) == 3
    assert len(found) == 1


def test_a_job_and_a_wrong_launcher(jobs):
    job = jobs.submit("invert.sbatch", "--ntasks=2", MEMORY)
    jobs.wait_for(job)
    assert "2 rank(s), 1 thread(s) each" in jobs.log(job)
    assert "schedule" in jobs.log(job).split("evaluation   1/")[0]  # the plan comes first
    jobs.backsweep("invert", "own_problem.toml", "--set", "output.result=alone.h5")
    assert_equal(jobs.folder, FOUND, "alone.h5", "own_problem.h5")
    with h5py.File(jobs.folder / "own_problem.h5") as file:
        assert file.attrs["ranks"] == 2

    wrong = [sys.executable, "-m", "backsweep", "plan", "own_problem.toml"]
    said = jobs.run("srun", "-n", "2", "--mpi=none", *wrong, code=2)
    assert "the launcher started 2 processes, but MPI sees 1" in said

    job = jobs.submit("invert.sbatch", "--ntasks=2", MEMORY, RUN="missing.toml")
    jobs.wait_for(job, "FAILED")
    assert jobs.described(job, "ExitCode") == "2:0"


def test_alarms_between_nodes_arrive(jobs):
    """With Iprobe and Recv MPICH 5.0.2 hung within some hundred of them (UCX, between nodes).

    Started through UCX, many such jobs failed (config.choose_netmod).
    """
    script = Path(__file__).with_name("alarms.py")
    step = ("srun", "-N2", "-n2", "--mpi=pmi2", "--time=4", sys.executable, script)
    assert jobs.run(*step) == "all heard, through ofi"


def test_a_job_that_is_signalled_twice_goes_on_in_the_queue(long_jobs, tmp_path):
    """As before its time limit; with snapshots on the node's own disk."""
    jobs = long_jobs
    local = {"DISK": "1GB", "SLURM_TMPDIR": str(tmp_path / "node")}
    (tmp_path / "node").mkdir()
    job = jobs.submit("invert.sbatch", "--ntasks=2", MEMORY, **local)
    for restarts, evaluation in enumerate(("evaluation   3/", "evaluation   8/")):
        jobs.wait_for_log(job, evaluation)
        assert jobs.described(job, "Restarts") == str(restarts)
        jobs.signal(job)
        jobs.wait_until(lambda n=restarts + 1: jobs.described(job, "Restarts") == str(n))
    jobs.wait_for(job)
    assert jobs.described(job, "Restarts") == "2"
    assert jobs.log(job).count("the same command goes on from own_problem.h5.resume") == 2
    assert len(re.findall(r"resuming: \d+ of 16 evaluations recorded", jobs.log(job))) == 2
    assert not list(jobs.folder.glob("*.resume"))
    assert not list((tmp_path / "node").iterdir()), "nothing is left on the node's disk"
    assert_equal(jobs.folder, FOUND, "alone.h5", "own_problem.h5")
    with h5py.File(jobs.folder / "own_problem.h5") as file:
        assert file.attrs["status"] == "finished"


def test_a_job_on_two_nodes_is_signalled_and_survives_the_failure_of_one(long_jobs):
    jobs = long_jobs
    job = jobs.submit("invert-nodes.sbatch", "--ntasks-per-node=1", MEMORY)
    jobs.wait_for_log(job, "evaluation   3/")
    jobs.signal(job)
    jobs.wait_until(lambda: jobs.described(job, "Restarts") == "1")
    jobs.wait_for_log(job, "evaluation   8/")
    jobs.crash("n2")
    jobs.wait_until(lambda: jobs.described(job, "Restarts") == "2")
    jobs.boot("n2")
    jobs.wait_for(job)
    assert jobs.described(job, "NumNodes") == "2"
    assert len(re.findall(r"resuming: \d+ of 16 evaluations recorded", jobs.log(job))) == 2
    assert "NODE FAILURE" in jobs.log(job)
    assert not list(jobs.folder.glob("*.resume"))
    assert_equal(jobs.folder, FOUND, "alone.h5", "own_problem.h5")
    with h5py.File(jobs.folder / "own_problem.h5") as file:
        assert file.attrs["ranks"] == 2


def test_a_cancelled_job_goes_on_when_it_is_submitted_again(long_jobs):
    jobs = long_jobs
    job = jobs.submit("invert.sbatch", "--ntasks=2", MEMORY)
    jobs.wait_for_log(job, "evaluation   3/")
    jobs.run("scancel", job)
    jobs.wait_for(job, "CANCELLED")
    assert "the same command goes on from own_problem.h5.resume" in jobs.log(job)
    again = jobs.submit("invert.sbatch", "--ntasks=1", MEMORY)
    jobs.wait_for(again)
    assert "resuming: " in jobs.log(again)
    assert_equal(jobs.folder, FOUND, "alone.h5", "own_problem.h5")
