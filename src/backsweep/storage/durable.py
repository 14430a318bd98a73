"""A folder of resume points: after a kill at any moment the newest intact one is found.

    manifest.json          identity of the computation, the two generations that count, newest first
    point-00000008.h5      generation 8: arrays, notes, and what a manifest would say about it
    attached-NAME.h5       arrays that are written once, and that points refer to
    lock                   process and host of the owner

A point is written, synced and renamed; then the manifest that names it, likewise; only then is
what neither of the two generations needs removed. Every file has checksums over all its bytes:
one that is damaged is never used, and the older generation is.

Known to be suboptimal: `DurableFolder.latest` reads a point twice, to verify and to use it.
"""

from __future__ import annotations

import os
import re
import warnings
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Final, final

from backsweep.errors import ResumeError, SnapshotError
from backsweep.storage.base import Array
from backsweep.storage.closing import Closing
from backsweep.storage.files import delete, reason
from backsweep.storage.locks import FolderLock
from backsweep.storage.manifest import (
    Generation,
    Manifest,
    hash_identity,
    read_manifest,
    write_manifest,
)
from backsweep.storage.points import ArrayFile, Json, Point, write_arrays

_MANIFEST: Final = "manifest.json"
_LOCK: Final = "lock"
_POINT: Final = re.compile(r"point-(\d{8,})\.h5")
_OURS: Final = r"(manifest\.json|point-\d{8,}\.h5|attached-[\w.-]+\.h5)"
_NAME: Final = re.compile(r"[\w][\w.-]*", re.ASCII)
_N_SHOWN: Final = 12


