"""The scalar expressions of one loop body as a hash-consed graph.

The same expression at the same indices is one node, whatever path led to it. Complex
values are pairs of nodes.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from backsweep.primitives.ops import BASIC

Value = int | tuple[int, int]


@dataclass(frozen=True, slots=True)
class Node:
    """One scalar. `op` is a basic operation, or load, gather, literal, index, cast."""

    op: str
    args: tuple[int, ...]
    dtype: np.dtype
    data: Any
    depends: frozenset[int]
    """The loop dimensions on which it depends."""


@dataclass(frozen=True, slots=True)
class Address:
    """An element of a buffer: sum of coefficient times loop index, plus a constant."""

    buffer: int
    coefficients: tuple[int, ...]
    constant: int

    def depends(self) -> frozenset[int]:
        return frozenset(d for d, c in enumerate(self.coefficients) if c)


_BOOLEAN = {"lt", "le", "gt", "ge", "eq", "ne", "logical_and", "logical_or"}
_BOOLEAN |= {"logical_xor", "logical_not"}
_COMMUTATIVE = {"add", "mul", "eq", "ne", "logical_and", "logical_or", "logical_xor"}
"""In every bit, so that x y and y x are one node."""


class Graph:
    """Nodes in order of creation, which is an order of evaluation."""

    def __init__(self) -> None:
        self.nodes: list[Node] = []
        self._index: dict[Any, int] = {}

    def _add(
        self,
        op: str,
        args: tuple[int, ...],
        dtype: np.dtype,
        data: Any,
        depends: frozenset[int] = frozenset(),
    ) -> int:
        key = (op, args, dtype, data)
        if key not in self._index:
            for a in args:
                depends |= self.nodes[a].depends
            self._index[key] = len(self.nodes)
            self.nodes.append(Node(op, args, dtype, data, depends))
        return self._index[key]

    def load(self, address: Address, dtype: np.dtype) -> int:
        return self._add("load", (), dtype, address, address.depends())

    def gather(self, address: Address, dtype: np.dtype, at: list[tuple[int, int]]) -> int:
        """Load with run-time indices: pairs (node, stride) are added to the address."""
        strides = tuple(s for _, s in at)
        nodes = tuple(n for n, _ in at)
        return self._add("gather", nodes, dtype, (address, strides), address.depends())

    def literal(self, value: Any, dtype: Any) -> int:
        dtype = np.dtype(dtype)
        value = dtype.type(value)
        item = value.item() if value == value else math.nan  # one object: NaN differs from NaN
        return self._add("literal", (), dtype, (value.tobytes(), item))

    def index(self, dim: int, stride: int, constant: int) -> int:
        return self._add("index", (), np.dtype(np.int64), (dim, stride, constant), frozenset([dim]))

    def op(self, name: str, *args: int) -> int:
        folded = self._fold(name, args)
        if folded is None:
            folded = self._move_sign(name, args)
        if folded is not None:
            return folded
        dtype = np.dtype(bool) if name in _BOOLEAN else self.nodes[args[-1]].dtype
        return self._add(name, tuple(sorted(args)) if name in _COMMUTATIVE else args, dtype, None)

    def _move_sign(self, name: str, args: tuple[int, ...]) -> int | None:
        """Signs leave products, and a - b is -(b - a) where that is known: exact, and what
        differs in signs alone becomes one node."""
        if name == "neg" and self.nodes[args[0]].op == "neg":
            return self.nodes[args[0]].args[0]
        bare = tuple(self._without_sign(a) for a in args)
        if name in ("add", "sub") and bare != args:
            first, second = (a != c for a, c in zip(args, bare, strict=True))
            second ^= name == "sub"
            if first == second:
                total = self.op("add", *bare)
                return self.op("neg", total) if first else total
            return self.op("sub", *(reversed(bare) if first else bare))
        if name == "sub":
            known = self._index.get(("sub", (args[1], args[0]), self.nodes[args[1]].dtype, None))
            return None if known is None else self.op("neg", known)
        if name not in ("mul", "div"):
            return None
        if bare == args:
            return None
        result = self.op(name, *bare)
        flips = sum(a != c for a, c in zip(args, bare, strict=True))
        return result if flips == 2 else self.op("neg", result)

    def _without_sign(self, node: int) -> int:
        n = self.nodes[node]
        return n.args[0] if n.op == "neg" else node

    def _fold(self, name: str, args: tuple[int, ...]) -> int | None:
        """Exact folding: literals, and neutral elements."""
        nodes = [self.nodes[a] for a in args]
        if all(n.op == "literal" for n in nodes):
            with np.errstate(all="ignore"):
                values = [n.dtype.type(n.data[1]) for n in nodes]
                result = np.asarray(BASIC[name].numpy(*values))
            dtype = result.dtype if name in _BOOLEAN else nodes[-1].dtype
            return self.literal(result.item(), dtype)
        if name in ("add", "sub") and self.is_literal(args[1], 0):
            return args[0]
        if name == "add" and self.is_literal(args[0], 0):
            return args[1]
        if name == "mul":
            if self.is_literal(args[0], 1):
                return args[1]
            if self.is_literal(args[1], 1):
                return args[0]
        if name == "sub" and self.is_literal(args[0], 0):
            return self._add("neg", args[1:], nodes[1].dtype, None)
        if name == "select" and nodes[0].op == "literal":
            return args[1] if nodes[0].data[1] else args[2]
        return None

    def is_literal(self, node: int, value: float) -> bool:
        n = self.nodes[node]
        return n.op == "literal" and n.data[1] == value

    def cast(self, dtype: Any, node: int) -> int:
        dtype, n = np.dtype(dtype), self.nodes[node]
        if n.dtype == dtype:
            return node
        if n.op == "literal":
            return self.literal(n.data[1], dtype)
        return self._add("cast", (node,), dtype, None)


class ScalarOps:
    """The vocabulary of expansions (primitives.ops), run on nodes."""

    def __init__(self, graph: Graph) -> None:
        self.graph = graph

    def __call__(self, name: str, *args: int) -> int:
        return self.graph.op(name, *args)

    def const(self, value: float, like: int) -> int:
        return self.graph.literal(value, self.graph.nodes[like].dtype)

    def cast(self, dtype: Any, value: int) -> int:
        return self.graph.cast(dtype, value)

    def dtype(self, value: int) -> np.dtype:
        return self.graph.nodes[value].dtype
