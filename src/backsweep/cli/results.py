"""Saving a run's result: often enough to lose little, seldom enough to cost little."""

from __future__ import annotations

import platform
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any, final

import numpy as np

from backsweep.cli.job import Job
from backsweep.errors import ResultError
from backsweep.inverse.history import History
from backsweep.storage.results import Variable, write_result
from backsweep.version import __version__

#: Part of the time that saving may take.
SHARE = 0.1

_LIBRARIES = ("numpy", "numba", "scipy", "h5py", "mpi4py")


def run_attributes(job: Job) -> dict[str, Any]:
    """By what a result was made."""
    found: dict[str, Any] = {
        "title": job.run.title,
        "model": job.run.model,
        "run_file": job.text,
        "ranks": job.comm.size,
    }
    return found | origin()


def origin() -> dict[str, Any]:
    """When, where and with which libraries a result was made."""
    found = {
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "host": platform.node(),
        "version_backsweep": __version__,
    }
    return found | {f"version_{name}": version(name) for name in _LIBRARIES}


def check_target(path: Path, overwrite: bool) -> None:
    """Refuse before any work is done what could not be written at its end.

    Raises
    ------
    ResultError
    """
    try:
        if path.is_dir():
            raise ResultError(f"the result {str(path)!r} is a folder; name a file in it")
        if path.exists() and not overwrite:
            raise ResultError(
                f"the result file {path} is in the way; add --overwrite, or name another one"
            )
        check_folder(path, "result")
    except OSError as error:
        if isinstance(error, ResultError):
            raise
        raise ResultError(f"the result {path} cannot be written: {error.strerror}") from error


def check_folder(path: Path, what: str) -> None:
    """Refuse a file in a folder that is not there or cannot be written to.

    Raises
    ------
    ResultError
    """
    if not path.parent.is_dir():
        raise ResultError(f"the folder {path.parent} of the {what} does not exist; make it first")
    probe = path.with_name(f".{path.name}.probe")
    try:
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise ResultError(
            f"the {what} {path} cannot be written to the folder {path.parent.resolve()}: "
            f"{error.strerror}"
        ) from error


@final
class Saver:
    """Writes an inversion's history.

    Parameters
    ----------
    path : Path
    attributes : mapping
    warn : callable
        Told if a save fails while the run goes on.
    """

    def __init__(self, path: Path, attributes: Mapping[str, Any], warn: Any) -> None:
        self.path = path
        self.attributes = dict(attributes)
        self.warn = warn
        self._ended = time.perf_counter()
        self._took = 0.0

    def save_now_and_then(self, history: History) -> None:
        """Save unless saving would take more than its share of the time."""
        if time.perf_counter() - self._ended < self._took / SHARE:
            return
        try:
            self.save(history)
        except ResultError as error:
            self.warn(f"{error}; the run goes on")
            self._ended = time.perf_counter()

    def save(self, history: History) -> None:
        """Save.

        Raises
        ------
        ResultError
            The file that was there before stays.
        """
        begin = time.perf_counter()
        attributes = self.attributes | history.attributes()
        try:
            write_result(self.path, history.variables(), attributes)
        except ResultError as error:
            stays = "; the last good one stays" if self.path.exists() else ""
            raise ResultError(f"{error}{stays}") from error
        self._ended = time.perf_counter()
        self._took = self._ended - begin


def data_variables(job: Job, data: list[np.ndarray]) -> dict[str, Variable]:
    """Simulated data of all items."""
    problem, stack = job.problem, np.stack(data)
    default = tuple(f"data_{k}" for k in range(stack.ndim - 1))
    dims = ("item", *getattr(problem, "data_dims", default))
    coords = {k: v for k, v in job.described.coordinates().items() if k in dims}
    return coords | {"data": Variable(stack, dims, getattr(problem, "data_unit", ""))}
