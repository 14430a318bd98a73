"""Small problems for the tests of inversions."""

from __future__ import annotations

import numpy as np

import backsweep as bs
from backsweep.errors import ModelError


class Decay:
    """Rates of decay of 5 tracers, seen through 4 mixtures (the items) of their amounts."""

    dims = {"rates": ("tracer",)}
    units = {"rates": "1/s"}
    coords = {"tracer": (np.arange(5.0), "")}

    def __init__(self, n_steps=50, gain=1.0):
        self.n_steps, self.gain = n_steps, gain
        rng = np.random.default_rng(3)
        self.mixtures = rng.uniform(0.2, 1, (4, 3, 5))
        self.items = range(4)
        self.data = [self.simulate(self.true(), item) for item in self.items]

    def start(self):
        return {"rates": np.full(5, 0.5)}

    def true(self):
        return {"rates": np.array([0.2, 0.9, 0.4, 0.6, 0.3])}

    def simulate(self, parameters, item):
        mixture = self.mixtures[item]

        def step(amount, _):
            amount = amount - 0.05 * parameters["rates"] * amount
            return amount, mixture @ amount

        return self.gain * bs.scan(step, np.ones(5), length=self.n_steps)[1]

    def compare(self, data, item):
        return 0.5 * np.sum((data - self.data[item]) ** 2)

    def misfit(self, parameters, item):
        return self.compare(self.simulate(parameters, item), item)

    def illumination(self, parameters, item):
        return {"rates": np.sum(self.mixtures[item] ** 2, axis=0)}

    def check(self, parameters):
        if not np.all(np.abs(parameters["rates"]) < 40):
            raise ModelError("rates above 40 1/s are unstable")

    def at_stage(self, n_steps=50):
        return Decay(n_steps)

    def fields(self, parameters):
        amounts = np.exp(-parameters["rates"])
        return {"left": (amounts, ("tracer",), "mol")}


class Plain:
    """Three members and nothing else; a complex and a real parameter."""

    items = (1.0, 2.0)

    def start(self):
        return {"a": np.array([1 + 1j, 2.0]), "b": np.array(3.0)}

    def misfit(self, parameters, item):
        return item * np.sum(np.abs(parameters["a"] - 1j) ** 2) + (parameters["b"] - item) ** 2
