"""A run file on the ranks of a job: what all commands begin with."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from backsweep.cli import interrupt
from backsweep.cli.runfile import RunFile, load, make_problem
from backsweep.comm import AbstractComm, agreement, connect
from backsweep.inverse.problem import Described
from backsweep.runtime.checkpointing import Checkpointing


@dataclass(frozen=True)
class Job:
    """A run, ready to begin.

    Attributes
    ----------
    run : RunFile
    text : str
        The run file as it was read.
    folders : tuple of Path
        Where files are looked for.
    described : Described
    comm : AbstractComm
    """

    run: RunFile
    text: str
    folders: tuple[Path, ...]
    described: Described
    comm: AbstractComm
    memory: int | None = None
    """The smallest budget of all ranks [bytes], where the run file names none."""

    @property
    def checkpointing(self) -> Checkpointing:
        return self.within(self.run.checkpointing.request())

    def within(self, request: Checkpointing) -> Checkpointing:
        """A request with the budget that all ranks can keep."""
        return request if self.memory is None else replace(request, memory=self.memory)

    @property
    def problem(self) -> Any:
        return self.described.problem


def open_job(
    path: Path,
    changes: Sequence[str],
    on_connected: Callable[[AbstractComm], object] = lambda comm: None,
) -> Job:
    """Read a run file and make its problem. Collective: every rank must call."""
    comm = connect()
    interrupt.handle_signals(comm.is_root)
    on_connected(comm)
    with agreement(comm):
        run, text, folders = load(path, changes)
        described = Described(make_problem(run, folders))
    memory = None
    if comm.size > 1 and run.checkpointing.memory is None:
        memory = min(comm.allgather(run.checkpointing.request().memory_budget()))
    return Job(run, text, folders, described, comm, memory)
