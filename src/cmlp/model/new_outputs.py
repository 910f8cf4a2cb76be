"""New outputs for new classes, in a network that goes on learning."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from cmlp.core.layout import Array
from cmlp.core.vocabulary import SOLVERS, lookup
from cmlp.model.average import digest

if TYPE_CHECKING:
    from cmlp.network import Network


def grow(net: Network, larger: Network, places: NDArray[np.intp]) -> None:
    """Copy weights and optimizer state into a network with more outputs.

    A new class has the mean of the old weighted sums, so no row is taken for it; softmax of the
    old ones is in proportion what it was. Its optimizer state is zero.

    Parameters
    ----------
    places : ndarray of int
        Which of the larger network's outputs the old classes have.
    """
    _copy(net, net.params, larger, larger.params, places, weights=True)
    if net.solver:
        rule = lookup("solver", SOLVERS, net.solver)
        moments = larger.moments_for(rule, len(net.moments) > rule.n_moments)
        for number, (old, new) in enumerate(zip(net.moments, moments, strict=True)):
            averaged = number == rule.n_moments  # the weights that a mean is of
            _copy(net, old, larger, new, places, weights=averaged)
    larger.steps, larger.averaged, shown = net.steps, net.averaged, net.shown_average
    larger.shown_average = digest(larger.params) if shown == digest(net.params) else shown
    larger.rng, larger.history, larger.target_name = net.rng, net.history, net.target_name


def _copy(
    net: Network, flat: Array, larger: Network, target: Array, places: Array, *, weights: bool
) -> None:
    """Copy a vector laid out like the parameters: the last layer's columns go to their places."""
    last = f"layers.{len(net.plan) - 1}."
    views = larger._parts(target)
    for name, part in net._parts(flat).items():
        if not name.startswith(last):
            views[name][...] = part
            continue
        if part.shape[-1] == 1:  # a logistic output is softmax of minus and plus its half
            part = np.concatenate([-part / 2, part / 2], axis=-1) * weights
        views[name][...] = part.mean(axis=-1, keepdims=True) if weights else 0
        views[name][..., places] = part
