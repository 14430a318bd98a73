"""Refuses sums over arrays with ghost cells: an entry of a field would be counted by two ranks.

What `halo_exchange` takes and returns has ghosts at both ends of the cut axes. They are followed
through slices, elementwise operations, in-place writes and what a loop carries. In an elementwise
operation the operand with the fewest ghosts says where its result lies, so that stencils of slices
are this rank's own cells; a result of more entries than the rank has cells is none.

Not followed: what index arrays pick, products with masks (an array of which nothing is known says
nothing), and what a user's own step does.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from backsweep.comm.collectives import per_dimension
from backsweep.ir import Atom, Equation, Literal, Program, Var
from backsweep.passes.ranks.place import refused
from backsweep.primitives import communication as com
from backsweep.primitives.access import only_ones_differ
from backsweep.primitives.control import scan_shape


@dataclass(frozen=True, slots=True)
class Line:
    """What is known of a dimension along a cut axis.

    Attributes
    ----------
    low, high : int
        Ghost cells at its ends.
    n_own : int
        The cells that belong to the rank.
    """

    low: int
    high: int
    n_own: int

    def is_own(self, extent: int) -> bool:
        """Whether no entry of so many stands for a cell of another rank."""
        return not self.low and not self.high and extent <= self.n_own


Lines = tuple[Line | None, ...]
"""None: nothing is known."""


def check_sums(program: Program) -> None:
    """Refuse a program that adds up ghost cells.

    Parameters
    ----------
    program : Program
        Without derivatives: those add ghosts up rightly.

    Raises
    ------
    DifferentiationError
    """
    _Follower(program, [_nothing(v) for v in program.inputs]).check()


def _nothing(atom: Atom) -> Lines:
    return (None,) * len(atom.type.shape)


class _Follower:
    """What is known of the values of one program."""

    def __init__(self, program: Program, given: Sequence[Lines]) -> None:
        self.program = program
        self.is_checking = False
        self.of = dict(zip(program.inputs, given, strict=True))
        self.exchanged: dict[Var, Lines] = {}
        """Of what is passed on to a `halo_exchange`."""
        before = None
        while before != (self.exchanged, self.inputs()):
            before = dict(self.exchanged), self.inputs()
            self._walk()

    def check(self) -> list[Lines]:
        """Refuse sums, now that all is known; what is known of the outputs."""
        self.is_checking = True
        self._walk()
        return self.outputs()

    def inputs(self) -> list[Lines]:
        return [self.of[v] for v in self.program.inputs]

    def outputs(self) -> list[Lines]:
        return [self._read(a) for a in self.program.outputs]

    def _walk(self) -> None:
        for var in self.program.inputs:
            self._set(var, self.of[var])
        for eqn in self.program.equations:
            if eqn.primitive is com.halo_exchange:
                self._expect(eqn.inputs[0], _exchanged(eqn))
            found = self._results(eqn, [self._read(a) for a in eqn.inputs])
            for var, lines in zip(eqn.outputs, found, strict=True):
                self._set(var, lines)

    def _expect(self, atom: Atom, lines: Lines) -> None:
        if isinstance(atom, Var):
            known = self.exchanged.get(atom, lines)
            self.exchanged[atom] = _worst([known, lines])
            self._set(atom, self.of[atom])

    def _set(self, var: Var, lines: Lines) -> None:
        also = self.exchanged.get(var)
        self.of[var] = lines if also is None else _worst([lines, also])

    def _read(self, atom: Atom) -> Lines:
        return _nothing(atom) if isinstance(atom, Literal) else self.of[atom]

    def _results(self, eqn: Equation, given: list[Lines]) -> Sequence[Lines]:
        name = eqn.primitive.name
        if name in ("scan", "while_loop"):
            return self._loop(eqn, given)
        if name in ("remat", "sum_of"):
            held = eqn.params["programs"] if name == "sum_of" else [eqn.params["program"]]
            return [self._of_program(p, given) for p in held][0]
        if len(eqn.outputs) > 1:
            return [_nothing(v) for v in eqn.outputs]
        if name in ("sum", "einsum"):
            return [self._sum(eqn, given)]
        rule = _RULES.get(name)
        if rule is None:
            rule = _elementwise if eqn.primitive.kind == "elementwise" else _unknown
        return [rule(eqn, given)]

    def _of_program(self, program: Program, given: list[Lines]) -> list[Lines]:
        inner = _Follower(program, given)
        return inner.check() if self.is_checking else inner.outputs()

    def _loop(self, eqn: Equation, given: list[Lines]) -> Sequence[Lines]:
        shape, step = scan_shape(eqn.params), eqn.params["step"]
        a, c = shape.n_consts, shape.n_consts + shape.n_carry
        given = [*given[:c], *(lines[1:] for lines in given[c:])]
        while True:
            inner = _Follower(step, given)
            found, grown = inner.outputs(), inner.inputs()
            grown[a:c] = map(_worst, zip(grown[a:c], found[: c - a], strict=True))
            if grown == given:
                break
            given = grown
        if self.is_checking:
            inner.check()
        for atom, lines in zip(eqn.inputs[:c], given, strict=False):
            if any(lines):
                self._expect(atom, lines)
        return [*given[a:c], *((None, *lines) for lines in found[c - a :])]

    def _sum(self, eqn: Equation, given: list[Lines]) -> Lines:
        """Of dimensions by letters; a plain sum has one operand."""
        if eqn.primitive.name == "sum":
            letters = ["".join(chr(97 + k) for k in range(len(given[0])))]
            out = "".join(x for k, x in enumerate(letters[0]) if k not in eqn.params["axes"])
        else:
            left, out = eqn.params["subscripts"].split("->")
            letters = left.split(",")
        found: dict[str, Line | None] = {}
        extents: dict[str, int] = {}
        for own, lines, atom in zip(letters, given, eqn.inputs, strict=True):
            for letter, line, n in zip(own, lines, atom.type.shape, strict=True):
                found[letter] = _least([found.get(letter), line])
                extents[letter] = n
        for letter, line in found.items():
            if letter in out or line is None or line.is_own(extents[letter]):
                continue
            if self.is_checking:
                raise refused(
                    eqn,
                    " runs over an array with ghost cells, which belong to other ranks and would "
                    "be counted twice: slice it to this rank's own cells first, such as u[1:-1]",
                )
        return tuple(found[x] for x in out)


def _least(lines: Sequence[Line | None]) -> Line | None:
    """Of the operands of one operation."""
    known = [x for x in lines if x is not None]
    if not known:
        return None
    return Line(*(min(v) for v in zip(*((x.low, x.high, x.n_own) for x in known), strict=True)))


def _worst(several: Sequence[Lines]) -> Lines:
    """Of one value that comes from several places."""
    found: list[Line | None] = []
    for lines in zip(*several, strict=True):
        known = [x for x in lines if x is not None]
        found.append(
            Line(
                max(x.low for x in known),
                max(x.high for x in known),
                min(x.n_own for x in known),
            )
            if known
            else None
        )
    return tuple(found)


def _exchanged(eqn: Equation) -> Lines:
    dec, shape = eqn.params["decomposition"], eqn.outputs[0].type.shape
    wide = per_dimension(dec, eqn.params["width"])
    lead = len(shape) - len(wide)
    own = (Line(w, w, n - 2 * w) if w else None for w, n in zip(wide, shape[lead:], strict=True))
    return (*_NONE * lead, *own)


_NONE: Lines = (None,)

Rule = Callable[[Equation, list[Lines]], Lines]


def _elementwise(eqn: Equation, given: list[Lines]) -> Lines:
    n = len(eqn.outputs[0].type.shape)
    return tuple(map(_least, zip(*(x for x in given if len(x) == n), _NONE * n, strict=True)))


def _unknown(eqn: Equation, given: list[Lines]) -> Lines:
    return _nothing(eqn.outputs[0])


def _first(eqn: Equation, given: list[Lines]) -> Lines:
    return given[0]


def _slice(eqn: Equation, given: list[Lines]) -> Lines:
    p, shape = eqn.params, eqn.inputs[0].type.shape
    found: list[Line | None] = []
    for line, extent, start, step, size in zip(
        given[0], shape, p["starts"], p["steps"], p["sizes"], strict=True
    ):
        if line is None:
            found.append(None)
            continue
        at = range(start, start + step * size, step)
        low = sum(k < line.low for k in at) if line.low else 0
        high = sum(k >= extent - line.high for k in at) if line.high else 0
        found.append(Line(*((low, high) if step > 0 else (high, low)), line.n_own))
    return tuple(found)


def _pad(eqn: Equation, given: list[Lines]) -> Lines:
    """Zeros around a value are no ghosts: they add nothing."""
    p, shape = eqn.params, eqn.outputs[0].type.shape
    found: list[Line | None] = []
    for line, n, extent, start, step in zip(
        given[-1], eqn.inputs[-1].type.shape, shape, p["starts"], p["steps"], strict=True
    ):
        if line is None or n == extent:
            found.append(line)
        elif line.is_own(n):
            found.append(None)
        elif step == 1:
            low, high = line.low and line.low + start, line.high and line.high + extent - start - n
            found.append(Line(low, high, line.n_own))
        else:
            found.append(Line(extent, extent, 0))
    return tuple(found)


def _update(eqn: Equation, given: list[Lines]) -> Lines:
    """In an array of which something is known that stays."""
    return tuple(
        base if base is not None else line
        for base, line in zip(given[0], _pad(eqn, given), strict=True)
    )


def _broadcast(eqn: Equation, given: list[Lines]) -> Lines:
    shape = eqn.params["shape"]
    found: list[Line | None] = [None] * len(shape)
    for line, extent, dim in zip(
        given[0], eqn.inputs[0].type.shape, eqn.params["dims"], strict=True
    ):
        found[dim] = line if extent == shape[dim] else None
    return tuple(found)


def _transpose(eqn: Equation, given: list[Lines]) -> Lines:
    return tuple(given[0][k] for k in eqn.params["axes"])


def _reshape(eqn: Equation, given: list[Lines]) -> Lines:
    before, after = eqn.inputs[0].type.shape, eqn.outputs[0].type.shape
    if only_ones_differ(before, after):
        kept = iter([x for x, n in zip(given[0], before, strict=True) if n != 1])
        return tuple(next(kept) if n != 1 else None for n in after)
    if all(x is None or x.is_own(n) for x, n in zip(given[0], before, strict=True)):
        return _nothing(eqn.outputs[0])
    return tuple(Line(n, n, 0) for n in after)  # no slice is known to leave them out


def _concatenate(eqn: Equation, given: list[Lines]) -> Lines:
    axis, n = eqn.params["axis"], eqn.outputs[0].type.shape[eqn.params["axis"]]
    pairs = [(x[axis], a.type.shape[axis]) for x, a in zip(given, eqn.inputs, strict=True)]
    is_clean = all(line is None or line.is_own(extent) for line, extent in pairs)
    found = list(_worst(given))
    found[axis] = None if is_clean else Line(n, n, 0)
    return tuple(found)


def _extremum(eqn: Equation, given: list[Lines]) -> Lines:
    return tuple(x for k, x in enumerate(given[0]) if k not in eqn.params["axes"])


_RULES: dict[str, Any] = {
    "halo_exchange": lambda eqn, given: _exchanged(eqn),
    "allreduce_sum": _first,
    "allreduce_max": _first,
    "allreduce_min": _first,
    "broadcast_root": _first,
    "stop_gradient": _first,
    "cumsum": _first,
    "scatter_add": _first,
    "slice": _slice,
    "pad": _pad,
    "update": _update,
    "broadcast": _broadcast,
    "transpose": _transpose,
    "reshape": _reshape,
    "concatenate": _concatenate,
    "reduce_max": _extremum,
    "reduce_min": _extremum,
}
