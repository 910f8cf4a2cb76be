"""The boundary: whatever a user passes comes through here once, and is right behind it.

The compiled core checks nothing but that it stays inside its arrays. Every complaint says what was
expected, what came, and what to do.
"""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cmlp.core.arrays import array_of
from cmlp.core.layout import Array
from cmlp.core.seam import SparseRows


class Sparse(Protocol):
    """A matrix of SciPy or like it, of which only some numbers are stored."""

    @property
    def shape(self) -> tuple[int, ...]: ...

    def tocsr(self) -> Any: ...


RowsLike = ArrayLike | Sparse | SparseRows
"""What X may be: dense, sparse, or checked before."""


READABLE = "fd?bBhHiIlLqQ"
"""Number formats that the cores gather from as they are, row by row, without a copy of all."""


def check_dense(name: str, values: ArrayLike) -> None:
    """Refuse a sparse matrix, of which NumPy would make an array of one object."""
    if hasattr(values, "toarray") and not isinstance(values, np.ndarray):
        raise TypeError(f"{name} is a sparse matrix, a dense array is expected: {name}.toarray()")


def as_numbers(name: str, values: ArrayLike) -> Array:
    """Turn any array-like into numbers that the cores read, copying only what they cannot read."""
    check_dense(name, values)
    array = array_of(name, values)
    if array.dtype == object:
        try:
            array = array.astype(np.float64)
        except (TypeError, ValueError) as error:
            raise ValueError(f"{name} must hold numbers: {error}") from None
    if array.dtype.kind not in "fiub":
        raise ValueError(
            f"{name} must hold real numbers, but its dtype is {array.dtype}; "
            "encode text or categories as numbers first"
        )
    if array.dtype.char not in READABLE or not array.dtype.isnative or not array.flags.aligned:
        small = array.dtype.itemsize < 4
        array = array.astype(np.float32 if small else np.float64)
    return array


def check_finite(name: str, array: Array, dtype: np.dtype[Any], missing: bool = False) -> None:
    """Refuse infinity, what becomes it in `dtype`, and NaN unless it stands for something missing.

    Makes no big temporary.
    """
    where = _first_not_finite(array, dtype, missing)
    if where is not None:
        place = f"row {where[0]}" + (f", column {where[1]}" if array.ndim > 1 else "")
        raise _not_finite(name, array[where], place, dtype)


def _first_not_finite(array: Array, dtype: np.dtype[Any], missing: bool) -> tuple[int, ...] | None:
    """Find the first number that :func:`_check_finite` refuses."""
    if array.dtype.kind != "f" or array.size == 0:
        return None
    largest = np.finfo(dtype).max
    low, high = array.min(), array.max()  # a NaN anywhere becomes both
    if low >= -largest and high <= largest:
        return None
    for start in range(0, len(array), 4096):
        block = array[start : start + 4096]
        bad = np.argwhere(~(np.abs(block) <= largest) & ~(missing & np.isnan(block)))
        if len(bad):
            return (start + int(bad[0][0]), *map(int, bad[0][1:]))
    return None


def _not_finite(name: str, value: Any, place: str, dtype: np.dtype[Any]) -> ValueError:
    if np.isfinite(value):
        return ValueError(f"{name} holds {value:g} at {place}: too large for {dtype}; scale it")
    return ValueError(
        f"{name} holds {value} at {place}; only finite numbers can be used: "
        "remove those rows or fill them in"
    )


def check_X(X: Any, n_in: int, dtype: np.dtype[Any], name: str = "X") -> Array | SparseRows:
    """Return X as (rows, n_in) numbers of any readable dtype and strides; copies only if it must.

    Anything that has ``tocsr`` (SciPy's sparse matrices and arrays) stays sparse.

    Raises
    ------
    ValueError
        For a wrong number of dimensions or features, and for NaN, infinity or text.
    """
    if isinstance(X, SparseRows):  # which came through here before
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
    """Return a sparse matrix's own numbers and places, once they are known to make sense."""
    if len(X.shape) != 2:
        raise ValueError(f"{name} must be (rows, features), but its shape is {X.shape}")
    if X.shape[1] != n_in:
        raise ValueError(f"{name} has {X.shape[1]} features, but this network expects {n_in}")
    csr = X.tocsr()
    data, indices, indptr = as_numbers(name, csr.data), *map(np.asarray, (csr.indices, csr.indptr))
    if data.dtype.kind != "f":
        data = data.astype(np.float32 if data.dtype.itemsize < 4 else np.float64)
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
            f"{name} is no CSR matrix: its indptr must begin with 0, never fall, have a number for "
            "each row and one more, and end within data and indices"
        )
    n = int(indptr[-1])  # behind it there may be room that is not in use
    data, indices = data[:n], indices[:n]
    if n and not (indices.min() >= 0 and indices.max() < n_in):
        raise ValueError(
            f"{name} has numbers in columns {indices.min()} to {indices.max()}, but {n_in} columns"
        )
    where = _first_not_finite(data, dtype, False)
    if where is not None:
        row = np.searchsorted(indptr, where[0], "right") - 1
        place = f"row {row}, column {indices[where]}"
        raise _not_finite(name, data[where], place, dtype)
    narrow = indices.dtype == indptr.dtype == np.int32
    indices, indptr = (
        np.ascontiguousarray(part, np.int32 if narrow else np.int64) for part in (indices, indptr)
    )
    return SparseRows(np.ascontiguousarray(data), indices, indptr, n_in)


def check_weights(sample_weight: ArrayLike | None, n: int) -> NDArray[np.float64] | None:
    """Return the rows' weights, (n,), or None for equal ones."""
    if sample_weight is None:
        return None
    weights = np.ascontiguousarray(as_numbers("sample_weight", sample_weight), np.float64)
    if weights.shape != (n,):
        raise ValueError(f"sample_weight must be ({n},), one per row of X; it is {weights.shape}")
    check_finite("sample_weight", weights, weights.dtype)
    if n and (weights.min() < 0 or weights.max() == 0):
        raise ValueError("sample_weight must not be negative, and not zero everywhere")
    return weights
