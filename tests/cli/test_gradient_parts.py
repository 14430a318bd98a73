"""`backsweep gradient` and `reduce`: parts of a gradient, whole in any division."""

from __future__ import annotations

import os
import signal
import sys
from itertools import pairwise
from pathlib import Path

import h5py
import numpy as np
import pytest

MODULE = """
import numpy as np

import backsweep as bs


class Decay:
    dims = {"rates": ("tracer",)}
    units = {"rates": "1/s"}
    coords = {"tracer": (np.arange(3.0), "")}

    def __init__(self, n=7, gain=1.0):
        self.items, self.gain = range(n), gain

    def start(self):
        return {"rates": np.array([0.1, 0.7, 0.3], np.float32)}

    def true(self):
        return {"rates": np.array([0.2, 0.6, 0.3], np.float32)}

    def misfit(self, parameters, item):
        def step(amounts, _):
            return amounts * (1 - 0.03 * parameters["rates"]), None

        amounts, _ = bs.scan(step, np.full(3, 0.3 + 0.1 * item, np.float32), length=15)
        return self.gain * np.sum((amounts - 0.2) ** 2)

    def at_stage(self, gain):
        return Decay(len(self.items), gain)
"""
RUN = (
    'model = "{name}:Decay"\n[[stages]]\nevaluations = 1\n[[stages]]\nevaluations = 1\ngain = 2.0\n'
)
DIVISIONS = [(0, 7), (0, 1, 7), (0, 3, 5, 7), (0, 1, 2, 3, 4, 5, 6, 7), (0, 6, 7), (0, 2, 4, 7)]


@pytest.fixture
def folder(tmp_path, monkeypatch, interpreted):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    name = f"decay_{abs(hash(str(tmp_path)))}"  # What is imported once stays.
    (tmp_path / f"{name}.py").write_text(MODULE)
    (tmp_path / "run.toml").write_text(RUN.format(name=name))
    return tmp_path


@pytest.fixture
def gradient(command):
    """Run `backsweep gradient run.toml ARGS`, which must succeed."""

    def run(*args):
        ended = command("gradient", "run.toml", *args)
        assert ended.code == 0, ended.err
        return ended.out

    return run


def content(path):
    with h5py.File(path) as file:
        names = ("value_fingerprint", "gradient_fingerprint", "model", "of_model", "status")
        values = {n: file[n][()].tobytes() for n in ("rates", "misfit", "rates_gradient", "stage")}
        return values, [file.attrs[name] for name in names]


@pytest.mark.parametrize("ends", DIVISIONS)
def test_any_division_gives_the_bits_of_one_job(folder, command, gradient, ends):
    assert "of 7 items" in gradient()
    names = [f"part-{a}-{b}.h5" for a, b in pairwise(ends)]
    for a, b in pairwise(ends):
        gradient("--items", f"{a}:{b}")
    for given in (names, names[::-1]):
        ended = command("reduce", *given, "--output", "sum.h5", "--overwrite")
        assert ended.code == 0, ended.err
        assert content("sum.h5") == content("gradient.h5")
    with h5py.File("sum.h5") as file:
        assert file.attrs["parts"] == len(names)
        assert file["rates_gradient"].attrs["units"] == "1/s"
        assert file["rates_gradient"].dims[0][0].name == "/tracer"
    assert command("show", "sum.h5", "--output", "sum.png").code == 0


def test_shares_are_those_of_ranks_and_cover_all_items(folder, command, gradient):
    for k in (1, 2, 3):
        gradient("--items", f"{k}/3", "--output", f"share-{k}.h5")
    assert command("reduce", *(f"share-{k}.h5" for k in (2, 3, 1))).code == 0
    found = content("gradient.h5")
    gradient("--overwrite")
    assert content("gradient.h5") == found


def test_it_is_the_gradient_of_the_first_evaluation_of_a_stage(folder, command, gradient):
    gradient("--items", "4", "--stage", "2", "--output", "4.h5")
    gradient("--items", "0:4", "--stage", "2", "--output", "0.h5")
    gradient("--items", "5:7", "--stage", "2", "--output", "5.h5")
    assert command("reduce", "0.h5", "4.h5", "5.h5").code == 0
    assert command("invert", "run.toml", "--set", "output.result=found.h5").code == 0
    gradient("--model", "found.h5", "--output", "best.h5")
    with h5py.File("found.h5") as inversion, h5py.File("gradient.h5") as file:
        # Stage 2 begins where its single predecessor has: at the start, with twice the gain.
        assert inversion["misfit"][1] == file["misfit"][0]
        assert np.array_equal(inversion["rates_gradient"], file["rates_gradient"])
    assert content("best.h5")[0]["misfit"] != content("gradient.h5")[0]["misfit"]


def test_wrong_requests_write_nothing(folder, refuse):
    run = ("gradient", "run.toml")
    assert "numbered 0 to 6" in refuse(*run, "--items", "5:9")
    assert "numbered 0 to 6" in refuse(*run, "--items", "7")
    assert "write FIRST:END" in refuse(*run, "--items", "one")
    assert "N at most 7" in refuse(*run, "--items", "0/3")
    assert "N at most 7" in refuse(*run, "--items", "8/8")
    assert "stages 1 to 2" in refuse(*run, "--stage", "3")
    assert "--model nothing.h5" in refuse(*run, "--model", "nothing.h5")


