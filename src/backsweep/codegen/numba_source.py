"""Numba source text of kernels (DESIGN 5: the rules with their measured reasons)."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from backsweep.codegen.buffers import Buffer
from backsweep.codegen.graph import Address, Node
from backsweep.codegen.kernel import BoxCode, Kernel, Statement
from backsweep.primitives.ops import BASIC
from backsweep.primitives.shape import BLOCK

_MODULUS = 1 << 64
_VIEWS = {"f8": "f64", "f4": "f32", "i8": "i64", "i4": "i32", "b1": "u8"}
_CASTS = {"f8": "float64", "f4": "float32", "i8": "int64", "i4": "int32", "b1": "bool"}


def unsigned(value: int) -> str:
    """A wrapped unsigned constant: signed indices are not vectorised."""
    return f"U({value % _MODULUS})"


def real_view(dtype: np.dtype) -> str:
    """The name of the view function; complex memory is viewed as pairs of reals."""
    if dtype.kind == "c":
        return _VIEWS[f"f{dtype.itemsize // 2}"]
    return _VIEWS[dtype.str[1:]]


@dataclass
class Parameters:
    """Float constants by value: they are passed at run time and never enter the source."""

    values: dict[str, list[Any]] = field(default_factory=lambda: {"f8": [], "f4": []})

    def index(self, kind: str, data: tuple[bytes, Any]) -> int:
        known = self.values[kind]
        if data not in known:
            known.append(data)
        return known.index(data)

    def arrays(self) -> tuple[np.ndarray, np.ndarray]:
        """The parameter vectors, float64 and float32."""
        return tuple(  # type: ignore[return-value]
            np.array([v for _, v in self.values[k]] or [0.0], dtype=k) for k in ("f8", "f4")
        )


class Lines:
    """Source lines with indentation."""

    def __init__(self) -> None:
        self.text: list[str] = []
        self.depth = 0

    def add(self, line: str) -> None:
        self.text.append("    " * self.depth + line)

    def indent(self, header: str) -> None:
        self.add(header)
        self.depth += 1

    def dedent(self, by: int = 1) -> None:
        self.depth -= by


class KernelWriter:
    """Writes one kernel function."""

    def __init__(self, kernel: Kernel, name: str, buffers: list[Buffer], parameters: Parameters):
        self.kernel, self.name, self.buffers = kernel, name, buffers
        self.parameters = parameters
        self.used: dict[int, Buffer] = {}
        self.used_parameters: dict[tuple[str, int], str] = {}
        self.lines = Lines()
        self.n_dims = len(kernel.domain)

    def write(self, accumulated: set[int], partials: dict[Any, Buffer]) -> str:
        """The function's text; afterwards `used` says which buffers it takes."""
        self.accumulated, self.partials = accumulated, partials
        for buffer in partials.values():
            self.used[buffer.number] = buffer
        self.lines.depth = 1
        for rows in self._boxes_by_rows():
            self._row_loop(rows)
        body = self.lines.text
        head = Lines()
        names = [b.name for _, b in sorted(self.used.items())]
        arguments = "".join(f", {n}_" for n in names)
        head.add("@njit(nogil=True, error_model='numpy')")
        head.indent(f"def {self.name}(lo, hi, scratch, P64_, P32_{arguments}):")
        head.add("arguments_are_disjoint()")
        for _, b in sorted(self.used.items()):
            head.add(f"{b.name} = view({b.name}_)")
        for vector in ("P64", "P32"):
            if any(kind == vector for kind, _ in self.used_parameters):
                head.add(f"{vector} = {'f64' if vector == 'P64' else 'f32'}({vector}_)")
        for (vector, k), text in self.used_parameters.items():
            head.add(f"{text} = {vector}[U({k})]")
        return "\n".join(head.text + body) + "\n"

    # ------------------------------------------------------------------ loops

    def _boxes_by_rows(self) -> list[list[BoxCode]]:
        groups: dict[tuple[int, int], list[BoxCode]] = {}
        for box in self.kernel.boxes:
            groups.setdefault(box.rows, []).append(box)
        return [groups[k] for k in sorted(groups)]

    def _row_loop(self, boxes: list[BoxCode]) -> None:
        lo, hi = boxes[0].rows
        lines = self.lines
        sums_all = [r for r in self.kernel.sums if r.kind == "sum_all"]
        if self.n_dims == 1 and (self.kernel.is_sum or sums_all):
            self._blocks_1d(boxes[0], hi)
            return
        lines.add(f"b_lo = max(lo, {lo})")
        lines.add(f"b_hi = min(hi, {hi})")
        lines.indent("if b_lo < b_hi:")
        placed = [_Placer(self, box, self.n_dims) for box in boxes]
        for p in placed:
            p.emit_level(0)
        lines.indent("for i0 in range(U(b_lo), U(b_hi)):")
        for p in placed:
            rows = p.box.box[0]
            if rows != (lo, hi):
                lines.indent(f"if {unsigned(rows[0])} <= i0 < {unsigned(rows[1])}:")
            p.emit_level(1)
            if self.n_dims == 1:
                p.emit_statements()
            else:
                self._inner(p, 1)
            if rows != (lo, hi):
                lines.dedent()
        lines.dedent(2)

    def _inner(self, p: _Placer, dim: int) -> None:
        lines, (lo, hi) = self.lines, p.box.box[dim]
        last = dim == self.n_dims - 1
        if last and any(s.root.kind in ("sum", "sum_all") for s in p.box.statements):
            self._blocks(p, dim, lo, hi)
            return
        lines.indent(f"for i{dim} in range({unsigned(lo)}, {unsigned(hi)}):")
        p.emit_level(dim + 1)
        if last:
            p.emit_statements()
        else:
            self._inner(p, dim + 1)
        lines.dedent()

    def _blocks(self, p: _Placer, dim: int, lo: int, hi: int) -> None:
        """The innermost loop in blocks of 512, for sums in lane order."""
        lines = self.lines
        sums = [s for s in p.box.statements if s.root.kind in ("sum", "sum_all")]
        in_rows = [s for s in sums if s.root.kind == "sum"]
        for k, s in enumerate(in_rows):
            for part in range(len(s.nodes)):
                lines.add(f"total{k}_{part} = 0.0")
        lines.indent(f"for block in range({-(-hi // BLOCK)}):")
        lines.add(f"j_lo = block * {BLOCK}")
        lines.add(f"j_hi = min(j_lo + {BLOCK}, {hi})")
        self._block_body(p, dim, sums)
        for k, s in enumerate(in_rows):
            for part in range(len(s.nodes)):
                slot = self._slot(sums, s, part)
                lines.add(f"total{k}_{part} += {self._fold(s, slot)}")
        if len(in_rows) < len(sums):
            per_row = self.kernel.domain[-1] // BLOCK
            row = self._flat_row()
            lines.add(f"at_block = ({row}) * {unsigned(per_row)} + U(block)")
            self._store_partials(sums, "at_block")
        lines.dedent()
        for k, s in enumerate(in_rows):
            for part, address in enumerate(s.addresses):
                p.store(s, address, f"total{k}_{part}", widened=True)

    def _flat_row(self) -> str:
        text = "i0"
        for d in range(1, self.n_dims - 1):
            text = f"({text}) * {unsigned(self.kernel.domain[d])} + i{d}"
        return text

    def _blocks_1d(self, box: BoxCode, hi: int) -> None:
        """A one-dimensional domain with sums over everything: rows come in whole blocks."""
        lines = self.lines
        p = _Placer(self, box, 1)
        p.emit_level(0)
        sums = [s for s in box.statements if s.root.kind in ("sum", "sum_all")]
        lines.indent(f"for block in range(lo // {BLOCK}, (hi + {BLOCK - 1}) // {BLOCK}):")
        lines.add(f"j_lo = block * {BLOCK}")
        lines.add(f"j_hi = min(j_lo + {BLOCK}, {hi})")
        self._block_body(p, 0, sums)
        self._store_partials(sums, "U(block)")
        lines.dedent()

    def _block_body(self, p: _Placer, dim: int, sums: list[Statement]) -> None:
        lines = self.lines
        n = 0
        for s in sums:
            for node in s.nodes:
                view = "f32" if p.box.graph.nodes[node].dtype.itemsize == 4 else "f64"
                lines.add(f"s{n} = {view}(scratch + {n * BLOCK * 8})")
                n += 1
        lines.indent(f"for i{dim} in range(U(j_lo), U(j_hi)):")
        p.emit_level(dim + 1)
        p.emit_statements()
        n = 0
        for s in sums:
            for node in s.nodes:
                lines.add(f"s{n}[i{dim} - U(j_lo)] = {p.text(node)}")
                n += 1
        lines.dedent()
        self._node_kinds = {
            k: p.box.graph.nodes[node].dtype.itemsize
            for k, node in enumerate(node for s in sums for node in s.nodes)
        }

    def _slot(self, sums: list[Statement], statement: Statement, part: int) -> int:
        n = 0
        for s in sums:
            if s is statement:
                return n + part
            n += len(s.nodes)
        raise AssertionError("the statement is one of the sums")

    def _fold(self, s: Statement, slot: int) -> str:
        width = "f32" if self._node_kinds[slot] == 4 else "f64"
        return f"fold_{width}(scratch + {slot * BLOCK * 8}, j_hi - j_lo)"

    def _store_partials(self, sums: list[Statement], at: str) -> None:
        for s in sums:
            if s.root.kind != "sum_all":
                continue
            buffer = self.partials[s.root.var]
            sign = "+=" if self._is_accumulated(s) else "="
            for part in range(len(s.nodes)):
                slot = self._slot(sums, s, part)
                index = f"{at} * U(2) + U({part})" if len(s.nodes) == 2 else at
                self.lines.add(f"{buffer.name}[{index}] {sign} {self._fold(s, slot)}")

    def _is_accumulated(self, s: Statement) -> bool:
        return bool(s.addresses) and s.addresses[0].buffer in self.accumulated

    # ------------------------------------------------------------------ names

    def buffer_name(self, number: int) -> str:
        self.used[number] = self.buffers[number]
        return self.buffers[number].name

    def parameter(self, dtype: np.dtype, data: tuple[bytes, Any]) -> str:
        kind = dtype.str[1:]
        vector = "P64" if kind == "f8" else "P32"
        k = self.parameters.index(kind, data)
        name = f"{vector.lower()}_{k}"
        self.used_parameters[vector, k] = name
        return name


