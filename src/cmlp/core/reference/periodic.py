"""Periodic embedding of a number: u = 2 pi w x + b, e = V cos(u) + d (PBLD).

Sources: Gorishniy et al. 2022; Holzmueller et al. 2024, appendix A.
"""

from __future__ import annotations

import math

import numpy as np


def arguments(waves, x):
    """Return u = 2 pi w x + b of some columns, (rows, columns, frequencies)."""
    return x.dtype.type(2 * math.pi) * (x[:, :, None] * waves.w) + waves.b


def embed_periodic(waves, x):
    """Return e and, after it, x of some columns, (rows, columns, width + 1), and u."""
    u = arguments(waves, x)
    e = np.einsum("nck,cjk->ncj", np.cos(u), waves.V) + waves.d
    return np.concatenate([e, x[:, :, None]], axis=2, dtype=x.dtype), u


def add_periodic_gradient(waves, dwaves, x, u, delta):
    """Add the gradients of all four arrays, from dC/d(e, x), (rows, columns, width + 1).

    dV = sum cos(u) de, dd = sum de, du = -sin(u) (V^T de), dw = 2 pi sum x du, db = sum du.
    """
    de = delta[:, :, :-1]
    dwaves.V[...] += np.einsum("nck,ncj->cjk", np.cos(u), de)
    dwaves.d[...] += de.sum(axis=0)
    du = _du(waves, u, de)
    dwaves.w[...] += x.dtype.type(2 * math.pi) * (x[:, :, None] * du).sum(axis=0)
    dwaves.b[...] += du.sum(axis=0)


def periodic_slope(waves, u, delta):
    """Return dC/dx, (rows, columns): along the waves, and of x itself."""
    du = _du(waves, u, delta[:, :, :-1])
    return delta.dtype.type(2 * math.pi) * (du * waves.w).sum(axis=2) + delta[:, :, -1]


def _du(waves, u, de):
    """dC/du, (rows, columns, frequencies)."""
    return -np.sin(u) * np.einsum("ncj,cjk->nck", de, waves.V)
