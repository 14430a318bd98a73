"""`backsweep plan --measure`: parameters, predictions, what breaks first, and what is refused."""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path

import pytest

from backsweep.runtime.machine import PARAMETERS, Measured

MACHINE = """
[machine]
cores = 2
memory_bytes = {memory}
object_seconds = {object_seconds}
file_seconds = 1e-9
metadata_rate = {metadata_rate}
job_hours = {job_hours}
[[steps]]
advance = {step}
reverse = {step}
"""
USUAL = {
    "memory": 10**12,
    "object_seconds": 1e-9,
    "metadata_rate": 1e9,
    "job_hours": 24,
    "step": 1e-9,
}


def write_machine(**changes):
    Path("machine.toml").write_text(MACHINE.format(**(USUAL | changes)))
    return "--machine", "machine.toml"


def rows(text):
    """What is printed of each number of ranks: names and values."""
    found = {}
    for line in text.split("predicted for")[1].splitlines()[1:]:
        name, value = re.split(r"  +", line.strip(), maxsplit=1)
        if name.endswith("rank(s)"):
            own = found.setdefault(int(name.split()[0]), {"ranks": value})
        else:
            own[name] = value
    return found


def seconds(row):
    return float(row["an evaluation"].split()[0])


def test_measured_saved_and_used_again(folder, command, interpreted):
    ended = command("plan", "run.toml", "--measure", "--ranks", "1,2,3", "--save", "here.toml")
    assert ended.code == 0, ended.err
    for words in ("parameters, measured now", "core bandwidth", "(assumed)", "scan 0", "trace",
                  "predicted for 3 item(s), 5 evaluation(s)"):  # fmt: skip
        assert words in ended.out, ended.out
    found = rows(ended.out)
    assert list(found) == [1, 2, 3]
    assert found[3]["ranks"] == "2 on a node, 1 for an item"
    assert "load imbalance" in found[2]["an evaluation"]  # three shots on two ranks
    kept = Measured.read(Path("here.toml"))
    assert len(kept.steps) == 1 and "cores" not in kept.machine.assumed
    assert set(kept.machine.assumed) < set(PARAMETERS)

    again = command("plan", "run.toml", "--machine", "here.toml", "--ranks", "2")
    assert again.code == 0, again.err
    assert "parameters, from here.toml" in again.out
    assert abs(seconds(rows(again.out)[2]) - seconds(found[2])) < 0.3 * seconds(found[2])


def test_without_options_the_plan_is_as_it_was(folder, command, interpreted):
    ended = command("plan", "run.toml")
    assert ended.code == 0 and "whole run" in ended.out
    assert "breaks first" not in ended.out and "parameters, " not in ended.out


@pytest.mark.parametrize(
    ("changes", "ranks", "expected"),
    [
        ({"object_seconds": 10.0}, "6", "objects through rank 0"),
        ({"metadata_rate": 0.1}, "1", "file-system metadata"),
        ({"memory": 10**6}, "1", "memory per rank"),
        ({"job_hours": 1e-9}, "1", "longest job"),
        ({"step": 1e-5}, "2", "load imbalance"),
    ],
)
def test_what_breaks_first(folder, command, interpreted, changes, ranks, expected):
    machine = write_machine(**changes)
    ended = command(
        "plan", "run.toml", "--set", "ranks_per_shot='auto'", *machine, "--ranks", ranks
    )
    assert ended.code == 0, ended.err
    (row,) = rows(ended.out).values()
    assert row["breaks first"].startswith(expected), row
    assert ("too little in a node" in row["memory"]) == (expected == "memory per rank")
    assert (" jobs" in row["the run"]) == (expected == "longest job")


