"""Nets side by side: the steps of several networks of one plan, each with rows of its own."""

from __future__ import annotations

import numpy as np

from cmlp.core import layout, seam, vocabulary
from cmlp.core.reference.activations import function, slope
from cmlp.core.reference.losses import row_costs
from cmlp.core.reference.updates import size_of

_CODES = {row.name: row.code for row in vocabulary.LOSSES}


@np.errstate(all="ignore")
def train_lanes(plan, memory, data, weights, rows, numbers, lanes, loss, rule, most):
    """Train a net in each lane of a vector, one step per batch, until one of them is done.

    Parameters
    ----------
    memory : flat
        Every net's parameters, without padding, and its moments: number i of the net in lane l is
        at ``i * n_lanes + l``. Then scratch; see ``seam.lane_memory``.
    data : flat
        The rows of all nets, X, (n, n_in), and after them the targets, (n, n_out).
    weights : (n,) array or None
    rows, numbers : flat
        What `lanes` points into: rows; and rates, losses and settings. The sum of each epoch, as of
        `train_epoch`, is added to the losses.
    lanes : flat
        For each lane what ``seam.LANE`` lists; the steps taken are counted there. A lane without
        steps is idle.
    loss, rule : int
        See ``seam.LANE_LOSSES`` and ``seam.LANE_RULES``.
    most : int
        Steps of a call.

    Returns
    -------
    int
        Steps taken. Where a loss was not finite, none of that step was taken, in no lane, and the
        lane's number `failed` is 1.
    """
    lanes = lanes.reshape(-1, len(seam.LANE))
    n_in, n_out = plan[0, layout.N_IN], plan[-1, layout.N_OUT]
    n = len(data) // (n_in + n_out)
    X, targets = data[: n * n_in].reshape(n, n_in), data[n * n_in :].reshape(-1, n_out)[:n]
    is_weight = _weights_of(plan)
    n_moments = 2 if rule == seam.LANE_RULES.index("adam") else 1
    state = memory[: (1 + n_moments) * is_weight.size * len(lanes)]
    params, *moments = state.reshape(1 + n_moments, -1, len(lanes))
    weights = np.ones(n) if weights is None else weights
    objective = seam.Objective(_CODES[seam.LANE_LOSSES[loss]])
    size, batch, steps, taken, number, _, first_rate, first_loss, own, failed = lanes.T  # views
    settings = numbers[own[:, None] + np.arange(len(seam.LANE_SETTINGS))]
    per_epoch = -(-size // np.maximum(batch, 1))
    begun = taken < steps
    for step in range(most):
        active = np.flatnonzero(taken < steps)
        if len(active) == 0 or len(active) < begun.sum():
            return step
        order, share, weight = _batches(lanes, per_epoch, active, rows, weights)
        costs, grads = _backpropagate(plan, params, X[order], targets[order], share, objective)
        penalties = settings[:, 4:6].T.copy()
        penalties /= np.where((settings[:, 8] > 0) & (weight > 0), weight, 1)
        value = settings[:, 7] * np.where(share > 0, costs * weights[order], 0).sum(axis=1)
        value += size_of(params * is_weight, penalties[0], 0.5 * penalties[1]) * weight
        failed[active] = ~np.isfinite(value[active])
        if failed.any():
            return step
        rate = np.zeros(len(lanes))
        rate[active] = numbers[(first_rate + taken)[active]]
        _move(
            rule, params, moments, grads, is_weight, settings, penalties, rate, number + taken + 1
        )
        numbers[(first_loss + taken // np.maximum(per_epoch, 1))[active]] += value[active]
        taken[active] += 1
    return most


def _weights_of(plan):
    """Return 1 for weights, 0 for biases, a column."""
    parts = [
        np.repeat([1, 0], [n_in * n_out, n_out]) for n_in, n_out in plan[:, : layout.N_OUT + 1]
    ]
    return np.concatenate(parts).astype(np.float32)[:, None]


def _batches(lanes, per_epoch, active, rows, weights):
    """Return each net's rows, and their shares of its gradient, (lanes, rows); and their weight.

    A net with fewer rows than another has row 0, without a share, in their place.
    """
    n, batch, _, taken, _, first, *_ = lanes.T
    size = int(np.minimum(batch, n)[active].max())
    order, share = np.zeros((len(lanes), size), np.int64), np.zeros((len(lanes), size))
    weight = np.zeros(len(lanes))
    for lane in active:
        epoch, step = divmod(int(taken[lane]), int(per_epoch[lane]))
        start = epoch * n[lane] + step * batch[lane]
        end = min(start + batch[lane], (epoch + 1) * n[lane])
        part = rows[first[lane] + start : first[lane] + end]
        weight[lane] = weights[part].sum()
        order[lane, : len(part)] = part
        if weight[lane] > 0:
            share[lane, : len(part)] = weights[part] / weight[lane]
    return order, share, weight


def _layers(plan, flat):
    """Cut weights, (lanes, n_in, n_out), and biases, (lanes, 1, n_out), of each layer: views."""
    at = 0
    for n_in, n_out in plan[:, : layout.N_OUT + 1].tolist():
        both = flat[at : at + (n_in + 1) * n_out].reshape(n_in + 1, n_out, -1)
        both = np.moveaxis(both, -1, 0)
        yield both[:, :-1], both[:, -1:]
        at += (n_in + 1) * n_out


def _backpropagate(plan, params, x, y, share, objective):
    """Return the rows' costs, (lanes, rows), and the gradients, as the parameters lie."""
    zs, activations = [], [x]
    layers = list(_layers(plan, params))
    for (W, b), layer in zip(layers, plan, strict=True):
        zs.append(activations[-1] @ W + b)
        code, parameter = layer[layout.ACTIVATION], layout.parameter_of(layer)
        activations.append(np.asarray(function(code, parameter, zs[-1]), x.dtype))
    z, a = zs[-1], activations[-1]
    flat = [part.reshape(-1, part.shape[-1]) for part in (z, a, y)]
    costs = row_costs(objective, plan[-1, layout.ACTIVATION], *flat).reshape(share.shape)
    delta = (a - y) * share[:, :, None].astype(x.dtype)
    grads = np.empty_like(params)
    for number, (dW, db) in reversed(list(enumerate(_layers(plan, grads)))):
        dW[...] = np.swapaxes(activations[number], 1, 2) @ delta
        db[...] = delta.sum(axis=1, keepdims=True)
        if number:
            layer, W = plan[number - 1], layers[number][0]
            code, parameter = layer[layout.ACTIVATION], layout.parameter_of(layer)
            da = slope(code, parameter, zs[number - 1], activations[number])
            delta = np.asarray((delta @ np.swapaxes(W, 1, 2)) * da, x.dtype)
    return costs, grads


def _move(rule, params, moments, grads, is_weight, settings, penalties, rate, t):
    """Move all parameters against their gradients, as :func:`updates.update` does."""
    momentum, _, _, epsilon = settings.T[:4].astype(params.dtype)
    l1, l2 = penalties.astype(params.dtype)
    _, beta_1, beta_2, *_, decay, _, _ = settings.T
    g = grads + is_weight * (l2 * params + l1 * np.sign(params))
    params *= 1 - is_weight * (rate * decay).astype(params.dtype)
    if rule == 2:
        m, v = moments
        rest_1, rest_2 = ((1 - beta).astype(params.dtype) for beta in (beta_1, beta_2))
        corrected = rate * np.sqrt(1 - beta_2**t) / (1 - beta_1**t)
        m += rest_1 * (g - m)
        v += rest_2 * (g * g - v)
        params -= corrected.astype(params.dtype) * m / (np.sqrt(v) + epsilon)
    else:
        v, step = moments[0], rate.astype(params.dtype) * g
        v *= momentum
        v -= step
        params += momentum * v - step if rule == 1 else v
