"""Source text of one step: its kernels, its patches, and the barriers between them."""

from __future__ import annotations

from dataclasses import dataclass, field

from backsweep.codegen.buffers import Buffer
from backsweep.codegen.numba_source import KernelWriter, Lines, Parameters, real_view
from backsweep.codegen.serial import write_serial
from backsweep.codegen.step import LoweredKernel, LoweredSerial, LoweredStep
from backsweep.primitives.shape import BLOCK

ALONE_BELOW = 2048
"""Loops over fewer elements are run by one thread."""


@dataclass
class Touch:
    """What a phase reads and writes, by buffer, with the row offsets of the accesses."""

    partition: tuple[str, int]
    reads: dict[int, set[tuple[int, int]]] = field(default_factory=dict)
    writes: dict[int, set[tuple[int, int]]] = field(default_factory=dict)

    def conflicts(self, later: Touch) -> bool:
        """Whether threads must meet between this phase and a later one."""
        pairs = (
            (self.writes, later.reads),
            (self.writes, later.writes),
            (self.reads, later.writes),
        )
        for mine, theirs in pairs:
            for number in mine.keys() & theirs.keys():
                rows = mine[number] | theirs[number]
                if len(rows) > 1 or self.partition != later.partition:
                    return True
        return False


def partition_of(k: LoweredKernel) -> tuple[str, int]:
    """How the rows of a kernel are dealt to threads."""
    size = 1
    for n in k.kernel.domain:
        size *= n
    if size < ALONE_BELOW:
        return "alone", 0
    return ("blocks" if len(k.kernel.domain) == 1 else "rows"), k.kernel.domain[0]


def _touch_kernel(k: LoweredKernel) -> Touch:
    touch = Touch(partition_of(k))

    def row(address: object) -> tuple[int, int]:
        c = address.coefficients[0]  # type: ignore[attr-defined]
        return (c, address.constant // c) if c > 0 else (0, 0)  # type: ignore[attr-defined]

    for box in k.kernel.boxes:
        for node in box.graph.nodes:
            if node.op == "load":
                touch.reads.setdefault(node.data.buffer, set()).add(row(node.data))
            elif node.op == "gather":
                touch.reads.setdefault(node.data[0].buffer, set()).update({(0, 0), (-1, 0)})
        for s in box.statements:
            for a in s.addresses if s.root.kind != "sum_all" else ():
                touch.writes.setdefault(a.buffer, set()).add(row(a))
    for buffer in k.partials.values():
        touch.writes.setdefault(buffer.number, set()).add((BLOCK, 0))
    return touch


def _touch_serial(p: LoweredSerial, numbers: list[int], out: int) -> Touch:
    touch = Touch(("alone", 0))
    for n in numbers:
        touch.reads[n] = {(0, 0)}
    touch.writes[out] = {(0, 0)}
    return touch


@dataclass
class StepSource:
    """Text of a step function and of what it calls.

    Attributes
    ----------
    threads_are_independent : bool
        No thread reads what another one wrote, in this step or in the next.
    """

    name: str
    text: str
    step: LoweredStep
    threads_are_independent: bool


def write_step(step: LoweredStep, name: str, parameters: Parameters) -> StepSource:
    """Write all functions of a step."""
    functions: list[str] = []
    calls = _Calls(step, name)
    for phase in step.phases:
        function = f"{name}_{phase.name}"
        if isinstance(phase, LoweredKernel):
            writer = KernelWriter(phase.kernel, function, step.all_buffers, parameters)
            accumulated = {step.buffers[v].number for v in step.accumulated}
            functions.append(writer.write(accumulated, phase.partials))
            calls.kernel(phase, function, sorted(writer.used))
        else:
            text, numbers = write_serial(phase.equation, function, step.buffers)
            functions.append(text)
            out = step.buffers[phase.equation.outputs[0]].number
            calls.serial(phase, function, numbers, out)
    independent = calls.finish()
    arguments = ", ".join(f"a{b.number}" for b in step.all_buffers)
    head = f"@njit(nogil=True)\ndef {name}(tid, nt, sync, scratch, P64, P32, {arguments}):\n"
    body = "\n".join(calls.lines.text) or "    pass"
    return StepSource(name, "\n".join([*functions, head + body + "\n"]), step, independent)


class _Calls:
    """The body of the step function."""

    def __init__(self, step: LoweredStep, name: str) -> None:
        self.step, self.lines = step, Lines()
        self.lines.depth = 1
        self.since_barrier: list[Touch] = []
        self.touches: list[Touch] = []
        self.n_barriers = 0

    def _before(self, touch: Touch) -> None:
        if any(t.conflicts(touch) for t in self.since_barrier):
            self._barrier()
        self.since_barrier.append(touch)
        self.touches.append(touch)

    def _barrier(self) -> None:
        self.lines.add("barrier(sync, nt)")
        self.since_barrier.clear()
        self.n_barriers += 1

    def kernel(self, phase: LoweredKernel, function: str, numbers: list[int]) -> None:
        self._before(_touch_kernel(phase))
        kind, n = partition_of(phase)
        buffers = self.step.all_buffers
        arguments = "".join(f", p_{real_view(buffers[k].dtype)}(a{k})" for k in numbers)
        lines = self.lines
        if kind == "alone":
            lines.indent("if tid == 0:")
            lines.add(f"{function}(0, {phase.kernel.domain[0]}, scratch, P64, P32{arguments})")
            lines.dedent()
        else:
            unit = BLOCK if kind == "blocks" else 1
            lines.add(f"lo, hi = rows_of({n}, {unit}, tid, nt)")
            lines.add(f"{function}(lo, hi, scratch, P64, P32{arguments})")
        self._finish_sums(phase)

    def _finish_sums(self, phase: LoweredKernel) -> None:
        """Add partial sums in block order; accumulated ones are added after the sweep."""
        todo = [(v, b) for v, b in phase.partials.items() if v not in self.step.accumulated]
        if not todo:
            return
        touch = Touch(("alone", 0))
        for var, partial in todo:
            touch.reads[partial.number] = {(BLOCK, 0)}
            touch.writes[self.step.buffers[var].number] = {(0, 0)}
        self._before(touch)
        self.lines.indent("if tid == 0:")
        for var, partial in todo:
            out: Buffer = self.step.buffers[var]
            n, kind = partial.shape[0], out.dtype.str[1:]
            self.lines.add(f"add_blocks_{kind}(a{out.number}, a{partial.number}, {n})")
        self.lines.dedent()

    def serial(self, phase: LoweredSerial, function: str, numbers: list[int], out: int) -> None:
        self._before(_touch_serial(phase, numbers, out))
        arguments = "".join(f", a{k}" for k in numbers)
        self.lines.indent("if tid == 0:")
        self.lines.add(f"{function}(P64, P32{arguments})")
        self.lines.dedent()

    def finish(self) -> bool:
        """A barrier at the end of the step, unless every thread keeps to its own rows."""
        outer = {b.number for b in (*self.step.inputs, *self.step.outputs)}
        independent = self.n_barriers == 0 and len({t.partition for t in self.touches}) <= 1
        for touch in self.touches:
            for reads in (touch.reads, touch.writes):
                for number in reads.keys() & outer:
                    rows = reads[number]
                    if number in touch.writes or any(c for c, _ in rows):
                        independent &= all(c > 0 and offset == 0 for c, offset in rows)
        if not independent:
            self._barrier()
        return independent
