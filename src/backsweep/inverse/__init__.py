"""Inverse problems: misfits, unknowns, regularisation and optimisers, over the ranks of a job."""

from backsweep.inverse.cost import Cost
from backsweep.inverse.evaluate import Evaluation, Evaluator
from backsweep.inverse.history import History
from backsweep.inverse.inversion import Inversion, Stage
from backsweep.inverse.invert import check_inversion, invert
from backsweep.inverse.misfits import L2, MISFITS, Huber, NormalizedCorrelation
from backsweep.inverse.problem import Described, OptionalMembers, Problem
from backsweep.inverse.regularisation import Tikhonov, TotalVariation
from backsweep.inverse.transforms import Unknown, Unknowns

__all__ = [
    "L2",
    "MISFITS",
    "Cost",
    "Described",
    "Evaluation",
    "Evaluator",
    "History",
    "Huber",
    "Inversion",
    "NormalizedCorrelation",
    "OptionalMembers",
    "Problem",
    "Stage",
    "Tikhonov",
    "TotalVariation",
    "Unknown",
    "Unknowns",
    "check_inversion",
    "invert",
]
