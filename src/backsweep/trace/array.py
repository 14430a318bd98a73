"""The traced array: behaves as a NumPy array and records what is done with it.

Every handle is either a base (owner of a cell that holds the current variable) or a view
(a base handle and a relation). Reading a view reads the base's current value; writing
through it updates the base. Scalars (0-d) are immutable values, as NumPy's scalars are.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from backsweep.comm import BlockedArray
from backsweep.ir import ArrayType, Atom, Literal, Var
from backsweep.primitives import shape as sh
from backsweep.trace.tracing import Trace, at_user_line, literal, require_trace, trace_error
from backsweep.trace.views import Part, Picked, Reshaped, Transposed, View

HANDLED_FUNCTIONS: dict[Any, Any] = {}
HANDLED_UFUNCS: dict[str, Any] = {}
METHODS: dict[str, Any] = {}


class TracedArray:
    """A handle on a value of a program under construction."""

    __slots__ = ("_base", "_trace", "_type", "_var", "_view", "__weakref__")
    __array_priority__ = 1000.0

    def __init__(
        self,
        trace: Trace,
        var: Atom | None,
        base: TracedArray | None = None,
        view: View | None = None,
        type: ArrayType | None = None,
    ) -> None:
        self._trace, self._var, self._base, self._view = trace, var, base, view
        self._type: ArrayType = type if type is not None else var.type  # type: ignore

    if TYPE_CHECKING:  # set in a loop below
        __add__: Any
        __sub__: Any
        __mul__: Any
        __truediv__: Any
        __mod__: Any
        __pow__: Any
        __and__: Any
        __or__: Any
        __matmul__: Any
        __lt__: Any
        __le__: Any
        __gt__: Any
        __ge__: Any
        __eq__: Any
        __ne__: Any
        __neg__: Any
        __pos__: Any
        __abs__: Any
        __invert__: Any

    # ------------------------------------------------------------------ reading and writing

    def _read(self) -> Atom:
        """The current value, as an atom of the handle's own trace."""
        if self._base is None:
            assert self._var is not None
            return self._var
        assert self._view is not None
        return self._view.read(self._trace.emit, self._base._read())

    def _check_writable(self) -> None:
        if self._trace is not require_trace():
            raise trace_error(
                f"the step writes to a captured array of shape {self.shape}: what a step changes "
                "must be part of its carry; copy it first (u = u.copy()) or carry it"
            )
        if self.ndim == 0 and self._base is None:
            raise trace_error("a scalar cannot be written to in place")

    def _write(self, value: Atom) -> None:
        """Replace the whole value."""
        if self._base is None:
            self._var = value
        else:
            assert self._view is not None
            self._base._write(self._view.write(self._trace.emit, self._base._read(), value))

    def _add_into(self, value: Atom) -> None:
        """Add to the value: base + embed(value)."""
        from backsweep.primitives.elementwise import add

        if self._base is None:
            self._var = self._trace.emit(add, self._read(), value)
        else:
            assert self._view is not None
            if isinstance(self._view, Picked):
                self._base._write(self._view.add(self._trace.emit, self._base._read(), value))
                return
            self._base._add_into(self._view.embed(self._trace.emit, self._base._type, value))

    def _make_view(self, view: View, type: ArrayType) -> TracedArray:
        if self.ndim == 0 and self._base is None:  # a scalar has no memory that could be shared
            return TracedArray(self._trace, view.read(self._trace.emit, self._read()))
        return TracedArray(self._trace, None, self, view, type)

    # ------------------------------------------------------------------ attributes

    @property
    def shape(self) -> tuple[int, ...]:
        return self._type.shape

    @property
    def dtype(self) -> np.dtype:
        return self._type.dtype

    @property
    def ndim(self) -> int:
        return len(self._type.shape)

    @property
    def size(self) -> int:
        return self._type.size

    @property
    def itemsize(self) -> int:
        return self._type.dtype.itemsize

    @property
    def nbytes(self) -> int:
        return self._type.nbytes

    @property
    def T(self) -> TracedArray:
        return self._transposed(tuple(reversed(range(self.ndim))))

    def _transposed(self, axes: tuple[int, ...]) -> TracedArray:
        shape = tuple(self.shape[k] for k in axes)
        return self._make_view(Transposed(axes), self._type.with_shape(shape))

    def _reshaped(self, shape: tuple[int, ...]) -> TracedArray:
        return self._make_view(Reshaped(shape), self._type.with_shape(shape))

    @property
    def real(self) -> TracedArray:
        return self._part(True)

    @real.setter
    def real(self, value: Any) -> None:
        self.real[...] = value

    @property
    def imag(self) -> TracedArray:
        return self._part(False)

    @imag.setter
    def imag(self, value: Any) -> None:
        self.imag[...] = value

    def _part(self, is_real: bool) -> TracedArray:
        if self.dtype.kind != "c":
            return self if is_real else wrap(sh.zeros(require_trace().builder, self._type))
        real_type = self._type.with_dtype(np.dtype(f"f{self.itemsize // 2}"))
        return self._make_view(Part(is_real), real_type)

    # ------------------------------------------------------------------ protocols

    def __array_ufunc__(self, ufunc: Any, method: str, *inputs: Any, **kwargs: Any) -> Any:
        from backsweep.trace.ufuncs import call_ufunc

        return call_ufunc(ufunc, method, inputs, kwargs)

    def __array_function__(self, func: Any, types: Any, args: Any, kwargs: Any) -> Any:
        handler = HANDLED_FUNCTIONS.get(func)
        if handler is None:
            raise trace_error(
                f"{func.__module__}.{func.__name__} is not supported on traced values; write it "
                "with arithmetic, slices and sums, or compute it outside of the traced function"
            )
        return handler(*args, **kwargs)

    def __array__(self, *args: Any, **kwargs: Any) -> Any:
        if self.dtype.kind in "iub":
            raise trace_error(
                f"a traced value of shape {self.shape} and dtype {self.dtype} was put where NumPy "
                "wants a plain array; if it is the index of a plain array: pass that array as xs "
                "of the scan, or index backsweep.numpy.asarray(array)"
            )
        raise trace_error(
            f"a traced value of shape {self.shape} was put where NumPy wants a plain array "
            "(a plain array as target or a function that does not dispatch): create the target "
            "with np.zeros(shape, like=u), np.zeros_like(u) or backsweep.numpy.zeros, and join "
            "with backsweep.numpy.array or np.stack"
        )

    def __bool__(self) -> bool:
        raise trace_error(
            "a traced value has no truth value: `if`, `while`, `and`, `or` cannot depend on it; "
            "use np.where(condition, a, b), or & and | between masks"
        )

    def __index__(self) -> int:
        raise trace_error(
            "a traced value was used as an index of a plain array or as a size: pass the array "
            "as xs of the scan, or index backsweep.numpy.asarray(array)"
        )

    def __float__(self) -> float:
        raise trace_error(
            "a traced value has no number yet: float() cannot be taken of it and it cannot be "
            "written into a plain array; create the array with np.zeros(shape, like=u), "
            "np.zeros_like(u) or backsweep.numpy.zeros"
        )

    def __int__(self) -> int:
        raise trace_error("a traced value has no number yet: int() cannot be taken of it")

    __complex__ = __float__

    def __len__(self) -> int:
        if self.ndim == 0:
            raise TypeError("len() of unsized object")
        return self.shape[0]

    def __iter__(self) -> Iterator[Any]:
        return (self[k] for k in range(len(self)))

    def __hash__(self) -> int:
        return id(self)

    def __repr__(self) -> str:
        return f"TracedArray(shape={self.shape}, dtype={self.dtype})"

    def __getattr__(self, name: str) -> Any:
        method = METHODS.get(name)
        if method is None:
            line = "" if name.startswith("__") else at_user_line()
            raise AttributeError(f"a traced array has no attribute {name!r}{line}")
        return lambda *args, **kwargs: method(self, *args, **kwargs)

    # ------------------------------------------------------------------ indexing

    def __getitem__(self, index: Any) -> Any:
        from backsweep.trace.indexing import get_item

        return get_item(self, index)

    def __setitem__(self, index: Any, value: Any) -> None:
        from backsweep.trace.indexing import set_item

        set_item(self, index, value)


