"""One process at a time in a folder."""

from __future__ import annotations

import errno
import fcntl
import os
import socket
import warnings
import weakref
from contextlib import suppress
from pathlib import Path
from typing import Final, final

from backsweep.errors import ResumeError
from backsweep.storage.files import reason

_NO_LOCKS: Final = (errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS)


@final
class FolderLock:
    """A lock on a file, which the kernel gives up when the process ends in whatever way.

    Parameters
    ----------
    path : Path
        Of the file; it names process and host of the owner.

    Raises
    ------
    ResumeError
        If another process, or this one already, has the lock.

    Notes
    -----
    ``flock``: on NFS it holds between hosts where the server has a lock manager; where a file
    system knows no locks at all a warning says so. A forked child shares it.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        is_current = False
        while not is_current:
            fd = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
            try:
                self._take(fd)
                is_current = _is_same_file(fd, path)
            except BaseException:
                os.close(fd)
                raise
            if not is_current:
                # The former owner has removed the file after we opened it.
                os.close(fd)
        self._give_up = weakref.finalize(self, _remove, fd, path)
        # On a full disk nobody learns who we are.
        with suppress(OSError):
            os.ftruncate(fd, 0)
            os.pwrite(fd, f"{os.getpid()} {socket.gethostname()}".encode(), 0)

    def release(self) -> None:
        """Give the lock up and remove its file; may be called again."""
        self._give_up()

    def _take(self, fd: int) -> None:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno in _NO_LOCKS:
                warnings.warn(
                    f"{self.path.parent} is on a file system without locks ({reason(error)}): "
                    "nothing keeps a second process from using it at the same time",
                    stacklevel=4,
                )
                return
            if error.errno not in (errno.EWOULDBLOCK, errno.EACCES):
                raise
            raise ResumeError(
                f"{self.path.parent} is in use by {_owner(fd)}; wait for it to end, end it, or "
                "give this run another directory"
            ) from None


def _remove(fd: int, path: Path) -> None:
    # Who has opened the file by now finds that it is not in the folder any more.
    with suppress(OSError):
        if _is_same_file(fd, path):
            path.unlink()
    os.close(fd)


def _owner(fd: int) -> str:
    pid, _, host = os.pread(fd, 300, 0).decode(errors="replace").partition(" ")
    if not host:
        return "another process"
    is_this = (pid, host) == (str(os.getpid()), socket.gethostname())
    return f"this process itself (pid {pid})" if is_this else f"process {pid} on {host}"


def _is_same_file(fd: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(fd), os.stat(path))
    except FileNotFoundError:
        return False
