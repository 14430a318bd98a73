"""What is done of an evaluation under way: sums over finished items, kept on disk.

The sum over the items runs along a fixed tree of their numbers (`comm.tree`), and what a rank
keeps are nodes of that tree. So any number of ranks can go on with them, and gets the same bits.

    call-00000012-0123456789abcdef/     the 13th call, and the checksum of its arguments
        sums-3-of-8.h5                  what group 3 of 8 has added up
        item-5/                         points within the gradient of an item (`runtime.journal`)
        item-5-on-4/                    the same, of an item whose grid four ranks share
"""

from __future__ import annotations

import shutil
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, final

import numpy as np

from backsweep.comm import Groups, TreeSum
from backsweep.comm.tree import Node, Terms, items_of_rank
from backsweep.errors import SnapshotError, Stopped
from backsweep.inverse.cost import Cost, together
from backsweep.runtime import stop
from backsweep.runtime.checkpointing import Checkpointing, default_checkpointing
from backsweep.runtime.finite import at_most_once
from backsweep.runtime.journal import keeping_points
from backsweep.storage.files import reason
from backsweep.storage.points import ArrayFile, write_arrays

#: Writing may take this part of the time.
SHARE = 0.02


@dataclass(frozen=True)
class UnderWay:
    """Of one call, as the root has found it; the same on all ranks.

    Attributes
    ----------
    folder : Path
    nodes : tuple of (Path, (int, int))
        The largest sums that are there, and the files in which they are.
    cost : Cost
        Of what is there.
    """

    folder: Path
    nodes: tuple[tuple[Path, Node], ...] = ()
    cost: Cost = Cost()

    @classmethod
    def find(cls, folder: Path) -> UnderWay:
        """Verify and choose; what is damaged is left out, and computed again."""
        found: dict[Node, Path] = {}
        costs = []
        for path in sorted(folder.glob("sums-*.h5")):
            try:
                file = _opened(path)
                file.verify()
            except SnapshotError as error:
                warnings.warn(f"{error}; its items are computed again", stacklevel=2)
                continue
            costs.append(Cost(**file.about["cost"]))
            found |= {(level, k): path for level, k, _ in file.about["nodes"]}
        chosen: list[tuple[Path, Node]] = []
        covered: set[int] = set()
        for node in sorted(found, reverse=True):
            if not covered.intersection(_items(node)):
                covered.update(_items(node))
                chosen.append((found[node], node))
        return cls(folder, tuple(chosen), together(costs) if costs else Cost())

    def items(self, n: int) -> set[int]:
        """Numbers of the items that are done, of n."""
        return {k for _, node in self.nodes for k in _items(node) if k < n}


def _items(node: Node) -> range:
    level, k = node
    return range(k << level, (k + 1) << level)


def _opened(path: Path) -> ArrayFile:
    file = ArrayFile(path)
    if file.program != path.parent.name:
        raise SnapshotError(f"{path} belongs to another evaluation")
    return file


