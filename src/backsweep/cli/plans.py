"""The command `plan`: what a gradient will take, before anything of it is run."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from backsweep import config
from backsweep.api.planning import budget_sweep, plan
from backsweep.cli.job import Job, open_job
from backsweep.cli.output import console, print_rows
from backsweep.cli.pictures import check_picture, draw_budgets
from backsweep.comm import Decomposition, PlannedComm, agreement
from backsweep.errors import RunFileError
from backsweep.inverse.evaluate import Evaluator, ranks_of_item
from backsweep.inverse.invert import check_inversion
from backsweep.runtime.checkpointing import default_checkpointing, format_bytes

N_BUDGETS = 40


def print_plan(path: Path, changes: Sequence[str], sweep: Path | None) -> None:
    """The command `plan`. Collective: every rank must call."""
    job = open_job(path, changes)
    with agreement(job.comm):
        inversion = job.run.inversion()
        check_inversion(job.described, inversion)
        Evaluator(job.described, job.comm, ranks_per_item=job.run.ranks_per_shot)
        if sweep is not None and job.comm.is_root:
            check_picture(sweep)
    if not job.comm.is_root:
        return
    start, n_items = job.described.start, len(job.problem.items)
    with default_checkpointing(job.checkpointing):
        forecast = plan(loss_of_item(job), measure=True, decomposition=_blocks(job))(start)
    n_evaluations = sum(stage.evaluations for stage in inversion.stages)
    n_gradients = n_evaluations * n_items
    arrays = ", ".join(f"{name} {value.shape} {value.dtype}" for name, value in start.items())
    print_rows(
        [
            ("parameters", arrays),
            ("items", f"{n_items}, on {job.comm.size} rank(s) of {config.n_threads()} thread(s)"),
        ]
    )
    n_ranks = 1 if (blocks := _blocks(job)) is None else blocks.n_ranks
    of_several = "" if n_ranks == 1 else f" of the {n_ranks} that share it"
    console.print(f"one item's gradient, on one rank{of_several}:")
    console.print(str(forecast))
    hours = n_gradients * forecast.seconds / (job.comm.size // n_ranks) / 3600
    print_rows(
        [
            (
                "whole run",
                f"at most {n_evaluations} evaluations of all items: "
                f"{n_gradients * forecast.n_advances} advances, "
                f"{n_gradients * forecast.n_reverses} reverse steps, about {hours:.2g} h",
            )
        ]
    )
    if sweep is not None:
        _draw_sweep(job, start, sweep)


def print_memory(job: Job) -> None:
    """Before the first step: what a rank will take, against what it may use.

    Silent about a problem whose misfit needs data that are made or read later.
    """
    if hasattr(job.problem, "prepare") and not hasattr(job.problem, "simulate"):
        return
    with default_checkpointing(job.checkpointing):
        forecast = plan(loss_of_item(job), decomposition=_blocks(job))(job.described.start)
    needed, left = format_bytes(forecast.gradient_bytes), format_bytes(forecast.available_bytes)
    advice = ""
    if not forecast.fits:
        advice = ": too little; lower checkpointing.memory, or use fewer ranks on a node"
    console.print(f"memory      a gradient takes {needed} per rank, {left} are left{advice}")


def _blocks(job: Job) -> Decomposition | None:
    """How the first group of ranks shares the grid of an item."""
    n_items = len(job.problem.items)
    n_ranks = ranks_of_item(job.run.ranks_per_shot, job.comm.size, n_items)
    if n_ranks == 1:
        return None
    return Decomposition(job.described.grid(), comm=PlannedComm(n_ranks))


def loss_of_item(job: Job) -> Callable[[Any], Any]:
    """Where there is a simulation, data need not be read or made: all steps are in it."""
    problem = job.problem
    item = problem.items[0]

    if hasattr(problem, "prepare") and not hasattr(problem, "simulate"):
        problem.prepare([item])

    def loss(parameters: Any) -> Any:
        if hasattr(problem, "simulate"):
            return np.sum(np.abs(problem.simulate(parameters, item)))
        return problem.misfit(parameters, item)

    return loss


def _draw_sweep(job: Job, start: Any, picture: Path) -> None:
    with default_checkpointing(job.checkpointing):
        rows = budget_sweep(loss_of_item(job), N_BUDGETS)(start)
    if not rows:
        raise RunFileError("there is no scan in this problem's gradient, nothing depends on memory")
    draw_budgets(rows, picture, now=job.checkpointing.memory_budget())
    console.print(f"picture        {picture.resolve()}")
