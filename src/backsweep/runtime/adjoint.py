"""`record_adjoint`: cotangents of the state go to a file while a simulation is swept back."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from backsweep.errors import RecordError, did_you_mean
from backsweep.ir import program_hash
from backsweep.primitives.control import scan_shape
from backsweep.runtime.plan import carry_types
from backsweep.runtime.watch import Cotangent, field_names

if TYPE_CHECKING:  # h5py is imported where something is recorded
    from backsweep.storage.adjoints import AdjointFile, AdjointSweep, SweepLayout


@dataclass
class _Recording:
    """One block of `record_adjoint`."""

    file: AdjointFile
    every: int
    fields: tuple[str, ...] | None
    n_sweeps: int = 0

    def layout(self, params: Any, active: Sequence[bool]) -> SweepLayout:
        """What is recorded of a scan some of whose carry has a cotangent."""
        from backsweep.storage.adjoints import SweepLayout

        step, shape = params["step"], scan_shape(params)
        types = {
            name: (t.shape, t.dtype)
            for name, t, is_active in zip(
                field_names(step, shape), carry_types(step, shape), active, strict=False
            )
            if is_active
        }
        wanted = tuple(types) if self.fields is None else self.fields
        for name in wanted:
            if name not in types:
                raise RecordError(
                    f"record_adjoint: a scan of {shape.length} steps has no cotangent of a field "
                    f"{name!r}; {did_you_mean(name, types)}"
                )
        fields = {name: types[name] for name in types if name in wanted}
        return SweepLayout(shape.length, self.every, program_hash(step), tuple(types), fields)


_recording: ContextVar[_Recording | None] = ContextVar("recording", default=None)


@contextmanager
def record_adjoint(
    path: str | os.PathLike[str], *, every: int = 1, fields: Sequence[str] | None = None
) -> Iterator[None]:
    """Within the block, gradients write the adjoint of their simulations to an HDF5 file.

    Recorded is what each reverse sweep of a `scan` passes on from step to step: the derivative of
    the loss with respect to the state *before* step k, for k = 0, every, 2 * every, ... below the
    number of steps (k counted from 0). The gradient keeps its bits, under any checkpointing.

    Parameters
    ----------
    path : path
        The file, in an existing folder. A record of an earlier run is replaced; any other file
        is left alone. With several ranks each needs its own.
    every : int
        Steps from one record to the next; at least 1.
    fields : sequence of str, optional
        Names of the components of the state whose arrays are written, as the step calls them
        (``u, u_prev = carry``); without names they are ``carry0``, ``carry1``, ... Default: all;
        an empty one: none. Norms are written of all of them.

    Raises
    ------
    RecordError
        If `every` is no positive integer; when a gradient is begun, if a scan has no such field.
    ResultError
        If the file is something else, or cannot be written, or does not fit on the disk.

    Notes
    -----
    A group ``sweep0``, ``sweep1``, ... for each reverse sweep, in the order in which they run (a
    scan inside of a step is a part of that step), with the attributes ``n_steps``, ``every`` and
    ``program``, a hash of the step; in it the datasets

    * ``step``, shape (n_records,);
    * ``<name>_norm``, shape (n_records,), float64: the 2-norm; NaN where nothing was recorded yet;
    * ``<name>``, shape (n_records, ...), in the dtype of the field.

    The space of a sweep is taken when it begins, and the file can be read after a kill at any
    step; a resumed gradient goes on in it. Costs the bytes of the arrays, and one copy of
    the cotangent at each record. Of complex fields it is dL/dx + i dL/dy.

    Examples
    --------
    >>> def loss(u):
    ...     u, _ = bs.scan(lambda u, _: (0.5 * u, None), u, length=3)
    ...     return np.sum(u)
    >>> with bs.record_adjoint("adjoint.h5"):
    ...     gradient = bs.grad(loss)(np.ones(4))
    >>> h5py.File("adjoint.h5")["sweep0/u_norm"][:]
    array([0.25, 0.5 , 1.  ])
    """
    from backsweep.storage.adjoints import AdjointFile

    if isinstance(every, bool) or not hasattr(every, "__index__") or every < 1:
        raise RecordError(
            f"record_adjoint: every={every!r}: a number of steps is needed, 1 or more"
        )
    names = (fields,) if isinstance(fields, str) else fields
    chosen = None if names is None else tuple(names)
    token = _recording.set(_Recording(AdjointFile(path), int(every), chosen))
    try:
        yield
    finally:
        _recording.reset(token)


def check_fields(params: Any) -> None:
    """Before a scan that leaves a trajectory: refuse names of fields that it has not."""
    recording, active = _recording.get(), params.get("active_in")
    if recording is not None and "halo" in params:
        raise RecordError(
            "record_adjoint writes the fields of one process, and this simulation's are cut into "
            "blocks: run it without decomposition=, or leave record_adjoint out"
        )
    if recording is not None and active is not None:
        recording.layout(params, scan_shape(params).split_inputs(active)[1])


def recorder(params: Any) -> Recorder | None:
    """What records the reverse sweep that comes next; None where nothing is recorded."""
    recording = _recording.get()
    if recording is None:
        return None
    number, recording.n_sweeps = recording.n_sweeps, recording.n_sweeps + 1
    layout = recording.layout(params, params["active_out"][: scan_shape(params).n_carry])
    return Recorder(recording.file, number, layout)


@dataclass
class Recorder:
    """Writes the cotangents of one sweep."""

    file: AdjointFile
    number: int
    layout: SweepLayout
    sweep: AdjointSweep | None = None

    def begin(self, n_steps: int, end: int, cotangent: Cotangent) -> None:
        self.sweep = self.file.begin(self.number, self.layout, is_resumed=end < n_steps)
        if end < n_steps and end % self.layout.every == 0:
            # The earlier run may have been stopped between its durable point and this record.
            self.see(end, cotangent)

    def next(self, stop: int) -> int:
        return (stop - 1) // self.layout.every * self.layout.every

    def see(self, step: int, cotangent: Cotangent) -> None:
        assert self.sweep is not None
        bars = cotangent.carry_bars(step)
        self.sweep.write(step, dict(zip(self.layout.names, bars, strict=True)))
