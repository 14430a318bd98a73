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
import warnings
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import final

from backsweep.closing import Closing
from backsweep.errors import SnapshotError
from backsweep.storage.base import Array
from backsweep.storage.manifest import Generation, hash_identity
from backsweep.storage.owned import OwnedFolder, check_identity
from backsweep.storage.pointfiles import PointFiles, checksum_of
from backsweep.storage.points import ArrayFile, Json, Point


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
        self._files = PointFiles(self.directory, hash_identity(self.identity))
        self._attached: dict[str, int] = {}
        self._next: int | None = None
        self._folder = OwnedFolder(self.directory, self.identity, fresh=fresh)
        try:
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
        needed = {name: checksum_of(name, self._attached) for name in names}
        about = {"identity": self.identity, "notes": dict(notes), "attached": needed}
        checksum = self._files.write(number, arrays, about)
        kept = (Generation(number, checksum, needed), *self._generations[:1])
        self._folder.name(kept)
        self._generations, self._next, self._attached = kept, number + 1, needed
        self._files.sweep(
            [each.number for each in kept], {name for each in kept for name in each.attached}
        )
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
        self._attached[name] = self._files.attach(name, arrays, self._attached)

    # ------------------------------------------------------------------ reading

    def latest(self) -> Point | None:
        """The newest intact point, with all that it refers to; later ones are forgotten.

        A damaged one is told in a warning that names file and reason. The next point is saved
        as the generation after the one returned.

        Returns
        -------
        Point or None
            None where the computation starts at its beginning.
        """
        self._check_open()
        for i, each in enumerate(self._generations):
            try:
                point = Point(self._files.verified(each.number, each.checksum, each.attached))
            except SnapshotError as error:
                is_last = i == len(self._generations) - 1
                self._warn(error, "the computation starts over" if is_last else "an older is used")
            else:
                self._generations, self._next = (each,), each.number + 1
                self._attached = dict(each.attached)
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
        return self._files.attached(name, self._attached)

    # ------------------------------------------------------------------ ending

    def clear(self) -> None:
        """Remove all points, since they are not needed any more, and close.

        The folder itself goes too if it was made for them and nothing else is in it.
        """
        self._check_open()
        self._folder.clear()

    def close(self) -> None:
        """Release the folder, and keep the points; may be called again."""
        self._folder.close()

    # ------------------------------------------------------------------ parts

    def _find_generations(self) -> tuple[Generation, ...]:
        """Those of the manifest, or of the points themselves where it is missing or damaged."""
        try:
            named = self._folder.generations()
        except SnapshotError as error:
            found = self._search_points()
            self._warn(error, "points are used without it" if found else "no point is usable")
            return found
        return self._search_points() if named is None else named

    def _search_points(self) -> tuple[Generation, ...]:
        found = []
        for number in sorted(self._files.numbers(), reverse=True):
            try:
                file = ArrayFile(self._files.path(number))
                identity, attached = file.about["identity"], file.about["attached"]
            except (SnapshotError, LookupError, TypeError) as error:
                self._warn(error, "it is not used")
                continue
            check_identity(self.directory, identity, self.identity)
            found.append(Generation(number, file.checksum, attached))
        return tuple(found)

    def _next_number(self) -> int:
        return max(self._files.numbers(), default=0) + 1 if self._next is None else self._next

    def _warn(self, error: Exception, consequence: str) -> None:
        warnings.warn(f"resume points: {error}; {consequence}", stacklevel=4)

    def _check_open(self) -> None:
        if not self._folder.is_open:
            raise SnapshotError(f"the folder of resume points {self.directory} is closed")
