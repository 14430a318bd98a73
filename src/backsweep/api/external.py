"""`external_step`: a step that the user brings together with its reverse.

What the user's object returns is checked here, at each call: the engine must be able to rely
on it, and a cotangent in the wrong place is a wrong gradient.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NoReturn

import numpy as np
import optree

from backsweep.api.tracer import materialized, run_traced
from backsweep.api.tree import Tree, flatten
from backsweep.errors import ExternalStepError
from backsweep.ir import ArrayType
from backsweep.primitives.external import external_call
from backsweep.trace.array import lift, wrap
from backsweep.trace.tracing import active_trace, at_user_line

_SCALARS = (bool, int, float, complex)


def external_step(model: Any, *, consts: Any = (), y_like: Any = None) -> Callable[..., Any]:
    """Make a step of an object that advances and reverses by itself.

    For code that cannot be traced: a sparse solver, Fortran with an adjoint from Tapenade, a
    Devito operator, a PyTorch module. The step goes into `scan`, where it gets budgets,
    schedules, snapshots on disk and the report as any other; it may also be called among NumPy
    code, inside a traced step or outside of any scan.

    Parameters
    ----------
    model : object
        Has the two methods (all arguments are containers of read-only, C-contiguous arrays)

        ``advance(consts, state, x) -> (next_state, y)``
            One step; `next_state` has the structure, shapes and dtypes of `state`.
        ``reverse(consts, state, x, state_bar, y_bar) -> (consts_bar, state_bar, x_bar)``
            The cotangents of the three arguments of `advance`, from those of its two results
            and the arguments: `state` is the one *before* the step.
    consts : pytree of array_like
        What the step depends on and does not change. What is differentiated must be passed
        here, not kept in `model`, which the engine does not look into.
    y_like : pytree, optional
        Arrays, or anything with `shape` and `dtype`, as the records `y` will be; None if
        `advance` returns None for y.

    Returns
    -------
    callable (state, x) -> (next_state, y)
        `state` holds arrays only; it may be called without x.

    Raises
    ------
    ExternalStepError
        If a method is missing, or, when the step runs, returns what does not fit: other
        containers, another shape, a dtype that would lose information in conversion (float64
        for float32), or no NumPy array.
    ForwardModeError
        If forward mode (`jvp`, `linearize`) or a second derivative would have to go through
        the step.

    Notes
    -----
    Cotangents belong to the real inner product <a, b> = Re sum conj(a) b: for a linear complex
    step they are its conjugate transpose. None, in place of a whole item or of an array, is a
    zero cotangent. Integers and booleans have none: they are passed as None, and what is
    returned for them, or for what is not differentiated, is ignored.

    `advance` must depend on its arguments alone, for under a budget it is called again from
    snapshots. No array that is passed is used again, and what is returned is copied: the object
    may reuse its buffers. Where a traced step uses its results nonlinearly, `advance` is called
    once more in each reverse step, which the report does not count among the advances.

    Examples
    --------
    >>> class Decay:
    ...     def advance(self, rate, u, x):
    ...         return u - rate * u, None
    ...     def reverse(self, rate, u, x, u_bar, y_bar):
    ...         return -np.sum(u * u_bar), u_bar - rate * u_bar, None
    >>> def last(rate):
    ...     return bs.scan(bs.external_step(Decay(), consts=rate), 2.0, length=3)[0]
    >>> bs.grad(last)(0.5)  # 2 (1 - rate)^3
    array(-1.5)
    """
    _check_methods(model)
    y_leaves, y_spec = optree.tree_flatten(y_like)
    y = _Item("y", Tree(y_spec, (), len(y_leaves)), tuple(_record_type(v) for v in y_leaves))

    def step(state: Any, x: Any = None) -> Any:
        trace = active_trace()
        if trace is None:
            return run_traced(step, state, x)
        atoms: list[Any] = []

        def item(name: str, value: Any) -> _Item:
            leaves, tree = flatten(value)
            own = [materialized(trace, lift(leaf)) for leaf in leaves]
            atoms.extend(own)
            return _Item(name, tree, tuple(ArrayType(a.type.shape, a.type.dtype) for a in own))  # type: ignore[union-attr]

        items = (item("consts", consts), item("state", state), item("x", x))
        call = _CheckedStep(model, *items, y, np.geterr())
        _check_state(call)
        out_types = (*call.state.types, *y.types)
        outputs = trace.emit(external_call, *atoms, step=call, out_types=out_types)
        results, n = [wrap(v) for v in outputs], len(call.state.types)
        return call.state.tree.build(results[:n]), y.tree.build(results[n:])

    return step


def _check_methods(model: Any) -> None:
    name = model.__name__ if isinstance(model, type) else type(model).__name__
    if isinstance(model, type):
        raise ExternalStepError(f"external_step needs an object, not the class {name}: {name}()")
    for method in ("advance", "reverse"):
        if not callable(getattr(model, method, None)):
            raise ExternalStepError(
                f"{name} has no method {method}: an external step needs "
                "advance(consts, state, x) and reverse(consts, state, x, state_bar, y_bar)"
            )


def _check_state(call: _CheckedStep) -> None:
    for _, leaf in call.state.tree.static:
        raise ExternalStepError(
            f"the state of the external step {call} holds a {type(leaf).__name__}: a state "
            f"consists of arrays; keep everything else in the object{at_user_line()}"
        )


def _record_type(leaf: Any) -> ArrayType:
    if type(leaf) in _SCALARS:
        leaf = np.asarray(leaf)
    try:
        type_ = ArrayType(tuple(int(n) for n in leaf.shape), np.dtype(leaf.dtype))
    except (AttributeError, TypeError):
        raise ExternalStepError(
            f"y_like holds a {type(leaf).__name__}: shape and dtype of a NumPy array are needed"
        ) from None
    if type_.dtype.kind not in "biufc":
        raise ExternalStepError(f"y_like: records of dtype {type_.dtype} are not supported")
    return type_


@dataclass(frozen=True, eq=False, slots=True)
class _Item:
    """One argument or result of the user's methods."""

    name: str
    tree: Tree
    types: tuple[ArrayType, ...]

    def passed(self, arrays: Sequence[np.ndarray | None]) -> Any:
        """Containers of arrays that nothing else refers to and that cannot be written to.

        Copies, because compiled code that is given an address heeds no flag.
        """
        own: list[np.ndarray | None] = []
        for array, type_ in zip(arrays, self.types, strict=True):
            if array is not None:
                array = np.array(array, type_.dtype, order="C")
                array.flags.writeable = False
            own.append(array)
        return self.tree.build(own)

    def returned(self, value: Any, where: str) -> list[tuple[Any, ArrayType, str]]:
        """What stands in the places of this item's arrays, with their types and names."""
        try:
            leaves = self.tree.spec.flatten_up_to(value)
        except (ValueError, TypeError):
            hint = ": describe it by y_like=" if self.name == "y" else ""
            raise ExternalStepError(
                f"{where} has the structure {optree.tree_structure(value)}, expected is that of "
                f"{self.name}, {self.tree.spec}{hint}"
            ) from None
        static = dict(self.tree.static)
        numeric = [leaf for k, leaf in enumerate(leaves) if k not in static]
        names = [where + path for path in self.tree.paths()]
        return list(zip(numeric, self.types, names, strict=True))


