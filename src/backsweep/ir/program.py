"""The program: what a traced function means, as plain frozen data.

`Program(inputs, equations, outputs)` is in single assignment form with static
shapes. Nothing here knows how a program is made, changed or run.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any
from typing import Literal as Choice

import numpy as np

from backsweep.ir.types import ArrayType, Placement, Type, joined_placement

Kind = Choice[
    "elementwise", "index", "reduce", "contract", "scan", "call", "control", "communication"
]
Linearity = Choice["none", "joint", "multi"]


@dataclass(frozen=True, slots=True)
class Source:
    """A line of the user's code."""

    file: str
    line: int
    text: str = ""

    def __str__(self) -> str:
        return f"{self.file}:{self.line}"


@dataclass(frozen=True, eq=False, slots=True)
class Var:
    """A value, known by identity. `name` is only a hint for people."""

    type: Type
    name: str = ""


@dataclass(frozen=True, slots=True)
class Literal:
    """A scalar constant."""

    value: Any
    type: ArrayType

    def __post_init__(self) -> None:
        object.__setattr__(self, "value", self.type.dtype.type(self.value))

    @property
    def key(self) -> tuple[str, bytes]:
        return str(self.type), np.asarray(self.value).tobytes()

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Literal) and self.key == other.key

    def __hash__(self) -> int:
        return hash(self.key)


Atom = Var | Literal
Params = Mapping[str, Any]


@dataclass(frozen=True, eq=False, slots=True)
class Primitive:
    """Everything that is known about one operation, declared once.

    Parameters
    ----------
    name : str
    kind : str
        Which generic rules apply (batching, footprint, lowering).
    type_rule : callable (params, \\*types) -> ArrayType or tuple of them
    evaluate : callable (params, \\*arrays) -> array or tuple of arrays
        The meaning, in NumPy. Compiled code reproduces it.
    linearity : {"none", "joint", "multi"}
        `joint`: linear in all of `linear_in` together (add, slice);
        `multi`: linear in each one while the others are fixed (multiply).
    linear_in : tuple of int, optional
        Positions of the inputs in which it is linear; None means all.
    partials : tuple of callable, optional
        For elementwise operations, per input: (builder, params, inputs, output) -> atom,
        the derivative; None where the derivative is zero.
    jvp : callable, optional
        (builder, equation, inputs, tangents) -> (outputs, tangents), where the generic
        rules do not apply.
    transpose : callable, optional
        (builder, equation, cotangents, is_linear) -> cotangents of the inputs.
    expand : callable, optional
        (ops, params, \\*args) -> value: an elementwise operation in terms of simpler ones;
        the evaluation and the generated code both follow from it.
    template : str, optional
        Source fragment of a basic elementwise operation.
    takes, gives : {"replicated", "varying"}, optional
        Of a communication: the placement of its operand and of its result.
    """

    name: str
    kind: Kind
    type_rule: Callable[..., Any]
    evaluate: Callable[..., Any]
    linearity: Linearity = "none"
    linear_in: tuple[int, ...] | None = None
    partials: tuple[Callable[..., Any] | None, ...] | None = None
    jvp: Callable[..., Any] | None = None
    transpose: Callable[..., Any] | None = None
    expand: Callable[..., Any] | None = None
    template: str | None = None
    takes: Placement | None = None
    gives: Placement | None = None

    def result_types(self, params: Params, inputs: Sequence[Type]) -> Any:
        """Of its type rule, with placements: one type, or a tuple of them."""
        found = self.type_rule(params, *inputs)
        placement = None if self.kind == "control" else joined_placement(inputs)
        if placement is None:
            return found
        if self.gives is not None:
            placement = self.gives
        if isinstance(found, ArrayType):
            return found.placed(placement)
        return tuple(t.placed(placement) for t in found)

    def is_linear_in(self, position: int) -> bool:
        if self.linearity == "none":
            return False
        return self.linear_in is None or position in self.linear_in

    def __repr__(self) -> str:
        return self.name


@dataclass(frozen=True, eq=False, slots=True)
class Equation:
    """`outputs = primitive(*inputs, **params)`."""

    primitive: Primitive
    inputs: tuple[Atom, ...]
    params: Params
    outputs: tuple[Var, ...]
    source: Source | None = None

    def replace_inputs(self, inputs: tuple[Atom, ...]) -> Equation:
        return Equation(self.primitive, inputs, self.params, self.outputs, self.source)


@dataclass(frozen=True, eq=False)
class Program:
    """A function from `inputs` to `outputs`."""

    inputs: tuple[Var, ...]
    equations: tuple[Equation, ...]
    outputs: tuple[Atom, ...]
    name: str = field(default="program")

    def __str__(self) -> str:
        from backsweep.ir.printer import format_program

        return format_program(self)

    @property
    def in_types(self) -> tuple[Type, ...]:
        return tuple(v.type for v in self.inputs)

    @property
    def out_types(self) -> tuple[Type, ...]:
        return tuple(a.type for a in self.outputs)

    @cached_property
    def last_uses(self) -> dict[int, list[Var]]:
        """What no equation behind it needs and no output is, by the position of an equation."""
        kept = {a for a in self.outputs if isinstance(a, Var)}
        last: dict[Var, int] = {}
        for position, eqn in enumerate(self.equations):
            for var in (*(a for a in eqn.inputs if isinstance(a, Var)), *eqn.outputs):
                last[var] = position
        uses: dict[int, list[Var]] = {}
        for var, position in last.items():
            if var not in kept:
                uses.setdefault(position, []).append(var)
        return uses

    def nested(self) -> Iterator[Program]:
        """The programs that stand in the parameters of this one's equations."""
        for equation in self.equations:
            for value in equation.params.values():
                if isinstance(value, Program):
                    yield value


def zero(type: ArrayType) -> Literal:
    """The scalar 0 of a dtype."""
    return Literal(0, ArrayType((), type.dtype))
