"""Decides what is stored and which values are computed in one kernel.

A value is *materialised* if it is an output, if an operation needs it in memory, if it is
read through more than one pad, or if one root reads it at several offsets and computing it
again would cost more than reading it. Everything else is expanded where it is read.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import dataclass, field
from typing import Any

from backsweep.ir import ArrayType, Atom, Equation, Literal, Program, Var
from backsweep.primitives import gather as ga
from backsweep.primitives import index as ix
from backsweep.primitives import shape as sh
from backsweep.primitives.access import (
    PATCHES,
    Access,
    identity,
    input_accesses,
    is_memory_reshape,
    is_opaque,
    is_short_sum,
)
from backsweep.primitives.ops import cost_of

STORED_IF_DEARER_THAN = 12
"""Cost of recomputing a value at its further offsets, above which it is stored."""

STORED_IF_SMALL_AND_DEARER_THAN = 4
"""The same for values that are much smaller than the loop that reads them."""


def has_wide_step(eqn: Equation) -> bool:
    return any(abs(s) != 1 for s in eqn.params["steps"])


@dataclass
class Usage:
    """How one root reads what it needs."""

    loads: set[tuple[Var, Access]] = field(default_factory=set)
    inlined: dict[Var, set[Access]] = field(default_factory=lambda: defaultdict(set))


@dataclass
class Analysis:
    """Facts about a program that materialisation and grouping need."""

    program: Program
    definitions: dict[Var, Equation]
    uses: Counter[Var]
    stored: set[Var]
    forced: set[Var] = field(default_factory=set)
    """Stored because a kernel could not be made otherwise: sums over them stand alone."""

    def usage(self, root: Var) -> Usage:
        """All reads of a root, pads and updates taken as if they were never cut."""
        result = Usage()
        type = root.type
        assert isinstance(type, ArrayType)
        shape = root_domain(self.definitions.get(root), root)
        access = identity(shape, (0,) * len(shape))
        eqn = self.definitions[root]
        self._inputs(eqn, access[: type.ndim] if not _is_sum(eqn) else access, result)
        return result

    def usage_of(self, atom: Atom, domain: tuple[int, ...]) -> Usage:
        """All reads of a value at identity, the value itself included if it is stored."""
        result = Usage()
        access = identity(domain, (0,) * len(domain))
        self._read(atom, access[: len(atom.type.shape)], result)
        return result

    def _inputs(self, eqn: Equation, access: Access, result: Usage) -> None:
        for atom, inner in input_accesses(eqn, access):
            self._read(atom, inner, result)

    def _read(self, atom: Atom, access: Access, result: Usage) -> None:
        if isinstance(atom, Literal):
            return
        if atom in self.stored:
            result.loads.add((atom, access))
            return
        seen = result.inlined[atom]
        if access not in seen:
            seen.add(access)
            self._inputs(self.definitions[atom], access, result)


def _is_sum(eqn: Equation) -> bool:
    return eqn.primitive is sh.sum_ and not is_short_sum(eqn)


def root_domain(eqn: Equation | None, var: Var) -> tuple[int, ...]:
    """The loop shape of a root: its own shape, and for a sum the summed extent as well."""
    if eqn is not None and _is_sum(eqn):
        return eqn.inputs[0].type.shape
    shape: tuple[int, ...] = var.type.shape
    return shape if shape else (1,)


def analyse(program: Program) -> Analysis:
    """Decide what is stored."""
    definitions = {v: e for e in program.equations for v in e.outputs}
    uses = Counter(a for e in program.equations for a in e.inputs if isinstance(a, Var))
    uses.update(a for a in program.outputs if isinstance(a, Var))
    stored = set(program.inputs) | _needed_in_memory(program)
    analysis = Analysis(program, definitions, uses, stored)
    while True:
        more = _dear_values(analysis)
        if not more:
            return analysis
        stored |= more


def _needed_in_memory(program: Program) -> set[Var]:
    stored = {a for a in program.outputs if isinstance(a, Var)}
    pads: Counter[Any] = Counter()
    for eqn in program.equations:
        operands = [a for a in eqn.inputs if isinstance(a, Var)]
        primitive = eqn.primitive
        if is_opaque(eqn):
            stored.update(operands + list(eqn.outputs))
        elif primitive.name in PATCHES:
            stored.update([*operands, *eqn.outputs])
        elif primitive is ga.gather:
            stored.update(operands[:1])
        elif is_memory_reshape(eqn):
            stored.update([*operands, *eqn.outputs])
        elif primitive is sh.sum_ and not is_short_sum(eqn):
            stored.update(eqn.outputs)
        elif primitive is ix.pad:
            pads.update(operands)
            if has_wide_step(eqn):
                stored.update(eqn.outputs)
        elif primitive is ix.update and has_wide_step(eqn):
            stored.update([*eqn.outputs, *operands])
    stored.update(v for v, n in pads.items() if n > 1)
    return stored


def _dear_values(analysis: Analysis) -> set[Var]:
    """Values that some root would compute again at several offsets at too high a cost."""
    for root in [v for e in analysis.program.equations for v in e.outputs if v in analysis.stored]:
        usage = analysis.usage(root)
        repeated = {
            v: len(accesses)
            for v, accesses in usage.inlined.items()
            if len(accesses) > 1 and analysis.definitions[v].primitive.kind != "index"
        }
        small = _small_values(analysis, root, usage)
        if small:
            return small
        order = {v: k for k, e in enumerate(analysis.program.equations) for v in e.outputs}
        for var in sorted(repeated, key=lambda v: order[v], reverse=True):
            cost = _inlined_cost(analysis, var)
            if cost * (repeated[var] - 1) > STORED_IF_DEARER_THAN:
                return {var}
    return set()


def _small_values(analysis: Analysis, root: Var, usage: Usage) -> set[Var]:
    """Dear values that a much larger loop would compute again for each of its outer indices."""
    domain = root_domain(analysis.definitions[root], root)
    size = 1
    for n in domain:
        size *= n
    for var, accesses in usage.inlined.items():
        eqn = analysis.definitions[var]
        if eqn.primitive.kind != "elementwise" or var.type.size * 16 > size:  # type: ignore
            continue
        varies_inside = any(i.dim == len(domain) - 1 for a in accesses for i in a)
        if varies_inside and _inlined_cost(analysis, var) >= STORED_IF_SMALL_AND_DEARER_THAN:
            return {var}
    return set()


def _inlined_cost(analysis: Analysis, var: Var) -> int:
    """Cost of computing a value once from what is stored, counted on the DAG."""
    seen: set[Var] = set()
    stack, total = [var], 0
    while stack:
        v = stack.pop()
        if v in seen or (v in analysis.stored and v is not var):
            continue
        seen.add(v)
        eqn = analysis.definitions[v]
        total += cost_of(eqn.primitive.name) if eqn.primitive.kind == "elementwise" else 0
        stack.extend(a for a in eqn.inputs if isinstance(a, Var))
    return total
