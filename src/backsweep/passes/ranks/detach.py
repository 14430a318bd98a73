"""A step without its communicator, for what is remembered by its text.

Code is found again by the text of the step that it was made of, and so are the programs that were
derived for it. What is found must not bring along the ranks for which it was made first: it is made
of a step whose communicator is one on which nothing can be sent, with this rank's number and their
number. A sweep gets its own communicator when it runs.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from backsweep.comm import Decomposition, PlannedComm
from backsweep.ir import Equation, Program
from backsweep.passes.control import cached_with_program
from backsweep.passes.ranks.place import collectives

Params = Mapping[str, Any]


@cached_with_program
def detached(step: Program) -> Program:
    """The step with ranks that are not there in place of those that it names.

    Scans inside it stay as they are: with a collective in them it is not compiled.
    """
    return Program(step.inputs, tuple(map(_detached, step.equations)), step.outputs, step.name)


def _detached(eqn: Equation) -> Equation:
    if eqn.primitive.kind != "communication":
        return eqn
    given = eqn.params["comm"]
    comm = PlannedComm(given.size, given.rank)
    params = dict(eqn.params) | {"comm": comm}
    if "decomposition" in params:
        dec = params["decomposition"]
        params["decomposition"] = Decomposition(
            dec.shape, dec.axes, comm, periodic=dec.periodic, ranks=dec.ranks
        )
    return Equation(eqn.primitive, eqn.inputs, params, eqn.outputs, eqn.source)


def attached_to(step: Program) -> Callable[[Params], Params]:
    """Of parameters that come from the detached step those of this one."""
    found = [e.params for e in collectives(step)]
    # Decompositions are equal if they cut in the same way, whatever their communicators are.
    own = {p["decomposition"]: p["decomposition"] for p in found if "decomposition" in p}

    def attach(params: Params) -> Params:
        bound = dict(params) | {"comm": found[0]["comm"]}
        if "decomposition" in bound:
            bound["decomposition"] = own[bound["decomposition"]]
        return bound

    return attach


__all__ = ["attached_to", "detached"]
