"""What must be the same on all ranks of a program, as text that they compare."""

from __future__ import annotations

from collections.abc import Iterator

from backsweep.comm import AbstractComm
from backsweep.errors import CommError
from backsweep.ir import ArrayType, Atom, Equation, Literal, Program, Var
from backsweep.ir.printer import format_param
from backsweep.passes.control import cached_with_program, jvp_step
from backsweep.passes.linearize import vjp_program
from backsweep.passes.partition.placement import located
from backsweep.passes.ranks.place import collectives
from backsweep.primitives.communication import SILENT

_HIDDEN = ("comm", "number", "checkpointing")


@cached_with_program
def adjoint_step(
    step: Program, active_in: tuple[bool, ...], active_out: tuple[bool, ...]
) -> Program:
    """The reverse of a step, the same object for the same step."""
    return vjp_program(step, active_in, active_out)


def communicator(program: Program) -> AbstractComm | None:
    """That of all collectives of a program; None if it calls none.

    Raises
    ------
    CommError
        If there are two.
    """
    found = [e.params["comm"] for e in collectives(program)]
    if any(comm is not found[0] for comm in found):
        raise CommError(
            "a program calls collectives of two communicators: placements are those of one; give "
            "the same `comm` to all of them, and to Decomposition"
        )
    return found[0] if found else None


Line = tuple[str, str]
"""What is compared, and where the user wrote it."""


def messages(program: Program) -> Iterator[Line]:
    """The collectives that running a program makes, in their order; loops are entered once."""
    for eqn in program.equations:
        if eqn.primitive.kind == "communication":
            if eqn.primitive not in SILENT:
                yield message(eqn), located(eqn)
            continue
        for held in _run(eqn):
            inner = [text for text, _ in messages(held)]
            if inner or eqn.primitive.name == "scan_forward":  # is planned together
                steps = f"{eqn.primitive.name} of {eqn.params['length']} steps"
                yield f"{steps}: {'; '.join(inner)}", located(eqn)


def message(eqn: Equation) -> str:
    """A collective, as all ranks must call it."""
    x, p = eqn.inputs[0].type, eqn.params
    assert isinstance(x, ArrayType)
    shape: object = x.shape
    if "decomposition" in p:  # local shapes follow from it
        shape = x.shape[: x.ndim - len(p["decomposition"].shape)]
    known = " ".join(f"{k}={format_param(v)}" for k, v in sorted(p.items()) if k not in _HIDDEN)
    call = f"{eqn.primitive.name} {p.get('number', '')}".rstrip()
    return f"{call} {x.dtype}{list(shape)} {known}".rstrip()  # type: ignore[call-overload]


def _run(eqn: Equation) -> list[Program]:
    """Programs that an equation runs, as far as they may call collectives."""
    p = eqn.params
    if "step" not in p or not isinstance(p["step"], Program) or not collectives(p["step"]):
        return []
    if eqn.primitive.name == "scan_reverse":
        return [p["step"], adjoint_step(p["step"], p["active_in"], p["active_out"])]
    if eqn.primitive.name == "scan_tangent":
        n_consts, n_carry = p["n_consts"], p["n_carry"]
        return [jvp_step(p["step"], n_consts, n_carry, p["active_in"], p["active_out"])]
    return [p["step"]]


def replicated_part(program: Program) -> Iterator[Line]:
    """What makes the values that are the same on all ranks. What varies is left out."""
    return _Replicated().lines(program)


class _Replicated:
    def __init__(self) -> None:
        self.names: dict[Var, str] = {}
        self.made: dict[Var, Equation] = {}

    def lines(self, program: Program) -> Iterator[Line]:
        for var in program.inputs:
            if _is_replicated(var):
                yield f"{self._name(var)} {var.type}", ""
        for eqn in program.equations:
            self.made.update(dict.fromkeys(eqn.outputs, eqn))
            kept = [v for v in eqn.outputs if _is_replicated(v)]
            if kept:
                held = (p for p in eqn.params.values() if isinstance(p, Program))
                inner = [text for p in held for text, _ in _Replicated().lines(p)]
                left = " ".join(f"{self._name(v)}:{v.type}" for v in kept)
                yield f"{left} = {self._text(eqn)} {inner or ''}".rstrip(), located(eqn)
        yield f"return {' '.join(map(self._atom, program.outputs))}", ""

    def _name(self, var: Var) -> str:
        return self.names.setdefault(var, f"v{len(self.names)}")

    def _atom(self, atom: Atom) -> str:
        if isinstance(atom, Literal):
            return f"{atom.type} {atom.value.item()!r}"
        if _is_replicated(atom):
            return self._name(atom)
        if atom.type.placement == "varying" or atom not in self.made:
            return "~"
        return f"({self._text(self.made[atom])})"

    def _text(self, eqn: Equation) -> str:
        is_control = eqn.primitive.kind == "control"
        shown = " ".join(
            f"{k}={format_param(v)}"
            for k, v in sorted(eqn.params.items())
            if k not in _HIDDEN and (k == "length" or not is_control)
        )
        if eqn.primitive.takes == "varying":  # whatever a rank gives
            return f"{eqn.primitive.name}[{shown}]"
        atoms = [text for a in eqn.inputs if (text := self._atom(a)) != "~" or not is_control]
        return f"{eqn.primitive.name}[{shown}] {' '.join(atoms)}"


def _is_replicated(var: Var) -> bool:
    return isinstance(var.type, ArrayType) and var.type.placement == "replicated"
