"""Levels of categories: one text for equal values of any type, and their order."""

from __future__ import annotations

import datetime
from collections.abc import Iterable, Sequence
from decimal import Decimal
from typing import Any, Literal

import numpy as np

from cmlp.core.layout import Array
from cmlp.data.cells import NUMBER, whole_numbers
from cmlp.data.labels import is_missing

LevelType = Literal["text", "int", "float", "bool"]
"""Type in which the levels of a column are shown; they are compared as text."""

LEVEL_TYPES = ("text", "int", "float", "bool")

EPOCH = datetime.datetime(1970, 1, 1)
UTC_EPOCH = datetime.datetime(1970, 1, 1, tzinfo=datetime.UTC)


def key_of(value: Any) -> str | None:
    """Return the text of a level, the same for 1, 1.0 and "1"; None for a missing value.

    Text without a visible character is missing.

    Raises
    ------
    TypeError
        For a value that cannot be a level: a list, a dict, an array, a complex number.
    """
    kind = type(value)
    if kind is str:
        return value if value.strip() else None
    if kind is int:
        return str(value)
    if kind is float:
        return _key_of_float(value)
    return None if is_missing(value) else _key_of_other(value)


def _key_of_float(value: float) -> str | None:
    if value != value:
        return None
    return str(int(value)) if value.is_integer() else repr(value)


def _key_of_other(value: Any) -> str | None:
    """Return the text of a level of a rarer type."""
    if isinstance(value, np.floating) and value.dtype.itemsize < 8:
        whole = np.isfinite(value) and float(value).is_integer()
        return str(int(value)) if whole else str(value)  # 0.1 in float32 is written "0.1", too
    if isinstance(value, (np.generic, np.ndarray)) and not np.ndim(value):
        plain = value.item()
        if not isinstance(plain, (np.generic, np.ndarray)):
            if isinstance(value, np.datetime64) and isinstance(plain, int):  # nanoseconds
                return moment_text(float(value.astype("datetime64[us]").astype(np.int64)) / 1e6)
            return key_of(plain)
    if isinstance(value, (bool, np.bool_)):
        return "True" if value else "False"
    if isinstance(value, str):  # the text of an enumeration's member is another one
        return key_of(str.__str__(value))
    if isinstance(value, bytes):
        return key_of(value.decode("latin-1"))
    if isinstance(value, (datetime.date, datetime.datetime)):
        return moment_text(seconds_of(value))
    if isinstance(value, datetime.timedelta):
        return _key_of_float(value.total_seconds())
    if isinstance(value, Decimal):
        whole = value.is_finite() and value == value.to_integral_value()
        return str(int(value)) if whole else str(value.normalize())
    if isinstance(value, int):
        return str(int(value))
    if isinstance(value, (complex, list, tuple, dict, set, frozenset, np.ndarray, np.generic)):
        raise TypeError(f"a {type(value).__name__} cannot be a category")
    return key_of(str(value))


def seconds_of(value: datetime.date) -> float:
    """Return the seconds since 1970 of a date or a time; without a zone, of its own clock."""
    if not isinstance(value, datetime.datetime):
        value = datetime.datetime(value.year, value.month, value.day)
    return (value - (EPOCH if value.tzinfo is None else UTC_EPOCH)).total_seconds()


def moment_text(seconds: float) -> str | None:
    """Write a time in ISO's form, to the microsecond, without a part that is zero."""
    if seconds != seconds:
        return None
    text = str(np.datetime64(round(seconds * 1e6), "us"))
    return text.removesuffix(".000000").removesuffix("T00:00:00")


# Of a column -------------------------------------------------------------------------------------


def type_of_levels(values: Iterable[Any]) -> LevelType:
    """Return the type that values share, missing ones left out; text if they share none."""
    kinds = {type(value) for value in values if not is_missing(value)}
    if any(issubclass(kind, np.timedelta64) for kind in kinds):  # to NumPy, an integer
        return "text"
    if kinds and all(issubclass(kind, (bool, np.bool_)) for kind in kinds):
        return "bool"
    if not kinds or any(issubclass(kind, (bool, np.bool_)) for kind in kinds):
        return "text"
    if all(issubclass(kind, (int, np.integer)) for kind in kinds):
        return "int"
    numbers = (int, float, np.integer, np.floating, Decimal)
    return "float" if all(issubclass(kind, numbers) for kind in kinds) else "text"


def order_of(key: str) -> tuple[int, float, str]:
    """Return what levels are sorted by: numbers by value, before text."""
    return (0, float(key), key) if NUMBER(key) else (1, 0.0, key)


def typed(keys: Sequence[str], kind: LevelType) -> Array:
    """Return levels in the type that the column has."""
    if kind == "bool":
        return np.array([key == "True" for key in keys], bool)
    if kind == "int":
        whole = whole_numbers([int(key) for key in keys])
        if whole is not None:
            return whole
    if kind == "float":
        return np.array([float(key) for key in keys], np.float64)
    found = np.empty(len(keys), object)
    found[:] = keys
    return found


def with_aliases(places: dict[str, int], *, truth: bool) -> dict[str, int]:
    """Return codes of levels also under other names: True is 1, unless both are levels.

    Parameters
    ----------
    truth : bool
        Whether the levels are those of truth values, which files write in small letters, too.
    """
    names = {"True": "1", "1": "True", "False": "0", "0": "False"}
    more = {other: places[name] for name, other in names.items() if name in places}
    if truth:
        more |= {name.lower(): places[name] for name in ("True", "False") if name in places}
    return {**more, **places}
