"""The command line on a tiny acoustic inversion whose models come from files."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import h5py
import numpy as np
import pytest
import xarray
from acoustic_files import models

from backsweep.cli.runfile import load, make_problem
from backsweep.inverse.invert import invert

SOURCE = Path(__file__).parent.parent.parent / "src"


@pytest.fixture
def inverted(folder, compiled):
    """The misfits of an inversion with some changes of the run file."""

    def run(*changes):
        run, _, folders = load(Path("run.toml"), changes)
        history = invert(make_problem(run, folders), run.inversion())
        assert history.status == "finished"
        return history

    return run


def misfits(history):
    return [row.misfit for row in history.rows]


def test_a_run_on_files_of_all_kinds(folder, command, changes, inverted):
    done = command("invert", "run.toml")
    assert done.code == 0, done.err
    assert done.err == ""
    assert "evaluation   5/5: misfit 0.0" in done.out
    with h5py.File("result.h5") as file:
        first = file["misfit"][()]
        assert file.attrs["status"] == "finished"
        assert np.array_equal(file["velocity"][0], models()[1])
    assert first[-1] < 0.05 * first[0]
    for model in ("start.mat", "models.mat:velocity", "models.h5", "plain.h5:velocity", "new.mat"):
        again = inverted(f"problem.start={model}", "optimiser.evaluations=2")
        assert np.array_equal(misfits(again), first[:2]), model
    true = inverted("problem.true=plain.h5:group/truth", "optimiser.evaluations=2")
    assert np.array_equal(misfits(true), first[:2])

    # Data that `forward` wrote are as good as made ones.
    data = command("forward", "run.toml", "--model", "true")
    assert data.code == 0, data.err
    with h5py.File("data.h5") as file:
        assert file["data"].shape == (3, 140, 19)
        assert file["data"].dtype == np.float64
    assert np.array_equal(misfits(inverted("problem.observed=data.h5:data")), first)

    # Going on from the best model.
    more = inverted("problem.start=result.h5:velocity_best", "optimiser.evaluations=3")
    assert misfits(more)[0] == first.min()
    assert misfits(more)[-1] < first.min()
    best = command("forward", "run.toml", "--model", "result.h5", "--output", "best.h5")
    assert best.code == 0, best.err
    with h5py.File("best.h5") as file, h5py.File("data.h5") as other:
        residual = file["data"][()] - other["data"][()]
    assert 0.5 * np.sum(residual**2) == pytest.approx(first.min())


def test_models_with_depth_first(folder, inverted):
    np.save("turned.npy", models()[1].T)
    np.save("true.npy", models()[0].T)
    turned = inverted("problem.start=turned.npy", "problem.axes=zx", "optimiser.evaluations=2")
    assert turned.best["velocity"].shape == (40, 30)
    assert misfits(turned)[1] < 0.5 * misfits(turned)[0]


LOGISTIC = 'parameters.velocity={transform = "logistic", bounds = [1900, 2400]}'


@pytest.mark.parametrize(
    "settings",
    [
        ["problem.misfit={kind = 'huber', threshold = 0.5}"],
        ["problem.misfit={kind = 'normalized_correlation'}"],
        ["parameters.velocity.bounds=[1900, 2300]"],
        ["parameters.velocity.transform=log"],
        ["parameters.velocity.transform=slowness"],
        [LOGISTIC],
        ["parameters.velocity.smoothing=[1.5, 1.0]"],
        ["parameters.velocity.total_variation=1e-3", "parameters.velocity.tikhonov=1e-3"],
        ["problem.mute_offset=40", "problem.depth_power=1", "problem.fixed_depth=35"],
        ["problem.noise=0.01"],
    ],
    ids=lambda settings: settings[0],
)
def test_every_setting_lets_the_misfit_fall(inverted, settings):
    history = inverted(*settings, "optimiser.evaluations=4")
    assert len(history.rows) == 4
    assert misfits(history)[-1] < 0.3 * misfits(history)[0]
    before, after = (history.model_error(p) for p in (history.described.start, history.best))
    assert after["velocity"] < before["velocity"]


def test_stages_from_low_to_high_frequencies(inverted):
    history = inverted("stages=[{evaluations = 3, lowpass = 12}, {evaluations = 3}]")
    assert [row.stage for row in history.rows] == [0, 0, 0, 1, 1, 1]
    low, full = np.split(np.array(misfits(history)), 2)
    assert low[-1] < 0.2 * low[0]
    assert full[-1] < 0.5 * full[0]


@pytest.mark.parametrize(
    "settings",
    [
        ["optimiser.preconditioner=illumination", "optimiser.evaluations=3"],
        ["optimiser.method=Gauss-Newton-CG", "optimiser.evaluations=4"],
        ["optimiser.method=Gauss-Newton-CG", "optimiser.evaluations=4", LOGISTIC],
    ],
    ids=lambda settings: settings[0],
)
def test_methods_that_need_other_sweeps(interpreted, inverted, settings):
    history = inverted(*settings, "problem.sources.x=200")
    assert misfits(history)[-1] < 0.5 * misfits(history)[0]


def test_any_number_of_ranks_gives_the_same_bits(folder, compiled, run_program):
    found = []
    for ranks in (2, 3):
        name = f"result{ranks}.h5"
        args = ("problem.sources.x.number=4", "optimiser.evaluations=3", f"output.result={name}")
        sets = [text for arg in args for text in ("--set", arg)]
        done = run_program("-m", "backsweep", "invert", "run.toml", *sets, ranks=ranks)
        assert done.code == 0, done.err
        assert done.err == ""
        with h5py.File(name) as file:
            assert file.attrs["ranks"] == ranks
            names = ("velocity", "velocity_best", "velocity_gradient", "misfit", "gradient_norm")
            prints = [file.attrs[f"{kind}_fingerprint"] for kind in ("value", "gradient")]
            found.append(([file[name][()] for name in names], prints))
    for values, prints in found[1:]:
        assert prints == found[0][1]
        assert all(map(np.array_equal, values, found[0][0]))
    with xarray.open_dataset("result2.h5", engine="h5netcdf") as result:
        assert result["velocity"].dims == ("iteration", "x", "z")
        assert result["velocity"].shape[1:] == (40, 30)
        assert result["velocity"].attrs["units"] == "m/s"
        assert result["velocity_gradient"].dims == ("x", "z")
        np.testing.assert_array_equal(result["x"], 10.0 * np.arange(40))
        assert result["x"].attrs["units"] == "m"
        np.testing.assert_array_equal(result["velocity_true"], models()[0])
        assert result["misfit"].dims == ("evaluation",)


def test_the_other_commands(interpreted, folder, command):
    for name in ("plan", "check"):
        done = command(name, "run.toml", "--set", "problem.n_steps=100")
        assert done.code == 0, (done.out, done.err)
    assert done.out.count("right") == 3
    assert not list(folder.glob("result*"))


def test_a_disk_that_becomes_full_loses_no_good_result(folder, compiled, command):
    """Saving fails in the middle and at the end; what was saved last stays readable."""

    def limit():
        # Python ignores SIGXFSZ, so that a write beyond the limit is an error.
        resource.setrlimit(resource.RLIMIT_FSIZE, (60_000, 60_000))

    args = ["-m", "backsweep", "invert", "run.toml", "--set", "optimiser.evaluations=12"]
    done = subprocess.run(
        [sys.executable, *args],
        env=os.environ | {"PYTHONPATH": str(SOURCE)},
        preexec_fn=limit,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 2, (done.stdout, done.stderr)
    assert done.stderr == (
        "backsweep: the result result.h5 could not be written: File too large; the last good one "
        "stays\n"
    )
    assert "File too large; the last good one stays; the run goes on" in done.stdout
    assert "evaluation  12/12" in done.stdout
    with h5py.File("result.h5") as file:
        assert 1 <= file["misfit"].size < 12
        assert np.all(np.isfinite(file["velocity_best"][()]))
    assert [p.name for p in folder.iterdir() if p.name.startswith(".")] == []
    assert command("show", "result.h5").code == 0


def start_long_run(*changes):
    command = [sys.executable, "-m", "backsweep", "invert", "run.toml"]
    for change in ("optimiser.evaluations=100000", "optimiser.tolerance=0", *changes):
        command += ["--set", change]
    return subprocess.Popen(
        command,
        env=os.environ | {"PYTHONPATH": str(SOURCE)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_an_interruption_of_the_first_evaluation_leaves_nothing(folder, compiled):
    process = start_long_run("problem.n_steps=3000000", 'checkpointing.memory="50 MB"')
    try:
        time.sleep(5)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=60)
    finally:
        process.kill()
    assert (process.returncode, err) == (130, "")
    assert all(line.startswith("memory ") for line in out.splitlines())
    assert not list(folder.glob("result*"))