def _binary(name: str) -> tuple[Any, Any, Any]:
    ufunc = getattr(np, name)

    def forward(self: TracedArray, other: Any) -> Any:
        return _operator(ufunc, self, other)

    def backward(self: TracedArray, other: Any) -> Any:
        return _operator(ufunc, other, self)

    def in_place(self: TracedArray, other: Any) -> Any:
        if self.ndim == 0 and self._base is None:
            return _operator(ufunc, self, other)
        return ufunc(self, other, out=self)

    return forward, backward, in_place


def _unary(name: str) -> Any:
    ufunc = getattr(np, name)
    return lambda self: ufunc(self)


def _operator(ufunc: Any, x: Any, y: Any) -> Any:
    known = (
        TracedArray,
        np.ndarray,
        np.generic,
        BlockedArray,
        bool,
        int,
        float,
        complex,
        list,
        tuple,
    )
    if not isinstance(x, known) or not isinstance(y, known):
        return NotImplemented
    from backsweep.trace.ufuncs import call_ufunc

    return call_ufunc(ufunc, "__call__", (x, y), {})


_OPERATORS = {
    "add": "add",
    "sub": "subtract",
    "mul": "multiply",
    "truediv": "true_divide",
    "floordiv": "floor_divide",
    "mod": "remainder",
    "pow": "power",
    "and": "bitwise_and",
    "or": "bitwise_or",
    "xor": "bitwise_xor",
    "matmul": "matmul",
}
for _name, _ufunc in _OPERATORS.items():
    _f, _b, _i = _binary(_ufunc)
    setattr(TracedArray, f"__{_name}__", _f)
    setattr(TracedArray, f"__r{_name}__", _b)
    setattr(TracedArray, f"__i{_name}__", _i)
