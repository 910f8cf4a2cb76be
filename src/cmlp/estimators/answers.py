"""Answers of fitted networks: activations of any layer, derivatives, and means over an ensemble."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np

from cmlp.core import dispatch
from cmlp.core.layout import ACTIVATION, N_OUT, Array, aligned
from cmlp.core.vocabulary import ACTIVATIONS, EXTERNAL_LOSS, lookup
from cmlp.data.checks import check_X
from cmlp.estimators.fit import EstimatorRecipe
from cmlp.model.passes import flops_of, portions
from cmlp.network import Network


def propagate(net: Network, X: Any, n_layers: int | None = None, linear: bool = False) -> Array:
    """Propagate rows through some layers; `linear` leaves out the last activation."""
    plan = net.plan[:n_layers]
    if linear:
        plan = plan.copy()
        plan[-1, ACTIVATION] = lookup("activation", ACTIVATIONS, "identity").code
    out = np.empty((X.shape[0], int(plan[-1, N_OUT])), net.dtype)
    workspace = aligned((dispatch.core.workspace_size(plan, 1),), net.dtype)
    X = check_X(X, net.sizes[0], net.dtype)
    for part, some, rows in portions(X, flops_of(net)):
        dispatch.core.predict(plan, net.params, some, rows, out[part], workspace, net.input_scale)
    return out


def slopes(net: Network, X: Any) -> Array:
    """Return the derivatives of the outputs by the inputs, (n, n_out, n_in)."""
    core, n_outputs = dispatch.core, net.sizes[-1]
    gradients = np.empty((X.shape[0], n_outputs, X.shape[1]), net.dtype)
    recipe = EstimatorRecipe()
    objective, noise = recipe.objective(net)._replace(loss=EXTERNAL_LOSS), recipe.noise(net, 0)
    plan, params = net.for_prediction()
    scrap, nothing = np.empty_like(params), np.empty((0, 0), net.dtype)
    X = check_X(X, net.sizes[0], net.dtype)
    with net.scratch(len(X)) as workspace:
        for output in range(n_outputs):
            slope = np.zeros((len(X), n_outputs), net.dtype)
            slope[:, output] = 1
            dX = np.empty(X.shape, net.dtype)
            core.gradient(
                plan, params, X, slope, None, None, objective, noise, 0, scrap, nothing, dX,
                workspace, net.input_scale,
            )  # fmt: skip
            gradients[:, output] = dX
    return gradients


# An ensemble: each function joins the answers of the members about the same rows ---------------


def mean(parts: Iterable[Array]) -> Array:
    """Return the mean over the members."""
    parts = iter(parts)
    total, n = np.array(next(parts)), 1
    for part in parts:
        total += part
        n += 1
    total /= n
    return total


def mean_and_std(parts: Iterable[Array]) -> tuple[Array, Array]:
    """Return the mean and the standard deviation over the members."""
    parts = list(parts)
    centre = mean(parts)
    return centre, np.sqrt(mean((part - centre) ** 2 for part in parts))


def side_by_side(parts: Iterable[Array]) -> Array:
    """Return the members' columns, one member's after the other's."""
    return np.concatenate(list(parts), axis=1)


def log_probabilities(sums: Iterable[Array]) -> Array:
    """Return the logarithm of the mean of softmax, which is finite however large the sums are."""
    parts = [z - np.logaddexp.reduce(z, axis=1, keepdims=True) for z in sums]
    total: Array = np.logaddexp.reduce(parts, axis=0)
    total -= np.log(len(parts))
    return total


def log_odds(sums: Iterable[Array]) -> Array:
    """Return log(p / (1 - p)) of the mean p of logistic functions, finite in the same way."""
    parts = list(sums)
    zero = parts[0].dtype.type(0)
    for_it: Array = np.logaddexp.reduce([-np.logaddexp(zero, -z) for z in parts], axis=0)
    against: Array = np.logaddexp.reduce([-np.logaddexp(zero, z) for z in parts], axis=0)
    return for_it - against
