"""The front: what happens to X's columns before the first layer, forward and backward."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from cmlp.core import front, layout
from cmlp.core.layout import Array
from cmlp.core.reference.bfloat16 import operands
from cmlp.core.reference.embed import add_table_gradient, embed, table_slope
from cmlp.core.reference.periodic import add_periodic_gradient, embed_periodic, periodic_slope


class Expanded(NamedTuple):
    """Rows that have passed the front."""

    x: Array
    """Columns of X, with their noise, (rows, columns)."""
    values: Array
    """Inputs of the first layer before the factors, (rows, n_in)."""
    inputs: Array
    """The same after them."""
    sums: Array | None
    """What is added to the first layer's weighted sums, (rows, units); None for nothing."""
    waves: dict[int, Array]
    """u of each periodic part, by its first column."""


def noisy_columns(plan: Array) -> Array:
    """Which columns of X take noise: in a number of a row it would have no meaning."""
    noisy = np.ones(front.columns_of(plan), bool)
    for row in front.front_of(plan):
        noisy[row[front.FIRST] : row[front.FIRST] + row[front.COUNT]] = row[front.KIND] in (
            front.PLAIN,
            front.PERIODIC,
        )
    return noisy


def expand(plan: Array, params: Array, x: Array) -> Expanded:
    """Turn rows of X into the first layer's inputs, and into what is added to its sums."""
    values: list[Array] = []
    sums: Any = None
    waves = {}
    for row in front.front_of(plan).tolist():
        kind, first = row[front.KIND], row[front.FIRST]
        columns = x[:, first : first + row[front.COUNT]]
        if kind == front.PLAIN:
            values.append(columns)
        elif kind == front.PERIODIC:
            e, waves[first] = embed_periodic(front.waves_of(row, params), columns)
            values.append(e.reshape(len(x), -1))
        elif kind == front.LEVELS:
            values.append(embed(front.table_of(row, params), columns[:, 0]))
        elif kind == front.SUMMED:
            row_sums = embed(front.table_of(row, params), columns[:, 0])
            sums = row_sums if sums is None else sums + row_sums
    joined = np.concatenate(values, axis=1) if values else np.zeros((len(x), 1), x.dtype)
    s = front.factors_of(plan, params)
    return Expanded(x, joined, joined if s is None else joined * s, sums, waves)


def add_front_gradient(plan, params, rows, delta, grads):
    """Add the gradients of the front's arrays, from the first layer's delta.

    ``dy = delta W^T``; of y = s h, ``ds = sum dy h`` and ``dh = dy s``. Returns dC/dX.
    """
    W, _ = layout.layer_views(plan, params)[0]
    operand, W = operands(plan[0], delta, W)
    slopes = operand @ W.T
    s = front.factors_of(plan, params)
    if s is not None:
        ds = front.factors_of(plan, grads)
        ds += (slopes * rows.values).sum(axis=0)
        slopes = slopes * s
    dX = np.zeros_like(rows.x)
    for row in front.front_of(plan).tolist():
        kind, first, to = row[front.KIND], row[front.FIRST], row[front.TO]
        here = slice(first, first + row[front.COUNT])
        if kind == front.PLAIN:
            dX[:, here] = slopes[:, to : to + row[front.COUNT]]
        elif kind == front.PERIODIC:
            waves, u = front.waves_of(row, params), rows.waves[first]
            width = row[front.WIDTH] + 1
            part = slopes[:, to : to + row[front.COUNT] * width]
            part = part.reshape(len(part), row[front.COUNT], width)
            add_periodic_gradient(waves, front.waves_of(row, grads), rows.x[:, here], u, part)
            dX[:, here] = periodic_slope(waves, u, part)
        elif kind in (front.LEVELS, front.SUMMED):
            part = delta if kind == front.SUMMED else slopes[:, to : to + row[front.WIDTH]]
            add_table_gradient(front.table_of(row, grads), rows.x[:, first], part)
            dX[:, first] = table_slope(front.table_of(row, params), rows.x[:, first], part)
    return dX
