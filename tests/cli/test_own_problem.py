"""The command line on a user's own module of 20 lines: examples/own_problem.py."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import h5py
import numpy as np
import pytest
from marks import more

from backsweep.schedule import Binomial

EXAMPLES = Path(__file__).parent.parent.parent / "examples"
RUN = EXAMPLES / "own_problem.toml"


@pytest.fixture
def backsweep(run_program):
    """Run `backsweep ARGS` in an empty folder."""
    return lambda *args, **options: run_program("-m", "backsweep", *args, **options)


def content(path):
    """What must not depend on the number of ranks."""
    with h5py.File(path) as file:
        names = ("rates", "rates_best", "rates_gradient", "misfit", "gradient_norm", "objective")
        values = {name: file[name][()] for name in names}
        return values, file.attrs["value_fingerprint"], file.attrs["gradient_fingerprint"]


def test_an_inversion_from_start_to_picture(backsweep, tmp_path):
    done = backsweep("invert", RUN)
    assert done.code == 0, done.err
    assert "evaluation   1/40: misfit 1 of the start" in done.out
    for line in ("misfit", "memory", "checkpoints", "fingerprints", "result", "picture"):
        assert f"\n{line}" in done.out
    assert (tmp_path / "own_problem.png").stat().st_size > 10_000
    values, *_ = content(tmp_path / "own_problem.h5")
    np.testing.assert_allclose(values["rates_best"], [0.5, 0.05, 0.2], rtol=1e-6)
    assert values["rates"].shape[1:] == (3,)

    again = backsweep("invert", RUN)
    assert again.code == 2
    assert "own_problem.h5 is in the way; add --overwrite" in again.err

    shown = backsweep("show", "own_problem.h5", "--output", "other.png")
    assert shown.code == 0, shown.err
    assert "rates_best" in shown.out
    assert (tmp_path / "other.png").exists()


def test_any_number_of_ranks_gives_the_same_bits(backsweep, tmp_path):
    found = []
    for ranks in (0, 2, 3):
        result = f"result{ranks}.h5"
        changes = ("--set", f"output.result={result}", "--set", "optimiser.evaluations=8")
        done = backsweep("invert", RUN, *changes, ranks=ranks)
        assert done.code == 0, done.err
        assert done.out.count("fingerprints") == 1, "only the root speaks"
        found.append(content(tmp_path / result))
    for values, *fingerprints in found[1:]:
        assert fingerprints == list(found[0][1:])
        for name, value in values.items():
            assert np.array_equal(value, found[0][0][name]), name


def test_more_ranks_than_items(backsweep):
    done = backsweep("invert", RUN, ranks=4)
    assert done.code == 2
    assert done.err.count("4 ranks for 3 item(s)") == 1
    assert "Traceback" not in done.err


def test_plan_runs_nothing(backsweep):
    done = backsweep("plan", RUN, "--set", "checkpointing.snapshots=20")
    assert done.code == 0, done.err
    assert "Binomial: 20 snapshots were asked for" in done.out
    assert "600 reverse steps" in done.out
    binomial = Binomial(600, 20)
    assert f"advances     {binomial.n_advances} (" in done.out
    assert binomial.n_advances > 1200


PREPARED = """
import numpy as np
import backsweep as bs

class Decay:
    items = [1.0, 2.0]
    data = None

    def start(self):
        return {"rate": np.array(0.5)}

    def prepare(self, items):
        self.data = {item: item * 0.9**20 for item in items}

    def misfit(self, parameters, item):
        rate = parameters["rate"]
        u, _ = bs.scan(lambda u, _: (rate * u, None), item, length=20)
        return (u - self.data[item]) ** 2
