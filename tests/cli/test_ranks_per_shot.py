"""Several ranks on one item: the grid is cut, and the inversion finds the same bits."""

import os
import signal
import time

import h5py
import pytest
from marks import more
from test_resume_run import Job, wait_until_gone

PROBLEM = '''
"""Conductivity of a plate from what sensors see of heat pulses."""
import numpy as np
import backsweep as bs

class Plate:
    items = [(5, 6), (20, 9), (11, 17)]
    def start(self):
        return {"conductivity": np.full((26, 24), 0.1)}
    def misfit(self, parameters, item):
        k = parameters["conductivity"]
        rows, columns = np.arange(2, 24, 3), np.arange(1, 22, 3)[:8].repeat(2)[:8]
        def step(t, _):
            inner = t[1:-1, 1:-1]
            around = t[2:, 1:-1] + t[:-2, 1:-1] + t[1:-1, 2:] + t[1:-1, :-2]
            t = t.copy()
            t[1:-1, 1:-1] += k[1:-1, 1:-1] * (around - 4 * inner)
            t[item] += 1.0
            return t, t[rows, columns]
        seen = bs.scan(step, np.zeros((26, 24)), length=N_STEPS)[1]
        return np.sum((seen - 0.05 * np.arange(8)) ** 2)
'''
RUN = """
model = "plate:Plate"
ranks_per_shot = {ranks_per_shot}
[parameters.conductivity]
bounds = [0.01, 0.2]
[optimiser]
evaluations = {evaluations}
tolerance = 0.0
[checkpointing]
memory = "100 kB"
interval = 0.1
[output]
result = "found.h5"
"""


def prepare(folder, ranks_per_shot=1, n_steps=80, evaluations=6):
    (folder / "plate.py").write_text(PROBLEM.replace("N_STEPS", str(n_steps)))
    text = RUN.format(ranks_per_shot=ranks_per_shot, evaluations=evaluations)
    (folder / "run.toml").write_text(text)


def found(folder):
    """Models and misfits of all evaluations, and the fingerprint of the last gradient."""
    with h5py.File(folder / "found.h5") as file:
        kept = {name: file[name][()].tobytes() for name in ("misfit", "conductivity_best")}
        return kept, {n: file.attrs[n] for n in ("value_fingerprint", "gradient_fingerprint")}


@pytest.fixture(scope="module")
def serial(tmp_path_factory):
    folder = tmp_path_factory.mktemp("serial")
    prepare(folder)
    code, out, err = Job(folder).end()
    assert code == 0, (out, err)
    return found(folder)


@pytest.mark.parametrize(
    ("ranks", "per_shot"),
    [
        more(2, 2),
        (4, '"auto"'),
        more(5, 2),
    ],
)
def test_the_same_bits(tmp_path, serial, ranks, per_shot):
    prepare(tmp_path, per_shot)
    code, out, err = Job(tmp_path, ranks=ranks).end()
    assert code == 0, (out, err)
    assert found(tmp_path) == serial


def test_a_restart_with_other_groups_repeats_no_finished_item(tmp_path, serial):
    prepare(tmp_path, 2)
    job = Job(tmp_path, ranks=4)
    job.wait_for("evaluation   3/")
    ranks = job.rank_processes()
    os.kill(ranks[3], signal.SIGKILL)
    assert job.end()[0] != 0
    wait_until_gone(ranks.values())
    prepare(tmp_path, 3)
    code, out, err = Job(tmp_path, ranks=3).end()
    assert code == 0, (out, err)
    assert "resuming: " in out
    assert found(tmp_path) == serial


@pytest.mark.parametrize("number", [more(signal.SIGUSR1), signal.SIGTERM])
def test_a_signal_to_one_rank_of_a_group(tmp_path, serial, number):
    prepare(tmp_path, 2)
    job = Job(tmp_path, ranks=4)
    job.wait_for("evaluation   2/")
    os.kill(job.rank_processes()[1], number)
    code, out, err = job.end()
    assert code == 85, (out, err)
    code, out, err = Job(tmp_path).end()
    assert code == 0, (out, err)
    assert found(tmp_path) == serial


@pytest.mark.slow_all
@pytest.mark.parametrize("then", [2, 3])
def test_stopped_in_the_middle_of_an_item(tmp_path, then):
    """The same groups go on inside the item, others begin it again."""
    whole, stopped = tmp_path / "whole", tmp_path / "stopped"
    for folder in (whole, stopped):
        folder.mkdir()
        prepare(folder, 2, n_steps=20_000, evaluations=2)
    code, out, err = Job(whole).end()
    assert code == 0, (out, err)
    job = Job(stopped, ranks=2)
    job.wait_for("evaluation   1/")
    deadline = time.monotonic() + 120
    while not list(stopped.glob("*.resume/call-*/item-*-on-2/manifest.json")):
        assert time.monotonic() < deadline and job.process.poll() is None
        time.sleep(0.01)
    os.kill(job.rank_processes()[1], signal.SIGUSR1)
    code, out, err = job.end()
    assert code == 85, (out, err)
    assert list(stopped.glob("*.resume/call-*/item-*-on-2/manifest.json"))
    prepare(stopped, then, n_steps=20_000, evaluations=2)
    code, out, err = Job(stopped, ranks=then).end()
    assert code == 0, (out, err)
    assert found(stopped) == found(whole)


def test_more_ranks_than_items_names_the_key(tmp_path):
    prepare(tmp_path)
    code, out, err = Job(tmp_path, ranks=4).end()
    assert code == 2
    assert "ranks_per_shot" in out + err


def test_a_problem_without_a_grid_is_refused(tmp_path):
    (tmp_path / "plate.py").write_text(
        "import numpy as np\n"
        "class Line:\n"
        "    items = [1.0]\n"
        "    def start(self):\n"
        "        return {'slope': np.array(0.1)}\n"
        "    def misfit(self, parameters, item):\n"
        "        return (parameters['slope'] - item) ** 2\n"
    )
    text = (
        RUN.format(ranks_per_shot=2, evaluations=3)
        .replace("Plate", "Line")
        .replace("conductivity", "slope")
    )
    (tmp_path / "run.toml").write_text(text)
    code, out, err = Job(tmp_path, ranks=2).end()
    assert code == 2
    assert "no fields on a grid" in out + err
