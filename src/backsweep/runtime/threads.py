"""The threads of a sweep: each runs the same compiled function on its own rows."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

_pools: dict[int, ThreadPoolExecutor] = {}


def run_threads(function: Callable[..., Any], n_threads: int, *args: Any) -> None:
    """Call `function(tid, n_threads, *args)` for each tid, tid 0 in the calling thread."""
    if n_threads == 1:
        function(0, 1, *args)
        return
    pool = _pools.get(n_threads)
    if pool is None:
        pool = _pools[n_threads] = ThreadPoolExecutor(
            n_threads - 1, thread_name_prefix="backsweep-sweep"
        )
    others = [pool.submit(function, tid, n_threads, *args) for tid in range(1, n_threads)]
    function(0, n_threads, *args)
    for future in others:
        future.result()
