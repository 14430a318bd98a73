"""What generated code calls: array views of addresses, a barrier, block sums, copies.

Kernels get addresses (int64) instead of arrays: a view made from an address has no owner,
so that Numba counts no references in the time loop. The caller keeps the arrays alive.

All threads of a sweep run the same compiled function on their own rows and meet at a
barrier (docs/decisions/0003): 0.2 us for two threads, where one launch of a Numba parallel
region takes 2.5 us, and nothing is compiled with `parallel=True`.
"""

from __future__ import annotations

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


_f64, _f32, _i64, _i32, _u8 = (_pointer_to(t) for t in _LLVM)


@njit(inline="always")
def f64(address: int) -> Any:
    return carray(_f64(address), _HUGE)


@njit(inline="always")
def f32(address: int) -> Any:
    return carray(_f32(address), _HUGE)


@njit(inline="always")
def i64(address: int) -> Any:
    return carray(_i64(address), _HUGE)


@njit(inline="always")
def i32(address: int) -> Any:
    return carray(_i32(address), _HUGE)


@njit(inline="always")
def u8(address: int) -> Any:
    return carray(_u8(address), _HUGE)


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
    for k in range(np.uint64(n_words * tid // n_threads), np.uint64(n_words * (tid + 1) // n_threads)):
        a[k] = b[k]
