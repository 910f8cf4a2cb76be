"""Tables of an estimator: their rows, by number, whatever holds them; and sparse rows."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from cmlp.core.layout import Array
from cmlp.data.containers import columns_of
from cmlp.data.frames import is_sparse
from cmlp.data.labels import is_missing
from cmlp.estimators.inputs import Columns, read_X
from cmlp.formats.entries import check_name
from cmlp.formats.entries import entries as read_entries


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


def check_table(X: Any, who: str, encoder: Any = None) -> Any:
    """Return X if it is a table with rows and columns, as its encoder takes it.

    Parameters
    ----------
    who : str
        Name of the estimator, for messages.
    encoder : TableEncoder or SparseEncoder, optional
        Of a fit, whose columns X must have; it checks tables itself.

    Raises
    ------
    ValueError, TypeError
        For another number of dimensions, no rows, no columns, or complex numbers.
    """
    if not is_sparse(X):
        if encoder is None:
            columns_of(X, who)
            return X
        if not isinstance(encoder, SparseEncoder):
            return X
    rows, _ = read_X(X, who, None if encoder is None else Columns(encoder.n_features_in_))
    if encoder is None or isinstance(encoder, SparseEncoder):
        return X if is_sparse(X) else rows
    return X.toarray()


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
    def categories_(self) -> list[Array | None]:
        """There are none."""
        return [None] * self.n_features_in_

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
