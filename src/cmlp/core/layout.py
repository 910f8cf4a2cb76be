"""Where each layer's numbers lie in the flat vector of parameters.

A network is laid out by its plan, one row of integers per layer; parameters, gradients and moments
are flat vectors with the same layout. Rows after those of the layers describe what happens to X's
columns before the first layer; see ``front``.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cmlp.core.vocabulary import (
    NARROW_LAYER,
    NORMALIZATION_EPS,
    NORMALIZATION_VECTORS,
    NORMALIZATIONS,
    PRECISIONS,
    activation_of,
)

Array = NDArray[Any]

# Memory ------------------------------------------------------------------------------------------

ALIGNMENT = 64
"""Bytes that each row of numbers is padded to: one cache line, one AVX-512 vector."""


def address(array: Array) -> int:
    """Return where the first number lies, without ``array.ctypes``: that imports ctypes."""
    where: int = array.__array_interface__["data"][0]
    return where


def aligned(shape: tuple[int, ...], dtype: Any) -> Array:
    """Return zeros from a multiple of ALIGNMENT on: no vector lies across two cache lines."""
    dtype = np.dtype(dtype)
    size = math.prod(shape) * dtype.itemsize
    raw = np.zeros(size + ALIGNMENT, np.uint8)
    start = -address(raw) % ALIGNMENT
    zeros: Array = raw[start : start + size].view(dtype)
    return zeros.reshape(shape)


# The plan ----------------------------------------------------------------------------------------

(
    N_IN, N_OUT, STRIDE, WEIGHTS, BIAS, ACTIVATION, UNITS, NORMALIZATION, SCALE, ALPHA, PARAMETER,
    EPSILON, PRECISION,
) = range(13)  # fmt: skip
"""Columns of the plan: fan-in, fan-out, padded fan-out, offsets of W and b in the parameters,
activation code, offset of the layer's units in a record of one row; code of the normalisation and,
if there is one, offset of its vectors: gamma, and with 'batch' the running mean and variance. A
normalised layer's b is beta, which is added after the normalisation. Then the offset of the alphas
of a parametric activation, 0 if there are none. Two hold the bits of a double: the activation's
parameter (see ``vocabulary.activation_of``), and the epsilon of the normalisation. The last one is
the code of the precision of the layer's products.

The parameters lie in this order: W and b of layer after layer, the vectors of the normalisation of
all layers, the alphas of all layers; then the arrays of a front."""


FRONT_AT, FRONT_END, FRONT_SUMMED = 7, 8, -4
"""Of the rows after the layers, columns with the offsets of their arrays in the parameters, begin
and end; and what N_IN is of those whose tables are added to the first layer's sums."""


