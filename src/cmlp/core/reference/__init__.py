"""The network's arithmetic in NumPy: fallback, oracle and textbook.

This module and ``_core.pyx`` are twins: same functions, same parameters, same numbers up to
rounding. This one says each step the short way; read it first. Names: ``z`` is a layer's weighted
sum, ``a`` its activation, ``delta`` is dC/dz, the derivative of the cost by the weighted sum, and
a gradient is ``d`` and the name of what it belongs to.

A network is a ``plan`` (one row of integers per layer, see ``_spec.make_plan``) and ``params``, one
flat vector that holds each layer's weights W, (n_in, n_out), and bias b, (n_out,). Rows are padded
to 64 bytes with zeros; the padding takes part in nothing.

Everything is checked and allocated by the callers. ``workspace`` is scratch of the compiled twin;
here NumPy allocates.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np

from cmlp.core import arrays, layout, seam, vocabulary

name = "python"


vector_bytes = 0


_quiet = np.errstate(all="ignore")
"""Overflow is reported once, above, by what it did to the loss; the compiled twin is silent too."""


# Activations: a from z, and da/dz from z and a ---------------------------------------------------

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
        lambda z: np.where(z > 0, z, vocabulary.LEAKY_SLOPE * z),
        lambda z, a: np.where(a > 0, 1, vocabulary.LEAKY_SLOPE),
    ),
    "elu": (
        lambda z: np.where(z > 0, z, _exp_below_zero(z)),
        lambda z, a: np.where(a > 0, 1, a + 1),
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
    "softmax": (_softmax, None),  # not elementwise: see _output_delta
}


_CODES = {row.name: row.code for row in vocabulary.ACTIVATIONS}


_ACTIVATE = {_CODES[key]: f for key, (f, _) in _FUNCTIONS.items()}


_SLOPE = {_CODES[key]: df for key, (_, df) in _FUNCTIONS.items()}


_SOFTMAX, _LOGISTIC, _EXP = _CODES["softmax"], _CODES["logistic"], _CODES["exp"]


@_quiet
def activate(code, values):
    """Replace the numbers in ``values[0]`` by their activation, fill ``values[1]`` with da/dz."""
    z = values[0].copy()
    values[0] = _ACTIVATE[code](z)
    values[1] = _SLOPE[code](z, values[0])


# Losses: the cost of each row, and delta = dC/dz of the output layer ------------------------------

(_SQUARED, _ABSOLUTE, _HUBER, _BINARY, _CATEGORICAL, _POISSON, _QUANTILE) = (
    row.code for row in vocabulary.LOSSES
)


def _x_log_y(x, y):
    return np.where(x == 0, 0, x * np.log(np.where(x == 0, 1, y)))


def _from_logits(loss, out_activation):
    """Whether loss and output activation belong together: cost from z, delta = a - y."""
    return (loss, out_activation) in (
        (_BINARY, _LOGISTIC),
        (_CATEGORICAL, _SOFTMAX),
        (_POISSON, _EXP),
    )


def _cost(objective, out_activation, z, a, y):
    """Cost of each row, (rows,). Cross-entropies never take the log of a rounded probability."""
    cost = _output_costs(objective, out_activation, z, a, y)
    return _without_missing(objective, y, cost).sum(axis=1)


def _without_missing(objective, y, values):
    """The values of the outputs, 0 where the target is NaN and that means missing."""
    return np.where(np.isnan(y), 0, values) if objective.missing else values


def _output_costs(objective, out_activation, z, a, y):
    loss, parameter = objective.loss, objective.parameter
    eps = np.finfo(a.dtype).eps
    r = a - y
    if loss == vocabulary.EXTERNAL_LOSS:
        return np.zeros_like(a)
    if _from_logits(loss, out_activation):
        if loss == _BINARY:
            # -(y log p + (1 - y) log(1 - p)) with p = logistic(z); small terms to small terms
            cost = (np.maximum(z, 0) - y * z) + np.log1p(np.exp(-np.abs(z)))
        elif loss == _CATEGORICAL:
            shifted = z - z.max(axis=1, keepdims=True)
            # the logarithm of a sum whose largest term is 1; small terms to small terms
            rest = np.where(shifted == 0, 0, np.exp(shifted))
            rest = rest.sum(axis=1, keepdims=True, dtype=np.float64)
            rest += np.count_nonzero(shifted == 0, axis=1, keepdims=True) - 1
            cost = np.where(y == 0, 0, y * (np.log1p(rest) - shifted))
        else:
            d = z - np.log(np.where(y > 0, y, 1))
            cost = np.where(y > 0, y * (np.expm1(d) - d), a)
    elif loss == _SQUARED:
        cost = 0.5 * r * r
    elif loss == _ABSOLUTE:
        cost = np.abs(r)
    elif loss == _HUBER:
        size = np.abs(r)
        cost = np.where(size <= parameter, 0.5 * r * r, parameter * (size - 0.5 * parameter))
    elif loss == _BINARY:
        p = np.clip(a, eps, 1 - eps)
        cost = -(y * np.log(p) + (1 - y) * np.log(1 - p))
    elif loss == _CATEGORICAL:
        cost = -y * np.log(np.maximum(a, eps))
    elif loss == _POISSON:
        cost = a - y + _x_log_y(y, y / np.maximum(a, eps))
    else:
        cost = np.maximum(-parameter * r, (1 - parameter) * r)
    return cost


def _cost_slope(objective, a, y):
    """dC/da of each row."""
    loss, parameter = objective.loss, objective.parameter
    eps = np.finfo(a.dtype).eps
    r = a - y
    if loss == vocabulary.EXTERNAL_LOSS:
        return y
    if loss == _SQUARED:
        return r
    if loss == _ABSOLUTE:
        return np.sign(r)
    if loss == _HUBER:
        return np.clip(r, -parameter, parameter)
    if loss == _BINARY:
        p = np.clip(a, eps, 1 - eps)
        return (p - y) / (p * (1 - p))
    if loss == _CATEGORICAL:
        return -y / np.maximum(a, eps)
    if loss == _POISSON:
        return 1 - y / np.maximum(a, eps)
    return np.where(r > 0, 1 - parameter, np.where(r < 0, -parameter, r))  # r: 0 or NaN


def _output_delta(objective, out_activation, z, a, y):
    """dC/dz of the output layer, row by row: where backpropagation starts."""
    if _from_logits(objective.loss, out_activation):
        return _without_missing(objective, y, a - y)
    da = _without_missing(objective, y, _cost_slope(objective, a, y))
    if out_activation == _SOFTMAX:  # every output depends on every weighted sum of its row
        return a * (da - (da * a).sum(axis=1, keepdims=True))
    return da * _SLOPE[out_activation](z, a)


# Randomness: a hash of (seed, step, stream, row, unit), so that both twins draw the same ---------

_MASK64 = (1 << 64) - 1


def _key(seed, step, stream):
    """Two 32-bit words from the seed, the step and the stream (splitmix64's finaliser)."""
    x = (seed + 0x9E3779B97F4A7C15 * (step + 1) + 0xD1B54A32D192ED03 * (stream + 1)) & _MASK64
    x = ((x ^ (x >> 30)) * 0xBF58476D1CE4E5B9) & _MASK64
    x = ((x ^ (x >> 27)) * 0x94D049BB133111EB) & _MASK64
    x ^= x >> 31
    return np.uint32(x & 0xFFFFFFFF), np.uint32(x >> 32)


def _hash(counter, key):
    """Mix 32-bit counters with the key: every output bit depends on every input bit."""
    low, high = key
    x = counter + low
    x ^= x >> np.uint32(16)
    x *= np.uint32(0x21F0AAAD)
    x ^= x >> np.uint32(15)
    x ^= high
    x *= np.uint32(0x735A2D97)
    x ^= x >> np.uint32(15)
    x *= np.uint32(0x9E3779B1)
    x ^= x >> np.uint32(16)
    return x


def _counters(shape, first_row):
    """One number per row and unit; it goes on where the part of a batch begins."""
    n_rows, n_units = shape
    number = np.arange(first_row * n_units, (first_row + n_rows) * n_units, dtype=np.int64)
    return number.astype(np.uint32).reshape(shape)


def _bell(shape, key, first_row):
    """Nearly normal numbers: the sum of eight uniform bytes, scaled to mean 0 and variance 1."""
    counter = _counters(shape, first_row) * np.uint32(2)
    total = np.zeros(shape, np.int64)
    for half in (0, 1):
        h = _hash(counter + np.uint32(half), key)
        for shift in (0, 8, 16, 24):
            total += (h >> np.uint32(shift)) & np.uint32(255)
    return (total - 1020) / math.sqrt(8 * (256**2 - 1) / 12)


def _dropout_scale(shape, key, rate, first_row):
    """0 where a unit is switched off, 1 / (1 - rate) where it is kept."""
    kept = _hash(_counters(shape, first_row), key) >= np.uint32(int(rate * 2**32))
    return kept / (1.0 - rate)


# Forward propagation -----------------------------------------------------------------------------


def _layers(plan, flat) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """The weights and the bias of each layer, as views into a flat vector."""
    for layer in plan:
        n_in, n_out, stride = layer[layout.N_IN], layer[layout.N_OUT], layer[layout.STRIDE]
        w, b = layer[layout.WEIGHTS], layer[layout.BIAS]
        yield flat[w : w + n_in * stride].reshape(n_in, stride)[:, :n_out], flat[b : b + n_out]


def _normalise(layer, params, z):
    """gamma zhat + beta with zhat = (z - mean) / sqrt(variance + eps); see _spec.NORMALIZATIONS.

    Returns it, and what backpropagation and the running statistics need: zhat, the inverse roots,
    mean and variance.
    """
    ((gamma, *_),) = layout.normalization_views(layer[None], params)
    beta = params[layer[layout.BIAS] :][: layer[layout.N_OUT]]
    axis = 0 if layer[layout.NORMALIZATION] == _BATCH_NORMALIZATION else 1
    mean, variance = z.mean(axis, keepdims=True), z.var(axis, keepdims=True)
    inverse = 1 / np.sqrt(variance + z.dtype.type(vocabulary.NORMALIZATION_EPS))
    zhat = (z - mean) * inverse
    return gamma * zhat + beta, (zhat, inverse, mean, variance)


def _normalised_delta(layer, params, grads, delta, kept):
    """Return dC/dz of a normalised layer from dC/dy; add the gradients of gamma and beta."""
    zhat, inverse, *_ = kept
    ((gamma, *_),) = layout.normalization_views(layer[None], params)
    ((dgamma, *_),) = layout.normalization_views(layer[None], grads)
    dgamma += (delta * zhat).sum(axis=0)
    grads[layer[layout.BIAS] :][: layer[layout.N_OUT]] += delta.sum(axis=0)
    axis = 0 if layer[layout.NORMALIZATION] == _BATCH_NORMALIZATION else 1
    dzhat = gamma * delta
    along = (dzhat * zhat).mean(axis, keepdims=True)
    return inverse * (dzhat - dzhat.mean(axis, keepdims=True) - zhat * along)


def _track_statistics(plan, params, kept):
    """Update the running mean and variance, pass by pass, with the unbiased variance of a pass."""
    rate = params.dtype.type(vocabulary.NORMALIZATION_MOMENTUM)
    for of_pass in kept:
        for views, (zhat, _, mean, variance) in zip(
            layout.normalization_views(plan, params), filter(None, of_pass), strict=True
        ):
            n = len(zhat)
            if len(views) == 3 and n > 1:
                views[1][:] += rate * (mean[0] - views[1])
                views[2][:] += rate * (variance[0] * (n / (n - 1)) - views[2])


def _gather(X, rows, input_scale, dtype):
    x = X if rows is None else X[rows]
    x = x.dense(dtype) if isinstance(x, seam.SparseRows) else np.asarray(x, dtype=dtype)
    return x if input_scale == 1 else x * dtype.type(input_scale)


def _gather_targets(targets, rows, objective, n_out, dtype):
    """One row of numbers per row of X: labels become one-hot rows, and both are smoothed."""
    y = targets if rows is None else targets[rows]
    if targets.ndim == 1:
        y = (y[:, None] == np.arange(n_out)).astype(dtype)
    y = np.asarray(y, dtype=dtype)
    if objective.label_smoothing:
        uniform = 1.0 / n_out if objective.loss == _CATEGORICAL else 0.5
        y = y + objective.label_smoothing * (uniform - y)
    return np.asarray(y, dtype=dtype)


class _Stopped(Exception):
    """Another thread has ended the call."""


def _raise_if_stopped(team):
    if team is not None and team[_TEAM_STOP]:
        raise _Stopped


def _propagate(
    plan, params, x, noise=None, step=0, first_row=0, kept=None, running=False, team=None
):
    """Forward pass of a batch. Returns per layer the z, the a and the da/dz, all (rows, n_out).

    Of a normalised layer z is what the activation is applied to; `kept` is filled with what the
    way back needs, or None, of each layer. With 'batch' the statistics are those of the rows, or
    the `running` ones.
    """
    zs, activations, slopes = [], [], []
    if noise is not None and noise.input_noise:
        bell = _bell(x.shape, _key(noise.seed, step, 0), first_row)
        x = x + np.asarray(noise.input_noise * bell, dtype=x.dtype)
    a = x
    for number, (layer, (W, b)) in enumerate(zip(plan, _layers(plan, params), strict=True)):
        _raise_if_stopped(team)
        code = layer[layout.ACTIVATION]
        normalised = None
        if running and layer[layout.NORMALIZATION] == _BATCH_NORMALIZATION:
            ((gamma, mean, variance),) = layout.normalization_views(layer[None], params)
            eps = params.dtype.type(vocabulary.NORMALIZATION_EPS)
            z = gamma * (a @ W - mean) / np.sqrt(variance + eps) + b
        elif layer[layout.NORMALIZATION]:
            z, normalised = _normalise(layer, params, a @ W)
        else:
            z = a @ W + b
        if kept is not None:
            kept.append(normalised)
        a = np.asarray(_ACTIVATE[code](z), dtype=z.dtype)
        slope = None if code == _SOFTMAX else np.asarray(_SLOPE[code](z, a), dtype=z.dtype)
        hidden = number < len(plan) - 1
        rate = noise.dropout[number] if hidden and noise and len(noise.dropout) else 0.0
        if rate:
            key = _key(noise.seed, step, number + 1)
            scale = np.asarray(_dropout_scale(a.shape, key, rate, first_row), dtype=a.dtype)
            a, slope = a * scale, slope * scale
        zs.append(z)
        activations.append(a)
        slopes.append(slope)
    return x, zs, activations, slopes


_BATCH_NORMALIZATION = vocabulary.NORMALIZATIONS.index("batch")


_TEAM_STEPS, _TEAM_STOP = 10, 11
"""Places in a team's array: steps taken; whether another thread stops the call (_barrier.h)."""


_BATCH = 1024
"""Rows that are propagated at once where the batch is ours to choose."""


def _chunks(X, rows):
    n = len(X) if rows is None else len(rows)
    for start in range(0, n, _BATCH):
        stop = min(start + _BATCH, n)
        yield start, stop, slice(start, stop) if rows is None else rows[start:stop]


def workspace_size(plan, batch_size, n_threads=1):
    """Scratch numbers that a batch needs: none, NumPy allocates."""
    return 0


def product(n, depth, width, arrays, repeats=1):
    """Multiply two matrices as the layers do, for measurements.

    `arrays` holds (n, depth), (depth, width) and the result (n, width), one after the other, and
    behind them room for a copy: ``min(depth, 2048) * 64`` numbers. There are two rows at least, and
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


@_quiet
def predict(plan, params, X, rows, out, workspace, input_scale=1.0):
    """Write the output activations of the given rows of X (None: all) to `out`, (rows, n_out).

    Here and below, X is multiplied by `input_scale` as its rows are gathered.
    """
    for start, stop, part in _chunks(X, rows):
        x = _gather(X, part, input_scale, params.dtype)
        out[start:stop] = _propagate(plan, params, x, running=True)[2][-1]


class Predictor:
    """A network's outputs, call after call, with all that does not change made ready.

    Called with x, one row (n_in,) or up to `batch_size` rows (n, n_in), it returns the outputs,
    (n_out,) or (n, n_out), in an array that the next call overwrites; or it writes them to `out`.
    Other dtypes than the network's are converted. Nothing looks for NaN or infinity.

    It reads `params` at every call, but stays with this array and this core. A predictor is for one
    thread at a time, and cannot be pickled or copied.

    Raises
    ------
    ValueError
        If `x` or `out` has another shape, or `out` another dtype.
    TypeError
        If `x` does not hold real numbers.
    RuntimeError
        If another thread is in a call.
    """

    def __init__(self, plan, params, input_scale=1.0, batch_size=1):
        if batch_size < 1:
            raise ValueError(f"batch_size must be at least 1; it is {batch_size}")
        self._plan, self._params, self._input_scale = plan, params, input_scale
        self._n_in, self._n_out = int(plan[0, layout.N_IN]), int(plan[-1, layout.N_OUT])
        self._out = np.empty((batch_size, self._n_out), params.dtype)

    def __reduce__(self):
        raise TypeError("a predictor cannot be pickled or copied: do so with its network")

    def outputs(self, X):
        """Return the outputs of rows X, (n, n_in), in a new array (n, n_out); or None.

        None says that the caller should look at X, or at what it is doing: X is no array of such
        rows of numbers, has none, or holds one that may not be finite; or another thread is in a
        call.
        """
        return None  # looking costs little beside what NumPy does with a row

    def __call__(self, x, out=None):
        x = arrays.array_of("x", x)
        if x.dtype.kind not in "fiub":
            raise TypeError(f"x must hold real numbers; its dtype is {x.dtype}")
        n_in, batch_size = self._n_in, len(self._out)
        n = len(x) if x.ndim == 2 else 1
        if x.ndim not in (1, 2) or x.shape[-1] != n_in or (out is None and n > batch_size):
            raise ValueError(
                f"x must be ({n_in},) or (n, {n_in}) with n up to {batch_size}; "
                f"its shape is {x.shape}"
            )
        dtype, expected = self._params.dtype, (n, self._n_out)[2 - x.ndim :]
        if out is None:
            out = self._out[:n].reshape(expected)
        elif out.shape != expected or out.dtype != dtype:
            raise ValueError(f"out must be {expected}, {dtype}")
        predict(
            self._plan, self._params, x.reshape(n, n_in), None, out.reshape(n, self._n_out), None,
            self._input_scale,
        )  # fmt: skip
        return out


@_quiet
def forward(plan, params, X, z, a, workspace, input_scale=1.0):
    """Write every layer's weighted sums and activations to the records `z` and `a`.

    A record has one row per row of X; layer l's units start at column ``plan[l, UNITS]``.
    """
    for start, stop, part in _chunks(X, None):
        _, zs, activations, _ = _propagate(
            plan, params, _gather(X, part, input_scale, params.dtype), running=True
        )
        for record, values in ((z, zs), (a, activations)):
            _write_record(plan, record[start:stop], values)


def _write_record(plan, record, values):
    for layer, value in zip(plan, values, strict=True):
        record[:, layer[layout.UNITS] : layer[layout.UNITS] + layer[layout.N_OUT]] = value


@_quiet
def evaluate(
    plan, params, X, targets, rows, objective, noise, step, out, row_loss, workspace,
    input_scale=1.0, team=None,
):  # fmt: skip
    """Write the outputs to `out` (unless it has no rows) and the cost of each row to `row_loss`.

    With `noise`, these are what :func:`gradient` sees at this `step`; so they are with 'batch',
    whose statistics are those of the rows, where :func:`predict` and :func:`forward` have the
    running ones. ``team[TEAM_STOP]``, set from another thread, ends the call early.
    """
    n_out, code = plan[-1, layout.N_OUT], plan[-1, layout.ACTIVATION]
    for start, stop, part in _chunks(X, rows):
        x = _gather(X, part, input_scale, params.dtype)
        y = _gather_targets(targets, part, objective, n_out, params.dtype)
        try:
            _, zs, activations, _ = _propagate(plan, params, x, noise, step, start, team=team)
        except _Stopped:
            return
        row_loss[start:stop] = _cost(objective, code, zs[-1], activations[-1], y)
        if len(out):
            out[start:stop] = activations[-1]


# Backpropagation ---------------------------------------------------------------------------------


@_quiet
def gradient(
    plan, params, X, targets, weights, rows, objective, noise, step, grads, deltas, dX, workspace,
    input_scale=1.0, learns=False, team=None,
):  # fmt: skip
    """Write the gradient of the objective on one batch to `grads`, laid out like `params`.

    The chain rule, layer by layer from the last: ``dW = a_before^T delta``, ``db = sum delta``,
    ``delta_before = (delta W^T) * da/dz``. Each row counts by its weight, divided by the sum of the
    batch's weights. With rows in `deltas` (a record) and `dX`, these are written as well; dX is
    the derivative by X as it came, before the scale. If it `learns`, the running statistics of
    'batch' in `params` follow those of the batch. ``team[TEAM_STOP]``, set from another thread,
    ends the call early.

    Returns
    -------
    float
        The weighted mean loss of the batch, plus the penalties; NaN if the call was stopped.
    """
    kept: list[Any] = []
    try:
        loss = _backpropagate(
            plan, params, X, targets, weights, rows, objective, noise, step, grads, deltas, dX,
            input_scale, kept, team,
        )  # fmt: skip
    except _Stopped:
        return math.nan
    if learns and not math.isnan(loss):
        _track_statistics(plan, params, kept)
    return loss


@_quiet
def _backpropagate(
    plan, params, X, targets, weights, rows, objective, noise, step, grads, deltas, dX,
    input_scale, kept, team,
):  # fmt: skip
    """See :func:`gradient`; appends what each layer's normalisation found to `kept`, by pass.

    Raises _Stopped, before any parameter has changed.
    """
    dtype = params.dtype
    weight, share = _row_shares(weights, rows, len(X) if rows is None else len(rows), objective)
    objective = _share_penalties(objective, weight.sum())
    loss = 0.0
    grads[:] = 0
    for start, stop, part in _chunks(X, rows):
        here = slice(start, stop)
        y = _gather_targets(targets, part, objective, plan[-1, layout.N_OUT], dtype)
        x = _gather(X, part, input_scale, dtype)
        of_pass: list[Any] = []
        x, zs, activations, slopes = _propagate(
            plan, params, x, noise, step, start, of_pass, team=team
        )
        kept.append(of_pass)
        code = plan[-1, layout.ACTIVATION]
        loss += float((_cost(objective, code, zs[-1], activations[-1], y) * weight[here]).sum())
        delta = _output_delta(objective, code, zs[-1], activations[-1], y)
        delta = np.asarray(delta * np.asarray(share[here], dtype)[:, None], dtype=dtype)
        delta = _add_gradient(
            plan, params, [x, *activations[:-1]], slopes, delta, of_pass, grads, deltas[here], team
        )
        if len(dX):
            W, _ = next(_layers(plan, params))
            dX[here] = (delta @ W.T) * dtype.type(input_scale)
    loss = objective.cost_scale * float(loss / weight.sum()) if weight.any() else 0.0
    layers = zip(_layers(plan, params), _layers(plan, grads), strict=True)
    for (W, _), (dW, _) in reversed(list(layers)):
        loss += _penalise(W, dW, objective)
    return loss


def _add_gradient(plan, params, inputs, slopes, delta, kept, grads, deltas, team):
    """Add the gradient of one pass, from the output layer's delta; return the first layer's."""
    parameters, gradients = list(_layers(plan, params)), list(_layers(plan, grads))
    for number in reversed(range(len(plan))):
        _raise_if_stopped(team)
        (W, _), (dW, db) = parameters[number], gradients[number]
        if kept[number]:
            delta = _normalised_delta(plan[number], params, grads, delta, kept[number])
        else:
            db += delta.sum(axis=0)
        if len(deltas):
            _write_record(plan[number : number + 1], deltas, [delta])
        dW += inputs[number].T @ delta
        if number:
            delta = (delta @ W.T) * slopes[number - 1]
    return delta


def _row_shares(weights, rows, n, objective):
    """Each row's weight, and its share of the batch's gradient."""
    if weights is None:
        weight = np.ones(n)
    else:
        weight = np.asarray(weights if rows is None else weights[rows], dtype=np.float64)
    if (
        objective.loss == vocabulary.EXTERNAL_LOSS
    ):  # the caller's dC/da is of the whole batch already
        return weight, weight
    total = weight.sum()
    return weight, weight / total if total > 0 else np.zeros(n)


def _share_penalties(objective, weight):
    """Divide the penalties by the weight of a batch; rows that weigh nothing have none."""
    if not objective.per_batch:
        return objective
    weight = weight if weight > 0 else math.inf
    return objective._replace(l1=objective.l1 / weight, l2=objective.l2 / weight)


def _penalise(W, dW, objective):
    """Add the gradient of ``l1 sum|W| + l2/2 sum W^2`` to dW, and return its value."""
    l1, l2 = objective.l1, objective.l2
    value = 0.0
    if l1:
        dW += np.asarray(l1, W.dtype) * np.sign(W)
        value += l1 * float(np.abs(W).sum(dtype=np.float64))
    if l2:
        dW += np.asarray(l2, W.dtype) * W
        value += 0.5 * l2 * float(np.square(W).sum(dtype=np.float64))
    return value


# Updates -----------------------------------------------------------------------------------------


@_quiet
def update(plan, params, grads, state, optimizer, step, learning_rate):
    """Take one step against the gradient.

    `grads` may be used up; `state` is (n_moments, len(params)), with one more row for the mean of
    the parameters if ``optimizer.ema``; `step` counts the steps before this one. Decoupled decay
    (``weight_decay``) touches weights only.
    """
    o, eta, g = optimizer, float(learning_rate), grads
    if o.clip_norm:
        norm = math.sqrt(float(np.square(g, dtype=np.float64).sum()))
        if norm > o.clip_norm:
            g *= o.clip_norm / norm
    if o.weight_decay:
        for W, _ in _layers(plan, params):
            W *= 1 - eta * o.weight_decay
    if o.solver == 0:  # sgd, Polyak's or Nesterov's momentum
        if o.momentum:
            v = state[0]
            v *= o.momentum
            v -= eta * g
            params += o.momentum * v - eta * g if o.nesterov else v
        else:
            params -= eta * g
    elif o.solver == 1:  # Adam (Kingma & Ba 2015, section 2: the efficient order of computation)
        m, v = state[:2]
        m += (1 - o.beta_1) * (g - m)
        v += (1 - o.beta_2) * (g * g - v)
        t = step + 1
        rate = eta * math.sqrt(1 - o.beta_2**t) / (1 - o.beta_1**t)
        params -= rate * m / (np.sqrt(v) + o.epsilon)
    elif o.solver == 3:  # Nadam (Dozat 2016): Adam that steps along its next mean
        m, v = state[:2]
        m += (1 - o.beta_1) * (g - m)
        v += (1 - o.beta_2) * (g * g - v)
        of_mean, of_gradient = _nadam_rates(o, step + 1)
        rate = eta * math.sqrt(1 - o.beta_2 ** (step + 1))
        params -= (rate * of_mean * m + rate * of_gradient * g) / (np.sqrt(v) + o.epsilon)
    elif o.solver == 4:  # Lion (Chen et al. 2023, algorithm 2)
        m = state[0]
        params -= eta * np.sign(m + (1 - o.beta_1) * (g - m))
        m += (1 - o.beta_2) * (g - m)
    else:  # RMSprop (Hinton 2012, lecture 6)
        v = state[0]
        v += (1 - o.beta_2) * (g * g - v)
        params -= eta * g / (np.sqrt(v) + o.epsilon)
    if o.ema:  # with Adam's correction of the bias: the first mean is the parameters themselves
        mean, t = state[-1], step - o.ema_start + 1
        mean += (1 - o.ema) / (1 - o.ema**t) * (params - mean)


def _nadam_rates(o, t):
    """What the mean and the gradient itself are multiplied by; momentum grows with the steps."""

    def momentum(t):
        return o.beta_1 * (1 - 0.5 * vocabulary.NADAM_DECAY**t)

    product = math.prod(map(momentum, range(1, t + 1))) if t <= vocabulary.NADAM_STEPS else 0.0
    following = momentum(t + 1)
    return following / (1 - product * following), (1 - momentum(t)) / (1 - product)


@_quiet
def train_epoch(
    plan,
    params,
    state,
    X,
    targets,
    weights,
    rows,
    batch_size,
    learning_rates,
    step,
    objective,
    optimizer,
    noise,
    grads,
    workspace,
    rank=0,
    n_threads=1,
    team=None,
    input_scale=1.0,
    losses=None,
):
    """Take one step per batch of `rows`, in order; batch i uses ``learning_rates[i]``.

    With `losses`, `rows` are as many epochs of equal length, and no batch is of two: each one's sum
    is written there.

    Returns
    -------
    loss : float
        Sum over the batches of the batch's loss times its weight (``per_batch``: its rows).
    n_steps : int
        Steps taken: fewer than there are batches if a loss was not finite, or if another thread
        has set ``team[TEAM_STOP]``; the step that saw it was not taken.
    """
    if rank:
        return 0.0, 0  # one thread does it all: NumPy's products have threads of their own
    nothing = np.empty((0, 0), params.dtype)
    total, taken = 0.0, 0
    for epoch, order in enumerate(np.reshape(rows, (1 if losses is None else len(losses), -1))):
        in_epoch = 0.0
        for start in range(0, len(order), batch_size):
            batch = order[start : start + batch_size]
            kept: list[Any] = []
            try:
                loss = _backpropagate(
                    plan, params, X, targets, weights, batch, objective, noise, step + taken, grads,
                    nothing, nothing, input_scale, kept, team,
                )  # fmt: skip
            except _Stopped:
                loss = math.nan
            if not math.isfinite(loss):
                return total + in_epoch, taken
            by_rows = weights is None or objective.per_batch
            in_epoch += loss * (len(batch) if by_rows else float(weights[batch].sum()))
            _track_statistics(plan, params, kept)
            update(plan, params, grads, state, optimizer, step + taken, learning_rates[taken])
            taken += 1
            if team is not None:
                team[_TEAM_STEPS] = taken
        total += in_epoch
        if losses is not None:
            losses[epoch] = in_epoch
    return total, taken
