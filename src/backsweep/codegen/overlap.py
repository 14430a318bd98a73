"""Rows of a kernel that are computed while messages travel.

What steps hand from one to the next has ghosts, which other ranks send. One kernel of a step can
be called for the *quiet* rows, those of which no message takes or brings anything, while the
messages travel:

* late: the messages have been started behind the step before; the first kernel that reads the
  arrays computes quiet rows, then the messages must have come, then it computes the others;
* early: the last kernel that writes the arrays computes the others first, then messages are
  started, then it computes the quiet rows; they must have come behind the step.

A source that is added to what a kernel has made leaves only the late way, cotangents of records
that are added to what a step reads only the early one. Which rows are quiet the runtime says:
blocks along further axes have none.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from backsweep.codegen.buffers import Buffer
from backsweep.codegen.numba_source import Lines
from backsweep.codegen.touch import Rows, Touch


@dataclass(frozen=True)
class Travelling:
    """Arrays of a step that messages are about.

    Attributes
    ----------
    components : dict
        Number of a buffer -> that of the component of what is carried.
    is_early : bool
    """

    components: Mapping[int, int]
    is_early: bool

    def names(self) -> list[str]:
        """Further arguments of the step: what to call, and the quiet rows of each array."""
        each = sorted(set(self.components.values()))
        return ["travel", *(f"{end}{k}" for k in each for end in ("first", "last"))]

    def meets(self, touch: Touch) -> bool:
        """Whether a phase touches the arrays."""
        return bool((touch.reads.keys() | touch.writes.keys()) & self.components.keys())

    def bounds(self, touch: Touch, buffers: Mapping[int, Buffer]) -> tuple[str, str] | None:
        """Source text: between which rows a kernel touches quiet rows only.

        None if that is not known, or if it would touch what is on its way.
        """
        reads, writes = (
            {n: _offsets(rows, buffers[n]) for n, rows in touched.items() if n in self.components}
            for touched in (touch.reads, touch.writes)
        )
        if self.is_early:
            # It may read what it writes over, and nothing else.
            is_free = all(len(rows) == 1 and writes.get(n) == rows for n, rows in reads.items())
        else:
            is_free = not writes
        if touch.partition[0] != "rows" or not is_free:
            return None
        touched = (writes if self.is_early else reads).items()
        if not touched or not all(offsets for _, offsets in touched):
            return None
        firsts = [f"first{self.components[n]} + {-min(rows)}" for n, rows in touched]
        lasts = [f"last{self.components[n]} - {max(rows)}" for n, rows in touched]
        return ", ".join(firsts), ", ".join(lasts)

    def write(self, lines: Lines, call: str, n_rows: int, first: str, last: str) -> None:
        """Call a kernel, `call` with the ends of its rows, and for the messages in between."""
        lines.add(f"lo, hi = rows_of({n_rows}, 1, tid, nt)")
        bounds = f"min(max(lo, {first}), hi)", f"min(hi, {last})"
        if self.is_early:
            lines.add(f"first = {bounds[0]}")
            lines.add(f"last = max(first, {bounds[1]})")
        else:
            lines.add("first, last = lo, hi")
            lines.indent("if travel != 0:")
            lines.add(f"first = {bounds[0]}")
            lines.add(f"last = max(first, {bounds[1]})")
            lines.dedent()
        parts = ["first, last", "lo, first", "last, hi"]
        if self.is_early:
            parts = [*parts[1:], parts[0]]
        # One place that calls the kernel: it is compiled into each.
        lines.indent("for part in range(3):")
        for k, part in enumerate(parts):
            lines.indent(f"{'elif' if k else 'if'} part == {k}:")
            if k == (2 if self.is_early else 1):
                self._write_messages(lines)
            lines.add(f"part_lo, part_hi = {part}")
            lines.dedent()
        lines.add(call.format("part_lo", "part_hi"))
        lines.dedent()

    def _write_messages(self, lines: Lines) -> None:
        """Start them when the others are made, or wait for them if there are any."""
        if self.is_early:
            lines.add("barrier(sync, nt)")
        else:
            lines.indent("if travel == 0:")
            lines.add("break")
            lines.dedent()
        lines.indent("if tid == 0:")
        lines.add("call_back(travel)")
        lines.dedent()
        if not self.is_early:
            lines.add("barrier(sync, nt)")


def _offsets(rows: Rows, buffer: Buffer) -> list[int]:
    """Which rows of an array a row of a kernel touches, from its own number; [] if any."""
    if len(buffer.shape) < 2 or any(stride != buffer.strides[0] for stride, _ in rows):
        return []
    return sorted(row - buffer.margins[0][0] for _, row in rows)


__all__ = ["Travelling"]