def test_more_shots_than_in_the_file(folder, command, interpreted):
    machine = write_machine()
    few = rows(command("plan", "run.toml", *machine, "--ranks", "1").out)[1]
    many = command("plan", "run.toml", *machine, "--ranks", "1,2000", "--shots", "3000")
    assert many.code == 0, many.err
    assert "predicted for 3000 item(s)" in many.out
    assert seconds(rows(many.out)[1]) == pytest.approx(1000 * seconds(few), rel=0.3)
    assert seconds(rows(many.out)[2000]) < seconds(rows(many.out)[1]) / 100


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--ranks", "2"], "go with --measure, or with --machine"),
        (["--measure", "--machine", "m.toml"], "measured or read, not both"),
        (["--measure", "--ranks", "2,x"], "--ranks 2,x: whole numbers of at least 1"),
        (["--measure", "--ranks", "0"], "--ranks 0: whole numbers"),
        (["--measure", "--ranks-per-node", "0"], "--ranks-per-node 0: a whole number"),
        (["--measure", "--shots", "-3"], "--shots -3: a whole number"),
        (["--measure", "--ranks", "4"], "4 rank(s) in groups of 1 for 3 shot(s): 1 group(s)"),
        (["--measure", "--save", "no/m.toml"], "--save no/m.toml: there is no folder no"),
        (["--machine", "m.toml"], "m.toml cannot be read"),
        (["--machine", "run.toml"], "run.toml: model is not known"),
        (["--machine", "m.toml", "--save", "n.toml"], "nothing is measured"),
        (["--measure", "--sweep", "p.png"], "--sweep p.png is a picture of the plan"),
    ],
)
def test_refused(folder, refuse, options, words):
    assert words in refuse("plan", "run.toml", *options)


def test_operations_of_files_are_counted(folder, command, interpreted, monkeypatch):
    """What is counted of a run is what the model takes an item to cost."""
    from backsweep.cli import scaling
    from backsweep.inverse import evaluate

    monkeypatch.setattr(evaluate, "SHORT", 0.0)  # these items are worth points
    assert scaling.file_operations(0.9, interval=1.0) == scaling.FILE_OPERATIONS
    per_point = scaling.POINT_OPERATIONS
    assert scaling.file_operations(2.1, interval=1.0) == scaling.FILE_OPERATIONS + 2 * per_point
    events = {"os.mkdir", "os.rename", "os.remove", "os.rmdir"}
    counted, is_on = [], [True]

    def hook(event, args):
        is_made = event == "open" and isinstance(args[2], int) and args[2] & os.O_CREAT
        if is_on[0] and (event in events or is_made) and "/item-" in str(args[0]):
            counted.append(event)

    sys.addaudithook(hook)
    assert command("gradient", "run.toml").code == 0
    is_on[0] = False
    # Of the first item a folder is tried before the one around it is there.
    assert len(counted) == 3 * scaling.FILE_OPERATIONS + 1, counted


def test_rates_of_another_program(folder, refuse, interpreted):
    write_machine()
    Path("machine.toml").write_text("[machine]\ncores = 2\n")
    told = refuse("plan", "run.toml", "--machine", "machine.toml")
    assert "rates of 0 scan(s) were measured, but the program has 1" in told


def test_on_two_ranks_messages_are_measured(folder, run_program):
    done = run_program(
        "-m", "backsweep", "plan", "run.toml", "--measure", "--ranks", "2,6,64",
        "--ranks-per-node", "2", "--save", "here.toml", "--set", "ranks_per_shot='auto'",
        "--shots", "3", ranks=2, BACKSWEEP_NO_JIT="1",
    )  # fmt: skip
    assert done.code == 0, done.err
    found = rows(done.out)
    assert found[6]["ranks"] == "2 on a node, 2 for an item"
    assert found[64]["ranks"] == "2 on a node, 22 for an item"
    assert "objects through rank 0" in found[64]["an evaluation"]
    kept = Measured.read(folder / "here.toml").machine
    assert set(kept.assumed) - {"waiting_seconds"} == {
        "network_seconds", "network_bandwidth", "job_hours",
    }  # fmt: skip
    wrong = run_program(
        "-m", "backsweep", "plan", "run.toml", "--measure", "--ranks", "x", ranks=2
    )  # fmt: skip
    assert wrong.code == 2 and wrong.err.count("\n") == 1 and "--ranks x" in wrong.err
