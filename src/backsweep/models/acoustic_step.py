"""The grid, the carry and one time step of `Acoustic`.

The carry is (u, u before, psi of each layer, zeta of each layer); u lies in ghost points that stay
zero. Derivatives along an axis are taken once, of the whole field, and the layers read parts of
them: in the adjoint step their cotangents are then summed up before a stencil reads them. With
stencils of their own for each layer, that step was 100 times as much code and did not compile. What
layers, image and sources add is gathered in a field of its own, so that the stencil runs over whole
rows.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from backsweep.models.cpml import Damping, Layer, cut, quiet
from backsweep.models.points import Taps, find_taps
from backsweep.models.stencils import bare, image_weights, second_derivative

if TYPE_CHECKING:
    from backsweep.models.acoustic import Acoustic


def stepping(model: Acoustic, velocity: Any, source: Any) -> tuple[Any, Callable[[Any, Any], Any]]:
    """The carry at rest, and a function (carry, sample of the wavelet) -> next carry."""
    order, width, dtype = model.order, model.order // 2, velocity.dtype
    c2, taps = courant_squared(model, velocity), taps_of(model, source, dtype)
    layers = layers_of(model, dtype)
    cells = (taps.i - width, taps.j - width)
    images = image_weights(order).astype(dtype)

    def advance(carry: Any, s: Any) -> Any:
        u, u_before, psis, zetas = carry
        second = [second_derivative(bare(u, k, width), k, order) for k in (0, 1)]
        first = [first_difference(bare(u, k, width), k, width) for k in (0, 1)]
        forcing = np.zeros_like(second[0])
        if model.free_surface and width > 1:
            forcing[:, 1:width] += u[width:-width, width + 1 : 2 * width] @ images
        new_psis, new_zetas = [], []
        for layer, psi, zeta in zip(layers, psis, zetas, strict=True):
            psi, zeta, more = layer.advance(psi, zeta, first[layer.axis], second[layer.axis])
            cut(forcing, layer.axis, layer.start, layer.n)[...] += more
            new_psis.append(psi)
            new_zetas.append(zeta)
        # With `add.at`: cells of two sources, or of a source and its image, may coincide.
        np.add.at(forcing, cells, taps.weights * s[:, None])
        u_after = 2 * u - u_before
        u_after[width:-width, width:-width] += c2 * (second[0] + second[1] + forcing)
        return u_after, u, tuple(new_psis), tuple(new_zetas)

    nx, nz = inner_shape(model)
    rest = np.zeros((nx + 2 * width, nz + 2 * width), dtype)
    return (rest, rest, *quiet(layers, (nx, nz), dtype)), advance


def first_difference(u: Any, axis: int, width: int) -> Any:
    """Between neighbours along an axis with ghost points, from the last ghost to the first."""
    n = u.shape[axis] - 2 * width + 1
    return cut(u, axis, width, n) - cut(u, axis, width - 1, n)


def samples(wavelet: Any, velocity: Any) -> Any:
    """What the steps get: shape (n_steps, 1 or n_sources), dtype of velocity."""
    return wavelet.astype(velocity.dtype).reshape(wavelet.shape[0], -1)


def courant_squared(model: Acoustic, velocity: Any) -> Any:
    """(c dt / spacing)^2 on the grid without ghost points; 0 where pressure is held."""
    n = model.n_absorb
    frame = ((n, n), (0 if model.free_surface else n, n))
    result = (np.pad(velocity, frame, mode="edge") * (model.dt / model.spacing)) ** 2
    if model.free_surface:
        result[:, 0] = 0.0
    return result


def origin(model: Acoustic) -> tuple[int, int]:
    """Indices of the model's first point in a field."""
    width = model.order // 2
    return model.n_absorb + width, (0 if model.free_surface else model.n_absorb) + width


def inner_shape(model: Acoustic) -> tuple[int, int]:
    """Of the grid without ghost points."""
    nx, nz = model.shape
    n_z_layers = 1 if model.free_surface else 2
    return nx + 2 * model.n_absorb, nz + n_z_layers * model.n_absorb


def taps_of(model: Acoustic, positions: Any, dtype: Any) -> Taps:
    """Cells of sources or receivers in a field."""
    return find_taps(positions, model.spacing, origin(model), model.free_surface, dtype)


def layers_of(model: Acoustic, dtype: Any) -> list[Layer]:
    """On all sides but the free surface."""
    damping = Damping(model.n_absorb, model.spacing, model.dt, model.max_velocity, model.frequency)
    sides = [(0, True), (0, False), (1, True), (1, False)]
    if model.free_surface:
        sides.remove((1, True))
    return [
        damping.layer(axis, 0 if is_low else inner_shape(model)[axis] - damping.n, is_low, dtype)
        for axis, is_low in sides
    ]
