"""The boundary: whatever a user passes comes through here once, and is right behind it.

The compiled core checks nothing but that it stays inside its arrays. Every complaint says what was
expected, what came, and what to do.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ._arrays import array_of, label_array, not_labels, places
from ._spec import Loss, SparseRows


class Sparse(Protocol):
    """A matrix of SciPy or like it, of which only some numbers are stored."""

    @property
    def shape(self) -> tuple[int, ...]: ...

    def tocsr(self) -> Any: ...


RowsLike = ArrayLike | Sparse | SparseRows
"""What X may be: dense, sparse, or checked before."""

READABLE = "fd?bBhHiIlLqQ"
"""Number formats that the cores gather from as they are, row by row, without a copy of all."""

Array = NDArray[Any]


def _check_dense(name: str, values: ArrayLike) -> None:
    """Refuse a sparse matrix, of which NumPy would make an array of one object."""
    if hasattr(values, "toarray") and not isinstance(values, np.ndarray):
        raise TypeError(f"{name} is a sparse matrix, a dense array is expected: {name}.toarray()")


def _as_numbers(name: str, values: ArrayLike) -> Array:
    """Turn any array-like into numbers that the cores read, copying only what they cannot read."""
    _check_dense(name, values)
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


def _check_finite(name: str, array: Array, dtype: np.dtype[Any], missing: bool = False) -> None:
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
        return _check_sparse(X, n_in, dtype, name)
    array = _as_numbers(name, X)
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
    _check_finite(name, array, dtype)
    return array


def _check_sparse(X: Any, n_in: int, dtype: np.dtype[Any], name: str) -> SparseRows:
    """Return a sparse matrix's own numbers and places, once they are known to make sense."""
    if len(X.shape) != 2:
        raise ValueError(f"{name} must be (rows, features), but its shape is {X.shape}")
    if X.shape[1] != n_in:
        raise ValueError(f"{name} has {X.shape[1]} features, but this network expects {n_in}")
    csr = X.tocsr()
    data, indices, indptr = _as_numbers(name, csr.data), *map(np.asarray, (csr.indices, csr.indptr))
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
    weights = np.ascontiguousarray(_as_numbers("sample_weight", sample_weight), np.float64)
    if weights.shape != (n,):
        raise ValueError(f"sample_weight must be ({n},), one per row of X; it is {weights.shape}")
    _check_finite("sample_weight", weights, weights.dtype)
    if n and (weights.min() < 0 or weights.max() == 0):
        raise ValueError("sample_weight must not be negative, and not zero everywhere")
    return weights


def plain(value: Any) -> Any:
    """Return a number without its NumPy type, which no message needs to show."""
    return value.item() if isinstance(value, np.generic) else value


def check_number(
    name: str, value: Any, low: float, high: float = np.inf, *, open_high: bool = False
) -> float:
    """Return a parameter as a float within ``[low, high]`` (or ``[low, high)``)."""
    try:
        if isinstance(value, (str, bytes)):
            raise TypeError
        number = float(value)
    except (TypeError, ValueError, UserWarning):  # the last where warnings are errors: masked
        raise TypeError(f"{name} must be a number, not {plain(value)!r}") from None
    if not np.isfinite(number):
        raise ValueError(f"{name} must be a finite number, not {plain(value)!r}")
    if not (low <= number < high if open_high else low <= number <= high):
        upper = "" if high == np.inf else f" and {'below' if open_high else 'at most'} {high:g}"
        raise ValueError(f"{name} must be at least {low:g}{upper}; it is {plain(value)!r}")
    return number


def check_input_scale(value: Any) -> float:
    """Return a factor of the inputs as a float that is finite and above zero also as a float32."""
    return check_number("input_scale", value, 1e-37, 1e37)


def check_integer(name: str, value: Any, low: int) -> int:
    """Return a parameter as an int of at least `low`."""
    if isinstance(value, (bool, np.bool_)) or not isinstance(value, (int, np.integer)):
        raise TypeError(f"{name} must be a whole number, not {plain(value)!r}")
    if value < low:
        raise ValueError(f"{name} must be at least {low}; it is {value}")
    return int(value)


# Targets -----------------------------------------------------------------------------------------


def _is_label_like(y: Array, classifies: bool) -> bool:
    """Whether a vector holds labels: text, integers, or whole floats given to a classifier."""
    if y.dtype.kind == "f":
        return classifies and bool(np.all(y == np.round(y)))
    return True


def _index_labels(y: Array, n_out: int, classes: Array | None, name: str) -> tuple[Array, Array]:
    """Number the labels by their place in `classes`, which is found from y where it is None."""
    if y.dtype.kind not in "iubfUS":
        raise not_labels(name, y)
    if classes is None:
        found = np.unique(y)
        n_classes = max(n_out, 2)
        small = y.dtype.kind in "iubf" and found[0] >= 0 and found[-1] < n_classes
        if small and (y.dtype.kind != "b" or n_classes == 2):
            fits = np.can_cast(np.min_scalar_type(n_classes - 1), y.dtype)
            classes = np.arange(n_classes).astype(y.dtype if fits else np.int64)
        elif len(found) == n_classes:
            classes = found
        else:
            raise ValueError(_class_count(name, found, n_out))
    place = places(classes, y)
    unknown = np.flatnonzero(place < 0)
    if len(unknown):
        raise ValueError(
            f"{name} holds the label {y[unknown[0]].item()!r} at row {unknown[0]}, none of this "
            f"network's classes ({_shortened(classes)})"
        )
    return place, classes


