"""An inversion that was stopped goes on, and finds the same bits."""

from __future__ import annotations

import signal
from pathlib import Path

import numpy as np
import pytest

import backsweep as bs
from backsweep.comm import Groups, SerialComm
from backsweep.errors import ResumeError, Stopped
from backsweep.inverse import Evaluator, Inversion, Stage, Tikhonov, Unknown, invert, under_way
from backsweep.inverse import replay as replay_module
from backsweep.inverse.cost import Cost
from backsweep.inverse.evaluate import SHORT
from backsweep.runtime import stop
from backsweep.runtime.checkpointing import Checkpointing, effective
from backsweep.storage.records import RecordFolder
from problems import Decay

KINDS = {
    "plain": Inversion((Stage(12),)),
    "gauss-newton": Inversion((Stage(15),), method="Gauss-Newton-CG"),
    "stages": Inversion(
        (Stage(6, {"n_steps": 10}), Stage(6, {"n_steps": 50})),
        {"rates": Unknown(bounds=(0.1, 2.0))},
    ),
    "illumination": Inversion(
        (Stage(10),), preconditioner="illumination", regularisers={"rates": (Tikhonov(0.1),)}
    ),
}


class Killed(BaseException):
    """Ends a run at once."""


@pytest.fixture(autouse=True)
def every_record_at_once(monkeypatch):
    """Records of short evaluations would wait for each other."""
    monkeypatch.setattr(replay_module, "SHARE", 1e9)


@pytest.fixture
def die(monkeypatch):
    """Let the n-th call of all ranks end the run; how many there were."""
    calls, limit = [0], [-1]

    def counting(own):
        def call(self, *args):
            calls[0] += 1
            if calls[0] == limit[0]:
                raise Killed
            return own(self, *args)

        return call

    for name in ("evaluate", "gauss_newton", "illumination"):
        monkeypatch.setattr(Evaluator, name, counting(getattr(Evaluator, name)))

    def arm(n):
        calls[0], limit[0] = 0, n
        return calls

    return arm


def run(inversion, folder=None, problem=None, **options):
    request = None
    if folder is not None:
        request = bs.Checkpointing(directory=str(folder), resume=True, **options.pop("request", {}))
    return invert(problem or Decay(), inversion, checkpointing=request, **options)


def content(history):
    """Everything but times and memory."""
    rows = [(r.stage, r.misfit, r.objective, r.gradient_norm) for r in history.rows]
    counts = [(r.cost.n_steps, r.cost.n_advances, r.cost.n_reverses) for r in history.rows]
    models = [(n, model["rates"].tobytes()) for n, model in history.models]
    last = (history.last.value_fingerprint, history.last.gradient["rates"].tobytes())
    best = history.best["rates"].tobytes()
    return rows, counts, models, last, best, history.reason, history.status


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_killed_again_and_again(kind, die, tmp_path):
    inversion, folder = KINDS[kind], tmp_path / "resume"
    counted = die(-1)
    expected = content(run(inversion))
    n_calls, n_made, n_kills = counted[0], 0, 0
    while True:
        counted = die(4)
        try:
            history = run(inversion, folder)
        except Killed:
            n_made, n_kills = n_made + 3, n_kills + 1
        else:
            break
    assert content(history) == expected
    assert n_kills >= 3
    assert n_made + counted[0] == n_calls, "nothing is evaluated twice"
    assert not folder.exists()


