"""Traces: what is being recorded, by whom, and what it captured from outside.

A trace owns a builder. Traces nest (a scan's step inside a loss); the innermost is
active. A value of an outer trace, or a plain array, that is met inside becomes an input
of the inner program and is *captured*: the caller passes it as a constant of the scan.
"""

from __future__ import annotations

import contextlib
import linecache
import os
import pickle
import sys
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from types import FrameType, FunctionType
from typing import Any

import numpy as np
from numpy.random import RandomState

from backsweep.comm import BlockedArray
from backsweep.errors import MutationError, TraceError
from backsweep.ir import ArrayType, Atom, Builder, Literal, Source, Var

_PACKAGE = os.path.dirname(os.path.dirname(os.path.abspath(__file__))) + os.sep
_SKIPPED = (_PACKAGE, os.path.dirname(np.__file__) + os.sep, contextlib.__file__)


def user_source() -> Source | None:
    """The innermost line of code that belongs neither to backsweep nor to NumPy."""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        name = frame.f_code.co_filename
        if not name.startswith(_SKIPPED) and not name.startswith("<"):
            return Source(name, frame.f_lineno)
        frame = frame.f_back
    return None


def at_user_line() -> str:
    """`file:line: source text` for error messages."""
    source = user_source()
    if source is None:
        return ""
    text = linecache.getline(source.file, source.line).strip()
    return f"\n  at {source.file}:{source.line}" + (f": {text}" if text else "")


def trace_error(message: str) -> TraceError:
    return TraceError(message + at_user_line())


@dataclass(slots=True)
class PlainCapture:
    """A plain array that a trace reads; its content must stay while tracing."""

    array: np.ndarray
    checksum: int
    source: Source | None


def content_checksum(array: np.ndarray) -> int:
    return zlib.crc32(np.ascontiguousarray(array).view(np.uint8).reshape(-1).data)


@dataclass
class Trace:
    """One program being recorded."""

    parent: Trace | None
    builder: Builder = field(default_factory=Builder)
    captured: dict[Any, tuple[Var, Any]] = field(default_factory=dict)
    plain: dict[int, PlainCapture] = field(default_factory=dict)
    index_pool: dict[Any, np.ndarray] = field(default_factory=dict)
    names: dict[int, str] = field(default_factory=dict)
    """The user's names of captured values, by their id."""
    is_cut: bool = False
    """Whether the program will be cut into blocks."""

    def pooled(self, indices: np.ndarray, axis: int) -> np.ndarray:
        """One array object for equal index arrays of one axis on one line of the user.

        `u[i] += v` reads and writes at the same points; elsewhere equal values are a
        coincidence that must not change the program.
        """
        root = self
        while root.parent is not None:
            root = root.parent
        key = (str(user_source()), axis, indices.shape, indices.dtype.str, indices.tobytes())
        return root.index_pool.setdefault(key, indices)

    def emit(self, primitive: Any, *inputs: Atom, **params: Any) -> Any:
        """Append an equation that carries the user's line."""
        self.builder.source = user_source()
        return self.builder(primitive, *inputs, **params)

    def capture(self, key: Any, type: ArrayType, outer: Any, name: str = "") -> Var:
        """The input that stands for a value from outside; `outer` is what to pass for it."""
        if key not in self.captured:
            self.captured[key] = (self.builder.input(type, name), outer)
        return self.captured[key][0]

    def capture_plain(self, array: np.ndarray, name: str = "") -> Var:
        """Capture a plain array, through all enclosing traces."""
        name = self.names.get(id(array), name)
        key = ("plain", id(array))
        if key in self.captured:
            return self.captured[key][0]
        type = ArrayType(array.shape, array.dtype)
        if self.parent is not None:
            return self.capture(key, type, self.parent.capture_plain(array, name), name)
        known = self.plain.get(id(array))
        if known is not None:
            known.source = user_source()
        else:
            self.plain[id(array)] = PlainCapture(array, content_checksum(array), user_source())
        return self.capture(key, type, array, name)

    def capture_blocked(self, array: BlockedArray) -> Var:
        """Capture an array of which only blocks are known."""
        outer = array if self.parent is None else self.parent.capture_blocked(array)
        type = ArrayType(array.shape, array.dtype)
        return self.capture(("blocked", id(array)), type, outer, self.names.get(id(array), ""))

    def check_plain_unchanged(self) -> None:
        """Raise if a captured plain array was written to while tracing."""
        for capture in self.plain.values():
            if content_checksum(capture.array) != capture.checksum:
                raise MutationError(
                    f"a plain array of shape {capture.array.shape}, read at {capture.source}, "
                    "was changed while the function was traced: the trace would freeze one of "
                    "its contents; make it a carry, or copy it before changing it"
                )


