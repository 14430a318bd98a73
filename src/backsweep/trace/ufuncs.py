"""NumPy's universal functions on traced values."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from backsweep.errors import ShapeError
from backsweep.ir import ArrayType, Atom, Literal
from backsweep.primitives import elementwise as ew
from backsweep.primitives import shape as sh
from backsweep.trace.array import HANDLED_FUNCTIONS, TracedArray, lift, wrap
from backsweep.trace.tracing import at_user_line, require_trace, trace_error

SPECIAL: dict[str, Callable[..., TracedArray]] = {}
"""Ufuncs that are more than one equation; filled by `ufunc_rules`."""

COMPLEX_RULES: dict[str, Callable[..., TracedArray]] = {}
"""Those whose complex form is written in terms of real ones."""

_COMPLEX_PRIMITIVES = frozenset(
    (ew.add, ew.sub, ew.mul, ew.div, ew.neg, ew.exp, ew.log, ew.sqrt, ew.eq, ew.ne, ew.conj)
)

_WEAK = {"f": float, "i": int, "u": int, "c": complex}

SIMPLE: dict[str, Any] = {
    "add": ew.add,
    "subtract": ew.sub,
    "multiply": ew.mul,
    "divide": ew.div,
    "negative": ew.neg,
    "less": ew.lt,
    "less_equal": ew.le,
    "greater": ew.gt,
    "greater_equal": ew.ge,
    "equal": ew.eq,
    "not_equal": ew.ne,
    "maximum": ew.maximum,
    "minimum": ew.minimum,
    "sqrt": ew.sqrt,
    "exp": ew.exp,
    "log": ew.log,
    "expm1": ew.expm1,
    "log1p": ew.log1p,
    "sin": ew.sin,
    "cos": ew.cos,
    "tan": ew.tan,
    "sinh": ew.sinh,
    "cosh": ew.cosh,
    "tanh": ew.tanh,
    "arcsin": ew.arcsin,
    "arccos": ew.arccos,
    "arctan": ew.arctan,
    "arctan2": ew.arctan2,
    "arcsinh": ew.arcsinh,
    "arccosh": ew.arccosh,
    "arctanh": ew.arctanh,
    "floor": ew.floor,
    "ceil": ew.ceil,
    "sign": ew.sign,
    "remainder": ew.remainder,
    "floor_divide": ew.floor_divide,
    "conjugate": ew.conj,
}


def promote(ufunc: Any, atoms: list[Atom]) -> tuple[list[Atom], bool]:
    """Cast operands to the dtypes of the loop that NumPy would choose (NEP 50)."""
    emit = require_trace().emit
    types: list[Any] = []
    for a in atoms:
        assert isinstance(a.type, ArrayType)
        types.append(_WEAK[a.type.dtype.kind] if a.type.weak else a.type.dtype)
    is_weak = all(isinstance(t, type) for t in types)
    if is_weak:
        types = [np.dtype(t) for t in types]
    try:
        loop = ufunc.resolve_dtypes((*types, *[None] * ufunc.nout))
    except TypeError as error:
        raise trace_error(str(error)) from None
    out = [_cast(emit, a, dtype) for a, dtype in zip(atoms, loop, strict=False)]
    return out, is_weak


def _cast(emit: Any, atom: Atom, dtype: np.dtype) -> Atom:
    assert isinstance(atom.type, ArrayType)
    if atom.type.dtype == dtype:
        return atom
    if atom.type.dtype.kind == "c" and dtype.kind != "c":
        raise trace_error(f"a complex value cannot become {dtype}: take .real or abs()")
    if isinstance(atom, Literal):
        return Literal(atom.value, ArrayType((), dtype))
    return emit(ew.cast, atom, dtype=dtype)


def broadcast_together(atoms: list[Atom]) -> list[Atom]:
    """NumPy's broadcasting; literals stay scalars."""
    shapes = [a.type.shape for a in atoms]
    try:
        shape = np.broadcast_shapes(*shapes)
    except ValueError:
        shown = " and ".join(map(str, shapes))
        raise ShapeError(
            f"operands of shapes {shown} cannot be broadcast{at_user_line()}"
        ) from None
    builder = require_trace().builder
    return [sh.broadcast_to(builder, a, shape) for a in atoms]


def elementwise(
    primitive: Any, atoms: list[Atom], weak: bool = False, **params: Any
) -> TracedArray:
    """Emit an elementwise primitive on promoted operands."""
    out = require_trace().emit(primitive, *broadcast_together(atoms), **params)
    if weak:
        weak_type = ArrayType(out.type.shape, out.type.dtype, True)
        object.__setattr__(out, "type", weak_type)
    return wrap(out)


