"""Steps without their communicators, and plans of programs that call collectives."""

from __future__ import annotations

import numpy as np
import pytest

import backsweep as bs
from backsweep.codegen.statistics import statistics
from backsweep.comm import (
    Decomposition,
    PlannedComm,
    allreduce_sum,
    gather,
    halo_exchange,
    scatter,
    serial,
)
from backsweep.errors import CommError, DifferentiationError
from backsweep.ir import evaluate, program_text
from backsweep.passes.linearize import vjp_program
from backsweep.passes.products import carry_products
from backsweep.passes.ranks import attached_to, collectives, detached, messages
from backsweep.runtime import scan as scans


def traced(monkeypatch, comm):
    """The placed step of a scan that calls collectives on a communicator."""
    found = []

    def seen(params, args, *rest):
        found.append(params["step"])
        return whole(params, args, *rest)

    whole = scans.interpreted.run_scan
    monkeypatch.setenv("BACKSWEEP_NO_JIT", "1")
    monkeypatch.setattr(scans.interpreted, "run_scan", seen)
    dec = Decomposition((6,), comm=comm, periodic=True)

    def step(u, _):
        u = halo_exchange(u, dec)
        own = scatter(gather(u[1:-1], dec), dec) + allreduce_sum(u[1:-1], comm)
        new = np.zeros_like(u)
        new[1:-1] = 0.1 * own * u[2:]
        return new, None

    bs.scan(step, np.ones(8), length=1)
    return found[0]


def test_its_text_is_that_of_any_communicator(monkeypatch):
    steps = [traced(monkeypatch, serial()) for _ in range(2)]
    assert program_text(steps[0]) != program_text(steps[1])
    texts = [program_text(detached(s)) for s in steps]
    assert texts[0] == texts[1] and "PlannedComm(1, rank=0)" in texts[0]
    assert detached(steps[0]) is detached(steps[0])


def test_it_can_send_nothing_until_it_is_attached(monkeypatch):
    step = traced(monkeypatch, serial())
    alone = detached(step)
    with pytest.raises(CommError, match="nothing can be run or sent on it"):
        evaluate(alone, [np.ones(8)])
    attach = attached_to(step)
    for eqn, own in zip(collectives(alone), collectives(step), strict=True):
        bound = attach(eqn.params)
        assert bound.keys() == own.params.keys()
        assert all(bound[k] is own.params[k] or k == "number" for k in bound)


def test_what_is_derived_calls_the_same(monkeypatch):
    step = traced(monkeypatch, serial())
    first, second = (
        [text for text, _ in messages(vjp_program(s, (True,), (True,)))]
        for s in (step, detached(step))
    )
    assert first == second and len(first) == 5


def test_carried_products_leave_collectives_in_their_order():
    """The gradient of c needs one of them alone, the cotangent of u the other one."""
    dec = Decomposition((6,), comm=PlannedComm(2), periodic=True)

    def loss(c):
        def step(u, _):
            v = halo_exchange(u, dec)
            new = np.zeros_like(u)
            new[1:-1] = v[1:-1] + c[1:-1] * (v[2:] - 2 * v[1:-1] + v[:-2])
            return new, None

        u, _ = bs.scan(step, np.ones(5, like=c), length=2)
        return allreduce_sum(np.sum(u[1:-1]), dec.comm)

    programs = []

    def seen(program, *args):
        carried, products = carry_products(program, *args)
        programs.append((program, carried))
        return carried, products

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("backsweep.runtime.compiled.carry_products", seen)
        bs.plan(loss, placement="varying")(np.ones(5))
    (before, after), *_ = programs
    texts = [[text for text, _ in messages(p)] for p in (before, after)]
    assert len(texts[0]) == 2 and texts[0] == texts[1]


def test_a_plan_for_ranks_that_are_not_there():
    dec = Decomposition((64, 5), comm=PlannedComm(8))
    budget = bs.Checkpointing(snapshots=3)

    def loss(u):
        step = lambda u, _: (0.5 * halo_exchange(u, dec), None)  # noqa: E731
        u, _ = bs.scan(step, u, length=10, checkpointing=budget)
        return allreduce_sum(np.sum(u[1:-1]), dec.comm)

    n = statistics.compilations
    found = bs.plan(loss, placement="varying")(np.ones((10, 5)))
    assert statistics.compilations == n
    (scan,) = found.scans
    assert (scan.executor, scan.n_snapshots, scan.n_reverses) == ("native", 3, 10)
    assert scan.snapshot_bytes_memory == 3 * 448  # of 10 x 5 numbers, on lines of the cache
    with pytest.raises(DifferentiationError, match="measure=True is not supported"):
        bs.plan(loss, measure=True, placement="varying")
