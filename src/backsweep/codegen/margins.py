"""Zero margins: where a value is read beyond its edges, unconditional loads need them.

A value that is read through more than one pad gets a margin as wide as the largest
overhang. Values that share memory share the margin: a base and its patches, and the
positions of a ring.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from backsweep.ir import ArrayType, Atom, Equation, Program, Var
from backsweep.primitives import index as ix
from backsweep.primitives.access import PATCHES, is_memory_reshape, is_opaque
from backsweep.primitives.gather import is_patch

Margins = tuple[tuple[int, int], ...]

MAX_MARGIN = 64


@dataclass(frozen=True, slots=True)
class Ring:
    """Positions of inputs, and of an output, that lie in one ring of memory."""

    inputs: tuple[int, ...]
    output: int


def find_margins(
    program: Program, stored: set[Var], owners: Mapping[Var, Var], rings: Sequence[Ring]
) -> dict[Var, Margins]:
    """The margins of stored values; `owners` maps bases and patches to the owner of memory."""
    members = [
        [*(program.inputs[k] for k in r.inputs), _variable(program.outputs[r.output])]
        for r in rings
    ]
    leader = {v: group[0] for group in members for v in group}
    shared = {v for e in program.equations if is_patch(e) for v in (e.inputs[0], *e.outputs)}
    fixed = (set(program.inputs) | set(program.outputs) | shared) - leader.keys()
    plain = {_leader(a, owners, leader) for e in program.equations for a in _needs_plain(e)}
    counts: Counter[Var] = Counter()
    found: dict[Var, list[tuple[int, int]]] = {}
    for eqn in program.equations:
        if eqn.primitive is not ix.pad or any(s != 1 for s in eqn.params["steps"]):
            continue
        own = eqn.inputs[0]
        var = _leader(own, owners, leader)
        if own not in stored or var in fixed or var in plain or not isinstance(var, Var):
            continue
        counts[var] += 1
        overhang = _overhang(eqn)
        old = found.get(var, overhang)
        found[var] = [(max(a, c), max(b, d)) for (a, b), (c, d) in zip(old, overhang, strict=True)]
    result = {
        v: tuple(m)
        for v, m in found.items()
        if counts[v] > 1 and max(max(pair) for pair in m) <= MAX_MARGIN
    }
    for group in members:
        if group[0] in result:
            result.update(dict.fromkeys(group, result[group[0]]))
    return result


def _variable(atom: Atom) -> Var:
    assert isinstance(atom, Var)
    return atom


def _leader(atom: Atom, owners: Mapping[Var, Var], leader: Mapping[Var, Var]) -> Atom:
    if isinstance(atom, Var):
        atom = owners.get(atom, atom)
        return leader.get(atom, atom)
    return atom


def _overhang(pad: Equation) -> list[tuple[int, int]]:
    type = pad.inputs[0].type
    assert isinstance(type, ArrayType)
    p = pad.params
    return [
        (start, full - start - n)
        for start, n, full in zip(p["starts"], type.shape, p["shape"], strict=True)
    ]


def _needs_plain(eqn: Equation) -> tuple[Atom, ...]:
    """Operands and results that must lie in memory without gaps."""
    if is_opaque(eqn):
        return (*eqn.inputs, *eqn.outputs)
    if is_memory_reshape(eqn):
        return eqn.inputs
    if eqn.primitive.name in PATCHES:
        partial = len(eqn.inputs) - 2 < len(eqn.inputs[0].type.shape)
        return eqn.inputs if partial else eqn.inputs[1:]
    return ()
