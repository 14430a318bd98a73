"""A function traced on the arguments of a transformation."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from backsweep.api.tracer import Traced, trace_function, type_of
from backsweep.api.tree import Tree, flatten
from backsweep.comm import BlockedArray
from backsweep.errors import DifferentiationError, ShapeError
from backsweep.ir import ArrayType
from backsweep.trace.tracing import active_trace

Argnums = int | Sequence[int]


@dataclass
class Call:
    """A function traced on given arguments, with the leaves that are differentiated."""

    traced: Traced
    values: list[Any]
    """Captured values, then arguments: the inputs of the program."""
    active: list[bool]
    trees: list[Tree]
    """Of the differentiated arguments."""
    n_leaves: list[int]
    """Of each argument."""


def trace_call(
    function: Callable[..., Any], args: Sequence[Any], argnums: Argnums, *, is_cut: bool = False
) -> Call:
    """Trace a function on arguments; `is_cut` says that blocks of it will be run."""
    wanted = (argnums,) if isinstance(argnums, int) else tuple(argnums)
    wanted = tuple(
        k % len(args) if -len(args) <= k < len(args) else _no_argument(k, args) for k in wanted
    )
    leaves, tree = flatten(tuple(args))
    types = [type_of(leaf) for leaf in leaves]
    active: list[bool] = []
    trees: dict[int, Tree] = {}
    n_leaves: list[int] = []
    for k, arg in enumerate(args):
        own, own_tree = flatten(arg)
        active += [k in wanted] * len(own)
        n_leaves.append(len(own))
        trees[k] = own_tree
    for leaf_type, is_active in zip(types, active, strict=True):
        if is_active and not leaf_type.is_inexact:
            raise DifferentiationError(
                f"an argument to be differentiated has dtype {leaf_type.dtype}; derivatives need "
                "float or complex input: convert it with .astype(float), or leave it out of argnums"
            )
    name = getattr(function, "__name__", "program")
    traced = trace_function(function, types, tree, name, is_cut=is_cut)
    values = [*traced.captured, *(as_input(v, t) for v, t in zip(leaves, types, strict=True))]
    return Call(
        traced, values, [False] * traced.n_captured + active, [trees[k] for k in wanted], n_leaves
    )


def _no_argument(k: int, args: Sequence[Any]) -> int:
    raise DifferentiationError(
        f"argnums={k}, but the function was called with {len(args)} arguments"
    )


def as_input(leaf: Any, type: ArrayType) -> Any:
    if active_trace() is not None or isinstance(leaf, BlockedArray):
        return leaf
    return np.asarray(leaf, type.dtype)


def shaped_like_arguments(call: Call, leaves: Sequence[Any], argnums: Argnums) -> Any:
    """Leaves of the differentiated arguments as those arguments' containers."""
    supply = iter(leaves)
    results = []
    for tree in call.trees:
        results.append(tree.build([next(supply) for _ in range(tree.n_leaves - len(tree.static))]))
    return results[0] if isinstance(argnums, int) else tuple(results)


def unwrapped(value: Any) -> Any:
    """0-d results as NumPy scalars."""
    return value[()] if isinstance(value, np.ndarray) and value.ndim == 0 else value


def matching(call: Call, tangents: Any) -> list[Any]:
    """Tangents as arrays of the types of the active inputs."""
    leaves, _ = flatten(tuple(tangents))
    types = [v.type for v, a in zip(call.traced.program.inputs, call.active, strict=True) if a]
    if len(leaves) != len(types):
        raise ShapeError(f"{len(types)} tangents are needed, {len(leaves)} were given")
    for k, (leaf, type) in enumerate(zip(leaves, types, strict=True)):
        if np.shape(leaf) != type.shape:
            raise ShapeError(f"tangent {k} has shape {np.shape(leaf)}, {type.shape} is needed")
    return [as_input(v, t) for v, t in zip(leaves, types, strict=True)]  # type: ignore[arg-type]