@dataclass(frozen=True, eq=False, slots=True)
class _CheckedStep:
    """The user's object on flat lists of arrays (`primitives.external.ExternalStep`)."""

    model: Any
    consts: _Item
    state: _Item
    x: _Item
    y: _Item
    errors: Any
    """NumPy's handling of floating point errors where the step is traced: programs run with
    all of them ignored, the user's own code does not."""

    def __str__(self) -> str:
        return type(self.model).__name__

    def advance(self, inputs: Sequence[np.ndarray]) -> tuple[np.ndarray, ...]:
        arguments = _passed((self.consts, self.state, self.x), inputs)
        next_state, y = self._call("advance", ("next_state", "y"), arguments)
        places = [
            *self.state.returned(next_state, f"{self}.advance: next_state"),
            *self.y.returned(y, f"{self}.advance: y"),
        ]
        return tuple(_checked(value, type_, where) for value, type_, where in places)

    def reverse(
        self,
        inputs: Sequence[np.ndarray],
        cotangents: Sequence[np.ndarray | None],
        wanted: Sequence[bool],
    ) -> tuple[np.ndarray, ...]:
        out_types = (*self.state.types, *self.y.types)
        bars = [
            np.zeros(t.shape, t.dtype) if bar is None and t.is_inexact else bar
            for bar, t in zip(cotangents, out_types, strict=True)
        ]
        items = (self.consts, self.state, self.x)
        arguments = [*_passed(items, inputs), *_passed((self.state, self.y), bars)]
        names = ("consts_bar", "state_bar", "x_bar")
        results = self._call("reverse", names, arguments)
        flags = iter(wanted)
        own: list[np.ndarray] = []
        for item, name, result in zip(items, names, results, strict=True):
            is_wanted = [next(flags) for _ in item.types]
            if result is None or not any(is_wanted):
                places: list[Any] = [(None, type_, name) for type_ in item.types]
            else:
                places = item.returned(result, f"{self}.reverse: {name}")
            for (value, type_, where), is_active in zip(places, is_wanted, strict=True):
                if is_active and value is None:
                    own.append(np.zeros(type_.shape, type_.dtype))
                elif is_active:
                    own.append(_checked(value, type_, where))
        return tuple(own)

    def _call(self, method: str, names: tuple[str, ...], arguments: Sequence[Any]) -> Any:
        try:
            with np.errstate(**self.errors):
                results = getattr(self.model, method)(*arguments)
        except Exception as error:
            error.add_note(f"raised by {self}.{method}, an external step of backsweep")
            raise
        if not isinstance(results, tuple) or len(results) != len(names):
            got = f"{len(results)} values" if isinstance(results, tuple) else type(results).__name__
            raise ExternalStepError(
                f"{self}.{method} must return the tuple ({', '.join(names)}), it returned {got}"
            )
        return results


