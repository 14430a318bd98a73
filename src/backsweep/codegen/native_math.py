"""Scalar functions of kernels that Numba does not offer: powers of two, and huge angles.

`far_rest` and `far_turns` are calls that LLVM vectorises. A huge angle needs some hundred
integer operations, a branch around them would keep a loop from being vectorised, and a
selection would do them for every element. So the scalar function is not inlined, and an
attribute names its vector forms (LLVM: `vector-function-abi-variant`), which the loop vectoriser
takes. A vector form tests whether any lane is huge and jumps over the integer arithmetic if none
is. Numba optimises a kernel once by itself, where its loops are vectorised, and again inside
the sweep that calls it: there the vector forms are inlined, so that a vector of ordinary angles
costs a comparison and a jump. Should a compiler not follow, the loop is slower but not wrong.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from backsweep.primitives.bits import LAYOUTS
from backsweep.primitives.far import LIMIT, TWO_OVER_PI, reduced

_FLOATS = {
    types.float64: (ir.DoubleType(), LAYOUTS[np.dtype(np.float64)]),
    types.float32: (ir.FloatType(), LAYOUTS[np.dtype(np.float32)]),
}


def _on_bits(write: Callable[..., Any]) -> Any:
    """A function of one float, written as integer operations on its representation."""

    @intrinsic
    def function(typingctx: Any, x: Any) -> Any:
        if x not in _FLOATS:
            return None

        def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            llvm_type, layout = _FLOATS[x]
            word = ir.IntType(layout.width)
            bits = builder.bitcast(args[0], word)
            return write(builder, layout, bits, word, llvm_type)

        return x(x), generate

    return function


def _power_of_two(b: Any, layout: Any, bits: Any, word: Any, llvm_type: Any) -> Any:
    n = b.add(bits, word(layout.bias))
    return b.bitcast(b.shl(n, word(layout.n_mantissa)), llvm_type)


def _exponent(b: Any, layout: Any, bits: Any, word: Any, llvm_type: Any) -> Any:
    moved = b.add(bits, word(layout.one - layout.root_half))
    k = b.or_(b.lshr(moved, word(layout.n_mantissa)), word(layout.integer))
    offset = 2.0**layout.n_mantissa + layout.bias
    return b.fsub(b.bitcast(k, llvm_type), llvm_type(offset))


def _mantissa(b: Any, layout: Any, bits: Any, word: Any, llvm_type: Any) -> Any:
    moved = b.add(bits, word(layout.one - layout.root_half))
    rest = b.and_(moved, word((1 << layout.n_mantissa) - 1))
    return b.bitcast(b.add(rest, word(layout.root_half)), llvm_type)


def _root_guess(b: Any, layout: Any, bits: Any, word: Any, llvm_type: Any) -> Any:
    return b.bitcast(b.sub(word(layout.root_magic), b.lshr(bits, word(1))), llvm_type)


def _upper_half(b: Any, layout: Any, bits: Any, word: Any, llvm_type: Any) -> Any:
    return b.bitcast(b.and_(bits, word(layout.upper)), llvm_type)


power_of_two = _on_bits(_power_of_two)
exponent_of = _on_bits(_exponent)
mantissa_of = _on_bits(_mantissa)
root_guess = _on_bits(_root_guess)
upper_half = _on_bits(_upper_half)

# --------------------------------------------------------------------------- huge angles

_F64, _I64 = ir.DoubleType(), ir.IntType(64)
_WIDTHS = (2, 4, 8)
"""Lanes of float64 in the vector registers of any CPU."""
_PURE = ("nounwind", "readnone")
_NEVER, _ALWAYS = 1, 1 << 30
"""Weights of a jump that is not taken."""


class _Scalar:
    """A uint64 or float64 of LLVM with the operators that `reduced` needs."""

    def __init__(self, builder: Any, value: Any) -> None:
        self.builder, self.value = builder, value

    def _apply(self, name: str, other: Any) -> _Scalar:
        if not isinstance(other, _Scalar):
            is_float = self.value.type == _F64
            other = _Scalar(self.builder, _F64(float(other)) if is_float else _I64(int(other)))
        return _Scalar(self.builder, getattr(self.builder, name)(self.value, other.value))

    def _arithmetic(self, name: str, other: Any) -> _Scalar:
        return self._apply(f"f{name}" if self.value.type == _F64 else name, other)

    def __add__(self, other: Any) -> _Scalar:
        return self._arithmetic("add", other)

    def __sub__(self, other: Any) -> _Scalar:
        return self._arithmetic("sub", other)

    def __mul__(self, other: Any) -> _Scalar:
        return self._arithmetic("mul", other)

    def __and__(self, other: Any) -> _Scalar:
        return self._apply("and_", other)

    def __or__(self, other: Any) -> _Scalar:
        return self._apply("or_", other)

    def __xor__(self, other: Any) -> _Scalar:
        return self._apply("xor", other)

    def __lshift__(self, other: Any) -> _Scalar:
        return self._apply("shl", other)

    def __rshift__(self, other: Any) -> _Scalar:
        return self._apply("lshr", other)


def _exact(builder: Any, x: Any, part: int) -> Any:
    """One of the results of `reduced`: 0 the turns, 1 the rest."""

    def as_float(n: _Scalar) -> _Scalar:
        return _Scalar(builder, builder.uitofp(n.value, _F64))

    def digits_at(at: _Scalar) -> _Scalar:
        pointer = builder.gep(_table(builder.module), [_I64(0), at.value])
        return _Scalar(builder, builder.load(pointer))

    bits = _Scalar(builder, builder.bitcast(x, _I64))
    result = reduced(bits, digits_at, as_float)[part].value
    nan_if_infinite = builder.fsub(x, x)
    return builder.fadd(result, nan_if_infinite) if part == 1 else result


def _table(module: Any) -> Any:
    name = "backsweep_two_over_pi"
    if name not in module.globals:
        array = ir.ArrayType(_I64, TWO_OVER_PI.size)
        table = ir.GlobalVariable(module, array, name)
        table.linkage, table.global_constant = "internal", True
        table.initializer = ir.Constant(array, [int(w) for w in TWO_OVER_PI])
    return module.globals[name]


def _far_function(name: str) -> Any:
    """far(x, near): `near` where |x| <= LIMIT, else the exact value."""

    @intrinsic
    def far(typingctx: Any, x: Any, near: Any) -> Any:
        def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            module = builder.module
            if name not in module.globals:
                _write_forms(module)
            call = builder.call(module.globals[name], args, attrs=_PURE)
            forms = ",".join(f"_ZGV_LLVM_N{n}vv_{name}({name}_{n})" for n in _WIDTHS)
            # llvmlite lists only attributes without a value.
            set.add(call.attributes, f'"vector-function-abi-variant"="{forms}"')
            return call

        return types.float64(types.float64, types.float64), generate

    return far


def _write_forms(module: Any) -> None:
    """All forms of both functions; nobody calls the vector forms until loops are vectorised, so
    LLVM is told to keep them until then."""
    forms = []
    for part, name in enumerate(_FAR):
        _write_form(module, name, 1, part)
        forms += [_write_form(module, f"{name}_{n}", n, part) for n in _WIDTHS]
    pointer = ir.IntType(8).as_pointer()
    array = ir.ArrayType(pointer, len(forms))
    used = ir.GlobalVariable(module, array, "llvm.compiler.used")
    used.linkage, used.section = "appending", "llvm.metadata"
    used.initializer = ir.Constant(array, [f.bitcast(pointer) for f in forms])


def _write_form(module: Any, name: str, n: int, part: int) -> Any:
    """No calls inside: they would empty the registers of the loop into which it is inlined."""
    llvm_type = ir.VectorType(_F64, n) if n > 1 else _F64
    function = ir.Function(module, ir.FunctionType(llvm_type, [llvm_type] * 2), name)
    function.linkage = "linkonce_odr"
    for attribute in (*_PURE, "alwaysinline" if n > 1 else "noinline"):
        function.attributes.add(attribute)
    words = ("entry", "far", "lane", "exact", "next", "end")
    entry, far, lane, exact, following, end = (function.append_basic_block(w) for w in words)
    x, near = function.args
    b = ir.IRBuilder(entry)
    memory = [b.alloca(llvm_type) for _ in range(2)]
    is_far = _is_far(b, x, n)
    any_far = b.icmp_unsigned("!=", b.bitcast(is_far, ir.IntType(n)), ir.IntType(n)(0))
    b.cbranch(any_far, far, end).set_weights([_NEVER, _ALWAYS])
    b.position_at_end(far)
    for value, pointer in zip((x, near), memory, strict=True):
        b.store(value, pointer)
    xs, results = (b.bitcast(pointer, _F64.as_pointer()) for pointer in memory)
    b.branch(lane)
    b.position_at_end(lane)
    k = b.phi(_I64)
    one = b.load(b.gep(xs, [k], source_etype=_F64), typ=_F64)
    b.cbranch(_is_far(b, one, 1), exact, following)
    b.position_at_end(exact)
    b.store(_exact(b, one, part), b.gep(results, [k], source_etype=_F64))
    b.branch(following)
    b.position_at_end(following)
    k_next = b.add(k, _I64(1))
    k.add_incoming(_I64(0), far)
    k.add_incoming(k_next, following)
    found = b.load(memory[1], typ=llvm_type)
    b.cbranch(b.icmp_unsigned("<", k_next, _I64(n)), lane, end)
    b.position_at_end(end)
    result = b.phi(llvm_type)
    result.add_incoming(near, entry)
    result.add_incoming(found, following)
    b.ret(result)
    return function


def _is_far(builder: Any, x: Any, n: int) -> Any:
    """One bit for each lane."""
    name, module = f"llvm.fabs.v{n}f64" if n > 1 else "llvm.fabs.f64", builder.module
    function_type = ir.FunctionType(x.type, [x.type])
    fabs = module.globals.get(name) or ir.Function(module, function_type, name)
    limit = ir.Constant(x.type, [LIMIT] * n if n > 1 else LIMIT)
    return builder.fcmp_ordered(">", builder.call(fabs, [x]), limit)


_FAR = ("backsweep_far_turns", "backsweep_far_rest")
far_turns, far_rest = (_far_function(name) for name in _FAR)
