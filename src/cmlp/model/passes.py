"""Calls of the core over many rows, in portions that Ctrl-C can end."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from cmlp.core.layout import N_IN, N_OUT, Array
from cmlp.core.seam import Objective, SparseRows

if TYPE_CHECKING:
    from cmlp.network import Network

CALL_FLOPS = 2e9
"""Work of one call of the core: a fraction of a second, then Python sees Ctrl-C and the clock."""


PASS_ROWS = 1024
"""Rows that the cores take through a network together."""


def shared_penalties(objective: Objective, weights: NDArray[np.float64] | None) -> Objective:
    """Return an objective for a custom loss, whose weights the core does not see.

    With ``per_batch`` the core divides the penalties by the number of rows, and scikit-learn by
    their weight.
    """
    if weights is None or not objective.per_batch:
        return objective
    factor = len(weights) / float(weights.sum()) if weights.any() else 0.0
    return objective._replace(l1=objective.l1 * factor, l2=objective.l2 * factor)


def flops_of(net: Network) -> float:
    """Return the floating-point operations of a training step, for one row."""
    return 6.0 * int((net.plan[:, N_IN] * net.plan[:, N_OUT]).sum())


def portions(
    X: Array | SparseRows, flops: float
) -> Iterator[tuple[slice, Array | SparseRows, NDArray[np.int64] | None]]:
    """Divide rows between calls of the core that are short enough for Ctrl-C.

    Yields
    ------
    part : slice
        Some of the rows, a multiple of those of a pass.
    X, rows
        What the core takes for them: a part of the array, or all of it and the rows' numbers.
    """
    size = max(1, int(CALL_FLOPS / flops / PASS_ROWS)) * PASS_ROWS
    if len(X) <= size:
        yield slice(None), X, None
        return
    for start in range(0, len(X), size):
        part = slice(start, min(start + size, len(X)))
        if isinstance(X, SparseRows):
            yield part, X, np.arange(part.start, part.stop)
        else:
            yield part, X[part], None