def _sum_text(terms: list[str], constant: int) -> str:
    """A sum of index terms; unsigned arithmetic wraps, so a constant may be subtracted."""
    if not terms:
        return unsigned(constant)
    sign = "+" if constant > 0 else "-"
    tail = f" {sign} U({abs(constant)})" if constant else ""
    return " + ".join(terms) + tail


class _Placer:
    """Writes the nodes of one box, each at the outermost loop on which it depends."""

    def __init__(self, writer: KernelWriter, box: BoxCode, n_dims: int) -> None:
        self.writer, self.box, self.n_dims = writer, box, n_dims
        self.needed = self._needed()
        self.rows: dict[Any, str] = {}
        prefix = "" if len(writer.kernel.boxes) == 1 else f"{writer.kernel.boxes.index(box)}_"
        self.prefix = prefix

    def _needed(self) -> list[int]:
        nodes = self.box.graph.nodes
        stack = [n for s in self.box.statements for n in s.nodes]
        seen: set[int] = set()
        while stack:
            n = stack.pop()
            if n not in seen:
                seen.add(n)
                stack.extend(nodes[n].args)
        return sorted(seen)

    def _level(self, depends: frozenset[int]) -> int:
        return max(depends) + 1 if depends else 0

    def emit_level(self, level: int) -> None:
        """Row addresses and nodes that belong to a loop level (0: outside of all loops)."""
        nodes = self.box.graph.nodes
        if level == self.n_dims - 1 and self.n_dims > 1:
            self._emit_row_addresses()
        for n in self.needed:
            if self._level(nodes[n].depends) == level and nodes[n].op != "literal":
                self.writer.lines.add(f"{self.name(n)} = {self._expression(nodes[n])}")

    def _emit_row_addresses(self) -> None:
        """The part of an address that the innermost loop does not change."""
        last = self.n_dims - 1
        addresses = [
            self.box.graph.nodes[n].data
            for n in self.needed
            if self.box.graph.nodes[n].op == "load"
        ]
        addresses += [a for s in self.box.statements if s.root.kind != "sum" for a in s.addresses]
        for a in addresses:
            key = (a.coefficients[:last], a.constant)
            if key in self.rows or not any(a.coefficients[:last]):
                continue
            name = f"r{self.prefix}{len(self.rows)}"
            terms = [f"i{d} * {unsigned(c)}" for d, c in enumerate(key[0]) if c]
            self.writer.lines.add(f"{name} = {_sum_text(terms, a.constant)}")
            self.rows[key] = name

    def index_text(self, a: Address) -> str:
        last = self.n_dims - 1
        key = (a.coefficients[:last], a.constant)
        terms = []
        if key in self.rows:
            terms.append(self.rows[key])
        else:
            terms += [f"i{d} * {unsigned(c)}" for d, c in enumerate(a.coefficients[:last]) if c]
        c = a.coefficients[last]
        if c:
            terms.append(f"i{last}" if c == 1 else f"i{last} * {unsigned(c)}")
        return _sum_text(terms, 0 if key in self.rows else a.constant)

    def name(self, n: int) -> str:
        return f"t{self.prefix}{n}"

    def text(self, n: int) -> str:
        node = self.box.graph.nodes[n]
        if node.op != "literal":
            return self.name(n)
        kind, value = node.dtype.kind, node.data[1]
        if kind == "b":
            return "True" if value else "False"
        if kind != "f":
            return f"{_CASTS[node.dtype.str[1:]]}({value})"
        if value in (0.0, 1.0, -1.0):
            word = {0.0: "ZERO", 1.0: "ONE", -1.0: "MINUS"}[value]
            return f"{word}_{node.dtype.str[1:]}"
        return self.writer.parameter(node.dtype, node.data)

    def _expression(self, node: Node) -> str:
        if node.op == "load":
            text = f"{self.writer.buffer_name(node.data.buffer)}[{self.index_text(node.data)}]"
            return f"({text} != 0)" if node.dtype.kind == "b" else text
        if node.op == "gather":
            address, strides = node.data
            terms = [self.index_text(address)]
            pairs = zip(node.args, strides, strict=True)
            terms += [f"U({self.text(a)}) * {unsigned(s)}" for a, s in pairs]
            text = f"{self.writer.buffer_name(address.buffer)}[{' + '.join(terms)}]"
            return f"({text} != 0)" if node.dtype.kind == "b" else text
        if node.op == "index":
            dim, stride, constant = node.data
            return f"int64(i{dim}) * int64({stride}) + int64({constant})"
        if node.op == "cast":
            return f"{_CASTS[node.dtype.str[1:]]}({self.text(node.args[0])})"
        return BASIC[node.op].template.format(*(self.text(a) for a in node.args))

    def emit_statements(self) -> None:
        """Stores; block sums are written by their loop."""
        for s in self.box.statements:
            if s.root.kind in ("sum", "sum_all"):
                continue
            for node, address in zip(s.nodes, s.addresses, strict=True):
                self.store(s, address, self.text(node))

    def store(self, s: Statement, address: Address, value: str, widened: bool = False) -> None:
        """Store or add one scalar."""
        buffer = self.writer.buffers[address.buffer]
        name = self.writer.buffer_name(address.buffer)
        where = f"{name}[{self.index_text(address)}]"
        part = real_view(buffer.dtype)
        if address.buffer in self.writer.accumulated:
            value = value if widened else f"float64({value})" if part == "f64" else value
            self.writer.lines.add(f"{where} += {value}")
            return
        if buffer.dtype.kind == "b":
            value = f"u8_1 if {value} else u8_0"
        elif widened and part == "f32":
            value = f"float32({value})"
        self.writer.lines.add(f"{where} = {value}")
