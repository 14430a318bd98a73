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
    history: int,
    tolerance: float,
) -> str:
    """Minimise by L-BFGS-B; why it stopped.

    SciPy's linear algebra runs with one thread: its bits depend on their number.
    """

    def callback(intermediate_result: Any) -> None:
        on_iterate(intermediate_result.x)

    options = {
        "maxcor": history,
        "maxfun": 10**9,
        "maxiter": 10**9,
        "ftol": 0.0,
        "gtol": tolerance,
    }
    with threadpool_limits(1, user_api="blas"):
        try:
            result = scipy.optimize.minimize(
                objective,
                x0,
                jac=True,
                bounds=bounds,
                method="L-BFGS-B",
                callback=callback,
                options=options,
            )
        except BudgetSpent:
            return "all evaluations are spent"
    return str(result.message)


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
    until the decrease is sufficient (Armijo, 1e-4).
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
    step, _ = cg(hessian, -gradient, rtol=forcing, atol=0.0, maxiter=inner_iterations)
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
