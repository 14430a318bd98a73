"""What all files on disk need: whole writes, durable replacement, short reasons of errors."""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from backsweep.storage.faults import reached

_CANNOT_SYNC = (errno.EINVAL, errno.EOPNOTSUPP, errno.ENOSYS)
CANNOT_RESERVE = (errno.EOPNOTSUPP, errno.EINVAL, errno.ENOSYS)
_CHUNK = 1 << 20


def write_all(fd: int, data: bytes | memoryview) -> None:
    """Write to a descriptor, however many calls it takes."""
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]


def write_at(fd: int, data: bytes | bytearray | memoryview, offset: int) -> None:
    """Write to a place in a file, however many calls it takes."""
    view = memoryview(data)
    while view:
        n_written = os.pwrite(fd, view, offset)
        view, offset = view[n_written:], offset + n_written


def read_at(fd: int, target: memoryview, offset: int) -> None:
    """Fill a buffer from a place in a file; EOFError where the file is too short."""
    while target:
        n_read = os.preadv(fd, [target], offset)
        if not n_read:
            raise EOFError(f"it ends at byte {offset}")
        target, offset = target[n_read:], offset + n_read


def reserve(fd: int, n_bytes: int) -> None:
    """Make sure that writing the first bytes of a file cannot fail for want of space."""
    try:
        os.posix_fallocate(fd, 0, n_bytes)
    except OSError as error:
        if error.errno not in CANNOT_RESERVE:
            raise
        for start in range(0, n_bytes, _CHUNK):
            write_at(fd, bytes(min(_CHUNK, n_bytes - start)), start)


def replace_file(
    path: Path,
    fill: Callable[[int], None],
    *,
    what: str,
    is_durable: bool,
    spare: Path | None = None,
) -> None:
    """Write a file under a temporary name and rename it: there is the old or the new one, whole.

    Parameters
    ----------
    path : Path
    fill : callable
        Gets a descriptor, and writes everything to it.
    what : str
        One of `faults.WRITTEN`.
    is_durable : bool
        Whether file and folder are synced: then this holds after a crash of the machine too.
    spare : Path, optional
        A file under a temporary name that is written over: a new one costs the kernel as much
        time for its pages as it takes to fill them.

    Raises
    ------
    OSError
        Then no temporary is left.
    """
    temporary = spare or temporary_of(path)
    try:
        reached(f"{what}.before-write")
        kind = os.O_CREAT | os.O_TRUNC if spare is None else 0
        fd = os.open(temporary, os.O_WRONLY | kind, 0o666)
        try:
            fill(fd)
            if is_durable:
                reached(f"{what}.before-sync")
                os.fsync(fd)
        finally:
            os.close(fd)
        reached(f"{what}.before-rename")
        os.replace(temporary, path)
    except BaseException:
        with suppress(OSError):
            temporary.unlink()
        raise
    reached(f"{what}.after-rename")
    if is_durable:
        sync_folder(path.parent)


def temporary_of(path: Path) -> Path:
    """The name under which this process writes a file."""
    return path.with_name(f".{path.name}.{os.getpid()}.tmp")


def write_durably(path: Path, data: bytes | memoryview, what: str = "result") -> None:
    """Replace a file: after a crash at any moment there is the old or the new one, whole.

    Content goes to ``.{name}.{pid}.tmp`` in the same folder, which is synced and renamed, and
    the folder is synced. Such files of killed processes are removed first, so that a file has
    one writer at a time. Raises OSError; then no temporary is left.
    """
    remove_temporaries(path)
    half = len(data) // 2

    def fill(fd: int) -> None:
        write_all(fd, data[:half])
        reached(f"{what}.during-write")
        write_all(fd, data[half:])

    replace_file(path, fill, what=what, is_durable=True)


def remove_temporaries(path: Path) -> None:
    """Remove what killed processes left of half-written files of this name."""
    pattern = re.compile(rf"\.{re.escape(path.name)}\.\d+\.tmp")
    try:
        names = os.listdir(path.parent)
    except OSError:
        return  # Writing will say what is wrong with the folder.
    for name in filter(pattern.fullmatch, names):
        with suppress(OSError):
            path.with_name(name).unlink()


def delete(path: Path, spare: Path | None = None) -> None:
    """Remove a file that is not needed any more, or rename it; it may be gone, with its folder."""
    with suppress(OSError):
        reached("delete.before")
        if spare is None:
            path.unlink()
        else:
            path.rename(spare)
        reached("delete.after")


def sync_folder(folder: Path) -> None:
    """Make a renaming durable, where the file system knows how."""
    fd = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(fd)
    except OSError as error:
        if error.errno not in _CANNOT_SYNC:
            raise
    finally:
        os.close(fd)


def reason(error: BaseException) -> str:
    """One short sentence: HDF5's own messages run over several lines."""
    number = getattr(error, "errno", None)
    if number:
        return os.strerror(number)
    # KeyError shows its message in quotes.
    text = error.args[0] if isinstance(error, KeyError) and error.args else error
    line = str(text).partition("\n")[0]
    # HDF5 puts the cause in parentheses, with sizes after a colon.
    cause = re.fullmatch(r"Unable to [\w ]+ \(([^:]+).*\)", line)
    return cause[1] if cause else line
