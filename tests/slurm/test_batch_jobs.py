"""slurm/invert.sbatch under a real SLURM on this machine, started for the test and stopped.

`.ci/run` installs SLURM and sets BACKSWEEP_TEST_SLURM, which turns the skip into a failure.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import h5py
import numpy as np
import pytest

ROOT = Path(__file__).parent.parent.parent
ONE_NODE = ROOT / ".ci" / "slurm-one-node.sh"
IS_NEEDED = os.environ.get("BACKSWEEP_TEST_SLURM", "0") not in ("", "0")

pytestmark = pytest.mark.skipif(
    not IS_NEEDED and (shutil.which("slurmctld") is None or os.getuid() != 0),
    reason="no SLURM that this user may start; as root: .ci/slurm-one-node.sh install",
)


@pytest.fixture
def cluster(tmp_path):
    """Environment of commands on a cluster of one node."""
    # The path of a socket has at most 108 characters.
    home = {"SLURM_HOME": tempfile.mkdtemp(prefix="slurm-")}
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("SLURM", "PMI"))} | home
    one_node = ["bash", str(ONE_NODE)]
    try:
        # Its daemons must not hold the pipe of a captured output.
        with (tmp_path / "start.log").open("w") as log:
            subprocess.run(
                [*one_node, "start"], env=environment, stdout=log, stderr=log, check=True
            )
        yield environment | {"SLURM_CONF": f"{home['SLURM_HOME']}/slurm.conf"}
    finally:
        subprocess.run([*one_node, "stop"], env=environment, capture_output=True)
        shutil.rmtree(home["SLURM_HOME"], ignore_errors=True)


@pytest.fixture
def folder(tmp_path):
    """With the example of an own problem."""
    folder = tmp_path / "job"
    folder.mkdir()
    for name in ("own_problem.py", "own_problem.toml"):
        shutil.copy(ROOT / "examples" / name, folder)
    return folder


@pytest.fixture
def environment(cluster):
    """Of the batch script, with the run file that it runs."""
    return cluster | {
        "VENV": sys.prefix,
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "PYTHONPATH": str(ROOT / "src"),
        "RUN": "own_problem.toml",
    }


@pytest.fixture
def run(folder, environment):
    """Run a command in the folder."""

    def run(*command: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            command, cwd=folder, env=environment, capture_output=True, text=True, timeout=180
        )

    return run


SCRIPT = str(ROOT / "slurm" / "invert.sbatch")


def test_a_job_and_a_wrong_launcher(run, folder, environment):
    done = run("sbatch", "--wait", "--ntasks=2", "--mem=2G", SCRIPT)
    log = "".join(path.read_text() for path in folder.glob("backsweep-*.out"))
    assert done.returncode == 0, (done, log)
    assert "2 rank(s), 1 thread(s) each" in log
    assert "schedule" in log.split("evaluation   1/")[0]  # the plan comes first

    alone = run(
        sys.executable,
        "-m",
        "backsweep",
        "invert",
        "own_problem.toml",
        "--set",
        "output.result=a.h5",
    )
    assert alone.returncode == 0, alone.stderr
    with h5py.File(folder / "own_problem.h5") as job, h5py.File(folder / "a.h5") as one:
        for name in ("rates", "misfit", "rates_gradient"):
            assert np.array_equal(job[name][()], one[name][()]), name
        assert job.attrs["ranks"] == 2

    wrong = run(
        "srun",
        "-n",
        "2",
        "--mpi=none",
        sys.executable,
        "-m",
        "backsweep",
        "plan",
        "own_problem.toml",
    )
    assert wrong.returncode == 2
    assert "the launcher started 2 processes, but MPI sees 1" in wrong.stderr

    environment["RUN"] = "missing.toml"
    failed = run("sbatch", "--wait", "--ntasks=2", "--mem=2G", SCRIPT)
    assert failed.returncode == 2


def test_a_job_that_is_signalled_goes_on_in_the_queue(run, folder, environment):
    """As before its time limit; the result is that of a run that nothing stopped."""
    text = (folder / "own_problem.toml").read_text()
    text = text.replace("months = 600", "months = 100000\ndt = 3e-4")
    text = text.replace("evaluations = 40", "evaluations = 40\ntolerance = 0.0")
    (folder / "own_problem.toml").write_text(text)
    job = run("sbatch", "--parsable", "--ntasks=2", "--mem=2G", SCRIPT).stdout.strip()
    log = folder / f"backsweep-{job}.out"
    wait_until(lambda: log.exists() and "evaluation   3/" in log.read_text(), log)
    signalled = run("scancel", "--signal=USR1", "--batch", job)
    assert signalled.returncode == 0, signalled.stderr
    wait_until(lambda: "JobState=COMPLETED" in run("scontrol", "show", "job", job).stdout, log)
    said = log.read_text()
    assert "Restarts=1" in run("scontrol", "show", "job", job).stdout
    assert "the same command goes on from own_problem.h5.resume" in said
    assert "of 40 evaluations recorded" in said.split("the same command goes on")[1]
    assert not list(folder.glob("*.resume"))

    alone = [sys.executable, "-m", "backsweep", "invert", "own_problem.toml"]
    assert run(*alone, "--set", "output.result=a.h5").returncode == 0
    with h5py.File(folder / "own_problem.h5") as found, h5py.File(folder / "a.h5") as one:
        assert found.attrs["status"] == "finished"
        for name in ("rates", "rates_best", "misfit", "objective", "rates_gradient"):
            assert np.array_equal(found[name][()], one[name][()]), name


def wait_until(is_so, log, seconds=120):
    end = time.monotonic() + seconds
    while not is_so():
        assert time.monotonic() < end, log.read_text() if log.exists() else "no log"
        time.sleep(0.2)
