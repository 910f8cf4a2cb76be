"""Columns of pandas, polars, Arrow and NumPy, and lists: each becomes a form of `columns`.

No library is imported: a column is recognised by the methods that it has.
"""

from __future__ import annotations

import sys
from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cmlp.core.layout import Array
from cmlp.data.labels import EXACT
from cmlp.data.numbers import REAL, of_arrow
from cmlp.tables.columns import (
    ColumnError,
    Durations,
    Form,
    Levels,
    Moments,
    Numbers,
    seconds_of_array,
    seconds_of_units,
)
from cmlp.tables.dates import name_of_zone
from cmlp.tables.forms import FormColumn


def read_column(name: str, raw: Any) -> Form:
    """Return the values of a column of any library.

    Raises
    ------
    ColumnError
        For complex numbers, nested values and masked entries; it names the column.
    """
    if isinstance(raw, np.ndarray):
        return _from_array(name, raw)
    if isinstance(raw, FormColumn):
        return raw.form
    kind = type(raw)  # an attribute that a series of pandas lacks takes it long to look up
    if hasattr(kind, "to_physical"):
        return _from_polars(name, raw)
    if hasattr(kind, "dictionary_encode"):
        return _from_arrow(name, raw)
    if hasattr(kind, "factorize") and hasattr(raw, "dtype"):
        return _from_pandas(name, raw)
    if hasattr(raw, "__array__"):
        return _from_array(name, np.asarray(raw))
    return from_objects(name, list(raw))


def _unusable(name: str, what: str, todo: str) -> ColumnError:
    return ColumnError(f"column {name!r} holds {what}; {todo}")


NESTED = "take the numbers or texts that matter out of it, into columns of their own"


# NumPy, and Python's objects ----------------------------------------------------------------------


def _from_array(name: str, array: Array) -> Form:
    if isinstance(array, np.ma.MaskedArray):
        if np.ma.is_masked(array):
            raise _unusable(name, "masked entries", "fill them first, with filled(value)")
        array = np.asarray(array)
    if array.ndim != 1:
        raise _unusable(name, f"an array of shape {array.shape}", "expected is a value per row")
    kind = array.dtype.kind
    if kind == "b":
        return Levels(array.astype(np.int8), [False, True])
    if kind in REAL:
        return Numbers(array)
    if kind == "M":
        return Moments(seconds_of_array(array))
    if kind == "m":
        return Durations(seconds_of_array(array))
    if kind == "c":
        raise ColumnError(f"Complex data not supported: column {name!r} holds complex numbers")
    if kind == "V":
        raise _unusable(name, f"records of {array.dtype}", NESTED)
    return from_objects(name, array.tolist())


def from_objects(name: str, values: Sequence[Any]) -> Form:
    """Return a list of Python's objects: numbers if they are floats, else levels."""
    first = next((value for value in values if value is not None), None)
    if type(first) in (int, float):
        numbers = _plain_numbers(values)
        if numbers is not None:
            return Numbers(numbers)
    table: defaultdict[Any, int] = defaultdict()
    table.default_factory = table.__len__  # the number of a new value: one pass over the rows
    try:
        codes = np.fromiter(map(table.__getitem__, values), np.int32, len(values))
    except TypeError:
        bad = type(next(value for value in values if not _is_hashable(value))).__name__
        if bad == "MaskedConstant":
            raise _unusable(name, "masked entries", "fill them first, with filled(value)") from None
        raise _unusable(name, f"values of type {bad}", NESTED) from None
    if any(issubclass(kind, (complex, np.complexfloating)) for kind in set(map(type, table))):
        raise ColumnError(f"Complex data not supported: column {name!r} holds complex numbers")
    return Levels(codes, list(table))


def _plain_numbers(values: Sequence[Any]) -> NDArray[np.float64] | None:
    """Return ints, floats and None as float64; None for other objects, and for too many digits."""
    kinds = set(map(type, values))
    if not kinds <= {int, float, type(None)}:
        return None
    if int in kinds and any(type(value) is int and abs(value) >= EXACT for value in values):
        return None  # every digit counts if the column is a category
    return np.array(values, object).astype(np.float64)


def _is_hashable(value: Any) -> bool:
    try:
        hash(value)
    except TypeError:
        return False
    return True


# pandas -------------------------------------------------------------------------------------------


def _from_pandas(name: str, series: Any) -> Form:
    """Read a pandas series, or one with the same methods."""
    dtype = series.dtype
    if hasattr(dtype, "categories") and hasattr(series, "cat"):
        values = list(series.cat.categories.to_numpy())
        return Levels(series.cat.codes.to_numpy(), values, True)
    if hasattr(dtype, "pyarrow_dtype"):
        return _from_arrow(name, series.array.__arrow_array__())
    zone = getattr(dtype, "tz", None)
    if zone is not None:
        clock = series.dt.tz_convert(None).to_numpy()
        return Moments(seconds_of_array(clock), name_of_zone(zone))
    if hasattr(dtype, "freq") and hasattr(series, "dt"):  # periods begin at a time
        return Moments(seconds_of_array(series.dt.start_time.to_numpy()))
    if hasattr(dtype, "subtype") and hasattr(series, "sparse"):
        return _from_array(name, np.asarray(series.sparse.to_dense()))
    if isinstance(dtype, np.dtype) and dtype.kind != "O":
        return _from_array(name, series.to_numpy())
    if getattr(dtype, "kind", "O") in "iuf":  # integers and floats with pandas' own gaps
        return Numbers(series.to_numpy(dtype=np.float64, na_value=np.nan))
    try:
        codes, values = series.factorize()
    except TypeError:  # the message names the column, and what cannot be hashed
        return from_objects(name, series.tolist())
    uniques = values.tolist()
    if any(isinstance(value, complex) for value in uniques[:1]):
        raise ColumnError(f"Complex data not supported: column {name!r} holds complex numbers")
    return Levels(codes, uniques)


