"""Validated rows with their targets and weights; the rows that are held out for validation."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cmlp.core.layout import Array
from cmlp.core.seam import SparseRows


@dataclass(frozen=True)
class Data:
    """Validated rows with their targets and weights, in the core's format."""

    X: Array | SparseRows
    targets: Array
    weights: NDArray[np.float64] | None

    def weight(self, rows: NDArray[np.int64]) -> float:
        """Sum the weights of some rows."""
        return float(len(rows) if self.weights is None else self.weights[rows].sum())


@dataclass
class HeldOut:
    """Rows to validate on: encoded for the core, and as the user passed them, for a scorer."""

    data: Data
    rows: NDArray[np.int64] | None
    X: Any
    y: Any

    def of(self, values: Array) -> Array:
        """Return these rows' part of an array with a value per row of the whole data."""
        return values if self.rows is None else np.asarray(values[self.rows])


def check_pair(X_val: Any, y_val: Any) -> None:
    """Reject validation features without targets, and targets without features."""
    if (X_val is None) != (y_val is None):
        raise ValueError("X_val and y_val go together; only one of them is given")
