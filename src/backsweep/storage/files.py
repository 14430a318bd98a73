"""What all files on disk need: whole writes, durable replacement, short reasons of errors."""

from __future__ import annotations

import errno
import os
import re
from contextlib import suppress
from pathlib import Path

_CANNOT_SYNC = (errno.EINVAL, errno.EOPNOTSUPP, errno.ENOSYS)


def write_all(fd: int, data: bytes | memoryview) -> None:
    """Write to a descriptor, however many calls it takes."""
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]


def write_durably(path: Path, data: bytes | memoryview) -> None:
    """Replace a file: after a crash at any moment there is the old or the new one, whole.

    Content goes to ``.{name}.{pid}.tmp`` in the same folder, which is synced and renamed, and
    the folder is synced. Such files of killed processes are removed first, so that a file has
    one writer at a time. Raises OSError; then no temporary is left.
    """
    remove_temporaries(path)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o666)
        try:
            write_all(fd, data)
            os.fsync(fd)
        finally:
            os.close(fd)
        os.replace(temporary, path)
    except BaseException:
        with suppress(OSError):
            temporary.unlink()
        raise
    _sync_folder(path.parent)


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


def _sync_folder(folder: Path) -> None:
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
