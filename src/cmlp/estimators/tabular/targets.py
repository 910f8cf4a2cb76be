"""Targets of tabular estimators: rows whose target is missing, labels, numbers and their scales."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from cmlp.core.layout import Array
from cmlp.estimators.inputs import check_lengths, read_numbers, read_weights
from cmlp.estimators.labels import Labels, class_weights, read_labels
from cmlp.estimators.parameters import parameters_at_fault
from cmlp.estimators.tabular.tables import missing_in, n_rows_of, take_rows
from cmlp.estimators.targets import Outputs, Targets


class Rows(NamedTuple):
    """A table, its targets and weights, as they were passed."""

    X: Any
    y: Any
    weights: NDArray[np.float64] | None
    numbers: NDArray[np.int64] | None = None
    """The numbers of these rows in the table that was passed, if rows were left out."""


# Missing targets ---------------------------------------------------------------------------------


def with_targets(rows: Rows, *, leaves_out: bool, several: bool) -> Rows:
    """Return the rows whose target is there.

    Parameters
    ----------
    leaves_out : bool
        Whether rows without a target are left out; with False, one is an error.
    several : bool
        Whether one target of a row may be missing where another one is there.

    Raises
    ------
    ValueError
        With the number of the first row without a target.
    """
    if hasattr(rows.y, "tocsr"):
        return rows
    missing = missing_in(rows.y)
    if missing.ndim == 2:
        some = np.all if leaves_out and several else np.any
        missing = np.asarray(some(missing, axis=1))
    if missing.ndim != 1 or not missing.any():
        return rows
    where = np.flatnonzero(missing)
    if not leaves_out:
        more = f" and {len(where) - 1:,} more" if len(where) > 1 else ""
        raise ValueError(
            f"Input y contains NaN. The first missing target is in row {where[0]}{more}; give it a "
            "value, or leave such rows out with missing_targets=True"
        )
    kept = np.flatnonzero(~missing)
    if not len(kept):
        raise ValueError("Input y contains NaN: every target is missing")
    weights = None if rows.weights is None else rows.weights[kept]
    return Rows(take_rows(rows.X, kept), take_rows(rows.y, kept), weights, kept)


def read_rows(X: Any, y: Any, sample_weight: Any, *, leaves_out: bool, several: bool) -> Rows:
    """Check lengths and weights, and leave out rows without a target where that is chosen."""
    n = n_rows_of(X)
    if n_rows_of(y) != n:
        raise ValueError(
            f"Found input variables with inconsistent numbers of samples: {[n, n_rows_of(y)]}"
        )
    weights = read_weights(sample_weight, n)
    return with_targets(Rows(X, y, weights), leaves_out=leaves_out, several=several)


# Labels ------------------------------------------------------------------------------------------


def outputs_for(labels: Labels) -> Outputs:
    """Return one output per class, also of two, or one per label."""
    n = len(labels.classes)
    if labels.multilabel:
        return Outputs(n, "binary_crossentropy", True, labels)
    return Outputs(max(n, 2), "categorical_crossentropy", False, labels)


def encode_labels(rows: Rows, class_weight: Any, known: Targets | None) -> Targets:
    """Encode labels as class numbers, (n,), or 0 and 1, (n, n_labels).

    Parameters
    ----------
    known : Targets, optional
        Those to train on, where these are of held-out rows.
    """
    sparse, y = hasattr(rows.y, "tocsr"), read_labels(rows.y, learns=known is None)
    check_lengths(n_rows_of(rows.X), y)
    labels = Labels.of(y, sparse) if known is None else known.outputs.labels
    assert labels is not None
    encoded, weights = labels.encode(y), rows.weights
    if not labels.multilabel and encoded.ndim == 2:
        encoded = encoded[:, 0]
    with parameters_at_fault():
        by_class = class_weights(class_weight, y, labels)
    if by_class is not None:
        weights = by_class if weights is None else weights * by_class
    return Targets(y, encoded, weights, outputs_for(labels))


def probabilities(outputs: Array, labels: Labels) -> NDArray[np.float64]:
    """Return outputs as float64, a column per class, whose sum is 1."""
    proba = outputs.astype(np.float64)[:, : len(labels.classes)]
    proba /= np.add.reduce(proba, axis=1, keepdims=True)
    return proba


# Numbers -----------------------------------------------------------------------------------------


def encode_numbers(rows: Rows, loss: str, known: Targets | None) -> Targets:
    """Check numbers, and return them as (n, n_outputs)."""
    _refuse_infinity(rows.y)
    y = read_numbers(rows.y, learns=known is None)
    check_lengths(n_rows_of(rows.X), y)
    encoded = np.asarray(y if y.ndim == 2 else y[:, None], np.float64)
    if loss == "poisson" and (encoded < 0).any():
        raise ValueError(
            f"the loss 'poisson' needs y of at least 0, but y holds {np.nanmin(encoded):g}"
        )
    return Targets(y, encoded, rows.weights, Outputs(encoded.shape[1], loss, y.ndim == 2))


def _refuse_infinity(y: Any) -> None:
    """Refuse infinity among numbers, with its row."""
    array = np.asarray(y) if hasattr(y, "__array__") or isinstance(y, (list, tuple)) else None
    if array is None or array.dtype.kind != "f" or array.ndim not in (1, 2):
        return
    infinite = np.isinf(array)
    if infinite.any():
        raise ValueError(
            f"Input y contains infinity or a value too large for {array.dtype!r}. The first one is "
            f"in row {np.argwhere(infinite)[0][0]}"
        )


@dataclass(frozen=True)
class Scale:
    """How a network's outputs become numbers: times `spread`, plus `centre`, within limits.

    All are (n_outputs,).
    """

    centre: NDArray[np.float64]
    spread: NDArray[np.float64]
    low: NDArray[np.float64]
    high: NDArray[np.float64]

    @classmethod
    def of(
        cls, y: Array, weights: NDArray[np.float64] | None, *, standardises: bool, clamps: bool
    ) -> Scale:
        """Compute the scale of the targets to train on, (n, n_outputs), which may hold NaN."""
        n = y.shape[1]
        known = ~np.isnan(y)
        share = known * (1.0 if weights is None else weights[:, None])
        total = np.maximum(share.sum(axis=0), np.finfo(float).tiny)
        values = np.where(known, y, 0.0)
        centre, spread = np.zeros(n), np.ones(n)
        if standardises:
            # In units of a power of two, squares neither overflow nor vanish: nothing is rounded.
            unit = np.ldexp(1.0, np.frexp(np.abs(values).max(axis=0, initial=0.0))[1] - 1)
            values = values / unit
            centre = (share * values).sum(axis=0) / total
            variance = (share * (values - centre) ** 2).sum(axis=0) / total
            spread = np.sqrt(variance) * unit
            centre *= unit
            spread[~(spread > 0)] = 1.0
        low, high = np.full(n, -np.inf), np.full(n, np.inf)
        if clamps:
            low = np.where(known, y, np.inf).min(axis=0)
            high = np.where(known, y, -np.inf).max(axis=0)
            unknown = ~known.any(axis=0)
            low[unknown], high[unknown] = -np.inf, np.inf
        return cls(centre, spread, low, high)

    def to_network(self, y: Array) -> Array:
        """Return standardised targets."""
        return (y - self.centre) / self.spread

    def to_numbers(self, outputs: Array) -> NDArray[np.float64]:
        """Return a network's outputs in the units of the targets."""
        numbers = outputs.astype(np.float64)
        numbers *= self.spread
        numbers += self.centre
        return np.clip(numbers, self.low, self.high, out=numbers)
