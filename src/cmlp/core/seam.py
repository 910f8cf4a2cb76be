"""What a call of the core takes beside arrays: named records, sparse rows, a team's places."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray


class SparseRows:
    """Rows of which only some numbers are stored (CSR, as in SciPy), read-only.

    Row i has ``data[indptr[i]:indptr[i + 1]]`` in the columns ``indices[indptr[i]:indptr[i + 1]]``,
    zeros elsewhere; numbers in the same column add up. The cores make one batch of rows dense at a
    time, in their workspace.
    """

    def __init__(
        self, data: NDArray[Any], indices: NDArray[Any], indptr: NDArray[Any], width: int
    ) -> None:
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

    def dense(self, dtype: Any) -> NDArray[Any]:
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
    """Whether NaN stands for a target that nobody knows: it has no cost, and no gradient."""
    per_batch: bool = False
    """Penalties are divided by the weight of the batch; an epoch's loss is the mean of its batches'
    losses by their numbers of rows."""
    cost_scale: float = 1.0
    """Factor of the rows' loss where a loss is reported; gradients do not see it."""


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
    """Largest Euclidean norm of the whole gradient; 0 leaves it alone."""
    ema: float = 0.0
    """What a step leaves of the old mean of the parameters, the last row of the state; 0: none."""
    ema_start: int = 0
    """Steps before the mean began: it is free of bias, the plain mean of a start's few steps."""


class Noise(NamedTuple):
    """What is random inside an epoch: a hash of (seed, step, row, unit), the same in both twins."""

    seed: int = 0
    input_noise: float = 0.0
    """Standard deviation of the noise added to the inputs."""
    dropout: NDArray[np.float64] = np.zeros(0)
    """Probability, one per hidden layer, that a unit is switched off; empty for none."""


Places = NDArray[np.int64]


TEAM_ABORTED, TEAM_STEPS, TEAM_STOP = 9, 10, 11
"""Places in a team's array: a thread failed to start; steps taken; the caller stops the step."""


def places() -> Places:
    """Return the array in which the threads of one call meet."""
    return np.zeros(16, np.int64)
