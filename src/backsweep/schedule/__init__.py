"""Checkpointing schedules: when to advance, store, load, discard and reverse.

Knows nothing about models. A leaf of the layer diagram: imports only `backsweep.errors`.
"""

from backsweep.schedule.actions import (
    ADVANCE,
    DISCARD,
    LOAD,
    REVERSE,
    ROW_WIDTH,
    STORE,
    Action,
    Advance,
    Discard,
    Level,
    Load,
    Reverse,
    Store,
    decode,
)
from backsweep.schedule.base import MAX_STEPS, AbstractSchedule
from backsweep.schedule.binomial import (
    FINISHED,
    FORWARD_PHASE,
    PHASE,
    REVERSE_PHASE,
    Binomial,
    beta,
    extra_advances,
    fill,
    repetition,
)
from backsweep.schedule.simulate import Summary, simulate
from backsweep.schedule.store_all import StoreAll

__all__ = [
    "ADVANCE",
    "DISCARD",
    "FINISHED",
    "FORWARD_PHASE",
    "LOAD",
    "MAX_STEPS",
    "PHASE",
    "REVERSE",
    "REVERSE_PHASE",
    "ROW_WIDTH",
    "STORE",
    "AbstractSchedule",
    "Action",
    "Advance",
    "Binomial",
    "Discard",
    "Level",
    "Load",
    "Reverse",
    "Store",
    "StoreAll",
    "Summary",
    "beta",
    "decode",
    "extra_advances",
    "fill",
    "repetition",
    "simulate",
]
