"""A process that writes everything that storage can write: tests kill it at each point.

python fault_run.py FOLDER
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

from backsweep.storage import Layout
from backsweep.storage.durable import DurableFolder
from backsweep.storage.hdf5 import HDF5Store
from backsweep.storage.records import RecordFolder
from backsweep.storage.results import Variable, write_result

IDENTITY = {"program": "1234"}
LAYOUT = Layout(("u", "v"), ((3000,), (5,)), ("f8", "f4"), program="1234")
N_GENERATIONS = 6


def values(number):
    return [np.full(3000, number + 0.5), np.full(5, number, np.float32)]


def named(number):
    return dict(zip(LAYOUT.names, values(number), strict=True))


def main(directory: Path) -> None:
    (directory / "snapshots").mkdir(exist_ok=True)
    with HDF5Store(directory / "snapshots", LAYOUT, keep=True) as store:
        for key in range(4):
            store.put(key, values(key))
        store.delete(0)
        store.put(1, values(1))
    with DurableFolder(directory / "points", IDENTITY) as folder:
        point = folder.latest()
        first = point.generation + 1 if point else 1
        for number in range(first, N_GENERATIONS + 1):
            if number > 1:
                folder.attach(f"done-{number}", named(number))
            folder.save(named(number), {"number": number}, attached=folder_needs(number))
    with RecordFolder(directory / "records", IDENTITY) as records:
        if not records.records:
            records.append([({"number": number}, named(number)) for number in range(2)])
        for number in range(len(records.records), N_GENERATIONS):
            records.append([({"number": number}, named(number))])
    for number in range(3):
        variable = Variable(np.full(50, number), ("x",))
        write_result(directory / "result.h5", {"u": variable}, {"number": number})


def folder_needs(number: int) -> list[str]:
    """Each point needs its own attachment and the one before."""
    return [f"done-{n}" for n in (number - 1, number) if n > 1]


if __name__ == "__main__":
    main(Path(sys.argv[1]))
