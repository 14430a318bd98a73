"""Runs of the command line within the test's process, where starting Python is not the point."""

from __future__ import annotations

import fcntl
import os
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
from acoustic_files import write_run

from backsweep.cli import main
from backsweep.cli.runfile import load, make_problem
from backsweep.inverse.invert import invert


@pytest.fixture(scope="session")
def compiled(tmp_path_factory):
    """The tiny run is in the cache: xdist's workers do not compile it at the same time."""
    folder = tmp_path_factory.mktemp("compiled")
    write_run(folder)
    with open(Path(os.environ["BACKSWEEP_CACHE_DIR"]) / "tiny.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        run, _, folders = load(folder / "run.toml", ["optimiser.evaluations=1"])
        invert(make_problem(run, folders), run.inversion())


@dataclass(frozen=True)
class Ended:
    """What a command printed and its exit code."""

    code: int
    out: str
    err: str


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """An empty current folder with a tiny acoustic run; what tests import stays in it."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    write_run(tmp_path)
    return tmp_path


@pytest.fixture
def interpreted(monkeypatch):
    """No compiler: where a sweep of its own would be compiled for a few steps only."""
    monkeypatch.setenv("BACKSWEEP_NO_JIT", "1")


@pytest.fixture
def command(capfd):
    """Run `backsweep ARGS` in the current folder."""

    def run(*args: object) -> Ended:
        capfd.readouterr()
        try:
            main.app([str(arg) for arg in args])
            code = 0
        except SystemExit as end:
            code = int(end.code or 0)
        return Ended(code, *capfd.readouterr())

    return run


@pytest.fixture
def refuse(command):
    """Run what must be refused with one sentence, and leave nothing behind; that sentence."""

    def run(*args: object) -> str:
        before = _files()
        ended = command(*args)
        assert ended.code == 2, (ended.out, ended.err)
        (line,) = ended.err.strip().splitlines()
        assert line.startswith("backsweep: ")
        assert _files() == before, "something was written or changed"
        return line.removeprefix("backsweep: ")

    return run


def _files():
    paths = [p for p in Path().rglob("*") if p.is_file() and "__pycache__" not in p.parts]
    return {path: path.read_bytes() for path in paths}


@pytest.fixture
def changes():
    """Arguments `--set CHANGE` for some changes."""
    return lambda *texts: [arg for text in texts for arg in ("--set", text)]
