"""What an inversion has done so far, as variables of a result file."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, final

import numpy as np

from backsweep.inverse.cost import Cost
from backsweep.inverse.evaluate import Evaluation
from backsweep.inverse.problem import Described, Parameters
from backsweep.storage.results import Variable


@dataclass(frozen=True)
class Row:
    """One evaluation; the misfit is infinite where the simulation was unstable."""

    stage: int
    misfit: float
    objective: float
    gradient_norm: float
    cost: Cost


#: Name in the file, unit, and how it is read off a row.
_COLUMNS: dict[str, tuple[str, Callable[[Row], Any]]] = {
    "misfit": ("", lambda r: r.misfit),
    "objective": ("", lambda r: r.objective),
    "gradient_norm": ("", lambda r: r.gradient_norm),
    "stage": ("", lambda r: r.stage),
    "seconds": ("s", lambda r: r.cost.seconds),
    "advances": ("", lambda r: r.cost.n_advances),
    "reverse_steps": ("", lambda r: r.cost.n_reverses),
    "snapshot_bytes": ("B", lambda r: r.cost.snapshot_bytes_memory + r.cost.snapshot_bytes_disk),
    "peak_bytes": ("B", lambda r: r.cost.peak_bytes),
}


def columns(rows: Sequence[Row]) -> dict[str, Variable]:
    """What is told of each evaluation."""
    return {
        name: Variable(np.array([read(r) for r in rows]), ("evaluation",), unit)
        for name, (unit, read) in _COLUMNS.items()
    }


@final
@dataclass
class History:
    """The evaluations and models of an inversion.

    Attributes
    ----------
    described : Described
    keeps_every_model : bool
        Else the first and the last.
    rows : list of Row
        One per evaluation.
    models : list of (int, dict of ndarray)
        Evaluations done and parameters at each iteration, the start first.
    best : dict of ndarray or None
        Parameters of the lowest objective of the last stage.
    last : Evaluation or None
        The last one, with its gradient and fingerprints.
    status : str
        "running", "finished", "interrupted" or "failed".
    reason : str
        Why the optimiser stopped, for each stage.
    """

    described: Described
    keeps_every_model: bool = True
    rows: list[Row] = field(default_factory=list)
    models: list[tuple[int, dict[str, np.ndarray]]] = field(default_factory=list)
    best: dict[str, np.ndarray] | None = None
    last: Evaluation | None = None
    status: str = "running"
    reason: str = ""

    def add_model(self, parameters: Parameters) -> None:
        if not self.keeps_every_model:
            del self.models[1:]
        self.models.append((len(self.rows), {k: np.array(v) for k, v in parameters.items()}))

    def forget(self) -> None:
        """Begin again; the start stays."""
        self.rows.clear()
        del self.models[1:]
        self.best = self.last = None

    def model_error(self, parameters: Parameters) -> dict[str, float]:
        """Relative to the norm of the true parameters, where they are known."""
        errors = {}
        for name, true in self.described.true().items():
            if name in parameters and np.any(true):
                difference = np.linalg.norm((parameters[name] - true).ravel())
                errors[name] = float(difference / np.linalg.norm(true.ravel()))
        return errors

    def target_errors(self, parameters: Parameters) -> dict[str, float]:
        """Root mean square distances of fields from their targets, where there are any."""
        fields, errors = self.described.fields(parameters, "target"), {}
        for name, target in self.described.targets().items():
            distance = np.abs(fields[name].values - target.values) ** 2
            errors[name.removesuffix("_target")] = float(np.sqrt(np.nanmean(distance)))
        return errors

    def variables(self) -> dict[str, Variable]:
        """Everything, with named dimensions and units."""
        d = self.described
        found = d.coordinates() | columns(self.rows)
        found["evaluations_at_iteration"] = Variable(
            np.array([n for n, _ in self.models], np.int64), ("iteration",)
        )
        for name in d.start:
            stack = np.stack([model[name] for _, model in self.models])
            found[name] = d.variable(name, stack, ("iteration",))
            if self.last is not None:
                found[f"{name}_gradient"] = d.variable(name, self.last.gradient[name])
            if self.best is not None:
                found[f"{name}_best"] = d.variable(name, self.best[name])
        found |= {f"{name}_true": d.variable(name, value) for name, value in d.true().items()}
        found |= d.targets() | d.fields(d.start, "start")
        return found | (d.fields(self.best, "best") if self.best is not None else {})

    def attributes(self) -> dict[str, Any]:
        """Status and fingerprints."""
        found: dict[str, Any] = {"status": self.status, "reason": self.reason}
        if self.last is not None:
            found |= {
                "value_fingerprint": self.last.value_fingerprint,
                "gradient_fingerprint": self.last.gradient_fingerprint,
                "schedule": self.last.cost.schedule,
                "executor": self.last.cost.executor,
            }
        return found
