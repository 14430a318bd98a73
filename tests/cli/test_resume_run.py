"""`backsweep invert` after kills and signals: the same command goes on, to the same bits."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import h5py
import numpy as np
import pytest
from marks import more

ROOT = Path(__file__).parent.parent.parent
RUN = """
model = "own_problem:Rates"
[problem]
months = 40000
dt = 7.5e-4
[parameters.rates]
bounds = [0.001, 2.0]
scale = 0.1
[optimiser]
evaluations = 12
tolerance = 0.0
[checkpointing]
snapshots = 40
[output]
result = "found.h5"
"""
GRACE = 10.0


class Job:
    """One process, or some ranks, that run `backsweep invert run.toml`."""

    def __init__(self, folder, *args, ranks=0, **environment):
        command = [sys.executable, "-m", "backsweep", "invert", "run.toml", *args]
        if ranks:
            command = [str(Path(sys.executable).with_name("mpiexec")), "-n", str(ranks), *command]
        self.process = subprocess.Popen(
            command,
            cwd=folder,
            env=os.environ | {"PYTHONPATH": str(ROOT / "src")} | environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self.seen = ""

    def wait_for(self, pattern):
        for line in self.process.stdout:
            self.seen += line
            if re.search(pattern, line):
                return
        raise AssertionError(self.seen + self.process.stderr.read())

    def end(self):
        """Exit code, and what was printed."""
        try:
            out, err = self.process.communicate(timeout=120)
        finally:
            self.process.kill()
        return self.process.returncode, self.seen + out, err

    def rank_processes(self):
        """Process ids of the ranks below mpiexec, by rank."""
        found = {}
        for entry in Path("/proc").glob("[0-9]*"):
            with suppress(OSError):
                variables = (entry / "environ").read_bytes().split(b"\0")
                rank = next((v[9:] for v in variables if v.startswith(b"PMI_RANK=")), None)
                if rank and self.process.pid in _ancestors(int(entry.name)):
                    found[int(rank)] = int(entry.name)
        return found


def _ancestors(pid):
    while pid > 1:
        pid = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
        yield pid


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "own_problem.py").write_text((ROOT / "examples" / "own_problem.py").read_text())
    (tmp_path / "run.toml").write_text(RUN)
    return tmp_path


@pytest.fixture(scope="module")
def expected(tmp_path_factory):
    """The content of the result of a run that nothing has stopped."""
    own = tmp_path_factory.mktemp("whole")
    (own / "own_problem.py").write_text((ROOT / "examples" / "own_problem.py").read_text())
    (own / "run.toml").write_text(RUN)
    code, out, err = Job(own).end()
    assert code == 0, (out, err)
    assert sorted(p.name for p in own.iterdir() if p.name != "__pycache__") == [
        "found.h5",
        "own_problem.py",
        "run.toml",
    ]
    return content(own)


def content(folder):
    """Everything but times, memory, and the steps that stopped sweeps took twice."""
    left_out = ("seconds", "peak_bytes", "advances", "reverse_steps")
    with h5py.File(folder / "found.h5") as file:
        values = {name: file[name][()].tobytes() for name in file if name not in left_out}
        names = ("status", "reason", "value_fingerprint", "gradient_fingerprint", "schedule")
        return values, {name: file.attrs[name] for name in names}


def finish(folder, *args, ranks=0):
    """Run to the end; what was said."""
    code, out, err = Job(folder, *args, ranks=ranks).end()
    assert code == 0, (out, err)
    assert not list(folder.glob("*.resume")), "nothing is left behind"
    return out


@pytest.mark.parametrize(("ranks", "then"), [more(0, 0), more(2, 2), (2, 0), (0, 3)])
def test_killed_then_on_any_number_of_ranks(folder, expected, ranks, then):
    job = Job(folder, ranks=ranks)
    job.wait_for("evaluation   4/")
    processes = job.rank_processes().values() if ranks else [job.process.pid]
    for pid in processes:
        os.kill(pid, signal.SIGKILL)
    assert job.end()[0] != 0
    wait_until_gone(processes)
    out = finish(folder, ranks=then)
    assert re.search(r"resuming: \d+ of 12 evaluations recorded", out), out
    assert content(folder) == expected


@pytest.mark.slow
def test_one_rank_of_four_is_killed(folder, tmp_path_factory):
    text = (folder / "own_problem.py").read_text()
    text = text.replace("(15.0, 2.0)]", "(15.0, 2.0), (7.0, 6.0)]")
    (folder / "own_problem.py").write_text(text)
    whole = tmp_path_factory.mktemp("four") / "islands"
    shutil.copytree(folder, whole)
    finish(whole)
    for rank, evaluation in ((3, 3), (0, 6)):
        job = Job(folder, ranks=4)
        job.wait_for(f"evaluation {evaluation:3}/")
        processes = job.rank_processes()
        assert len(processes) == 4
        begin = time.monotonic()
        os.kill(processes[rank], signal.SIGKILL)
        code = job.end()[0]
        assert time.monotonic() - begin < GRACE, "nobody waits for a rank that is gone"
        assert code != 0
        wait_until_gone(processes.values())
    assert re.search(r"resuming: \d+ of 12 evaluations recorded", finish(folder, ranks=4))
    assert content(folder) == content(whole)


def wait_until_gone(pids):
    end = time.monotonic() + 10
    while any(Path(f"/proc/{pid}").exists() for pid in pids) and time.monotonic() < end:
        time.sleep(0.05)


@pytest.mark.parametrize(
    "fault",
    [
        more("record.before-write:2"),
        "record.during-write:1",
        more("record.before-rename:2"),
        more("record.after-rename:2"),
        more("manifest.before-rename:1"),
        "result.before-rename:2",
        more("delete.before:1"),
        "delete.after:2",
    ],
)
def test_killed_while_something_is_written_or_removed(folder, expected, fault):
    job = Job(folder, BACKSWEEP_FAULT=f"{fault}:kill")
    assert job.end()[0] == -signal.SIGKILL
    # At the very end the result is there, and what is left belongs to it.
    finish(folder, *(("--overwrite",) if fault.startswith("delete") else ()))
    assert content(folder) == expected


@pytest.mark.parametrize(
    ("number", "ranks", "to"),
    [
        (signal.SIGUSR1, 0, "launcher"),
        more(signal.SIGTERM, 0, "launcher"),
        more(signal.SIGUSR1, 3, "launcher"),
        # Hydra, the launcher of MPICH, hands SIGTERM on too.
        (signal.SIGTERM, 3, "launcher"),
        more(signal.SIGUSR1, 3, 0),
        (signal.SIGUSR1, 3, 2),
        more(signal.SIGTERM, 3, 1),
    ],
)
def test_a_signal_ends_all_ranks_with_85(folder, expected, number, ranks, to):
    job = Job(folder, ranks=ranks)
    job.wait_for("evaluation   3/")
    pid = job.process.pid if to == "launcher" else job.rank_processes()[to]
    begin = time.monotonic()
    os.kill(pid, number)
    code, out, err = job.end()
    assert time.monotonic() - begin < GRACE
    assert code == 85, (out, err)
    assert "stopped after" in out
    assert out.strip().endswith("the same command goes on from found.h5.resume")
    assert not err
    with h5py.File(folder / "found.h5") as file:
        assert file.attrs["status"] == "stopped"
    assert "resuming: " in finish(folder, ranks=2 if ranks else 0)
    assert content(folder) == expected


def test_ctrl_c_can_be_resumed_too(folder, expected):
    job = Job(folder)
    job.wait_for("evaluation   3/")
    job.process.send_signal(signal.SIGINT)
    code, out, _ = job.end()
    assert code == 130
    assert "interrupted after" in out
    assert "resuming: " in finish(folder)
    assert content(folder) == expected


def stop_early(folder, *args):
    job = Job(folder, *args)
    job.wait_for("evaluation   2/")
    job.process.send_signal(signal.SIGUSR1)
    assert job.end()[0] == 85


def test_a_changed_run_is_refused_and_fresh_starts_over(folder):
    stop_early(folder)
    code, _, err = Job(folder, "--set", "problem.dt=2e-4").end()
    assert code == 2
    assert "'problem.dt' was '0.00075', is '0.0002'" in err
    assert "--fresh" in err
    code, _, err = Job(folder, "--set", "optimiser.evaluations=3", ranks=2).end()
    assert code == 2
    assert err.count("'stages.0.evaluations' was '12', is '3'") == 1
    with open(folder / "own_problem.py", "a") as file:
        file.write("# changed\n")
    code, _, err = Job(folder).end()
    assert code == 2
    assert "'module of the problem' was" in err
    # Neither the budget nor what is printed is part of it.
    args = ("--set", "optimiser.evaluations=3")
    assert "resuming" not in finish(folder, "--fresh", *args)
    # What is finished is protected as before.
    code, _, err = Job(folder, *args).end()
    assert code == 2
    assert "found.h5 is in the way" in err


def test_other_budgets_go_on(folder, expected):
    stop_early(folder)
    (folder / "snapshots").mkdir()
    changes = ("snapshots=7", "disk=1 GB", "scratch=snapshots", "interval=5.0")
    args = [arg for change in changes for arg in ("--set", f"checkpointing.{change}")]
    finish(folder, *args)
    found = content(folder)
    assert found[0].pop("snapshot_bytes") != expected[0]["snapshot_bytes"]
    assert all(expected[0][name] == value for name, value in found[0].items())
    assert not list((folder / "snapshots").iterdir())


def test_a_second_process_is_refused(folder, expected):
    job = Job(folder)
    job.wait_for("evaluation   1/")
    job.process.send_signal(signal.SIGSTOP)
    code, _, err = Job(folder).end()
    job.process.send_signal(signal.SIGCONT)
    assert code == 2
    assert f"is in use by process {job.process.pid} on" in err
    assert job.end()[0] == 0
    assert content(folder) == expected


def test_a_directory_of_the_users(folder, expected):
    directory = ("--set", "checkpointing.directory=kept")
    stop_early(folder, *directory)
    assert (folder / "kept" / "found.h5.resume" / "manifest.json").exists()
    assert "resuming: " in finish(folder, *directory)
    assert not list((folder / "kept").iterdir())
    assert content(folder) == expected


def test_a_signal_before_anything_has_begun(folder):
    job = Job(folder)
    while b"backsweep" not in Path(f"/proc/{job.process.pid}/cmdline").read_bytes():
        time.sleep(0.01)
    deadline = time.monotonic() + 10
    usr1 = 1 << (signal.SIGUSR1 - 1)
    while time.monotonic() < deadline:  # Until Python has its handler.
        status = Path(f"/proc/{job.process.pid}/status").read_text()
        if int(re.search(r"SigCgt:\s*(\w+)", status)[1], 16) & usr1:
            break
        time.sleep(0.01)
    job.process.send_signal(signal.SIGUSR1)
    code, _, err = job.end()
    assert code == 85, err


def test_bits_are_finite(expected):
    """The run that all others are compared with finds something."""
    assert np.all(np.isfinite(np.frombuffer(expected[0]["misfit"])))