"""


def test_data_that_are_prepared_later(backsweep, tmp_path):
    """What is said before the first step does not need them."""
    (tmp_path / "decay.py").write_text(PREPARED)
    (tmp_path / "run.toml").write_text('model = "decay:Decay"\noptimiser.evaluations = 3\n')
    done = backsweep("invert", "run.toml")
    assert done.code == 0, done.err
    done = backsweep("plan", "run.toml")
    assert done.code == 0 and "20 reverse steps" in done.out, done.err


def test_check_finds_a_right_gradient_right(backsweep):
    done = backsweep("check", RUN)
    assert done.code == 0, done.err
    assert done.out.count("right") == 3


def test_check_finds_a_wrong_gradient_wrong(backsweep, tmp_path):
    source = (EXAMPLES / "own_problem.py").read_text()
    wrong = source.replace(
        'growth, hunting, death = (parameters["rates"]',
        "growth, hunting, death = (bs.stop_gradient(parameters['rates'])",
    )
    assert wrong != source
    # Half of the gradient is missing: only one of two uses is blocked.
    wrong = wrong.replace("eaten = hunting *", "eaten = parameters['rates'][1] *")
    (tmp_path / "own_problem.py").write_text(wrong)
    (tmp_path / "run.toml").write_text(RUN.read_text())
    done = backsweep("check", "run.toml")
    assert done.code == 2
    assert "finite difference  WRONG" in done.out
    assert "do not trust this gradient" in done.err


def test_forward_writes_data_that_can_be_read(backsweep, tmp_path):
    done = backsweep("forward", RUN, "--model", "true", ranks=2)
    assert done.code == 0, done.err
    with h5py.File(tmp_path / "data.h5") as file:
        assert file["data"].shape == (3, 600, 2)
    assert backsweep("forward", RUN).code == 2  # the file is in the way


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("optimiser.evalutions=3", "optimiser.evalutions is not known; did you mean 'evaluations'"),
        ("optimiser.method=BFGS", "did you mean 'L-BFGS-B'"),
        ("optimiser.evaluations=0", "optimiser.evaluations = 0"),
        ("problem.month=3", "problem.month is not known to Rates; did you mean 'months'"),
        ("model=own_problem:Rate", "did you mean 'Rates'"),
        ("model=acustic", "did you mean 'acoustic'"),
        ("model=no_such_module:x", "no module 'no_such_module'"),
        ("parameters.rate.scale=2", "'rate'"),
        ("parameters.rates.bounds=[0.46, 0.5]", "bounds"),
        ("checkpointing.memory=3QB", "'3QB' is no amount of memory"),
        ("checkpointing.scratch=/tmp", "scratch= is a folder for snapshots: give a budget disk="),
        ("checkpointing.interval=0.0", "checkpointing.interval = 0.0"),
        ("checkpointing={resume = false, directory = 'x'}", "directory= alone does nothing"),
        ("checkpointing.schedule=multistag", "did you mean 'multistage'"),
        ("output.result=nowhere/x.h5", "folder nowhere"),
        ("stages=[{evaluations = 3, lowpass = 2}]", "no at_stage"),
        ("stages=[{lowpass = 2}]", "stages.0.evaluations"),
        ("noequals", "write key=value"),
    ],
)
def test_wrong_use_is_one_sentence(folder, refuse, change, message):
    assert message in refuse("invert", RUN, "--set", change)


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (("invert", "missing.toml"), "missing.toml cannot be read: No such file"),
        (("show", "missing.h5"), "missing.h5"),
        (("invrt", "x"), "invert"),
        (("check", RUN, "--item", "3"), "numbered 0 to 2"),
        (("forward", RUN, "--model", "ture"), "write start, true"),
    ],
)
def test_wrong_arguments(folder, command, args, message):
    done = command(*args)
    assert done.code == 2
    assert message in done.err
    assert "Traceback" not in done.err


def test_an_error_in_the_users_module_names_its_line(backsweep, tmp_path):
    (tmp_path / "mine.py").write_text("class P:\n    def __init__(self):\n        1 / 0\n")
    (tmp_path / "run.toml").write_text('model = "mine:P"\n')
    done = backsweep("invert", "run.toml")
    assert done.code == 1
    assert "unexpected ZeroDivisionError at " in done.err
    assert "mine.py, line 3" in done.err
    assert "Traceback" not in done.err
    assert "Traceback" in backsweep("--debug", "invert", "run.toml").err


def test_an_error_on_one_rank_ends_the_job(backsweep, tmp_path):
    """In the middle of an evaluation, where the others wait for its part of the sum."""
    source = (EXAMPLES / "own_problem.py").read_text()
    broken = source.replace(
        "def misfit(self, parameters, item):",
        "def misfit(self, parameters, item):\n"
        "        if item == self.items[-1]:\n            raise OSError('disk on fire')",
    )
    (tmp_path / "own_problem.py").write_text(broken)
    (tmp_path / "run.toml").write_text(RUN.read_text())
    begin = time.monotonic()
    done = backsweep("invert", "run.toml", ranks=3)
    assert time.monotonic() - begin < 60
    assert done.code == 1
    assert "rank 2: unexpected OSError" in done.err
    assert "disk on fire" in done.err


@pytest.mark.parametrize(
    ("number", "ranks"), [more(signal.SIGINT, 0), (signal.SIGINT, 2), (signal.SIGTERM, 0)]
)
def test_an_interruption_leaves_a_readable_partial_result(tmp_path, number, ranks):
    command = [sys.executable, "-m", "backsweep", "invert", str(RUN)]
    changes = ("problem.months=60000", "problem.dt=5e-4", "optimiser.tolerance=0")
    changes += ("checkpointing.resume=false",)  # test_resume_run.py: with it
    for change in (*changes, "optimiser.evaluations=100000"):
        command += ["--set", change]
    if ranks:
        command = [str(Path(sys.executable).with_name("mpiexec")), "-n", str(ranks), *command]
    source = str(EXAMPLES.parent / "src")
    process = subprocess.Popen(
        command,
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": source},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        for line in process.stdout:
            if "evaluation   3/" in line:
                break
        process.send_signal(number)
        out, err = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == 128 + number, (out, err)
    assert "Traceback" not in err
    status = "interrupted" if number == signal.SIGINT else "stopped"
    assert f"{status} after" in out
    assert not list(tmp_path.glob("*.resume"))
    with h5py.File(tmp_path / "own_problem.h5") as file:
        assert file.attrs["status"] == status
        assert file["misfit"].size >= 3
        assert np.all(np.isfinite(file["rates_best"][()]))
