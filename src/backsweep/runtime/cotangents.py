"""Memory of the cotangents of one reverse sweep."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from backsweep.codegen.buffers import Buffer
from backsweep.ir import ArrayType, Program, evaluate
from backsweep.passes.partition.halo import HaloField
from backsweep.primitives.control import ScanShape
from backsweep.runtime.arrays import view, work_array
from backsweep.runtime.compiled import ReverseSweep
from backsweep.runtime.driver import Pause
from backsweep.runtime.ghosts import Carried
from backsweep.runtime.journal import Event, Point
from backsweep.runtime.sweeper import Sweeper
from backsweep.runtime.watch import Cotangent


class Cotangents:
    """Memory of the cotangents of one reverse sweep."""

    def __init__(
        self,
        sweeper: Sweeper,
        compiled: ReverseSweep,
        step: Program,
        shape: ScanShape,
        consts: Any,
        bars: Any,
        end: int,
        fields: Sequence[HaloField] = (),
    ) -> None:
        self.sweeper, self.compiled, self.shape = sweeper, compiled, shape
        self.consts, self.carry, self.xs = shape.split_inputs(step.in_types)
        ys = shape.split_outputs(step.out_types)[1]
        n = shape.length
        self.first_end = end
        self.n_reverses_before = sweeper.memory.n_reverses
        self._place_bars(bars, consts, end)
        self.carried_bars = CarriedBars(compiled, self.rings, consts, fields)
        for k, (y, value) in enumerate(
            zip(compiled.y_bars, bars[len(compiled.bars) :], strict=True)
        ):
            type = ys[y]
            array = np.ascontiguousarray(value, type.dtype)
            sweeper.bind(f"y_bar{k}", array if array.size else np.zeros(1, type.dtype))
            sweeper.values[f"y_bar_step{k}"] = type.nbytes
        self.const_bars = [
            sweeper.bind(
                f"const_bar{k}", work_array(max(1, self.consts[j].size), _wide(self.consts[j]))
            )
            for k, j in enumerate(compiled.const_bars)
        ]
        self.x_bars = []
        for k, j in enumerate(compiled.x_bars):
            type = self.xs[j]
            array = np.zeros(max(1, n * type.size), type.dtype)
            sweeper.bind(f"x_bar{k}", array)
            sweeper.values[f"x_bar_step{k}"] = type.nbytes
            self.x_bars.append((array, type))
        self._bind_partials()

    def _place_bars(self, bars: Any, consts: Any, n: int) -> None:
        """Each chain is a ring; at step n depth d lies at position n + 1 + d."""
        compiled, self.rings = self.compiled, []
        source = compiled.source.reverse
        assert source is not None
        first = len(source.step.inputs) - len(compiled.y_bars) - compiled.n_bar_inputs
        for c, (chain, size) in enumerate(
            zip(compiled.bar_chains, compiled.bar_sizes, strict=True)
        ):
            k = chain.components[0]
            buffer = source.step.inputs[first + k]
            width = max(16, buffer.n_elements + 64)
            ring = work_array(size * width, buffer.dtype).reshape(size, width)
            self.sweeper.bind(f"bar{c}", ring)
            self.sweeper.values[f"bar_step{c}"] = ring.strides[0]
            self.sweeper.values[f"bar_size{c}"] = size
            if k < len(compiled.bars):
                value = np.asarray(bars[k], buffer.dtype)
            else:
                product = compiled.products[k - len(compiled.bars)]
                value = np.empty(buffer.shape, buffer.dtype)
                bar = np.asarray(bars[product.bar], buffer.dtype)
                product.writer(consts, tuple((0, m) for m in bar.shape), bar, value)()
            inside(ring[n % size], buffer)[...] = value
            self.rings.append((ring, buffer))

    @property
    def n_reversed(self) -> int:
        """Steps reversed by this sweep."""
        return self.sweeper.memory.n_reverses - self.n_reverses_before

    def pause(self, event: Event, consts: Any) -> Pause:
        """Offer a durable point: cotangents of the carry and gradients so far.

        They do not depend on how this sweep keeps them (handed on, multiplied, in rings): a
        sweep with another budget may go on with them.
        """

        def capture() -> tuple[dict[str, Any], dict[str, np.ndarray]]:
            end = self.first_end - self.n_reversed
            arrays = {f"carry_bar{k}": b for k, b in enumerate(self._carry_bars(consts, end))}
            arrays |= {f"const_bar{k}": b for k, b in enumerate(self.const_bars)}
            arrays |= {f"partial{k}": b for k, b in self.partials.items()}
            for k, (array, type) in enumerate(self.x_bars):
                arrays[f"x_bar{k}"] = array[end * type.size : self.shape.length * type.size]
            return {"end": end}, arrays

        def pause() -> None:
            end = self.first_end - self.n_reversed
            # Also before the first step is reversed: a run that goes on may advance for long.
            if end > 0:
                event.offer(capture)

        return pause

    def restore(self, point: Point) -> bool:
        """Take the gradients of a durable point; False if this sweep adds them up otherwise."""
        given = {k: a.shape for k, a in point.arrays.items() if k.startswith(("const", "partial"))}
        own = {f"const_bar{k}": b for k, b in enumerate(self.const_bars)}
        own |= {f"partial{k}": b for k, b in self.partials.items()}
        if given != {k: a.shape for k, a in own.items()}:
            return False
        for name, array in own.items():
            array[...] = point.arrays[name]
        for k, (array, type) in enumerate(self.x_bars):
            n = self.shape.length * type.size
            array[self.first_end * type.size : n] = point.arrays[f"x_bar{k}"]
        return True

    def _carry_bars(self, consts: Any, at: int = 0) -> list[np.ndarray]:
        """Cotangents of the carry at a step; those that were handed on are recovered."""
        found: dict[int, np.ndarray] = {}
        for chain, (ring, buffer) in zip(self.compiled.bar_chains, self.rings, strict=True):
            if chain.components[0] >= len(self.compiled.bars):
                continue
            for depth, k in enumerate(chain.components):
                value = inside(ring[(at + depth) % len(ring)], buffer).copy()
                if k in self.compiled.recover:
                    value = evaluate(self.compiled.recover[k], [*consts, value])[0]
                found[k] = np.asarray(value)
        return [found[k] for k in range(len(found))]

    def _bind_partials(self) -> None:
        """Partial sums of reduced gradients stay through the whole sweep."""
        source = self.compiled.source.reverse
        assert source is not None
        self.partials: dict[int, np.ndarray] = {}
        outputs = {b.number: k for k, b in enumerate(source.step.outputs)}
        for phase in source.step.phases:
            for var, buffer in getattr(phase, "partials", {}).items():
                if var not in source.step.accumulated:
                    continue
                array = np.zeros(buffer.n_elements, buffer.dtype)
                self.sweeper.bind(f"reverse_work{buffer.number}", array)
                self.partials[outputs[source.step.buffers[var].number]] = array

    def seen(self, consts: Any) -> Cotangent:
        """What a watch may look at while the sweep is under way."""

        def gradients(start: int, stop: int) -> tuple[list[Any], list[Any]]:
            totals: list[Any] = [[b] for b in self.const_bars]
            for k, sums in self.partials.items():
                totals[k].append(sums)
            return totals, [[a[start * t.size : stop * t.size]] for a, t in self.x_bars]

        return Cotangent(lambda at: self._carry_bars(consts, at), gradients)

    def collect(self, consts: Any) -> list[np.ndarray]:
        """Cotangents of the active consts, carry and xs."""
        results = []
        for k, (j, total) in enumerate(zip(self.compiled.const_bars, self.const_bars, strict=True)):
            type = self.consts[j]
            if k in self.partials:
                total = total + np.add.accumulate(self.partials[k])[-1]
            results.append(total[: type.size].reshape(type.shape).astype(type.dtype))
        results += self._carry_bars(consts)
        for array, type in self.x_bars:
            n = self.shape.length
            results.append(array[: n * type.size].reshape((n, *type.shape)))
        return results


@dataclass(frozen=True)
class CarriedBars:
    """Cotangents that ranks fetch ghosts of; it knows no sweep, which calls back for it."""

    compiled: ReverseSweep
    rings: Sequence[tuple[np.ndarray, Buffer]]
    given: Any
    fields: Sequence[HaloField]

    def begin(self, n: int) -> Carried:
        """What lies in the rings at step n."""
        return self._carried([inside(r[n % len(r)], b) for r, b in self.rings])

    def at(self, addresses: Sequence[int]) -> Carried:
        """What lies at the addresses of the rings."""
        arrays = [
            inside(view(address, (ring.shape[1],), buffer.dtype), buffer)
            for address, (ring, buffer) in zip(addresses, self.rings, strict=True)
        ]
        return self._carried(arrays)

    def _carried(self, arrays: Sequence[np.ndarray]) -> Carried:
        """Cotangents, None where one is handed on; their products are made again in ghosts."""
        n_bars, products = len(self.compiled.bars), self.compiled.products
        heads = [c.components[0] for c in self.compiled.bar_chains]
        found = dict(zip(heads, arrays, strict=True))
        again = [
            product.writer(self.given, box, found[product.bar], found[n_bars + k])
            for k, product in enumerate(products)
            for f in self.fields
            if f.component == product.bar
            for box in f.ghost_boxes()
        ]
        return Carried([found.get(k) for k in range(n_bars)], again)


def inside(memory: np.ndarray, buffer: Buffer) -> np.ndarray:
    """The value in a flat array with the layout of a buffer; a view."""
    strides = tuple(s * buffer.dtype.itemsize for s in buffer.strides)
    return np.lib.stride_tricks.as_strided(memory[buffer.offset :], buffer.shape, strides)


def _wide(type: ArrayType) -> np.dtype:
    return np.dtype(np.complex128 if type.dtype.kind == "c" else np.float64)
