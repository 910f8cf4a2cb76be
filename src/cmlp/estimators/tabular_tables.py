"""Tables of an estimator: their rows, by number, whatever holds them; and sparse rows."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from cmlp.core.arrays import refuse_masked
from cmlp.core.errors import warn
from cmlp.core.layout import Array
from cmlp.data.frames import check_container, column_names, feature_names, is_sparse
from cmlp.data.labels import is_missing
from cmlp.estimators.inputs import RESHAPE, check_finite
from cmlp.formats.entries import check_name
from cmlp.formats.entries import entries as read_entries


def n_rows_of(X: Any) -> int:
    """Return the number of rows of a table."""
    shape = getattr(X, "shape", None)
    if shape is not None and len(shape):
        return int(shape[0])
    if isinstance(X, dict):
        return n_rows_of(next(iter(X.values()), ()))
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
    array = np.asarray(y.to_numpy() if hasattr(y, "to_numpy") else y)
    if array.dtype.kind in "fc":
        return np.isnan(array)
    if array.dtype.kind in "mM":
        return np.isnat(array)
    if array.dtype == object or not hasattr(y, "__array__"):  # a list: NumPy writes None as text
        array = np.asarray(y, dtype=object) if not hasattr(y, "__array__") else array
        flat = [is_missing(value) for value in array.ravel()]
        return np.array(flat, bool).reshape(array.shape)
    return np.zeros(array.shape, bool)


# What a table must be ----------------------------------------------------------------------------


def check_table(X: Any, who: str, fitted: Any = None) -> Any:
    """Return X if it is a table with rows and columns; its encoder reads the columns.

    Parameters
    ----------
    who : str
        Name of the estimator, for messages.
    fitted : estimator, optional
        Its columns are those that X must have.

    Raises
    ------
    ValueError, TypeError
        For another number of dimensions, no rows, no columns, or complex numbers.
    """
    check_container("X", X)
    if is_sparse(X):
        if len(X.shape) != 2:
            raise ValueError(f"Expected 2D input, got input with shape {X.shape}.\n{RESHAPE}")
        if X.dtype.kind == "c":
            raise ValueError(f"Complex data not supported\n{X}\n")
        refuse_masked("X", X.data)
        check_finite("X", X.data)
    elif not (column_names(X) or isinstance(X, dict)):
        X = _array_or_records(X)
    _check_shape(X, who)
    names = feature_names(X) if not isinstance(X, dict) else None
    if fitted is None:
        return X
    known = getattr(fitted, "feature_names_in_", None)
    by_name = isinstance(X, (dict, list)) or (isinstance(X, np.ndarray) and X.dtype.names)
    if names is not None and known is None:
        warn(f"X has feature names, but {who} was fitted without feature names")
    elif names is None and known is not None and not by_name:
        warn(f"X does not have valid feature names, but {who} was fitted with feature names")
    shape = getattr(X, "shape", ())
    if (names is None or known is None) and len(shape) == 2 and shape[1] != fitted.n_features_in_:
        raise ValueError(
            f"X has {shape[1]} features, but {who} is expecting {fitted.n_features_in_} features "
            "as input."
        )
    dense = is_sparse(X) and not isinstance(fitted.encoder_, SparseEncoder)
    return X.toarray() if dense else X


def _array_or_records(X: Any) -> Any:
    """Return an array, or a list of dicts as it is."""
    if isinstance(X, (list, tuple)) and len(X) and isinstance(X[0], dict):
        return list(X)
    if hasattr(X, "to_frame"):  # the series of a data frame
        raise ValueError(
            f"Expected a 2-dimensional container but got {type(X)} instead. Pass a DataFrame "
            "containing a single row (i.e. single sample) or a single column (i.e. single feature) "
            "instead."
        )
    refuse_masked("X", X)
    array = X if isinstance(X, np.ndarray) else np.asarray(X)
    if array.dtype.kind in "US" and not hasattr(X, "__array__"):  # numbers have become text
        array = np.asarray(X, dtype=object)
    if array.dtype.names is None and array.ndim < 2:
        what = "scalar" if array.ndim == 0 else "1D"
        raise ValueError(f"Expected 2D array, got {what} array instead:\narray={array}.\n{RESHAPE}")
    if array.ndim > 2:
        raise ValueError(
            f"Found array with dim {array.ndim}, a table has 2; flatten each row: "
            "X.reshape(len(X), -1)"
        )
    if array.dtype.kind == "c" or (
        array.dtype == object and any(isinstance(value, complex) for value in array.ravel()[:1])
    ):
        raise ValueError(f"Complex data not supported\n{array}\n")
    return array


def _check_shape(X: Any, who: str) -> None:
    """Refuse tables without rows or columns."""
    n = n_rows_of(X)
    shape = getattr(X, "shape", (n,))
    for axis, what in enumerate(("sample", "feature")):
        size = n if axis == 0 else shape[1] if len(shape) == 2 else 1
        if size == 0:
            shown = tuple(shape)
            raise ValueError(
                f"Found array with 0 {what}(s) (shape={shown}) while a minimum of 1 is required "
                f"by {who}."
            )


# Encoders ----------------------------------------------------------------------------------------


def make_encoder(**settings: Any) -> Any:
    """Return an encoder of tables, before its fit."""
    from cmlp.data.encode import TableEncoder

    return TableEncoder(**settings)


def stored(encoder: Any) -> tuple[str, dict[str, Any], dict[str, Array]]:
    """Return an encoder as JSON-able values and arrays, with the name of its kind."""
    kind = "sparse" if isinstance(encoder, SparseEncoder) else "table"
    return kind, *encoder.to_entries()


def restored(kind: str, entries: dict[str, Any], arrays: dict[str, Array]) -> Any:
    """Return the encoder that :func:`stored` has described.

    Raises
    ------
    LookupError, TypeError, ValueError
        For entries that describe none.
    """
    if kind == "sparse":
        return SparseEncoder.from_entries(entries, arrays)
    if kind != "table":
        raise ValueError(f"unknown kind of encoder {kind!r}")
    from cmlp.data.encode import TableEncoder

    return TableEncoder.from_entries(entries, arrays)


class SparseColumn(NamedTuple):
    """A column of sparse rows."""

    name: str
    use: str = "number"


class SparseEncoder:
    """Scales sparse rows by the root of each column's mean square: zeros stay zeros.

    It has the methods of a :class:`cmlp.data.encode.TableEncoder` that an estimator calls.
    """

    def __init__(self, dtype: Any = "float32") -> None:
        self.dtype = np.dtype(dtype)

    def fit(self, X: Any, y: Any = None, sample_weight: Any = None) -> SparseEncoder:
        """Compute the scales of these rows."""
        X = X.tocsr()
        self.n_features_in_ = int(X.shape[1])
        sums = np.bincount(X.indices, np.square(X.data, dtype=np.float64), self.n_features_in_)
        size = np.sqrt(sums / max(X.shape[0], 1))
        self.scales = np.where(size > 0, 1 / np.where(size > 0, size, 1), 1.0)
        return self

    @property
    def outputs_(self) -> list[SparseColumn]:
        """One column for each of X."""
        return [SparseColumn(f"x{number}") for number in range(self.n_features_in_)]

    @property
    def is_categorical_(self) -> Array:
        """No column is."""
        return np.zeros(self.n_features_in_, bool)

    @property
    def column_kinds_(self) -> list[str]:
        """Each is a number."""
        return ["number"] * self.n_features_in_

    @property
    def categories_(self) -> dict[str, Array]:
        """There are none."""
        return {}

    def transform(self, X: Any) -> Any:
        """Return scaled sparse rows, or dense ones."""
        if not is_sparse(X):
            return np.asarray(X, np.float64) * self.scales
        X = X.tocsr().astype(self.dtype)
        X.data *= self.scales[X.indices].astype(self.dtype)
        return X

    def fit_transform(self, X: Any, y: Any = None, sample_weight: Any = None) -> Any:
        """Do both."""
        return self.fit(X).transform(X)

    def to_entries(self) -> tuple[dict[str, Any], dict[str, Array]]:
        """Return it as JSON-able values and arrays."""
        return {"dtype": self.dtype.name}, {"scales": self.scales}

    @classmethod
    def from_entries(cls, entries: dict[str, Any], arrays: dict[str, Array]) -> SparseEncoder:
        """Return the encoder that :meth:`to_entries` has described."""
        about = read_entries(entries, "the encoder", {"dtype": (str,)}, {})
        check_name("dtype", about["dtype"], ["float32", "float64"])
        if set(arrays) != {"scales"}:
            raise ValueError(f"an encoder of sparse rows has scales, not {sorted(arrays)}")
        scales = arrays["scales"]
        if scales.ndim != 1 or scales.dtype != np.float64 or not np.isfinite(scales).all():
            raise ValueError("scales must be finite numbers, (n_columns,)")
        encoder = cls(about["dtype"])
        encoder.scales, encoder.n_features_in_ = scales, len(scales)
        return encoder
