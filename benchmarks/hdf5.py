"""Put and get of a 2 MiB state.

    python -m benchmarks.hdf5 [FOLDER]

FOLDER defaults to the temporary folder; a run of N_ROUNDS puts and gets is one measurement.
"""

from __future__ import annotations

import sys
import tempfile
from functools import partial
from pathlib import Path

import numpy as np

from benchmarks.common import Contestant, Work, describe_machine, run_row
from benchmarks.problems import State

N_ROUNDS = 50


def make_bare(folder: str | None) -> Work:
    from benchmarks.baselines import hdf5_bare

    arrays = State().arrays()
    target = {name: np.empty_like(array) for name, array in arrays.items()}
    # Kept by the closure for as long as the contestant's process lives.
    directory = tempfile.TemporaryDirectory(dir=folder)

    def work() -> dict[str, np.ndarray]:
        for n in range(N_ROUNDS):
            path = Path(directory.name) / f"{n % 4}.h5"
            hdf5_bare.put(path, arrays)
            hdf5_bare.get(path, target)
        return target

    return work


if __name__ == "__main__":
    folder = sys.argv[1] if len(sys.argv) > 1 else None
    print(describe_machine())
    run_row(
        f"{N_ROUNDS} puts and gets of 2 MiB", [Contestant("bare h5py", partial(make_bare, folder))]
    )
