"""X, y and weights of an estimator: tables, matrices and sequences become rows for the core.

Dense numbers stay as they are, of any dtype, and a sparse matrix stays sparse. The messages are
those that users of scikit-learn know.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from cmlp.core.arrays import array_of, refuse_masked
from cmlp.core.errors import DataConversionWarning, warn
from cmlp.core.layout import Array
from cmlp.core.seam import SparseRows
from cmlp.data.checks import check_sparse
from cmlp.data.frames import (
    RESHAPE,
    check_container,
    check_two_dimensions,
    column_names,
    feature_names,
    is_sparse,
)
from cmlp.data.numbers import REAL, is_finite, readable


class Columns(NamedTuple):
    """What a fit has seen of the columns of X: how many they are, and their names if X has any."""

    n: int
    names: Array | None = None


def check_names(names: Array | None, fitted: Array | None, who: str) -> None:
    """Compare the names of columns with those of the fit."""
    if fitted is None and names is not None:
        warn(f"X has feature names, but {who} was fitted without feature names")
    elif fitted is not None and names is None:
        warn(f"X does not have valid feature names, but {who} was fitted with feature names")
    elif fitted is not None and names is not None and list(fitted) != list(names):
        raise ValueError(_name_difference(list(fitted), list(names)))


def _name_difference(fitted: list[str], names: list[str]) -> str:
    def listed(title: str, which: list[str]) -> str:
        lines = [title, *(f"- {name}" for name in which[:5]), *["- ..."] * (len(which) > 5), ""]
        return "\n".join(lines) if which else ""

    message = "The feature names should match those that were passed during fit.\n"
    unseen, missing = sorted(set(names) - set(fitted)), sorted(set(fitted) - set(names))
    message += listed("Feature names unseen at fit time:", unseen)
    message += listed("Feature names seen at fit time, yet now missing:", missing)
    if not unseen and not missing:
        message += "Feature names must be in the same order as they were in fit.\n"
    return message


# Numbers -----------------------------------------------------------------------------------------

ENCODE = "encode text, categories and dates as numbers first"


def _array_of(name: str, X: Any) -> Array:
    """Return an array of anything that converts to one."""
    if not (isinstance(X, np.ndarray) or hasattr(X, "__array__")):
        if hasattr(X, "to_numpy"):
            X = X.to_numpy()
        elif hasattr(X, "__dataframe__"):
            return _from_interchange(X.__dataframe__())
    return array_of(name, X)


def _from_interchange(table: Any) -> Array:
    """Read a table by the dataframe interchange protocol: one buffer of numbers per column."""
    columns = []
    for name in table.column_names():
        column = table.get_column_by_name(name)
        if column.null_count:
            raise ValueError(f"Input X contains NaN: column {name!r} has missing values.")
        kind = {0: "i", 1: "u", 2: "f", 20: "b"}.get(int(column.dtype[0]))
        if kind is None or column.dtype[1] < 8:
            raise ValueError(f"X must hold numbers, but column {name!r} does not; {ENCODE}")
        dtype = np.dtype(f"{kind}{column.dtype[1] // 8}")
        parts = [_from_buffer(chunk, dtype) for chunk in column.get_chunks()]
        columns.append(np.concatenate(parts))
    return np.column_stack(columns)


def _from_buffer(chunk: Any, dtype: np.dtype[Any]) -> Array:
    """Copy the numbers of a chunk of a column."""
    import ctypes

    buffer, _ = chunk.get_buffers()["data"]
    raw = ctypes.string_at(buffer.ptr, buffer.bufsize)
    return np.frombuffer(raw, dtype, chunk.size(), chunk.offset * dtype.itemsize)


def _numbers(name: str, values: Any, *, text: bool = True) -> Array:
    """Return real numbers that the core reads, copied only if it cannot read them as they are.

    Numbers that are written as text are read where `text` is true.
    """
    array = _array_of(name, values)
    if array.dtype.kind == "c":
        raise ValueError(f"Complex data not supported\n{array}\n")
    if array.dtype.kind in "US" and not text:
        raise ValueError(
            "dtype='numeric' is not compatible with arrays of bytes/strings. Convert your data to "
            f"numeric values explicitly instead: np.asarray({name}, dtype=float)"
        )
    if array.dtype.kind in "OUS":
        array = _from_objects(name, values, array)
    if array.dtype.kind not in REAL:
        where = _place_of_no_number(name, values, array)
        raise ValueError(
            f"{name} must hold numbers, but its dtype is {array.dtype} ({where}); {ENCODE}"
        )
    return readable(array)


def _from_objects(name: str, values: Any, array: Array) -> Array:
    """Read numbers among Python objects; a table's missing values become NaN."""
    if array.dtype.kind == "O" and hasattr(values, "isna"):  # pandas: float(pd.NA) fails
        array = np.where(np.asarray(values.isna()), np.nan, array)
    if array.dtype.kind == "O" and any(isinstance(v, complex) for v in array.ravel()[:1]):
        raise ValueError(f"Complex data not supported\n{array}\n")
    try:
        return array.astype(np.float64)
    except (TypeError, ValueError) as error:
        kind = TypeError if isinstance(error, TypeError) else ValueError
        raise kind(f"{error} ({_place_of_no_number(name, values, array)}); {ENCODE}") from None


