"""Products of arrays: everything becomes einsum of one or two operands."""

from __future__ import annotations

import string
from typing import Any

import numpy as np

from backsweep.errors import ShapeError
from backsweep.ir import Atom
from backsweep.primitives import reduce as rd
from backsweep.primitives import shape as sh
from backsweep.trace.array import TracedArray, lift, wrap
from backsweep.trace.functions.common import (
    cast,
    dense,
    handles,
    normal_axes,
    normal_axis,
    traced,
    type_of,
    unify,
)
from backsweep.trace.functions.joining import stack
from backsweep.trace.functions.reductions import max_, sum_
from backsweep.trace.functions.shaping import diagonal, moveaxis, ravel
from backsweep.trace.tracing import at_user_line, require_trace, trace_error
from backsweep.trace.ufuncs import apply

Labelled = tuple[Atom, str]
"""A value and one letter for each of its dimensions."""


# --------------------------------------------------------------------------- einsum


@handles(np.einsum)
def einsum(*operands: Any, optimize: Any = False) -> TracedArray:
    if not isinstance(operands[0], str):
        raise trace_error("np.einsum: write the subscripts as text, np.einsum('ij,j->i', a, b)")
    subscripts, values = operands[0], list(operands[1:])
    inputs, out = _parsed(subscripts, [np.ndim(v) for v in values])
    return contract(values, inputs, out)


def _parsed(subscripts: str, ndims: list[int]) -> tuple[list[str], str]:
    """Letters of each operand and of the result, ellipses and the implicit result replaced."""
    text = subscripts.replace(" ", "")
    left, arrow, out = text.partition("->")
    inputs = left.split(",")
    if len(inputs) != len(ndims):
        raise ShapeError(
            f"einsum {subscripts!r} names {len(inputs)} operands, {len(ndims)} are given"
            + at_user_line()
        )
    free = [c for c in string.ascii_letters[::-1] if c not in text]
    longest = 0
    for k, letters in enumerate(inputs):
        n = ndims[k] - len(letters.replace("...", ""))
        if n < 0 or (n > 0 and "..." not in letters):
            raise ShapeError(
                f"einsum {subscripts!r}: operand {k} has {ndims[k]} dimensions{at_user_line()}"
            )
        longest = max(longest, n)
        inputs[k] = letters.replace("...", "".join(reversed(free[:n])))
    wide = "".join(reversed(free[:longest]))
    if not arrow:
        letters = "".join(inputs)
        single = sorted(c for c in set(letters) if letters.count(c) == 1 and c not in wide)
        return inputs, wide + "".join(single)
    return inputs, out.replace("...", wide)


def contract(values: list[Any], inputs: list[str], out: str) -> TracedArray:
    """The sum over all letters that are not in `out`, two operands at a time."""
    atoms = unify(values, keep_weak=False)
    dtype = type_of(atoms[0]).dtype
    if dtype == np.bool_:
        atoms = [cast(a, np.int64) for a in atoms]
    operands = _without_broadcasts(
        [_without_repeats(a, letters) for a, letters in zip(atoms, inputs, strict=True)]
    )
    for step in _path(operands, out):
        chosen = [operands.pop(k) for k in sorted(step, reverse=True)][::-1]
        others = "".join(letters for _, letters in operands) + out
        while len(chosen) > 2:
            needed = "".join(letters for _, letters in chosen[2:]) + others
            chosen = [_contract_pair(chosen[:2], needed), *chosen[2:]]
        operands.append(_contract_pair(chosen, others))
    result = wrap(_arranged(*operands[0], out))
    return result != 0 if dtype == np.bool_ else result


def _path(operands: list[Labelled], out: str) -> list[tuple[int, ...]]:
    """The order of contraction, by NumPy's greedy search."""
    if len(operands) <= 2:
        return [tuple(range(len(operands)))]
    subscripts = ",".join(letters for _, letters in operands) + "->" + out
    dummies = [np.broadcast_to(np.float32(0), type_of(a).shape) for a, _ in operands]
    return [tuple(s) for s in np.einsum_path(subscripts, *dummies, optimize="greedy")[0][1:]]


