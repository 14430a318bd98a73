"""The acoustic problem as a person would write it in Numba, for speed.

What makes it fast: flat arrays, unsigned indices and literal strides (so that LLVM vectorises),
one fused loop per step, rows handed to two threads, states rotated by swapping references, all
buffers allocated and touched beforehand, fast-math allowed. The adjoint is in gather form, and
propagates mu = c2 * lambda instead of the adjoint field lambda: then the adjoint step reads its 17
neighbours from one array and has the shape of the forward step.

`ldmxcsr` switches denormal numbers to zero for the duration of a strip: the front of the wave is
full of them, and without it the forward sweep takes 0.38-0.45 s instead of 0.08 s (two cores,
AVX-512). Devito's generated code does the same.

Tried without gain: two rows at a time, 512-bit vectors, padded rows. Numba's `workqueue` threading
layer takes 0.2 s; `omp` is what pip installs bring where libgomp is present.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
from llvmlite import ir
from numba import njit, prange, types
from numba.core import cgutils
from numba.extending import intrinsic

from benchmarks import N_THREADS
from benchmarks.problems import LAPLACIAN, RADIUS, Acoustic

JIT_OPTIONS: dict[str, Any] = {"nogil": True, "error_model": "numpy", "fastmath": True}


#: Flush results that are denormal to zero (bit 15) and read denormals as zero (bit 6).
FLUSH_DENORMALS = 0x8040


@intrinsic
def exchange_mxcsr(typingctx, set_bits, clear_bits):
    """Set and clear bits of this thread's floating-point control word (x86)."""

    def codegen(context, builder, signature, args):
        pointer = ir.IntType(8).as_pointer()
        function_type = ir.FunctionType(ir.VoidType(), [pointer])
        slot = cgutils.alloca_once(builder, ir.IntType(32))
        address = builder.bitcast(slot, pointer)
        store, load = (
            cgutils.get_or_insert_function(builder.module, function_type, f"llvm.x86.sse.{name}")
            for name in ("stmxcsr", "ldmxcsr")
        )
        builder.call(store, [address])
        word = builder.or_(builder.load(slot), args[0])
        builder.store(builder.and_(word, builder.not_(args[1])), slot)
        builder.call(load, [address])
        return context.get_dummy_value()

    return types.void(types.uint32, types.uint32), codegen


@njit
def flush_denormals(is_on):
    """Switch this thread's handling of denormal numbers; returns nothing."""
    if is_on:
        exchange_mxcsr(np.uint32(FLUSH_DENORMALS), np.uint32(0))
    else:
        exchange_mxcsr(np.uint32(0), np.uint32(FLUSH_DENORMALS))


def make_laplacian(n_x: int) -> Callable[..., Any]:
    """The 8th-order Laplacian at a flat index of a grid with rows of n_x points."""
    w1, w2, w3, w4 = (np.uintp(k * n_x) for k in range(1, RADIUS + 1))
    i1, i2, i3, i4 = (np.uintp(k) for k in range(1, RADIUS + 1))
    a0 = np.float32(2 * LAPLACIAN[0])
    a1, a2, a3, a4 = (np.float32(a) for a in LAPLACIAN[1:])

    @njit(**JIT_OPTIONS)
    def laplacian(u, i):
        return (
            a0 * u[i]
            + a1 * ((u[i - w1] + u[i + w1]) + (u[i - i1] + u[i + i1]))
            + a2 * ((u[i - w2] + u[i + w2]) + (u[i - i2] + u[i + i2]))
            + a3 * ((u[i - w3] + u[i + w3]) + (u[i - i3] + u[i + i3]))
            + a4 * ((u[i - w4] + u[i + w4]) + (u[i - i4] + u[i + i4]))
        )

    return laplacian


def make_steps(n_x: int) -> tuple[Callable[..., None], ...]:
    """One forward, one storing and one adjoint step on the rows lo to hi."""
    laplacian = make_laplacian(n_x)
    width, first, last = np.uintp(n_x), np.uintp(RADIUS), np.uintp(n_x - RADIUS)
    one, two = np.float32(1), np.float32(2)

    @njit(**JIT_OPTIONS)
    def advance(lo, hi, u, u_prev, c2, sigma):
        for z in range(lo, hi):
            for x in range(first, last):
                i = z * width + x
                s = sigma[i]
                u_prev[i] = (two - s) * u[i] - (one - s) * u_prev[i] + c2[i] * laplacian(u, i)

    @njit(**JIT_OPTIONS)
    def advance_storing(lo, hi, u, u_prev, c2, sigma, stored):
        for z in range(lo, hi):
            for x in range(first, last):
                i = z * width + x
                s = sigma[i]
                lap = laplacian(u, i)
                stored[i] = lap
                u_prev[i] = (two - s) * u[i] - (one - s) * u_prev[i] + c2[i] * lap

    @njit(**JIT_OPTIONS)
    def reverse(lo, hi, mu, mu_next, c2, sigma, stored, gradient):
        for z in range(lo, hi):
            for x in range(first, last):
                i = z * width + x
                s = sigma[i]
                m = mu[i]
                gradient[i] += stored[i] * m
                mu_next[i] = (two - s) * m - (one - s) * mu_next[i] + c2[i] * laplacian(mu, i)

    return advance, advance_storing, reverse


