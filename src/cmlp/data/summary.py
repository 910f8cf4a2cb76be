"""What a source holds: labels and their counts, means, deviations and ranges, in one pass."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cmlp.core.layout import Array

MOST_LABELS = 100_000
"""Distinct targets that are counted; of more, nothing but their range is known."""


@dataclass
class Statistics:
    """Of columns, each (n_columns,): NaN and infinity are counted, and are not in the others."""

    mean: NDArray[np.float64]
    deviation: NDArray[np.float64]
    low: NDArray[np.float64]
    high: NDArray[np.float64]
    n_missing: NDArray[np.int64]


@dataclass
class Summary:
    """What a source holds.

    Attributes
    ----------
    n_rows : int
    labels, counts : ndarray or None
        The distinct targets, sorted, and how often each occurs; None for several targets per row,
        and for more than 100,000 distinct ones.
    targets, features : Statistics or None
        None where targets are text, or where only they were read.
    """

    n_rows: int
    labels: Array | None
    counts: NDArray[np.int64] | None
    targets: Statistics | None
    features: Statistics | None


class Moments:
    """Mean and deviation of columns from parts, by Chan's formula; and their range."""

    def __init__(self) -> None:
        self.n: Any = 0
        self.mean: Any = 0.0
        self.squares: Any = 0.0
        self.low: Any = np.inf
        self.high: Any = -np.inf
        self.n_missing: Any = 0

    def see(self, values: Array) -> None:
        """Add rows, (n, n_columns)."""
        for start in range(0, len(values), 4096):
            part = np.asarray(values[start : start + 4096], np.float64)
            known = np.isfinite(part)
            n = known.sum(axis=0)
            filled = np.where(known, part, 0.0)
            mean = filled.sum(axis=0) / np.maximum(n, 1)
            off = np.where(known, part - np.where(known, mean, 0.0), 0.0) if not known.all() else (
                part - mean
            )  # fmt: skip
            other = Moments()
            other.n, other.mean, other.squares = n, mean, (off * off).sum(axis=0)
            other.n_missing = len(part) - n
            other.low = np.where(known, part, np.inf).min(axis=0)
            other.high = np.where(known, part, -np.inf).max(axis=0)
            self.merge(other)

    def merge(self, other: Moments) -> None:
        """Add the rows that another one has seen."""
        total = np.maximum(self.n + other.n, 1)
        gap = other.mean - self.mean
        self.squares = self.squares + other.squares + gap * gap * self.n * other.n / total
        self.mean = self.mean + gap * other.n / total
        self.n = self.n + other.n
        self.n_missing = self.n_missing + other.n_missing
        self.low, self.high = np.minimum(self.low, other.low), np.maximum(self.high, other.high)

    def statistics(self) -> Statistics:
        """Return what was seen."""
        deviation = np.sqrt(self.squares / np.maximum(self.n, 1))
        return Statistics(self.mean, deviation, self.low, self.high, self.n_missing)


class Labels:
    """Distinct targets and their counts, as long as there are few."""

    def __init__(self) -> None:
        self.labels: Array | None = None
        self.counts: NDArray[np.int64] | None = None
        self.gave_up = False

    def see(self, y: Array) -> None:
        """Add targets, (n,) or (n, n_targets)."""
        if y.ndim == 2 and y.shape[1] != 1:
            self.give_up()
        elif not self.gave_up and len(y):
            try:
                self._add(*np.unique(y.reshape(-1), return_counts=True))
            except TypeError:  # objects that have no order
                self.give_up()

    def merge(self, other: Labels) -> None:
        """Add the targets that another one has seen."""
        if other.gave_up:
            self.give_up()
        elif not self.gave_up and other.labels is not None and other.counts is not None:
            self._add(other.labels, other.counts)

    def _add(self, found: Array, counts: NDArray[np.int64]) -> None:
        if self.labels is not None and self.counts is not None:
            both = np.concatenate([self.labels, found])
            found, place = np.unique(both, return_inverse=True)
            counts = np.bincount(place, np.concatenate([self.counts, counts]), len(found)).astype(
                np.int64
            )
        self.labels, self.counts = found, counts
        if len(found) > MOST_LABELS:
            self.give_up()

    def give_up(self) -> None:
        """Count no more: there are too many, or several for each row."""
        self.labels, self.counts, self.gave_up = None, None, True


def summary_of(pieces: Iterable[Any], features: bool) -> Summary:
    """Return the summary of blocks."""
    n, labels, of_targets, of_features = 0, Labels(), Moments(), Moments()
    numeric = True
    for X, y, _ in pieces:
        n += len(y)
        if not len(y):
            continue
        labels.see(y)
        numeric = numeric and y.dtype.kind in "fiub"
        if numeric:
            of_targets.see(y.reshape(len(y), -1))
        if features:
            of_features.see(X)
    return Summary(
        n,
        labels.labels,
        labels.counts,
        of_targets.statistics() if numeric and n else None,
        of_features.statistics() if features and n else None,
    )