def _without_repeats(atom: Atom, letters: str) -> Labelled:
    """A letter that stands twice takes the diagonal."""
    for c in letters:
        while letters.count(c) > 1:
            i, j = letters.index(c), letters.rindex(c)
            extents = type_of(atom).shape
            if extents[i] != extents[j]:
                raise ShapeError(
                    f"einsum: extents {extents[i]} and {extents[j]} of {c!r} differ{at_user_line()}"
                )
            atom = lift(diagonal(wrap(atom), 0, i, j))
            letters = "".join(d for k, d in enumerate(letters) if k not in (i, j)) + c
    return atom, letters


def _without_broadcasts(operands: list[Labelled]) -> list[Labelled]:
    """Dimensions of extent 1 that meet a longer one are dropped."""
    extents: dict[str, int] = {}
    for atom, letters in operands:
        for c, n in zip(letters, type_of(atom).shape, strict=True):
            known = extents.setdefault(c, n)
            if known != n and 1 not in (known, n):
                raise ShapeError(
                    f"the extents {known} and {n} that are multiplied differ{at_user_line()}"
                )
            extents[c] = n if known == 1 else known
    results = []
    for atom, letters in operands:
        shape = type_of(atom).shape
        kept = [k for k, c in enumerate(letters) if shape[k] == extents[c]]
        if len(kept) < len(letters):
            new = tuple(shape[k] for k in kept)
            atom = require_trace().emit(sh.reshape, atom, shape=new)
            letters = "".join(letters[k] for k in kept)
        results.append((atom, letters))
    return results


def _contract_pair(operands: list[Labelled], needed: str) -> Labelled:
    """One or two operands; letters that nobody needs any more are summed over."""
    emit = require_trace().emit
    if len(operands) == 2:
        others = [operands[1][1], operands[0][1]]
        operands = [
            _summed(atom, letters, needed + other)
            for (atom, letters), other in zip(operands, others, strict=True)
        ]
        (x, xs), (y, ys) = operands
        if not xs or not ys:
            product = _times(x, y)
            return product, xs + ys
        out = "".join(c for c in dict.fromkeys(xs + ys) if c in needed)
        value = emit(
            rd.einsum, dense(x), dense(y), subscripts=f"{xs},{ys}->{_ordered(out, needed)}"
        )
        return value, _ordered(out, needed)
    return _summed(*operands[0], needed)


def _ordered(letters: str, needed: str) -> str:
    """The order of the result, as far as it is already known."""
    return "".join(sorted(letters, key=needed.rindex))


def _times(x: Atom, y: Atom) -> Atom:
    return lift(wrap(x) * wrap(y))


def _summed(atom: Atom, letters: str, needed: str) -> Labelled:
    axes = tuple(k for k, c in enumerate(letters) if c not in needed)
    if not axes:
        return atom, letters
    value = require_trace().emit(sh.sum_, atom, axes=axes)
    return value, "".join(c for c in letters if c in needed)


def _arranged(atom: Atom, letters: str, out: str) -> Atom:
    if letters == out:
        return atom
    order = tuple(letters.index(c) for c in out)
    return require_trace().emit(sh.transpose, atom, axes=order)


# --------------------------------------------------------------------------- products


def _letters(n: int, start: int) -> str:
    return string.ascii_letters[start : start + n]


@handles(np.matmul)
def matmul(x1: Any, x2: Any) -> TracedArray:
    n, m = np.ndim(x1), np.ndim(x2)
    if n == 0 or m == 0:
        raise ShapeError(f"matmul of a scalar: use *{at_user_line()}")
    batch = _letters(max(n, m) - 2, 3) if max(n, m) > 2 else ""
    left = (batch[len(batch) - n + 2 :] + "AB") if n > 1 else "B"
    right = (batch[len(batch) - m + 2 :] + "BC") if m > 1 else "B"
    out = batch + ("A" if n > 1 else "") + ("C" if m > 1 else "")
    _check_equal(np.shape(x1)[-1], np.shape(x2)[-2 if m > 1 else 0], "matmul", x1, x2)
    return contract([x1, x2], [left, right], out)


def _check_equal(n: int, m: int, name: str, a: Any, b: Any) -> None:
    if n != m:
        raise ShapeError(
            f"{name}: the shapes {np.shape(a)} and {np.shape(b)} do not fit{at_user_line()}"
        )


