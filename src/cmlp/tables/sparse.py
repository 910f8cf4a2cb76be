"""Sparse matrices: scaled where they hold numbers, and not centred, so that zeros stay zeros."""

from __future__ import annotations

from typing import Any

import numpy as np

from cmlp.core.arrays import refuse_masked
from cmlp.tables.columns import ColumnError
from cmlp.tables.encoders import NumberEncoder, Options
from cmlp.tables.scales import FAR, Scale, scale_of_counts, smooth_clip


def check_sparse_table(X: Any, who: str) -> Any:
    """Return a sparse matrix of finite real numbers as CSR, without entries that occur twice."""
    if len(X.shape) != 2:
        raise ValueError(f"X must be (rows, features), but its shape is {X.shape}")
    for n, what in zip(X.shape, ("sample", "feature"), strict=True):
        if n == 0:
            raise ValueError(
                f"Found array with 0 {what}(s) (shape={X.shape}) while a minimum of 1 is required "
                f"by {who}."
            )
    if X.dtype.kind == "c":
        raise ValueError(f"Complex data not supported\n{X}\n")
    if X.dtype.kind not in "fiub":
        raise ValueError(f"a sparse X must hold numbers, but its dtype is {X.dtype}")
    X = X.tocsr()
    refuse_masked("X", X.data)
    if not getattr(X, "has_canonical_format", True):
        X = X.copy()
        X.sum_duplicates()
    if X.dtype.kind == "f" and not np.isfinite(X.data).all():
        at = int(np.argmin(np.isfinite(X.data)))
        row = int(np.searchsorted(X.indptr, at, "right")) - 1
        raise ColumnError(
            f"X holds {X.data[at]} at row {row}, column {X.indices[at]}; a sparse X cannot hold "
            "missing values or infinity: fill them in, or pass X.toarray()"
        )
    return X


def fit_sparse(X: Any, how: Options) -> list[NumberEncoder]:
    """Return an encoder for each column: its scale, with 0 as the center."""
    csc = X.tocsc()
    encoders = []
    for column in range(X.shape[1]):
        part = slice(csc.indptr[column], csc.indptr[column + 1])
        values = np.sort(csc.data[part].astype(np.float64))
        zero = int(np.searchsorted(values, 0.0))
        counts = np.ones(len(values) + 1, np.int64)
        counts[zero] = X.shape[0] - len(values)
        scale = scale_of_counts(np.insert(values, zero, 0.0), counts, how.numbers or "as_is")
        encoders.append(NumberEncoder(Scale(0.0, scale.factor, scale.clips)))
    return encoders


def scale_sparse(X: Any, encoders: list[NumberEncoder], dtype: np.dtype[Any]) -> Any:
    """Return a sparse matrix of the same kind whose numbers are scaled."""
    scales = [each.scale or Scale(0.0, 0.0, False) for each in encoders]
    factors = np.array([scale.factor for scale in scales])
    with np.errstate(over="ignore", under="ignore"):
        data = X.data.astype(np.float64) * factors[X.indices]
    np.clip(data, -FAR, FAR, out=data)
    if scales and scales[0].clips:
        smooth_clip(data)
    out = type(X)((data.astype(dtype), X.indices, X.indptr), shape=X.shape)
    return out