def _passed(items: Sequence[_Item], arrays: Sequence[np.ndarray | None]) -> list[Any]:
    """Flat arrays as containers, item by item."""
    supply = iter(arrays)
    return [item.passed([next(supply) for _ in item.types]) for item in items]


def _checked(value: Any, type_: ArrayType, where: str) -> np.ndarray:
    """A copy of what the user returned, or a refusal."""

    def refuse(got: str, hint: str = "") -> NoReturn:
        raise ExternalStepError(
            f"{where} {got}, expected is an array of shape {type_.shape} and dtype "
            f"{type_.dtype}{hint}"
        )

    is_scalar = type(value) in _SCALARS
    if not is_scalar and not isinstance(value, (np.ndarray, np.generic)):
        refuse(f"is a {type(value).__name__}", ": convert it, as with numpy.asarray")
    if np.ma.isMaskedArray(value):
        refuse("is a masked array", ": fill it")
    if np.shape(value) != type_.shape:
        refuse(f"has shape {np.shape(value)}")
    # A Python number takes the dtype of its kind (NEP 50); for arrays nothing may be lost.
    fits = (
        np.result_type(type_.dtype, value) == type_.dtype
        if is_scalar
        else np.can_cast(value.dtype, type_.dtype, "safe")
    )
    if not fits:
        dtype = type(value).__name__ if is_scalar else value.dtype
        hint = f": .astype({type_.dtype}) rounds where that is meant" if type_.is_inexact else ""
        refuse(f"has dtype {dtype}", hint)
    return np.array(value, type_.dtype, order="C")


__all__ = ["external_step"]