@cache
def make_sweeps(n_z: int, n_x: int) -> tuple[Callable[..., None], ...]:
    """Compiled sweeps over all steps: forward, forward storing every Laplacian, reverse."""
    advance, advance_storing, reverse_step = make_steps(n_x)
    rows = np.linspace(RADIUS, n_z - RADIUS, N_THREADS + 1).astype(np.uintp)
    bounds = tuple(rows)
    n_strips = N_THREADS
    options = {"parallel": True, **JIT_OPTIONS}

    @njit(**options)
    def forward(u, u_prev, c2, sigma, wavelet, source, receivers, traces):
        for n in range(wavelet.size):
            for strip in prange(n_strips):
                flush_denormals(True)
                advance(bounds[strip], bounds[strip + 1], u, u_prev, c2, sigma)
                flush_denormals(False)
            u_prev[source] += wavelet[n]
            for r in range(receivers.size):
                traces[n, r] = u_prev[receivers[r]]
            u, u_prev = u_prev, u

    @njit(**options)
    def forward_storing(u, u_prev, c2, sigma, wavelet, source, receivers, traces, stored):
        for n in range(wavelet.size):
            for strip in prange(n_strips):
                flush_denormals(True)
                lo, hi = bounds[strip], bounds[strip + 1]
                advance_storing(lo, hi, u, u_prev, c2, sigma, stored[n])
                flush_denormals(False)
            u_prev[source] += wavelet[n]
            for r in range(receivers.size):
                traces[n, r] = u_prev[receivers[r]]
            u, u_prev = u_prev, u

    @njit(**options)
    def reverse(mu, mu_next, c2, sigma, receivers, residual, stored, gradient):
        for n in range(residual.shape[0] - 1, -1, -1):
            for r in range(receivers.size):
                mu[receivers[r]] += c2[receivers[r]] * residual[n, r]
            for strip in prange(n_strips):
                flush_denormals(True)
                lo, hi = bounds[strip], bounds[strip + 1]
                reverse_step(lo, hi, mu, mu_next, c2, sigma, stored[n], gradient)
                flush_denormals(False)
            mu, mu_next = mu_next, mu

    return forward, forward_storing, reverse


class AcousticNumba:
    """`forward(c2)` and `value_and_grad(c2)` of one shot, all buffers allocated once.

    Of `problem` it reads n_z, n_x, n_steps, sigma, source, receivers, wavelet, and observed unless
    that is given: any object with these will do. `set_shot` turns to another shot. Stored
    Laplacians take n_steps * n_z * n_x * 4 bytes. Sources and receivers must lie inside the 4
    outer points, which stay zero. Results are views of the buffers: copy them before the next call.
    """

    def __init__(self, problem: Acoustic, observed: np.ndarray | None = None) -> None:
        n_points = problem.n_z * problem.n_x
        self.problem = problem
        self.sigma = problem.sigma.ravel()
        self.set_shot(problem.source, problem.observed if observed is None else observed)
        rows, columns = problem.receivers
        self.receivers = (rows * problem.n_x + columns).astype(np.uintp)
        self.fields = np.zeros((2, n_points), np.float32)
        self.gradient = np.zeros(n_points, np.float32)
        self.traces = np.zeros((problem.n_steps, self.receivers.size), np.float32)
        self.residual = np.zeros_like(self.traces)
        self.stored: np.ndarray | None = None
        self.sweeps = make_sweeps(problem.n_z, problem.n_x)

    def set_shot(self, source: tuple[int, int], observed: np.ndarray) -> None:
        """Row and column of the source, and the traces to compare with."""
        self.source = source[0] * self.problem.n_x + source[1]
        self.observed = observed

    def _run(self, sweep: Callable[..., None], c2: np.ndarray, *more: np.ndarray) -> None:
        self.fields[:] = 0
        wavelet = self.problem.wavelet
        arguments = (self.fields[0], self.fields[1], c2.ravel(), self.sigma, wavelet)
        sweep(*arguments, self.source, self.receivers, self.traces, *more)

    def forward(self, c2: np.ndarray) -> np.ndarray:
        """All traces, shape (n_steps, n_receivers)."""
        self._run(self.sweeps[0], c2)
        return self.traces

    def value_and_grad(self, c2: np.ndarray) -> tuple[float, np.ndarray]:
        """Misfit and its gradient with respect to c2."""
        if self.stored is None:
            # Written once, so that no sweep pays for the first touch of a page.
            self.stored = np.empty((self.problem.n_steps, self.gradient.size), np.float32)
            self.stored[:] = 0
        self._run(self.sweeps[1], c2, self.stored)
        np.subtract(self.traces, self.observed, out=self.residual)
        value = 0.5 * float(np.sum(np.square(self.residual), dtype=np.float64))
        self.fields[:] = 0
        self.gradient[:] = 0
        mu, mu_next = self.fields
        flat = c2.ravel()
        more = (self.receivers, self.residual, self.stored, self.gradient)
        self.sweeps[2](mu, mu_next, flat, self.sigma, *more)
        np.divide(self.gradient, flat, out=self.gradient)
        return value, self.gradient.reshape(c2.shape)
