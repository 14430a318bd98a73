"""Ways to write one state to an HDF5 file, and to read it: MiB/s, medians of several in turns.

    python -m benchmarks.hdf5_paths [--folder FOLDER ...] [--repeat N] [--mib N ...]

Each file gets a temporary name and is renamed over an older one, without a sync; only the rows
"with crc32" make or verify checksums. The page cache takes part, as it does in a run.
"""

from __future__ import annotations

import argparse
import io
import os
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
from h5py import h5f, h5p

from backsweep.storage import Layout
from backsweep.storage.files import read_at, reserve, write_at
from backsweep.storage.hdf5 import HDF5Store
from backsweep.storage.image import make_image

Work = Callable[[Path, np.ndarray], None]
CHUNK = 1 << 20


def write_numpy(path: Path, u: np.ndarray) -> None:
    u.tofile(path)


def write_default(path: Path, u: np.ndarray) -> None:
    with h5py.File(path, "w") as file:
        file.create_dataset("u", data=u)


def write_latest(path: Path, u: np.ndarray) -> None:
    with h5py.File(path, "w", libver="latest") as file:
        file.create_dataset("u", data=u)


def write_chunks(path: Path, u: np.ndarray) -> None:
    with h5py.File(path, "w", libver="latest") as file:
        dataset = file.create_dataset("u", u.shape, u.dtype, chunks=(CHUNK // u.itemsize,))
        for start in range(0, u.size, CHUNK // u.itemsize):
            part = u[start : start + CHUNK // u.itemsize]
            dataset.id.write_direct_chunk((start,), part)


def write_template(path: Path, u: np.ndarray) -> None:
    """As decision 0002: reserve, write a file without data, let HDF5 open it and fill it in."""
    template = io.BytesIO()
    with h5py.File(template, "w", libver=("v108", "latest")) as file:
        file.create_dataset("u", u.shape, u.dtype, fill_time="never")
    content = template.getbuffer()
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    reserve(fd, len(content) + u.nbytes)
    write_at(fd, content, 0)
    os.close(fd)
    access = h5p.create(h5p.FILE_ACCESS)
    access.set_libver_bounds(h5f.LIBVER_V18, h5f.LIBVER_LATEST)
    with h5py.File(h5f.open(os.fsencode(path), h5f.ACC_RDWR, fapl=access)) as file:
        file["u"].write_direct(u)


def write_raw(path: Path, u: np.ndarray, reserves: bool = True, piece: int = CHUNK) -> None:
    image = make_image(Layout(("u",), (u.shape,), (u.dtype,)))
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    if reserves:
        reserve(fd, image.file_nbytes)
    data, start = memoryview(u.view(np.uint8)), image.fields[0].start
    for i in range(0, len(data), piece):
        write_at(fd, data[i : i + piece], start + i)
    write_at(fd, image.head, 0)
    os.close(fd)


def write_raw_unreserved(path: Path, u: np.ndarray) -> None:
    write_raw(path, u, reserves=False)


def write_raw_whole(path: Path, u: np.ndarray) -> None:
    write_raw(path, u, piece=u.nbytes)


def read_h5py(path: Path, u: np.ndarray) -> None:
    with h5py.File(path, "r") as file:
        file["u"].read_direct(u)


def read_raw(path: Path, u: np.ndarray) -> None:
    image = make_image(Layout(("u",), (u.shape,), (u.dtype,)))
    fd = os.open(path, os.O_RDONLY)
    read_at(fd, memoryview(u.view(np.uint8)), image.fields[0].start)
    os.close(fd)


WRITES: dict[str, Work] = {
    "numpy tofile: no HDF5": write_numpy,
    "h5py contiguous": write_default,
    "h5py contiguous, libver latest": write_latest,
    "h5py direct chunk writes of 1 MiB": write_chunks,
    "template filled in by HDF5 (0002)": write_template,
    "raw writes into an image, not reserved": write_raw_unreserved,
    "raw writes, reserved, in one piece": write_raw_whole,
    "raw writes, reserved, pieces of 1 MiB": write_raw,
}
READS: dict[str, Work] = {"h5py read_direct": read_h5py, "raw reads": read_raw}


def measure(folder: Path, mib: int, repeats: int) -> dict[str, float]:
    """MiB/s of each way, the ways taken in turns."""
    u = np.random.default_rng(0).random(mib * 2**20 // 4, dtype=np.float32)
    out = np.empty_like(u)
    path, temporary = folder / "u.h5", folder / ".u.h5.tmp"
    seconds: dict[str, list[float]] = {}

    def clock(name: str, work: Callable[[], object]) -> None:
        start = time.perf_counter()
        work()
        seconds.setdefault(name, []).append(time.perf_counter() - start)

    def write(way: Work) -> None:
        way(temporary, u)
        os.replace(temporary, path)

    with HDF5Store(folder, Layout(("u",), (u.shape,), (u.dtype,))) as store:
        for _ in range(repeats + 1):
            for name, way in WRITES.items():
                clock(name, lambda way=way: write(way))
            clock("HDF5Store.put, with crc32", lambda: store.put(0, [u]))
            for name, way in READS.items():
                clock(name, lambda way=way: way(path, out))
                assert np.array_equal(u, out), name
            clock("HDF5Store.get, with crc32", lambda: store.get(0, [out]))
    path.unlink()
    # The first turn warms up.
    return {name: mib / statistics.median(times[1:]) for name, times in seconds.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--folder", nargs="+", default=[tempfile.gettempdir(), "/dev/shm"])
    parser.add_argument("--repeat", type=int, default=15)
    parser.add_argument("--mib", type=int, nargs="+", default=[1, 16, 128])
    arguments = parser.parse_args()
    columns = {}
    for parent in arguments.folder:
        for mib in arguments.mib:
            folder = Path(tempfile.mkdtemp(dir=parent))
            try:
                columns[f"{parent}, {mib} MiB"] = measure(folder, mib, arguments.repeat)
            finally:
                shutil.rmtree(folder)
    names = list(next(iter(columns.values())))
    print(f"| MiB/s | {' | '.join(columns)} |\n|{'---|' * (len(columns) + 1)}")
    for name in names:
        print(f"| {name} | {' | '.join(f'{speeds[name]:.0f}' for speeds in columns.values())} |")


if __name__ == "__main__":
    main()
