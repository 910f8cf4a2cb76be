"""What a column is: its values in one of four forms, whatever library holds them, and its kind.

The readers of each library (:mod:`cmlp.tables.readers`) return a form; a form converts to the
others as far as its values allow. So a column of whole numbers that is text, or a category, at
prediction is the same column.
"""

from __future__ import annotations

import datetime
import re
from collections.abc import Callable, Iterable, Sequence
from decimal import Decimal
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from cmlp.core.layout import Array
from cmlp.data.cells import FEW, MISSING, NUMBER, advice, show
from cmlp.data.labels import is_missing
from cmlp.tables.dates import DAY, name_of_zone
from cmlp.tables.levels import (
    LevelType,
    key_of,
    moment_text,
    order_of,
    seconds_of,
    type_of_levels,
)

Kind = str
KINDS = (
    "number", "category", "bool", "date", "duration", "text", "constant", "empty", "ignored",
)  # fmt: skip
"""What a column can be: text is nearly unique per row, constant has one value and no gap."""

Codes = NDArray[np.signedinteger[Any]]


class ColumnError(ValueError):
    """A column cannot be used; the message names it, the row, and what to do.

    Attributes
    ----------
    what : str
        The message without the place.
    name : str or None
        Of the column.
    row : int or None
    """

    def __init__(self, what: str, name: str | None = None, row: int | None = None) -> None:
        self.what, self.name, self.row = what, name, row
        where = "" if row is None else f", row {row}"
        super().__init__(what if name is None else f"column {name!r}{where}: {what}")


class Numbers(NamedTuple):
    """Real numbers of any dtype; NaN is missing."""

    values: Array


class Levels(NamedTuple):
    """Objects by number: row i holds ``values[codes[i]]``, or nothing where the code is -1."""

    codes: Codes
    values: Sequence[Any]
    declared: bool = False
    """Whether the dtype of the column is one of categories."""


class Moments(NamedTuple):
    """Dates and times, in seconds since 1970: of UTC with a zone, else of their own clock."""

    seconds: NDArray[np.float64]
    zone: str | None = None


class Durations(NamedTuple):
    """Durations, or times of the day, in seconds."""

    seconds: NDArray[np.float64]


Form = Numbers | Levels | Moments | Durations


def n_rows(form: Form) -> int:
    """Return the number of rows of a column."""
    return len(form[0])


# Conversions ------------------------------------------------------------------------------------


def _of_levels(form: Levels, convert: Callable[[Any], float], name: str) -> NDArray[np.float64]:
    """Convert each level once; an error names the first row that has the level."""
    table = np.full(len(form.values) + 1, np.nan)
    for number, value in enumerate(form.values):
        try:
            table[number] = convert(value)
        except ColumnError as error:
            rows = np.flatnonzero(form.codes == number)
            if len(rows):
                raise ColumnError(str(error), name, int(rows[0])) from None
        except OverflowError:
            table[number] = np.inf
    return table[form.codes]


SPANS = (datetime.timedelta, datetime.time, np.timedelta64)
"""Types of durations and of times of the day."""


def number_of(value: Any, markers: Iterable[str] = ()) -> float:
    """Return the number in a cell; NaN for a missing one and for the words in `markers`.

    Raises
    ------
    ColumnError
        For text that is neither a number nor a usual sign of a gap, and for other objects.
    """
    if isinstance(value, (str, bytes)):
        text = value.decode("latin-1") if isinstance(value, bytes) else str.__str__(value)
        if NUMBER(text):
            return float(text)
        if text.strip().lower() in ("true", "false"):
            return float(text.strip().lower() == "true")
        if text in markers or (MISSING(text) and "inf" not in text.lower()):
            return np.nan
        raise ColumnError(
            f"a number expected, {show(text)} came; "
            + advice(text, "turn it into a number, or leave it empty where it is missing")
        )
    if is_missing(value):
        return np.nan
    if isinstance(value, (datetime.date, np.datetime64, *SPANS)):
        raise ColumnError(f"a number expected, {value} came")
    try:
        return float(value)
    except (TypeError, ValueError):
        raise ColumnError(f"a number expected, {show(value)} came") from None


def as_numbers(name: str, form: Form, markers: Sequence[str] = ()) -> Array:
    """Return a column's numbers, NaN where they are missing.

    Raises
    ------
    ColumnError
        For dates, durations, text that is no number, and infinity; it names the column and the row.
    """
    if isinstance(form, (Moments, Durations)) and not np.isnan(form.seconds).all():
        what = "dates and times" if isinstance(form, Moments) else "durations"
        raise ColumnError(f"column {name!r}: numbers expected, {what} came")
    if isinstance(form, Levels):
        values: Array = _of_levels(form, lambda value: number_of(value, markers), name)
    else:
        values = form[0]
    if values.dtype.kind == "f" and np.isinf(values).any():
        row = int(np.argmax(np.isinf(values)))
        raise ColumnError(
            f"{values[row]} is not a finite number; fill it in, or replace it by NaN, which is a "
            "missing value",
            name,
            row,
        )
    return values


