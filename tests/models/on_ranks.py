"""Run under mpiexec by test_on_ranks.py: models in blocks against the same models in one."""

import sys

import numpy as np

import backsweep as bs
from backsweep.comm import Decomposition, connect
from backsweep.models import Burgers, Heat, ShallowWater

SHAPE = (13, 17)


def numbers(n, seed):
    return np.random.default_rng(seed).standard_normal((n, *SHAPE))


def shallow_water():
    model = ShallowWater(SHAPE, 5e3, 15.0, 12, coriolis=2e-4, beta=2e-11, viscosity=500.0)
    h, u, v, bottom = numbers(4, 0)
    return model, (100 + h, 0.2 * u, 0.2 * v, 5 * bottom)


def heat(held=False):
    kappa, initial, source = numbers(3, 1)
    return Heat(SHAPE, 0.1, 1e-3, 12, held), (np.exp(0.3 * kappa), initial, source)


def heat_held():
    return heat(held=True)


def burgers():
    (initial,) = numbers(1, 2)
    model = Burgers(SHAPE, 0.1, 4e-3, 12)
    return model, (initial, np.array(0.05))


MODELS = (shallow_water, heat, heat_held, burgers)


def loss_of(model):
    """A value at two places; the fields are handed on beside it."""

    def loss(*fields):
        last = model.simulate(*fields)
        last = last if isinstance(last, tuple) else (last,)
        value = sum((x[3, 5] - 0.1 * x[-2, -1]) ** 2 for x in last)
        return value, last

    return loss


def gathered(tree):
    """Results in parts as whole arrays, on the root."""
    return [x if isinstance(x, np.ndarray) or np.isscalar(x) else x.gather() for x in tree]


def same_bits(comm, make, axes):
    """Value, last fields and gradient with respect to every argument.

    Only a single number (Burgers' viscosity) has a gradient that is a sum over the grid: ranks add
    it up in another order.
    """
    model, fields = make()
    function, numbers_of = loss_of(model), tuple(range(len(fields)))
    cut = Decomposition(SHAPE, axes, comm)
    found = bs.value_and_grad(function, numbers_of, has_aux=True, decomposition=cut)(*fields)
    (value, last), gradient = found
    results = [value, *gathered(last), *gathered(gradient)]
    if not comm.is_root:
        return
    (value, last), gradient = bs.value_and_grad(function, numbers_of, has_aux=True)(*fields)
    for k, (a, b) in enumerate(zip(results, [value, *last, *gradient], strict=True)):
        is_sum = k > len(last) and np.ndim(b) == 0
        is_same = np.isclose(a, b, rtol=1e-12, atol=0) if is_sum else np.array_equal(a, b)
        assert is_same, (make.__name__, axes, k, np.abs(a - b).max())
        assert np.any(np.asarray(b) != 0)


def all_models(comm):
    for axes in (0, 1, (0, 1)):
        for make in MODELS:
            same_bits(comm, make, axes)


def shallow_water_alone(comm):
    same_bits(comm, shallow_water, (0, 1))


if __name__ == "__main__":
    comm = connect()
    for name in sys.argv[1:]:
        globals()[name](comm)
    if comm.is_root:
        print("right", comm.size)
