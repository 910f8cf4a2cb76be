"""Losses: the cost of each row, and delta = dC/dz of the output layer."""

from __future__ import annotations

import numpy as np

from cmlp.core import layout, vocabulary
from cmlp.core.reference.activations import CODES, slope

(SQUARED, ABSOLUTE, HUBER, BINARY, CATEGORICAL, POISSON, QUANTILE) = (
    row.code for row in vocabulary.LOSSES
)


_PAIRS = (
    (BINARY, CODES["logistic"]),
    (CATEGORICAL, CODES["softmax"]),
    (POISSON, CODES["exp"]),
)
"""Losses with their own output activation: the cost is computed from z, and delta = a - y."""


def row_costs(objective, out_activation, z, a, y):
    """Cost of each row, (rows,). Cross-entropies never take the log of a rounded probability."""
    if (objective.loss, out_activation) in _PAIRS:
        cost = _costs_of_sums(objective.loss, z, a, y)
    else:
        cost = _costs_of_outputs(objective, a, y)
    return _without_missing(objective, y, cost).sum(axis=1)


def _without_missing(objective, y, values):
    """The values of the outputs, 0 where the target is NaN and that means missing."""
    return np.where(np.isnan(y), 0, values) if objective.missing else values


def _costs_of_sums(loss, z, a, y):
    """Cost of each output from the weighted sums; small terms are added to small terms."""
    if loss == BINARY:
        # -(y log p + (1 - y) log(1 - p)) with p = logistic(z)
        return (np.maximum(z, 0) - y * z) + np.log1p(np.exp(-np.abs(z)))
    if loss == CATEGORICAL:
        # -sum y log(e^z / sum e^z): the logarithm of a sum whose largest term is 1
        shifted = z - z.max(axis=1, keepdims=True)
        rest = np.where(shifted == 0, 0, np.exp(shifted))
        rest = rest.sum(axis=1, keepdims=True, dtype=np.float64)
        rest += np.count_nonzero(shifted == 0, axis=1, keepdims=True) - 1
        return np.where(y == 0, 0, y * (np.log1p(rest) - shifted))
    # a - y + y log(y / a) with log a = z is y (e^d - 1 - d) with d = z - log y
    d = z - np.log(np.where(y > 0, y, 1))
    return np.where(y > 0, y * (np.expm1(d) - d), a)


def _costs_of_outputs(objective, a, y):
    """Cost of each output from the activations."""
    loss, parameter = objective.loss, objective.parameter
    eps = np.finfo(a.dtype).eps
    r = a - y
    if loss == vocabulary.EXTERNAL_LOSS:
        return np.zeros_like(a)
    if loss == SQUARED:
        return 0.5 * r * r
    if loss == ABSOLUTE:
        return np.abs(r)
    if loss == HUBER:
        size = np.abs(r)
        return np.where(size <= parameter, 0.5 * r * r, parameter * (size - 0.5 * parameter))
    if loss == BINARY:
        p = np.clip(a, eps, 1 - eps)
        return -(y * np.log(p) + (1 - y) * np.log(1 - p))
    if loss == CATEGORICAL:
        return -y * np.log(np.maximum(a, eps))
    if loss == POISSON:
        return a - y + _x_log_y(y, y / np.maximum(a, eps))
    return np.maximum(-parameter * r, (1 - parameter) * r)  # QUANTILE


def _x_log_y(x, y):
    return np.where(x == 0, 0, x * np.log(np.where(x == 0, 1, y)))


def cost_slope(objective, a, y):
    """dC/da of each row."""
    loss, parameter = objective.loss, objective.parameter
    eps = np.finfo(a.dtype).eps
    r = a - y
    if loss == vocabulary.EXTERNAL_LOSS:
        return y
    if loss == SQUARED:
        return r
    if loss == ABSOLUTE:
        return np.sign(r)
    if loss == HUBER:
        return np.clip(r, -parameter, parameter)
    if loss == BINARY:
        p = np.clip(a, eps, 1 - eps)
        return (p - y) / (p * (1 - p))
    if loss == CATEGORICAL:
        return -y / np.maximum(a, eps)
    if loss == POISSON:
        return 1 - y / np.maximum(a, eps)
    return np.where(r > 0, 1 - parameter, np.where(r < 0, -parameter, r))  # r: 0 or NaN


def output_delta(objective, layer, z, a, y):
    """dC/dz of the output layer, row by row: where backpropagation starts."""
    out_activation = int(layer[layout.ACTIVATION])
    if (objective.loss, out_activation) in _PAIRS:
        return _without_missing(objective, y, a - y)
    da = _without_missing(objective, y, cost_slope(objective, a, y))
    if out_activation == CODES["softmax"]:  # each output depends on every weighted sum of its row
        return a * (da - (da * a).sum(axis=1, keepdims=True))
    return da * slope(out_activation, layout.parameter_of(layer), z, a)
