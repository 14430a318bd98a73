"""Compiled sweeps, on disk by the hash of everything that they depend on.

Key: source text, the code that it calls (`native.py` and what stands with it), versions of Numba,
llvmlite and NumPy, and name and features of the CPU. The module's source is written
atomically into an owner-only folder of that name, imported, and compiled; Numba keeps the
machine code beside it (its own index cannot notice a changed callee: the key does).
"""

from __future__ import annotations

import hashlib
import importlib.util
import os
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from backsweep import config
from backsweep.codegen.statistics import statistics
from backsweep.primitives import far

_loaded: dict[str, Any] = {}


def _environment_key() -> str:
    import llvmlite
    import llvmlite.binding as llvm
    import numba
    import numpy

    callees = [Path(__file__).with_name(n) for n in ("native.py", "native_math.py")]
    native = "".join(p.read_text() for p in (*callees, Path(far.__file__)))
    features = llvm.get_host_cpu_features().flatten()
    parts = (numba.__version__, llvmlite.__version__, numpy.__version__, sys.version)
    return "\n".join((*parts, llvm.get_host_cpu_name(), features, native))


_environment: list[str] = []


def module_key(source: str) -> str:
    """Hexadecimal name of a generated module."""
    if not _environment:
        _environment.append(_environment_key())
    return hashlib.sha256((_environment[0] + source).encode()).hexdigest()[:40]


def load_sweep(source: str) -> Any:
    """The compiled function `sweep` of a module's source text."""
    key = module_key(source)
    if key in _loaded:
        statistics.memory_hits += 1
        return _loaded[key]
    begin = time.perf_counter()
    folder = cache_folder() / key
    path = folder / f"sweep_{key[:12]}.py"
    if not path.exists():
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        _write_atomically(path, source)
    if config.debug() >= 4:
        print(f"backsweep: generated source {path}\n{source}", file=sys.stderr)
    spec = importlib.util.spec_from_file_location(f"backsweep_generated_{key}", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    from_disk = bool(sum(module.sweep.stats.cache_hits.values()))
    statistics.disk_hits += from_disk
    statistics.compilations += not from_disk
    statistics.seconds += time.perf_counter() - begin
    _loaded[key] = module.sweep
    return module.sweep


def cache_folder() -> Path:
    """Where compiled code is kept; a private temporary folder if the usual one cannot be used."""
    folder = config.cache_folder()
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        if os.access(folder, os.W_OK):
            return folder
    except OSError:
        pass
    global _fallback
    if _fallback is None:
        _fallback = Path(tempfile.mkdtemp(prefix="backsweep-"))
    return _fallback


_fallback: Path | None = None


def _write_atomically(path: Path, text: str) -> None:
    handle, name = tempfile.mkstemp(dir=path.parent, suffix=".tmp")
    with os.fdopen(handle, "w") as file:
        file.write(text)
    os.replace(name, path)