@handles(np.dot, methods=["dot"])
def dot(a: Any, b: Any) -> TracedArray:
    n, m = np.ndim(a), np.ndim(b)
    if n == 0 or m == 0:
        return wrap(_times(*unify([a, b], keep_weak=False)))
    _check_equal(np.shape(a)[-1], np.shape(b)[-2 if m > 1 else 0], "dot", a, b)
    left, right = _letters(n - 1, 1), _letters(m - 1, n)
    second = right[:-1] + "a" + right[-1:] if m > 1 else "a"
    return contract([a, b], [left + "a", second], left + right)


@handles(np.vdot)
def vdot(a: Any, b: Any) -> TracedArray:
    x, y = ravel(a), ravel(b)
    _check_equal(x.size, y.size, "vdot", a, b)
    return contract([apply(np.conjugate, x), y], ["a", "a"], "")


@handles(np.inner)
def inner(a: Any, b: Any) -> TracedArray:
    n, m = np.ndim(a), np.ndim(b)
    if n == 0 or m == 0:
        return wrap(_times(*unify([a, b], keep_weak=False)))
    _check_equal(np.shape(a)[-1], np.shape(b)[-1], "inner", a, b)
    left, right = _letters(n - 1, 1), _letters(m - 1, n)
    return contract([a, b], [left + "a", right + "a"], left + right)


@handles(np.outer)
def outer(a: Any, b: Any) -> TracedArray:
    x, y = ravel(a), ravel(b)
    return x[:, None] * y[None, :]


@handles(np.tensordot)
def tensordot(a: Any, b: Any, axes: Any = 2) -> TracedArray:
    n, m = np.ndim(a), np.ndim(b)
    pairs: tuple[tuple[int, ...], ...]
    if np.ndim(axes) == 0:
        pairs = (tuple(range(n - axes, n)), tuple(range(axes)))
    else:
        pairs = tuple((k,) if np.ndim(k) == 0 else tuple(k) for k in axes)
    left, right = list(_letters(n, 0)), list(_letters(m, n))
    for i, j in zip(*pairs, strict=True):
        i, j = normal_axis(i, n), normal_axis(j, m)
        _check_equal(np.shape(a)[i], np.shape(b)[j], "tensordot", a, b)
        right[j] = left[i]
    out = [c for c in left if c not in right] + [c for c in right if c not in left]
    return contract([a, b], ["".join(left), "".join(right)], "".join(out))


@handles(np.trace, methods=["trace"])
def trace(
    a: Any, offset: int = 0, axis1: int = 0, axis2: int = 1, dtype: Any = None
) -> TracedArray:
    return sum_(diagonal(traced(a), offset, axis1, axis2), -1, dtype)


@handles(np.cross)
def cross(
    a: Any, b: Any, axisa: int = -1, axisb: int = -1, axisc: int = -1, axis: Any = None
) -> TracedArray:
    if axis is not None:
        axisa = axisb = axisc = axis
    x, y = moveaxis(a, axisa, -1), moveaxis(b, axisb, -1)
    if x.shape[-1] != 3 or y.shape[-1] != 3:
        raise ShapeError(f"np.cross: vectors of 3 components are supported{at_user_line()}")
    parts = [x[..., i] * y[..., j] - x[..., j] * y[..., i] for i, j in ((1, 2), (2, 0), (0, 1))]
    return stack(parts, normal_axis(axisc, parts[0].ndim + 1))


@handles(np.linalg.norm)
def norm(x: Any, ord: Any = None, axis: Any = None, keepdims: bool = False) -> TracedArray:
    """Euclidean and Frobenius norms; ord 1, 2, inf of vectors."""
    u = traced(x)
    axes = normal_axes(axis, u.ndim)
    is_euclidean = ord is None or (ord == 2 and len(axes) == 1) or (ord == "fro" and len(axes) == 2)
    if u.dtype.kind in "iub":
        u = wrap(cast(lift(u), np.float64))
    if is_euclidean:
        is_complex = u.dtype.kind == "c"
        square = u.real * u.real + u.imag * u.imag if is_complex else u * u
        return apply(np.sqrt, sum_(square, axes, keepdims=keepdims))
    if len(axes) == 1 and ord in (1, np.inf):
        size = abs(u)
        return (sum_ if ord == 1 else max_)(size, axes, keepdims=keepdims)
    raise trace_error(f"np.linalg.norm: ord={ord!r} on {len(axes)} axes is not supported")
