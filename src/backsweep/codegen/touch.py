"""What a phase of a step reads and writes, by rows: where threads must meet, and what may be
run strip by strip."""

from __future__ import annotations

from dataclasses import dataclass, field

from backsweep.codegen.graph import Address
from backsweep.codegen.inner import LoweredScan
from backsweep.codegen.step import LoweredKernel
from backsweep.primitives.access import Box
from backsweep.primitives.shape import BLOCK

ALONE_BELOW = 2048
"""Loops over fewer elements are run by one thread."""

ALONE = ("alone", 0)
Rows = set[tuple[int, int]]
ANYWHERE: Rows = {(0, 0), (-1, 0)}


def partition_of(k: LoweredKernel) -> tuple[str, int]:
    """How the rows of a kernel are dealt to threads."""
    size = 1
    for n in k.kernel.domain:
        size *= n
    if size < ALONE_BELOW:
        return ALONE
    return ("blocks" if len(k.kernel.domain) == 1 else "rows"), k.kernel.domain[0]


def rows_touched(address: Address, box: Box) -> Rows:
    """Pairs (row stride, row offset from the loop's row) that an address reaches in a box."""
    stride = address.coefficients[0]
    if stride <= 0:
        return ANYWHERE
    low = high = address.constant
    for c, (lo, hi) in zip(address.coefficients[1:], box[1:], strict=True):
        ends = (c * lo, c * (hi - 1))
        low, high = low + min(ends), high + max(ends)
    return {(stride, row) for row in range(low // stride, high // stride + 1)}


@dataclass
class Touch:
    """What a phase reads and writes, by buffer."""

    partition: tuple[str, int]
    reads: dict[int, Rows] = field(default_factory=dict)
    writes: dict[int, Rows] = field(default_factory=dict)

    def conflicts(self, later: Touch) -> bool:
        """Whether threads must meet between this phase and a later one."""
        if self.partition == ALONE and later.partition == ALONE:
            return False
        pairs = (
            (self.writes, later.reads),
            (self.writes, later.writes),
            (self.reads, later.writes),
        )
        for mine, theirs in pairs:
            for number in mine.keys() & theirs.keys():
                rows = mine[number] | theirs[number]
                if len(rows) > 1 or self.partition != later.partition:
                    return True
        return False


def touch_kernel(k: LoweredKernel) -> Touch:
    touch = Touch(partition_of(k))
    for box in k.kernel.boxes:
        for node in box.graph.nodes:
            if node.op == "load":
                rows = rows_touched(node.data, box.box)
                touch.reads.setdefault(node.data.buffer, set()).update(rows)
            elif node.op == "gather":
                touch.reads.setdefault(node.data[0].buffer, set()).update(ANYWHERE)
        for s in box.statements:
            for a in s.addresses if s.root.kind != "sum_all" else ():
                touch.writes.setdefault(a.buffer, set()).update(rows_touched(a, box.box))
    for buffer in k.partials.values():
        touch.writes.setdefault(buffer.number, set()).add((BLOCK, 0))
    return touch


def touch_serial(numbers: list[int], out: int) -> Touch:
    return Touch(ALONE, dict.fromkeys(numbers, ANYWHERE), {out: ANYWHERE})


def touch_scan(scan: LoweredScan) -> Touch:
    """Any thread may touch anything: only phases that share no buffer need no barrier."""
    reads = {b.number: ANYWHERE for b in scan.operands}
    own = set(scan.numbers()) - {b.number for b in scan.operands}
    return Touch((scan.name, 0), reads, dict.fromkeys(own, ANYWHERE))


@dataclass(frozen=True, slots=True)
class Strips:
    """How a kernel B follows a kernel A strip by strip, so that A's results stay in cache.

    Row i of B needs rows i + first ... i + last of A.
    """

    first: int
    last: int
    n_a: int
    n_b: int
    rows: int
    """Rows of B in one strip."""

    @property
    def shift(self) -> int:
        """Row of A that belongs to the thread which has row 0 of B."""
        return (self.first + self.last) // 2


CACHE_BYTES = 1 << 19
"""What a strip of all arrays may take: a part of the second-level cache."""


def strips(
    a: Touch, b: Touch, row_bytes: dict[int, int], domains: tuple[tuple[int, ...], ...]
) -> Strips | None:
    """The strips of two kernels, or None where they cannot or need not be interleaved."""
    if a.partition[0] != "rows" or b.partition[0] != "rows":
        return None
    shared = a.writes.keys() & b.reads.keys()
    if not shared or (a.reads.keys() | a.writes.keys()) & b.writes.keys():
        return None
    offsets: set[int] = set()
    for number in shared:
        strides = {s for s, _ in a.writes[number] | b.reads[number]}
        written = {row for _, row in a.writes[number]}
        if len(strides) != 1 or min(strides) <= 0 or len(written) != 1:
            return None
        offsets |= {row - min(written) for _, row in b.reads[number]}
    per_row = sum(row_bytes.get(n, 0) for n in {*a.reads, *a.writes, *b.reads, *b.writes})
    n_a, n_b = domains[0][0], domains[1][0]
    if per_row * n_b < 4 * CACHE_BYTES:
        return None
    rows = max(8, CACHE_BYTES // max(1, per_row))
    return Strips(min(offsets), max(offsets), n_a, n_b, rows)
