"""A fit by L-BFGS: the objective, and the record of its iterations."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cmlp.core.errors import ConvergenceWarning, warn
from cmlp.core.layout import Array
from cmlp.core.seam import TEAM_STOP, Places, places
from cmlp.core.team import Team
from cmlp.data.rows import Data
from cmlp.estimators.fit import NOT_FINITE, recipe_of
from cmlp.estimators.targets import Task
from cmlp.model import passes
from cmlp.model.parameters import Parameters
from cmlp.model.passes import flops_of
from cmlp.network import Network
from cmlp.training.divergence import DivergenceError
from cmlp.training.lbfgs import Result, minimise_by_best
from cmlp.training.recipe import Recipe
from cmlp.training.stopping import Deadline


class _OutOfTime(Exception):
    """The deadline has passed in the middle of a minimisation."""


class _Objective:
    """The loss of all rows as a function of one vector: every weight and bias, in float64."""

    def __init__(self, net: Network, data: Data, recipe: Recipe, deadline: Deadline) -> None:
        self.net = net if net.dtype == np.float64 else net.astype("float64")
        self.data, self.deadline = data, deadline
        self.objective = recipe.objective(self.net.architecture)
        self.parts = self._parts(self.net.params)
        self.start = np.concatenate([part.ravel() for part in self.parts])
        self.n_iter, self.best, self.least = 0, self.start, math.inf
        is_long = flops_of(self.net) * len(data.X) > passes.CALL_FLOPS
        self.team = Team(1 if is_long else 0)

    def _parts(self, flat: Array) -> list[Array]:
        return _learned(Parameters(self.net.plan, flat))

    def put(self, x: NDArray[np.float64]) -> None:
        """Write a vector into the network."""
        cuts = np.cumsum([part.size for part in self.parts])[:-1]
        for part, values in zip(self.parts, np.split(x, cuts), strict=True):
            part[...] = values.reshape(part.shape)

    def __call__(self, x: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        self.put(x)
        team = places()

        def backpropagate(rank: int, team: Places) -> tuple[float, Array]:
            found = passes.backpropagate(self.net, self.data, self.objective, team=team)
            return found.loss, found.gradient

        loss, gradient = self.team.run(backpropagate, team, self.deadline)
        if team[TEAM_STOP]:
            raise _OutOfTime
        if loss < self.least:
            self.least, self.best = loss, x.copy()
        if self.deadline():
            raise _OutOfTime
        return loss, np.concatenate([slope.ravel() for slope in self._parts(gradient)])

    def count(self, x: object) -> None:
        """Count an iteration."""
        self.n_iter += 1


def _learned(cut: Parameters) -> list[Array]:
    return [*cut.weights, *cut.biases, *cut.scales, *cut.alphas, *cut.front.values()]


def fit_lbfgs(estimator: Any, net: Network, task: Task) -> None:
    """Minimise the loss of all rows; in float64, whatever the network's dtype is.

    Ctrl-C and ``max_time`` end it with the best weights so far.
    """
    stopped = ""
    deadline = Deadline(estimator.max_time, task.halted)
    f = _Objective(net, task.data, recipe_of(estimator, net), deadline)
    try:
        found = minimise_by_best(
            f, f.start, estimator.tol, estimator.max_iter, estimator.max_fun, f.count
        )
        stopped = {0: "tol", 1: "epochs"}.get(found.status, "line_search")
    except (KeyboardInterrupt, _OutOfTime) as ended:
        stopped = f.deadline.reason or "interrupted"
        found = Result(f.best, f.least, f.n_iter, 0, "")
        if isinstance(ended, KeyboardInterrupt):
            warn("Training interrupted by user.")
    finally:
        f.team.close()
        if not stopped:
            f.put(f.start)
    if stopped not in ("interrupted", "max_time") and not (
        math.isfinite(found.value) and np.isfinite(found.x).all()
    ):
        f.put(f.start)
        error = DivergenceError(NOT_FINITE)
        error.history = net.history
        net.history.end("diverged", None, False)
        raise error
    f.put(found.x)
    if f.net is not net:
        for mine, theirs in zip(_learned(net.parameter_views), f.parts, strict=True):
            mine[...] = theirs
    estimator.loss_, estimator.n_iter_ = found.value, min(found.n_iter, estimator.max_iter)
    net.history.end(stopped, None, False)
    net.history.solver = "lbfgs"
    if found.status:
        warn(
            f"lbfgs failed to converge after {found.n_iter} iteration(s) "
            f"(status={found.status}):\n{found.message}\n\nIncrease the number of iterations "
            f"to improve the convergence (max_iter={estimator.max_iter}).\nYou might also want "
            "to scale the data.",
            ConvergenceWarning,
        )
