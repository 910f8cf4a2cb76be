"""The best prediction that is the same for all rows: what a network has to beat."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from cmlp.core.layout import Array
from cmlp.data.rows import Data
from cmlp.model.state import State

Cost = Callable[[Array, Array, float], Array]


def _x_log_y(x: Array, y: Array) -> Array:
    return x * np.log(np.where(x == 0, 1, y))


COSTS: dict[str, Cost] = {
    "squared_error": lambda a, y, _: (a - y) ** 2 / 2,
    "absolute_error": lambda a, y, _: np.abs(a - y),
    "huber": lambda a, y, h: np.where(
        np.abs(a - y) <= h, (a - y) ** 2 / 2, h * np.abs(a - y) - h * h / 2
    ),
    "binary_crossentropy": lambda a, y, _: -_x_log_y(y, a) - _x_log_y(1 - y, 1 - a),
    "categorical_crossentropy": lambda a, y, _: -_x_log_y(y, a),
    "poisson": lambda a, y, _: a - y + _x_log_y(y, y / a),
    "quantile": lambda a, y, q: np.maximum(q * (y - a), (q - 1) * (y - a)),
}
"""Losses of single outputs, by name: outputs, targets, and the loss's parameter."""


SMALLEST = 1e-9
"""Of a probability or a rate that is predicted: the logarithm of 0 is infinite."""


def constant_loss(net: State, data: Data) -> float | None:
    """Return the smallest loss of a prediction that is the same for all rows.

    For probabilities and rates it is that of the (weighted) mean; for other numbers the smaller one
    of the mean's and the quantile's (of all rows alike). None for a custom loss.
    """
    if net.loss_row is None:
        return None
    y = data.targets if data.targets.ndim == 2 else data.targets[:, None] == np.arange(
        net.sizes[-1])  # fmt: skip
    y = y.astype(np.float64)
    known = ~np.isnan(y)
    weights = data.weights if data.weights is not None and data.weights.any() else np.ones(len(y))
    shares = known * weights[:, None]
    mean = np.nan_to_num(y * shares).sum(axis=0) / np.maximum(shares.sum(axis=0), 1e-300)
    kind = net.loss_row.out_activation
    if kind == "logistic":
        candidates = [np.clip(mean, SMALLEST, 1 - SMALLEST)]
    elif kind == "softmax":
        candidates = [np.maximum(mean, SMALLEST) / np.maximum(mean, SMALLEST).sum()]
    elif kind == "exp":
        candidates = [np.maximum(mean, SMALLEST)]
    else:
        quantile = net.loss_parameter if net.loss_name == "quantile" else 0.5
        columns = zip(y.T, known.T, strict=True)
        candidates = [mean, np.array([
            np.quantile(column[rows], quantile) if rows.any() else 0.0 for column, rows in columns
        ])]  # fmt: skip
    cost = COSTS[net.loss_name]
    rows = [np.where(known, cost(a, y, net.loss_parameter), 0).sum(axis=1) for a in candidates]
    return min(float(np.average(costs, weights=weights)) for costs in rows)
