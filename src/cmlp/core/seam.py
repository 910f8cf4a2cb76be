"""What a call of the core takes in addition to arrays: named records, sparse rows, a team."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from cmlp.core.layout import Array


class SparseRows:
    """Rows of which only some numbers are stored (CSR, as in SciPy), read-only.

    Row i has ``data[indptr[i]:indptr[i + 1]]`` in the columns ``indices[indptr[i]:indptr[i + 1]]``,
    zeros elsewhere; numbers in the same column add up. The cores make one batch of rows dense at a
    time, in their workspace.
    """

    def __init__(self, data: Array, indices: Array, indptr: Array, width: int) -> None:
        self.data, self.indices, self.indptr = data, indices, indptr
        self.shape, self.dtype = (len(indptr) - 1, width), data.dtype

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, rows: Any) -> SparseRows:
        """Copy some rows: a slice, or an array of their numbers."""
        numbers = np.arange(len(self))[rows]
        first = self.indptr[numbers].astype(np.int64)
        lengths = self.indptr[numbers + 1] - first
        indptr = np.concatenate([[0], np.cumsum(lengths)])
        at = np.arange(indptr[-1]) + np.repeat(first - indptr[:-1], lengths)
        indptr = indptr.astype(self.indptr.dtype)
        return SparseRows(self.data[at], self.indices[at], indptr, self.shape[1])

    def dense(self, dtype: Any) -> Array:
        """Return all rows with their zeros."""
        rows = np.zeros(self.shape, dtype)
        numbers = np.repeat(np.arange(len(self)), np.diff(self.indptr))
        np.add.at(rows, (numbers, self.indices), self.data.astype(dtype))
        return rows

    def min(self) -> float:
        """Return the smallest number stored, 0 at most."""
        return float(self.data.min(initial=0))

    def max(self) -> float:
        """Return the largest number stored, 0 at least."""
        return float(self.data.max(initial=0))


class Objective(NamedTuple):
    """What is minimised: the rows' mean loss + ``l1 sum|W| + l2/2 sum W^2`` (biases are free)."""

    loss: int
    parameter: float = 0.0
    """The quantile of 'quantile', the threshold of 'huber'."""
    label_smoothing: float = 0.0
    l1: float = 0.0
    l2: float = 0.0
    missing: bool = False
    """If true, a NaN target is missing and contributes no loss or gradient."""
    per_batch: bool = False
    """If true, penalties are divided by the weight of the batch, and an epoch's loss is the mean of
    its batches' losses, weighted by their numbers of rows."""
    cost_scale: float = 1.0
    """Factor of the rows' loss in the loss that is returned; gradients do without it."""


class Optimizer(NamedTuple):
    """How a gradient becomes a step."""

    solver: int = 0
    momentum: float = 0.0
    nesterov: bool = False
    beta_1: float = 0.9
    beta_2: float = 0.999
    epsilon: float = 1e-8
    weight_decay: float = 0.0
    clip_norm: float = 0.0
    """Largest Euclidean norm of the whole gradient; 0: no limit."""
    ema: float = 0.0
    """Weight of the old mean in that of the parameters, the last row of the state; 0: no mean."""
    ema_start: int = 0
    """Steps before the mean began. It has no bias: after few steps, it is their plain mean."""
    factors: NDArray[np.float64] = np.zeros((0, 2))
    """Factors (phi, rho) of rate and decay, a row for each group of parameters of each layer, see
    :func:`cmlp.core.groups.factor_row`; without rows: 1, and decay of weights and tables."""


class Noise(NamedTuple):
    """What is random in an epoch: hashes of (seed, step, row, unit), the same in both twins."""

    seed: int = 0
    input_noise: float = 0.0
    """Standard deviation of the noise added to the inputs."""
    dropout: NDArray[np.float64] = np.zeros(0)
    """Probability, one per hidden layer, that a unit is switched off; empty for none."""


class Limits(NamedTuple):
    """Of the batches that a bound trainer takes as they are."""

    plain: bool
    """Whether targets of one column can be read so: numbers, or labels that are class numbers."""
    low: float
    high: float
    """Between which targets are."""
    rows: int
    """Of a batch, at most."""
    bytes: int
    """Of the memory that is kept from step to step, at most."""
    reserved: int = 0
    """Rows for which there is room from the beginning."""


MAX_BATCH = 1024
"""Rows of one pass. A larger batch adds up passes; with 'batch', each has its own statistics."""


Places = NDArray[np.int64]


TEAM_ABORTED, TEAM_STEPS, TEAM_STOP, TEAM_SIZE = 9, 10, 11, 16
"""Places in a team's array (``barrier.h``): whether a thread failed to start; the steps taken;
whether the caller stops the step; and the array's length."""


def places() -> Places:
    """Return the array in which the threads of one call meet."""
    return np.zeros(TEAM_SIZE, np.int64)


LANE = (
    "n", "batch", "steps", "taken", "number", "rows", "rates", "losses", "settings", "failed",
)  # fmt: skip
"""A net's place in a call that trains several, one in each lane of a vector: the rows of its epoch
and of a step; the steps of its rows, and those taken; the steps of its optimizer before the first
of them; where its rows (epoch after epoch) begin, and its rates, losses and settings among the
numbers of the call; and whether its loss was not finite."""


LANE_SETTINGS = (
    "momentum", "beta_1", "beta_2", "epsilon", "l1", "l2", "weight_decay",
    "cost_scale", "per_batch",
)  # fmt: skip
"""The numbers that a lane has of its own, in addition to the rate of a step; the last two are those
of an :class:`Objective`."""


LANE_LOSSES = ("squared_error", "binary_crossentropy", "categorical_crossentropy")
"""Losses of lanes, by their codes there; each with the output activation that belongs to it."""


LANE_RULES = ("momentum", "nesterov", "adam")
"""Rules of lanes, by their codes there."""


LANE_ROWS = 32
"""Rows of a pass of lanes, whose activations stay in the caches; a larger batch adds up passes."""


def lane_memory(plan: Any, n_moments: int, batch: int, n_lanes: int) -> int:
    """Return how many numbers parameters, moments and scratch of a call with lanes are."""
    n_in, n_out = plan[:, 0], plan[:, 1]
    params, units = int((n_out * (n_in + 1)).sum()), int(n_out.sum())
    rows = min(batch, LANE_ROWS)
    scratch = 9 + rows * (2 + int(n_in[0]) + int(n_out[-1]) + 3 * units)
    scratch += 12 * int(n_out.max()) if batch <= LANE_ROWS else params  # of the gradient
    return n_lanes * ((1 + n_moments) * params + scratch)
