"""Normalisation of hidden layers: y = gamma zhat + beta, zhat = (z - mean) / sqrt(variance + eps).

With 'batch', mean and variance are those of a unit over the rows of a pass, and running ones are
kept for predictions; with 'layer', they are those of a row over its units.
"""

from __future__ import annotations

import numpy as np

from cmlp.core import layout, vocabulary

BATCH = vocabulary.NORMALIZATIONS.index("batch")


def _vectors(layer, flat):
    """Gamma, and with 'batch' the running mean and variance, of one layer."""
    return layout.normalization_views(layer[None], flat)[0]


def _beta(layer, flat):
    return flat[layer[layout.BIAS] :][: layer[layout.N_OUT]]


def normalise(layer, params, z):
    """Return y, and what backpropagation and the running statistics need.

    That is: zhat, the inverse roots, mean and variance.
    """
    gamma = _vectors(layer, params)[0]
    axis = 0 if layer[layout.NORMALIZATION] == BATCH else 1
    mean, variance = z.mean(axis, keepdims=True), z.var(axis, keepdims=True)
    inverse = 1 / np.sqrt(variance + z.dtype.type(layout.epsilon_of(layer)))
    zhat = (z - mean) * inverse
    return gamma * zhat + _beta(layer, params), (zhat, inverse, mean, variance)


def normalise_by_running(layer, params, z):
    """Return y of a layer with 'batch' by its running statistics, as predictions use them."""
    gamma, mean, variance = _vectors(layer, params)
    eps = params.dtype.type(layout.epsilon_of(layer))
    return gamma * (z - mean) / np.sqrt(variance + eps) + _beta(layer, params)


def normalised_delta(layer, params, grads, delta, kept):
    """Return dC/dz of a normalised layer from dC/dy; add the gradients of gamma and beta."""
    zhat, inverse, *_ = kept
    gamma, dgamma = _vectors(layer, params)[0], _vectors(layer, grads)[0]
    dgamma += (delta * zhat).sum(axis=0)
    dbeta = _beta(layer, grads)
    dbeta += delta.sum(axis=0)
    axis = 0 if layer[layout.NORMALIZATION] == BATCH else 1
    dzhat = gamma * delta
    along = (dzhat * zhat).mean(axis, keepdims=True)
    return inverse * (dzhat - dzhat.mean(axis, keepdims=True) - zhat * along)


def track_statistics(plan, params, kept):
    """Update the running mean and variance, pass by pass, with the unbiased variance of a pass."""
    if plan[0, layout.NORMALIZATION] != BATCH:
        return
    rate = params.dtype.type(vocabulary.NORMALIZATION_MOMENTUM)
    for of_pass in kept:
        hidden = zip(layout.layers_of(plan)[:-1], of_pass[:-1], strict=True)
        for layer, (zhat, _, mean, variance) in hidden:
            _, running_mean, running_variance = _vectors(layer, params)
            n = len(zhat)
            if n > 1:
                running_mean += rate * (mean[0] - running_mean)
                running_variance += rate * (variance[0] * (n / (n - 1)) - running_variance)
