"""Numbers of the hidden layers, and derivatives by the inputs, in portions."""

from __future__ import annotations

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
    """Propagate rows through some layers; `linear` stops short of the last activation."""
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
