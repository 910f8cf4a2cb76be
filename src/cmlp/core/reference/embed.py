"""Tables of levels: a row of E for a whole number, a line from row to row for a fraction."""

from __future__ import annotations

import numpy as np


def places(x, n_rows):
    """Return row numbers c and fractions f of positions x: from row c on, f of the way to c + 1.

    NaN and what is below 0 are row 0, what is above the last row is that row.
    """
    x = np.minimum(np.where(x > 0, x, x.dtype.type(0)), x.dtype.type(n_rows - 1))
    c = x.astype(np.int64)
    return c, x - c.astype(x.dtype)


def embed(E, x):
    """Return (1 - f) E[c] + f E[c + 1] for each position, (rows, width)."""
    c, f = places(x, len(E))
    values = (1 - f)[:, None] * E[c]
    between = f > 0
    values[between] += f[between, None] * E[c[between] + 1]
    return values


def add_table_gradient(dE, x, delta):
    """Add dC/dE from dC/de, (rows, width): dE[c] += (1 - f) de, dE[c + 1] += f de, row by row."""
    c, f = places(x, len(dE))
    np.add.at(dE, c, (1 - f)[:, None] * delta)
    between = f > 0
    np.add.at(dE, c[between] + 1, f[between, None] * delta[between])


def table_slope(E, x, delta):
    """Return dC/dx: the slope from row c to the next one, 0 outside the table and at its end."""
    c, _ = places(x, len(E))
    inside = (x >= 0) & (x < len(E) - 1)
    slope = (delta * (E[np.minimum(c + 1, len(E) - 1)] - E[c])).sum(axis=1)
    return np.where(inside, slope, 0)
