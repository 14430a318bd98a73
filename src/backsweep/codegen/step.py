"""Lowers one variant of a step: from a program to kernels, patches and buffers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from backsweep.codegen.buffers import Buffer, make_buffer, reshaped
from backsweep.codegen.group import KernelPhase, Phase, Root, ScanPhase, SerialPhase, group
from backsweep.codegen.inner import LoweredScan, inner_reverse, inner_scan
from backsweep.codegen.kernel import Kernel, NeedsStorage, make_kernel
from backsweep.codegen.margins import Margins, Ring, find_margins
from backsweep.codegen.names import safe_name
from backsweep.codegen.plan import Analysis, analyse
from backsweep.codegen.stored import distinct_outputs, operands_in_memory
from backsweep.errors import BacksweepError
from backsweep.ir import ArrayType, Atom, Equation, Program, Var
from backsweep.primitives.access import is_memory_reshape
from backsweep.primitives.gather import is_patch
from backsweep.primitives.shape import BLOCK

SUPPORTED = {"f4", "f8", "c8", "c16", "i8", "i4", "b1"}


class NotLowerable(BacksweepError):
    """A step contains what the code generator cannot compile; it is run by the evaluator."""


@dataclass
class LoweredKernel:
    kernel: Kernel
    partials: dict[Var, Buffer]
    """For sums over everything: one float64 partial sum per block."""
    name: str = ""


@dataclass
class LoweredSerial:
    equation: Equation
    name: str = ""
    slot: Buffer | None = None
    """Of a collective: the address of what runs it, those of its result and its operands."""


@dataclass
class LoweredStep:
    """Everything that the source generator needs to know about a variant.

    Attributes
    ----------
    inputs, outputs : list of Buffer
        In the order of the program's inputs and outputs.
    work : list of Buffer
        Memory that lives through one step (margins and gaps are zeroed once).
    arguments : int
        Number of addresses that the step function takes: inputs, outputs, work.
    """

    program: Program
    analysis: Analysis
    buffers: dict[Var, Buffer]
    inputs: list[Buffer]
    outputs: list[Buffer]
    work: list[Buffer]
    phases: list[LoweredKernel | LoweredSerial | LoweredScan]
    accumulated: frozenset[Var]
    all_buffers: list[Buffer] = field(default_factory=list)
    in_place: frozenset[int] = frozenset()
    """Outputs that are stored over the input that they replace."""


def lower(
    program: Program,
    *,
    accumulate: Sequence[bool] | None = None,
    replace: Mapping[int, int] | None = None,
    rings: Sequence[Ring] = (),
) -> LoweredStep:
    """Lower a canonical program (`passes.canonical`).

    Parameters
    ----------
    program : Program
    accumulate : sequence of bool, optional
        Outputs that are added to what is there (in float64) instead of being stored.
    replace : mapping, optional
        Output -> input that it may be stored over, where every element is read before.
    rings : sequence of Ring
        Inputs and an output that share one layout; it has the margins that their pads need.

    Raises
    ------
    NotLowerable
        If the program holds what cannot be compiled.
    """
    _check_supported(program)
    accumulate = accumulate or [False] * len(program.outputs)
    program = distinct_outputs(operands_in_memory(program), accumulate)
    inner = {e: _lower_inner(e) for e in program.equations if e.primitive.kind == "control"}
    forced: set[Var] = set()
    while True:
        analysis = analyse(program)
        analysis.stored |= forced
        analysis.forced = forced
        try:
            return _lower_once(program, analysis, accumulate, replace or {}, rings, inner)
        except NeedsStorage as needs:
            if needs.var in forced:
                raise NotLowerable(f"{needs.var.type} cannot be stored") from None
            forced.add(needs.var)


def _lower_inner(eqn: Equation) -> LoweredStep:
    scan, kind = eqn.params["scan"], eqn.primitive
    if any(e.primitive.kind == "communication" for e in scan.program.equations):
        raise NotLowerable("a collective in a scan inside a step")
    return lower(scan.program, accumulate=scan.accumulated(kind), rings=scan.rings(kind))


def _check_supported(program: Program) -> None:
    for eqn in program.equations:
        if eqn.primitive.kind == "control" and eqn.primitive not in (inner_scan, inner_reverse):
            raise NotLowerable(f"{eqn.primitive.name} inside a step")
        for v in eqn.outputs:
            if isinstance(v.type, ArrayType) and v.type.dtype.str[1:] not in SUPPORTED:
                raise NotLowerable(f"dtype {v.type.dtype}")


def _replaced(
    program: Program, analysis: Analysis, phases: list[Phase], replace: Mapping[int, int]
) -> dict[int, Var]:
    """Which outputs may be stored over an input: it is read at identity, in the same kernel."""
    owners = _owners(program)
    found: dict[int, Var] = {}
    for k, j in replace.items():
        out, old = program.outputs[k], program.inputs[j]
        if not isinstance(out, Var) or out.type != old.type or old in owners:
            continue
        roots = [
            (phase, root)
            for phase in phases
            if isinstance(phase, KernelPhase)
            for root in phase.roots
            if owners.get(root.var, root.var) is out and root.kind == "store"
        ]
        if len(roots) == 1 and _reads_at(analysis, phases, *roots[0], old):
            found[k] = old
    return found


def _reads_at(
    analysis: Analysis, phases: list[Phase], phase: KernelPhase, root: Root, old: Var
) -> bool:
    for other in phases:
        if not isinstance(other, KernelPhase):
            if old in other.equation.inputs:
                return False
            continue
        for r in other.roots:
            if r.kind == "strided":
                loads = analysis.usage_of(analysis.definitions[r.var].inputs[0], r.domain).loads
            else:
                loads = analysis.usage(r.var).loads
            for var, access in loads:
                if var is not old:
                    continue
                wanted = [a - b for a, b in zip(r.origin, root.origin, strict=False)]
                if other is not phase or len(access) != len(wanted):
                    return False
                found = [(i.dim, i.stride, i.constant) for i in access]
                if found != [(d, 1, c) for d, c in enumerate(wanted)]:
                    return False
    return not any(is_memory_reshape(e) and old in e.inputs for e in analysis.program.equations)


def _lower_once(
    program: Program,
    analysis: Analysis,
    accumulate: Sequence[bool],
    replace: Mapping[int, int],
    rings: Sequence[Ring],
    inner: Mapping[Equation, LoweredStep],
) -> LoweredStep:
    accumulated: frozenset[Var] = frozenset(
        v
        for v, adds in zip(program.outputs, accumulate, strict=True)
        if adds and isinstance(v, Var)
    )
    phases = group(analysis, accumulated)
    replaced = _replaced(program, analysis, phases, replace)
    aliases = {program.outputs[k]: old for k, old in replaced.items()}
    margins = find_margins(program, analysis.stored, _owners(program), rings)
    table = _BufferTable(program, analysis, accumulated, aliases, margins)
    lowered: list[LoweredKernel | LoweredSerial | LoweredScan] = []
    for number, phase in enumerate(phases):
        if isinstance(phase, ScanPhase):
            eqn = phase.equation
            lowered.append(table.scan(eqn, inner[eqn], f"p{number}_{eqn.primitive}"))
            continue
        if isinstance(phase, SerialPhase):
            lowered.append(table.serial(phase.equation, f"p{number}_{phase.equation.primitive}"))
            continue
        kernel = make_kernel(phase, analysis, table.buffers, accumulated)
        partials = {r.var: table.partial(kernel, r.var) for r in kernel.sums if r.kind == "sum_all"}
        if kernel.boxes:
            lowered.append(LoweredKernel(kernel, partials, f"k{number}"))
    outputs = [table.buffers[v] for v in program.outputs]  # type: ignore[index]
    inputs = [table.buffers[v] for v in program.inputs]
    given = {x.number for x in (*inputs, *outputs)}
    work = [x for x in table.all if x.number not in given]
    return LoweredStep(
        program,
        analysis,
        table.buffers,
        inputs,
        outputs,
        work,
        lowered,
        accumulated,
        table.all,
        frozenset(replaced),
    )


class _BufferTable:
    """Assigns memory to stored values."""

    def __init__(
        self,
        program: Program,
        analysis: Analysis,
        accumulated: frozenset[Var],
        aliases: Mapping[Atom, Var],
        margins: Mapping[Var, Margins],
    ) -> None:
        self.all: list[Buffer] = []
        self.buffers: dict[Var, Buffer] = {}
        self._names: set[str] = set()
        for var in program.inputs:
            self._new(var, "x", margins.get(var))
        for out in program.outputs:
            assert isinstance(out, Var)
            if out in aliases:
                self.buffers[out] = self.buffers[aliases[out]]
            else:
                self._new(out, "y", margins.get(out), wide=out in accumulated)
        owners = _owners(program)
        for eqn in program.equations:
            for var in eqn.outputs:
                if var in self.buffers or var not in analysis.stored:
                    continue
                if is_memory_reshape(eqn):
                    source = self.buffers[eqn.inputs[0]]  # type: ignore[index]
                    self.buffers[var] = reshaped(source, var.type.shape, var.type.dtype)  # type: ignore
                    continue
                owner = owners.get(var, var)
                if owner not in self.buffers:
                    self._new(owner, "w", margins.get(owner))
                self.buffers[var] = self.buffers[owner]

    def _new(
        self,
        var: Var,
        prefix: str,
        margins: Margins | None = None,
        wide: bool = False,
    ) -> None:
        type = var.type
        assert isinstance(type, ArrayType)
        dtype = _wide(type.dtype) if wide else type.dtype
        name = self._unique(safe_name(var.name, prefix))
        buffer = make_buffer(len(self.all), name, type.shape, dtype, margins)
        self.all.append(buffer)
        self.buffers[var] = buffer

    def partial(self, kernel: Kernel, var: Var) -> Buffer:
        """Partial sums over blocks of 512 elements."""
        n = int(np.prod(kernel.domain))
        count = -(-n // BLOCK)
        type = var.type
        assert isinstance(type, ArrayType)
        return self._scratch("partial", (count,), _wide(type.dtype))

    def serial(self, eqn: Equation, name: str) -> LoweredSerial:
        """What one thread runs."""
        if eqn.primitive.kind != "communication":
            return LoweredSerial(eqn, name)
        slot = self._scratch("slot", (2 + len(eqn.inputs),), np.dtype(np.int64))
        return LoweredSerial(eqn, name, slot)

    def scan(self, eqn: Equation, inner: LoweredStep, name: str) -> LoweredScan:
        """A scan inside the step, with memory of its own."""
        operands = [self.buffers[v] for v in eqn.inputs]  # type: ignore[index]
        results = [self.buffers[v] for v in eqn.outputs]
        phase = LoweredScan(eqn, eqn.params["scan"], inner, operands, results, name)
        phase.allocate(self._scratch)
        return phase

    def _scratch(self, name: str, shape: tuple[int, ...], dtype: np.dtype) -> Buffer:
        buffer = make_buffer(len(self.all), self._unique(name), shape, dtype)
        self.all.append(buffer)
        return buffer

    def _unique(self, name: str) -> str:
        candidate, k = name, 0
        while candidate in self._names:
            k += 1
            candidate = f"{name}{k}"
        self._names.add(candidate)
        return candidate


def _owners(program: Program) -> dict[Var, Var]:
    """Patches work in place: base and result share the memory of the last one."""
    owners: dict[Var, Var] = {}
    inputs = set(program.inputs)
    for eqn in reversed(program.equations):
        if is_patch(eqn):
            base, out = eqn.inputs[0], eqn.outputs[0]
            assert isinstance(base, Var)
            owners[base] = owners.get(out, out)
    for eqn in program.equations:
        if is_patch(eqn) and (eqn.inputs[0] in inputs or eqn.inputs[0] in owners):
            base = eqn.inputs[0]
            assert isinstance(base, Var)
            if base in inputs:
                last = owners[base]
                owners.update({v: base for v, o in owners.items() if o is last})
                owners[last] = base
    return owners


def _wide(dtype: np.dtype) -> np.dtype:
    if dtype.kind == "c":
        return np.dtype(np.complex128)
    return np.dtype(np.float64) if dtype.kind == "f" else dtype


__all__ = ["KernelPhase", "LoweredStep", "NotLowerable", "Phase", "Ring", "lower"]
