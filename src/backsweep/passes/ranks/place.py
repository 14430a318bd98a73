"""Which values of a program that calls collectives are the same on all ranks, and which are not.

A value is *replicated* or *varying* (`ir.types`). What is computed from varying values varies.
Where a replicated value meets a varying one a `replicate` is put between them, whose transpose adds
the cotangents of all ranks up: without it each rank would have a part of the gradient. It is put
outside of time loops: a scan gets a varying twin of a replicated constant beside it, so that a
gradient is reduced once. Only what the loop itself carries as replicated is reduced in each step.

After JAX's replicated and varying values in types (JEP 17111).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from backsweep.comm import AbstractComm
from backsweep.errors import DifferentiationError
from backsweep.ir import (
    ArrayType,
    Atom,
    Builder,
    Equation,
    Literal,
    Placement,
    Program,
    Var,
    interned,
    joined_placement,
)
from backsweep.ir.builder import look_up
from backsweep.passes.external import all_equations
from backsweep.passes.partition.placement import located
from backsweep.passes.simplify import simplify
from backsweep.primitives import communication as com
from backsweep.primitives.control import scan_shape

Placements = Sequence[Placement | None]


def collectives(program: Program) -> list[Equation]:
    """Calls of a program and of all programs that it holds."""
    return [e for e in all_equations(program) if e.primitive.kind == "communication"]


def refused(eqn: Equation, why: str) -> DifferentiationError:
    at = f"\n  at {located(eqn)}" if eqn.source is not None else ""
    return DifferentiationError(f"{eqn.primitive.name}{why}{at}")


def place(program: Program, inputs: Placements, comm: AbstractComm) -> Program:
    """The program with placements in its types.

    Parameters
    ----------
    program : Program
        As traced: without derivatives.
    inputs : sequence of {"replicated", "varying"}
    comm : AbstractComm
        Of all its collectives.

    Raises
    ------
    DifferentiationError
        If a collective gets what it cannot work on, or stands where it is not supported.
    """
    return _numbered(_Placer(comm).run(program, inputs))


@dataclass
class _Placer:
    """Writes one program anew.

    Attributes
    ----------
    twins : dict
        Varying copies of replicated values.
    asked : dict
        Inputs of which the caller is to pass a varying twin too, and these inputs.
    free : set
        Values that are made of inputs that have twins, and of nothing else.
    """

    comm: AbstractComm
    builder: Builder = field(default_factory=Builder)
    made: dict[Var, Equation] = field(default_factory=dict)
    twins: dict[Var, Atom] = field(default_factory=dict)
    asked: dict[Var, Var] = field(default_factory=dict)
    free: set[Var] = field(default_factory=set)
    inputs: list[Var] = field(default_factory=list)

    def run(
        self,
        program: Program,
        placements: Placements,
        with_twins: Iterable[int] = (),
        outputs: Placements = (),
    ) -> Program:
        """Place a program whose inputs are placed.

        `with_twins` are numbers of inputs of which a twin may be asked for; `outputs` says what
        the first outputs have to be.
        """
        env: dict[Var, Atom] = {}
        for var, placement in zip(program.inputs, placements, strict=True):
            assert isinstance(var.type, ArrayType)
            self.inputs.append(Var(var.type.placed(placement), var.name))
        env.update(zip(program.inputs, self.inputs, strict=True))
        self.free.update(self.inputs[k] for k in with_twins)
        for eqn in program.equations:
            ins = tuple(look_up(env, a) for a in eqn.inputs)
            env.update(zip(eqn.outputs, self._equation(eqn, ins), strict=True))
        results = [look_up(env, a) for a in program.outputs]
        for k, placement in enumerate(outputs):
            if placement == "varying":
                results[k] = self.varying(results[k])
        return Program(
            tuple(self.inputs), tuple(self.builder.equations), tuple(results), program.name
        )

    def _equation(self, eqn: Equation, ins: tuple[Atom, ...]) -> Sequence[Atom]:
        if eqn.primitive.name == "scan":
            return self._scan(eqn, ins)
        if eqn.primitive.kind == "control":
            return self._whole(eqn, ins)
        if eqn.primitive.kind == "communication":
            return self._communication(eqn, ins)
        if joined_placement([a.type for a in ins]) == "varying":
            ins = tuple(self.varying(a) if a.type.is_inexact else a for a in ins)
        return self._emit(eqn, ins)

    def _emit(self, eqn: Equation, ins: tuple[Atom, ...]) -> Sequence[Atom]:
        """An equation of values on each rank."""
        placement = joined_placement([a.type for a in ins])
        outputs = tuple(Var(_placed(v, placement), v.name) for v in eqn.outputs)
        self._append(eqn, ins, outputs)
        if eqn.primitive.kind != "communication" and all(
            isinstance(a, Literal) or a in self.free for a in ins
        ):
            self.free.update(outputs)
        return outputs

    def _append(self, eqn: Equation, ins: tuple[Atom, ...], outputs: tuple[Var, ...]) -> None:
        new = Equation(eqn.primitive, ins, eqn.params, outputs, eqn.source)
        self.builder.equations.append(new)
        self.made.update(dict.fromkeys(outputs, new))

    def _communication(self, eqn: Equation, ins: tuple[Atom, ...]) -> Sequence[Atom]:
        primitive, (x,) = eqn.primitive, ins
        if primitive is com.halo_exchange:
            x = self.varying(x)
        given = _placement(x)
        if given == "replicated" and primitive.takes == "varying":
            raise refused(
                eqn,
                ": its operand is the same on all ranks already, so that it would count it as "
                "often as there are ranks; leave the call out",
            )
        if given == "varying" and primitive.takes == "replicated":
            raise refused(
                eqn, ": its operand is not the same on all ranks; pass it through broadcast first"
            )
        # Of a constant, too: other ranks may not have one.
        outputs = tuple(Var(_placed(v, primitive.gives), v.name) for v in eqn.outputs)
        self._append(eqn, (x,), outputs)
        return outputs

    # ------------------------------------------------------------------ varying copies

    def varying(self, atom: Atom) -> Atom:
        """The same value as each rank's own."""
        if isinstance(atom, Literal) or _placement(atom) != "replicated":
            return atom
        if atom not in self.twins:
            self.twins[atom] = self._twin(atom)
        return self.twins[atom]

    def _twin(self, atom: Var) -> Atom:
        assert isinstance(atom.type, ArrayType)
        eqn = self.made.get(atom)
        if eqn is None and atom in self.free:
            twin = self.asked[atom] = Var(atom.type.placed("varying"), atom.name)
            return twin
        self.builder.source = eqn.source if eqn is not None else None
        if eqn is not None and self._is_copied(eqn, atom):
            outs = self._emit(eqn, tuple(map(self.varying, eqn.inputs)))
            return outs[eqn.outputs.index(atom)]
        return self.builder(com.replicate, atom, comm=self.comm)

    def _is_copied(self, eqn: Equation, atom: Var) -> bool:
        """Whether it is better to compute a value from varying copies than to copy it."""
        if eqn.primitive.kind in ("control", "call", "communication"):  # dear, or a user's own
            return False
        n_bytes = sum(a.type.nbytes for a in set(eqn.inputs) if isinstance(a.type, ArrayType))
        return atom in self.free or n_bytes < atom.type.nbytes  # type: ignore[union-attr]

    # ------------------------------------------------------------------ programs in programs

    def _whole(self, eqn: Equation, ins: tuple[Atom, ...]) -> Sequence[Atom]:
        """What runs programs that hold no collectives: all of it is each rank's own, or nothing."""
        held = [e for p in _held(eqn) for e in collectives(p)]
        if held:
            raise refused(
                held[0],
                f" inside of {_SPOKEN.get(eqn.primitive.name, eqn.primitive.name)} is not "
                "supported: call it outside, or in the step of a scan",
            )
        if joined_placement([a.type for a in ins]) == "varying":
            ins = tuple(map(self.varying, ins))
        given = [_placement(a) or joined_placement([b.type for b in ins]) for a in ins]
        params = {k: self._held_placed(v, given) for k, v in eqn.params.items()}
        new = Equation(eqn.primitive, ins, params, eqn.outputs, eqn.source)
        placement = joined_placement([a.type for a in ins])
        outputs = tuple(Var(_placed(v, placement), v.name) for v in eqn.outputs)
        self._append(new, ins, outputs)
        return outputs

    def _held_placed(self, value: object, given: Placements) -> object:
        if isinstance(value, Program):
            return interned(_Placer(self.comm).run(value, given))
        if isinstance(value, tuple) and value and isinstance(value[0], Program):
            return tuple(self._held_placed(p, given) for p in value)
        return value

    def _scan(self, eqn: Equation, ins: tuple[Atom, ...]) -> Sequence[Atom]:
        shape, step = scan_shape(eqn.params), eqn.params["step"]
        a, c = shape.n_consts, shape.n_consts + shape.n_carry
        given = [_placement(x) for x in ins]
        fixed = [k for k in range(len(ins)) if not a <= k < c]
        while True:
            placer = _Placer(self.comm)
            placed = placer.run(step, given, fixed, given[a:c])
            pairs = zip(placer.inputs[a:c], placed.outputs, strict=False)
            grown = [joined_placement([v.type, o.type]) for v, o in pairs]
            if grown == given[a:c]:
                break
            given[a:c] = grown
        ins = tuple(
            self.varying(x) if a <= k < c and given[k] == "varying" else x
            for k, x in enumerate(ins)
        )
        twins = {k: placer.asked[v] for k, v in enumerate(placer.inputs) if v in placer.asked}
        # Values of which only the twins are used are dead now.
        step, groups = _with_twins(simplify(placed, open_program=True), twins, (a, c))
        consts, carry, xs = ([*group] for group in groups)
        arguments = [
            *(self.varying(ins[k]) if is_twin else ins[k] for k, is_twin in consts),
            *(ins[k] for k, _ in carry),
            *(self.varying(ins[k]) if is_twin else ins[k] for k, is_twin in xs),
        ]
        params = dict(eqn.params) | {"step": interned(step), "n_consts": len(consts)}
        types = eqn.primitive.type_rule(params, *(x.type for x in arguments))
        outputs = tuple(Var(t, v.name) for t, v in zip(types, eqn.outputs, strict=True))
        self._append(Equation(eqn.primitive, (), params, (), eqn.source), tuple(arguments), outputs)
        return outputs