def make_plan(
    sizes: Iterable[int],
    activations: Iterable[str],
    dtype: Any,
    normalization: str | None = None,
    parametric: bool = False,
    epsilon: float = NORMALIZATION_EPS,
    precision: str | None = None,
) -> NDArray[np.int64]:
    """Lay a network out: one row per layer, the columns named above.

    Returns
    -------
    ndarray of int64, shape (n_layers, 13)
    """
    sizes = tuple(sizes)
    lanes = ALIGNMENT // int(np.dtype(dtype).itemsize)

    def padded(n: int) -> int:
        return -(-n // lanes) * lanes

    plan = np.zeros((len(sizes) - 1, PRECISION + 1), np.int64)
    numbers = plan.view(np.float64)
    offset = units = 0
    for layer, ((n_in, n_out), name) in enumerate(zip(pairwise(sizes), activations, strict=True)):
        stride = padded(n_out)
        activation = activation_of(name)
        bias = offset + n_in * stride
        plan[layer, : UNITS + 1] = n_in, n_out, stride, offset, bias, activation.code, units
        numbers[layer, PARAMETER] = activation.parameter
        offset = bias + stride
        units += stride
    plan[:-1, NORMALIZATION] = NORMALIZATIONS.index(normalization)
    plan[:-1, ALPHA] = parametric
    if normalization is not None:
        numbers[:-1, EPSILON] = epsilon
    plan[plan[:, N_OUT] > NARROW_LAYER, PRECISION] = PRECISIONS.index(precision)
    _place_vectors(plan)
    return plan


def _place_vectors(plan: NDArray[np.int64]) -> None:
    """Find the offsets of scales and alphas, which lie after all weights and biases."""
    offset = int(plan[-1, BIAS] + plan[-1, STRIDE])
    for layer in plan:
        layer[SCALE] = offset if layer[NORMALIZATION] else 0
        offset += _n_vectors(layer) * int(layer[STRIDE])
    for layer in plan:
        if layer[ALPHA]:
            layer[ALPHA] = offset
            offset += int(layer[STRIDE])


def _n_vectors(layer: NDArray[np.int64]) -> int:
    """Return how many vectors a layer's normalisation has."""
    return len(NORMALIZATION_VECTORS[NORMALIZATIONS[layer[NORMALIZATION]]])


def parameter_of(layer: NDArray[np.int64]) -> float:
    """Return the parameter of a layer's activation."""
    return float(layer.view(np.float64)[PARAMETER])


def epsilon_of(layer: NDArray[np.int64]) -> float:
    """Return what a layer's normalisation adds to a variance."""
    return float(layer.view(np.float64)[EPSILON])


def layers_of(plan: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the rows of the layers, a view: those of the front, after them, have no fan-in."""
    if plan[-1, N_IN] > 0:
        return plan
    return plan[: np.count_nonzero(plan[:, N_IN] > 0)]


def params_size(plan: NDArray[np.int64]) -> int:
    """Return how many numbers the parameters of a plan are, with the padding."""
    if plan[-1, N_IN] <= 0:
        return int(plan[len(layers_of(plan)) :, FRONT_END].max())
    extra = sum((_n_vectors(layer) + bool(layer[ALPHA])) * int(layer[STRIDE]) for layer in plan)
    return int(plan[-1, BIAS] + plan[-1, STRIDE]) + extra


# Views into a flat vector ------------------------------------------------------------------------


def layer_views(plan: NDArray[np.int64], flat: Array) -> list[tuple[Array, Array]]:
    """Cut the weights, (n_in, n_out), and the bias, (n_out,), of each layer."""
    views = []
    for row in layers_of(plan).tolist():
        n_in, n_out, stride, at, bias = (
            row[column] for column in (N_IN, N_OUT, STRIDE, WEIGHTS, BIAS)
        )
        weights = flat[at : at + n_in * stride].reshape(n_in, stride)[:, :n_out]
        views.append((weights, flat[bias : bias + n_out]))
    return views


def normalization_views(plan: NDArray[np.int64], flat: Array) -> list[tuple[Array, ...]]:
    """Cut the vectors of each normalised layer: gamma, with 'batch' the running statistics too."""
    return [
        tuple(
            flat[at : at + layer[N_OUT]]
            for at in layer[SCALE] + layer[STRIDE] * np.arange(_n_vectors(layer))
        )
        for layer in layers_of(plan)
        if layer[NORMALIZATION]
    ]


def alpha_views(plan: NDArray[np.int64], flat: Array) -> list[Array]:
    """Cut alpha, (n_out,), of each layer whose activation is parametric."""
    return [flat[layer[ALPHA] :][: layer[N_OUT]] for layer in layers_of(plan) if layer[ALPHA]]


def summed_views(plan: NDArray[np.int64], flat: Array) -> list[Array]:
    """Cut the tables that are added to the first layer's sums, (rows, units) each."""
    return [
        flat[row[FRONT_AT] : row[FRONT_END]].reshape(-1, plan[0, STRIDE])[:, : plan[0, N_OUT]]
        for row in plan[len(layers_of(plan)) :]
        if row[N_IN] == FRONT_SUMMED
    ]


def folded(plan: NDArray[np.int64], params: Array) -> tuple[NDArray[np.int64], Array]:
    """Return a plan and parameters that predict the same without 'batch' normalisation.

    gamma (a W - mean) / sqrt(variance + eps) + beta is a sum with other weights and another bias.
    A network without 'batch' is returned as it is.
    """
    if plan[0, NORMALIZATION] != NORMALIZATIONS.index("batch"):
        return plan, params
    plain, n_layers = plan.copy(), len(layers_of(plan))
    plain[:n_layers, [NORMALIZATION, EPSILON]] = 0
    _place_vectors(plain[:n_layers])
    size, begin = params_size(plain[:n_layers]), params_size(plan[:n_layers])
    plain[n_layers:, [FRONT_AT, FRONT_END]] -= begin - size
    flat = aligned((params_size(plain),), params.dtype)
    layers = int(plain[n_layers - 1, BIAS] + plain[n_layers - 1, STRIDE])
    flat[:layers], flat[size:] = params[:layers], params[begin:]
    for mine, theirs in zip(alpha_views(plain, flat), alpha_views(plan, params), strict=True):
        mine[...] = theirs
    hidden = zip(layer_views(plain, flat)[:-1], normalization_views(plan, params), strict=True)
    for number, ((W, b), (gamma, mean, variance)) in enumerate(hidden):
        factor = gamma / np.sqrt(variance.astype(np.float64) + epsilon_of(plan[number]))
        tables = summed_views(plain, flat) if number == 0 else []
        for part in (W, *tables):
            np.multiply(part, factor, out=part, casting="same_kind")
        np.subtract(b, mean * factor, out=b, casting="same_kind")
    return plain, flat
