"""Data frames and matrices as X: names of columns, and containers that NumPy would misread."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from cmlp.core.layout import Array


def is_sparse(X: Any) -> bool:
    """Whether X is one of SciPy's sparse matrices or arrays."""
    return hasattr(X, "tocsr") and hasattr(X, "nnz")


def check_container(name: str, values: Any) -> None:
    """Reject containers that NumPy would convert to something else: np.matrix, lazy frames."""
    if isinstance(values, np.matrix):
        raise TypeError(
            "np.matrix is not supported. Please convert to a numpy array with np.asarray. For more "
            "information see: https://numpy.org/doc/stable/reference/generated/numpy.matrix.html"
        )
    if hasattr(values, "collect") and not hasattr(values, "__array__"):
        raise TypeError(
            f"{name} is a {type(values).__name__}, a plan whose rows are not there yet: pass "
            f"{name}.collect()"
        )


RESHAPE = (
    "Reshape your data either using array.reshape(-1, 1) if your data has a single feature or "
    "array.reshape(1, -1) if it contains a single sample."
)


def check_two_dimensions(X: Array, given: Any, who: str) -> None:
    """Reject what is not a matrix, with advice on its shape; `given` is what the user passed."""
    if X.ndim == 1 and hasattr(given, "to_frame"):  # the series of a data frame
        raise ValueError(
            f"Expected a 2-dimensional container but got {type(given)} instead. Pass a DataFrame "
            "containing a single row (i.e. single sample) or a single column (i.e. single feature) "
            "instead."
        )
    if X.ndim < 2:
        what = "scalar" if X.ndim == 0 else "1D"
        raise ValueError(f"Expected 2D array, got {what} array instead:\narray={X}.\n{RESHAPE}")
    if X.ndim > 2:
        raise ValueError(
            f"Found array with dim {X.ndim}, while dim <= 2 is required by {who}; flatten each "
            "row: X.reshape(len(X), -1)"
        )


# Names -------------------------------------------------------------------------------------------


def column_names(X: Any) -> list[Any]:
    """Return the names of a table's columns (pandas, polars, arrow, interchange); else none."""
    columns = getattr(X, "column_names", None)  # pyarrow: its `columns` are the data
    if columns is None or callable(columns):
        columns = getattr(X, "columns", None)
    if columns is None and hasattr(X, "__dataframe__"):
        columns = X.__dataframe__().column_names()
    return [] if columns is None or callable(columns) else list(columns)


def first_names(*candidates: Sequence[Any] | Array | None) -> list[str]:
    """Return the first list of names that is present and not empty, as text."""
    found = (names for names in candidates if names is not None and len(names))
    return list(map(str, next(found, ())))


def listed(names: Sequence[Any] | Array, most: int, show: Callable[[Any], str] = str) -> str:
    """Write names as "a, b and 7 more": at most `most` of them, each as `show` writes it."""
    more = len(names) - most
    return ", ".join(map(show, names[:most])) + (f" and {more:,} more" if more > 0 else "")


def feature_names(X: Any) -> Array | None:
    """Return the column names of a table if they are all text."""
    names = column_names(X)
    kinds = sorted({type(name).__name__ for name in names})
    if len(kinds) > 1 and "str" in kinds:
        raise TypeError(
            "Feature names are only supported if all input features have string names, but your "
            f"input has {kinds} as feature name / column name types. If you want feature names to "
            "be stored and validated, you must convert them all to strings, by using "
            "X.columns = X.columns.astype(str) for example. Otherwise you can remove feature / "
            "column names from your input data, or convert them all to a non-string data type."
        )
    return np.asarray(names, dtype=object) if kinds == ["str"] else None
