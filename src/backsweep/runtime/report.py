"""What a gradient cost, and the fingerprints by which runs are compared."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from backsweep.runtime.checkpointing import format_bytes


@dataclass
class ScanReport:
    """One scan of a gradient.

    Attributes
    ----------
    schedule : str
    n_steps, n_snapshots : int
    snapshot_bytes_memory, snapshot_bytes_disk, work_bytes : int
    all_bytes : int
        What the states of all steps would take.
    n_advances, n_reverses : int
        Counted inside the compiled loops.
    forward_seconds, reverse_seconds : float
    executor : str
        "native" or "python", and why.
    ghost_bytes : tuple of int
        What this rank receives from others after each step forward, and of the adjoint.
    """

    schedule: str = "none"
    n_steps: int = 0
    n_snapshots: int = 0
    snapshot_bytes_memory: int = 0
    snapshot_bytes_disk: int = 0
    work_bytes: int = 0
    all_bytes: int = 0
    n_advances: int = 0
    n_reverses: int = 0
    forward_seconds: float = 0.0
    reverse_seconds: float = 0.0
    n_disk_writes: int = 0
    n_disk_reads: int = 0
    n_lost: int = 0
    disk_wait_seconds: float = 0.0
    resumed_at: str = ""
    executor: str = "native"
    n_threads: int = 1
    ghost_bytes: tuple[int, int] = (0, 0)

    @property
    def ghosts(self) -> str:
        """What ranks send each other, in words; empty where they send nothing."""
        if not any(self.ghost_bytes):
            return ""
        forward, back = map(format_bytes, self.ghost_bytes)
        return f"{forward} of ghosts received per step, {back} per step of the adjoint"


class ScanTotals:
    """Counts over scans."""

    scans: Sequence[ScanReport]

    @property
    def n_advances(self) -> int:
        return sum(s.n_advances for s in self.scans)

    @property
    def n_reverses(self) -> int:
        return sum(s.n_reverses for s in self.scans)


@dataclass
class Report(ScanTotals):
    """Everything that one gradient did.

    Attributes
    ----------
    scans : list of ScanReport
    compile_seconds : float
    n_compilations, n_cache_hits : int
    seconds : float
    value_fingerprint, gradient_fingerprint : str
        16 hexadecimal digits; equal bits, equal digits.
    """

    scans: list[ScanReport] = field(default_factory=list)
    compile_seconds: float = 0.0
    n_compilations: int = 0
    n_cache_hits: int = 0
    seconds: float = 0.0
    value_fingerprint: str = ""
    gradient_fingerprint: str = ""

    @property
    def snapshot_bytes(self) -> int:
        return sum(s.snapshot_bytes_memory + s.snapshot_bytes_disk for s in self.scans)

    def __str__(self) -> str:
        lines = []
        for s in self.scans:
            lines.append(
                f"{s.schedule}: {s.n_steps} steps, {s.n_snapshots} snapshots "
                f"({format_bytes(s.snapshot_bytes_memory)} in memory, "
                f"{format_bytes(s.snapshot_bytes_disk)} on disk), work arrays "
                f"{format_bytes(s.work_bytes)}; {s.n_advances} advances in "
                f"{s.forward_seconds:.3g} s before the loss, {s.n_reverses} reverse steps, sweep "
                f"{s.reverse_seconds:.3g} s; {s.executor}, {s.n_threads} threads"
            )
            if s.n_disk_writes or s.n_disk_reads:
                lines.append(
                    f"  disk: {s.n_disk_writes} snapshots written, {s.n_disk_reads} read, waited "
                    f"{s.disk_wait_seconds:.3g} s for it"
                    + (f", {s.n_lost} lost" if s.n_lost else "")
                )
            if s.ghosts:
                lines.append(f"  {s.ghosts}")
            if s.resumed_at:
                lines.append(f"  resumed {s.resumed_at}")
        lines.append(
            f"total {self.seconds:.3g} s, of it {self.compile_seconds:.3g} s compiling "
            f"({self.n_compilations} compiled, {self.n_cache_hits} from the cache)"
        )
        if self.value_fingerprint:
            lines.append(
                f"fingerprints: value {self.value_fingerprint}, "
                f"gradient {self.gradient_fingerprint}"
            )
        return "\n".join(lines)