@final
class DurableFolder(Closing):
    """The resume points of one computation; a context manager that releases the folder.

    Parameters
    ----------
    directory : path
        Made if it is missing, with its parents.
    identity : mapping of str to str
        By label ("program", "input c2"), hashes or texts of all that decides what the points
        mean.
    fresh : bool
        Whether what is there is removed first (files that this class has made, no others).

    Raises
    ------
    ResumeError
        If another process uses the folder, or its points belong to another computation.
    SnapshotError
        If the folder cannot be made or written to.

    Notes
    -----
    Two generations are on disk, and three while one is written. The lock is `locks.FolderLock`:
    it vanishes with the process; see there for NFS. Nothing in a file is ever executed.
    """

    def __init__(
        self,
        directory: str | os.PathLike[str],
        identity: Mapping[str, str],
        *,
        fresh: bool = False,
    ) -> None:
        self.directory = Path(directory)
        self.identity = dict(identity)
        self._hash = hash_identity(self.identity)
        self._generations: tuple[Generation, ...] = ()
        self._attached: dict[str, int] = {}
        self._next: int | None = None
        self._lock: FolderLock | None = None
        try:
            self._made_folder = not self.directory.exists() or self._is_left_over()
            self.directory.mkdir(parents=True, exist_ok=True)
            lock = FolderLock(self.directory / _LOCK)
        except OSError as error:
            raise SnapshotError(
                f"resume points cannot be written to the folder {directory}: {reason(error)}"
            ) from error
        self._lock = lock
        try:
            self._remove_matching(rf"\.{_OURS}\.\d+\.tmp")
            if fresh:
                with suppress(SnapshotError):
                    manifest = read_manifest(self.directory / _MANIFEST)
                    self._made_folder |= manifest is not None and manifest.made_folder
                self._remove_matching(_OURS)
            self._generations = self._find_generations()
        except BaseException:
            self.close()
            raise

    # ------------------------------------------------------------------ writing

    def save(
        self,
        arrays: Mapping[str, Array],
        notes: Mapping[str, Json],
        *,
        attached: Iterable[str] | None = None,
    ) -> int:
        """Make a point durable; its generation. The one before it stays, older ones go.

        Parameters
        ----------
        arrays : mapping of str to ndarray
            Booleans, integers, floats or complex numbers of any shape and strides; kept bit by
            bit. Names without ``/``.
        notes : mapping of str to JSON values
        attached : iterable of str, optional
            What was attached that this point needs; None for all. The rest is removed when no
            point needs it.

        Raises
        ------
        SnapshotError
            If it cannot be written. The points that were there before still are.
        """
        self._check_open()
        number = self._next_number()
        names = self._attached if attached is None else attached
        needed = {name: self._checksum_of(name) for name in names}
        about = {"identity": self.identity, "notes": dict(notes), "attached": needed}
        try:
            checksum = write_arrays(
                self._path(number), arrays, about, program=self._hash, number=number, what="point"
            )
            kept = (Generation(number, checksum, needed), *self._generations[:1])
            write_manifest(
                self.directory / _MANIFEST, Manifest(self.identity, kept, self._made_folder)
            )
        except OSError as error:
            raise SnapshotError(
                f"the resume point {self._path(number)} could not be written: {reason(error)}"
            ) from error
        self._generations, self._next, self._attached = kept, number + 1, needed
        self._sweep()
        return number

    def attach(self, name: str, arrays: Mapping[str, Array]) -> None:
        """Write arrays once, durably; the points saved from now on refer to them.

        Parameters
        ----------
        name : str
            Of letters, digits, ``_``, ``-`` and ``.``; new.
        arrays : mapping of str to ndarray
            As for `save`.

        Raises
        ------
        SnapshotError
            If they cannot be written, or the name is taken.
        """
        self._check_open()
        if not _NAME.fullmatch(name):
            raise SnapshotError(f"{name!r} cannot name attached arrays: use letters and digits")
        if name in self._attached:
            raise SnapshotError(f"{name!r} is attached already; attach under another name")
        path = self._attached_path(name)
        try:
            self._attached[name] = write_arrays(
                path, arrays, {"attached as": name}, program=self._hash, number=0, what="attached"
            )
        except OSError as error:
            raise SnapshotError(f"{path} could not be written: {reason(error)}") from error

    # ------------------------------------------------------------------ reading

    def latest(self, *, not_after: int | None = None) -> Point | None:
        """The newest intact point, with all that it refers to; later ones are forgotten.

        A damaged one is told in a warning that names file and reason. The next point is saved
        as the generation after the one returned.

        Parameters
        ----------
        not_after : int, optional
            The newest generation wanted: what all ranks have.

        Returns
        -------
        Point or None
            None where the computation starts at its beginning.
        """
        self._check_open()
        candidates = [
            each for each in self._generations if not_after is None or each.number <= not_after
        ]
        for i, candidate in enumerate(candidates):
            try:
                point = Point(self._verify(candidate))
            except SnapshotError as error:
                is_last = i == len(candidates) - 1
                self._warn(error, "the computation starts over" if is_last else "an older is used")
            else:
                self._generations, self._next = (candidate,), candidate.number + 1
                self._attached = dict(candidate.attached)
                return point
        # The manifest still names what is there, until the first point replaces it.
        self._generations, self._attached, self._next = (), {}, 1
        return None

    def attached(self, name: str) -> dict[str, Array]:
        """Copies of what was attached under a name.

        Raises
        ------
        SnapshotError
            If nothing was, or it is damaged.
        """
        self._check_open()
        file = self._open_attached(name, self._checksum_of(name))
        return {each: file.read(each) for each in file.names}

    # ------------------------------------------------------------------ ending

    def clear(self) -> None:
        """Remove all points, since they are not needed any more, and close.

        The folder itself goes too if it was made for them and nothing else is in it.
        """
        self._check_open()
        # Points without a manifest are found, a manifest without points is a loss to be told.
        delete(self.directory / _MANIFEST)
        self._remove_matching(_OURS)
        self.close()

    def close(self) -> None:
        """Release the folder, and keep the points; may be called again."""
        if self._lock is None:
            return
        self._lock.release()
        self._lock = None
        if self._made_folder:
            # Unless points, or somebody else's files, are in it.
            with suppress(OSError):
                self.directory.rmdir()

    # ------------------------------------------------------------------ parts

    def _is_left_over(self) -> bool:
        """Whether a process was killed after it made the folder, before it could note that."""
        names = self._list()
        ours = rf"(\.{_OURS}\.\d+\.tmp|{_OURS}|{_LOCK})"
        are_ours = all(re.fullmatch(ours, name) for name in names)
        return bool(names) and are_ours and _MANIFEST not in names

    def _find_generations(self) -> tuple[Generation, ...]:
        """Those of the manifest, or of the points themselves where it is missing or damaged."""
        try:
            manifest = read_manifest(self.directory / _MANIFEST)
        except SnapshotError as error:
            found = self._search_points()
            self._warn(error, "points are used without it" if found else "no point is usable")
            return found
        if manifest is None:
            return self._search_points()
        self._check_identity(manifest.identity)
        self._made_folder |= manifest.made_folder
        return manifest.generations

    def _search_points(self) -> tuple[Generation, ...]:
        found = []
        for number in sorted(self._numbers(), reverse=True):
            try:
                file = ArrayFile(self._path(number))
                identity, attached = file.about["identity"], file.about["attached"]
            except (SnapshotError, LookupError, TypeError) as error:
                self._warn(error, "it is not used")
                continue
            self._check_identity(identity)
            found.append(Generation(number, file.checksum, attached))
        return tuple(found)

    def _check_identity(self, found: Mapping[str, str]) -> None:
        """Refuse points of another computation, telling what differs."""
        labels = [
            label
            for label in dict.fromkeys([*self.identity, *found])
            if found.get(label) != self.identity.get(label)
        ]
        if labels:
            texts = "; ".join(
                f"{label!r} was {_short(found.get(label))}, is {_short(self.identity.get(label))}"
                for label in labels
            )
            raise ResumeError(
                f"{self.directory} holds resume points of another computation: {texts}; give this "
                "one another directory, or let it start over with fresh=True (--fresh)"
            )

    def _verify(self, generation: Generation) -> ArrayFile:
        """The intact file of a generation, or SnapshotError."""
        path = self._path(generation.number)
        file = ArrayFile(path)
        if file.number != generation.number:
            raise SnapshotError(f"{path} holds generation {file.number}")
        if (file.program, file.checksum) != (self._hash, generation.checksum):
            raise SnapshotError(f"{path} is another file than the one that was saved")
        file.verify()
        for name, checksum in generation.attached.items():
            self._open_attached(name, checksum).verify()
        return file

    def _open_attached(self, name: str, checksum: int) -> ArrayFile:
        file = ArrayFile(path := self._attached_path(name))
        if (file.program, file.checksum) != (self._hash, checksum):
            raise SnapshotError(f"{path} is another file than the one that was attached")
        return file

    def _checksum_of(self, name: str) -> int:
        if name not in self._attached:
            raise SnapshotError(f"nothing is attached as {name!r}; {(*self._attached,)} are")
        return self._attached[name]

    def _next_number(self) -> int:
        return max(self._numbers(), default=0) + 1 if self._next is None else self._next

    def _numbers(self) -> set[int]:
        return {int(m[1]) for name in self._list() if (m := _POINT.fullmatch(name))}

    def _path(self, number: int) -> Path:
        return self.directory / f"point-{number:08d}.h5"

    def _attached_path(self, name: str) -> Path:
        return self.directory / f"attached-{name}.h5"

    def _sweep(self) -> None:
        """Remove what the generations that count do not need."""
        kept = {_MANIFEST, *(self._path(each.number).name for each in self._generations)}
        for names in (self._attached, *(each.attached for each in self._generations)):
            kept.update(self._attached_path(name).name for name in names)
        for name in self._list():
            if re.fullmatch(_OURS, name) and name not in kept:
                delete(self.directory / name)

    def _remove_matching(self, pattern: str) -> None:
        for name in self._list():
            if re.fullmatch(pattern, name):
                delete(self.directory / name)

    def _list(self) -> list[str]:
        try:
            return os.listdir(self.directory)
        except OSError:
            return []  # Writing will say what is wrong with the folder.

    def _warn(self, error: Exception, consequence: str) -> None:
        warnings.warn(f"resume points: {error}; {consequence}", stacklevel=4)

    def _check_open(self) -> None:
        if self._lock is None:
            raise SnapshotError(f"the folder of resume points {self.directory} is closed")


def _short(value: Any) -> str:
    if value is None:
        return "absent"
    text = str(value)
    return repr(text if len(text) <= _N_SHOWN else text[:_N_SHOWN] + "...")
