"""What programs write into an estimator by hand: weights of any shapes, an output activation."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np

from ._spec import ACTIVATION, ACTIVATIONS, lookup

if TYPE_CHECKING:
    from .network import Network


def sizes_of(coefs: Any, intercepts: Any) -> list[int]:
    """Return the units of the layers that these weights belong to.

    Raises
    ------
    ValueError
        If they do not fit each other.
    """
    weights, biases = [np.shape(W) for W in coefs], [np.shape(b) for b in intercepts]
    fits = len(weights) == len(biases) > 0 and all(len(shape) == 2 for shape in weights)
    if not (
        fits
        and all(before[1] == after[0] for before, after in pairwise(weights))
        and all(b == W[1:] for W, b in zip(weights, biases, strict=True))
    ):
        raise ValueError(
            "coefs_ needs an array (n_in, n_out) per layer, intercepts_ one of (n_out,), and n_out "
            f"is the next layer's n_in; the shapes are {weights} and {biases}"
        )
    return [weights[0][0], *(shape[1] for shape in weights)]


def write(net: Network, coefs: Any, intercepts: Any) -> None:
    """Write weights and biases into a network; None leaves them.

    Raises
    ------
    ValueError
        If they do not fit the network.
    """
    for name, given, views in (
        ("coefs_init", coefs, net.weights),
        ("intercepts_init", intercepts, net.biases),
    ):
        if given is None:
            continue
        shapes = [view.shape for view in views]
        if [np.shape(values) for values in given] != shapes:
            raise ValueError(
                f"{name} must have arrays of the shapes {shapes}, one per layer; the shapes "
                f"are {[np.shape(values) for values in given]}"
            )
        with np.errstate(under="ignore"):  # too large a number is worth NumPy's warning
            for view, values in zip(views, given, strict=True):
                view[...] = values


def predict_with(net: Network, out_activation: str) -> None:
    """Give a network another activation of its outputs, which it need not be able to train with."""
    row = lookup("out_activation_", ACTIVATIONS, out_activation)
    net.plan = net.plan.copy()  # a new one: the short way to a prediction goes by the old one
    net.plan[-1, ACTIVATION] = row.code
    net.activations = (*net.activations[:-1], row.name)
