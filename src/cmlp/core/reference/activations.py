"""Activations: a from z, and da/dz from z and a."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from cmlp.core import vocabulary

_cumulative_normal = np.frompyfunc(lambda z: 0.5 * math.erfc(-z / math.sqrt(2.0)), 1, 1)


def _logistic(z):
    e = np.exp(-np.abs(z))  # never above 1: no overflow on either side
    return np.where(z >= 0, 1, e) / (1 + e)


def _softplus(z):
    return np.maximum(z, 0) + np.log1p(np.exp(-np.abs(z)))


def _normal_cdf(z):
    return np.asarray(_cumulative_normal(z), dtype=z.dtype)


def _normal_pdf(z):
    return np.exp(-0.5 * z * z) / math.sqrt(2.0 * math.pi)


def _softmax(z):
    e = np.exp(z - z.max(axis=-1, keepdims=True))
    return e / e.sum(axis=-1, keepdims=True)


def _exp_below_zero(z):
    return np.expm1(np.minimum(z, 0))


def _bounded(z, high=None):
    """Keep infinity away from products with 0, where a smooth rectifier has a finite limit."""
    limits = np.finfo(z.dtype)
    return np.clip(z, limits.min, limits.max if high is None else high)


def _gelu_slope(z, a):
    z = _bounded(z)
    return _normal_cdf(z) + z * _normal_pdf(z)


def _silu_slope(z, a):
    z, s = _bounded(z), _logistic(z)
    return s * (1 + z * (1 - s))


def _mish_slope(z, a):
    z, t = _bounded(z), np.tanh(_softplus(z))
    return t + z * _logistic(z) * (1 - t * t)


_ELU_FLOOR = vocabulary.SELU_SCALE * vocabulary.SELU_ALPHA


_FUNCTIONS: dict[str, Any] = {
    "identity": (lambda z: z.copy(), lambda z, a: np.ones_like(a)),
    "logistic": (_logistic, lambda z, a: a * (1 - a)),
    "tanh": (np.tanh, lambda z, a: 1 - a * a),
    "relu": (lambda z: np.maximum(z, 0), lambda z, a: np.where(a > 0, 1, 0)),
    "leaky_relu": (
        lambda z, slope: np.where(z > 0, z, slope * z),
        lambda z, a, slope: np.where(a > 0, 1, slope),
    ),
    "elu": (
        lambda z, alpha: np.where(z > 0, z, alpha * _exp_below_zero(z)),
        lambda z, a, alpha: np.where(a > 0, 1, a + alpha),
    ),
    "selu": (
        lambda z: np.where(z > 0, vocabulary.SELU_SCALE * z, _ELU_FLOOR * _exp_below_zero(z)),
        lambda z, a: np.where(a > 0, vocabulary.SELU_SCALE, a + _ELU_FLOOR),
    ),
    "gelu": (lambda z: _bounded(z, np.inf) * _normal_cdf(z), _gelu_slope),
    "silu": (lambda z: _bounded(z, np.inf) * _logistic(z), _silu_slope),
    "mish": (lambda z: _bounded(z, np.inf) * np.tanh(_softplus(z)), _mish_slope),
    "softplus": (_softplus, lambda z, a: _logistic(z)),
    "hard_sigmoid": (
        lambda z: np.clip(z / 6 + 0.5, 0, 1),
        lambda z, a: np.where((a > 0) & (a < 1), 1 / 6, 0),
    ),
    "exp": (np.exp, lambda z, a: a),
    "softmax": (_softmax, None),  # not elementwise: see losses.output_delta
}


CODES = {row.name: row.code for row in vocabulary.ACTIVATIONS}


_BY_CODE = {CODES[key]: functions for key, functions in _FUNCTIONS.items()}


_WITH_PARAMETER = {CODES[key] for key in vocabulary.ACTIVATION_PARAMETERS}


def function(code, parameter, z):
    """Return a = f(z)."""
    more = (parameter,) if code in _WITH_PARAMETER else ()
    return _BY_CODE[code][0](z, *more)


def slope(code, parameter, z, a):
    """Return da/dz from z and a; not of softmax, which is not elementwise."""
    more = (parameter,) if code in _WITH_PARAMETER else ()
    return _BY_CODE[code][1](z, a, *more)


@np.errstate(all="ignore")
def activate(code, values, parameter=0.0):
    """Replace the numbers in ``values[0]`` by their activation, fill ``values[1]`` with da/dz."""
    z = values[0].copy()
    values[0] = function(code, parameter, z)
    values[1] = slope(code, parameter, z, values[0])
