"""A folder of resume points that ranks write together.

    manifest.json                 identity, the two generations that count, checksums of all parts
    point-00000008-rank-3.h5      what rank 3 has of generation 8
    attached-NAME-rank-3.h5       what it has written once
    lock                          process and host of rank 0

Every rank writes its part; when all are durable rank 0 names the generation in the manifest; only
then does each remove what neither of the two generations needs. So at any moment the parts of
both are there, and a generation counts if the part of every rank is intact. What decides what
comes next is agreed on: a failure on one rank is one on all.

Known to be suboptimal: at a start each rank reads its point twice, to verify and to use it.
"""

from __future__ import annotations

import os
import uuid
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import final

import numpy as np

from backsweep.closing import Closing
from backsweep.comm import AbstractComm, agreement
from backsweep.errors import SnapshotError
from backsweep.runtime.together import shared_failure
from backsweep.storage.files import reason
from backsweep.storage.manifest import Generation, hash_identity
from backsweep.storage.owned import OwnedFolder, check_identity
from backsweep.storage.pointfiles import PointFiles
from backsweep.storage.points import ArrayFile, Json, Point


@final
class SharedFolder(Closing):
    """The resume points of one computation on ranks. Collective: every rank must call all of it.

    Parameters
    ----------
    directory : path
        On a file system that all ranks see; made if it is missing.
    identity : mapping of str to str
        As for `DurableFolder`; the same on all ranks.
    comm : AbstractComm
    fresh : bool
        Whether what is there is removed first.

    Raises
    ------
    Agreed
        On all ranks: another job uses the folder, its points belong to another computation, or it
        cannot be made or written to.
    """

    def __init__(
        self,
        directory: str | os.PathLike[str],
        identity: Mapping[str, str],
        comm: AbstractComm,
        *,
        fresh: bool = False,
    ) -> None:
        self.directory, self.comm, self.identity = Path(directory), comm, dict(identity)
        self._files = PointFiles(self.directory, hash_identity(self.identity), f"-rank-{comm.rank}")
        self._attached: dict[str, int] = {}
        self._next = 1
        self._folder: OwnedFolder | None = None
        named: tuple[Generation, ...] | None = None
        try:
            with agreement(comm):
                if comm.is_root:
                    self._folder = OwnedFolder(self.directory, self.identity, fresh=fresh)
                    named = self._named()
            with agreement(comm):
                self._make_directory()
            self._generations = self._candidates(comm.broadcast(named))
            self._run = comm.broadcast(uuid.uuid4().hex)
        except BaseException:
            self.close()
            raise

    # ------------------------------------------------------------------ writing

    def save(self, arrays: Mapping[str, np.ndarray], notes: Mapping[str, Json]) -> int:
        """Make a point durable; its generation. See `DurableFolder.save`.

        Raises
        ------
        SnapshotError
            On all ranks, if one could not write its part. The points before are still there.
        """
        number, comm, checksum = self._next, self.comm, 0
        about = {
            "identity": self.identity,
            "notes": dict(notes),
            "attached": dict(self._attached),
            "written by": f"{self._run}-{number}",
        }
        with shared_failure(comm):
            checksum = self._files.write(number, arrays, about)
        checksums = comm.gather(checksum)
        with shared_failure(comm):
            if self._folder is not None and checksums is not None:
                parts = {f"rank-{rank}": own for rank, own in enumerate(checksums)}
                kept = (Generation(number, 0, parts), *self._generations[:1])
                self._folder.name(kept)
                self._generations = kept
        self._generations = comm.broadcast(self._generations)
        self._next = number + 1
        # Attached files are never given up while the gradient is under way.
        self._files.sweep([each.number for each in self._generations], self._attached)
        return number

    def attach(self, name: str, arrays: Mapping[str, np.ndarray]) -> None:
        """Write arrays once, durably. See `DurableFolder.attach`. Raises SnapshotError on all."""
        checksum = 0
        with shared_failure(self.comm):
            checksum = self._files.attach(name, arrays, self._attached)
        self._attached[name] = checksum

    # ------------------------------------------------------------------ reading

    def latest(self) -> Point | None:
        """The newest point of which every rank's part is intact; the rank's part of it."""
        for k, each in enumerate(self._generations):
            file, error = self._verified(each)
            found = self.comm.allgather((file.about["written by"] if file else "", error))
            errors = {rank: text for rank, (_, text) in enumerate(found) if text}
            if not errors and len({tag for tag, _ in found}) > 1:
                errors = {0: f"the parts of generation {each.number} do not belong together"}
            if file is not None and not errors:
                self._generations, self._next = (each,), each.number + 1
                self._attached = dict(file.about["attached"])
                return Point(file)
            is_last = k == len(self._generations) - 1
            self._warn(errors, "the computation starts over" if is_last else "an older is used")
        self._generations, self._attached, self._next = (), {}, 1
        return None

    def attached(self, name: str) -> dict[str, np.ndarray]:
        """Copies of what was attached under a name. Raises SnapshotError."""
        return self._files.attached(name, self._attached)

    # ------------------------------------------------------------------ ending

    def clear(self) -> None:
        """Remove all points, since no rank needs them any more, and close."""
        self.comm.allgather(None)
        if self._folder is not None:
            self._folder.forget()
        self.comm.allgather(None)
        self._files.sweep((), ())
        self.comm.allgather(None)
        if self._folder is not None:
            self._folder.clear()
        self.comm.allgather(None)

    def close(self) -> None:
        """Release the folder; not collective."""
        if self._folder is not None:
            self._folder.close()

    # ------------------------------------------------------------------ parts

    def _named(self) -> tuple[Generation, ...] | None:
        assert self._folder is not None
        try:
            return self._folder.generations()
        except SnapshotError as error:
            self._warn({0: str(error)}, "points are used without it")
            return None

    def _make_directory(self) -> None:
        try:
            self.directory.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise SnapshotError(
                f"resume points cannot be written to the folder {self.directory}: {reason(error)}"
            ) from error

    def _candidates(self, named: tuple[Generation, ...] | None) -> tuple[Generation, ...]:
        """Of the manifest; without one, generations of which every rank has a part."""
        if named is not None:
            return named
        own: dict[int, int] = {}
        with agreement(self.comm):
            for number in self._files.numbers():
                try:
                    file = ArrayFile(self._files.path(number))
                    check_identity(self.directory, file.about["identity"], self.identity)
                    own[number] = file.checksum
                except (SnapshotError, LookupError, TypeError):
                    continue  # as if it were not there
        parts = self.comm.allgather(own)
        numbers = sorted(set(parts[0]).intersection(*parts), reverse=True)
        return tuple(
            Generation(n, 0, {f"rank-{rank}": part[n] for rank, part in enumerate(parts)})
            for n in numbers
        )

    def _verified(self, generation: Generation) -> tuple[ArrayFile | None, str]:
        """The intact part of this rank, or why there is none."""
        try:
            checksum = generation.attached[f"rank-{self.comm.rank}"]
            return self._files.verified(generation.number, checksum), ""
        except (SnapshotError, LookupError) as error:
            return None, str(error)

    def _warn(self, errors: Mapping[int, str], consequence: str) -> None:
        if self.comm.is_root:
            rank, text = min(errors.items())
            warnings.warn(f"resume points: rank {rank}: {text}; {consequence}", stacklevel=4)


__all__ = ["SharedFolder"]
