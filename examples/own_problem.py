"""A problem of your own for the command line: growth rates from counts of prey and predators.

backsweep invert examples/own_problem.toml
"""

import numpy as np

import backsweep as bs


class Rates:
    """The rates of three islands; each island is an item."""

    def __init__(self, months=600, dt=0.05):
        self.months, self.dt = months, dt
        self.items = [(10.0, 5.0), (4.0, 9.0), (15.0, 2.0)]  # prey and predators at the start
        self.counts = {item: self.simulate(self.true(), item) for item in self.items}

    def start(self):
        return {"rates": np.array([0.45, 0.045, 0.22])}

    def true(self):
        return {"rates": np.array([0.5, 0.05, 0.2])}

    def simulate(self, parameters, item):
        growth, hunting, death = (parameters["rates"][k] for k in range(3))

        def step(animals, _):
            prey, predators = animals
            eaten = hunting * prey * predators
            prey = prey + self.dt * (growth * prey - eaten)
            predators = predators + self.dt * (0.5 * eaten - death * predators)
            return (prey, predators), np.stack([prey, predators])

        return bs.scan(step, item, length=self.months)[1]

    def misfit(self, parameters, item):
        return np.mean((self.simulate(parameters, item) - self.counts[item]) ** 2)
