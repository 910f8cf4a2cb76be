"""Penalties, and the rules that turn a gradient into a step."""

from __future__ import annotations

import math

import numpy as np

from cmlp.core import front, groups, vocabulary

_CODES = {row.name: row.code for row in vocabulary.SOLVERS}
SGD, ADAM, RMSPROP = _CODES["sgd"], _CODES["adam"], _CODES["rmsprop"]
NADAM, LION = _CODES["nadam"], _CODES["lion"]  # adamw is Adam with weight_decay


def share_penalties(objective, weight):
    """Divide the penalties by the weight of a batch; rows that weigh nothing have none."""
    if not objective.per_batch:
        return objective
    weight = weight if weight > 0 else math.inf
    return objective._replace(l1=objective.l1 / weight, l2=objective.l2 / weight)


def size_of(x, l1, l2):
    """Sum ``l1 |x| + l2 x^2`` over the rows of x; the products are of its number type."""
    l1, l2 = np.asarray(l1, x.dtype), np.asarray(l2, x.dtype)
    return (l1 * np.abs(x) + l2 * x * x).sum(axis=0, dtype=np.float64)


def penalise(W, dW, objective):
    """Add the gradient of ``l1 sum|W| + l2/2 sum W^2`` to dW, and return its value."""
    l1, l2 = objective.l1, objective.l2
    if l1:
        dW += np.asarray(l1, W.dtype) * np.sign(W)
    if l2:
        dW += np.asarray(l2, W.dtype) * W
    return float(size_of(W, l1, 0.5 * l2).sum()) if l1 or l2 else 0.0


@np.errstate(all="ignore")
def update(plan, params, grads, state, optimizer, step, learning_rate):
    """Take one step against the gradient.

    `grads` may be overwritten; `state` is (n_moments, len(params)), with one more row for the mean
    of the parameters if ``optimizer.ema``; `step` counts the steps before this one. Decoupled decay
    (``weight_decay``) applies to weights and tables of levels only, unless ``optimizer.factors``
    has others.
    """
    o, eta, g = optimizer, float(learning_rate), grads
    if o.clip_norm:
        norm = math.sqrt(float(np.square(g, dtype=np.float64).sum()))
        if norm > o.clip_norm:
            g *= o.clip_norm / norm
    steps = take_steps(plan, params, g)
    if o.weight_decay:
        factors = o.factors if len(o.factors) else groups.default_factors(plan)
        for row, part in groups.group_views(plan, params):
            if factors[row, 1]:
                part *= 1 - eta * o.weight_decay * factors[row, 1]
    if len(o.factors):
        eta = eta * _rates(plan, params, o.factors)
    if o.solver == SGD:  # Polyak's or Nesterov's momentum
        if o.momentum:
            v = state[0]
            v *= o.momentum
            v -= eta * g
            params += o.momentum * v - eta * g if o.nesterov else v
        else:
            params -= eta * g
    elif o.solver == ADAM:  # Kingma & Ba 2015, section 2: the efficient order of computation
        m, v = state[:2]
        m += (1 - o.beta_1) * (g - m)
        v += (1 - o.beta_2) * (g * g - v)
        t = step + 1
        rate = eta * math.sqrt(1 - o.beta_2**t) / (1 - o.beta_1**t)
        params -= rate * m / (np.sqrt(v) + o.epsilon)
    elif o.solver == NADAM:  # Dozat 2016: Adam that steps along its next mean
        m, v = state[:2]
        m += (1 - o.beta_1) * (g - m)
        v += (1 - o.beta_2) * (g * g - v)
        of_mean, of_gradient = nadam_rates(o, step + 1)
        rate = eta * math.sqrt(1 - o.beta_2 ** (step + 1))
        params -= (rate * of_mean * m + rate * of_gradient * g) / (np.sqrt(v) + o.epsilon)
    elif o.solver == LION:  # Chen et al. 2023, algorithm 2
        m = state[0]
        params -= eta * np.sign(m + (1 - o.beta_1) * (g - m))
        m += (1 - o.beta_2) * (g - m)
    else:  # RMSprop: Hinton 2012, lecture 6
        v = state[0]
        v += (1 - o.beta_2) * (g * g - v)
        params -= eta * g / (np.sqrt(v) + o.epsilon)
    add_steps(steps)
    if o.ema:  # with Adam's correction of the bias: the first mean is the parameters themselves
        mean, t = state[-1], step - o.ema_start + 1
        mean += (1 - o.ema) / (1 - o.ema**t) * (params - mean)


def take_steps(plan, params, grads):
    """Turn cumulative tables into the steps from row to row, and their gradients into the steps'.

    A row is the sum of the steps up to it, so the gradient of a step is the sum of those of all
    rows from it on. Row 0 stays: its gradient is 0. Returns the tables, and what row 0 was.
    """
    taken = []
    tables, gradients = (front.cumulative_tables(plan, flat) for flat in (params, grads))
    for E, dE in zip(tables, gradients, strict=True):
        dE[1:] = np.cumsum(dE[:0:-1], axis=0)[::-1]
        dE[0] = 0
        E[1:] = np.diff(E, axis=0)
        taken.append((E, E[0].copy()))
    return taken


def add_steps(taken):
    """Turn steps back into rows."""
    for E, first in taken:
        E[0] = first
        np.cumsum(E, axis=0, out=E)


def _rates(plan, params, factors):
    """Return each parameter's factor of the learning rate, laid out as the parameters."""
    rates = np.ones(len(params))
    for row, part in groups.group_views(plan, rates):
        part[...] = factors[row, 0]
    return rates


def nadam_rates(o, t):
    """Factors of the mean and of the gradient itself; momentum grows with the steps."""

    def momentum(t):
        return o.beta_1 * (1 - 0.5 * vocabulary.NADAM_DECAY**t)

    product = math.prod(map(momentum, range(1, t + 1))) if t <= vocabulary.NADAM_STEPS else 0.0
    following = momentum(t + 1)
    return following / (1 - product * following), (1 - momentum(t)) / (1 - product)