# polars -------------------------------------------------------------------------------------------


def _from_polars(name: str, series: Any) -> Form:
    """Read a polars series; its dtype is known by name, since polars is not imported."""
    kind = str(series.dtype).partition("(")[0]
    if kind in ("String", "Utf8"):
        series, declared = series.cast(sys.modules["polars"].Categorical), False
    else:
        declared = kind in ("Categorical", "Enum")
    if kind in ("String", "Utf8", "Categorical", "Enum"):
        return _polars_levels(series, declared)
    if kind == "Boolean":
        return Levels(_or_missing(series.cast(int).to_numpy()), [False, True])
    if kind in ("Date", "Datetime", "Duration", "Time"):
        unit = "D" if kind == "Date" else getattr(series.dtype, "time_unit", None) or "ns"
        seconds = seconds_of_units(series.to_physical().to_numpy(), unit)
        if kind in ("Date", "Datetime"):
            return Moments(seconds, getattr(series.dtype, "time_zone", None))
        return Durations(seconds)
    if kind in ("Decimal", "Int128", "UInt128"):
        return Numbers(series.cast(float).to_numpy())
    if kind == "Null":
        return Numbers(np.full(len(series), np.nan))
    if kind == "Binary":
        return from_objects(name, series.to_list())
    if kind in ("Object", "List", "Array", "Struct"):
        if kind != "Object":
            raise _unusable(name, f"values of type {kind}", NESTED)
        return from_objects(name, series.to_list())
    return Numbers(series.to_numpy())


def _polars_levels(series: Any, declared: bool) -> Levels:
    levels = series.unique().drop_nulls()
    found = levels.to_physical().to_numpy().astype(np.int64)
    table = np.full(int(found.max(initial=-1)) + 2, -1, np.int32)
    table[found] = np.arange(len(found))
    physical = series.to_physical()
    nothing = len(table) - 1  # the last entry of the table: -1
    return Levels(table[physical.fill_null(nothing).to_numpy()], levels.to_list(), declared)


def _or_missing(values: Array) -> NDArray[np.int8]:
    """Return whole numbers as small codes, NaN as -1."""
    return np.where(np.isnan(values), -1, values).astype(np.int8)


# Arrow --------------------------------------------------------------------------------------------


def _from_arrow(name: str, column: Any) -> Form:
    """Read an Arrow array, or one of several chunks."""
    kind = str(column.type)
    if kind.startswith("dictionary"):
        return _arrow_levels(name, column, True)
    if kind.endswith(("string", "string_view", "binary", "binary_view")) or kind.startswith(
        "fixed_size_binary"
    ):
        return _arrow_levels(name, column, False)
    if kind == "bool":
        return Levels(_or_missing(_arrow_numbers(column.cast("int8"))), [False, True])
    head, _, tail = kind.partition("[")
    if head in ("timestamp", "date32", "date64", "time32", "time64", "duration"):
        unit = {"day": "D"}.get(tail.rstrip("]").split(",")[0], tail.rstrip("]").split(",")[0])
        width = "int32" if head.endswith("32") else "int64"
        seconds = seconds_of_units(_arrow_numbers(column.cast(width)), unit)
        if head in ("timestamp", "date32", "date64"):
            return Moments(seconds, getattr(column.type, "tz", None))
        return Durations(seconds)
    if kind.startswith("decimal"):
        column = column.cast("float64")
    elif kind == "null":
        return Numbers(np.full(len(column), np.nan))
    elif not kind.startswith(("int", "uint", "float", "halffloat", "double")):
        raise _unusable(name, f"values of type {kind}", NESTED)
    return Numbers(_arrow_numbers(column))


def _chunks(column: Any) -> list[Any]:
    chunks = getattr(column, "chunks", None)
    return [column] if chunks is None else list(chunks)


def _arrow_numbers(column: Any) -> Array:
    parts = [of_arrow(chunk) for chunk in _chunks(column)]
    return parts[0] if len(parts) == 1 else np.concatenate([*parts, np.zeros(0, np.int8)])


def _arrow_levels(name: str, column: Any, declared: bool) -> Levels:
    """Return the dictionaries of all chunks as one."""
    table: dict[Any, int] = {}
    parts = []
    for chunk in _chunks(column):
        encoded = chunk if hasattr(chunk, "dictionary") else chunk.dictionary_encode()
        numbers = of_arrow(encoded.indices)
        if encoded.indices.null_count:
            numbers = np.nan_to_num(numbers, nan=-1).astype(np.int64)
        places = []
        for value in encoded.dictionary.to_pylist():
            places.append(table.setdefault(value, len(table)))
        codes = np.array([*places, -1], np.int32)[numbers]
        parts.append(codes)
    codes = parts[0] if len(parts) == 1 else np.concatenate([*parts, np.zeros(0, np.int32)])
    return Levels(codes, list(table), declared)