for _name, _ufunc in {
    "lt": "less",
    "le": "less_equal",
    "gt": "greater",
    "ge": "greater_equal",
    "eq": "equal",
    "ne": "not_equal",
}.items():
    setattr(TracedArray, f"__{_name}__", _binary(_ufunc)[0])
for _name, _ufunc in {
    "neg": "negative",
    "pos": "positive",
    "abs": "absolute",
    "invert": "invert",
}.items():
    setattr(TracedArray, f"__{_name}__", _unary(_ufunc))


def wrap(atom: Atom) -> TracedArray:
    """A handle on a value of the active trace."""
    return TracedArray(require_trace(), atom)


def lift(value: Any) -> Atom:
    """Any operand as an atom of the active trace."""
    trace = require_trace()
    if isinstance(value, TracedArray):
        return _lift_traced(trace, value)
    if isinstance(value, np.generic):  # first: np.float64 is a float as well
        return literal(value, value.dtype)
    if isinstance(value, (bool, int, float, complex)):
        return literal(value, weak=not isinstance(value, bool))
    if isinstance(value, np.ndarray):
        if value.dtype.kind not in "biufc":
            raise trace_error(f"an array of dtype {value.dtype} cannot take part in a program")
        if value.ndim == 0:
            return literal(value.item(), value.dtype)
        return trace.capture_plain(value)
    if isinstance(value, (list, tuple)):
        return _lift_sequence(value)
    if isinstance(value, BlockedArray):
        return trace.capture_blocked(value)
    raise trace_error(f"a value of type {type(value).__name__} cannot take part in a program")


def _lift_sequence(value: Any) -> Atom:
    """A list or tuple as operand: an array of its items."""
    return lift(HANDLED_FUNCTIONS[np.array](value))


def _lift_traced(trace: Trace, value: TracedArray) -> Atom:
    if value._trace is trace:
        return value._read()
    outer: Trace | None = trace.parent
    chain = [trace]
    while outer is not None and outer is not value._trace:
        chain.append(outer)
        outer = outer.parent
    if outer is None:
        raise trace_error(
            "a traced value of another function is used here: values must not leave the "
            "function in which they were traced other than by being returned"
        )
    atom = value._read()
    for inner in reversed(chain):
        if isinstance(atom, Literal):
            return atom
        assert isinstance(atom, Var) and isinstance(atom.type, ArrayType)
        name = inner.names.get(id(value), atom.name)
        atom = inner.capture(("outer", atom), atom.type, atom, name)
    return atom
