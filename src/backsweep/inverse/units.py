"""Units of the unknowns: of the run, of the problem, and by illumination."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from backsweep.errors import ModelError
from backsweep.inverse.problem import Described
from backsweep.inverse.transforms import Unknown

#: Cells that are seen by less than this part of the best seen are not amplified further.
ILLUMINATION_FLOOR = 1e-2


def unknown_settings(described: Described, given: Mapping[str, Unknown]) -> dict[str, Unknown]:
    """Settings of the run, completed by masks and scales of the problem."""
    settings = dict(given)
    for name, start in described.start.items():
        own = settings.get(name, Unknown())
        masks = [m for m in (described.member("masks", name), own.mask) if m is not None]
        for mask in masks:
            if np.shape(mask) != start.shape:
                raise ModelError(
                    f"{name}: a mask of shape {np.shape(mask)}, that of the parameter is "
                    f"{start.shape}"
                )
        if masks:
            own = replace(own, mask=np.logical_and.reduce(masks))
        size = described.member("scales", name)
        if own.scale is None and size is not None:
            own = replace(own, scale=own.scale_of(start, size))
        settings[name] = replace(own, scale=np.asarray(own.scale_at(start)))
    return settings


def amplified(
    settings: Mapping[str, Unknown], illumination: Mapping[str, np.ndarray]
) -> dict[str, Unknown]:
    """Units of the unknowns larger where less energy comes (the inverse square root).

    Relative to the best seen of the cells that are sought: the source itself may be far brighter.
    """
    found = dict(settings)
    for name, values in illumination.items():
        mask = settings[name].mask
        most = np.max(values if mask is None else values[mask], initial=0.0)
        if most > 0:
            relative = np.minimum(values / most, 1.0)
            scale = settings[name].scale * (relative + ILLUMINATION_FLOOR) ** -0.5
            found[name] = replace(settings[name], scale=scale)
    return found
