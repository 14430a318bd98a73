"""The command `invert`."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

from backsweep import config
from backsweep.cli import interrupt
from backsweep.cli.job import Job, open_job
from backsweep.cli.output import EvaluationProgress, console, print_summary
from backsweep.cli.pictures import check_picture, draw_result
from backsweep.cli.plans import print_memory
from backsweep.cli.results import Saver, check_target, run_attributes
from backsweep.cli.runfile import problem_identity
from backsweep.comm import agreement
from backsweep.errors import ResultError, Stopped
from backsweep.inverse.evaluate import Evaluator
from backsweep.inverse.history import History
from backsweep.inverse.inversion import Inversion
from backsweep.inverse.invert import check_inversion, invert
from backsweep.runtime import stop
from backsweep.runtime.checkpointing import Checkpointing


def run_inversion(path: Path, changes: Sequence[str], overwrite: bool, fresh: bool) -> None:
    """The command `invert`. Collective: every rank must call.

    Raises
    ------
    Stopped
        On all ranks, when SIGUSR1 or SIGTERM came to one of them.
    """
    begin = time.perf_counter()
    with ExitStack() as stack:
        job = open_job(path, changes, lambda comm: stack.enter_context(stop.watching(comm)))
        target = Path(job.run.output.result)
        request = job.within(job.run.checkpointing.resumable(target, fresh))
        with agreement(job.comm):
            inversion = job.run.inversion()
            check_inversion(job.described, inversion)
            Evaluator(job.described, job.comm, ranks_per_item=job.run.ranks_per_shot)
            if job.comm.is_root:
                check_target(target, overwrite or is_begun(request))
                if job.run.output.picture:
                    check_picture(Path(job.run.output.picture))
        _run(job, inversion, request, Saver(target, run_attributes(job), console.print), begin)


def is_begun(request: Checkpointing) -> bool:
    """Whether there is something to resume: then the result is that of this run so far."""
    return request.resume and os.path.exists(Path(request.directory or "", "manifest.json"))


def _run(
    job: Job, inversion: Inversion, request: Checkpointing, saver: Saver, begin: float
) -> None:
    history = History(job.described, keeps_every_model=job.run.output.every_model)
    n_evaluations = sum(stage.evaluations for stage in inversion.stages)
    if job.comm.is_root:
        print_memory(job)
    try:
        with EvaluationProgress(n_evaluations) as progress:

            def on_evaluation(history: History) -> None:
                progress.show(history)
                saver.save_now_and_then(history)
                interrupt.check()

            identity = problem_identity(job.run, job.folders) if job.comm.is_root else None
            invert(
                job.problem,
                inversion,
                comm=job.comm,
                checkpointing=request,
                on_evaluation=on_evaluation,
                on_end=saver.save,
                say=console.print,
                history=history,
                identity=identity,
                ranks_per_item=job.run.ranks_per_shot,
            )
    except BaseException as error:
        _save_partial(job, saver, history, error)
        if isinstance(error, Stopped) and not request.resume:
            error.code = interrupt.exit_code(error.signal_name)
        elif isinstance(error, Stopped) and job.comm.is_root:
            console.print(f"the same command goes on from {request.directory}")
        raise
    if job.comm.is_root:
        print_summary(history, begin, job.comm.size, config.n_threads())
        console.print(f"result      {saver.path.resolve()}")
        _draw(job, saver.path)


def _save_partial(job: Job, saver: Saver, history: History, error: BaseException) -> None:
    if not job.comm.is_root or not history.rows:
        return
    history.status = _STATUS.get(type(error), "failed")
    history.reason = history.reason or f"{type(error).__name__}: {error}".rstrip(": ")
    try:
        saver.save(history)
    except ResultError as failure:
        # What ended the run decides how the program ends.
        console.print(str(failure))
        return
    console.print(
        f"{history.status} after {len(history.rows)} evaluations; the result so far is in "
        f"{saver.path.resolve()}"
    )


_STATUS = {KeyboardInterrupt: "interrupted", Stopped: "stopped"}


def _draw(job: Job, result: Path) -> None:
    """A run whose picture cannot be drawn is done all the same."""
    if job.run.output.picture:
        try:
            picture = draw_result(result, Path(job.run.output.picture))
            console.print(f"picture     {picture.resolve()}")
        except ResultError as error:
            console.print(f"no picture: {error}")
