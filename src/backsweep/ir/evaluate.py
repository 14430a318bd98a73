"""The reference interpreter: it defines what a program means.

Compiled code is tested against it. Values are dropped after their last use, so
that evaluating a long program does not hold every intermediate array.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from backsweep.ir.program import Atom, Equation, Literal, Program, Var

Handler = Callable[[Equation, list[Any]], Sequence[Any]]


def evaluate(
    program: Program, arguments: Sequence[Any], handlers: Mapping[str, Handler] | None = None
) -> list[Any]:
    """Run a program on arrays.

    Parameters
    ----------
    program : Program
    arguments : sequence of array_like
        One value for each input.
    handlers : mapping, optional
        By primitive name: functions that run an equation instead of the primitive's
        own evaluation (the runtime puts compiled sweeps here).

    Returns
    -------
    list of ndarray
        One array for each output.
    """
    handlers = handlers or {}
    env: dict[Var, Any] = dict(zip(program.inputs, arguments, strict=True))

    def read(atom: Atom) -> Any:
        return atom.value if isinstance(atom, Literal) else env[atom]

    with np.errstate(all="ignore"):
        for position, eqn in enumerate(program.equations):
            values = [read(a) for a in eqn.inputs]
            handler = handlers.get(eqn.primitive.name)
            if handler is not None:
                results = handler(eqn, values)
            else:
                results = eqn.primitive.evaluate(eqn.params, *values)
                if not isinstance(results, tuple):
                    results = (results,)
            env.update(zip(eqn.outputs, results, strict=True))
            del values, results
            for var in program.last_uses.get(position, ()):
                env.pop(var, None)
        return [read(a) for a in program.outputs]