@pytest.mark.parametrize("n", [1, 2, 7, 23])
def test_a_signal_within_an_evaluation(n, tmp_path):
    """Finished items are kept, also where an evaluation takes far less than the interval."""

    class Signalled(Decay):
        n_calls = 0
        at = n

        def misfit(self, parameters, item):
            type(self).n_calls += 1
            if self.n_calls == self.at:
                stop._note(signal.SIGUSR1, None)
            return super().misfit(parameters, item)

    expected = content(run(KINDS["plain"]))
    with pytest.raises(Stopped) as stopped:
        run(KINDS["plain"], tmp_path / "resume", Signalled())
    assert stopped.value.code == 85
    assert stopped.value.signal_name == "SIGUSR1"
    n_before = Signalled.n_calls
    assert n_before == n
    said = []
    found = run(KINDS["plain"], tmp_path / "resume", Signalled(), say=said.append)
    assert content(found) == expected
    # The item in which the signal came may have been abandoned: it is then run once more.
    assert Signalled.n_calls <= 4 * 12 + 1
    if n > 4:
        assert said[0].startswith(f"resuming: {n // 4} of 12 evaluations recorded")
    assert not list(tmp_path.iterdir())


def test_items_within_an_evaluation_go_on_at_a_step(tmp_path, monkeypatch):
    """With durable points in the middle of each item's gradient."""
    monkeypatch.setattr("backsweep.inverse.evaluate.SHORT", -1.0)
    assert SHORT > 0
    monkeypatch.setattr("backsweep.runtime.pace.MAX_SECONDS_PER_CALL", 0.0)
    monkeypatch.setattr("backsweep.runtime.sweeper.FIRST_CALL_OPERATIONS", 1)
    from backsweep.runtime import journal

    expected = content(run(KINDS["plain"]))
    pauses = [0]
    is_due = journal.Journal._is_due

    def count(self):
        pauses[0] += 1
        if pauses[0] == 170:
            stop._note(signal.SIGTERM, None)
        return is_due(self)

    monkeypatch.setattr(journal.Journal, "_is_due", count)
    said, n_stops = [], 0
    while True:
        pauses[0] = 0
        try:
            history = run(KINDS["plain"], tmp_path / "resume", say=said.append)
        except Stopped:
            n_stops += 1
        else:
            break
    found = content(history)
    assert (found[0], found[2:]) == (expected[0], expected[2:])  # costs are those that arose
    assert n_stops >= 5
    assert any("begun" in sentence for sentence in said)
    assert not list(tmp_path.iterdir())


def test_what_sums_and_an_item_have_not_kept_is_one_interval(tmp_path, monkeypatch):
    """Items of 20 s, or of 40 s, at an interval of 60 s: both are kept from time to time."""
    clock, saved, intervals = [0.0], [], []
    monkeypatch.setattr(under_way.time, "monotonic", lambda: clock[0])

    def of_item(number):
        intervals.append(effective(None).interval)
        assert clock[0] - saved[-1] + intervals[-1] <= 60.0, "at the item's first point"
        clock[0] += 20.0 if number < 4 else 40.0
        return [np.ones(2)], Cost()

    class Noted(under_way.PartialSum):
        def _save(self):
            saved.append(clock[0])
            super()._save()

    saved.append(0.0)
    state = under_way.UnderWay(tmp_path / "sums")
    sums = Noted(8, range(8), Groups.of(SerialComm()), Checkpointing(interval=60.0), state)
    sums.run(of_item, is_resumable=True)
    assert saved == [0.0, 40.0, 80.0, 120.0, 160.0, 200.0, 240.0]
    assert intervals == [60.0, 40.0, 60.0, 40.0, 60.0, 60.0, 60.0, 60.0]


def kill_after(n, die, folder, inversion=KINDS["plain"], **options):
    die(n + 1)
    with pytest.raises(Killed):
        run(inversion, folder, **options)
    die(-1)


