"""Orders the work of a step into phases: kernels that run in parallel rows, and patches.

Roots whose loops fit and that read each other at identity share a kernel. A root's origin
is where its index 0 lies in the kernel's loops.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from math import prod
from typing import Literal as Choice

from backsweep.codegen.plan import Analysis, has_wide_step, root_domain
from backsweep.ir import Equation, Var
from backsweep.primitives import index as ix
from backsweep.primitives import shape as sh
from backsweep.primitives.access import PATCHES, Access, is_memory_reshape, is_opaque, is_short_sum

RootKind = Choice["store", "sum", "sum_all", "strided"]
MAX_ROOTS = 24
"""Values that one kernel computes: beyond it registers spill and compilation slows down."""

MIN_SHARE = 0.9
"""Of the extents of a loop that a gradient must fill to be added up in it."""


@dataclass(frozen=True, slots=True)
class Root:
    """A value that a kernel computes and stores."""

    var: Var
    kind: RootKind
    origin: tuple[int, ...]
    domain: tuple[int, ...]


@dataclass
class KernelPhase:
    """Roots in one loop nest."""

    roots: list[Root] = field(default_factory=list)
    reads: set[Var] = field(default_factory=set)
    is_sum: bool = False
    is_alone: bool = False
    """A sum over a value that was stored for it: one loop through that value's memory."""

    @property
    def variables(self) -> set[Var]:
        return {r.var for r in self.roots}


@dataclass
class SerialPhase:
    """One operation that one thread runs: a patch, or what has no kernel form."""

    equation: Equation


@dataclass
class ScanPhase:
    """A scan inside the step: a loop that all threads run."""

    equation: Equation


Phase = KernelPhase | SerialPhase | ScanPhase


def root_kind(eqn: Equation, adds: bool) -> RootKind:
    """How a root is computed; what is added to a region loops over the region only."""
    if adds and eqn.primitive is ix.pad:
        return "strided"
    if eqn.primitive is sh.sum_ and not is_short_sum(eqn):
        x = eqn.inputs[0]
        return "sum_all" if len(eqn.params["axes"]) == x.type.ndim else "sum"  # type: ignore
    if eqn.primitive in (ix.pad, ix.update) and has_wide_step(eqn):
        return "strided"
    return "store"


def group(analysis: Analysis, accumulated: frozenset[Var]) -> list[Phase]:
    """The phases of a step in an order that respects what reads what."""
    phases: list[Phase] = []
    made_in: dict[Var, int] = {}
    for eqn in analysis.program.equations:
        name = eqn.primitive.name
        if eqn.primitive.kind == "control":
            phases.append(ScanPhase(eqn))
            made_in.update(dict.fromkeys(eqn.outputs, len(phases) - 1))
            continue
        for var in eqn.outputs:
            if var not in analysis.stored:
                continue
            if is_memory_reshape(eqn):
                made_in[var] = made_in.get(eqn.inputs[0], -1)  # type: ignore[arg-type]
            elif name in PATCHES:
                _place_patch(analysis, eqn, phases, made_in)
            elif is_opaque(eqn):
                phases.append(SerialPhase(eqn))
                made_in[var] = len(phases) - 1
            else:
                _place_root(analysis, eqn, var, phases, made_in, var in accumulated)
    return phases


def _place_patch(
    analysis: Analysis, eqn: Equation, phases: list[Phase], made_in: dict[Var, int]
) -> None:
    """The base is computed (or copied) into the patch's own buffer, then patched."""
    out = eqn.outputs[0]
    phases.append(SerialPhase(eqn))
    made_in[out] = len(phases) - 1


def _place_root(
    analysis: Analysis,
    eqn: Equation,
    var: Var,
    phases: list[Phase],
    made_in: dict[Var, int],
    adds: bool,
) -> None:
    kind = root_kind(eqn, adds)
    if kind == "strided" and eqn.primitive is ix.update:
        phases.append(SerialPhase(eqn))
        made_in[var] = len(phases) - 1
        return
    domain = root_domain(eqn, var)
    usage = analysis.usage(var)
    if kind == "strided":
        domain = eqn.inputs[0].type.shape or (1,)
        usage = analysis.usage_of(eqn.inputs[0], domain)
    origin = (0,) * len(domain)
    reads = {v for v, _ in usage.loads}
    if kind == "sum_all" and eqn.inputs[0] in analysis.forced:
        phases.append(KernelPhase([Root(var, kind, origin, domain)], set(reads), is_alone=True))
        made_in[var] = len(phases) - 1
        return
    for position in range(len(phases) - 1, -1, -1):
        phase = phases[position]
        if isinstance(phase, KernelPhase) and not phase.is_alone:
            found = _origin_in(phase, kind, domain, usage.loads)
            if found is not None and len(phase.roots) < MAX_ROOTS:
                phase.roots.append(Root(var, kind, found, domain))
                phase.reads |= reads - phase.variables
                made_in[var] = position
                return
        if any(made_in.get(v, -1) >= position for v in reads):
            break
    phases.append(KernelPhase([Root(var, kind, origin, domain)], set(reads), kind == "sum"))
    made_in[var] = len(phases) - 1


def _fits(domain: tuple[int, ...], other: tuple[int, ...], kind: RootKind) -> bool:
    """Whether a root may share the loops of another one; what is added up may be smaller."""
    if kind != "strided" or len(domain) != len(other):
        return domain == other
    return all(MIN_SHARE * n <= d <= n for d, n in zip(domain, other, strict=True))


def _origin_in(
    phase: KernelPhase, kind: RootKind, domain: tuple[int, ...], loads: set[tuple[Var, Access]]
) -> tuple[int, ...] | None:
    """Where a root may stand in a kernel: mutual reads must be at identity."""
    if (kind == "sum") != phase.is_sum:
        return None
    inner = [(v, a) for v, a in loads if v in phase.variables]
    if phase.is_sum:
        same = phase.roots[0].domain == domain
        return (0,) * len(domain) if same and not inner else None
    roots = {r.var: r for r in phase.roots}
    origin: tuple[int, ...] | None = None
    for var, access in inner:
        root = roots[var]
        if root.kind != "store" or len(access) != len(domain) or len(root.origin) != len(domain):
            return None
        if any(i.dim != d or i.stride != 1 for d, i in enumerate(access)):
            return None
        wanted = tuple(o + i.constant for o, i in zip(root.origin, access, strict=True))
        if origin is not None and wanted != origin:
            return None
        origin = wanted
    if origin is None:
        fitting = [r for r in phase.roots if _fits(domain, r.domain, kind)]
        if not fitting:
            return None
        origin = min(fitting, key=lambda r: prod(r.domain)).origin
    sums_all = kind == "sum_all" or any(r.kind == "sum_all" for r in phase.roots)
    is_plain = not any(origin) and all(
        r.domain == domain and not any(r.origin) for r in phase.roots
    )
    return None if sums_all and not is_plain else origin
