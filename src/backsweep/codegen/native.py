"""What generated code calls: array views of addresses, a barrier, block sums, copies.

Kernels get addresses (int64) instead of arrays: a view made from an address has no owner,
so that Numba counts no references in the time loop. The caller keeps the arrays alive.

All threads of a sweep run the same compiled function on their own rows and meet at a
barrier (docs/decisions/0003): 0.2 us for two threads, where one launch of a Numba parallel
region takes 2.5 us, and nothing is compiled with `parallel=True`.
"""

from __future__ import annotations

import platform
from typing import Any

import numpy as np
from llvmlite import ir
from numba import carray, njit, types
from numba.extending import intrinsic

LANES = 64
BLOCK = 512
_HUGE = 1 << 46
"""Elements of a view: generated code stays inside by construction."""

_SPINS_BEFORE_YIELD = 4000
_yield = types.ExternalFunction("sched_yield", types.int32())

_LLVM = {
    types.float64: ir.DoubleType(),
    types.float32: ir.FloatType(),
    types.int64: ir.IntType(64),
    types.int32: ir.IntType(32),
    types.uint8: ir.IntType(8),
}


def _pointer_to(numba_type: Any) -> Any:
    @intrinsic
    def pointer(typingctx: Any, address: Any) -> Any:
        def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            return builder.inttoptr(args[0], _LLVM[numba_type].as_pointer())

        return types.CPointer(numba_type)(types.int64), generate

    return pointer


p_f64, p_f32, p_i64, p_i32, p_u8 = (_pointer_to(t) for t in _LLVM)


@intrinsic
def arguments_are_disjoint(typingctx: Any) -> Any:
    """Tell LLVM that no two pointer arguments of this function overlap.

    Without it each loop begins with a comparison of all pairs of arrays, and is not
    vectorised at all where there are too many of them. Full vectors are asked for where the
    CPU has them: without fused multiply-adds a stencil is bound by arithmetic.
    """

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        for argument in builder.function.args[2:]:  # after return value and status
            if isinstance(argument.type, ir.PointerType):
                argument.add_attribute("noalias")
        # llvmlite lists only attributes without a value; this one is text in LLVM as well.
        set.add(builder.function.attributes, '"prefer-vector-width"="512"')
        return context.get_dummy_value()

    return types.void(), generate


@njit(inline="always")
def view(pointer: Any) -> Any:
    """An array on a pointer."""
    return carray(pointer, _HUGE)


@njit(inline="always")
def f64(address: int) -> Any:
    return carray(p_f64(address), _HUGE)


@njit(inline="always")
def f32(address: int) -> Any:
    return carray(p_f32(address), _HUGE)


@njit(inline="always")
def i64(address: int) -> Any:
    return carray(p_i64(address), _HUGE)


@njit(inline="always")
def i32(address: int) -> Any:
    return carray(p_i32(address), _HUGE)


@njit(inline="always")
def u8(address: int) -> Any:
    return carray(p_u8(address), _HUGE)


@intrinsic
def _fetch_add(typingctx: Any, address: Any, value: Any) -> Any:
    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        pointer = builder.inttoptr(args[0], ir.IntType(64).as_pointer())
        return builder.atomic_rmw("add", pointer, args[1], "acq_rel")

    return types.int64(types.int64, types.int64), generate


@intrinsic
def _load_acquire(typingctx: Any, address: Any) -> Any:
    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        pointer = builder.inttoptr(args[0], ir.IntType(64).as_pointer())
        return builder.load_atomic(pointer, "acquire", 8)

    return types.int64(types.int64), generate


@njit(nogil=True)
def barrier(sync: int, n_threads: int) -> None:
    """Wait until all threads are here. `sync` addresses two int64 64 bytes apart."""
    if n_threads == 1:
        return
    generation = _load_acquire(sync + 64)
    if _fetch_add(sync, 1) == n_threads - 1:
        _fetch_add(sync, -n_threads)
        _fetch_add(sync + 64, 1)
    else:
        spins = 0
        while _load_acquire(sync + 64) == generation:
            spins += 1
            if spins > _SPINS_BEFORE_YIELD:
                _yield()


