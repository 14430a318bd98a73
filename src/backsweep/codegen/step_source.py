"""Source text of one step: its kernels, its patches, and the barriers between them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

from backsweep.codegen.buffers import Buffer
from backsweep.codegen.inner import LoweredScan
from backsweep.codegen.inner_source import write_scan
from backsweep.codegen.numba_source import KernelWriter, Lines, Parameters, real_view
from backsweep.codegen.overlap import Travelling
from backsweep.codegen.serial import write_serial
from backsweep.codegen.step import LoweredKernel, LoweredStep
from backsweep.codegen.touch import (
    ALONE,
    ANYWHERE,
    Strips,
    Touch,
    strips,
    touch_kernel,
    touch_scan,
    touch_serial,
)
from backsweep.primitives.shape import BLOCK


@dataclass
class StepSource:
    """Text of a step function and of what it calls."""

    name: str
    text: str
    step: LoweredStep
    travelling: Travelling | None = None
    """What messages travel about while it computes."""


def write_step(
    step: LoweredStep, name: str, parameters: Parameters, travelling: Travelling | None = None
) -> StepSource:
    """Write all functions of a step; messages may travel meanwhile if a kernel can be divided."""
    functions: list[str] = []
    todo: list[Callable[[_Calls], None]] = []
    for phase in step.phases:
        function = f"{name}_{phase.name}"
        if isinstance(phase, LoweredKernel):
            writer = KernelWriter(phase.kernel, function, step.all_buffers, parameters)
            accumulated = {step.buffers[v].number for v in step.accumulated}
            functions.append(writer.write(accumulated, phase.partials))
            todo.append(partial(_Calls.kernel, phase=phase, function=function, writer=writer))
        elif isinstance(phase, LoweredScan):
            inner = write_step(phase.inner, f"{function}_step", parameters)
            functions += [inner.text, write_scan(phase, function, inner.name)]
            todo.append(partial(_Calls.scan, phase=phase, function=function))
        else:
            text, numbers = write_serial(phase, function, step.buffers)
            functions.append(text)
            out = step.buffers[phase.equation.outputs[0]].number
            todo.append(partial(_Calls.serial, function=function, numbers=numbers, out=out))
    calls = _written(todo, _Calls(step, travelling))
    if calls.divided is None and travelling is not None:
        calls = _written(todo, _Calls(step, None))
    arguments = [f"a{b.number}" for b in step.all_buffers]
    if calls.divided is not None:
        arguments += calls.divided.names()
    head = f"@njit(nogil=True)\ndef {name}(tid, nt, sync, scratch, P64, P32"
    head += f", {', '.join(arguments)}):\n"
    body = "\n".join(calls.lines.text) or "    pass"
    text = "\n".join([*functions, head + body + "\n"])
    return StepSource(name, text, step, calls.divided)


def _written(todo: Sequence[Callable[[_Calls], None]], calls: _Calls) -> _Calls:
    for write in todo:
        write(calls)
    calls.finish()
    return calls


@dataclass
class _KernelCall:
    """A kernel that is not yet written: the next one may follow it strip by strip."""

    phase: LoweredKernel
    touch: Touch
    text: str


class _Calls:
    """The body of the step function."""

    def __init__(self, step: LoweredStep, travelling: Travelling | None) -> None:
        self.step, self.lines = step, Lines()
        self.wish = travelling
        """What might travel meanwhile."""
        self.divided: Travelling | None = None
        """What does, because a kernel has been divided."""
        self.lines.depth = 1
        self.since_barrier: list[Touch] = []
        self.touches: list[Touch] = []
        self.n_barriers = 0
        self.waiting: _KernelCall | None = None

    def _before(self, touch: Touch) -> None:
        self._await(touch)
        if any(t.conflicts(touch) for t in self.since_barrier):
            self._barrier()
        self.since_barrier.append(touch)
        self.touches.append(touch)

    def _await(self, touch: Touch) -> None:
        """What reads an array about which messages travel has to wait for them."""
        if self.wish is not None and not self.wish.is_early and self.wish.meets(touch):
            self.wish = None

    def _barrier(self) -> None:
        self.lines.add("barrier(sync, nt)")
        self.since_barrier.clear()
        self.n_barriers += 1

    def kernel(self, phase: LoweredKernel, function: str, writer: KernelWriter) -> None:
        buffers, numbers = self.step.all_buffers, sorted(writer.used)
        arguments = "".join(f", p_{real_view(buffers[k].dtype)}(a{k})" for k in numbers)
        text = f"{function}({{}}, {{}}, scratch, P64, P32{arguments})"
        call = _KernelCall(phase, touch_kernel(phase), text)
        before = self.waiting
        if before is not None:
            found = strips(before.touch, call.touch, self._row_bytes(), _domains(before, call))
            if found is not None:
                self.waiting = None
                self._write_strips(before, call, found)
                return
        self._flush()
        if call.touch.partition[0] == "rows" and not phase.partials:
            self.waiting = call
        else:
            self._write_kernel(call)

    def _row_bytes(self) -> dict[int, int]:
        return {
            b.number: b.strides[0] * b.dtype.itemsize if len(b.shape) > 1 else 0
            for b in self.step.all_buffers
        }

    def _flush(self) -> None:
        if self.waiting is not None:
            call, self.waiting = self.waiting, None
            self._write_kernel(call)

    def _write_kernel(self, call: _KernelCall) -> None:
        kind, n = call.touch.partition
        lines = self.lines
        if bounds := self._division(call):
            self._write_divided(call, bounds)
            return
        self._before(call.touch)
        if kind == "alone":
            lines.indent("if tid == 0:")
            lines.add(call.text.format(0, call.phase.kernel.domain[0]))
            lines.dedent()
        else:
            unit = BLOCK if kind == "blocks" else 1
            lines.add(f"lo, hi = rows_of({n}, {unit}, tid, nt)")
            lines.add(call.text.format("lo", "hi"))
        self._finish_sums(call.phase)

    def _division(self, call: _KernelCall) -> tuple[str, str] | None:
        """Between which rows of a kernel messages may travel; None if it is not to be divided."""
        wish = self.wish
        if wish is None or call.phase.partials:
            return None
        if wish.is_early and call.phase is not last_writer(self.step, wish):
            return None
        return wish.bounds(call.touch, {b.number: b for b in self.step.all_buffers})

    def _write_divided(self, call: _KernelCall, bounds: tuple[str, str]) -> None:
        travelling, self.wish = self.wish, None
        assert travelling is not None
        self.divided = travelling
        self._before(call.touch)
        travelling.write(self.lines, call.text, call.touch.partition[1], *bounds)

    def _write_strips(self, a: _KernelCall, b: _KernelCall, s: Strips) -> None:
        """B follows A in strips of rows; rows of A that a neighbour needs come first."""
        for touch in (a.touch, b.touch):
            self._await(touch)
        self._before(a.touch)
        lines = self.lines
        lines.add(f"lo, hi = rows_of({s.n_b}, 1, tid, nt)")
        lines.add(f"a_lo, a_hi = rows_between({s.n_a}, lo, hi, {s.shift}, tid, nt)")
        lines.add("done, last = a_lo, a_hi")
        lines.indent(f"if nt > 1 and nt * {2 * (s.last - s.first + 1)} <= {min(s.n_a, s.n_b)}:")
        lines.add(f"done, last = min(a_lo + {s.last - s.shift}, a_hi), a_hi - {s.shift - s.first}")
        lines.add("last = max(done, last)")
        lines.add(a.text.format("a_lo", "done"))
        lines.add(a.text.format("last", "a_hi"))
        lines.add("barrier(sync, nt)")
        lines.dedent()
        lines.indent("elif nt > 1:")
        lines.add(a.text.format("a_lo", "a_hi"))
        lines.add("done = last")
        lines.add("barrier(sync, nt)")
        lines.dedent()
        lines.indent(f"for b_lo in range(lo, hi, {s.rows}):")
        lines.add(f"b_hi = min(b_lo + {s.rows}, hi)")
        lines.add(f"needed = last if b_hi == hi else min(last, b_hi + {s.last})")
        lines.indent("if needed > done:")
        lines.add(a.text.format("done", "needed"))
        lines.add("done = needed")
        lines.dedent()
        lines.add(b.text.format("b_lo", "b_hi"))
        lines.dedent()
        self.n_barriers += 1
        self.since_barrier = [
            Touch(("strips", s.n_a), a.touch.reads, a.touch.writes),
            Touch(("strips", s.n_b), b.touch.reads, b.touch.writes),
        ]
        self.touches.append(b.touch)
        self._finish_sums(b.phase)

    def _finish_sums(self, phase: LoweredKernel) -> None:
        """Add partial sums in block order; accumulated ones are added after the sweep."""
        todo = [(v, b) for v, b in phase.partials.items() if v not in self.step.accumulated]
        if not todo:
            return
        touch = Touch(ALONE)
        for var, sums in todo:
            touch.reads[sums.number] = {(BLOCK, 0)}
            touch.writes[self.step.buffers[var].number] = ANYWHERE
        self._before(touch)
        self.lines.indent("if tid == 0:")
        for var, sums in todo:
            out: Buffer = self.step.buffers[var]
            n, kind = sums.shape[0], out.dtype.str[1:]
            self.lines.add(f"add_blocks_{kind}(a{out.number}, a{sums.number}, {n})")
        self.lines.dedent()

    def serial(self, function: str, numbers: list[int], out: int) -> None:
        self._flush()
        self._before(touch_serial(numbers, out))
        arguments = "".join(f", a{k}" for k in numbers)
        self.lines.indent("if tid == 0:")
        self.lines.add(f"{function}(P64, P32{arguments})")
        self.lines.dedent()

    def scan(self, phase: LoweredScan, function: str) -> None:
        self._flush()
        self._before(touch_scan(phase))
        arguments = "".join(f", a{k}" for k in phase.numbers())
        self.lines.add(f"{function}(tid, nt, sync, scratch, P64, P32{arguments})")
        self.n_barriers += 1  # there are some inside: no thread may run ahead into the next step

    def finish(self) -> None:
        """A barrier at the end of the step, unless every thread keeps to its own rows."""
        self._flush()
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


def last_writer(step: LoweredStep, travelling: Travelling) -> object:
    """The last phase that writes to the arrays."""
    found = None
    for phase in step.phases:
        if isinstance(phase, LoweredKernel):
            writes = set(touch_kernel(phase).writes)
        elif isinstance(phase, LoweredScan):
            writes = set(touch_scan(phase).writes)
        else:
            writes = {step.buffers[phase.equation.outputs[0]].number}
        if writes & travelling.components.keys():
            found = phase
    return found


def _domains(a: _KernelCall, b: _KernelCall) -> tuple[tuple[int, ...], ...]:
    return a.phase.kernel.domain, b.phase.kernel.domain
