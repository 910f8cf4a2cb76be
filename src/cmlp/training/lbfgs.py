"""L-BFGS: all rows at once, and a memory of the last gradients in place of second derivatives.

SciPy's where it is installed; :func:`minimise` else, with the same stopping rules.
Source: Nocedal & Wright 2006, algorithms 7.4, 7.5 (two loops) and 3.5, 3.6 (strong Wolfe steps).
"""

from __future__ import annotations

import importlib.util
from collections import deque
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

Vector = NDArray[np.float64]


Function = Callable[[Vector], tuple[float, Vector]]


OnStep = Callable[[Vector], object]


MEMORY = 10
"""Steps that are remembered, as in SciPy."""


ARMIJO, CURVATURE = 1e-3, 0.9
"""Constants c1 and c2 of the Wolfe conditions."""


FTOL = 1e7 * np.finfo(float).eps
"""Relative fall of the value under which it has converged, as in SciPy."""


class Result(NamedTuple):
    """Where a minimisation ended."""

    x: Vector
    value: float
    n_iter: int
    status: int
    """0: converged; 1: too many iterations or evaluations; 2: no step lowers the value."""
    message: str


def minimise_by_best(
    f: Function, x: Vector, gtol: float, max_iter: int, max_fun: int, on_step: OnStep | None = None
) -> Result:
    """Minimise with SciPy's L-BFGS-B, or without SciPy with ours."""
    if importlib.util.find_spec("scipy") is None:
        return minimise(f, x, gtol, max_iter, max_fun, on_step)
    from scipy.optimize import minimize

    options = {"maxfun": max_fun, "maxiter": max_iter, "gtol": gtol}
    found = minimize(f, x, method="L-BFGS-B", jac=True, options=options, callback=on_step)
    message = found.message.decode() if isinstance(found.message, bytes) else str(found.message)
    return Result(found.x, float(found.fun), int(found.nit), int(found.status), message)


def minimise(
    f: Function, x: Vector, gtol: float, max_iter: int, max_fun: int, on_step: OnStep | None = None
) -> Result:
    """Minimise a function of many variables.

    Parameters
    ----------
    f : callable
        Returns the value and the gradient.
    gtol : float
        Largest derivative at which the search has converged.
    max_iter, max_fun : int
        Most iterations and evaluations.
    on_step : callable, optional
        Is called with the variables after each iteration.
    """
    value, gradient = f(x)
    steps: deque[tuple[Vector, Vector, float]] = deque(maxlen=MEMORY)
    n_fun, n_iter = 1, 0
    while True:
        if np.abs(gradient).max() <= gtol:
            return Result(x, value, n_iter, 0, "CONVERGENCE: NORM OF PROJECTED GRADIENT <= PGTOL")
        if n_iter >= max_iter:
            return Result(x, value, n_iter, 1, "STOP: TOTAL NO. OF ITERATIONS REACHED LIMIT")
        if n_fun >= max_fun:
            return Result(x, value, n_iter, 1, "STOP: TOTAL NO. OF F,G EVALUATIONS EXCEEDS LIMIT")
        direction = _direction(gradient, steps)
        first = min(1.0, 1.0 / float(np.linalg.norm(gradient))) if not steps else 1.0
        found = _line_search(f, x, value, gradient, direction, first, max_fun - n_fun)
        n_fun += found.n_fun
        if found.step == 0:
            if steps:  # restart along the gradient
                steps.clear()
                continue
            return Result(x, value, n_iter, 2, "ABNORMAL: no step lowers the value")
        s, y = found.step * direction, found.gradient - gradient
        if (curvature := float(s @ y)) > np.finfo(float).eps * float(y @ y):
            steps.append((s, y, curvature))
        fall, before = value - found.value, value
        x, value, gradient = x + s, found.value, found.gradient
        n_iter += 1
        if on_step is not None:
            on_step(x)
        if fall <= FTOL * max(abs(before), abs(value), 1.0):
            return Result(x, value, n_iter, 0, "CONVERGENCE: RELATIVE REDUCTION OF F IS SMALL")


def _direction(gradient: Vector, steps: deque[tuple[Vector, Vector, float]]) -> Vector:
    """Multiply the gradient by minus the inverse Hessian, approximated by the last steps."""
    q = -gradient
    shares = []
    for s, y, curvature in reversed(steps):
        share = float(s @ q) / curvature
        q -= share * y
        shares.append(share)
    if steps:
        _, y, curvature = steps[-1]
        q *= curvature / float(y @ y)
    for (s, y, curvature), share in zip(steps, reversed(shares), strict=True):
        q += (share - float(y @ q) / curvature) * s
    return q


class _Step(NamedTuple):
    step: float
    value: float
    gradient: Any
    n_fun: int


class _Point(NamedTuple):
    """A place on the line: the step, the value and the slope along the line."""

    step: float
    value: float
    slope: float


def _line_search(
    f: Function, x: Vector, value: float, gradient: Vector, direction: Vector, first: float,
    budget: int,
) -> _Step:  # fmt: skip
    """Find a step that satisfies the strong Wolfe conditions; 0 if none is found."""
    start = low = _Point(0.0, value, float(gradient @ direction))
    if start.slope >= 0:
        return _Step(0.0, value, gradient, 0)
    high: _Point | None = None
    best = _Step(0.0, value, gradient, 0)
    step = first
    for n_fun in range(1, min(budget, 30) + 1):
        value, gradient = f(x + step * direction)
        here = _Point(step, value, float(gradient @ direction))
        enough = value <= start.value + ARMIJO * step * start.slope
        if enough:
            best = _Step(step, value, gradient, n_fun)
            if abs(here.slope) <= -CURVATURE * start.slope:
                return best
        if not enough or value >= low.value:  # also where the value is not a number
            high = here
        else:
            rises = here.slope * (1 if high is None else high.step - low.step) >= 0
            low, high = here, low if rises else high
        step = 4 * step if high is None else _between(low, high)
    return best._replace(n_fun=min(budget, 30))


def _between(low: _Point, high: _Point) -> float:
    """Where the cubic through two places is smallest, kept well inside them."""
    width = high.step - low.step
    with np.errstate(all="ignore"):
        d = low.slope + high.slope - 3 * (low.value - high.value) / (low.step - high.step)
        root = np.sqrt(d * d - low.slope * high.slope) * np.sign(width)
        step = high.step - width * (high.slope + root - d) / (high.slope - low.slope + 2 * root)
    inside = (step - low.step) / width
    if not 0.1 <= inside <= 0.9:
        step = low.step + 0.5 * width
    return float(step)
