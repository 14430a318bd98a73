"""From a Python function to a program with its captured values."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from backsweep import config
from backsweep.api.names import leaf_names
from backsweep.api.tree import Tree, flatten
from backsweep.comm import BlockedArray
from backsweep.errors import DecompositionError
from backsweep.ir import ArrayType, Atom, Literal, Program, Var, verify
from backsweep.passes import simplify
from backsweep.passes.powers import multiply_by_inverse_powers
from backsweep.primitives.shape import full
from backsweep.runtime.execute import run_program, unaliased
from backsweep.runtime.report import Report
from backsweep.trace.array import TracedArray, lift, wrap
from backsweep.trace.tracing import Trace, active_trace, new_trace

_WEAK_DTYPES = {bool: "?", int: "i8", float: "f8", complex: "c16"}


def type_of(leaf: Any) -> ArrayType:
    """The type of an argument; Python scalars are weak."""
    if isinstance(leaf, TracedArray):
        return leaf._type
    if type(leaf) in _WEAK_DTYPES:
        return ArrayType((), np.dtype(_WEAK_DTYPES[type(leaf)]), type(leaf) is not bool)
    if isinstance(leaf, BlockedArray):
        return ArrayType(leaf.shape, leaf.dtype)
    array = np.asarray(leaf)
    return ArrayType(array.shape, array.dtype)


@dataclass
class Traced:
    """A traced function.

    Attributes
    ----------
    program : Program
        Inputs: captured values, then the numeric leaves of the arguments.
    captured : list
        Plain arrays, or atoms of the enclosing trace, one for each captured input.
    out_tree : Tree
    """

    program: Program
    captured: list[Any]
    out_tree: Tree

    @property
    def n_captured(self) -> int:
        return len(self.captured)


def trace_function(
    function: Callable[..., Any],
    types: Sequence[ArrayType],
    in_tree: Tree,
    name: str = "program",
    *,
    is_cut: bool = False,
) -> Traced:
    """Run a function once on traced arguments; `is_cut` says that blocks of it will be run."""
    with new_trace(function, is_cut) as trace:
        names = leaf_names(function, in_tree.paths())
        arguments = [trace.builder.input(t, n) for t, n in zip(types, names, strict=True)]
        args = in_tree.build([wrap(v) for v in arguments])
        result = function(*args)
        leaves, out_tree = flatten(result)
        outputs = [materialized(trace, lift(leaf)) for leaf in leaves]
    return finish(trace, arguments, outputs, out_tree, name)


def materialized(trace: Trace, atom: Atom) -> Atom:
    """A literal output becomes a 0-d value, so that every output is a variable."""
    if isinstance(atom, Literal):
        return full(trace.builder, atom, ())
    return atom


def finish(
    trace: Trace, arguments: Sequence[Var], outputs: Sequence[Atom], out_tree: Tree, name: str
) -> Traced:
    """Order the inputs: captured values first."""
    captured = list(trace.captured.values())
    inputs = (*(var for var, _ in captured), *arguments)
    program = Program(inputs, tuple(trace.builder.equations), tuple(outputs), name)
    program = simplify(multiply_by_inverse_powers(program))
    if config.verify_level() > 0:
        verify(program)
    return Traced(program, [outer for _, outer in captured], out_tree)


def apply_program(
    program: Program, values: Sequence[Any], report: Report | None = None
) -> list[Any]:
    """Run a program, or append it to the active trace.

    `values` are arrays, traced arrays, or atoms of the active trace.
    """
    trace = active_trace()
    if trace is None:
        _refuse_blocks(program, values)
        return unaliased(run_program(program, values, report, is_resumable=True), values)
    atoms = [v if isinstance(v, (Var, Literal)) else lift(v) for v in values]
    atoms = [materialized(trace, a) for a in atoms]
    atoms = [_cast(trace, a, v.type) for a, v in zip(atoms, program.inputs, strict=True)]
    return [wrap(a) for a in trace.builder.inline(program, tuple(atoms))]


def _refuse_blocks(program: Program, values: Sequence[Any]) -> None:
    for var, value in zip(program.inputs, values, strict=True):
        if isinstance(value, BlockedArray):
            raise DecompositionError(
                f"{var.name or 'an argument'} is a {value!r}, and no rank has the whole of it: "
                "pass decomposition=, as in value_and_grad(misfit, decomposition=dec)"
            )


def run_traced(function: Callable[..., Any], *args: Any) -> Any:
    """Trace a function where nothing is traced yet, and run it."""
    leaves, tree = flatten(args)
    types = [type_of(leaf) for leaf in leaves]
    traced = trace_function(function, types, tree)
    arrays = [np.asarray(leaf, t.dtype) for leaf, t in zip(leaves, types, strict=True)]
    return traced.out_tree.build(apply_program(traced.program, [*traced.captured, *arrays]))


def _cast(trace: Trace, atom: Atom, type: Any) -> Atom:
    from backsweep.primitives.elementwise import convert

    if isinstance(type, ArrayType) and isinstance(atom.type, ArrayType):
        return convert(trace.builder, atom, type.dtype)
    return atom
