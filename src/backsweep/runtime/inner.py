"""Scans inside a step: from nested programs to what can be lowered.

`lowerable` is the last thing that happens to a program before `codegen.step.lower`: calls are
inlined, the program is canonicalised, and each scan in it becomes an equation that holds the
canonical program of its own step (`codegen.inner`), to any depth.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from backsweep.codegen.inner import InnerScan, inner_reverse, inner_scan, positions
from backsweep.codegen.step import NotLowerable
from backsweep.codegen.sweep_source import Chain, find_chains
from backsweep.ir import ArrayType, Atom, Builder, Equation, Primitive, Program, Var
from backsweep.passes import simplify, vjp_program
from backsweep.passes.canonical import canonicalize
from backsweep.passes.inline import inline_calls
from backsweep.primitives import control as c
from backsweep.primitives import elementwise as ew
from backsweep.primitives import index as ix
from backsweep.runtime.checkpointing import Checkpointing, format_bytes


def forward_program(
    step: Program, shape: c.ScanShape, chains: tuple[Chain, ...], ys: bool
) -> Program:
    """consts, carry, x -> heads of chains, ys."""
    heads = tuple(step.outputs[c.components[0]] for c in chains)
    records = tuple(step.outputs[shape.n_carry :]) if ys else ()
    return simplify(Program(step.inputs, step.equations, (*heads, *records), "forward"))


def lowerable(program: Program, owned: Sequence[bool] | None = None) -> Program:
    """The program in canonical form, with scans that can be lowered.

    Raises
    ------
    NotLowerable
        If an inner scan has wishes of its own about its snapshots.
    """
    program = canonicalize(inline_calls(program), owned)
    if not any(e.primitive.kind == "control" for e in program.equations):
        return program
    return _Nester(program).run()


def check_inner_bytes(step: Program, available: Callable[[], int]) -> None:
    """Refuse a step whose scans would keep more states than memory allows.

    `available` looks up the memory that is left, which takes longer than a small sweep: it is
    asked only where there are such scans.

    Raises
    ------
    NotLowerable
        The Python executor runs such a step: its inner scans plan their own snapshots.
    """
    n_bytes = inner_bytes(step)
    limit = available() // 2 if n_bytes else 0
    if n_bytes > limit:
        raise NotLowerable(
            f"the states of the scans inside a step take {format_bytes(n_bytes)}, more than "
            f"{format_bytes(limit)}, half of the memory that is left"
        )


def inner_bytes(program: Program) -> int:
    """Bytes of the trajectories of the scans inside a step."""
    total = 0
    for eqn in inline_calls(program).equations:
        if eqn.primitive.kind == "control":
            shape, step = c.scan_shape(eqn.params), eqn.params["step"]
            types = shape.split_inputs(step.in_types)[1]
            chains = find_chains(step, shape.n_consts, shape.n_carry)
            total += sum(_trajectory(types, chain, shape.length).nbytes for chain in chains)
            total += inner_bytes(step)
    return total


def _trajectory(types: Sequence[Any], chain: Chain, length: int) -> ArrayType:
    return positions(types[chain.components[0]], length + len(chain.components))


def _check_request(request: Checkpointing | None) -> None:
    if request is None or request == _STORE_ALL:
        return
    raise NotLowerable(
        "a scan inside the step has a checkpointing of its own; inside a compiled step every "
        "state of it is kept: leave checkpointing out, or use schedule='store_all'"
    )


_STORE_ALL = Checkpointing(schedule="store_all")


@dataclass
class _Nester:
    """Rewrites one canonical program."""

    program: Program
    builder: Builder = field(default_factory=Builder)
    trajectories: dict[Var, tuple[tuple[Var, ...], tuple[Chain, ...]]] = field(default_factory=dict)
    copies: dict[Atom, Atom] = field(default_factory=dict)
    """Values that a scan reads or makes, for the pads that read them as well."""

    def run(self) -> Program:
        program, b = self.program, self.builder
        b.inputs = list(program.inputs)
        uses = Counter(a for e in program.equations for a in e.inputs)
        uses.update(program.outputs)
        self.used = set(uses)
        pads = Counter(e.inputs[0] for e in program.equations if e.primitive is ix.pad)
        self.padded = {v for v, n in pads.items() if n > 1}
        for eqn in program.equations:
            b.source = eqn.source
            if eqn.primitive is ix.pad and eqn.inputs[0] in self.copies:
                eqn = eqn.replace_inputs((self.copies[eqn.inputs[0]],))
            if eqn.primitive.kind != "control":
                b.equations.append(eqn)
            elif eqn.primitive is c.scan_reverse:
                self._reverse(eqn)
            else:
                self._forward(eqn)
        return b.build(program.outputs, program.name)

    def _operand(self, atom: Atom) -> Atom:
        """A value in plain memory, without the margins that pads ask for."""
        if atom in self.padded and atom not in self.copies:
            return self._copy(atom)
        return atom

    def _copy(self, atom: Atom) -> Atom:
        return self.builder(ew.cast, atom, dtype=atom.type.dtype)  # type: ignore

    def _emit(self, primitive: Primitive, ins: Any, scan: InnerScan, outs: Sequence[Var]) -> None:
        inputs = tuple(self._operand(a) for a in ins)
        params = {"scan": scan, "out_types": tuple(v.type for v in outs)}
        source = self.builder.source
        self.builder.equations.append(Equation(primitive, inputs, params, tuple(outs), source))
        for v in outs:
            if v in self.padded:
                self.copies[v] = self._copy(v)

    def _forward(self, eqn: Equation) -> None:
        p, shape = eqn.params, c.scan_shape(eqn.params)
        _check_request(p.get("checkpointing"))
        step, outputs = p["step"], list(eqn.outputs)
        track = outputs.pop() if eqn.primitive is c.scan_forward else None
        carry, ys = shape.split_outputs(outputs)
        live = tuple(
            a for a, v in zip(step.outputs[shape.n_carry :], ys, strict=True) if v in self.used
        )
        step = Program(step.inputs, step.equations, (*step.outputs[: shape.n_carry], *live))
        chains = find_chains(step, shape.n_consts, shape.n_carry)
        finals = tuple(j for j, v in enumerate(carry) if v in self.used)
        stacks: tuple[Var, ...] = ()
        if track is not None:
            types = shape.split_inputs(step.in_types)[1]
            stacks = tuple(
                Var(_trajectory(types, chain, shape.length), "states") for chain in chains
            )
            self.trajectories[track] = stacks, chains
        scan = InnerScan(
            lowerable(forward_program(step, shape, chains, True)),
            shape.length,
            shape.n_consts,
            shape.n_carry,
            len(step.inputs) - shape.n_consts - shape.n_carry,
            tuple(chain.components for chain in chains),
            keeps=track is not None,
            finals=finals,
        )
        outs = [*(carry[j] for j in finals), *(v for v in ys if v in self.used), *stacks]
        if outs:
            self._emit(inner_scan, eqn.inputs, scan, outs)

    def _reverse(self, eqn: Equation) -> None:
        p, shape = eqn.params, c.scan_shape(eqn.params)
        step, track = p["step"], eqn.inputs[0]
        assert isinstance(track, Var)
        n_xs = len(step.inputs) - shape.n_consts - shape.n_carry
        outs = iter(eqn.outputs)
        wanted = [next(outs) if is_active else None for is_active in p["active_in"]]
        consts, carry, xs = shape.split_inputs(wanted)
        kept = [
            *(v is not None and v in self.used for v in consts),
            *(v is not None for v in carry),
            *(v is not None and v in self.used for v in xs),
        ]
        stacks, chains = self.trajectories[track]
        n_bars = sum(v is not None for v in carry)
        n_const_bars = sum(kept[: shape.n_consts])
        program = _adjoint(p, kept)
        before = [False] * len(step.inputs)
        owned = [k < n_bars for k in range(len(program.inputs) - len(before))]
        scan = InnerScan(
            lowerable(program, [*before, *owned]),
            shape.length,
            shape.n_consts,
            shape.n_carry,
            n_xs,
            tuple(chain.components for chain in chains),
            n_const_bars=n_const_bars,
            n_bars=n_bars,
        )
        ins = (*stacks, *eqn.inputs[1:])
        outs_kept = [v for v, k in zip(wanted, kept, strict=True) if k and v is not None]
        self._emit(inner_reverse, ins, scan, outs_kept)


def _adjoint(p: Any, kept: Sequence[bool]) -> Program:
    """The adjoint step of a scan, for some of the active inputs."""
    given = p.get("adjoint")
    if given is None:
        return vjp_program(p["step"], kept, p["active_out"], "reverse")
    active = [k for k, is_active in zip(kept, p["active_in"], strict=True) if is_active]
    outputs = tuple(a for a, k in zip(given.outputs, active, strict=True) if k)
    return simplify(Program(given.inputs, given.equations, outputs, "reverse"))
