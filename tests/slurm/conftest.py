"""A real SLURM on this machine, started for the tests and stopped: two nodes of two cores."""

from __future__ import annotations

import os
import random
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent
ONE_NODE = ROOT / ".ci" / "slurm-one-node.sh"
SCRIPTS = ROOT / "slurm"
IS_NEEDED = os.environ.get("BACKSWEEP_TEST_SLURM", "0") not in ("", "0")
WITHOUT = "no SLURM that this user may start; as root: .ci/slurm-one-node.sh install"
SECONDS = 240


@pytest.fixture(scope="session")
def cluster(tmp_path_factory):
    """Environment of commands on the cluster; one for each worker of xdist."""
    if not IS_NEEDED and (shutil.which("slurmctld") is None or os.getuid() != 0):
        pytest.skip(WITHOUT)
    # The path of a socket has at most 108 characters.
    home = tempfile.mkdtemp(prefix="slurm-")
    own = {"SLURM_HOME": home, "SLURM_NODES": "2", "SLURM_NODE_TIMEOUT": "6"}
    own |= {"SLURM_CPUS": "2", "SLURM_PORT": str(_free_ports(4))}
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("SLURM", "PMI"))}
    one_node = ["bash", str(ONE_NODE)]
    try:
        # Its daemons must not hold the pipe of a captured output.
        with (tmp_path_factory.mktemp("slurm") / "start.log").open("w+") as log:
            started = subprocess.run(
                [*one_node, "start"], env=environment | own, stdout=log, stderr=log
            )
            log.seek(0)
            assert started.returncode == 0, log.read()
        yield environment | {"SLURM_CONF": f"{home}/slurm.conf"}
    finally:
        subprocess.run([*one_node, "stop"], env=environment | own, capture_output=True)
        shutil.rmtree(home, ignore_errors=True)


def _free_ports(n):
    """The first of n ports that are free now."""
    for first in random.SystemRandom().sample(range(20000, 30000, n), 50):
        with suppress(OSError):
            for port in range(first, first + n):
                with socket.socket() as probe:
                    probe.bind(("127.0.0.1", port))
            return first
    raise AssertionError("no free ports")


@dataclass(frozen=True)
class Cluster:
    """Commands and jobs in a folder."""

    folder: Path
    environment: dict[str, str]

    def run(self, *command, code=0, **environment):
        """Run a command; what it printed."""
        done = subprocess.run(
            [str(part) for part in command],
            cwd=self.folder,
            env=self.environment | environment,
            capture_output=True,
            text=True,
            timeout=SECONDS,
        )
        assert done.returncode == code, (done, self.logs())
        return done.stderr if code else done.stdout.strip()

    def backsweep(self, *arguments, **options):
        return self.run(sys.executable, "-m", "backsweep", *arguments, **options)

    def submit(self, script, *options, **environment):
        """Number of a new job."""
        return self.run("sbatch", "--parsable", *options, SCRIPTS / script, **environment)

    def signal(self, job):
        """What SLURM does before the time limit."""
        self.run("scancel", "--signal=USR1", "--batch", job)

    def described(self, job, name):
        """What SLURM says of a job, such as its JobState."""
        text = self.run("scontrol", "show", "job", job)
        return re.findall(rf"\b{name}=(\S*)", text)[-1]

    def log(self, job):
        return "".join(path.read_text() for path in self.folder.glob(f"*-{job}.out"))

    def logs(self):
        return {path.name: path.read_text() for path in self.folder.glob("*.out")}

    def wait_until(self, is_so):
        end = time.monotonic() + SECONDS
        while not is_so():
            assert time.monotonic() < end, self.logs()
            time.sleep(0.2)

    def wait_for_log(self, job, text):
        """Wait until a job has said something since it was started last."""
        n_resumed = int(self.described(job, "Restarts"))

        def is_said():
            said = self.log(job)
            state = self.described(job, "JobState")
            assert state in ("PENDING", "RUNNING", "COMPLETING"), (state, said)
            parts = said.split("resuming: ")
            return len(parts) > n_resumed and text in parts[n_resumed]

        self.wait_until(is_said)

    def wait_for(self, job, state="COMPLETED"):
        def is_over():
            now = self.described(job, "JobState")
            assert now in (state, "PENDING", "RUNNING", "COMPLETING"), (now, self.logs())
            return now == state

        self.wait_until(is_over)

    def crash(self, node):
        """Let a node lose all of its processes at once."""
        conf = self.environment["SLURM_CONF"]
        slurmd = int((Path(conf).parent / f"slurmd-{node}.pid").read_text())
        ours = {f"SLURM_CONF={conf}", f"SLURMD_NODENAME={node}"}
        tasks = [pid for pid in _pids() if ours <= set(_texts(pid, "environ"))]
        parents = {_parent(pid) for pid in tasks}
        daemons = [pid for pid in parents if _texts(pid, "cmdline")[0].startswith("slurmstepd")]
        for pid in (slurmd, *daemons, *tasks):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    def boot(self, node):
        """Start the daemon of a node again."""
        self.run("slurmd", "-N", node, "-f", self.environment["SLURM_CONF"])


def _pids():
    return [int(entry.name) for entry in Path("/proc").glob("[0-9]*")]


def _texts(pid, name):
    with suppress(OSError):
        return (Path("/proc") / str(pid) / name).read_bytes().decode("latin1").split("\0")
    return [""]


def _parent(pid):
    with suppress(OSError):
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    return 0


@pytest.fixture
def jobs(cluster, tmp_path):
    """The cluster, in a folder with the examples of an own problem."""
    folder = tmp_path / "job"
    folder.mkdir()
    for name in ("own_problem.py", "own_problem.toml"):
        shutil.copy(ROOT / "examples" / name, folder)
    return Cluster(
        folder,
        cluster
        | {
            "VENV": sys.prefix,
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            "PYTHONPATH": str(ROOT / "src"),
            "RUN": "own_problem.toml",
            "SCRIPTS": str(SCRIPTS),
        },
    )
