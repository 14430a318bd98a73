"""One rank decides, all ranks work."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Any, Self, final

from backsweep.comm.base import AbstractComm


@final
class Team:
    """Tasks that the root calls by name and all ranks run together.

    Parameters
    ----------
    comm : AbstractComm
    tasks : mapping of str to callable
        The same on every rank; they may communicate.

    Examples
    --------
    >>> with Team(comm, {"evaluate": evaluate}) as team:
    ...     if comm.is_root:
    ...         team("evaluate", model)
    """

    def __init__(self, comm: AbstractComm, tasks: Mapping[str, Callable[..., Any]]) -> None:
        self.comm = comm
        self.tasks = tasks

    def __call__(self, name: str, *args: Any) -> Any:
        """Run a task on all ranks; the root's result."""
        self.comm.broadcast((name, args))
        return self.tasks[name](*args)

    def __enter__(self) -> Self:
        """On the other ranks: serve until the root leaves."""
        if not self.comm.is_root:
            while (message := self.comm.broadcast(None)) is not None:
                name, args = message
                self.tasks[name](*args)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """An error of the root leaves the others waiting: the caller must end the job."""
        if self.comm.is_root and error is None:
            self.comm.broadcast(None)
