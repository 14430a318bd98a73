"""Pictures of result files, from their named dimensions alone."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from backsweep.cli.output import console, print_rows
from backsweep.cli.results import check_folder
from backsweep.errors import ResultError
from backsweep.storage.results import Variable, read_result

#: Rows of a quantity that are drawn as lines, and values that are drawn as points.
FEW = 6

#: In the order in which they are drawn.
_VERSIONS = ("true", "target", "start", "best")

_FORMATS = (".png", ".pdf", ".svg")


@dataclass(frozen=True)
class _Panel:
    title: str
    draw: Callable[[Any], None]


def show_result(result: Path, output: Path | None) -> None:
    """Print what a result holds, and draw it next to it or to `output`."""
    variables, attributes = read_result(result)
    rows: list[tuple[str, Any]] = []
    for key in ("title", "model", "status", "reason", "created", "ranks", "value_fingerprint"):
        if attributes.get(key) not in (None, ""):
            rows.append((key, attributes[key]))
    if "misfit" in variables and variables["misfit"].values.size:
        misfit = variables["misfit"].values
        rows.append(
            ("misfit", f"{misfit[0]:.6g} -> {misfit.min():.6g} in {misfit.size} evaluations")
        )
    for name, variable in variables.items():
        shape = ", ".join(
            f"{d}: {n}" for d, n in zip(variable.dims, variable.values.shape, strict=True)
        )
        unit = f" [{variable.unit}]" if variable.unit else ""
        rows.append((f"  {name}", f"({shape}) {variable.values.dtype}{unit}"))
    print_rows(rows)
    picture = draw_result(result, output or result.with_suffix(".png"))
    console.print(f"picture  {picture.resolve()}")


def check_picture(picture: Path) -> None:
    """Refuse before any work is done what could not be written at its end.

    Without matplotlib a run is done all the same.

    Raises
    ------
    ResultError
    """
    if picture.suffix not in _FORMATS:
        raise ResultError(
            f"the picture {str(picture)!r} is of no known format; end its name with one of "
            f"{', '.join(_FORMATS)}"
        )
    check_folder(picture, "picture")


def draw_result(result: Path, picture: Path) -> Path:
    """Draw parameters, fields and misfit.

    Raises
    ------
    ResultError
        If matplotlib is missing or the picture cannot be written.
    """
    plt = _pyplot()
    variables, attributes = read_result(result)
    panels = _panels(variables)
    if not panels:
        raise ResultError(f"{result} holds nothing that can be drawn")
    n_columns = min(len(panels), 3 if len(panels) > 4 else 2)
    n_rows = -(-len(panels) // n_columns)
    size = (5.5 * n_columns, 3.2 * n_rows)
    figure, axes = plt.subplots(
        n_rows,
        n_columns,
        figsize=size,
        squeeze=False,
        layout="constrained",
    )
    for axis in axes.flat[len(panels) :]:
        axis.remove()
    for axis, panel in zip(axes.flat, panels, strict=False):
        panel.draw(axis)
        axis.set_title(panel.title)
    if attributes.get("title"):
        figure.suptitle(str(attributes["title"]))
    try:
        figure.savefig(picture, dpi=110)
    except (OSError, ValueError) as error:
        raise ResultError(f"the picture {picture} cannot be written: {error}") from error
    finally:
        plt.close(figure)
    return picture


def _pyplot() -> Any:
    """matplotlib, without a window."""
    try:
        import matplotlib

        matplotlib.use("Agg")
        from matplotlib import pyplot as plt
    except ImportError as error:
        raise ResultError("pictures need matplotlib: pip install 'backsweep[plot]'") from error
    return plt


def _panels(variables: dict[str, Variable]) -> list[_Panel]:
    panels: list[_Panel] = []
    for base, versions in _families(variables).items():
        first = next(iter(versions.values()))
        n_rows = first.values.size // max(1, first.values.shape[-1] if first.values.ndim else 1)
        if first.values.ndim >= 1 and n_rows <= FEW:
            panels.append(_lines(base, versions, variables))
        elif first.values.ndim == 2:
            panels += _images(base, versions, variables)
    if "misfit" in variables and variables["misfit"].values.size:
        panels.append(_misfit(variables))
    return panels


def _families(variables: dict[str, Variable]) -> dict[str, dict[str, Variable]]:
    """The versions (true, start, best) of each parameter and field."""
    families: dict[str, dict[str, Variable]] = {}
    for name, variable in variables.items():
        base, _, version = name.rpartition("_")
        if version in _VERSIONS and base:
            families.setdefault(base, {})[version] = variable
    for base, versions in families.items():
        models = variables.get(base)
        if models is not None and models.dims[:1] == ("iteration",):
            versions["start"] = Variable(models.values[0], models.dims[1:], models.unit)
    return {
        base: {v: versions[v] for v in _VERSIONS if v in versions}
        for base, versions in families.items()
    }


def _axis(dim: str, n: int, variables: dict[str, Variable]) -> tuple[np.ndarray, str]:
    """Values along a dimension, and its label; metres as kilometres where they are many."""
    found = variables.get(dim)
    if found is None:
        return np.arange(n, dtype=float), dim
    values, unit = found.values.astype(float), found.unit
    for small, large, factor in (("m", "km", 1e3), ("s", "ms", 1e-3), ("m", "mm", 1e-3)):
        size = np.max(np.abs(values), initial=0.0)
        if unit == small and (size >= 2 * factor if factor > 1 else 0 < size < 100 * factor):
            return values / factor, f"{dim} [{large}]"
    return values, f"{dim} [{unit}]" if unit else dim


def _images(
    base: str, versions: dict[str, Variable], variables: dict[str, Variable]
) -> list[_Panel]:
    """Images of a 2D quantity, all on one scale; the second dimension points down."""
    shown = {v: _real(x.values) for v, x in versions.items()}
    low, high = (float(f([f(a) for a in shown.values()])) for f in (np.min, np.max))
    first = next(iter(versions.values()))
    (x, x_label), (z, z_label) = (
        _axis(d, n, variables) for d, n in zip(first.dims, first.values.shape, strict=True)
    )

    def panel(version: str) -> _Panel:
        def draw(axis: Any) -> None:
            image = axis.imshow(
                shown[version].T,
                extent=(x[0], x[-1], z[-1], z[0]),
                vmin=low,
                vmax=high,
                aspect="auto",
            )
            axis.set(xlabel=x_label, ylabel=z_label)
            axis.figure.colorbar(image, ax=axis, label=f"{base} [{first.unit}]")

        return _Panel(f"{base}, {version}", draw)

    return [panel(version) for version in shown]


def _real(values: np.ndarray) -> np.ndarray:
    return np.abs(values) if np.iscomplexobj(values) else values


def _lines(base: str, versions: dict[str, Variable], variables: dict[str, Variable]) -> _Panel:
    """The versions of few rows in one panel; complex values as real and imaginary part."""

    def draw(axis: Any) -> None:
        for number, (version, variable) in enumerate(versions.items()):
            n = variable.values.shape[-1]
            x, label = _axis(variable.dims[-1], n, variables)
            style = "--" if version in ("true", "target") else "-"
            look = {"color": f"C{number}", "lw": 1, "marker": "o" if n <= FEW else ""}
            for k, row in enumerate(variable.values.reshape(-1, n)):
                axis.plot(x, row.real, style, label=version if k == 0 else None, **look)
                if np.iscomplexobj(row):
                    axis.plot(x, row.imag, ":", **look)
            axis.set_xlabel(label)
            if version == "target":
                axis.set_xlim(_neighbourhood(x, variable.values.reshape(-1, n)))
        unit = next(iter(versions.values())).unit
        axis.set_ylabel(f"{base} [{unit}]" if unit not in ("", "1") else base)
        axis.legend(fontsize="small")
        axis.grid(alpha=0.3)

    is_complex = any(np.iscomplexobj(v.values) for v in versions.values())
    return _Panel(f"{base} (real part full, imaginary dotted)" if is_complex else base, draw)


def _neighbourhood(x: np.ndarray, rows: np.ndarray) -> tuple[float, float]:
    """Where a target differs from its first value, and as much again to both sides."""
    (at,) = np.nonzero(np.any(rows != rows[:, :1], axis=0))
    if not at.size:
        return float(x[0]), float(x[-1])
    low, high = x[at[0]], x[at[-1]]
    return float(max(x[0], 2 * low - high)), float(min(x[-1], 2 * high - low))


def _misfit(variables: dict[str, Variable]) -> _Panel:
    misfit, stage = variables["misfit"].values, variables["stage"].values

    def draw(axis: Any) -> None:
        scale = misfit[0] or 1.0
        for number in np.unique(stage):
            at = np.flatnonzero(stage == number)
            axis.semilogy(at + 1, misfit[at] / scale, ".-", label=f"stage {number + 1}")
        axis.set(xlabel="evaluation", ylabel="relative to the start")
        axis.grid(which="both", alpha=0.3)
        if len(np.unique(stage)) > 1:
            axis.legend(fontsize="small")

    return _Panel("misfit", draw)


def draw_budgets(
    rows: Sequence[tuple[int, int, float]],
    picture: Path,
    *,
    now: int = 0,
    measured: Sequence[tuple[int, float]] = (),
) -> None:
    """Predicted time against memory.

    Parameters
    ----------
    rows : sequence of (bytes, advances, seconds)
    picture : Path
    now : int
        A budget that is marked [bytes].
    measured : sequence of (bytes, seconds)
        Drawn as points.

    Raises
    ------
    ResultError
        If matplotlib is missing or the picture cannot be written.
    """
    plt = _pyplot()
    figure, axis = plt.subplots(figsize=(6.4, 3.6), layout="constrained")
    budgets, seconds = [r[0] for r in rows], [r[2] for r in rows]
    axis.step(
        budgets, seconds, where="post", color="C0", label="theory: binomial, from trial steps"
    )
    if measured:
        axis.plot(*zip(*measured, strict=True), "o", color="C3", label="measured")
    if budgets[0] <= now <= budgets[-1]:
        axis.axvline(now, color="0.6", lw=1)
        axis.annotate(
            "run file", (now, max(seconds)), color="0.4", ha="right", rotation=90, va="top"
        )
    axis.set(xscale="log", xlabel="memory for snapshots [bytes]", ylabel="gradient [s]")
    axis.set_ylim(0, min(max(seconds), 6 * min(seconds)) * 1.05)
    axis.grid(alpha=0.3)
    axis.legend(frameon=False)
    try:
        figure.savefig(picture, dpi=110)
    except OSError as error:
        raise ResultError(f"the picture {picture} could not be written: {error}") from error
    finally:
        plt.close(figure)
