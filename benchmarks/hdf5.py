"""Put and get of a 2 MiB state, and a whole gradient with its snapshots in HDF5 and in memory.

    python -m benchmarks.hdf5 [--folder FOLDER]

FOLDER defaults to the temporary folder; a run of N_ROUNDS puts and gets is one measurement.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.common import Contestant, Work, report_ratio, run_row
from benchmarks.problems import Acoustic, State
from benchmarks.rows import Row, make_parser, run_script

N_ROUNDS = 50
#: Both write over older files: so many are on disk at a time.
N_FILES = 4
#: For the gradient: snapshots of 2 MiB.
N_SNAPSHOTS = 50
BUDGET = N_SNAPSHOTS * 2 * 512 * 512 * 4


def make_store(folder: str | None) -> Work:
    from backsweep.storage import Layout
    from backsweep.storage.hdf5 import HDF5Store

    arrays = State().arrays()
    values = tuple(arrays.values())
    target = {name: np.empty_like(array) for name, array in arrays.items()}
    out = tuple(target.values())
    layout = Layout(tuple(arrays), [a.shape for a in values], [a.dtype for a in values])
    directory = tempfile.TemporaryDirectory(dir=folder)
    store = HDF5Store(directory.name, layout)

    # `directory` is kept by the closure for as long as the contestant's process lives.
    def work(directory: Any = directory) -> dict[str, np.ndarray]:
        for n in range(N_ROUNDS):
            store.put(n % N_FILES, values)
            store.get(n % N_FILES, out)
        return target

    return work


def make_bare(folder: str | None) -> Work:
    from benchmarks.baselines import hdf5_bare

    arrays = State().arrays()
    target = {name: np.empty_like(array) for name, array in arrays.items()}
    # Kept by the closure for as long as the contestant's process lives.
    directory = tempfile.TemporaryDirectory(dir=folder)

    def work() -> dict[str, np.ndarray]:
        for n in range(N_ROUNDS):
            path = Path(directory.name) / f"{n % N_FILES}.h5"
            hdf5_bare.put(path, arrays)
            hdf5_bare.get(path, target)
        return target

    return work


def make_gradient(folder: str | None, is_on_disk: bool) -> Work:
    import backsweep as bs
    from benchmarks.programs import make_acoustic

    problem = Acoustic()
    directory = tempfile.TemporaryDirectory(dir=folder)
    if is_on_disk:
        checkpointing = bs.Checkpointing(
            snapshots=N_SNAPSHOTS, memory=0, disk=2 * BUDGET, directory=directory.name
        )
    else:
        checkpointing = bs.Checkpointing(snapshots=N_SNAPSHOTS)
    _, misfit = make_acoustic(problem, checkpointing)
    gradient = bs.value_and_grad(misfit)

    # As above.
    def work(directory: Any = directory) -> Any:
        return gradient(problem.c2, problem.observed)

    return work


def measure_rows(arguments: argparse.Namespace) -> Iterator[Row]:
    folder, repeats = arguments.folder, arguments.repeat
    stores = (
        Contestant("HDF5 store", partial(make_store, folder), 0.0),
        Contestant("bare h5py", partial(make_bare, folder), 0.0),
    )
    results = run_row(f"{N_ROUNDS} puts and gets of 2 MiB", stores, repeats)
    work = f"{N_ROUNDS} x put + get of a 2 MiB state"
    yield report_ratio(work, results, "HDF5 store", ["bare h5py"], 1.5)
    gradients = (
        Contestant("snapshots in HDF5", partial(make_gradient, folder, True), 0.0),
        Contestant("snapshots in memory", partial(make_gradient, folder, False), 0.0),
    )
    results = run_row("acoustic gradient, 50 snapshots", gradients, repeats)
    work = "acoustic gradient with 50 snapshots"
    yield report_ratio(work, results, "snapshots in HDF5", ["snapshots in memory"], None)


if __name__ == "__main__":
    parser = make_parser(__doc__)
    parser.add_argument("--folder", help="where the files go")
    run_script(measure_rows, parser)
