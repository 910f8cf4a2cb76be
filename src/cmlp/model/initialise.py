"""First weights: where a network starts decides whether its signals fade or blow up."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cmlp.core.layout import alpha_views, normalization_views
from cmlp.core.vocabulary import ACTIVATIONS, INITIALISERS, Initialiser, lookup
from cmlp.model.state import State


def initialise(state: State) -> None:
    """Draw the first weights; scales, alphas and running variances begin at 1, the rest at 0."""
    for W, name in zip(state.weights, state.activations, strict=True):
        n_in, n_out = W.shape
        W[...] = draw(initialiser(state.weight_init, name), n_in, n_out, state.rng)
    for gamma, *statistics in normalization_views(state.plan, state.params):
        gamma[...] = 1
        for variance in statistics[1:]:
            variance[...] = 1
    for alpha in alpha_views(state.plan, state.params):
        alpha[...] = 1


def initialiser(weight_init: str, activation: str) -> Initialiser:
    """Resolve a name; 'auto' is He's for rectifiers, LeCun's for selu, else Glorot's."""
    if weight_init != "auto":
        return lookup("weight_init", INITIALISERS, weight_init)
    if activation == "selu":
        return lookup("weight_init", INITIALISERS, "lecun_normal")
    gain = lookup("activation", ACTIVATIONS, activation).gain
    return lookup("weight_init", INITIALISERS, "he_uniform" if gain == 2 else "glorot_uniform")


def draw(init: Initialiser, n_in: int, n_out: int, rng: np.random.Generator) -> NDArray[Any]:
    """Draw the weights of one layer, float64 (n_in, n_out).

    Sources: Glorot & Bengio 2010, eq. 16; He et al. 2015, eq. 10; LeCun et al. 1998, eq. 16;
    orthogonal: Saxe et al. 2014.
    """
    shape = n_in, n_out
    if init.distribution == "orthogonal":
        long, short = max(shape), min(shape)
        q, r = np.linalg.qr(rng.standard_normal((long, short)))
        q *= np.sign(np.diag(r))  # without it the rotations are not uniform
        return np.asarray(q if n_in >= n_out else q.T)
    if init.distribution == "zeros":
        return np.zeros(shape)
    fan = n_in if init.fan == "in" else (n_in + n_out) / 2
    deviation = np.sqrt(init.scale / fan)
    if init.distribution == "uniform":
        bound = np.sqrt(3.0) * deviation
        return rng.uniform(-bound, bound, shape)
    return np.asarray(rng.standard_normal(shape) * deviation)


def draw_like_sklearn(
    weights: Sequence[NDArray[Any]],
    biases: Sequence[NDArray[Any]],
    hidden: Sequence[str],
    random: np.random.RandomState,
) -> None:
    """Draw weights and biases of all layers in place, as scikit-learn does.

    Every layer has its bounds by the activation of the hidden layers; one without hidden layers,
    by that of no activation.
    """
    for W, b, name in zip(weights, biases, (*hidden, *hidden[-1:], "identity"), strict=False):
        bound = np.sqrt((2 if name == "logistic" else 6) / (W.shape[0] + W.shape[1]))
        W[...] = random.uniform(-bound, bound, W.shape)
        b[...] = random.uniform(-bound, bound, b.shape)
