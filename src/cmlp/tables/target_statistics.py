"""What a level tells of the target, without a row's own: ordered means, as CatBoost has them.

For a row of the training part, the mean of the targets of those rows of its level that come before
it in a random order; averaged over a few orders. For a new row, the mean over the whole level. Both
are drawn to 0, the mean of all, by a prior that counts as so many rows.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from cmlp.core.checks import check_integer
from cmlp.core.layout import Array
from cmlp.data.checks import check_weights
from cmlp.data.labels import label_array
from cmlp.tables.columns import Codes
from cmlp.tables.encoders import CategoryEncoder
from cmlp.tables.scales import Float64s, Scale, scale_of_counts

MOST_CLASSES = 10
"""Classes that get a column each; of more, only the level's count is known."""


def targets_of(y: Any, weights: Array | None, problem: str) -> Float64s:
    """Return the targets as standardised columns: numbers, or one per class; one of two classes.

    Returns
    -------
    ndarray of float64, (n, columns)
        Weighted mean 0 and deviation 1 of each column.
    """
    array = label_array("y", y)
    if problem == "classification" and array.ndim == 1:
        classes, place = np.unique(array, return_inverse=True)
        several = [1] if len(classes) == 2 else list(range(len(classes)))
        if len(classes) > MOST_CLASSES:
            several = []
        columns = place[:, None] == np.array(several, np.int64)
    else:
        columns = array.reshape(len(array), -1)
    columns = columns.astype(np.float64)
    w = np.ones(len(columns)) if weights is None else weights
    known = np.isfinite(columns)
    columns[~known] = 0
    total = np.maximum((w[:, None] * known).sum(axis=0), np.finfo(np.float64).tiny)
    columns -= (w[:, None] * columns).sum(axis=0) / total
    columns[~known] = 0  # a missing target counts as the mean
    deviation = np.sqrt((w[:, None] * columns**2).sum(axis=0) / total)
    columns /= np.where(deviation > 0, deviation, 1)
    return np.asarray(columns, np.float64)


def level_means(
    codes: Codes, targets: Float64s, weights: Array | None, n_codes: int, prior: float
) -> Float64s:
    """Return the mean target of each code, (n_codes, columns), drawn to 0 by the prior."""
    count = np.bincount(codes, weights, n_codes)
    found = np.empty((n_codes, targets.shape[1]))
    for column, values in enumerate(targets.T):
        weighted = values if weights is None else values * weights
        found[:, column] = np.bincount(codes, weighted, n_codes) / (count + prior)
    return found


def ordered_means(
    codes: Codes,
    targets: Float64s,
    weights: Array | None,
    prior: float,
    seed: int,
    n_permutations: int,
) -> Float64s:
    """Return for each row the mean target of the rows of its level before it, (n, columns).

    A row's own target is not among them.
    """
    n = len(codes)
    found = np.zeros(targets.shape)
    for permutation in range(n_permutations):
        order = np.random.default_rng([seed, permutation]).permutation(n)
        order = order[np.argsort(codes[order], kind="stable")]  # level by level
        first = np.flatnonzero(np.diff(codes[order], prepend=-1))  # of each level
        lengths = np.diff(first, append=n)
        w = np.ones(n) if weights is None else weights[order]
        before = _sums_before(w, first, lengths) + prior
        for column, values in enumerate(targets.T):
            sums = _sums_before(values[order] * w, first, lengths)
            found[order, column] += np.divide(sums, before, out=sums, where=before > 0)
    found /= n_permutations
    return found


def _sums_before(values: Float64s, first: NDArray[np.intp], lengths: NDArray[np.intp]) -> Float64s:
    """Return the sum of the values before each, within its run."""
    sums = np.cumsum(values)
    sums -= values
    sums -= np.repeat(sums[first], lengths)
    return sums


class TargetStatistics:
    """The targets of the training rows, and how their statistics are computed."""

    def __init__(
        self, targets: Float64s, weights: Array | None, prior: float, seed: int, n: int
    ) -> None:
        self.targets, self.weights = targets, weights
        self.prior, self.seed, self.n_permutations = prior, seed, n
        self._scales: dict[int, list[Scale]] = {}

    @classmethod
    def of(cls, encoder: Any, y: Any, sample_weight: Any, n: int) -> TargetStatistics:
        """Read the targets of a fit."""
        if y is None:
            raise ValueError("target_statistics needs the targets: pass y to fit")
        weights = check_weights(sample_weight, n)
        if len(y) != n:
            raise ValueError(f"y must have a target for each of the {n} rows of X, not {len(y)}")
        seed = check_integer("random_state", encoder.random_state, 0)
        targets = targets_of(y, weights, encoder.target_statistics)
        return cls(targets, weights, float(encoder.prior), seed, encoder.n_permutations)

    def ordered(self, codes: Codes) -> Float64s:
        """Return each row's statistics, without its own target."""
        return ordered_means(
            codes, self.targets, self.weights, self.prior, self.seed, self.n_permutations
        )

    def fit(self, encoder: CategoryEncoder, codes: Codes) -> None:
        """Compute the statistics of an encoder's levels, scaled by their spread among the rows."""
        n = encoder.n_levels + 1
        means = level_means(codes, self.targets, self.weights, n, self.prior)
        of_rows = self.ordered(codes)
        scales = []
        for column in range(means.shape[1]):
            deviation = float(of_rows[:, column].std())
            scales.append(Scale(0.0, 1 / deviation if deviation > 1e-9 else 0.0, True))
            means[:, column] = scales[-1](means[:, column])
        counts = encoder.counts[:n]
        logs = np.log1p(counts)
        order = np.argsort(logs, kind="stable")
        logs = scale_of_counts(logs[order], counts[order], "robust")(logs)
        encoder.statistics = np.column_stack([means, logs])
        self._scales[id(encoder)] = scales

    def fill(self, encoder: CategoryEncoder, codes: Codes, out: Array) -> None:
        """Write the statistics of training rows in place of those of new ones."""
        if encoder.statistics is None:
            return
        ordered = self.ordered(codes)
        for column, scale in enumerate(self._scales[id(encoder)]):
            out[:, 1 + column] = scale(ordered[:, column])
