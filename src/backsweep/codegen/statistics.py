"""Counts of what the process compiled."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass


@dataclass
class CacheStatistics:
    """What the process compiled. Read it, do not set it."""

    compilations: int = 0
    disk_hits: int = 0
    memory_hits: int = 0
    seconds: float = 0.0

    @property
    def hits(self) -> int:
        return self.disk_hits + self.memory_hits

    def copy(self) -> CacheStatistics:
        return dataclasses.replace(self)


statistics = CacheStatistics()
