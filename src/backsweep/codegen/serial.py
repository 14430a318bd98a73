"""Source text of what one thread runs in index order: patches, extrema, running sums."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

from backsweep.codegen.buffers import Buffer
from backsweep.codegen.numba_source import Lines, real_view
from backsweep.codegen.step import LoweredSerial
from backsweep.ir import Equation, Var


def write_serial(
    phase: LoweredSerial, name: str, buffers: Mapping[Var, Buffer]
) -> tuple[str, list[int]]:
    """The function's text and the numbers of the buffers that it takes."""
    eqn, slot = phase.equation, phase.slot
    out = buffers[eqn.outputs[0]]
    operands = [buffers[a] for a in eqn.inputs if isinstance(a, Var)]
    if len(operands) != len(eqn.inputs):
        raise AssertionError("operands of serial operations are stored")
    used = {b.number: b for b in (out, *operands, *([slot] if slot is not None else []))}
    lines = Lines()
    names = "".join(f", {b.name}_" for _, b in sorted(used.items()))
    lines.add("@njit(nogil=True, error_model='numpy')")
    lines.indent(f"def {name}(P64_, P32_{names}):")
    for _, b in sorted(used.items()):
        lines.add(f"{b.name} = {real_view(b.dtype)}({b.name}_)")
    if slot is not None:
        _ask(lines, slot, out, operands)
    else:
        _WRITERS[eqn.primitive.name](lines, eqn, out, operands)
    return "\n".join(lines.text) + "\n", sorted(used)


def _ask(lines: Lines, slot: Buffer, out: Buffer, operands: list[Buffer]) -> None:
    """A collective: tells where its operands and its result are, and calls what runs it."""
    for k, b in enumerate((out, *operands), start=1):
        lines.add(f"{slot.name}[{k}] = {b.name}_ + {b.offset * b.dtype.itemsize}")
    lines.add(f"call_back({slot.name}[0])")


def _parts(buffer: Buffer) -> int:
    return 2 if buffer.dtype.kind == "c" else 1


def _size(shape: tuple[int, ...]) -> int:
    return int(np.prod(shape, dtype=np.int64))


def _scatter(lines: Lines, eqn: Equation, out: Buffer, operands: list[Buffer]) -> None:
    value, indices = operands[1], operands[2:]
    parts = _parts(out)
    rest = _size(out.shape[len(indices) :]) * parts
    sign = "+=" if eqn.primitive.name == "scatter_add" else "="
    lines.indent(f"for k in range({_size(indices[0].shape)}):")
    terms = [
        f"{i.name}[k] * {stride * parts}" for i, stride in zip(indices, out.strides, strict=False)
    ]
    lines.add(f"at = {' + '.join(terms)} + {out.offset * parts}")
    lines.indent(f"for r in range({rest}):")
    lines.add(f"{out.name}[at + r] {sign} {value.name}[k * {rest} + r]")


def _update(lines: Lines, eqn: Equation, out: Buffer, operands: list[Buffer]) -> None:
    value, p, parts = operands[1], eqn.params, _parts(out)
    targets, sources = [str(out.offset * parts)], [str(value.offset * parts)]
    for d, n in enumerate(value.shape):
        lines.indent(f"for i{d} in range({n}):")
        step, start = p["steps"][d], p["starts"][d]
        targets.append(f"({start} + {step} * i{d}) * {out.strides[d] * parts}")
        sources.append(f"i{d} * {value.strides[d] * parts}")
    for part in range(parts):
        target, source = " + ".join([*targets, str(part)]), " + ".join([*sources, str(part)])
        lines.add(f"{out.name}[{target}] = {value.name}[{source}]")


def _cumsum(lines: Lines, eqn: Equation, out: Buffer, operands: list[Buffer]) -> None:
    x, parts = operands[0], _parts(out)
    n = x.shape[-1]
    order = f"range({n - 1}, -1, -1)" if eqn.params["reverse"] else f"range({n})"
    first = n - 1 if eqn.params["reverse"] else 0
    back = 1 if eqn.params["reverse"] else -1
    lines.indent(f"for row in range({_size(x.shape[:-1])}):")
    lines.indent(f"for k in {order}:")
    for part in range(parts):
        at = f"(row * {n} + k) * {parts} + {part}"
        lines.indent(f"if k == {first}:")
        lines.add(f"{out.name}[{at}] = {x.name}[{at}]")
        lines.dedent()
        lines.indent("else:")
        previous = f"(row * {n} + k + {back}) * {parts} + {part}"
        lines.add(f"{out.name}[{at}] = {out.name}[{previous}] + {x.name}[{at}]")
        lines.dedent()


def _extremum(comparison: str, wants_index: bool) -> Callable[..., None]:
    """The first element that attains the extremum; NaN wins, as in NumPy."""

    def write(lines: Lines, eqn: Equation, out: Buffer, operands: list[Buffer]) -> None:
        x = operands[0]
        n = x.shape[-1]
        lines.indent(f"for row in range({_size(x.shape[:-1])}):")
        lines.add(f"best = {x.name}[row * {n}]")
        lines.add("at = 0")
        lines.indent(f"for k in range(1, {n}):")
        lines.add(f"v = {x.name}[row * {n} + k]")
        lines.indent(f"if best == best and (v {comparison} best or v != v):")
        lines.add("best = v")
        lines.add("at = k")
        lines.dedent(2)
        lines.add(f"{out.name}[row] = {'at' if wants_index else 'best'}")

    return write


_WRITERS: dict[str, Callable[..., None]] = {
    "scatter": _scatter,
    "scatter_add": _scatter,
    "update": _update,
    "cumsum": _cumsum,
    "argmax": _extremum(">", True),
    "argmin": _extremum("<", True),
    "reduce_max": _extremum(">", False),
    "reduce_min": _extremum("<", False),
}