@final
class PartialSum:
    """The sum over the items of this rank, resumable.

    Parameters
    ----------
    n : int
        Number of items.
    items : range
        Which of them are added up, by all ranks together.
    ranks : Groups
        Each group has items of its own; its leader adds them up.
    request : Checkpointing
        By which items are run, and how often sums are kept.
    under_way : UnderWay, optional
        Without it nothing is kept.
    """

    def __init__(
        self,
        n: int,
        items: range,
        ranks: Groups,
        request: Checkpointing,
        under_way: UnderWay | None,
    ) -> None:
        self.ranks, self.request, self.under_way = ranks, request, under_way
        self.tree = TreeSum(n)
        share = items_of_rank(len(items), ranks.index, ranks.count)
        self.mine = items[share.start : share.stop]
        self.cost = under_way.cost if under_way else Cost()
        self.done = under_way.items(n) if under_way else set()
        # Halves of the interval: what an item has not kept yet comes on top of the sums.
        self._last, self._pause = time.monotonic(), request.interval / 2
        for path, node in under_way.nodes if under_way else ():
            if _items(node)[0] in self.mine:
                file, name = _opened(path), f"{node[0]}.{node[1]}."
                n_terms = next(c for *own, c in file.about["nodes"] if tuple(own) == node)
                self.tree.put(*node, [file.read(f"{name}{k}") for k in range(n_terms)])

    def run(
        self,
        of_item: Callable[[int], tuple[Sequence[np.ndarray], Cost]],
        *,
        is_resumable: bool,
        is_shared: bool = False,
    ) -> dict[Node, Terms] | None:
        """Sums of what a function returns for each item; None except on the root. Collective.

        One sum, that of all items, if all are added up.

        Parameters
        ----------
        of_item : callable
        is_resumable : bool
            Whether it is one `value_and_grad`, which can go on in its middle.
        is_shared : bool
            Whether all ranks of a group work on an item; else its leader does.

        Raises
        ------
        Stopped
            On all ranks, when a signal came to one; what is done is kept.
        """
        is_stopped = False
        try:
            with at_most_once():  # a line search into instability is one warning
                for number in self.mine if is_shared or self.ranks.is_leader else ():
                    if number in self.done:
                        continue
                    if self._is_stopped(is_shared):
                        is_stopped = True
                        break
                    request = self._request(number, is_resumable)
                    with (
                        keeping_points() as kept,
                        stop.abandoning(),
                        default_checkpointing(request),
                    ):
                        terms, cost = of_item(number)
                    self.tree.add(number, terms)
                    compiling = self.cost.compile_seconds + cost.compile_seconds
                    self.cost = replace(together([self.cost, cost]), compile_seconds=compiling)
                    self._offer(kept)
        except Stopped:
            is_stopped = True
        whole = self.ranks.whole
        found = whole.allgather((is_stopped, self.cost if self.ranks.is_leader else Cost()))
        if any(was_stopped for was_stopped, _ in found):
            if self.under_way:
                self._save()
            whole.allgather(None)
            raise stop.stopped(str(self.under_way.folder.parent) if self.under_way else "")
        self.cost = together([cost for _, cost in found])
        leaders = self.ranks.leaders
        return None if leaders is None else self.tree.collect(leaders)

    def _is_stopped(self, is_shared: bool) -> bool:
        """Whether a signal came to this rank, or to one that works on the same items."""
        if not is_shared or self.ranks.own.size == 1:
            return bool(stop.requested())
        return any(self.ranks.own.allgather(bool(stop.requested())))

    def _request(self, number: int, is_resumable: bool) -> Checkpointing:
        if self.under_way is None or not is_resumable:
            return self.request
        # Points of blocks are of use for as many ranks alone.
        n_ranks = self.ranks.own.size
        name = f"item-{number}" if n_ranks == 1 else f"item-{number}-on-{n_ranks}"
        folder = str(self.under_way.folder / name)
        left = self.request.interval - (time.monotonic() - self._last)
        interval = max(left, self.request.interval / 2)
        return replace(self.request, directory=folder, resume=True, interval=interval)

    def _offer(self, folders: Sequence[Path]) -> None:
        """Keep the sums if it is time to; points within finished items are not needed then."""
        if self.under_way and time.monotonic() - self._last >= self._pause:
            try:
                self._save()
            except SnapshotError as error:
                warnings.warn(f"{error}; the run goes on without it", RuntimeWarning, stacklevel=2)
        for folder in folders:
            shutil.rmtree(folder, ignore_errors=True)

    def _save(self) -> None:
        assert self.under_way is not None
        nodes = self.tree.nodes()
        if not nodes or not self.ranks.is_leader:
            return
        begin = time.monotonic()
        folder = self.under_way.folder
        path = folder / f"sums-{self.ranks.index}-of-{self.ranks.count}.h5"
        arrays = {f"{i}.{k}.{j}": a for (i, k), own in nodes.items() for j, a in enumerate(own)}
        about: dict[str, Any] = {
            "nodes": [[*node, len(own)] for node, own in nodes.items()],
            "cost": asdict(self.cost),
        }
        try:
            folder.mkdir(parents=True, exist_ok=True)
            write_arrays(path, arrays, about, program=folder.name, number=0, what="record")
        except OSError as error:
            raise SnapshotError(f"{path} could not be written: {reason(error)}") from error
        self._last = time.monotonic()
        self._pause = max(self.request.interval / 2, (self._last - begin) / SHARE)