def test_parts_that_are_no_whole_are_refused(folder, gradient, refuse):
    gradient("--items", "0:3")
    gradient("--items", "3:5")
    gradient("--items", "4:7")
    assert "2 of 7 items are in none of the 2 part(s): 5:7" in refuse(
        "reduce", "part-0-3.h5", "part-3-5.h5"
    )
    assert "item 4 is in part-3-5.h5 and in part-4-7.h5" in refuse(
        "reduce", "part-0-3.h5", "part-3-5.h5", "part-4-7.h5"
    )
    assert "missing.h5 cannot be opened" in refuse("reduce", "part-0-3.h5", "missing.h5")
    gradient("--output", "whole.h5")
    assert "whole.h5" in refuse("reduce", "whole.h5")
    (folder / "gradient.h5").touch()
    assert "in the way" in refuse("reduce", "part-0-3.h5", "part-4-7.h5")


@pytest.mark.parametrize(
    ("other", "label"),
    [
        (("--model", "true"), "'model of rates'"),
        (("--set", "problem.gain=3.0"), "'problem.gain' is '3.0', there absent"),
        (("--stage", "2"), "'stages.1.gain'"),
        (("--set", "problem.n=8"), "'number of items' is '8', there '7'"),
    ],
)
def test_parts_of_another_gradient_are_refused(folder, gradient, refuse, other, label):
    gradient("--items", "0:3")
    gradient("--items", "3:7", *other)
    said = refuse("reduce", "part-0-3.h5", "part-3-7.h5")
    assert "part-3-7.h5 is a part of another gradient than part-0-3.h5" in said
    assert label in said


def test_parts_of_another_version_are_refused(folder, gradient, refuse, monkeypatch):
    gradient("--items", "0:3")
    monkeypatch.setattr("backsweep.inverse.identity.__version__", "0.0.0")
    gradient("--items", "3:7")
    assert "'backsweep' is" in refuse("reduce", "part-0-3.h5", "part-3-7.h5")


@pytest.mark.parametrize("where", [0.1, 0.5, 0.9, "cut"])
def test_a_damaged_part_is_refused(folder, gradient, refuse, where):
    gradient("--items", "0:3")
    gradient("--items", "3:7")
    path = Path("part-3-7.h5")
    data = bytearray(path.read_bytes())
    if where == "cut":
        del data[-100:]
    else:
        data[int(where * len(data))] ^= 0x10
    path.write_bytes(data)
    assert "part-3-7.h5" in refuse("reduce", "part-0-3.h5", "part-3-7.h5")


@pytest.mark.parametrize("fault", ["during-write", "before-rename"])
def test_killed_while_a_part_is_written(folder, run_program, gradient, fault):
    run = ("-m", "backsweep", "gradient", "run.toml", "--items", "2:5")
    killed = run_program(*run, BACKSWEEP_FAULT=f"result.{fault}:1:kill")
    assert killed.code == -signal.SIGKILL, killed.err
    assert not Path("part-2-5.h5").exists()
    assert run_program(*run).code == 0
    assert sorted(p for p in os.listdir() if p.startswith((".part", "part"))) == ["part-2-5.h5"]


def test_ranks_share_out_the_items_of_a_part(folder, run_program, gradient):
    gradient("--items", "1:6", "--output", "one.h5")
    run = ("-m", "backsweep", "gradient", "run.toml", "--items", "1:6")
    assert run_program(*run, ranks=2).code == 0
    with h5py.File("one.h5") as one, h5py.File("part-1-6.h5") as two:
        sums = [name for name in one if name[0].isdigit()]
        assert len(sums) > 3
        assert all(np.array_equal(one[name], two[name]) for name in sums)
    many = run_program("-m", "backsweep", "gradient", "run.toml", "--items", "1:2", ranks=2)
    assert many.code == 2
    assert many.err.count("2 ranks for 1 item(s)") == 1


def test_a_stopped_part_goes_on(folder, run_program, gradient):
    """SIGUSR1 after the first items; another share than that of the folder is refused."""
    source = next(folder.glob("decay_*.py"))
    raising = "import os, signal\n" + source.read_text().replace(
        "        def step",
        "        if item == 3 and os.path.exists('stop'):\n"
        "            os.kill(os.getpid(), signal.SIGUSR1)\n\n        def step",
    )
    source.write_text(raising)
    run = ("-m", "backsweep", "gradient", "run.toml", "--output", "part.h5", "--items")
    Path("stop").touch()
    stopped = run_program(*run, "1:6")
    assert stopped.code == 85, (stopped.out, stopped.err)
    assert "the same command goes on from part.h5.resume" in stopped.out
    assert not Path("part.h5").exists()
    Path("stop").unlink()
    other = run_program(*run, "1:5")
    assert other.code == 2
    assert "'items' was '1:6', is '1:5'" in other.err
    done = run_program(*run, "1:6")
    assert done.code == 0, done.err
    assert "items done" in done.out
    assert not list(folder.glob("*.resume"))
    gradient("--items", "1:6", "--output", "alone.h5")
    with h5py.File("part.h5") as part, h5py.File("alone.h5") as alone:
        sums = [name for name in part if name.endswith((".0", ".1"))]  # .2 counts the steps
        assert len(sums) > 3
        for name in sums:
            assert np.array_equal(part[name], alone[name]), name
