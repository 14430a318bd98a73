"""A gradient by a job array, and its dependent reduction, under a real SLURM (conftest.py)."""

from __future__ import annotations

import h5py
import numpy as np

MANY = """
from own_problem import Rates


class Many(Rates):
    def __init__(self, n, months, dt):
        super().__init__(months, dt)
        self.items = [(4.0 + k, 9.0 - k) for k in range(n)]
        self.counts = {item: self.simulate(self.true(), item) for item in self.items}
"""
RUN = """
model = "many:Many"
problem = { n = 7, months = 300000, dt = 1e-4 }
[optimiser]
evaluations = 1
[checkpointing]
snapshots = 20
"""
FOUND = ("rates", "misfit", "rates_gradient")
SMALL = ("--mem=1G", "--cpus-per-task=1")


def read(path):
    """The bytes of what was found, and the fingerprints."""
    with h5py.File(path) as file:
        marks = [str(file.attrs[f"{name}_fingerprint"]) for name in ("value", "gradient")]
        return [np.asarray(file[name]).tobytes() for name in FOUND], marks


def test_an_array_and_its_reduction_have_the_bits_of_one_job(jobs):
    (jobs.folder / "many.py").write_text(MANY)
    (jobs.folder / "many.toml").write_text(RUN)
    submit = [jobs.environment["SCRIPTS"] + "/submit-gradient.sh", *SMALL]
    array_of = {"RUN": "many.toml", "PARTS": "3"}
    reduction = jobs.run(*submit, **array_of)
    array = str(int(reduction) - 1)
    # Task 2 has two or three items; it is stopped in the middle, and goes on.
    jobs.wait_until(lambda: jobs.described(f"{array}_2", "JobState") == "RUNNING")
    jobs.wait_until(lambda: (jobs.folder / "parts" / "part-2.h5.resume").exists())
    jobs.signal(f"{array}_2")
    assert jobs.described(reduction, "JobState") == "PENDING"
    jobs.wait_for(reduction)
    assert jobs.described(f"{array}_2", "Restarts") == "1"
    assert {p.name for p in (jobs.folder / "parts").iterdir()} == {
        "part-1.h5",
        "part-2.h5",
        "part-3.h5",
    }
    assert "of 7 items" in jobs.log(reduction)

    jobs.backsweep("gradient", "many.toml", "--output", "alone.h5")
    jobs.backsweep("invert", "many.toml", "--set", "output.result=inversion.h5")
    found = read(jobs.folder / "gradient.h5")
    assert found == read(jobs.folder / "alone.h5")
    assert found[1] == read(jobs.folder / "inversion.h5")[1]


def test_a_failed_task_cancels_the_reduction(jobs):
    submit = [jobs.environment["SCRIPTS"] + "/submit-gradient.sh", *SMALL]
    reduction = jobs.run(*submit, RUN="own_problem.toml", PARTS="2", MODEL="missing.h5")
    jobs.wait_for(reduction, "CANCELLED")
    assert not (jobs.folder / "gradient.h5").exists()
    assert "--model missing.h5" in "".join(jobs.logs().values())
