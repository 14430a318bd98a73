"""Minimisers of an objective with a budget of evaluations: SciPy's L-BFGS-B, Gauss-Newton-CG.

References
----------
Byrd, Lu, Nocedal & Zhu 1995, doi:10.1137/0916069 (L-BFGS-B); Nocedal & Wright 2006, Numerical
Optimization, algorithm 7.1, doi:10.1007/978-0-387-40065-5 (line search Newton-CG).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import scipy.optimize
from scipy.sparse.linalg import LinearOperator, cg
from threadpoolctl import threadpool_limits

Vector = np.ndarray
Objective = Callable[[Vector], tuple[float, Vector]]
Product = Callable[[Vector, Vector], Vector]


class BudgetSpent(Exception):
    """Raised by an objective that may not be evaluated again."""


def lbfgsb(
    objective: Objective,
    x0: Vector,
    bounds: Any,
    on_iterate: Callable[[Vector], None],
    *,
    first_step: float,
    history: int,
    tolerance: float,
) -> str:
    """Minimise by L-BFGS-B; why it stopped.

    SciPy's linear algebra runs with one thread: its bits depend on their number.

    Notes
    -----
    The algorithm's first step is the negative gradient, of norm 1 where nothing is bounded and as
    it is elsewhere. So that both move no unknown by more than `first_step`, it is given y = x / c
    and a multiple of the objective for which the gradient has norm 1 at the start.
    """
    with threadpool_limits(1, user_api="blas"):
        try:
            first = objective(x0)
            norm = float(np.linalg.norm(first[1]))
            if norm == 0:
                return "the gradient is zero at the start"
            c = first_step * norm / float(np.max(np.abs(first[1])))
            known = [first]

            def scaled(y: Vector) -> tuple[float, Vector]:
                value, gradient = known.pop() if known else objective(c * y)
                return value / (c * norm), gradient / norm

            result = scipy.optimize.minimize(
                scaled,
                x0 / c,
                jac=True,
                bounds=None if bounds is None else _divided(bounds, c),
                method="L-BFGS-B",
                callback=lambda intermediate_result: on_iterate(c * intermediate_result.x),
                options={
                    "maxcor": history,
                    "maxfun": 10**9,
                    "maxiter": 10**9,
                    "ftol": 0.0,
                    "gtol": tolerance,
                },
            )
        except BudgetSpent:
            return "all evaluations are spent"
    return str(result.message)


def _divided(bounds: Any, c: float) -> list[tuple[float | None, float | None]]:
    return [
        (None if low is None else low / c, None if high is None else high / c)
        for low, high in bounds
    ]


def gauss_newton_cg(
    objective: Objective,
    product: Product,
    x0: Vector,
    on_iterate: Callable[[Vector], None],
    *,
    inner_iterations: int,
    tolerance: float,
) -> str:
    """Minimise by Gauss-Newton steps, solved by conjugate gradients; why it stopped.

    Notes
    -----
    The forcing term min(0.5, sqrt(abs(g) / abs(g0))) bounds the inner residual; steps are halved
    until the decrease is sufficient (Armijo, 1e-4). A product that would leave no evaluation for
    the step must raise `BudgetSpent`: the direction found so far is then taken.
    """
    with threadpool_limits(1, user_api="blas"):
        try:
            x = x0.copy()
            value, gradient = objective(x)
            first = float(np.linalg.norm(gradient))
            while True:
                norm = float(np.linalg.norm(gradient))
                if norm <= tolerance * first or norm == 0:
                    return "the gradient is small"
                forcing = min(0.5, float(np.sqrt(norm / first)))
                direction = _direction(product, x, gradient, inner_iterations, forcing)
                found = _line_search(objective, x, value, gradient, direction)
                if found is None:
                    return "no decrease along the Gauss-Newton direction"
                x, value, gradient = found
                on_iterate(x)
        except BudgetSpent:
            return "all evaluations are spent"


def _direction(
    product: Product, x: Vector, gradient: Vector, inner_iterations: int, forcing: float
) -> Vector:
    hessian = LinearOperator((x.size, x.size), matvec=lambda v: product(x, v.ravel()), dtype=float)
    step = np.zeros_like(x)

    def keep(found: Vector) -> None:
        step[:] = found

    try:
        cg(hessian, -gradient, rtol=forcing, atol=0.0, maxiter=inner_iterations, callback=keep)
    except BudgetSpent:
        if not np.any(step):
            raise  # else what was found so far is a direction too
    is_descent = np.all(np.isfinite(step)) and step @ gradient < 0
    return np.asarray(step if is_descent else -gradient)


def _line_search(
    objective: Objective, x: Vector, value: float, gradient: Vector, direction: Vector
) -> tuple[Vector, float, Vector] | None:
    slope = float(gradient @ direction)
    for k in range(20):
        length = 0.5**k
        there = x + length * direction
        new_value, new_gradient = objective(there)
        if new_value <= value + 1e-4 * length * slope:
            return there, new_value, new_gradient
    return None
