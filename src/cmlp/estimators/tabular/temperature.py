"""The temperature of a classifier: how sure its probabilities are, fitted to held-out rows."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from cmlp.core.layout import Array
from cmlp.network import Network

LEAST = 1e-12
"""Probabilities below are this one: logarithms stay finite."""

RANGE = (-1.0, 2.5)
"""Of the temperature's logarithm."""

STEPS = 9

PRIOR = 2.0
"""Times log(T)^2, the sum of losses that a temperature of 1 saves: of few rows it stays near 1."""


def log_loss_at_best(
    proba: Array, classes: NDArray[np.int64], weights: Array | None
) -> tuple[float, float]:
    """Return the least log-loss of probabilities that a temperature can reach, and the temperature.

    Parameters
    ----------
    proba : ndarray, (n, n_classes)
    classes : ndarray, (n,)
    weights : ndarray, (n,), or None
    """
    z = np.log(np.maximum(proba, LEAST, dtype=np.float64))
    rows = np.arange(len(classes))
    if weights is not None and not weights.any():
        weights = None

    def loss(log_t: float) -> float:
        scaled = z * math.exp(-log_t)
        top = scaled.max(axis=1)
        sums = np.log(np.exp(scaled - top[:, None]).sum(axis=1))
        costs = top + sums - scaled[rows, classes]
        return float(np.average(costs, weights=weights)) + PRIOR * log_t**2 / len(classes)

    found = golden_section(loss, *RANGE, STEPS)
    return loss(found) - PRIOR * found**2 / len(classes), math.exp(found)


def golden_section(f: Callable[[float], float], low: float, high: float, steps: int) -> float:
    """Return where a function with one minimum is least, by so many steps of golden section."""
    ratio = (math.sqrt(5) - 1) / 2
    left, right = high - ratio * (high - low), low + ratio * (high - low)
    f_left, f_right = f(left), f(right)
    for _ in range(steps):
        if f_left < f_right:
            high, right, f_right = right, left, f_left
            left = high - ratio * (high - low)
            f_left = f(left)
        else:
            low, left, f_left = left, right, f_right
            right = low + ratio * (high - low)
            f_right = f(right)
    return (low + high) / 2


def divide_by_temperature(net: Network, temperature: float) -> None:
    """Divide the sums of the last layer, by its weights and biases."""
    net.weights[-1][...] /= temperature
    net.biases[-1][...] /= temperature
    if len(net.weights) == 1:
        for name, E in net.front.items():
            if name.startswith("summed."):
                E[...] /= temperature
