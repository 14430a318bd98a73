"""Makes `benchmarks` importable and undoes what its import does to the process.

It settles the number of threads by environment variables and CPU affinity, which other tests of
the same process must not inherit.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
_environment = dict(os.environ)
_cores = os.sched_getaffinity(0)

import benchmarks  # noqa: E402, F401

os.environ.clear()
os.environ.update(_environment)
os.sched_setaffinity(0, _cores)
