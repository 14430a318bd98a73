"""Checkpointing schedules: when to advance, store, load, discard and reverse.

Knows nothing about models. A leaf of the layer diagram: imports only `backsweep.errors`.
"""

from backsweep.schedule.actions import (
    ADVANCE,
    DISCARD,
    DISK_SLOT,
    LOAD,
    REVERSE,
    ROW_WIDTH,
    STORE,
    Action,
    Advance,
    Discard,
    Keep,
    Level,
    Load,
    Reverse,
    Store,
    decode,
)
from backsweep.schedule.adapter import AdaptedSchedule, from_checkpoint_schedules
from backsweep.schedule.base import MAX_STEPS, AbstractSchedule, TableSchedule
from backsweep.schedule.binomial import (
    FINISHED,
    FORWARD_PHASE,
    PHASE,
    REVERSE_PHASE,
    Binomial,
    beta,
    extra_advances,
    fill,
    held_state,
    repetition,
    resume_state,
)
from backsweep.schedule.mixed import Mixed, mixed_forward_steps
from backsweep.schedule.multistage import Multistage
from backsweep.schedule.online import Online, OnlineRun
from backsweep.schedule.restart import worth_keeping
from backsweep.schedule.rows import RowWriter, to_rows
from backsweep.schedule.simulate import Summary, simulate
from backsweep.schedule.store_all import StoreAll

__all__ = [
    "ADVANCE",
    "DISCARD",
    "DISK_SLOT",
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
    "AdaptedSchedule",
    "Advance",
    "Binomial",
    "Discard",
    "Keep",
    "Level",
    "Load",
    "Mixed",
    "Multistage",
    "Online",
    "OnlineRun",
    "Reverse",
    "RowWriter",
    "Store",
    "StoreAll",
    "Summary",
    "TableSchedule",
    "beta",
    "decode",
    "extra_advances",
    "fill",
    "from_checkpoint_schedules",
    "held_state",
    "mixed_forward_steps",
    "repetition",
    "resume_state",
    "simulate",
    "to_rows",
    "worth_keeping",
]
