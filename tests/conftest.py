"""Fixtures shared by all tests.

Compiled code goes to one folder for the whole session, which xdist's workers share: a step
that several tests use is compiled once. Set BACKSWEEP_CACHE_DIR to keep it between sessions.
"""

from __future__ import annotations

import gc
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import hypothesis
import pytest

# A collection in a process that has compiled much takes as long as this check allows.
hypothesis.settings.register_profile(
    "backsweep", suppress_health_check=[hypothesis.HealthCheck.too_slow]
)
hypothesis.settings.load_profile("backsweep")

GOLDEN = Path(__file__).parent / "golden"


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--rewrite-golden", action="store_true", help="rewrite tests/golden")
    parser.addoption("--all", action="store_true", help="run the tests marked slow_all as well")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out what takes minutes, unless asked for by --all or a -m of the caller."""
    marks = {"slow_all", "faults"} - {
        m for m in ("slow_all", "faults") if m in config.getoption("-m")
    }
    if config.getoption("--all"):
        marks.discard("slow_all")
    left_out = [item for item in items if any(map(item.get_closest_marker, marks))]
    config.hook.pytest_deselected(items=left_out)
    items[:] = [item for item in items if item not in set(left_out)]


def pytest_configure(config: pytest.Config) -> None:
    """Before xdist starts its workers, which inherit the environment."""
    if "BACKSWEEP_CACHE_DIR" not in os.environ:
        folder = tempfile.mkdtemp(prefix="backsweep-tests-")
        os.environ["BACKSWEEP_CACHE_DIR"] = folder
        config.add_cleanup(lambda: shutil.rmtree(folder, ignore_errors=True))


@pytest.fixture(scope="module", autouse=True)
def compiled_code_is_not_garbage() -> Iterator[None]:
    """What Numba has compiled stays; without this each collection looks at gigabytes of it."""
    yield
    gc.collect()
    gc.freeze()


@pytest.fixture
def golden(request: pytest.FixtureRequest) -> Callable[[str, str], None]:
    """Compare a text with a file in tests/golden, or rewrite that file."""

    def compare(name: str, text: str) -> None:
        path = GOLDEN / name
        if request.config.getoption("--rewrite-golden"):
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
            return
        assert path.exists(), f"{path} does not exist: run `make golden` and read the diff"
        assert text == path.read_text(encoding="utf-8"), "`make golden` rewrites; read the diff"

    return compare


@dataclass(frozen=True)
class Finished:
    """What a program printed and how it ended."""

    code: int
    out: str
    err: str


@pytest.fixture
def run_program(tmp_path: Path) -> Callable[..., Finished]:
    """Run `python ARGS` in a folder of its own, on MPI ranks if asked for.

    Where MPI should be there and is not, that is a failure, not a skip.
    """

    def run(*args: object, ranks: int = 0, timeout: float = 120, **environment: str) -> Finished:
        command = [sys.executable, *map(str, args)]
        if ranks:
            beside = Path(sys.executable).with_name("mpiexec")
            mpiexec = str(beside) if beside.exists() else shutil.which("mpiexec")
            assert mpiexec, "there is no mpiexec: pip install 'backsweep[mpich]'"
            command = [mpiexec, "-n", str(ranks), *command]
        source = str(Path(__file__).parent.parent / "src")
        done = subprocess.run(
            command,
            cwd=tmp_path,
            env=os.environ | {"PYTHONPATH": source} | environment,
            capture_output=True,
            text=True,
            timeout=timeout,
            stdin=subprocess.DEVNULL,
        )
        return Finished(done.returncode, done.stdout, done.stderr)

    return run


@pytest.fixture
def ends_all_ranks(run_program: Callable[..., Finished]) -> Callable[..., None]:
    """Run a job that cannot go on: it ends within seconds, and says why.

    In jobs whose name has "one_raises" in it one rank alone fails.
    """

    def check(script: Path, job: str, ranks: int, says: str, *, is_compiled: bool = False) -> None:
        begin, no_jit = time.monotonic(), "0" if is_compiled else "1"
        done = run_program(script, job, ranks=ranks, timeout=60, BACKSWEEP_NO_JIT=no_jit)
        assert done.code == 1
        assert says in done.err, done.err + done.out
        # Where one rank ends the job, the launcher's line about it may be lost.
        assert "one_raises" in job or "MPI_Abort" not in done.err, "all ranks end of themselves"
        assert time.monotonic() - begin < 40

    return check


@pytest.fixture
def is_right(run_program: Callable[..., Finished]) -> Callable[..., None]:
    """Run jobs of a script on ranks, of which the root says "right" and their number."""

    def check(
        script: Path, ranks: int, *jobs: object, timeout: float = 600, is_compiled: bool = False
    ) -> None:
        no_jit = "0" if is_compiled else "1"
        done = run_program(script, *jobs, ranks=ranks, timeout=timeout, BACKSWEEP_NO_JIT=no_jit)
        assert (done.code, done.out.strip()) == (0, f"right {ranks}"), done.out + done.err

    return check
