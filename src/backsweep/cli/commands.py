"""What the commands do."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from backsweep.cli.job import Job, open_job
from backsweep.cli.output import console
from backsweep.cli.results import check_target, data_variables, run_attributes
from backsweep.comm import agreement
from backsweep.errors import RunFileError
from backsweep.inverse.evaluate import Evaluator
from backsweep.problems.files import read_array
from backsweep.runtime.checkpointing import default_checkpointing
from backsweep.storage.results import write_result
from backsweep.testing import CheckError, check_transpose, check_vjp, taylor_test


def run_forward(
    path: Path, changes: Sequence[str], model: str, output: Path, overwrite: bool
) -> None:
    """The command `forward`. Collective: every rank must call."""
    job = open_job(path, changes)
    with agreement(job.comm):
        if not hasattr(job.problem, "simulate"):
            raise RunFileError(
                f"model = {job.run.model!r} has no simulate(parameters, item): there are no data"
            )
        evaluator = Evaluator(job.described, job.comm, job.checkpointing)
        parameters = model_parameters(job, model)
        job.described.check(parameters)
        if job.comm.is_root:
            check_target(output, overwrite)
    data = evaluator.simulate(parameters)
    if data is not None:
        write_result(output, data_variables(job, data), run_attributes(job) | {"of_model": model})
        shape = " x ".join(map(str, (len(data), *data[0].shape)))
        console.print(f"data        {shape}, {data[0].dtype}, of the model {model!r}")
        console.print(f"result      {output.resolve()}")


def model_parameters(job: Job, model: str) -> dict[str, Any]:
    """The start or true parameters, or the best ones of a result file."""
    start = job.described.start
    if model == "start":
        return dict(start)
    if model == "true":
        true = job.described.true()
        if not true:
            raise RunFileError("the problem knows no true model; use --model start or a result")
        return {**start, **true}
    if not Path(model).is_file():
        raise RunFileError(f"--model {model}: write start, true, or the path of a result file")
    found = {name: read_array(f"{model}:{name}_best") for name in start}
    for name, value in found.items():
        if value.shape != start[name].shape:
            raise RunFileError(
                f"--model {model}: {name} has shape {value.shape}, {start[name].shape} is needed"
            )
    return {name: value.astype(start[name].dtype) for name, value in found.items()}


def check_gradient(path: Path, changes: Sequence[str], item: int) -> None:
    """The command `check`."""
    job = open_job(path, changes)
    if not job.comm.is_root:
        return
    problem, n_items = job.problem, len(job.problem.items)
    if not 0 <= item < n_items:
        raise RunFileError(f"--item {item}: the items are numbered 0 to {n_items - 1}")
    start = job.described.start
    wide = {k: v.astype(np.result_type(v.dtype, np.float64)) for k, v in start.items()}
    direction = {k: _direction(v, job.described.member("masks", k)) for k, v in wide.items()}

    def misfit(parameters: Any) -> Any:
        return problem.misfit(parameters, problem.items[item])

    checks: dict[str, Callable[[], Any]] = {
        "dot product": lambda: check_transpose(misfit, (wide,)),
        "finite difference": lambda: _check_difference(misfit, wide),
        "Taylor rates": lambda: taylor_test(misfit, wide, direction),
    }
    failed = 0
    with default_checkpointing(job.checkpointing):
        if hasattr(problem, "prepare"):
            problem.prepare([problem.items[item]])
        for name, run in checks.items():
            try:
                found = run()
                rates = "" if found is None else ": " + ", ".join(f"{r:.3f}" for r in found)
                console.print(f"{name:<18} right{rates}")
            except CheckError as error:
                failed += 1
                console.print(f"{name:<18} WRONG: {error}")
    if failed:
        raise RunFileError(f"{failed} of {len(checks)} checks failed: do not trust this gradient")


def _check_difference(misfit: Callable[[Any], Any], parameters: Any) -> None:
    """With smaller steps as well, since waves are far from linear in their velocity.

    Raises
    ------
    CheckError
        Of the smallest step, if none fits.
    """
    for step in (2e-3, 1e-4, 5e-6):
        try:
            return check_vjp(misfit, (parameters,), step=step)
        except CheckError as caught:
            error = caught
    raise error


def _direction(start: np.ndarray, mask: np.ndarray | None) -> np.ndarray:
    """Random, of the size of the start, where values are sought."""
    rng = np.random.default_rng(0)
    size = np.sqrt(np.mean(np.abs(start) ** 2)) or 1.0
    values = size * rng.standard_normal(start.shape).astype(start.dtype)
    return values if mask is None else values * mask
