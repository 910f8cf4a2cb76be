"""Networks and numbers of the lessons."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cmlp.core.dispatch import use_core
from cmlp.datasets import load_digits
from cmlp.network import Network

Array = NDArray[Any]

X_TWO = np.array([[1.0, -1.0], [0.0, 1.0]])
"""Rows of lessons 5 to 7: lesson 5 has the first of them."""

Y_TWO = np.array([1, 0])


def two_two_one(loss: str = "squared_error") -> Network:
    """Return the network of lesson 5: two inputs, two hidden units, one output, all logistic.

    Parameters
    ----------
    loss : {'squared_error', 'binary_crossentropy'}

    Returns
    -------
    Network
        2-2-1 in float64, with the lesson's weights.
    """
    net = Network([2, 2, 1], "logistic", "logistic", loss, dtype="float64", seed=0)
    net.weights[0] = np.array([[0.5, -1.0], [1.0, 0.5]])
    net.biases[0] = np.array([0.0, 0.5])
    net.weights[1] = np.array([[1.0], [-2.0]])
    net.biases[1] = np.array([0.5])
    return net


def digits_net(epochs: int = 20) -> Network:
    """Return the network of lessons 2 and 3, trained: 64-16-16-10, logistic, squared error.

    Parameters
    ----------
    epochs : int
        0 leaves it as it is drawn.

    Returns
    -------
    Network
        In float64, for pixels from 0 to 16.
    """
    digits = load_digits()
    net = Network(
        [64, 16, 16, 10], "logistic", "logistic", "squared_error", dtype="float64", seed=0,
        input_scale=1 / 16,
    )  # fmt: skip
    if epochs:
        net.fit(digits.X_train, digits.y_train, epochs=epochs, learning_rate=1.0, momentum=0)
    return net


@lru_cache(maxsize=1)
def costs_of_test_digits() -> tuple[Array, Array]:
    """Return the outputs (1797, 10) of `digits_net` for the test digits, and the costs (1797,)."""
    digits = load_digits()
    a = digits_net().predict(digits.X_test)
    return a, ((a - np.eye(10)[digits.y_test]) ** 2).sum(axis=1) / 2


def valley_slope(w: Any) -> Array:
    """Return the slope of ``C = (w1^2 + 10 w2^2) / 2``, from the engine.

    Parameters
    ----------
    w : array_like, shape (2,)
        The point, (w1, w2).

    Returns
    -------
    ndarray, shape (2,)
        (dC/dw1, dC/dw2).

    Notes
    -----
    A unit with the two weights, no activation, and the rows (sqrt 2, 0) and (0, sqrt 20) with the
    target 0 has this cost: the mean of ``(sqrt(2) w1)^2 / 2`` and ``(sqrt(20) w2)^2 / 2``.
    """
    unit = Network([2, 1], out_activation="identity", loss="squared_error", dtype="float64")
    unit.weights[0] = np.reshape(np.asarray(w, float), (2, 1))
    unit.biases[0] = np.zeros(1)
    X = np.array([[np.sqrt(2), 0], [0, np.sqrt(20)]])
    return np.ravel(unit.gradients(X, np.zeros(2)).weights[0])


def descend(start: Any, learning_rate: float, steps: int) -> Array:
    """Return the points of gradient descent in the valley.

    Parameters
    ----------
    start : array_like, shape (2,)
        The first point, (w1, w2).
    learning_rate : float
        How far a step goes, times the slope.
    steps : int
        How many.

    Returns
    -------
    ndarray, shape (steps + 1, 2)
    """
    points = [np.asarray(start, float)]
    with use_core("python"):  # single numbers: calls of the fast core would gain nothing
        for _ in range(steps):
            points.append(points[-1] - learning_rate * valley_slope(points[-1]))
    return np.array(points)


def sigmoid(z: Any) -> Array:
    """Return ``1 / (1 + exp(-z))``.

    Parameters
    ----------
    z : array_like
        Weighted sums, of any shape.

    Returns
    -------
    ndarray
        Of the same shape.
    """
    return np.asarray(1 / (1 + np.exp(-np.asarray(z, float))))


def softmax(z: Any) -> Array:
    """Return ``exp(z)`` divided by its sum over the last axis.

    Parameters
    ----------
    z : array_like
        Weighted sums; the last axis has the classes.

    Returns
    -------
    ndarray
        Of the same shape.
    """
    e = np.exp(np.asarray(z, float))
    return np.asarray(e / e.sum(axis=-1, keepdims=True))


def raw_reader() -> Network:
    """Return a network that was trained on pixels from 0 to 16 as they are, at a high rate."""
    digits = load_digits()
    net = Network([64, 16, 16, 10], "relu", seed=0)
    net.fit(digits.X_train, digits.y_train, epochs=5, learning_rate=0.1)
    return net
