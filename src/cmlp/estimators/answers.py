"""Answers of fitted networks: activations of any layer, derivatives, and means over an ensemble."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np

from cmlp.core.layout import Array
from cmlp.data.checks import check_X
from cmlp.model import passes
from cmlp.network import Network


def propagate(net: Network, X: Any, n_layers: int | None = None, linear: bool = False) -> Array:
    """Propagate rows through some layers; `linear` leaves out the last activation."""
    return passes.predict_layer(net, check_X(X, net.sizes[0], net.dtype), n_layers, linear)


def slopes(net: Network, X: Any) -> Array:
    """Return the derivatives of the outputs by the inputs, (n, n_out, n_in)."""
    return passes.output_slopes(net, check_X(X, net.sizes[0], net.dtype))


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
