"""X and weights of a network: user input is validated here, once; code below relies on it.

The compiled core checks only that it stays inside its arrays. Every message states what was
expected, what was passed, and what to do.
"""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cmlp.core.layout import Array
from cmlp.core.seam import SparseRows
from cmlp.data.numbers import (
    as_numbers,
    check_finite,
    first_not_finite,
    float_for,
    not_finite,
)


class Sparse(Protocol):
    """A sparse matrix of SciPy, or one with the same methods."""

    @property
    def shape(self) -> tuple[int, ...]: ...

    def tocsr(self) -> Any: ...


RowsLike = ArrayLike | Sparse | SparseRows
"""Types of X: dense, sparse, or sparse and validated already."""


def check_X(X: Any, n_in: int, dtype: np.dtype[Any], name: str = "X") -> Array | SparseRows:
    """Return X as (rows, n_in) numbers of any readable dtype and strides; copy only if necessary.

    Anything that has ``tocsr`` (SciPy's sparse matrices and arrays) stays sparse.

    Raises
    ------
    ValueError
        For a wrong number of dimensions or features, and for NaN, infinity or text.
    """
    if isinstance(X, SparseRows):  # validated before
        return X
    if hasattr(X, "tocsr") and not isinstance(X, np.ndarray):
        return check_sparse(X, n_in, dtype, name)
    array = as_numbers(name, X)
    if array.ndim == 1:
        hint = f"{name}.reshape(1, -1)" if len(array) == n_in else f"{name}.reshape(-1, {n_in})"
        raise ValueError(
            f"{name} must be (rows, features), but its shape is {array.shape}; try {hint}"
        )
    if array.ndim != 2:
        raise ValueError(
            f"{name} must be (rows, features), but its shape is {array.shape}; "
            f"flatten each row: {name}.reshape(len({name}), -1)"
        )
    if array.shape[1] != n_in:
        raise ValueError(f"{name} has {array.shape[1]} features, but this network expects {n_in}")
    check_finite(name, array, dtype)
    return array


def check_sparse(X: Any, n_in: int, dtype: np.dtype[Any], name: str) -> SparseRows:
    """Return a sparse matrix's numbers and indices, validated."""
    if len(X.shape) != 2:
        raise ValueError(f"{name} must be (rows, features), but its shape is {X.shape}")
    if X.shape[1] != n_in:
        raise ValueError(f"{name} has {X.shape[1]} features, but this network expects {n_in}")
    csr = X.tocsr()
    data, indices, indptr = as_numbers(name, csr.data), *map(np.asarray, (csr.indices, csr.indptr))
    if data.dtype.kind != "f":
        data = data.astype(float_for(data.dtype))
    whole = all(part.ndim == 1 and part.dtype.kind in "iu" for part in (indices, indptr))
    if not (
        whole
        and data.ndim == 1
        and len(indptr) == X.shape[0] + 1
        and indptr[0] == 0
        and (indptr[1:] >= indptr[:-1]).all()
        and indptr[-1] <= min(len(data), len(indices))
    ):
        raise ValueError(
            f"{name} is not a CSR matrix: its indptr must begin with 0, never fall, have a number "
            "for each row and one more, and end within data and indices"
        )
    n = int(indptr[-1])  # data and indices may be longer: unused capacity
    data, indices = data[:n], indices[:n]
    if n and not (indices.min() >= 0 and indices.max() < n_in):
        raise ValueError(
            f"{name} has numbers in columns {indices.min()} to {indices.max()}, but {n_in} columns"
        )
    where = first_not_finite(data, dtype)
    if where is not None:
        row = np.searchsorted(indptr, where[0], "right") - 1
        place = f"row {row}, column {indices[where]}"
        raise not_finite(name, data[where], place, dtype)
    narrow = indices.dtype == indptr.dtype == np.int32
    indices, indptr = (
        np.ascontiguousarray(part, np.int32 if narrow else np.int64) for part in (indices, indptr)
    )
    return SparseRows(np.ascontiguousarray(data), indices, indptr, n_in)


def check_weights(
    sample_weight: ArrayLike | None, n: int, name: str = "sample_weight", rows: str = "X"
) -> NDArray[np.float64] | None:
    """Return the rows' weights, (n,), or None for equal ones."""
    if sample_weight is None:
        return None
    weights = np.ascontiguousarray(as_numbers(name, sample_weight), np.float64)
    if weights.shape != (n,):
        raise ValueError(f"{name} must be ({n},), one per row of {rows}; it is {weights.shape}")
    check_finite(name, weights, weights.dtype)
    if n and (weights.min() < 0 or weights.max() == 0):
        raise ValueError(f"{name} must not be negative, and not zero everywhere")
    return weights
