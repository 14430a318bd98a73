"""Source text of a scan inside a step: the loop around its lowered step."""

from __future__ import annotations

from backsweep.codegen.buffers import Buffer
from backsweep.codegen.inner import LoweredScan
from backsweep.codegen.numba_source import Lines
from backsweep.codegen.step import LoweredKernel


def write_scan(phase: LoweredScan, name: str, step: str) -> str:
    """The function that calls `step` again and again."""
    writer = _ScanWriter(phase, step)
    lines = writer.lines
    arguments = "".join(f", a{k}" for k in phase.numbers())
    lines.add("@njit(nogil=True)")
    lines.indent(f"def {name}(tid, nt, sync, scratch, P64, P32{arguments}):")
    if phase.is_reverse:
        writer.reverse()
    else:
        writer.forward()
    return "\n".join(lines.text) + "\n"


def _bytes(buffer: Buffer) -> int:
    """From one position of a stack to the next."""
    return buffer.strides[0] * buffer.dtype.itemsize


def _has_margins(buffer: Buffer) -> bool:
    return any(m != (0, 0) for m in buffer.margins)


def _part(n: int) -> str:
    """The rows of one thread."""
    return f"{n} * tid // nt, {n} * (tid + 1) // nt"


class _ScanWriter:
    """The body of the function; a value is known by the text of its address."""

    def __init__(self, phase: LoweredScan, step: str) -> None:
        self.phase, self.step = phase, step
        self.scan, self.inner = phase.scan, phase.inner
        self.lines = Lines()

    def _at(self, stack: Buffer, position: str) -> str:
        return f"a{stack.number} + {position} * {_bytes(stack)}"

    def _all(self, call: str) -> None:
        """A call in which each thread does its part."""
        self.lines.add(f"{call}, tid, nt)")

    def _barrier(self) -> None:
        self.lines.add("barrier(sync, nt)")

    def _call(self, inputs: list[str], outputs: list[str]) -> None:
        known = {b.number: f"a{own.number}" for b, own in self._pairs_of_work()}
        known |= dict(zip((b.number for b in self.inner.inputs), inputs, strict=True))
        known |= dict(zip((b.number for b in self.inner.outputs), outputs, strict=True))
        arguments = ", ".join(known[b.number] for b in self.inner.all_buffers)
        self.lines.add(f"{self.step}(tid, nt, sync, scratch, P64, P32, {arguments})")

    def _pairs_of_work(self) -> list[tuple[Buffer, Buffer]]:
        return [(b, self.phase.work[b.number]) for b in self.inner.work]

    # ------------------------------------------------------------------ forward

    def forward(self) -> None:
        """States rotate by address, as in the outer sweep."""
        scan, lines, phase = self.scan, self.lines, self.phase
        n = scan.n_consts
        consts, init, xs = (
            phase.operands[:n],
            phase.operands[n : n + scan.n_carry],
            phase.operands[n + scan.n_carry :],
        )
        n_finals = len(scan.finals)
        finals = dict(zip(scan.finals, phase.results[:n_finals], strict=True))
        n_ys = len(self.inner.outputs) - len(scan.chains)
        ys = phase.results[n_finals : n_finals + n_ys]
        stacks = phase.results[n_finals + n_ys :] if scan.keeps else phase.rings
        for j, b in enumerate(init):
            lines.add(f"c{j} = a{b.number}")
        if scan.keeps:
            self._keep_first(init, stacks)
        lines.indent(f"for n in range({scan.length}):")
        for k, chain in enumerate(scan.chains):
            lines.add(f"o{k} = {self._head(stacks[k], chain, finals)}")
        inputs = [f"a{b.number}" for b in consts] + [f"c{j}" for j in range(scan.n_carry)]
        inputs += [self._at(x, "n") for x in xs]
        outputs = [f"o{k}" for k in range(len(scan.chains))] + [self._at(y, "n") for y in ys]
        self._call(inputs, outputs)
        for k, chain in enumerate(scan.chains):
            for older, newer in zip(reversed(chain[1:]), reversed(chain[:-1]), strict=True):
                lines.add(f"c{older} = c{newer}")
            lines.add(f"c{chain[0]} = o{k}")
        lines.dedent()
        self._copy_finals(finals)

    def _keep_first(self, init: list[Buffer], stacks: list[Buffer]) -> None:
        for stack, chain in zip(stacks, self.scan.chains, strict=True):
            for depth, j in enumerate(chain):
                at = self._at(stack, str(len(chain) - 1 - depth))
                self._all(f"copy_exactly({at}, a{init[j].number}, {init[j].nbytes}")

    def _head(self, stack: Buffer, chain: tuple[int, ...], finals: dict[int, Buffer]) -> str:
        """Where a step stores the new value of a chain: the last one goes to the result."""
        if self.scan.keeps:
            return self._at(stack, f"(n + {len(chain)})")
        ring = self._at(stack, f"(n % {stack.shape[0]})")
        last = finals.get(chain[0])
        return f"a{last.number} if n == {self.scan.length - 1} else {ring}" if last else ring

    def _copy_finals(self, finals: dict[int, Buffer]) -> None:
        heads = set() if self.scan.keeps else {c[0] for c in self.scan.chains}
        todo = {j: b for j, b in finals.items() if j not in heads}
        if todo:
            self._barrier()
        for j, b in todo.items():
            self._all(f"copy_exactly(a{b.number}, c{j}, {b.nbytes}")

    # ------------------------------------------------------------------ reverse

    def reverse(self) -> None:
        """Backwards along the trajectories; constants' cotangents add up in float64."""
        scan, lines, phase = self.scan, self.lines, self.phase
        supply = iter(phase.operands)
        stacks = [next(supply) for _ in scan.chains]
        consts = [next(supply) for _ in range(scan.n_consts)]
        xs = [next(supply) for _ in range(scan.n_xs)]
        bars = [next(supply) for _ in range(scan.n_bars)]
        y_bars = list(supply)
        n = scan.n_const_bars + scan.n_bars
        sums = [phase.totals.get(k, b) for k, b in enumerate(phase.results[: scan.n_const_bars])]
        new_bars, x_bars = phase.results[scan.n_const_bars : n], phase.results[n:]
        partials = self._partials()
        for b in (*sums, *partials.values()):
            self._all(f"fill_zero(a{b.number}, {b.nbytes}")
        first = scan.n_consts + scan.n_carry + scan.n_xs
        layouts = self.inner.inputs[first : first + scan.n_bars]
        for ring, bar, layout in zip(phase.rings, bars, layouts, strict=True):
            self._copy(layout, self._at(ring, str(scan.length % 2)), bar, f"a{bar.number}")
        self._barrier()
        lines.indent(f"for n in range({scan.length - 1}, -1, -1):")
        states = {
            j: self._at(stack, f"(n + {len(chain) - 1 - depth})")
            for stack, chain in zip(stacks, scan.chains, strict=True)
            for depth, j in enumerate(chain)
        }
        inputs = [f"a{b.number}" for b in consts] + [states[j] for j in range(scan.n_carry)]
        inputs += [self._at(x, "n") for x in xs]
        inputs += [self._at(ring, "((n + 1) % 2)") for ring in phase.rings]
        inputs += [self._at(y, "n") for y in y_bars]
        outputs = [f"a{b.number}" for b in sums]
        in_ring = [_has_margins(b) for b in layouts]
        for k, (ring, bar) in enumerate(zip(phase.rings, new_bars, strict=True)):
            last = "" if in_ring[k] else f"a{bar.number} if n == 0 else "
            lines.add(f"o{k} = {last}{self._at(ring, '(n % 2)')}")
            outputs.append(f"o{k}")
        self._call(inputs, outputs + [self._at(x, "n") for x in x_bars])
        lines.dedent()
        if partials or phase.totals or any(in_ring):
            self._barrier()
        for ring, bar, layout in zip(phase.rings, new_bars, layouts, strict=True):
            if _has_margins(layout):
                self._copy(bar, f"a{bar.number}", layout, self._at(ring, "0"))
        self._finish_sums(partials)

    def _copy(self, target: Buffer, to: str, source: Buffer, from_: str) -> None:
        """Copy a value between two layouts, row by row where one of them has margins."""
        if not (_has_margins(target) or _has_margins(source)):
            self._all(f"copy_exactly({to}, {from_}, {source.nbytes}")
            return
        size, rows = source.dtype.itemsize, source.shape[:-1]
        texts = []
        for text, b in ((to, target), (from_, source)):
            terms = [f"k{d} * {s * size}" for d, s in enumerate(b.strides[:-1])]
            texts.append(" + ".join([text, str(b.offset * size), *terms]))
        for d, n in enumerate(rows):
            self.lines.indent(f"for k{d} in range({_part(n) if d == 0 else n}):")
        who = "0, 1" if rows else "tid, nt"
        self.lines.add(f"copy_exactly({texts[0]}, {texts[1]}, {source.shape[-1] * size}, {who})")
        self.lines.dedent(len(rows))

    def _partials(self) -> dict[int, Buffer]:
        """Partial sums of reduced cotangents, by number of the inner output."""
        inner, found = self.inner, {}
        place = {b.number: k for k, b in enumerate(inner.outputs)}
        for p in inner.phases:
            for var, partial in p.partials.items() if isinstance(p, LoweredKernel) else ():
                if var in inner.accumulated:
                    found[place[inner.buffers[var].number]] = self.phase.work[partial.number]
        return found

    def _finish_sums(self, partials: dict[int, Buffer]) -> None:
        for k, total in self.phase.totals.items():
            if k not in partials:
                n = total.nbytes // 8
                self._all(f"narrow(a{self.phase.results[k].number}, a{total.number}, {n}")
        if partials:
            self.lines.indent("if tid == 0:")
            for k, partial in partials.items():
                out, n = self.phase.results[k], partial.shape[0]
                kind = out.dtype.str[1:]
                self.lines.add(f"add_blocks_{kind}(a{out.number}, a{partial.number}, {n})")
            self.lines.dedent()
