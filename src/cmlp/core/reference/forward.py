"""Forward propagation: z = a_before W + b and a = f(z), layer by layer."""

from __future__ import annotations

from typing import Any

import numpy as np

from cmlp.core import layout, seam
from cmlp.core.layout import Array
from cmlp.core.reference.activations import CODES, function, slope
from cmlp.core.reference.bfloat16 import operands
from cmlp.core.reference.front import Expanded, expand, noisy_columns
from cmlp.core.reference.gather import gather, passes
from cmlp.core.reference.noise import bell, dropout_scale, key_of
from cmlp.core.reference.normalization import BATCH, normalise, normalise_by_running
from cmlp.core.reference.parametric import bend


class Stopped(Exception):
    """Another thread has ended the call."""


def raise_if_stopped(team: seam.Places | None) -> None:
    """Raise Stopped if another thread has ended the call."""
    if team is not None and team[seam.TEAM_STOP]:
        raise Stopped


def propagate(
    plan: Array,
    params: Array,
    x: Array,
    noise: seam.Noise | None = None,
    step: int = 0,
    first_row: int = 0,
    kept: list[Any] | None = None,
    running: bool = False,
    team: seam.Places | None = None,
    differences: list[Any] | None = None,
    fronts: list[Expanded] | None = None,
) -> tuple[Array, list[Array], list[Array], list[Any]]:
    """Return x with its noise, and per layer the z, the a and the da/dz, all (rows, n_out).

    With a front, x is what the first layer gets of it, and all of it is appended to `fronts`.

    Of a normalised layer, z is what the activation is applied to; `kept` is filled with what
    backpropagation needs of each layer, or None, and `differences` with da/dalpha, or None. With
    'batch', the statistics are those of the rows, or the `running` ones. Of softmax, da/dz is None.
    """
    zs, activations, slopes = [], [], []
    if noise is not None and noise.input_noise:
        deviations = bell(x.shape, key_of(noise.seed, step, 0), first_row)
        deviations = deviations * noisy_columns(plan)
        x = x + np.asarray(noise.input_noise * deviations, dtype=x.dtype)
    sums = None
    layers = layout.layers_of(plan)
    if len(layers) < len(plan):
        expanded = expand(plan, params, x)
        x, sums = expanded.inputs, expanded.sums
        if fronts is not None:
            fronts.append(expanded)
    a = x
    for number, (layer, (W, b)) in enumerate(
        zip(layers, layout.layer_views(plan, params), strict=True)
    ):
        raise_if_stopped(team)
        normalised = None
        a, W = operands(layer, a, W)
        product = a @ W if number or sums is None else a @ W + sums
        if running and layer[layout.NORMALIZATION] == BATCH:
            z = normalise_by_running(layer, params, product)
        elif layer[layout.NORMALIZATION]:
            z, normalised = normalise(layer, params, product)
        else:
            z = product + b
        if kept is not None:
            kept.append(normalised)
        (a, da), difference = _activate(layer, z), None
        if layer[layout.ALPHA]:
            a, da, difference = bend(layer, params, z, a, da)
        if noise is not None and number < len(noise.dropout) and noise.dropout[number]:
            key, rate = key_of(noise.seed, step, number + 1), noise.dropout[number]
            scale = np.asarray(dropout_scale(a.shape, key, rate, first_row), dtype=a.dtype)
            a, da = a * scale, da * scale
            difference = None if difference is None else difference * scale
        if differences is not None:
            differences.append(difference)
        zs.append(z)
        activations.append(a)
        slopes.append(da)
    return x, zs, activations, slopes


def _activate(layer, z):
    """a and da/dz, both in z's dtype; da/dz of softmax is None."""
    code, parameter = int(layer[layout.ACTIVATION]), layout.parameter_of(layer)
    a = np.asarray(function(code, parameter, z), dtype=z.dtype)
    if code == CODES["softmax"]:
        return a, None
    return a, np.asarray(slope(code, parameter, z, a), dtype=z.dtype)


@np.errstate(all="ignore")
def forward(plan, params, X, z, a, workspace, input_scale=1.0):
    """Write every layer's weighted sums and activations to the records `z` and `a`.

    A record has one row per row of X; layer l's units start at column ``plan[l, UNITS]``.
    """
    for start, stop, part in passes(X, None):
        _, zs, activations, _ = propagate(
            plan, params, gather(X, part, input_scale, params.dtype), running=True
        )
        for record, values in ((z, zs), (a, activations)):
            write_record(plan, record[start:stop], values)


def write_record(plan, record, values):
    """Write each layer's values to its columns of a record."""
    for layer, value in zip(layout.layers_of(plan), values, strict=True):
        record[:, layer[layout.UNITS] : layer[layout.UNITS] + layer[layout.N_OUT]] = value


def product(n, depth, width, arrays, repeats=1):
    """Multiply two matrices as the layers do, for measurements.

    `arrays` holds (n, depth), (depth, width) and the result (n, width), one after the other, and
    then room for a copy: ``min(depth, 2048) * 64`` numbers. There are two rows at least, and
    `width` is a multiple of 64 bytes.
    """
    a, b, out = np.split(arrays, np.cumsum([n * depth, depth * width, n * width]))[:3]
    for _ in range(repeats):
        np.matmul(a.reshape(n, depth), b.reshape(depth, width), out=out.reshape(n, width))


def multiply_adds(rounds, *, double_precision=False):
    """Multiply and add as fast as NumPy can; returns the floating-point operations done."""
    square = np.ones((128, 128), np.float64 if double_precision else np.float32)
    products = rounds // 4096 + 1  # a compiled core does about 512 in a round
    for _ in range(products):
        square @ square
    return 2.0 * products * 128**3


def largest(array):
    """Return the largest absolute value of a flat array; NaN if there is one.

    One pass of the memory, where NumPy takes two and a copy of the absolute values.
    """
    return float(np.maximum(-array.min(initial=0), array.max(initial=0)))
