"""First weights: where a network starts decides whether its signals fade or blow up."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cmlp.core.front import cumulative_tables
from cmlp.core.layout import alpha_views, normalization_views
from cmlp.core.vocabulary import INITIALISERS, Initialiser, activation_of, lookup
from cmlp.model.state import State


def initialise(state: State) -> None:
    """Draw the first weights; scales, alphas and running variances begin at 1, the rest at 0."""
    for number, (W, name) in enumerate(zip(state.weights, state.activations, strict=True)):
        n_in, n_out = W.shape
        init = initialiser(state.weight_init, name)
        if number == 0 and state.inputs is not None:
            draw_front(state, init)
        else:
            W[...] = draw(init, n_in, n_out, state.rng)
    for gamma, *statistics in normalization_views(state.plan, state.params):
        gamma[...] = 1
        for variance in statistics[1:]:
            variance[...] = 1
    for alpha in alpha_views(state.plan, state.params):
        alpha[...] = 1


def draw_front(state: State, init: Initialiser) -> None:
    """Draw what is learned before the first layer, and that layer's weights.

    A summed table is weights of one-hot columns, of which one is 1: together they are one input.
    A cumulative one begins as a random walk from 0.
    Periodic columns: Holzmueller et al. 2024.
    """
    rng, views, W = state.rng, state.front, state.weights[0]
    summed = [E for name, E in views.items() if name.startswith("summed.")]
    n_inputs = sum(part.n_inputs for part in state.architecture.parts)
    for part in (W, *summed):
        part[...] = draw(init, n_inputs + len(summed), part.shape[1], rng, len(part))
    for E in cumulative_tables(state.plan, state.params):
        E[0] = 0
        E[1:] = np.cumsum(E[1:] / np.sqrt(len(E)), axis=0)
    if not n_inputs:  # its one input is always 0
        W[...] = 0
    for name, part in views.items():
        if name == "factors":
            part[...] = 1
        elif name.startswith("levels."):
            part[...] = rng.standard_normal(part.shape)
        elif name == "periodic.frequencies":
            part[...] = 0.1 * rng.standard_normal(part.shape)
        elif name == "periodic.phases":
            part[...] = rng.uniform(-np.pi, np.pi, part.shape)
        elif name.startswith("periodic."):
            bound = 1 / np.sqrt(views["periodic.frequencies"].shape[1])
            part[...] = rng.uniform(-bound, bound, part.shape)


def initialiser(weight_init: str, activation: str) -> Initialiser:
    """Resolve a name; 'auto' is He's for rectifiers, LeCun's for selu, else Glorot's.

    A leaky ReLU that lets more through has smaller weights: He et al. 2015, eq. 15.
    """
    if weight_init != "auto":
        return lookup("weight_init", INITIALISERS, weight_init)
    if activation == "selu":
        return lookup("weight_init", INITIALISERS, "lecun_normal")
    gain = activation_of(activation).gain
    if gain == 1:
        return lookup("weight_init", INITIALISERS, "glorot_uniform")
    return lookup("weight_init", INITIALISERS, "he_uniform")._replace(scale=gain)


def draw(
    init: Initialiser, n_in: int, n_out: int, rng: np.random.Generator, rows: int | None = None
) -> NDArray[Any]:
    """Draw the weights of one layer, float64 (n_in, n_out), or of `rows` of its inputs.

    Sources: Glorot & Bengio 2010, eq. 16; He et al. 2015, eq. 10; LeCun et al. 1998, eq. 16;
    orthogonal: Saxe et al. 2014.
    """
    shape = n_in if rows is None else rows, n_out
    if init.distribution == "orthogonal":
        long, short = max(shape), min(shape)
        q, r = np.linalg.qr(rng.standard_normal((long, short)))
        q *= np.sign(np.diag(r))  # without it the rotations are not uniform
        return np.asarray(q if shape[0] >= n_out else q.T)
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
