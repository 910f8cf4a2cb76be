"""Sample: some of the rows, drawn evenly, and what is counted in all of them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cmlp.core.arrays import array_of, refuse_masked
from cmlp.core.layout import Array
from cmlp.data.checks import check_weights
from cmlp.data.frames import column_names
from cmlp.data.labels import label_array, places
from cmlp.data.numbers import is_finite
from cmlp.data.rows import Data
from cmlp.diagnosis.model import Model
from cmlp.model.state import State

SAMPLE_ROWS, FEWEST_ROWS = 4096, 256
"""Rows that are examined: a share of 1 % is then known to within 0.3 %."""


SAMPLE_NUMBERS = 1 << 22
"""Inputs or activations kept at a time (32 MB in float64): fewer rows where they are very wide."""


class Rows(NamedTuple):
    """Rows as the user passed them: an array or a sparse matrix, labels or numbers, weights."""

    X: Any
    y: Array
    weights: NDArray[np.float64] | None


@dataclass(frozen=True)
class Sample:
    """Some of the rows, and what is counted in all of them."""

    n_rows: int
    """Of all rows."""
    rows: Rows
    """Some of them, dense."""
    X: Array
    """The same as the first layer sees them, float64."""
    names: list[str]
    """Of the columns; their numbers where they have no names."""
    raw_bytes: bool
    """Whether X is unscaled uint8."""
    missing: dict[str, int]
    """NaN and infinities in all rows, by where they are ('X3', 'y'); if there are any, the
    attributes below are None."""
    targets: Array | None = None
    """Numeric targets of outputs without bounds, float64, (rows, n_out)."""
    classes: Array | None = None
    counts: NDArray[np.float64] | None = None
    """Weight of each class in all rows; None for numbers and several labels per row."""


def draw(model: Model, X: Any, y: ArrayLike, sample_weight: ArrayLike | None) -> Sample:
    """Check all rows, count what is missing and the classes, and draw some of them."""
    net = model.network
    names = [str(name) for name in column_names(X) or model.names]
    whole = read(X, y, sample_weight)
    some = some_of(whole)
    scale = 1.0 if net is None else net.input_scale
    sample = Sample(
        n_rows=len(whole.y),
        rows=some,
        X=some.X.astype(np.float64) * scale,
        names=names or [str(number) for number in range(whole.X.shape[1])],
        raw_bytes=whole.X.dtype == np.uint8 and scale == 1,
        missing=_count_missing(whole, may_miss=_has_missing_targets(net, whole.y)),
    )
    if sample.missing:
        return sample
    targets = None
    classes, counts = _count_classes(model, whole.y, whole.weights)
    if classes is None and some.y.dtype.kind in "iuf" and model.unbounded:
        targets = some.y.reshape(len(some.y), -1).astype(np.float64)
    return replace(sample, targets=targets, classes=classes, counts=counts)


# Rows --------------------------------------------------------------------------------------------


def read(X: Any, y: ArrayLike, sample_weight: ArrayLike | None = None, suffix: str = "") -> Rows:
    """Return all rows as arrays; X may be a sparse matrix."""
    numbers, labels = _numbers(f"X{suffix}", X), label_array(f"y{suffix}", y)
    if numbers.ndim != 2 or numbers.shape[0] == 0 or len(labels) != numbers.shape[0]:
        raise ValueError(
            f"X{suffix} must be (rows, features) and y{suffix} have as many rows; they are "
            f"{numbers.shape} and {labels.shape}"
        )
    return Rows(numbers, labels, check_weights(sample_weight, len(labels)))


def _numbers(name: str, X: Any) -> Any:
    """Return an array, or a sparse matrix that rows can be taken from."""
    if hasattr(X, "tocsr"):
        X = X.tocsr()
        refuse_masked(name, X.data)
        return X
    array = array_of(name, X.to_numpy() if hasattr(X, "to_numpy") else X)
    if array.dtype == object:
        array = array.astype(np.float64)
    if array.dtype.kind not in "fiub":
        raise ValueError(
            f"{name} must hold numbers, but its dtype is {array.dtype}; encode it first"
        )
    return array


def some_of(rows: Rows) -> Rows:
    """Draw rows evenly, the same ones in every call, and make them dense."""
    n, most = len(rows.y), rows_within(rows.X.shape[1])
    chosen = np.arange(n)
    if n > most:
        chosen = np.sort(np.random.default_rng(0).choice(n, most, replace=False))
    part = rows.X[chosen]
    X = np.asarray(part.toarray() if hasattr(part, "toarray") else part)
    return Rows(X, rows.y[chosen], None if rows.weights is None else rows.weights[chosen])


def rows_within(width: int) -> int:
    """Return how many rows of so many numbers are examined."""
    return max(FEWEST_ROWS, min(SAMPLE_ROWS, SAMPLE_NUMBERS // max(width, 1)))


def encoded(net: State, labels: Array | None, rows: Rows) -> Data:
    """Return rows as the network takes them.

    Parameters
    ----------
    net : State
        A copy: it may forget its labels, and keeps those of `rows`.
    labels : ndarray or None
        An estimator's labels in the order of its outputs.
    """
    X, y, weights = rows
    if labels is not None and y.ndim == 1:
        place = places(labels, y)
        if (place < 0).any():
            raise ValueError(f"y holds {y[place < 0][0]!r}, which is not in classes_: {labels}")
        net.classes, y = None, place
    if net.loss_row is None:
        weights = None
    return net.encode_rows(X, y, weights)


# What is counted ---------------------------------------------------------------------------------


def _count_missing(rows: Rows, may_miss: bool) -> dict[str, int]:
    """Count NaN and infinities in each column of X and in y, a block at a time."""
    X, y = rows.X, rows.y
    found: dict[str, int] = {}
    values = X.data if hasattr(X, "tocsr") else X
    if values.size and values.dtype.kind == "f" and not is_finite(values):
        per_column = np.zeros(X.shape[1], np.int64)
        if values is X:
            for start in range(0, len(X), SAMPLE_ROWS):
                per_column += (~np.isfinite(X[start : start + SAMPLE_ROWS])).sum(axis=0)
        else:
            np.add.at(per_column, X.indices[~np.isfinite(values)], 1)
        found = {f"X{column}": int(per_column[column]) for column in np.flatnonzero(per_column)}
    if y.dtype.kind == "f" and not is_finite(y):
        bad = int((np.isinf(y) if may_miss else ~np.isfinite(y)).sum())
        found |= {"y": bad} if bad else {}
    return found


def _has_missing_targets(net: State | None, y: Array) -> bool:
    """Whether a NaN in y is a missing target, as estimators take it among several outputs."""
    return y.ndim == 2 and y.shape[1] > 1 if net is None else net.missing_targets


def _count_classes(
    model: Model, y: Array, weights: Array | None
) -> tuple[Array | None, NDArray[np.float64] | None]:
    """Weigh each class over all rows; nothing for numbers and for several labels per row."""
    net, several = model.network, y.ndim == 2 and y.shape[1] > 1
    if not model.classifies or (several and (net is None or net.activations[-1] != "softmax")):
        return None, None
    if several:
        counts = y.sum(axis=0) if weights is None else weights @ y
        return np.arange(y.shape[1]), np.asarray(counts, np.float64)
    classes, place = np.unique(y.ravel(), return_inverse=True)
    return classes, np.bincount(place.ravel(), weights).astype(np.float64)