_active: ContextVar[Trace | None] = ContextVar("backsweep_active_trace", default=None)


def active_trace() -> Trace | None:
    return _active.get()


def require_trace() -> Trace:
    trace = _active.get()
    if trace is None:
        raise trace_error(
            "a traced value is used after its function was traced: return it from the "
            "function instead of keeping it"
        )
    return trace


@contextmanager
def new_trace(function: Any = None, is_cut: bool = False) -> Iterator[Trace]:
    """Make a nested trace the active one.

    `function` is what will be traced: arrays and random generators that it captures are watched.
    With `is_cut` its program, and what is traced inside, will be cut into blocks.
    """
    parent = _active.get()
    trace = Trace(parent, is_cut=is_cut or (parent is not None and parent.is_cut))
    for name, array in _captured_by_name(function):
        trace.names.setdefault(id(array), name)
        if isinstance(array, np.ndarray) and array.dtype.kind in "biufc":
            trace.plain[id(array)] = PlainCapture(
                array, content_checksum(array), _definition(function)
            )
    token = _active.set(trace)
    before = _random_state(function)
    try:
        yield trace
        if _random_state(function) != before:
            raise trace_error(
                "NumPy's random state changed while the function was traced: the numbers would "
                "be frozen into the program; draw them outside and pass them as xs"
            )
        trace.check_plain_unchanged()
    except ValueError as error:
        # NumPy replaces what a traced scalar raises when it is put into a plain array.
        if isinstance(error.__cause__, TraceError):
            raise error.__cause__ from None
        raise
    finally:
        _active.reset(token)


def _random_state(function: Any) -> list[Any]:
    """Of NumPy's global generator and of those that a function captures by name."""
    state: Any = np.random.get_state(legacy=True)
    kind, key, *rest = state
    generators = [
        v
        for _, v in _captured_by_name(function)
        if isinstance(v, np.random.Generator | RandomState)
    ]
    return [kind, key.tobytes(), *rest, *(pickle.dumps(g) for g in generators)]


def _definition(function: Any) -> Source | None:
    code = getattr(function, "__code__", None)
    return Source(code.co_filename, code.co_firstlineno) if code is not None else None


def _captured_by_name(function: Any) -> Iterator[tuple[str, Any]]:
    """What a Python function, and the user's functions that it names, hold from outside."""
    pending, seen = [function], set()
    while pending:
        current = pending.pop()
        code = getattr(current, "__code__", None)
        if code is None or code in seen or code.co_filename.startswith(_SKIPPED):
            continue
        seen.add(code)
        held: list[tuple[str, Any]] = []
        for name, cell in zip(code.co_freevars, current.__closure__ or (), strict=False):
            with contextlib.suppress(ValueError):  # an empty cell
                held.append((name, cell.cell_contents))
        names = current.__globals__
        held += [(n, names[n]) for n in code.co_names if n in names]
        pending += [v for _, v in held if isinstance(v, FunctionType)]
        yield from held


def literal(value: Any, dtype: Any | None = None, weak: bool = False) -> Literal:
    array = np.asarray(value)
    return Literal(array.item(), ArrayType((), np.dtype(dtype or array.dtype), weak))