def as_levels(name: str, form: Form) -> tuple[Codes, list[str | None]]:
    """Return a column as codes and the texts of levels, of which several may be equal.

    A code of -1, and a text that is None, stand for a missing value.
    """
    if isinstance(form, Levels):
        try:
            return form.codes, [key_of(value) for value in form.values]
        except TypeError as error:
            raise ColumnError(f"column {name!r}: {error}") from None
    values, codes = np.unique(form[0], return_inverse=True)
    if isinstance(form, Moments):
        return codes, [moment_text(second) for second in values.tolist()]
    scalars = values if values.dtype.char in "eg" or values.dtype == np.float32 else values.tolist()
    return codes, [key_of(value) for value in scalars]


def moment_of(value: Any, numeric: bool = False) -> tuple[float, datetime.tzinfo | None]:
    """Return the seconds since 1970 of a date or its ISO text, and its zone.

    A number of seconds is accepted if `numeric` is true.
    """
    if isinstance(value, str):
        if not value.strip() or MISSING(value):
            return np.nan, None
        try:
            value = datetime.datetime.fromisoformat(value.strip())
        except ValueError:
            raise ColumnError(
                f"a date in ISO's form, as 2024-05-31 or 2024-05-31T09:30, expected, {show(value)} "
                "came"
            ) from None
    if is_missing(value):
        return np.nan, None
    if isinstance(value, np.datetime64):
        return float(seconds_of_array(np.array([value]))[0]), None
    if isinstance(value, datetime.date):
        return seconds_of(value), getattr(value, "tzinfo", None)
    if numeric and isinstance(value, (int, float, np.number)) and not isinstance(value, bool):
        return float(value), None
    raise ColumnError(f"a date expected, {show(value)} came")


def as_moments(name: str, form: Form, numeric: bool = False) -> Moments:
    """Return a column of dates, or of ISO texts, as times; of numbers of seconds if `numeric`."""
    if isinstance(form, Moments):
        return form
    if isinstance(form, (Durations, Numbers)):
        values = form[0].astype(np.float64)
        if not (numeric and isinstance(form, Numbers)) and not np.isnan(values).all():
            what = "numbers" if isinstance(form, Numbers) else "durations or times of the day"
            raise ColumnError(f"column {name!r}: dates expected, {what} came")
        return Moments(_finite_seconds(name, values))
    zones: set[str] = set()
    naive: list[bool] = []

    def convert(value: Any) -> float:
        seconds, zone = moment_of(value, numeric)
        if seconds == seconds and not isinstance(value, (int, float, np.number)):
            naive.append(zone is None)
            if zone is not None:
                zones.add(name_of_zone(zone))
        return seconds

    seconds = _of_levels(form, convert, name)
    if zones and any(naive):
        raise ColumnError(
            f"column {name!r} mixes times with and without a time zone; give all of them one"
        )
    zone = (zones.pop() if len(zones) == 1 else "UTC") if zones else None
    return Moments(_finite_seconds(name, seconds), zone)


def _finite_seconds(name: str, seconds: NDArray[np.float64]) -> NDArray[np.float64]:
    as_numbers(name, Numbers(seconds))
    return seconds


def as_durations(name: str, form: Form) -> Array:
    """Return a column of durations, or of times of the day, in seconds."""
    if isinstance(form, Levels):
        return _of_levels(form, duration_of, name)
    if not isinstance(form, Durations) and not np.isnan(form[0]).all():
        what = "numbers" if isinstance(form, Numbers) else "dates"
        raise ColumnError(f"column {name!r}: durations expected, {what} came")
    return form[0]


def duration_of(value: Any) -> float:
    """Return the seconds of a duration, or of a time of the day."""
    if is_missing(value) or (isinstance(value, str) and not value.strip()):
        return np.nan
    if isinstance(value, datetime.timedelta):
        return value.total_seconds()
    if isinstance(value, datetime.time):
        return value.hour * 3600 + value.minute * 60 + value.second + value.microsecond / 1e6
    if isinstance(value, np.timedelta64):
        return float(seconds_of_array(np.array([value]))[0])
    raise ColumnError(f"a duration expected, {show(value)} came")


PER_SECOND = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9, "ps": 10**12, "fs": 10**15}


def seconds_of_array(values: Array) -> NDArray[np.float64]:
    """Return the seconds of an array of NumPy's dates or durations; NaT becomes NaN."""
    unit = np.datetime_data(values.dtype)[0]
    if unit not in PER_SECOND or np.datetime_data(values.dtype)[1] != 1:
        unit = "s" if unit in "YMWDhm" or unit == "generic" else "us"
        values = values.astype(f"{values.dtype.kind}8[{unit}]")
    return seconds_of_units(values.astype(np.int64), unit, np.isnat(values))


def seconds_of_units(
    whole: Array, unit: str, missing: NDArray[np.bool_] | None = None
) -> NDArray[np.float64]:
    """Return seconds of a number of units ("s" to "fs", or "D"), with NaN where it is missing."""
    seconds = np.true_divide(whole, PER_SECOND[unit]) if unit != "D" else whole * float(DAY)
    if missing is not None:
        seconds[missing] = np.nan
    return seconds


