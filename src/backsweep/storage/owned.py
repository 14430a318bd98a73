"""A folder of resume points that belongs to one computation: its lock, its manifest, its end."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Final, final

from backsweep.closing import Closing
from backsweep.errors import ResumeError, SnapshotError
from backsweep.storage.files import delete, reason
from backsweep.storage.locks import FolderLock
from backsweep.storage.manifest import Generation, Manifest, read_manifest, write_manifest
from backsweep.storage.pointfiles import MANIFEST, OURS, names_in

_LOCK: Final = "lock"
_N_SHOWN: Final = 12


@final
class OwnedFolder(Closing):
    """The folder itself; which files in it are points is not its business.

    Parameters
    ----------
    directory : Path
        Made if it is missing, with its parents.
    identity : mapping of str to str
    fresh : bool
        Whether what is there is removed first.

    Raises
    ------
    ResumeError
        If another process uses the folder.
    SnapshotError
        If the folder cannot be made or written to.
    """

    def __init__(self, directory: Path, identity: Mapping[str, str], *, fresh: bool) -> None:
        self.directory, self.identity = directory, dict(identity)
        self._lock: FolderLock | None = None
        try:
            self._made_folder = not directory.exists() or self._is_left_over()
            directory.mkdir(parents=True, exist_ok=True)
            lock = FolderLock(directory / _LOCK)
        except OSError as error:
            raise SnapshotError(
                f"resume points cannot be written to the folder {directory}: {reason(error)}"
            ) from error
        self._lock = lock
        self._remove_matching(rf"\.{OURS}\.\d+\.tmp")
        if fresh:
            with suppress(SnapshotError):
                manifest = read_manifest(directory / MANIFEST)
                self._made_folder |= manifest is not None and manifest.made_folder
            self._remove_matching(OURS)

    @property
    def is_open(self) -> bool:
        return self._lock is not None

    def generations(self) -> tuple[Generation, ...] | None:
        """Those that the manifest names; None if there is none.

        Raises
        ------
        ResumeError
            If they belong to another computation.
        SnapshotError
            If the manifest is damaged.
        """
        manifest = read_manifest(self.directory / MANIFEST)
        if manifest is None:
            return None
        check_identity(self.directory, manifest.identity, self.identity)
        self._made_folder |= manifest.made_folder
        return manifest.generations

    def name(self, generations: tuple[Generation, ...]) -> None:
        """Say durably which generations count, the newest first. Raises SnapshotError."""
        path = self.directory / MANIFEST
        try:
            write_manifest(path, Manifest(self.identity, generations, self._made_folder))
        except OSError as error:
            raise SnapshotError(f"{path} could not be written: {reason(error)}") from error

    def forget(self) -> None:
        """Remove the manifest, which is done first: points without one are found."""
        delete(self.directory / MANIFEST)

    def clear(self) -> None:
        """Remove manifest and points, and close."""
        self.forget()
        self._remove_matching(OURS)
        self.close()

    def close(self) -> None:
        """Release the folder; it goes if it was made for points and nothing is in it."""
        if self._lock is None:
            return
        self._lock.release()
        self._lock = None
        if self._made_folder:
            # Unless points, or somebody else's files, are in it.
            with suppress(OSError):
                self.directory.rmdir()

    def _is_left_over(self) -> bool:
        """Whether a process was killed after it made the folder, before it could note that."""
        names = names_in(self.directory)
        ours = rf"(\.{OURS}\.\d+\.tmp|{OURS}|{_LOCK})"
        are_ours = all(re.fullmatch(ours, name) for name in names)
        return bool(names) and are_ours and MANIFEST not in names

    def _remove_matching(self, pattern: str) -> None:
        for name in names_in(self.directory):
            if re.fullmatch(pattern, name):
                delete(self.directory / name)


def check_identity(
    directory: str | os.PathLike[str], found: Mapping[str, str], wanted: Mapping[str, str]
) -> None:
    """Refuse points of another computation, telling what differs. Raises ResumeError."""
    labels = [
        label for label in dict.fromkeys([*wanted, *found]) if found.get(label) != wanted.get(label)
    ]
    if labels:
        texts = "; ".join(
            f"{label!r} was {_short(found.get(label))}, is {_short(wanted.get(label))}"
            for label in labels
        )
        raise ResumeError(
            f"{directory} holds resume points of another computation: {texts}; give this "
            "one another directory, or let it start over with fresh=True (--fresh)"
        )


def _short(value: Any) -> str:
    if value is None:
        return "absent"
    text = str(value)
    return repr(text if len(text) <= _N_SHOWN else text[:_N_SHOWN] + "...")
