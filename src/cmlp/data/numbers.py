"""Arrays of numbers: dtypes that the cores read, and the first number that is not finite."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from cmlp.core import dispatch
from cmlp.core.arrays import array_of
from cmlp.core.layout import Array

READABLE = "fd?bBhHiIlLqQ"
"""Number formats whose rows the cores gather directly, without a copy of the whole array."""


REAL = "fiub"
"""Kinds of dtype that hold real numbers: booleans count as 0 and 1."""


BLOCK = 4096
"""Rows that are searched at a time: the search allocates no array as large as its input."""


# Reading -----------------------------------------------------------------------------------------


def check_dense(name: str, values: ArrayLike) -> None:
    """Reject a sparse matrix: NumPy would convert it to an array of one object."""
    if hasattr(values, "toarray") and not isinstance(values, np.ndarray):
        raise TypeError(f"{name} is a sparse matrix, a dense array is expected: {name}.toarray()")


def as_numbers(name: str, values: ArrayLike) -> Array:
    """Convert any array-like to numbers that the cores read; copy only what they cannot read."""
    check_dense(name, values)
    array = array_of(name, values)
    if array.dtype == object:
        try:
            array = array.astype(np.float64)
        except (TypeError, ValueError) as error:
            raise ValueError(f"{name} must hold numbers: {error}") from None
    if array.dtype.kind not in REAL:
        raise ValueError(
            f"{name} must hold real numbers, but its dtype is {array.dtype}; "
            "encode text or categories as numbers first"
        )
    return readable(array)


def readable(array: Array) -> Array:
    """Return real numbers in a format that the cores read; copy them only if they have another."""
    if array.dtype.char in READABLE and array.dtype.isnative and array.flags.aligned:
        # A native byte order that is named, "<f4" here, is in the buffer's format: cores read "f".
        return array if array.dtype.byteorder in "=|" else array.view(array.dtype.newbyteorder("="))
    return array.astype(float_for(array.dtype))


def readable_dtype(dtype: np.dtype[Any]) -> np.dtype[Any]:
    """Return the dtype that rows are read in: this one, if the cores read it, without metadata."""
    kept = dtype.char in READABLE and dtype.isnative
    return np.dtype(dtype.char if kept else float_for(dtype))


def float_for(dtype: np.dtype[Any]) -> type[np.float32 | np.float64]:
    """Return the float type that numbers of another type are converted to."""
    return np.float32 if dtype.itemsize < 4 else np.float64


def of_arrow(array: Any) -> Array:
    """Return the integers or floats of an array of Arrow, NaN where they are missing.

    As they lie in its buffer: its ``to_numpy`` imports pandas, half a second in which Ctrl-C is
    lost.
    """
    n, first, kind = len(array), array.offset, np.dtype(array.type.to_pandas_dtype())
    valid, data = array.buffers()
    if data is None or not n:
        found = np.zeros(n, kind)
    else:
        found = np.frombuffer(data, kind, n, first * kind.itemsize)
    if array.null_count:
        bits = np.unpackbits(np.frombuffer(valid, np.uint8), bitorder="little")
        found = found.astype(kind if kind.kind == "f" else np.float64)
        found[bits[first : first + n] == 0] = np.nan
    return found


# Finite numbers ----------------------------------------------------------------------------------


def is_finite(array: Array, dtype: np.dtype[Any] | None = None) -> bool:
    """Whether an array has no NaN, no infinity and no number too large for `dtype`.

    No temporary array is allocated. By default `dtype` is that of the array.
    """
    if array.dtype.kind != "f" or array.size == 0:
        return True
    most = np.finfo(array.dtype if dtype is None else dtype).max
    flat = array.T if array.flags.f_contiguous else array
    plain = array.dtype.char in "fd" and array.dtype.byteorder == "=" and array.flags.aligned
    if plain and flat.flags.c_contiguous:
        return bool(dispatch.core.largest(flat.reshape(-1)) <= float(most))
    return bool(array.min() >= -most and array.max() <= most)  # NaN if one number is


def first_not_finite(
    array: Array, dtype: np.dtype[Any], missing: bool = False
) -> tuple[int, ...] | None:
    """Return the index of the first number for which :func:`is_finite` is false.

    NaN is accepted if `missing` is true.
    """
    if is_finite(array, dtype):
        return None
    largest = np.finfo(dtype).max
    for start in range(0, len(array), BLOCK):
        block = array[start : start + BLOCK]
        bad = np.argwhere(~(np.abs(block) <= largest) & ~(missing & np.isnan(block)))
        if len(bad):
            return (start + int(bad[0][0]), *map(int, bad[0][1:]))
    return None


def check_finite(name: str, array: Array, dtype: np.dtype[Any], missing: bool = False) -> None:
    """Reject infinity, numbers too large for `dtype`, and NaN unless `missing` is true."""
    where = first_not_finite(array, dtype, missing)
    if where is not None:
        place = f"row {where[0]}" + (f", column {where[1]}" if array.ndim > 1 else "")
        raise not_finite(name, array[where], place, dtype)


def not_finite(name: str, value: Any, place: str, dtype: np.dtype[Any]) -> ValueError:
    """Return the error for a number that is not finite in `dtype`."""
    if np.isfinite(value):
        return ValueError(f"{name} holds {value:g} at {place}: too large for {dtype}; scale it")
    return ValueError(
        f"{name} holds {value} at {place}; only finite numbers can be used: "
        "remove those rows or fill them in"
    )