def _place_of_no_number(name: str, values: Any, array: Array) -> str:
    """Return the row and column of the first value that float() does not take, as text."""
    for place, value in np.ndenumerate(array):
        try:
            float(value)
        except (TypeError, ValueError):
            names = column_names(values)
            shown = (place[0], names[place[1]]) if names and len(place) == 2 else place
            axes = zip(("row", "column"), shown, strict=False)
            return ", ".join([name, *(f"{axis} {number!r}" for axis, number in axes)])
    return name


def check_finite(name: str, array: Array, advice: str = "") -> None:
    """Refuse NaN and infinity, without a temporary."""
    if is_finite(array):
        return
    if np.isnan(array.min()):
        raise ValueError(f"Input {name} contains NaN.{advice}")
    raise ValueError(f"Input {name} contains infinity or a value too large for {array.dtype!r}.")


def _check_finite_inputs(X: Array, who: str) -> None:
    advice = (
        f"\n{who} does not accept missing values encoded as NaN: remove those rows, or fill them "
        "in, for example with sklearn.impute.SimpleImputer in a pipeline."
    )
    check_finite("X", X, advice)


# X and y -----------------------------------------------------------------------------------------


def read_X(
    X: Any, who: str, fitted: Columns | None = None, *, text: bool = True
) -> tuple[Array | SparseRows, Columns]:
    """Return X as (rows, features), and its columns.

    Parameters
    ----------
    who : str
        Name of the estimator, for messages.
    fitted : Columns, optional
        The columns of the fit, which X must have, and which are returned.
    text : bool
        Whether numbers that are written as text are read.

    Returns
    -------
    ndarray or SparseRows
        An array of any dtype that the core reads, or sparse rows.
    Columns

    Raises
    ------
    ValueError, TypeError
        For another shape, NaN or infinity, and values that are not numbers.
    """
    check_container("X", X)
    names = feature_names(X)
    if fitted is not None:
        check_names(names, fitted.names, who)
    if not (is_sparse(X) or isinstance(X, SparseRows)):
        given, X = X, _numbers("X", X, text=text)
        check_two_dimensions(X, given, who)
    elif len(X.shape) != 2:
        raise ValueError(f"Expected 2D input, got input with shape {X.shape}.\n{RESHAPE}")
    for axis, what in enumerate(("sample", "feature")):
        if X.shape[axis] == 0:
            raise ValueError(
                f"Found array with 0 {what}(s) (shape={X.shape}) while a minimum of 1 is "
                f"required by {who}."
            )
    columns = Columns(int(X.shape[1]), names) if fitted is None else fitted
    if X.shape[1] != columns.n:
        raise ValueError(
            f"X has {X.shape[1]} features, but {who} is expecting {columns.n} features as input."
        )
    return _finite_rows(X, who), columns


