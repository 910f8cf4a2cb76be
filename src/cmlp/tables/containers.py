"""Tables of any library as named columns: pandas, polars, Arrow, records, dicts and arrays."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from cmlp.core.arrays import array_of, refuse_masked
from cmlp.core.errors import warn
from cmlp.core.layout import Array
from cmlp.data.cells import listed_near, show
from cmlp.data.frames import (
    check_container,
    check_two_dimensions,
    column_names,
    feature_names,
    is_sparse,
    listed,
)
from cmlp.tables.forms import FormTable


class Columns(NamedTuple):
    """The columns of a table, which nothing has converted yet."""

    names: list[str] | None
    """None for a table without names: its columns are found by their place."""
    raw: Sequence[Any] | Array
    n_rows: int

    def label(self, place: int) -> str:
        """Return the name of a column, for messages and for outputs."""
        return f"x{place}" if self.names is None else self.names[place]


def columns_of(X: Any, who: str) -> Columns:
    """Return the columns of a table, or of anything that has rows of the same length.

    Raises
    ------
    ValueError, TypeError
        For a table without rows or columns, one whose columns differ in length or share a name, and
        for anything that is not a table.
    """
    check_container("X", X)
    columns = _columns_of(X, who)
    for n, what in ((columns.n_rows, "sample"), (len(columns.raw), "feature")):
        if n == 0:
            shape = (columns.n_rows, len(columns.raw))
            raise ValueError(
                f"Found array with 0 {what}(s) (shape={shape}) while a minimum of 1 is required by "
                f"{who}."
            )
    names = columns.names or []
    if len(set(names)) < len(names):
        twice = sorted({name for name in names if names.count(name) > 1})
        raise ValueError(
            f"X has several columns with the name {listed(twice, 5, show)}; rename or drop them: "
            "a column is found by its name"
        )
    return columns


def _columns_of(X: Any, who: str) -> Columns:
    if isinstance(X, FormTable):
        return Columns(X.names, X.columns, X.n_rows)
    if isinstance(X, Mapping):
        return _of_mapping(X)
    if isinstance(X, np.ndarray) and X.dtype.names:
        return Columns(list(X.dtype.names), [X[name] for name in X.dtype.names], len(X))
    kind = type(X)
    if hasattr(kind, "get_columns"):  # polars
        return Columns(list(X.columns), X.get_columns(), len(X))
    if hasattr(kind, "column_names") and hasattr(kind, "num_rows"):  # Arrow
        return Columns(list(X.column_names), X.columns, X.num_rows)
    if hasattr(kind, "iloc") and hasattr(X, "columns"):  # pandas
        return _of_pandas(X)
    if is_sparse(X):
        raise TypeError("a sparse matrix has no columns")
    if not hasattr(X, "__array__") and isinstance(X, Sequence) and not isinstance(X, (str, bytes)):
        return _of_rows(X, who)
    return _of_array(X, who)


def _of_pandas(X: Any) -> Columns:
    """Return the columns of a data frame whose names may be anything.

    The numbers 0 to n - 1, which pandas gives where no names were given, are places: such a frame
    is as a matrix, in whatever order its columns lie. Other names are used as text.
    """
    raw = [X.iloc[:, place] for place in range(X.shape[1])]
    names = feature_names(X)
    if names is not None:
        return Columns(list(names), raw, len(X))
    given = list(X.columns)
    if set(given) == set(range(len(given))):
        return Columns(None, [raw[given.index(place)] for place in range(len(given))], len(X))
    return Columns(list(map(str, given)), raw, len(X))


def _of_mapping(X: Mapping[Any, Any]) -> Columns:
    """Return the columns of a dict of them."""
    lengths = {name: _length(column) for name, column in X.items()}
    if any(type(name) is not str for name in X):
        raise TypeError("the names of columns, the keys of X, must be text")
    short = [name for name, n in lengths.items() if n is None]
    if short:
        raise ValueError(
            f"X is a dict, whose values must be columns, but {show(short[0])} is a single value; "
            "for one row pass [X]"
        )
    counts = set(lengths.values())
    if len(counts) > 1:
        raise ValueError(f"the columns of X differ in length: {lengths}")
    return Columns(list(X), list(X.values()), max((n or 0 for n in counts), default=0))


def _length(column: Any) -> int | None:
    if isinstance(column, (str, bytes)) or not hasattr(column, "__len__"):
        return None
    if isinstance(column, np.ndarray) and not column.ndim:
        return None
    return len(column)


def _of_rows(X: Sequence[Any], who: str) -> Columns:
    """Return the columns of a list of dicts, or of a list of rows."""
    if len(X) and isinstance(X[0], Mapping):
        if not all(isinstance(row, Mapping) for row in X):
            raise TypeError("X is a list of dicts, one per row, but not all of its items are dicts")
        names = dict.fromkeys(name for row in X for name in row)
        if any(type(name) is not str for name in names):
            raise TypeError("the names of columns, the keys of the rows, must be text")
        return Columns(list(names), [[row.get(name) for row in X] for name in names], len(X))
    kinds = {type(value) for row in X if isinstance(row, (list, tuple)) for value in row}
    if not kinds or kinds <= {int, float}:
        return _of_array(X, who)
    lengths = {len(row) if isinstance(row, (list, tuple)) else -1 for row in X}
    if len(lengths) > 1 or -1 in lengths:
        raise ValueError(
            "X must be a list of rows of the same length, as lists, tuples or dicts; their lengths "
            f"are {sorted(lengths - {-1})}" + " and other objects" * (-1 in lengths)
        )
    return Columns(None, list(map(list, zip(*X, strict=True))), len(X))


def _of_array(X: Any, who: str) -> Columns:
    """Return the columns of a matrix, without a copy; whole numbers keep their digits."""
    array = X if isinstance(X, np.ndarray) else array_of("X", X)
    refuse_masked("X", array)
    if isinstance(array, np.ma.MaskedArray):
        array = np.asarray(array)
    if array.dtype.kind == "c":
        raise ValueError(f"Complex data not supported\n{array}\n")
    check_two_dimensions(array, X, who)
    names = feature_names(X) if column_names(X) else None
    return Columns(None if names is None else list(names), array.T, len(array))


def is_plain(X: Any) -> bool:
    """Whether X is a matrix of numbers in memory, whose columns need no conversion."""
    return isinstance(X, np.ndarray) and X.ndim == 2 and X.dtype.kind in "fiu"


def matched(
    columns: Columns, names: list[str] | None, needed: Sequence[bool], who: str
) -> list[int | None]:
    """Return the place in a table of each column that a fit has seen, by name where it has names.

    Parameters
    ----------
    needed : sequence of bool
        Whether each column of the fit has an effect: the others may be missing, and are None then.

    Raises
    ------
    ValueError
        If columns are missing; the message names all of them, and columns of similar names.
    """
    n = len(needed)
    if names is None and columns.names is not None:
        warn(f"X has feature names, but {who} was fitted without feature names")
    if names is not None and columns.names is None:
        warn(f"X does not have valid feature names, but {who} was fitted with feature names")
    if names is None or columns.names is None:
        if len(columns.raw) != n:
            raise ValueError(
                f"X has {len(columns.raw)} features, but {who} is expecting {n} features as input."
            )
        return list(range(n))
    places = {name: place for place, name in enumerate(columns.names)}
    missing = [
        name for name, used in zip(names, needed, strict=True) if used and name not in places
    ]
    if missing:
        known = set(names)
        extra = [name for name in columns.names if name not in known]
        near = f"; X has {listed_near(missing[0], extra)} instead" if extra else ""
        raise ValueError(
            f"X lacks {len(missing)} of the columns that {who} was fitted with: "
            f"{listed(missing, 20, show)}{near}"
        )
    return [places.get(name) for name in names]