def test_another_way_restarts_from_the_best_model(die, tmp_path, monkeypatch):
    """As if this CPU rounded differently from the fourth evaluation on."""
    folder = tmp_path / "resume"
    kill_after(8, die, folder)
    best_so_far = min(row.misfit for row in run(Inversion((Stage(8),))).rows)
    own = replay_module.checksum_of
    n_asked = [0]

    def other(*args):
        n_asked[0] += 1
        return own(*args) if n_asked[0] < 4 else own(*args)[::-1]

    monkeypatch.setattr(replay_module, "checksum_of", other)
    said = []
    counted = die(3)
    with pytest.raises(Killed):
        run(KINDS["plain"], folder, say=said.append)
    assert "after evaluation 3 of 8 recorded ones the optimiser went another way" in said[1]
    # Killed after two more evaluations, the restarted optimiser is resumed like any other.
    n_asked[0] = 4
    counted = die(-1)
    found = run(KINDS["plain"], folder)
    assert counted[0] == 2
    assert len(found.rows) == 12, "what was recorded counts as spent"
    misfits = [row.misfit for row in found.rows]
    assert min(misfits[:8]) == best_so_far
    np.testing.assert_allclose(misfits[8], best_so_far)  # where it starts anew
    assert min(misfits) <= best_so_far
    assert found.status == "finished"
    assert not folder.exists()


def test_what_differs_is_named(die, tmp_path):
    folder = tmp_path / "resume"
    kill_after(3, die, folder)
    with pytest.raises(ResumeError, match=r"'stages.0.evaluations' was '12', is '13'"):
        run(Inversion((Stage(13),)), folder)
    with pytest.raises(ResumeError, match=r"'optimiser.first_step' was '0.02', is '0.5'"):
        run(Inversion((Stage(12),), first_step=0.5), folder)
    with pytest.raises(ResumeError, match=r"'data' was 'absent'|'data' was absent, is 'new'"):
        run(KINDS["plain"], folder, identity={"data": "new"})
    said = []
    found = run(Inversion((Stage(13),)), folder, request={"fresh": True}, say=said.append)
    assert len(found.rows) == 13
    assert not said
    assert not folder.exists()


def test_a_second_run_in_the_folder_is_refused(die, tmp_path):
    folder = tmp_path / "resume"

    def try_again(history):
        if len(history.rows) == 2:
            with pytest.raises(ResumeError, match="is in use by this process itself"):
                run(KINDS["plain"], folder)

    expected = content(run(KINDS["plain"]))
    assert content(run(KINDS["plain"], folder, on_evaluation=try_again)) == expected


def test_a_damaged_record_is_computed_again(die, tmp_path):
    folder = tmp_path / "resume"
    expected = content(run(KINDS["plain"]))
    kill_after(6, die, folder)
    path = folder / "records-00000003.h5"
    data = bytearray(path.read_bytes())
    data[-3000] ^= 1
    path.write_bytes(data)
    counted = die(-1)
    with pytest.warns(RuntimeWarning, match="records-00000003"):
        assert content(run(KINDS["plain"], folder)) == expected
    assert counted[0] == 12 - 3


def test_an_error_before_any_evaluation_leaves_nothing(tmp_path):
    class Broken(Decay):
        def misfit(self, parameters, item):
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        run(KINDS["plain"], tmp_path / "resume", Broken())
    assert not list(tmp_path.iterdir())


def test_records_of_short_evaluations_are_written_together(die, tmp_path, monkeypatch):
    monkeypatch.setattr(replay_module, "SHARE", 1e-9)
    expected = content(run(KINDS["plain"]))
    kill_after(9, die, tmp_path / "resume")
    names = sorted(p.name for p in Path(tmp_path / "resume").glob("records-*"))
    assert names == ["records-00000000.h5", "records-00000001.h5"]
    counted = die(-1)
    assert content(run(KINDS["plain"], tmp_path / "resume")) == expected
    assert counted[0] == 3


def test_what_is_ours_alone_is_removed(die, tmp_path):
    folder = tmp_path / "mine"
    (folder / "call-of-duty").mkdir(parents=True)
    (folder / "notes.txt").write_text("mine")
    kill_after(3, die, folder)
    run(KINDS["plain"], folder, request={"fresh": True})
    assert sorted(p.name for p in folder.iterdir()) == ["call-of-duty", "notes.txt"]
    with RecordFolder(folder, {}) as records:
        assert not records.records
