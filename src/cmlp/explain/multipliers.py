"""Multipliers: how much an answer changes per change of the first layer's sums, for pairs of rows.

Of a row x and a row b of the background, a multiplier m has ``sum of m (z_x - z_b) = answer(x) -
answer(b)``. There are two kinds:

- rescale (DeepLIFT; Shrikumar et al. 2017): each activation's is ``(a_x - a_b) / (z_x - z_b)``,
  and multipliers of layers follow each other as slopes do in the chain rule;
- integrated gradients (Sundararajan et al. 2017): the mean slope along the line from b to x, by
  Gauss and Legendre's nodes.

Between two equal rows both are the slope.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from cmlp.core.layout import Array
from cmlp.explain.unrolled import SMOOTH, SOFTMAX, Layer, Numbers, Unrolled, centred_rows


def rescale(unrolled: Unrolled, ones: list[Numbers], others: list[Numbers]) -> Array:
    """Return the multipliers of the rescale rule, (answers, rows, others, units).

    Parameters
    ----------
    ones : list of Numbers
        Rows to explain, with an axis for the others, (rows, 1, units) of each layer.
    others : list of Numbers
        Rows of the background, (others, units).
    """
    layers = unrolled.layers
    factors, norms = [], []
    for layer, one, other in zip(layers[:-1], ones, others, strict=False):
        factors.append(_quotient(layer, one, other))
        norms.append(None if layer.gamma is None else _norm(layer, one.z, other.z))
    top = _top(unrolled, ones[-1], other=others[-1])
    shape = np.broadcast_shapes(ones[0].z.shape, others[0].z.shape)
    return _backward(layers, top, factors, norms, shape)


def integrated(
    unrolled: Unrolled, ones: list[Numbers], others: list[Numbers], nodes: tuple[Array, Array]
) -> Array:
    """Return the mean slopes along the lines from the others to the rows, in the same shape.

    Parameters
    ----------
    nodes : (ndarray, ndarray)
        Places on a line, from 0 to 1, and their weights.
    """
    layers = unrolled.layers
    bias = layers[0].b if layers[0].gamma is None else 0
    begin, step = others[0].z - bias, ones[0].z - others[0].z
    shape = step.shape
    total: Any = None
    for place, weight in zip(*nodes, strict=True):
        points = unrolled.forward((begin + place * step).reshape(-1, shape[-1]))
        points = [each.each(lambda part: part.reshape(*shape[:-1], -1)) for each in points]
        norms = [
            None if layer.gamma is None else _norm(layer, point.z, point.z)
            for layer, point in zip(layers[:-1], points, strict=False)
        ]
        factors = [point.slope for point in points[:-1]]
        top = _top(unrolled, points[-1], other=None)
        part = _backward(layers, weight * top, factors, norms, shape)
        total = np.array(part) if total is None else np.add(total, part, out=total)
    return np.asarray(total)


def gauss_legendre(n: int, dtype: Any) -> tuple[Array, Array]:
    """Return n places between 0 and 1, and their weights, whose sum is 1."""
    nodes, weights = np.polynomial.legendre.leggauss(n)
    return ((nodes + 1) / 2).astype(dtype), (weights / 2).astype(dtype)


# Back through the layers --------------------------------------------------------------------------


def _backward(
    layers: list[Layer], top: Array, factors: list[Array], norms: list[Any], shape: tuple[int, ...]
) -> Array:
    """Return the multipliers of the first layer's sums, from those of the last one's."""
    m = top
    for number in range(len(layers) - 1, 0, -1):
        W, below = layers[number].W, layers[number - 1]
        m = (m.reshape(-1, W.shape[1]) @ W.T).reshape(*m.shape[:-1], W.shape[0])
        factor = factors[number - 1]
        wide = m.shape[1:] == factor.shape  # in place saves the time of another array
        m = np.multiply(m, factor, out=m) if wide else m * factor
        if below.gamma is not None:
            m = _through_norm(m * below.gamma, *norms[number - 1])
    return np.broadcast_to(m, (len(m), *shape))


def _top(unrolled: Unrolled, one: Numbers, other: Numbers | None) -> Array:
    """Return the multipliers of the last layer's sums, (answers, rows or 1, others or 1, n_out).

    Without `other`, they are slopes.
    """
    dtype = one.z.dtype
    answers, last = unrolled.answers, unrolled.layers[-1]
    m = answers.matrix.T.astype(dtype)[:, None, None]
    if not answers.activated:
        return m
    if last.code != SOFTMAX:
        return np.asarray(m * (one.slope if other is None else _quotient(last, one, other)))
    shares, weights = _softmax(one.y, one.y if other is None else other.y)
    m = m * shares
    return np.asarray(m - weights * m.sum(axis=-1, keepdims=True))


# Rules --------------------------------------------------------------------------------------------


def _quotient(layer: Layer, one: Numbers, other: Numbers) -> Array:
    """Return (a_x - a_b) / (y_x - y_b); between points that are close, the mean of their slopes.

    A quotient of small differences loses digits, and the mean of two slopes is as far from it as
    the third power of the distance. Of a kinked function, only rounding itself is a reason.
    """
    step = one.y - other.y
    eps = float(np.finfo(step.dtype).eps)
    near = np.abs(step) <= (eps ** (1 / 3) if layer.code in SMOOTH else eps)
    rise = one.a - other.a
    with np.errstate(all="ignore"):
        np.divide(rise, step, out=rise)
    if near.any():
        means = (one.slope + other.slope) / 2
        np.copyto(rise, means, where=near)
    return rise


def _norm(layer: Layer, z: Array, other: Array) -> tuple[Array, Array, Array]:
    """Return what :func:`_through_norm` needs of two rows' sums.

    That is: the mean of both centred rows, of both inverse deviations r, and the latter's change
    per change of the variance, ``(r - r') / (v - v') = -(r r')^2 / (r + r')``.
    """
    (c, r), (d, s) = (centred_rows(each, layer.epsilon) for each in (z, other))
    return (c + d) / 2, (r + s) / 2, -((r * s) ** 2) / (r + s)


def _through_norm(m: Array, centred: Array, inverse: Array, fall: Array) -> Array:
    """Return multipliers of sums z, from those of zhat = c r, with c = z - mean(z), r = r(v(c)).

    A change of a product is ``dc mean(r) + mean(c) dr``; that of v = mean(c^2) is ``mean(2 mean(c)
    dc)``: both exactly, and in the limit they are the slopes.
    """
    along = (m * centred).sum(axis=-1, keepdims=True) * (2 * fall / m.shape[-1])
    m = m * inverse + along * centred
    return np.asarray(m - m.mean(axis=-1, keepdims=True))


def _softmax(z: Array, other: Array) -> tuple[Array, Array]:
    """Return multipliers of p = exp(z - L), L = log sum exp(z): dp = s (dz - sum of w dz).

    Each exponential's and the logarithm's is a quotient of differences, a logarithmic mean, which
    does not change if a number is added to all z. Between equal rows s and w are p.
    """
    L, M = (_log_sum(each) for each in (z, other))
    largest = np.maximum(L, M)
    sums = _log_mean(L - largest, M - largest)
    return _log_mean(z - L, other - M), _log_mean(z - largest, other - largest) / sums


def _log_sum(z: Array) -> Array:
    """Return the logarithm of the sum of the exponentials, along the last axis."""
    largest = z.max(axis=-1, keepdims=True)
    return np.asarray(largest + np.log(np.exp(z - largest).sum(axis=-1, keepdims=True)))


def _log_mean(u: Array, v: Array) -> NDArray[Any]:
    """Return (exp(u) - exp(v)) / (u - v), their exponentials' logarithmic mean."""
    gap = np.abs(u - v)
    with np.errstate(all="ignore"):
        share = np.where(gap > 0, -np.expm1(-gap) / gap, gap.dtype.type(1))
    return np.asarray(np.exp(np.maximum(u, v)) * share)
