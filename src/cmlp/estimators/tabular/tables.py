"""Tables and targets of an estimator: their rows, by number, whatever holds them."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from cmlp.data.frames import is_sparse
from cmlp.data.labels import is_missing
from cmlp.tables.containers import columns_of
from cmlp.tables.sparse import check_sparse_table


def n_rows_of(X: Any) -> int:
    """Return the number of rows of a table."""
    shape = getattr(X, "shape", None)
    if shape is not None and len(shape):
        return int(shape[0])
    if isinstance(X, dict):
        return n_rows_of(next(iter(X.values()), ()))
    if not hasattr(X, "__len__"):
        X = np.asarray(X)
        return len(X) if X.ndim else 0
    return len(X)


def take_rows(X: Any, rows: NDArray[np.int64]) -> Any:
    """Return some rows of a table, in a table of the same kind."""
    if hasattr(X, "iloc"):
        return X.iloc[rows]
    if is_sparse(X):
        return X.tocsr()[rows]
    if isinstance(X, dict):
        return {name: take_rows(column, rows) for name, column in X.items()}
    if isinstance(X, (list, tuple)):
        return [X[row] for row in rows.tolist()]
    if isinstance(getattr(X, "column_names", None), list) and hasattr(X, "take"):
        return X.take(rows)  # of pyarrow
    if hasattr(X, "__getitem__"):
        return X[rows]
    return np.asarray(X)[rows]


def missing_in(y: Any) -> NDArray[np.bool_]:
    """Return where targets are missing: None, NaN, NaT or pd.NA; of the shape of y."""
    if hasattr(y, "isna"):
        return np.asarray(y.isna(), bool)
    array = np.asarray(y)
    if array.dtype.kind in "fc":
        return np.asarray(np.isnan(array))
    if array.dtype.kind in "mM":
        return np.asarray(np.isnat(array))
    if array.dtype == object or not hasattr(y, "__array__"):  # a list: NumPy writes None as text
        array = np.asarray(y, dtype=object) if not hasattr(y, "__array__") else array
        flat = [is_missing(value) for value in array.ravel()]
        return np.array(flat, bool).reshape(array.shape)
    return np.zeros(array.shape, bool)


def check_table(X: Any, who: str) -> None:
    """Check that X has rows and columns, before its targets are compared with it.

    Raises
    ------
    ValueError, TypeError
        For another number of dimensions, no rows, no columns, or complex numbers.
    """
    if is_sparse(X):
        check_sparse_table(X, who)
    else:
        columns_of(X, who)


def n_columns_of(X: Any, who: str) -> int:
    """Return the number of columns of a table."""
    return int(X.shape[1]) if is_sparse(X) else len(columns_of(X, who).raw)