# Kinds --------------------------------------------------------------------------------------------

UNIQUE, UNIQUE_PART = 50, 0.5
"""Text with more distinct values than this, and on more than this part of the rows, is left out."""

WORDS, WORDS_PART = 2, 0.1
"""So many different words, on so large a part of the rows, may stand for gaps among numbers."""


class Decision(NamedTuple):
    """What a column is, and how that was found."""

    kind: Kind
    use: str = ""
    """What is done with it, in words."""
    markers: tuple[str, ...] = ()
    """Words that stand for gaps among its numbers, in addition to the usual ones."""
    level_type: LevelType = "text"


def decide(form: Form) -> Decision:
    """Decide by dtype and values what a column is: the rules of :class:`TableEncoder`."""
    if isinstance(form, Numbers):
        return Decision("number")
    if isinstance(form, Moments):
        return Decision("date")
    if isinstance(form, Durations):
        return Decision("duration")
    present = present_values(form)
    level_type = type_of_levels(present)
    if form.declared or level_type == "bool":
        return Decision("bool" if level_type == "bool" else "category", "", (), level_type)
    if present and level_type in ("int", "float"):
        return Decision("number", "numbers that are objects")
    if present and all(isinstance(value, (datetime.date, np.datetime64)) for value in present):
        return Decision("date")
    if present and all(isinstance(value, SPANS) for value in present):
        return Decision("duration")
    return _of_text(form, present)


def present_values(form: Levels) -> list[Any]:
    """Return the values that occur in a column, without missing ones and empty text."""
    counts = np.bincount(form.codes + 1, minlength=len(form.values) + 1)[1:]
    return [
        value
        for value, count in zip(form.values, counts.tolist(), strict=True)
        if count and not is_missing(value) and not (isinstance(value, str) and not value.strip())
    ]


def _of_text(form: Levels, present: list[Any]) -> Decision:
    """Decide whether text is numbers with gaps, categories, or nearly unique."""
    numbers, words, padded, whole = [], [], False, True
    for value in present:
        if isinstance(value, str) and not NUMBER(value):
            words.append(value)
        elif isinstance(value, (str, int, float, np.integer, np.floating, Decimal)):
            numbers.append(value)
            text = str(value).strip().lstrip("+-")
            padded |= len(text) > 1 and text[0] == "0" and text[1].isdigit()
            whole &= text.isdigit()
        else:
            words.append(value)
    odd = [word for word in words if not (isinstance(word, str) and MISSING(word))]
    gaps = len(words) > 0
    many = len(numbers) > FEW
    if numbers and not padded and len(odd) <= WORDS and (many or not odd):
        few = not odd or _part(form, odd) <= WORDS_PART
        if few and all(isinstance(word, str) for word in odd) and (many or gaps or not whole):
            shown = ", ".join(show(word) for word in words[:3])
            use = "numbers written as text" + (f"; a gap where it is {shown}" if words else "")
            return Decision("number", use, tuple(odd))
    n = len(form.codes)
    distinct = len({key_or_text(value) for value in present})
    hint = "; dates written as text: convert them to dates" if are_iso_dates(present) else ""
    if distinct > UNIQUE and distinct > UNIQUE_PART * n:
        return Decision("text", f"{distinct:,} different values on {n:,} rows{hint}")
    return Decision("category", hint, (), type_of_levels(present))


def are_iso_dates(values: Sequence[Any]) -> bool:
    """Whether all values are text in ISO's form of a date, or of a date and a time."""
    if not values or not all(isinstance(value, str) and _ISO(value) for value in values):
        return False
    try:
        return all(datetime.datetime.fromisoformat(value.strip()) for value in values)
    except ValueError:
        return False


_ISO = re.compile(r"\s*\d{4}-\d\d-\d\d([T ]\d\d:\d\d.*)?\s*", re.ASCII).fullmatch


def key_or_text(value: Any) -> str | None:
    """Return a level's key, or the text of an object that cannot be one."""
    try:
        return key_of(value)
    except TypeError:
        return str(value)


def _part(form: Levels, values: list[Any]) -> float:
    """Return the part of the rows that hold one of these values."""
    numbers = [i for i, value in enumerate(form.values) if value in values]
    return float(np.isin(form.codes, numbers).mean())


def sorted_levels(codes: Codes, keys: list[str | None]) -> tuple[list[str], Array, int]:
    """Return the levels that occur, in the order of their values, their counts, and the gaps."""
    counts = np.bincount(codes + 1, minlength=len(keys) + 1)
    missing, found = int(counts[0]), dict[str, int]()
    for key, count in zip(keys, counts[1:].tolist(), strict=True):
        if key is None:
            missing += count
        elif count:
            found[key] = found.get(key, 0) + count
    levels = sorted(found, key=order_of)
    return levels, np.array([found[level] for level in levels], np.int64), missing
