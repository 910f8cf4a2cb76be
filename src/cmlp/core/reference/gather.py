"""Rows of X and y, converted, scaled and smoothed, one pass at a time."""

from __future__ import annotations

from typing import Any

import numpy as np

from cmlp.core.layout import Array
from cmlp.core.reference.losses import CATEGORICAL
from cmlp.core.seam import MAX_BATCH, SparseRows


def workspace_size(plan, batch_size, n_threads=1):
    """Return how many scratch numbers a batch needs: none, NumPy allocates."""
    return 0


def passes(X, rows):
    """Cut the given rows of X (None: all) into passes: first, last and which rows of X."""
    n = len(X) if rows is None else len(rows)
    for start in range(0, n, MAX_BATCH):
        stop = min(start + MAX_BATCH, n)
        yield start, stop, slice(start, stop) if rows is None else rows[start:stop]


def gather(X: Any, rows: Any, input_scale: float, dtype: np.dtype[Any]) -> Array:
    """Rows of X as the first layer reads them."""
    some = X if rows is None else X[rows]
    x: Array = some.dense(dtype) if isinstance(some, SparseRows) else np.asarray(some, dtype=dtype)
    return x if input_scale == 1 else x * dtype.type(input_scale)


def gather_targets(targets, rows, objective, n_out, dtype):
    """One row of numbers per row of X: labels become one-hot rows, and both are smoothed."""
    y = targets if rows is None else targets[rows]
    if targets.ndim == 1:
        y = (y[:, None] == np.arange(n_out)).astype(dtype)
    y = np.asarray(y, dtype=dtype)
    if objective.label_smoothing:
        uniform = 1.0 / n_out if objective.loss == CATEGORICAL else 0.5
        y = y + objective.label_smoothing * (uniform - y)
    return np.asarray(y, dtype=dtype)
