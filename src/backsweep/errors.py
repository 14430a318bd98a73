"""Every error that backsweep raises on purpose.

Each class also derives from the builtin that a user would catch. A message says
what happened, with which values, where, and what to do.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class BacksweepError(Exception):
    """Base of all errors raised on purpose."""


class TraceError(BacksweepError, TypeError):
    """The user's function cannot be traced as it is written."""


class ShapeError(BacksweepError, ValueError):
    """Shapes or dtypes do not fit together."""


class ProgramError(BacksweepError, AssertionError):
    """A program violates the rules of the IR: a bug in backsweep."""


class DifferentiationError(BacksweepError, TypeError):
    """A derivative was asked for that does not exist or is not supported."""


class ForwardModeError(DifferentiationError):
    """Forward mode was asked for through what has only a reverse."""


class ExternalStepError(BacksweepError, TypeError):
    """A user's own step lacks a method, or returned what does not fit."""


class ScheduleError(BacksweepError, ValueError):
    """A schedule that breaks the rules, or a checkpointing request that cannot be met."""


class LoopError(BacksweepError, RuntimeError):
    """A loop does not end."""


class BudgetError(ScheduleError, MemoryError):
    """The memory or disk budget is too small."""


class SnapshotError(BacksweepError, OSError):
    """A snapshot could not be written, read or verified."""


class ResumeError(BacksweepError, RuntimeError):
    """A folder of resume points belongs to another computation, or another process uses it."""


class MutationError(BacksweepError, ValueError):
    """A captured array was changed while it had to stay as it was."""


class ModelError(BacksweepError, ValueError):
    """A model, a grid, a source or a waveform with which the simulation cannot run."""


class CommError(BacksweepError, RuntimeError):
    """MPI is missing, was started in a wrong way, or another rank failed."""


class DecompositionError(BacksweepError, ValueError):
    """A program, or an array, that cannot be cut into blocks as asked."""


class RecordError(BacksweepError, ValueError):
    """What `record_adjoint` is asked for does not fit the simulation."""


class NonFiniteError(BacksweepError, FloatingPointError):
    """A simulation or its adjoint has become infinite or NaN (with BACKSWEEP_CHECK_NAN=1)."""


class RunFileError(BacksweepError, ValueError):
    """A run file, or what it points to, is not what the command line can use."""


class MachineError(BacksweepError, ValueError):
    """Parameters of a machine that cannot be read, or a job that they cannot predict."""


class ResultError(BacksweepError, OSError):
    """A result could not be written or read."""


class PartError(BacksweepError, ValueError):
    """Parts of a gradient that do not make up a whole one."""


class Stopped(SystemExit):
    """A signal asked the run to end, and what it has done is durable; exit code 85.

    No subclass of Exception: only what ends a program catches it.
    """

    def __init__(self, signal_name: str, where: str) -> None:
        super().__init__(85)
        self.signal_name, self.where = signal_name, where
        self.message = (
            f"{signal_name} received: stopped; the work so far is kept in {where}, and the same "
            "call goes on from there"
        )

    def __str__(self) -> str:
        return self.message


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """A hint at the nearest of the known names, and the list of them."""
    listed = list(known)
    near = difflib.get_close_matches(name, listed, n=1, cutoff=0.5)
    if near == [name]:
        return f"write {name} without quotes"
    start = f"did you mean {near[0]!r}? Known" if near else "known"
    return f"{start} are: {', '.join(listed)}"
