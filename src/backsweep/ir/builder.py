"""The only mutable thing in the IR: collects equations until the program is built."""

from __future__ import annotations

from typing import Any

from backsweep.errors import ShapeError
from backsweep.ir.program import Atom, Equation, Literal, Primitive, Program, Source, Var
from backsweep.ir.types import ArrayType, Type


class Builder:
    """Collects equations; calling it adds one.

    `builder(mul, x, y)` returns the output variable, or a tuple of them where
    the primitive has several outputs.
    """

    def __init__(self) -> None:
        self.inputs: list[Var] = []
        self.equations: list[Equation] = []
        self.source: Source | None = None

    def input(self, type: Type, name: str = "") -> Var:
        var = Var(type, name)
        self.inputs.append(var)
        return var

    def __call__(self, primitive: Primitive, *inputs: Atom, **params: Any) -> Any:
        types = primitive.result_types(params, [a.type for a in inputs])
        if isinstance(types, ArrayType):
            return self._append(primitive, inputs, params, (types,))[0]
        return self._append(primitive, inputs, params, tuple(types))

    def _append(
        self, primitive: Primitive, inputs: tuple[Atom, ...], params: Any, types: tuple[Type, ...]
    ) -> tuple[Var, ...]:
        outputs = tuple(Var(t) for t in types)
        self.equations.append(Equation(primitive, inputs, params, outputs, self.source))
        return outputs

    def replay(self, equation: Equation, inputs: tuple[Atom, ...]) -> tuple[Var, ...]:
        """Append an equation of another program on new inputs."""
        outputs = tuple(Var(v.type, v.name) for v in equation.outputs)
        self.equations.append(
            Equation(equation.primitive, inputs, equation.params, outputs, equation.source)
        )
        return outputs

    def inline(self, program: Program, arguments: tuple[Atom, ...]) -> list[Atom]:
        """Append the equations of a whole program; returns its outputs."""
        env: dict[Var, Atom] = dict(zip(program.inputs, arguments, strict=True))
        source = self.source
        for equation in program.equations:
            outputs = self.replay(equation, tuple(look_up(env, a) for a in equation.inputs))
            env.update(zip(equation.outputs, outputs, strict=True))
        self.source = source
        return [look_up(env, a) for a in program.outputs]

    def build(self, outputs: tuple[Atom, ...] | list[Atom], name: str = "program") -> Program:
        return Program(tuple(self.inputs), tuple(self.equations), tuple(outputs), name)


def look_up(env: dict[Var, Any], atom: Atom) -> Any:
    """The value of an atom: literals stand for themselves."""
    return atom if isinstance(atom, Literal) else env[atom]


def scalar(value: Any, like: Atom) -> Literal:
    """A literal with the dtype of another atom."""
    assert isinstance(like.type, ArrayType)
    return Literal(value, ArrayType((), like.type.dtype))


def same_shape(name: str, *types: ArrayType) -> tuple[int, ...]:
    """The common shape of elementwise operands; literals have none."""
    shapes = {t.shape for t in types if t.shape != ()}
    if len(shapes) > 1:
        raise ShapeError(f"{name}: operands have the shapes {sorted(shapes)}, which differ")
    return shapes.pop() if shapes else ()
