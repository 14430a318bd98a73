"""The threads of a sweep: each runs the same compiled function on its own rows."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

_pools: dict[int, ThreadPoolExecutor] = {}
_one_sweep_at_a_time = threading.Lock()
"""Threads of one sweep wait for each other: two sweeps must not share out a pool."""


def _forget_pools() -> None:
    """A forked child has none of its parent's threads."""
    global _one_sweep_at_a_time
    _pools.clear()
    _one_sweep_at_a_time = threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_pools)


def run_threads(function: Callable[..., Any], n_threads: int, *args: Any) -> None:
    """Call `function(tid, n_threads, *args)` for each tid, tid 0 in the calling thread."""
    if n_threads == 1:
        function(0, 1, *args)
        return
    with _one_sweep_at_a_time:
        pool = _pools.get(n_threads)
        if pool is None:
            pool = _pools[n_threads] = ThreadPoolExecutor(
                n_threads - 1, thread_name_prefix="backsweep-sweep"
            )
        others = [pool.submit(function, tid, n_threads, *args) for tid in range(1, n_threads)]
        function(0, n_threads, *args)
        for future in others:
            future.result()