def _class_count(name: str, found: Array, n_out: int) -> str:
    """Complain that the labels are more or fewer than the outputs."""
    outputs = f"{n_out} output{'s' * (n_out > 1)}"
    if len(found) == 1:
        return f"{name} holds one class only ({found[0]}): with {outputs} at least two are needed"
    advice = f"the last of its sizes should be {len(found)}"
    return (
        f"{name} has {len(found)} classes ({_shortened(found)}), but this network has {outputs}; "
        f"{advice}"
    )


def _shortened(values: Sequence[Any] | Array, most: int = 5) -> str:
    shown = ", ".join(str(value) for value in values[:most])
    return shown + (", ..." if len(values) > most else "")


def check_targets(
    y: ArrayLike,
    n: int,
    n_out: int,
    loss: Loss | None,
    classes: Array | None,
    dtype: np.dtype[Any],
    name: str = "y",
    missing: bool = False,
) -> tuple[Array, Array | None]:
    """Encode targets for the cores.

    Parameters
    ----------
    y : array-like
        Class labels of any type, (n,); one-hot rows, probabilities or a 0/1 matrix, (n, n_out);
        numbers, (n,) or (n, n_out).
    loss : Loss or None
        None for a custom loss.
    classes : ndarray or None
        The labels, in the order of the outputs, where they are known already.
    missing : bool
        Whether NaN stands for a target that is not known.

    Returns
    -------
    targets : ndarray
        Class numbers, int64 (n,), or numbers (n, n_out).
    classes : ndarray or None
        The labels that belong to the outputs; None if y does not hold labels.
    """
    _check_dense(name, y)
    y = label_array(name, y)
    if y.ndim not in (1, 2) or len(y) != n:
        raise ValueError(f"{name} must have {n} rows like X, but its shape is {y.shape}")
    if y.ndim == 2 and y.shape[1] == 1:
        y = y[:, 0]
    if y.dtype.kind in "fc":
        _check_finite(name, y if y.dtype.kind == "f" else _as_numbers(name, y), dtype, missing)
    classifies = loss is not None and loss.classifies
    if y.ndim == 1 and (n_out > 1 or y.dtype.kind not in "fiub"):
        if n_out == 1 and not classifies:
            raise ValueError(
                f"{name} holds {y.dtype} labels, but this network's loss is for numbers; use "
                "loss='binary_crossentropy' for two classes, or one output per class"
            )
        if not _is_label_like(y, classifies):
            advice = "; for regression use loss='squared_error'" if classifies else ""
            raise ValueError(
                f"{name} is one number per row, but this network has {n_out} outputs: expected "
                f"class labels or a matrix of shape ({n}, {n_out}){advice}"
            )
        targets, classes = _index_labels(y, n_out, classes, name)
        return (targets, classes) if n_out > 1 else (targets[:, None], classes)
    if y.ndim == 1:
        return _check_single_output(y, loss, classes, dtype, name, missing)
    if y.shape[1] != n_out:
        raise ValueError(
            f"{name} has {y.shape[1]} columns, but this network has {n_out} "
            f"output{'s' * (n_out > 1)}"
        )
    y = _as_numbers(name, y)
    _check_domain(y, loss, dtype, name, missing)
    if loss is not None and loss.name == "categorical_crossentropy":
        sums = y.sum(axis=1, dtype=np.float64)
        off = np.flatnonzero(np.abs(sums - 1) > 1e-3)
        if len(off):
            raise ValueError(
                f"row {off[0]} of {name} sums to {sums[off[0]]:g}; categorical cross-entropy "
                "expects one-hot rows or probabilities that sum to 1 (several labels per row: "
                "loss='binary_crossentropy'; regression: loss='squared_error')"
            )
    return y, classes


def _check_single_output(
    y: Array,
    loss: Loss | None,
    classes: Array | None,
    dtype: np.dtype[Any],
    name: str,
    missing: bool,
) -> tuple[Array, Array | None]:
    """Numbers for one output; for binary cross-entropy also two labels such as -1 and 1."""
    if y.dtype.kind == "b" and not (loss is not None and loss.classifies):
        raise ValueError(
            f"{name} holds True and False, but this network's loss is for numbers; use "
            f"loss='binary_crossentropy', or {name}.astype(float)"
        )
    y = _as_numbers(name, y)
    if loss is not None and loss.classifies and _is_label_like(y, True) and len(y):
        place, classes = _index_labels(y, 1, classes, name)
        return place[:, None], classes
    _check_domain(y, loss, dtype, name, missing)
    return y[:, None], classes


def _check_domain(
    y: Array, loss: Loss | None, dtype: np.dtype[Any], name: str, missing: bool
) -> None:
    _check_finite(name, y, dtype, missing)
    if missing:
        y = y[y == y]  # all but NaN
    if loss is None or y.size == 0:
        return
    low, high = loss.targets
    for bad in (y.min(), y.max()):
        if not low <= bad <= high:
            bounds = f"between {low:g} and {high:g}" if np.isfinite(high) else f"at least {low:g}"
            raise ValueError(f"{name} holds {bad}, but {loss.name} needs targets {bounds}")