def apply(ufunc: Any, *values: Any) -> TracedArray:
    """One ufunc on any operands."""
    name = ufunc.__name__
    atoms = [lift(v) for v in values]
    special = SPECIAL.get(name)
    if special is not None:
        return special(*atoms)
    primitive = SIMPLE.get(name)
    if primitive is None:
        raise trace_error(
            f"numpy.{name} is not supported on traced values; write it with arithmetic, "
            "exp, log, sqrt and trigonometric functions"
        )
    promoted, weak = promote(ufunc, atoms)
    is_complex = promoted[0].type.dtype.kind == "c"  # type: ignore[union-attr]
    if primitive is ew.conj and not is_complex:
        return wrap(promoted[0])
    if is_complex and primitive not in _COMPLEX_PRIMITIVES:
        if name in COMPLEX_RULES:
            return COMPLEX_RULES[name](*promoted)
        raise trace_error(f"numpy.{name} of complex values is not supported: use abs() or .real")
    return elementwise(primitive, promoted, weak)


def call_ufunc(ufunc: Any, method: str, inputs: Any, kwargs: Any) -> Any:
    """What `__array_ufunc__` and the operators end in."""
    kwargs = dict(kwargs)
    out = kwargs.pop("out", None)
    out = out[0] if isinstance(out, tuple) else out
    if method == "at" and ufunc.__name__ in ("add", "subtract"):
        from backsweep.trace.indexing import add_at

        return add_at(inputs[0], inputs[1], inputs[2], negate=ufunc.__name__ == "subtract")
    if method == "reduce" and ufunc.__name__ in _REDUCTIONS:
        kwargs.pop("dtype", None)
        return _REDUCTIONS[ufunc.__name__](*inputs, **{"axis": 0, **kwargs})
    where = kwargs.pop("where", True)
    if method != "__call__" or where is not True or any(v is not None for v in kwargs.values()):
        raise trace_error(
            f"numpy.{ufunc.__name__}.{method} with {sorted(kwargs) or 'where='} is not "
            "supported on traced values; use np.where and plain calls"
        )
    if ufunc.__name__ == "matmul":
        result = HANDLED_FUNCTIONS[np.matmul](*inputs)
    elif out is not None and _adds_in_place(ufunc, inputs, out):
        return out
    else:
        result = apply(ufunc, *inputs)
    return result if out is None else _assign_out(out, result)


def _adds_in_place(ufunc: Any, inputs: Any, out: Any) -> bool:
    """`u += y` and `u -= y`: recorded as u + embed(y), not as a whole new u."""
    if ufunc.__name__ not in ("add", "subtract") or not isinstance(out, TracedArray):
        return False
    if inputs[0] is not out or out._base is None:
        return False
    out._check_writable()
    atoms, _ = promote(ufunc, [out._read(), lift(inputs[1])])
    if atoms[0].type.dtype != out.dtype:  # type: ignore[union-attr]
        return False
    value = _fit(atoms[1], out)
    out._add_into(require_trace().emit(ew.neg, value) if ufunc is np.subtract else value)
    return True


def _fit(atom: Atom, target: TracedArray) -> Atom:
    """Cast and broadcast a value for a write into a target."""
    trace = require_trace()
    assert isinstance(atom.type, ArrayType)
    atom = _cast(trace.emit, atom, target.dtype)
    extra = len(atom.type.shape) - target.ndim
    if extra > 0 and atom.type.shape[:extra] == (1,) * extra:
        atom = trace.emit(sh.reshape, atom, shape=atom.type.shape[extra:])
    try:
        fits = np.broadcast_shapes(atom.type.shape, target.shape) == target.shape
    except ValueError:
        fits = False
    if not fits:
        raise ShapeError(
            f"a value of shape {atom.type.shape} does not fit into shape {target.shape}"
            + at_user_line()
        )
    if isinstance(atom, Literal):
        return sh.full(trace.builder, atom, target.shape)
    return sh.broadcast_to(trace.builder, atom, target.shape)


def _assign_out(out: Any, result: TracedArray) -> Any:
    if not isinstance(out, TracedArray):
        raise trace_error(
            f"a traced value is written into a plain array of shape {np.shape(out)}: create it "
            "with np.zeros(shape, like=u), np.zeros_like(u) or backsweep.numpy.zeros"
        )
    out._check_writable()
    if not np.can_cast(result.dtype, out.dtype, "same_kind"):
        raise trace_error(
            f"a result of dtype {result.dtype} cannot be written into {out.dtype}: as in NumPy "
            "this needs u[...] = value.astype(...)"
        )
    out._write(_fit(result._read(), out))
    return out


def as_mask(atom: Atom) -> Atom:
    """A boolean value; numbers are true where they are not zero."""
    assert isinstance(atom.type, ArrayType)
    if atom.type.dtype == np.bool_:
        return atom
    zero = Literal(0, ArrayType((), atom.type.dtype))
    return require_trace().emit(ew.ne, atom, zero)


def _reduction(function: Any) -> Callable[..., Any]:
    return lambda x, **kwargs: HANDLED_FUNCTIONS[function](x, **kwargs)


_REDUCTIONS: dict[str, Callable[..., Any]] = {
    "add": _reduction(np.sum),
    "multiply": _reduction(np.prod),
    "maximum": _reduction(np.max),
    "minimum": _reduction(np.min),
    "logical_and": _reduction(np.all),
    "logical_or": _reduction(np.any),
}
