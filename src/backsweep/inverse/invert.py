"""The whole inversion: stages, regularisation, preconditioner, over ranks."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from backsweep.comm import AbstractComm, SerialComm, Team
from backsweep.errors import ModelError
from backsweep.inverse.evaluate import Evaluator, RanksPerItem
from backsweep.inverse.history import History
from backsweep.inverse.identity import identity_of
from backsweep.inverse.inversion import Inversion, Stage
from backsweep.inverse.problem import Described
from backsweep.inverse.recording import recording
from backsweep.inverse.replay import Calls
from backsweep.inverse.root import RootRun
from backsweep.inverse.transforms import Unknowns
from backsweep.inverse.units import unknown_settings
from backsweep.runtime.checkpointing import Checkpointing


def _silent(found: Any) -> None:
    """Nobody asked to be told."""


def invert(
    problem: Any,
    inversion: Inversion,
    *,
    comm: AbstractComm | None = None,
    checkpointing: Checkpointing | None = None,
    on_evaluation: Callable[[History], None] = _silent,
    on_end: Callable[[History], None] = _silent,
    say: Callable[[str], None] = _silent,
    history: History | None = None,
    identity: Mapping[str, str] | None = None,
    ranks_per_item: RanksPerItem = 1,
) -> History:
    """Find the parameters of least misfit. Collective: every rank must call.

    Parameters
    ----------
    problem : Problem
        Equal on all ranks.
    inversion : Inversion
    comm : AbstractComm, optional
    checkpointing : Checkpointing, optional
        With `resume` the inversion is kept in `directory` while it runs: after a kill the same
        call, on any number of ranks, goes on there and finds the same bits. On several nodes
        the directory must be shared.
    on_evaluation : callable
        Called on the root after each evaluation.
    on_end : callable
        Called on the root when all is found, before what is needed to resume is removed.
    say : callable
        Told on the root, in a sentence, what is resumed.
    history : History, optional
        Filled in as the inversion goes on, for whoever wants to save it after an exception.
    identity : mapping of str to str, optional
        What else tells this inversion from others that might be resumed.
    ranks_per_item : int or "auto"
        So many ranks share the grid of one item.

    Returns
    -------
    History
        Empty except on the root.

    Raises
    ------
    ModelError
        If problem and inversion do not fit, or the history is that of another problem.
    ResumeError
        If the directory holds another inversion, or another process uses it.
    Stopped
        On all ranks, when SIGUSR1 or SIGTERM came to one of them and `resume` is set.

    Notes
    -----
    An error on one rank leaves the others waiting. After `backsweep.comm.connect` one that nobody
    catches ends all of them; whoever catches it must call ``comm.abort``.

    Examples
    --------
    >>> import numpy as np
    >>> class Line:
    ...     items = [(0.0, 1.0), (1.0, 3.0)]  # x, y
    ...
    ...     def start(self):
    ...         return {"slope": np.array(1.0), "shift": np.array(0.0)}
    ...
    ...     def misfit(self, parameters, item):
    ...         x, y = item
    ...         return (parameters["slope"] * x + parameters["shift"] - y) ** 2
    >>> history = invert(Line(), Inversion((Stage(20),)))
    >>> round(float(history.best["slope"]), 6)
    2.0
    """
    comm = comm or SerialComm()
    request = checkpointing or Checkpointing()
    history = history or History(Described(problem))
    if history.described.problem is not problem:
        raise ModelError("the history is that of another problem: make a History(Described(...))")
    evaluator = Evaluator(history.described, comm, request, ranks_per_item)
    check_inversion(history.described, inversion)
    names = ("evaluate", "gauss_newton", "illumination", "set_stage", "stop")
    tasks = {name: getattr(evaluator, name) for name in names}

    def known_by() -> dict[str, str]:
        return identity_of(history.described, inversion) | dict(identity or {})

    with (
        recording(request, comm, known_by) as folder,
        Team(comm, tasks) as team,
    ):
        if comm.is_root:
            calls = Calls(team, folder, say, request.interval)
            n_evaluations = sum(stage.evaluations for stage in inversion.stages)
            if found := calls.found(n_evaluations, len(problem.items)):
                say(found)
            with calls.kept():
                RootRun(history, inversion, calls, on_evaluation, say).run()
                on_end(history)
            if folder is not None:
                folder.clear()
    return history


def check_inversion(described: Described, inversion: Inversion) -> None:
    """What can be known before the first evaluation.

    Raises
    ------
    ModelError
        If problem and inversion do not fit.
    """
    for stage in inversion.stages:
        described.at_stage(stage.settings)
    settings = unknown_settings(described, inversion.unknowns)
    Unknowns(described.start, settings)
    if inversion.method == "Gauss-Newton-CG":
        _need(described, ("simulate", "compare"), "method = 'Gauss-Newton-CG'")
        if any(u.bounds and u.transform != "logistic" for u in settings.values()):
            raise ModelError(
                "Gauss-Newton-CG knows no bounds: use transform = 'logistic', or L-BFGS-B"
            )
    if inversion.preconditioner == "illumination":
        _need(described, ("illumination",), "preconditioner = 'illumination'")
    for name in inversion.regularisers:
        if name not in described.start:
            raise ModelError(
                f"regularisation is asked for {name!r}, but the parameters are "
                f"{', '.join(described.start)}"
            )


def _need(described: Described, members: tuple[str, ...], what: str) -> None:
    missing = [m for m in members if not hasattr(described.problem, m)]
    if missing:
        raise ModelError(
            f"{what} needs {' and '.join(missing)}, which the problem "
            f"{type(described.problem).__name__} does not have"
        )


__all__ = ["Inversion", "Stage", "check_inversion", "invert"]