_SPOKEN = {"remat": "checkpoint", "sum_of": "sum_over"}

Numbers = list[tuple[int, bool]]
"""Of operands, and whether their twin is meant."""


def _with_twins(
    step: Program, twins: dict[int, Var], bounds: tuple[int, int]
) -> tuple[Program, tuple[Numbers, Numbers, Numbers]]:
    """The step with twins among its inputs, in place of what only they stand for.

    Returns it and, for its constants, its carry and its xs, where they come from.
    """
    used = {a for e in step.equations for a in e.inputs} | set(step.outputs)
    groups: tuple[Numbers, Numbers, Numbers] = ([], [], [])
    inputs: tuple[list[Var], list[Var], list[Var]] = ([], [], [])
    for k, var in enumerate(step.inputs):
        group = (k >= bounds[0]) + (k >= bounds[1])
        if k not in twins or var in used:
            groups[group].append((k, False))
            inputs[group].append(var)
        if k in twins:
            groups[group].append((k, True))
            inputs[group].append(twins[k])
    variables = (*inputs[0], *inputs[1], *inputs[2])
    return Program(variables, step.equations, step.outputs, step.name), groups


def _held(eqn: Equation) -> list[Program]:
    values = [v for p in eqn.params.values() for v in (p if isinstance(p, tuple) else (p,))]
    return [v for v in values if isinstance(v, Program)]


def _placement(atom: Atom) -> Placement | None:
    return atom.type.placement if isinstance(atom.type, ArrayType) else None


def _placed(var: Var, placement: Placement | None) -> ArrayType:
    assert isinstance(var.type, ArrayType)
    return var.type.placed(placement)


def _numbered(program: Program, first: list[int] | None = None) -> Program:
    """Collectives with numbers in the order of the program."""
    count = first if first is not None else [0]
    equations = []
    for eqn in program.equations:
        params = dict(eqn.params)
        if eqn.primitive.kind == "communication":
            params["number"] = count[0]
            count[0] += 1
        elif any(collectives(p) for p in _held(eqn)):
            params["step"] = _numbered(params["step"], count)
        equations.append(Equation(eqn.primitive, eqn.inputs, params, eqn.outputs, eqn.source))
    return Program(program.inputs, tuple(equations), program.outputs, program.name)