@intrinsic
def call_back(typingctx: Any, address: Any) -> Any:
    """Call a function without arguments by its address."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        kind = ir.FunctionType(ir.VoidType(), [])
        builder.call(builder.inttoptr(args[0], kind.as_pointer()), [])
        return context.get_dummy_value()

    return types.void(types.int64), generate


@njit(nogil=True, error_model="numpy")
def fold_f64(address: int, n: int) -> float:
    """Sum of a block of at most 512 values in lane order; overwrites the block."""
    s = f64(address)
    for k in range(np.uint64(n), np.uint64(BLOCK)):
        s[k] = 0.0
    for chunk in range(np.uint64(LANES), np.uint64(BLOCK), np.uint64(LANES)):
        for lane in range(np.uint64(LANES)):
            s[lane] += s[chunk + lane]
    width = np.uint64(LANES)
    while width > np.uint64(1):
        width = width >> np.uint64(1)
        for lane in range(width):
            s[lane] += s[width + lane]
    return s[np.uint64(0)]


@njit(nogil=True, error_model="numpy")
def fold_f32(address: int, n: int) -> float:
    """As `fold_f64` for float32 values; the result is widened."""
    s = f32(address)
    for k in range(np.uint64(n), np.uint64(BLOCK)):
        s[k] = np.float32(0.0)
    for chunk in range(np.uint64(LANES), np.uint64(BLOCK), np.uint64(LANES)):
        for lane in range(np.uint64(LANES)):
            s[lane] += s[chunk + lane]
    width = np.uint64(LANES)
    while width > np.uint64(1):
        width = width >> np.uint64(1)
        for lane in range(width):
            s[lane] += s[width + lane]
    return np.float64(s[np.uint64(0)])


@njit(nogil=True)
def copy_bytes(target: int, source: int, n: int, tid: int, n_threads: int) -> None:
    """Copy n bytes, a multiple of 8, each thread its part."""
    a, b = i64(target), i64(source)
    n_words = n >> 3
    for k in range(
        np.uint64(n_words * tid // n_threads), np.uint64(n_words * (tid + 1) // n_threads)
    ):
        a[k] = b[k]


@njit(nogil=True)
def copy_exactly(target: int, source: int, n: int, tid: int, n_threads: int) -> None:
    """Copy n bytes and none beside them, each thread its part."""
    a, b = u8(target), u8(source)
    for k in range(np.uint64(n * tid // n_threads), np.uint64(n * (tid + 1) // n_threads)):
        a[k] = b[k]


@njit(nogil=True)
def fill_zero(target: int, n: int, tid: int, n_threads: int) -> None:
    """Set n bytes to 0, each thread its part."""
    a = u8(target)
    for k in range(np.uint64(n * tid // n_threads), np.uint64(n * (tid + 1) // n_threads)):
        a[k] = np.uint8(0)


@njit(nogil=True)
def narrow(target: int, source: int, n: int, tid: int, n_threads: int) -> None:
    """Round n float64 to float32, each thread its part."""
    a, b = f32(target), f64(source)
    for k in range(np.uint64(n * tid // n_threads), np.uint64(n * (tid + 1) // n_threads)):
        a[k] = np.float32(b[k])


@intrinsic
def _control_register(typingctx: Any, value: Any) -> Any:
    """Read MXCSR; write `value` to it where it is not negative (x86 only)."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        word = ir.IntType(32)
        pointer = builder.alloca(word)
        raw = builder.bitcast(pointer, ir.IntType(8).as_pointer())
        kind = ir.FunctionType(ir.VoidType(), [ir.IntType(8).as_pointer()])
        store = builder.module.declare_intrinsic("llvm.x86.sse.stmxcsr", (), kind)
        load = builder.module.declare_intrinsic("llvm.x86.sse.ldmxcsr", (), kind)
        builder.call(store, [raw])
        old = builder.load(pointer)
        new = builder.trunc(args[0], word)
        is_given = builder.icmp_signed(">=", args[0], ir.Constant(ir.IntType(64), 0))
        builder.store(builder.select(is_given, new, old), pointer)
        builder.call(load, [raw])
        return builder.zext(old, ir.IntType(64))

    return types.int64(types.int64), generate


IS_X86 = platform.machine() in ("x86_64", "AMD64")
_FLUSH_AND_ZERO = 0x8040


if IS_X86:

    @njit
    def flush_denormals() -> int:
        """Treat denormals as 0 in this thread; returns the state to restore."""
        old = _control_register(-1)
        _control_register(old | _FLUSH_AND_ZERO)
        return old

    @njit
    def restore_denormals(old: int) -> None:
        _control_register(old)

else:  # AArch64 computes denormals at full speed on the cores in use

    @njit
    def flush_denormals() -> int:
        return 0

    @njit
    def restore_denormals(old: int) -> None:
        pass


@njit
def rows_of(n: int, unit: int, tid: int, n_threads: int) -> tuple[int, int]:
    """The rows of one thread, in whole units."""
    n_units = (n + unit - 1) // unit
    lo = n_units * tid // n_threads * unit
    hi = n_units * (tid + 1) // n_threads * unit
    return min(lo, n), min(hi, n)


@njit
def rows_between(n: int, lo: int, hi: int, shift: int, tid: int, n_threads: int) -> tuple[int, int]:
    """The rows lo + shift ... hi + shift of n; the outer threads take the rest."""
    first = 0 if tid == 0 else min(max(lo + shift, 0), n)
    last = n if tid == n_threads - 1 else min(max(hi + shift, 0), n)
    return first, max(first, last)


@njit(nogil=True)
def add_blocks_f8(target: int, partial: int, n: int) -> None:
    """Partial sums in block order."""
    p, total = f64(partial), 0.0
    for k in range(n):
        total += p[np.uint64(k)]
    f64(target)[np.uint64(0)] = total


@njit(nogil=True)
def add_blocks_f4(target: int, partial: int, n: int) -> None:
    p, total = f64(partial), 0.0
    for k in range(n):
        total += p[np.uint64(k)]
    f32(target)[np.uint64(0)] = np.float32(total)


@njit(nogil=True)
def add_blocks_c16(target: int, partial: int, n: int) -> None:
    p, re, im = f64(partial), 0.0, 0.0
    for k in range(n):
        re += p[np.uint64(2 * k)]
        im += p[np.uint64(2 * k + 1)]
    f64(target)[np.uint64(0)] = re
    f64(target)[np.uint64(1)] = im


@njit(nogil=True)
def add_blocks_c8(target: int, partial: int, n: int) -> None:
    p, re, im = f64(partial), 0.0, 0.0
    for k in range(n):
        re += p[np.uint64(2 * k)]
        im += p[np.uint64(2 * k + 1)]
    f32(target)[np.uint64(0)] = np.float32(re)
    f32(target)[np.uint64(1)] = np.float32(im)
