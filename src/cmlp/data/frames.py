"""Containers of rows: names of columns, and what NumPy would silently misread."""

from __future__ import annotations

from typing import Any

import numpy as np

from cmlp.core.layout import Array


def is_sparse(X: Any) -> bool:
    """Whether X is one of SciPy's sparse matrices or arrays."""
    return hasattr(X, "tocsr") and hasattr(X, "nnz")


def check_container(name: str, values: Any) -> None:
    """Refuse what NumPy would make something of that nobody meant."""
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


# Names -------------------------------------------------------------------------------------------


def columns_of(X: Any) -> list[Any]:
    """Return what a table calls its columns."""
    columns = getattr(X, "column_names", None)  # pyarrow's, whose columns are the data
    if columns is None or callable(columns):
        columns = getattr(X, "columns", None)
    if columns is None and hasattr(X, "__dataframe__"):
        columns = X.__dataframe__().column_names()
    return [] if columns is None or callable(columns) else list(columns)


def feature_names(X: Any) -> Array | None:
    """Return the columns' names of a table, if they are all text."""
    names = columns_of(X)
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
