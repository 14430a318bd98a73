"""Ready-made simulations, written in plain NumPy on top of the engine."""

from backsweep.models import bloch, pulseq

__all__ = ["bloch", "pulseq"]
