"""Runs compiled sweeps: owns their memory, feeds them action tables, reads their results."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from backsweep import config
from backsweep.codegen.step import LoweredSerial
from backsweep.codegen.sweep_source import REVERSE, Chain
from backsweep.comm.collectives import WORK
from backsweep.comm.collectives import prepared as prepared_collective
from backsweep.ir import ArrayType, Equation, Program
from backsweep.primitives.control import ScanShape
from backsweep.runtime.arrays import (
    CALL,
    SKEW,
    Arena,
    address_of,
    prepared,
    round_up,
    view,
    work_array,
)
from backsweep.runtime.compiled import CompiledSweep, threads_for
from backsweep.runtime.ghosts import MAX_PREPARED, Carried
from backsweep.runtime.pace import AbstractPace, OwnPace
from backsweep.runtime.stop import interrupt_deferred
from backsweep.runtime.threads import run_threads

FIRST_CALL_OPERATIONS = 500_000_000
"""Scalar operations of the first call; later ones go by the clock."""
SCRATCH = 64 * 512 * 8


@dataclass
class StateMemory:
    """Where the states of one scan live: rings or a trajectory, and slots for snapshots.

    The slots from `n_slots` on are buffers of disk traffic.
    """

    shape: ScanShape
    types: tuple[ArrayType, ...]
    chains: tuple[Chain, ...]
    n_steps: int
    keeps_all: bool
    n_slots: int
    ring_positions: tuple[int, ...]
    n_buffers: int = 0
    ring: Arena = field(init=False)
    slots: np.ndarray = field(init=False)
    registers: np.ndarray = field(init=False)

    def __post_init__(self) -> None:
        sizes = []
        self.ring_sizes: list[int] = []
        for chain, positions in zip(self.chains, self.ring_positions, strict=True):
            count = self.n_steps + len(chain.components) if self.keeps_all else positions
            self.ring_sizes.append(count)
            sizes.append(count * self.step_of(chain))
        self.ring = Arena(sizes, zeroed=False)
        self.slot_offsets = np.cumsum(
            [0, *(round_up(t.nbytes) for t in self.types)], dtype=np.int64
        )
        n_bytes = (self.n_slots + self.n_buffers) * self.slot_bytes
        self.slots = work_array(n_bytes + 64, np.uint8, zeroed=False)
        base = self.slots.ctypes.data
        self.slot_base = base + (-base) % 64
        self.registers = np.zeros((64, 2 * len(self.types) + 3 + 64), np.int64)

    def step_of(self, chain: Chain) -> int:
        """Bytes from one position of a chain to the next."""
        return round_up(self.types[chain.components[0]].nbytes) + SKEW

    @property
    def slot_bytes(self) -> int:
        return int(self.slot_offsets[-1])

    def buffers(self) -> list[list[np.ndarray]]:
        """Arrays on the slots from `n_slots` on, which keep the memory alive."""
        first = self.slot_base - self.slots.ctypes.data
        return [
            [
                self.slots[start : start + type.nbytes].view(type.dtype).reshape(type.shape)
                for type, start in zip(
                    self.types, (first + k * self.slot_bytes + self.slot_offsets[:-1]), strict=True
                )
            ]
            for k in range(self.n_slots, self.n_slots + self.n_buffers)
        ]

    def is_used(self, number: int) -> bool:
        """Whether the current state, or the one before it, lies in a buffer."""
        addresses = self.registers[0, : 2 * len(self.types)]
        start = self.slot_base + (self.n_slots + number) * self.slot_bytes
        return bool(np.any((addresses >= start) & (addresses < start + self.slot_bytes)))

    def places(self, step: int) -> list[np.ndarray]:
        """Arrays that are to be filled with the state of a step; it is the current one then."""
        places: dict[int, np.ndarray] = {}
        for k, chain in enumerate(self.chains):
            length = len(chain.components)
            for depth, j in enumerate(chain.components):
                position = (step + length - 1 - depth) % self.ring_sizes[k]
                address = self.ring.address(k) + position * self.step_of(chain)
                places[j] = view(address, self.types[j].shape, self.types[j].dtype)
                self.registers[:, 2 * j] = address
                self.registers[:, 2 * j + 1] = address
        self.registers[:, 2 * len(self.types)] = step
        return [places[j] for j in range(len(self.types))]

    def carried_at(self, addresses: Sequence[int]) -> Carried:
        """The components at their addresses."""
        pairs = zip(addresses, self.types, strict=True)
        return Carried([view(address, t.shape, t.dtype) for address, t in pairs])

    def place(self, state: Sequence[Any], step: int = 0) -> None:
        """Copy the state of a step in."""
        for place, value in zip(self.places(step), state, strict=True):
            place[...] = value

    def state(self) -> list[np.ndarray]:
        """The state that the last action left; views."""
        return [self.current(j) for j in range(len(self.types))]

    @property
    def step(self) -> int:
        """The step of the current state."""
        return int(self.registers[0, 2 * len(self.types)])

    def current(self, j: int) -> np.ndarray:
        """Component j of the state that the last action left; a view."""
        type = self.types[j]
        return view(int(self.registers[0, 2 * j]), type.shape, type.dtype)

    @property
    def is_over(self) -> bool:
        """Whether a sweep that halts has come to its end."""
        return bool(self.registers[0, 2 * len(self.types) + 3])

    @property
    def n_advances(self) -> int:
        return int(self.registers[0, 2 * len(self.types) + 1])

    @property
    def n_reverses(self) -> int:
        return int(self.registers[0, 2 * len(self.types) + 2])


@dataclass
class SweepInputs:
    """What a sweep reads besides states: constants, xs, and residuals by address and step."""

    consts: Sequence[Any]
    const_types: Sequence[ArrayType]
    xs: Sequence[Any]
    x_types: Sequence[ArrayType]
    records: Sequence[tuple[int, int]] = ()

    @staticmethod
    def of(step: Program, shape: ScanShape, consts: Any, xs: Any) -> SweepInputs:
        """Of a step."""
        const_types, _, x_types = shape.split_inputs(step.in_types)
        return SweepInputs(consts, const_types, xs, x_types)


@dataclass
class Failure:
    """What has gone wrong while compiled code called back, to be raised afterwards.

    What is called back knows this and not its sweep: memory held by a cycle would come back late.
    """

    error: BaseException | None = None


Attach = Callable[[Mapping[str, Any]], Mapping[str, Any]]
"""Parameters of a collective in compiled code -> those with which it is run."""


def as_it_is(params: Mapping[str, Any]) -> Mapping[str, Any]:
    """Of code that is not found again for another communicator."""
    return params


class Sweeper:
    """One compiled sweep on one scan's memory."""

    def __init__(
        self,
        compiled: CompiledSweep,
        memory: StateMemory,
        inputs: SweepInputs,
        attach: Attach = as_it_is,
    ) -> None:
        self.compiled, self.memory, self.attach = compiled, memory, attach
        self.call = compiled.run
        self.keep: list[Any] = []
        self.failure = Failure()
        self.values: dict[str, int] = {"keeps_all": int(memory.keeps_all)}
        for k, (value, type) in enumerate(zip(inputs.consts, inputs.const_types, strict=True)):
            self.bind(f"const{k}", prepared(value, type.dtype))
        for k, (value, type) in enumerate(zip(inputs.xs, inputs.x_types, strict=True)):
            self.bind(f"x{k}", prepared(value, type.dtype))
            self.values[f"x_step{k}"] = type.nbytes
        for k, (address, step) in enumerate(inputs.records, start=len(inputs.xs)):
            self.values[f"x{k}"], self.values[f"x_step{k}"] = address, step
        for k, chain in enumerate(memory.chains):
            self.values[f"ring{k}"] = memory.ring.address(k)
            self.values[f"ring_size{k}"] = memory.ring_sizes[k]
            self.values[f"ring_step{k}"] = memory.step_of(chain)
        self.values["slots"], self.values["slot_step"] = memory.slot_base, memory.slot_bytes
        for j, type in enumerate(memory.types):
            self.values[f"slot_offset{j}"] = int(memory.slot_offsets[j])
            self.values[f"slot_bytes{j}"] = round_up(type.nbytes)
        self.work_bytes = 0
        for tag, source in (
            ("advance", compiled.source.advance),
            ("reverse", compiled.source.reverse),
        ):
            if source is not None:
                self._allocate_work(tag, source.step.work)
                self._answer(tag, source.step.phases)
        self.n_threads = threads_for(compiled.work, config.n_threads())
        self.scratch = work_array(self.n_threads * SCRATCH, np.uint8, zeroed=False)
        self.sync = np.zeros(32, np.int64)
        first = max(1, min(64, FIRST_CALL_OPERATIONS // max(1, compiled.work)))
        self.pace: AbstractPace = OwnPace(first)

    def bind(self, name: str, array: np.ndarray) -> np.ndarray:
        """Pass an array by address; it is kept alive."""
        self.keep.append(array)
        self.values[name] = array.ctypes.data
        return array

    def _allocate_work(self, tag: str, buffers: Any) -> None:
        arena = Arena([b.nbytes for b in buffers])
        self.keep.append(arena)
        self.work_bytes += arena.nbytes
        for k, b in enumerate(buffers):
            self.values[f"{tag}_work{b.number}"] = arena.address(k)

    def _answer(self, tag: str, phases: Sequence[Any]) -> None:
        """Let compiled code run collectives: it tells where operands are and calls back."""
        for phase in phases:
            if not isinstance(phase, LoweredSerial) or phase.slot is None:
                continue
            slot = phase.slot
            given = view(self.values[f"{tag}_work{slot.number}"], slot.shape, slot.dtype)
            params = self.attach(phase.equation.params)
            call = CALL(_server(self.failure, phase.equation, params, given))
            self.keep.append(call)
            given[0] = address_of(call)

    def _addresses(self) -> np.ndarray:
        names = self.compiled.source.table.names
        addresses = np.zeros(max(1, len(names)), np.int64)
        for name, k in names.items():
            addresses[k] = self.values[name]
        return addresses

    def run(self, table: np.ndarray) -> None:
        """Execute rows of an action table."""
        table = np.ascontiguousarray(table, np.int64)
        addresses = self._addresses()
        sync = self.sync.ctypes.data
        sync += (-sync) % 64
        width = self.memory.registers.shape[1] * 8
        registers = self.memory.registers.ctypes.data
        scratch = self.scratch.ctypes.data
        c = self.compiled

        def call(tid: int, n_threads: int) -> None:
            self.call(
                tid, n_threads, sync, scratch + tid * SCRATCH, c.p64.ctypes.data,
                c.p32.ctypes.data, table.ctypes.data, len(table), addresses.ctypes.data,
                registers + tid * width,
            )  # fmt: skip

        calls_back = any(isinstance(k, CALL) for k in self.keep)
        with interrupt_deferred() if calls_back else nullcontext():
            run_threads(call, self.n_threads)
        if self.failure.error is not None:
            raise self.failure.error
        if self.n_threads < len(self.memory.registers):
            self.memory.registers[self.n_threads :] = self.memory.registers[0]

    def run_rows(self, table: np.ndarray, pause: Callable[[], None] = lambda: None) -> None:
        """As `run`, in calls of at most about half a second, with pauses between them."""
        for piece in self._pieces(table):
            n_steps = int(np.sum(piece[:, 2] - piece[:, 1]))
            begin = time.perf_counter()
            self.run(piece)
            if self.pace.spent(n_steps, time.perf_counter() - begin):
                pause()

    def state(self) -> list[np.ndarray]:
        """The state that the last action left; views."""
        return self.memory.state()

    def begin_load(self, step: int) -> list[np.ndarray]:
        """Arrays to be filled with the state of a step, which is the current one then."""
        return self.memory.places(step)

    def _pieces(self, table: np.ndarray) -> Iterator[np.ndarray]:
        """Cut rows so that no piece has more steps than a call may have."""
        at = 0
        rest = table.copy()
        while at < len(rest):
            steps = np.cumsum(rest[at:, 2] - rest[at:, 1])
            limit = self.pace.room
            n = int(np.searchsorted(steps, limit, side="right"))
            if n > 0:
                yield rest[at : at + n]
                at += n
                continue
            row = rest[at].copy()
            if row[0] == REVERSE:
                row[1] = row[2] - limit
                rest[at, 2] = row[1]
            else:
                row[2] = row[1] + limit
                rest[at, 1] = row[2]
            yield row[None]


def _server(
    failure: Failure, eqn: Equation, params: Mapping[str, Any], given: np.ndarray
) -> Callable[[], None]:
    """Runs a collective of the arrays whose addresses compiled code has written."""
    types: Any = [v.type for v in (*eqn.outputs, *eqn.inputs)]
    known: dict[tuple[int, ...], Callable[[], None]] = {}

    def serve() -> None:
        if failure.error is not None:
            return
        try:
            key = tuple(given[1:].tolist())
            if key not in known:
                if len(known) >= MAX_PREPARED:
                    known.clear()  # a trajectory has each address once
                arrays = (view(a, t.shape, t.dtype) for a, t in zip(key, types, strict=True))
                known[key] = _collective(eqn, params, *arrays)
            known[key]()
        except BaseException as error:  # compiled code cannot raise it
            failure.error = error

    return serve


def _collective(
    eqn: Equation, params: Any, out: np.ndarray, *operands: np.ndarray
) -> Callable[[], None]:
    """Makes the result of an equation from its operands, in place, as often as it is called."""
    name = eqn.primitive.name
    if name in WORK:
        return prepared_collective(name, params, operands[0], out)

    def evaluate() -> None:
        out[...] = eqn.primitive.evaluate(params, *operands)

    return evaluate


@dataclass
class KeptMachine:
    """Reverses what was kept; advances again only where a run has begun in the middle."""

    forward: Sweeper | None
    reverse: Sweeper
    memory: StateMemory

    def run_rows(self, rows: np.ndarray, pause: Callable[[], None]) -> None:
        for row in rows:
            machine = self.reverse if row[0] == REVERSE else self.forward
            assert machine is not None
            machine.run_rows(row[None], pause)

    def state(self) -> list[np.ndarray]:
        return self.memory.state()

    def begin_load(self, step: int) -> list[np.ndarray]:
        return self.memory.places(step)
