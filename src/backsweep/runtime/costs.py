"""Seconds of a gradient, and of many, from counts (`work`) and a machine's parameters (`machine`).

Plain arithmetic, a sum of terms. Steps are bounded by operations or by memory traffic (the
roofline: Williams, Waterman & Patterson 2009, doi:10.1145/1498765.1498785); a message costs its
overhead and its bytes (Hockney 1994, doi:10.1016/S0167-8191(06)80021-9; overhead and latency apart
as in LogP, Culler et al. 1993, doi:10.1145/155332.155333); all-reduces are those of `comm.base`,
counted as Thakur, Rabenseifner & Gropp 2005 (doi:10.1177/1094342005051521) count theirs; how often
steps are advanced is counted in the schedule (Griewank & Walther 2000, doi:10.1145/347837.347846).

Known to be left out: ranks that wait for a slower one, contention in the network, caches that hold
a part of a block.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from backsweep.comm.base import PIECE, SMALL
from backsweep.comm.tree import items_of_rank
from backsweep.errors import MachineError
from backsweep.runtime.checkpointing import format_bytes
from backsweep.runtime.compiled import threads_for
from backsweep.runtime.machine import Machine, StepRates
from backsweep.runtime.work import Round, ScanWork, Work

COMPUTE = "compute"
MEMORY_BANDWIDTH = "memory bandwidth"
LATENCY = "message latency"
MESSAGE_BANDWIDTH = "message bandwidth"
SUMS = "all-reduce"
AGREE = "objects of all ranks"
DISK = "disk bandwidth"
FIXED = "trace and plan"
IDLE = "load imbalance"
TREE = "sum over shots"
METADATA = "file-system metadata"
MEMORY = "memory per rank"
JOB_TIME = "longest job"


@dataclass(frozen=True)
class Nodes:
    """Ranks that work together, on nodes that may have others of the same job.

    Attributes
    ----------
    n_ranks, per_node : int
    machine : Machine
    n_others : int
        Ranks of the job that work on something else of the same kind.
    threads : int
        Of each rank; 0: its share of the cores.
    """

    n_ranks: int
    per_node: int
    machine: Machine
    n_others: int = 0
    threads: int = 0

    def __post_init__(self) -> None:
        if self.n_ranks < 1 or self.per_node < 1:
            raise MachineError(
                f"{self.n_ranks} rank(s), {self.per_node} on a node: at least 1 of each is needed"
            )

    @property
    def on_node(self) -> int:
        """Ranks on a full node."""
        return min(self.n_ranks + self.n_others, self.per_node)

    @property
    def has_network(self) -> bool:
        return self.n_ranks > self.per_node

    @property
    def n_threads(self) -> int:
        """Of each rank."""
        return self.threads or max(1, self.machine.cores // self.on_node)

    @property
    def crowding(self) -> float:
        """Threads per core, where there are more of them than cores."""
        return max(1.0, self.on_node * self.n_threads / self.machine.cores)

    @property
    def n_stages(self) -> int:
        """Of a tree of all ranks."""
        return math.ceil(math.log2(self.n_ranks))

    @property
    def bandwidth(self) -> float:
        """Of a rank whose messages go everywhere [B/s]."""
        m = self.machine
        shared = m.network_bandwidth / self.on_node
        return min(m.bandwidth, shared) if self.has_network else m.bandwidth

    @property
    def far_seconds(self) -> float:
        """By which a message that goes anywhere takes longer than one within a node."""
        return self.machine.network_seconds if self.has_network else 0.0


@dataclass(frozen=True)
class Prediction:
    """Seconds of a job, term by term.

    Attributes
    ----------
    nodes : Nodes
    terms : mapping of str to float
        They add up.
    memory_bytes : int
        Of a rank.
    first_seconds : float
        By which the first gradient of a program takes longer: it is cut, and messages are set up.
    """

    nodes: Nodes
    terms: Mapping[str, float]
    memory_bytes: int
    first_seconds: float = 0.0

    @property
    def seconds(self) -> float:
        return sum(self.terms.values())

    @property
    def fits(self) -> bool:
        """Whether the ranks of a node have room in its memory."""
        return self.nodes.on_node * self.memory_bytes <= self.nodes.machine.memory_bytes

    def share(self, name: str) -> float:
        """The part of a term in all seconds."""
        return self.terms.get(name, 0.0) / self.seconds if self.seconds else 0.0

    @property
    def breaks_first(self) -> str:
        """What sets the bound: of the terms besides computing the largest, or what does not fit."""
        if not self.fits:
            return MEMORY
        others = {name: s for name, s in self.terms.items() if name != COMPUTE and s > 0}
        if self.seconds > 3600 * self.nodes.machine.job_hours:
            return JOB_TIME
        return max(others, key=lambda name: others[name], default=COMPUTE)

    def __str__(self) -> str:
        parts = sorted(self.terms, key=lambda name: -self.terms[name])
        shares = ", ".join(f"{n} {self.share(n):.0%}" for n in parts if self.share(n) >= 0.005)
        return (
            f"{self.nodes.n_ranks} rank(s), {self.nodes.on_node} on a node: {self.seconds:.3g} s, "
            f"{self.first_seconds:.2g} s more the first time, {format_bytes(self.memory_bytes)} "
            f"each ({shares}); breaks first: {self.breaks_first}"
        )


def predict(work: Work, steps: Sequence[StepRates], nodes: Nodes) -> Prediction:
    """Seconds of a gradient on ranks of which each has this work.

    Parameters
    ----------
    work : Work
        Of the slowest rank.
    steps : sequence of StepRates
        Of its scans.
    nodes : Nodes

    Raises
    ------
    MachineError
        If the rates are those of a program with another number of scans.
    """
    if len(steps) != len(work.scans):
        raise MachineError(
            f"rates of {len(steps)} scan(s) were measured, but the program has "
            f"{len(work.scans)}: measure this one"
        )
    machine = nodes.machine
    terms = dict.fromkeys(
        (COMPUTE, MEMORY_BANDWIDTH, LATENCY, MESSAGE_BANDWIDTH, SUMS, AGREE, DISK, FIXED),
        0.0,
    )
    for scan, rates in zip(work.scans, steps, strict=True):
        for name, seconds in _scan_terms(scan, rates, nodes).items():
            terms[name] += seconds
    terms[SUMS] += sum(reduction_seconds(n, nodes) for n in work.sums)
    terms[FIXED] = work.fixed_seconds * nodes.crowding
    first = work.cut_seconds * nodes.crowding
    if nodes.n_ranks > 1:
        n_fields = sum(scan.n_fields for scan in work.scans)
        first += n_fields * nodes.n_ranks * machine.setup_seconds * nodes.crowding
        terms[AGREE] = work.n_gathers * objects_seconds(nodes)
    return Prediction(nodes, terms, work.memory_bytes, first)


def _scan_terms(scan: ScanWork, rates: StepRates, nodes: Nodes) -> dict[str, float]:
    counts = (scan.n_advances, scan.n_reverses)
    compute = memory = latency = transfer = 0.0
    for k, (n, rate) in enumerate(zip(counts, (rates.advance, rates.reverse), strict=True)):
        computing = compute_seconds(scan.operations[k], rate, nodes)
        waiting = max(0.0, memory_seconds(scan.step_bytes[k], nodes) - computing)
        overhead, in_flight = round_seconds(scan.rounds[k], nodes, computing + waiting)
        compute += n * computing
        memory += n * waiting
        latency += n * overhead
        transfer += n * in_flight
    found = {COMPUTE: compute, MEMORY_BANDWIDTH: memory}
    found |= {LATENCY: latency, MESSAGE_BANDWIDTH: transfer}
    found[SUMS] = sum(counts) * scan.n_sums * reduction_seconds(8, nodes)
    found[DISK] = _disk_seconds(scan, compute + memory, nodes)
    return found


def compute_seconds(n_operations: int, rate: float, nodes: Nodes) -> float:
    """Of a step, by its operations: `rate` are core seconds of one."""
    n_threads = threads_for(n_operations, nodes.n_threads)
    return n_operations * rate / n_threads * nodes.crowding


def memory_seconds(n_bytes: int, nodes: Nodes) -> float:
    """Of a step, by the bytes that it moves; 0 where the caches of a node hold all of them."""
    m = nodes.machine
    if nodes.on_node * n_bytes <= m.cache_bytes:
        return 0.0
    return max(
        nodes.on_node * n_bytes / m.node_bandwidth, n_bytes / (nodes.n_threads * m.core_bandwidth)
    )


def round_seconds(
    round_: Round | None, nodes: Nodes, meanwhile: float = 0.0
) -> tuple[float, float]:
    """Of an exchange of ghosts: what its messages take, and what their bytes take.

    `meanwhile` are seconds of a step: where rows are computed while messages travel, that much
    of what the network takes is hidden.
    """
    if round_ is None:
        return 0.0, 0.0
    m, n_messages = nodes.machine, round_.n_near + round_.n_far
    overhead = (m.round_seconds + n_messages * m.message_seconds) * nodes.crowding
    if n_messages:
        overhead += (nodes.crowding - 1) * m.waiting_seconds
    latency = m.network_seconds if round_.n_far else 0.0
    far = nodes.on_node * round_.far_bytes / m.network_bandwidth
    hidden = meanwhile if round_.is_overlapped else 0.0
    left = max(0.0, latency + far - hidden)
    latency = min(latency, left)
    return overhead + latency, round_.near_bytes / m.bandwidth + left - latency


def reduction_seconds(n_bytes: int, nodes: Nodes) -> float:
    """Of an all-reduce of an array; of `comm.AbstractComm.allreduce`.

    Short ones are gathered by all ranks. Of long ones each rank adds a part: it receives a message
    from each other rank, and the parts are gathered by all.
    """
    n, m = nodes.n_ranks, nodes.machine
    if n == 1 or not n_bytes:
        return 0.0
    stages = nodes.n_stages * (m.stage_seconds + nodes.far_seconds) * nodes.crowding
    if n_bytes <= SMALL:
        return stages + n * n_bytes / nodes.bandwidth
    n_pieces = -(-n_bytes // PIECE)
    messages = (n - 1) * (m.message_seconds * nodes.crowding) + 2 * stages
    moved = 2 * n_bytes * (n - 1) / n / nodes.bandwidth
    return n_pieces * messages + moved + n_bytes / m.core_bandwidth


def objects_seconds(nodes: Nodes) -> float:
    """Of small objects that each rank gets from all: their lengths, then they, are gathered."""
    stages = 2 * nodes.n_stages * (nodes.machine.stage_seconds + nodes.far_seconds)
    return (stages + nodes.n_ranks * nodes.machine.object_seconds) * nodes.crowding


def _disk_seconds(scan: ScanWork, computing: float, nodes: Nodes) -> float:
    """Of snapshots in files: what is not hidden behind steps, where a core is free for them."""
    m = nodes.machine
    if not scan.n_transfers:
        return 0.0
    bandwidth = 2 / (1 / m.write_bandwidth + 1 / m.read_bandwidth)
    each = m.file_seconds + nodes.on_node * scan.transfer_bytes / bandwidth
    is_hidden = scan.is_overlapped and nodes.on_node * nodes.n_threads < m.cores
    return max(0.0, scan.n_transfers * each - (computing if is_hidden else 0.0))


# --------------------------------------------------------------------------- shots


@dataclass(frozen=True)
class Shots:
    """Gradients of independent items, such as shots, that are added up.

    Attributes
    ----------
    n : int
    ranks_per_shot : int
    model_bytes : int
        Of the sum, in double precision.
    file_operations : int
        Files and folders made, named or removed per shot by the first rank of its group.
    """

    n: int
    ranks_per_shot: int
    model_bytes: int
    file_operations: int = 0


def predict_shots(shots: Shots, gradient: Prediction, nodes: Nodes) -> Prediction:
    """Seconds of one evaluation: a gradient of each shot, by groups of ranks, and their sum.

    Parameters
    ----------
    shots : Shots
    gradient : Prediction
        Of one shot, on the ranks of a group.
    nodes : Nodes
        All ranks of the job.

    Raises
    ------
    MachineError
        If there are more groups than shots.
    """
    groups = n_groups(nodes.n_ranks, shots.ranks_per_shot, shots.n)
    m = nodes.machine
    waves, fair = -(-shots.n // groups), shots.n / groups
    terms = {name: fair * seconds for name, seconds in gradient.terms.items()}
    terms[IDLE] = (waves - fair) * gradient.seconds
    terms[TREE] = _tree_seconds(shots, groups, nodes)
    terms[METADATA] = shots.n * max(
        shots.file_operations / m.metadata_rate, shots.file_operations * m.file_seconds / groups
    )
    sums = 2 * nodes_of_share(shots.n, groups) * shots.model_bytes
    memory = gradient.memory_bytes + (sums if groups > 1 else shots.model_bytes)
    return Prediction(nodes, terms, memory, waves * gradient.first_seconds)


def n_groups(n_ranks: int, ranks_per_shot: int, n_shots: int) -> int:
    """Groups of ranks that work on shots of their own.

    Raises
    ------
    MachineError
        If there are more groups than shots.
    """
    found = max(1, n_ranks // ranks_per_shot)
    if found > n_shots:
        raise MachineError(
            f"{n_ranks} rank(s) in groups of {ranks_per_shot} for {n_shots} shot(s): "
            f"{found - n_shots} group(s) would have nothing to do; let more ranks work on a shot "
            "(ranks_per_shot = 'auto'), or take fewer"
        )
    return found


def _tree_seconds(shots: Shots, groups: int, nodes: Nodes) -> float:
    """The model to all ranks, blocks of gradients to their leaders, and their sums to the root."""
    m = nodes.machine
    whole = shots.model_bytes / nodes.bandwidth
    hop = m.stage_seconds + m.object_seconds + nodes.far_seconds
    spread = nodes.n_stages * (hop + whole)
    gathered = 0.0
    if shots.ranks_per_shot > 1:
        per_shot = (shots.ranks_per_shot - 1) * hop + whole
        gathered = -(-shots.n // groups) * per_shot
    stages = math.ceil(math.log2(groups)) if groups > 1 else 0
    sent = nodes_of_share(shots.n, groups) * whole + shots.model_bytes / m.core_bandwidth
    return spread + gathered + stages * (hop + sent)


def nodes_of_share(n: int, groups: int) -> int:
    """The most nodes of the tree of n numbers that a group's share of them makes (`comm.tree`)."""
    shares = (items_of_rank(n, k, groups) for k in range(groups))
    return max(map(_count_nodes, shares), default=0)


def _count_nodes(share: range) -> int:
    """Of the fewest aligned blocks of powers of two that make up a range."""
    count, at = 0, share.start
    while at < share.stop:
        size = at & -at if at else 1 << (share.stop.bit_length() - 1)
        while size > share.stop - at:
            size >>= 1
        at, count = at + size, count + 1
    return count
