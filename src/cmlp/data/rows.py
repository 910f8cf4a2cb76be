"""Rows that were checked, with their targets and weights."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cmlp.core.layout import Array
from cmlp.core.seam import SparseRows


@dataclass(frozen=True)
class Data:
    """Checked rows with their targets and weights, as the core takes them."""

    X: Array | SparseRows
    targets: Array
    weights: NDArray[np.float64] | None

    def weight(self, rows: NDArray[np.int64]) -> float:
        """Sum the weights of some rows."""
        return float(len(rows) if self.weights is None else self.weights[rows].sum())


@dataclass
class HeldOut:
    """Rows to validate on: for the core, and as a scorer wants them."""

    data: Data
    rows: NDArray[np.int64] | None
    X: Any
    y: Any

    def of(self, values: Array) -> Array:
        """Return the part of some values that belongs to these rows."""
        return values if self.rows is None else np.asarray(values[self.rows])
