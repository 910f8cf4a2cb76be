"""A batch: forward, cost, backward; and an epoch of batches, each with its update."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from cmlp.core import layout, vocabulary
from cmlp.core.reference.backward import add_gradient
from cmlp.core.reference.bfloat16 import operands
from cmlp.core.reference.forward import Stopped, propagate
from cmlp.core.reference.front import Expanded, add_front_gradient
from cmlp.core.reference.gather import gather, gather_targets, passes
from cmlp.core.reference.losses import output_delta, row_costs
from cmlp.core.reference.normalization import track_statistics
from cmlp.core.reference.updates import penalise, share_penalties, update
from cmlp.core.seam import TEAM_STEPS


@np.errstate(all="ignore")
def evaluate(
    plan, params, X, targets, rows, objective, noise, step, out, row_loss, workspace,
    input_scale=1.0, team=None, first_row=0,
):  # fmt: skip
    """Write the outputs to `out` (unless it has no rows) and the cost of each row to `row_loss`.

    With `noise`, these are what :func:`gradient` computes at this `step`; so they are with
    'batch', whose statistics are those of the rows, where :func:`predict` and :func:`forward` use
    the running ones. ``team[TEAM_STOP]``, set from another thread, ends the call early. Noise is
    that of rows `first_row` on of a batch.
    """
    last = layout.layers_of(plan)[-1]
    n_out, code = last[layout.N_OUT], last[layout.ACTIVATION]
    for start, stop, part in passes(X, rows):
        x = gather(X, part, input_scale, params.dtype)
        y = gather_targets(targets, part, objective, n_out, params.dtype)
        try:
            _, zs, activations, _ = propagate(
                plan, params, x, noise, step, first_row + start, team=team
            )
        except Stopped:
            return
        row_loss[start:stop] = row_costs(objective, code, zs[-1], activations[-1], y)
        if len(out):
            out[start:stop] = activations[-1]


@np.errstate(all="ignore")
def gradient(
    plan, params, X, targets, weights, rows, objective, noise, step, grads, deltas, dX, workspace,
    input_scale=1.0, learns=False, team=None, first_row=0, rank=0, n_threads=1, whole=0.0,
):  # fmt: skip
    """Write the gradient of the objective on one batch to `grads`, laid out like `params`.

    The chain rule, layer by layer from the last: ``dW = a_before^T delta``, ``db = sum delta``,
    ``delta_before = (delta W^T) * da/dz``. Each row counts by its weight, divided by the sum of the
    batch's weights. With rows in `deltas` (a record) and `dX`, these are written as well; dX is
    the derivative by X before the scale. If it `learns`, the running statistics of 'batch' in
    `params` are updated with those of the batch. ``team[TEAM_STOP]``, set from another thread,
    ends the call early. Dropout and noise are those of rows `first_row` on of a batch, of which
    other machines have the rest, and whose weight is `whole`, if above 0. Several threads call with
    a `team`, each with its `rank`; deltas and dX are for one.

    Returns
    -------
    float
        The weighted mean loss of the batch, plus the penalties; NaN if the call was stopped.
    """
    if rank:
        return 0.0  # one thread does it all: NumPy's products have threads of their own
    kept: list[Any] = []
    try:
        loss = _backpropagate(
            plan, params, X, targets, weights, rows, objective, noise, step, grads, deltas, dX,
            input_scale, kept, team, first_row, whole,
        )  # fmt: skip
    except Stopped:
        return math.nan
    if learns and not math.isnan(loss):
        track_statistics(plan, params, kept)
    return loss


@np.errstate(all="ignore")
def _backpropagate(
    plan, params, X, targets, weights, rows, objective, noise, step, grads, deltas, dX,
    input_scale, kept, team, first_row=0, whole=0.0,
):  # fmt: skip
    """See :func:`gradient`; appends what each layer's normalisation computed to `kept`, by pass.

    Raises Stopped, before any parameter has changed.
    """
    dtype, last = params.dtype, layout.layers_of(plan)[-1]
    n = len(X) if rows is None else len(rows)
    weight, share, total = row_shares(weights, rows, n, objective, whole)
    objective = share_penalties(objective, total)
    loss = 0.0
    grads[:] = 0
    for start, stop, part in passes(X, rows):
        here = slice(start, stop)
        y = gather_targets(targets, part, objective, last[layout.N_OUT], dtype)
        x = gather(X, part, input_scale, dtype)
        of_pass: list[Any] = []
        differences: list[Any] = []
        fronts: list[Expanded] = []
        x, zs, activations, slopes = propagate(
            plan,
            params,
            x,
            noise,
            step,
            first_row + start,
            of_pass,
            team=team,
            differences=differences,
            fronts=fronts,
        )
        kept.append(of_pass)
        costs = row_costs(objective, last[layout.ACTIVATION], zs[-1], activations[-1], y)
        loss += float((costs * weight[here]).sum())
        delta = output_delta(objective, last, zs[-1], activations[-1], y)
        delta = np.asarray(delta * np.asarray(share[here], dtype)[:, None], dtype=dtype)
        delta = add_gradient(
            plan, params, [x, *activations[:-1]], slopes, differences, delta, of_pass, grads,
            deltas[here], team,
        )  # fmt: skip
        if fronts:
            slopes_of_x = add_front_gradient(plan, params, fronts[0], delta, grads)
            if len(dX):
                dX[here] = slopes_of_x * dtype.type(input_scale)
        elif len(dX):
            W, _ = layout.layer_views(plan, params)[0]
            operand, W = operands(plan[0], delta, W)
            dX[here] = (operand @ W.T) * dtype.type(input_scale)
    loss = objective.cost_scale * float(loss / total) if total > 0 else 0.0
    layers = zip(layout.layer_views(plan, params), layout.layer_views(plan, grads), strict=True)
    for (W, _), (dW, _) in reversed(list(layers)):
        loss += penalise(W, dW, objective)
    return loss


def row_shares(weights, rows, n, objective, whole=0.0):
    """Each row's weight, its share of the batch's gradient, and the weight of the batch."""
    if weights is None:
        weight = np.ones(n)
    else:
        weight = np.asarray(weights if rows is None else weights[rows], dtype=np.float64)
    total = whole or weight.sum()
    if objective.loss == vocabulary.EXTERNAL_LOSS:  # its dC/da is of the whole batch already
        return weight, weight, total
    return weight, weight / total if total > 0 else np.zeros(n), total


@np.errstate(all="ignore")
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
    dropout_factors=None,
    decay_factors=None,
):
    """Take one step per batch of `rows`, in order; batch i uses ``learning_rates[i]``.

    With `losses`, `rows` are as many epochs of equal length, no batch crosses from one into the
    next, and each epoch's sum is written there. `dropout_factors` and `decay_factors` multiply the
    rates of dropout, which must stay below 1, and the weight decay: one factor per step.

    Returns
    -------
    loss : float
        Sum over the batches of the batch's loss times its weight (``per_batch``: its rows).
    n_steps : int
        Steps taken: fewer than there are batches if a loss was not finite, or if another thread
        has set ``team[TEAM_STOP]``; the step in which that happened is not taken.
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
            now, rule = _scheduled(noise, optimizer, taken, dropout_factors, decay_factors)
            try:
                loss = _backpropagate(
                    plan, params, X, targets, weights, batch, objective, now, step + taken, grads,
                    nothing, nothing, input_scale, kept, team,
                )  # fmt: skip
            except Stopped:
                loss = math.nan
            if not math.isfinite(loss):
                return total + in_epoch, taken
            by_rows = weights is None or objective.per_batch
            in_epoch += loss * (len(batch) if by_rows else float(weights[batch].sum()))
            track_statistics(plan, params, kept)
            update(plan, params, grads, state, rule, step + taken, learning_rates[taken])
            taken += 1
            if team is not None:
                team[TEAM_STEPS] = taken
        total += in_epoch
        if losses is not None:
            losses[epoch] = in_epoch
    return total, taken


def _scheduled(noise, optimizer, number, dropout_factors, decay_factors):
    """Return noise and optimizer with the rates of dropout and decay of one step."""
    if dropout_factors is not None:
        noise = noise._replace(dropout=noise.dropout * dropout_factors[number])
    if decay_factors is not None:
        decay = optimizer.weight_decay * decay_factors[number]
        optimizer = optimizer._replace(weight_decay=decay)
    return noise, optimizer
