"""Standardised features for training, folded into the weights afterwards.

A network learns best from features of mean 0 and deviation 1, and its users have raw ones. The
first layer computes ``W^T ((x - m) f) + b``, which is ``V^T x + c`` with ``V = f W`` (row by row)
and ``c = b - V^T m``: the scaling costs nothing once training is over, and no file has to hold it.
"""

from __future__ import annotations

import contextlib
from dataclasses import replace
from typing import TypeVar

import numpy as np

from cmlp.core.layout import Array, aligned, params_size
from cmlp.core.vocabulary import NORMALIZATION_EPS
from cmlp.data.checks import check_X
from cmlp.data.scaling import Scaling
from cmlp.model import passes
from cmlp.model.parameters import Parameters
from cmlp.model.state import State

Folded = TypeVar("Folded", bound=State)


def fold(net: Folded, X: Array, inputs: Scaling, outputs: Scaling | None) -> Folded:
    """Build the scaling of inputs and outputs into the first and the last layer.

    Parameters
    ----------
    X : ndarray
        Some raw rows, on which float32 is tried.

    Returns
    -------
    State
        A copy, of the same class; in float64 where the raw numbers need it (features with a mean
        far above their deviation, such as years or time stamps).

    Raises
    ------
    ValueError
        If the hidden layers are normalised by 'layer': there is no bias to take the means.
    """
    if net.normalization == "layer":
        raise ValueError(
            "the means of the inputs cannot be built into a network with normalization='layer', "
            "which has no bias in front of its statistics: scale X yourself, or use 'batch'"
        )
    if net.inputs is not None:
        raise ValueError(
            "scaling cannot be built into a network with inputs=..., whose columns differ: scale X "
            "yourself"
        )
    wide = net.astype(np.float64)
    W = wide.weights[0]
    W *= inputs.factor[:, None]
    shift = net.input_scale * (inputs.mean @ W)
    if net.normalization == "batch":  # there the bias is added after the statistics
        wide.running[0][0][...] += shift
    else:
        wide.biases[0][...] -= shift
    unit = 1.0
    if outputs is not None:
        unit = float(1 / outputs.factor[0])
        wide.weights[-1][...] *= unit
        wide.biases[-1][...] = wide.biases[-1] * unit + outputs.mean
        power = {"squared_error": 2, "huber": 2}.get(wide.loss_name, 1)
        if wide.loss_name == "huber":
            wide.replace_architecture(
                replace(wide.architecture, loss_parameter=wide.loss_parameter * unit)
            )
        for key in wide.history.keys() & {"loss", "val_loss"}:
            wide.history[key] = [value * unit**power for value in wide.history[key]]
    with np.errstate(all="ignore"), contextlib.suppress(ValueError):  # too large for float32
        narrow = wide.astype(np.float32)
        if np.abs(_outputs(narrow, X) - _outputs(wide, X)).max() <= 1e-3 * unit:
            return narrow
    return wide


def _outputs(net: State, X: Array) -> Array:
    return passes.predict(net, check_X(X, net.sizes[0], net.dtype))


def fold_statistics(net: Folded) -> Folded:
    """Return a copy with 'batch' normalisation and input factors in its weights, for prediction.

    One without them is copied as it is, without optimizer state.
    """
    other = net.astype(net.dtype)
    if net.normalization == "batch":
        plain: Parameters = passes.prediction_parameters(net)
        architecture = replace(
            net.architecture, normalization=None, normalization_epsilon=NORMALIZATION_EPS
        )
        other.replace_architecture(architecture, plain.flat)
        other.forget_optimizer()
    if other.inputs is not None and other.inputs.scaled:
        _fold_factors(other)
    return other


def _fold_factors(net: State) -> None:
    """Multiply the rows of the first layer's weights by the factors of its inputs."""
    assert net.inputs is not None
    inputs = replace(net.inputs, scaled=False)
    architecture = replace(net.architecture, inputs=None if inputs.is_plain else inputs)
    plan = architecture.plan()
    kept = Parameters(plan, aligned((params_size(plan),), net.dtype))
    parts = net.parameter_views.parts()
    for name, part in kept.parts().items():
        part[...] = parts[name]
    kept.weights[0][...] *= net.front["factors"][:, None]
    net.replace_architecture(architecture, kept.flat)
    net.forget_optimizer()
