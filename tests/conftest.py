"""Fixtures shared by all tests.

Compiled code goes to one folder for the whole session, which xdist's workers share: a step
that several tests use is compiled once. Set BACKSWEEP_CACHE_DIR to keep it between sessions.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest

GOLDEN = Path(__file__).parent / "golden"


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--rewrite-golden", action="store_true", help="rewrite tests/golden")


def pytest_configure(config: pytest.Config) -> None:
    """Before xdist starts its workers, which inherit the environment."""
    if "BACKSWEEP_CACHE_DIR" not in os.environ:
        folder = tempfile.mkdtemp(prefix="backsweep-tests-")
        os.environ["BACKSWEEP_CACHE_DIR"] = folder
        config.add_cleanup(lambda: shutil.rmtree(folder, ignore_errors=True))


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
