"""Ready-made simulations in plain NumPy: to use, and to copy where another equation is needed."""

from backsweep.models import bloch, pulseq
from backsweep.models.acoustic import Acoustic
from backsweep.models.burgers import Burgers
from backsweep.models.heat import Heat
from backsweep.models.shallow_water import ShallowWater
from backsweep.models.wavelets import ricker

__all__ = ["Acoustic", "Burgers", "Heat", "ShallowWater", "bloch", "pulseq", "ricker"]
