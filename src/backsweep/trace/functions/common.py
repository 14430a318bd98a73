"""What all handlers of NumPy functions share: registration, dtypes, axes."""

from __future__ import annotations

import inspect
import operator
from collections.abc import Callable, Iterable
from typing import Any, TypeVar

import numpy as np

from backsweep.ir import ArrayType, Atom, Literal, Var
from backsweep.primitives import elementwise as ew
from backsweep.primitives import shape as sh
from backsweep.trace.array import HANDLED_FUNCTIONS, METHODS, TracedArray, lift, wrap
from backsweep.trace.tracing import at_user_line, require_trace, trace_error
from backsweep.trace.ufuncs import _assign_out, _cast

Rule = TypeVar("Rule", bound=Callable[..., Any])

_PYTHON_SCALARS = {"f": 0.0, "i": 0, "u": 0, "c": 0j}


def handles(*functions: Any, methods: Iterable[str] = ()) -> Callable[[Rule], Rule]:
    """Register a rule for NumPy functions and for methods of the traced array."""

    def decorate(rule: Rule) -> Rule:
        called = _with_checked_arguments(rule)
        for function in functions:
            HANDLED_FUNCTIONS[function] = called
        for name in methods:
            METHODS[name] = called
        return rule

    return decorate


def _with_checked_arguments(rule: Any) -> Any:
    """Refuse keywords that the rule does not know; write to `out` if it is given."""
    parameters = inspect.signature(rule).parameters

    def call(*args: Any, out: Any = None, **kwargs: Any) -> Any:
        given = {k: v for k, v in kwargs.items() if v is not np._NoValue}
        unknown = [k for k, v in given.items() if k not in parameters and v is not None]
        if unknown:
            raise trace_error(
                f"{rule.__name__.rstrip('_')}: the argument {unknown[0]}={given[unknown[0]]!r} is "
                "not supported on traced values"
            )
        result = rule(*args, **{k: v for k, v in given.items() if k in parameters})
        return result if out is None else _assign_out(out, result)

    return call


def traced(value: Any) -> TracedArray:
    """A handle on any operand; a traced array stays the handle that it is."""
    return value if isinstance(value, TracedArray) else wrap(lift(value))


def type_of(atom: Atom) -> ArrayType:
    assert isinstance(atom.type, ArrayType)
    return atom.type


def result_dtype(atoms: Iterable[Atom], keep_weak: bool = True) -> np.dtype:
    """The common dtype; Python scalars yield to arrays (NEP 50) if `keep_weak`."""
    types = [type_of(a) for a in atoms]
    return np.result_type(
        *(_PYTHON_SCALARS[t.dtype.kind] if t.weak and keep_weak else t.dtype for t in types)
    )


def cast(atom: Atom, dtype: Any) -> Atom:
    """The atom in a dtype, no longer weak."""
    dtype = np.dtype(dtype)
    if type_of(atom).weak and type_of(atom).dtype == dtype:
        if isinstance(atom, Literal):
            return Literal(atom.value, ArrayType((), dtype))
        return require_trace().emit(ew.cast, atom, dtype=dtype)
    return _cast(require_trace().emit, atom, dtype)


def unify(values: Iterable[Any], keep_weak: bool = True) -> list[Atom]:
    """Operands as atoms of their common dtype."""
    atoms = [lift(v) for v in values]
    dtype = result_dtype(atoms, keep_weak)
    return [cast(a, dtype) for a in atoms]


def dense(atom: Atom) -> Var:
    """A variable: literals become arrays of no dimension."""
    if isinstance(atom, Var):
        return atom
    return fill(atom, ())


def fill(literal: Literal, shape: tuple[int, ...]) -> Var:
    """An array filled with one number."""
    return require_trace().emit(sh.broadcast, literal, shape=shape, dims=())


def broadcast(atom: Atom, shape: tuple[int, ...]) -> Atom:
    """NumPy's broadcasting of one atom, literals included."""
    if isinstance(atom, Literal):
        return fill(atom, shape)
    return sh.broadcast_to(require_trace().builder, atom, shape)


def normal_axis(axis: Any, ndim: int) -> int:
    k = operator.index(axis)
    if not -ndim <= k < ndim:
        raise np.exceptions.AxisError(f"axis {k} of {ndim} dimensions{at_user_line()}")
    return k % ndim


def normal_axes(axis: Any, ndim: int) -> tuple[int, ...]:
    """None, an integer or a tuple as sorted axes."""
    if axis is None:
        return tuple(range(ndim))
    items = axis if isinstance(axis, (tuple, list)) else (axis,)
    axes = tuple(sorted(normal_axis(k, ndim) for k in items))
    if len(set(axes)) != len(axes):
        raise ValueError(f"an axis stands twice in {axis}{at_user_line()}")
    return axes


def normal_shape(shape: Any) -> tuple[int, ...]:
    items = shape if isinstance(shape, (tuple, list, np.ndarray)) else (shape,)
    return tuple(operator.index(n) for n in items)