def _finite_rows(X: Any, who: str) -> Array | SparseRows:
    """Return rows for the core; refuse NaN and infinity among them."""
    if is_sparse(X):
        if X.dtype.kind == "c":
            raise ValueError(f"Complex data not supported\n{X}\n")
        X = X.tocsr()
        refuse_masked("X", X.data)
        _check_finite_inputs(X.data, who)
        return check_sparse(X, X.shape[1], np.dtype(np.float64), "X")
    if isinstance(X, np.ndarray):
        _check_finite_inputs(X, who)
    rows: Array | SparseRows = X
    return rows


def column(y: Array, *, warns: bool) -> Array:
    """Return a single column as a vector, with a warning where it is to train on."""
    if y.ndim != 2 or y.shape[1] != 1:
        return y
    if warns:
        warn(
            "A column-vector y was passed when a 1d array was expected. Please change the shape "
            "of y to (n_samples, ), for example using ravel().",
            DataConversionWarning,
        )
    return y[:, 0]


def read_numbers(y: Any, *, learns: bool) -> Array:
    """Return the targets of a regressor, (n,) or (n, n_outputs), to train on or to compare with.

    Among several outputs NaN stands for a missing number.
    """
    check_container("y", y)
    if is_sparse(y):
        raise TypeError("Sparse data was passed for y, but dense data is required: y.toarray()")
    array = _numbers("y", y, text=False)
    if array.ndim not in (1, 2):
        raise ValueError(f"y should be a 1d or 2d array, got an array of shape {array.shape}.")
    if array.ndim == 1 or array.shape[1] == 1:
        check_finite("y", array)
    else:
        check_no_infinity(array)
    return column(array, warns=learns)


def check_no_infinity(y: Array) -> None:
    """Refuse infinity in a matrix of targets, which may hold NaN."""
    if y.dtype.kind == "f" and np.isinf(y).any():
        raise ValueError(f"Input y contains infinity or a value too large for {y.dtype!r}.")


def check_lengths(n_rows: int, y: Array) -> None:
    """Check that y has as many rows as X, or as the predictions."""
    if len(y) != n_rows:
        raise ValueError(
            f"Found input variables with inconsistent numbers of samples: {[n_rows, len(y)]}"
        )


def read_weights(sample_weight: Any, n: int, name: str = "sample_weight") -> Array | None:
    """Return the rows' weights as float64, (n,), or None."""
    if sample_weight is None:
        return None
    check_container(name, sample_weight)
    weights = np.asarray(_numbers(name, sample_weight), np.float64)
    if weights.ndim == 0:
        weights = np.full(n, float(weights))
    if weights.ndim != 1:
        raise ValueError(
            f"Sample weights must be 1D array or scalar, got {weights.ndim}D array. Expected "
            f"either a scalar value or a 1D array of length {n}."
        )
    if weights.shape != (n,):
        raise ValueError(f"{name}.shape == {weights.shape}, expected {(n,)}!")
    check_finite(name, weights)
    if weights.min() < 0:
        raise ValueError(f"Negative values in data passed to `{name}`")
    if not weights.any():
        raise ValueError("Sample weights must contain at least one non-zero number.")
    return np.ascontiguousarray(weights)


FLOAT32, FLOAT64 = np.dtype(np.float32), np.dtype(np.float64)


def is_single(X: Any) -> bool:
    """Whether X is an array of float32, for which predictions keep the dtype of the network."""
    return getattr(X, "dtype", None) == FLOAT32


def numbers_of(outputs: Array, X: Any) -> Array:
    """Return outputs as float64 unless X is float32, and those of one column as a vector."""
    if outputs.dtype != FLOAT64 and not is_single(X):
        outputs = outputs.astype(FLOAT64)
    return outputs[:, 0] if outputs.shape[1] == 1 else outputs
