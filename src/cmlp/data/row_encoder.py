"""One row at a time, without data frames or arrays: look-ups and a few operations per column."""

from __future__ import annotations

import datetime
import math
from bisect import bisect_right
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any

import numpy as np

from cmlp.core.layout import Array
from cmlp.data.cells import show
from cmlp.data.column_encoders import (
    CategoryEncoder,
    DateEncoder,
    DurationEncoder,
    Encoder,
    NumberEncoder,
)
from cmlp.data.columns import ColumnError, duration_of, moment_of, number_of
from cmlp.data.dates import PARTS, parts_of_one, zone_of
from cmlp.data.frames import listed
from cmlp.data.levels import key_of

Append = Callable[[Any, list[float]], None]
"""Appends the outputs of a value to a list."""


class RowEncoder:
    """Encode one row, a dict of raw values by column, or a tuple of all of them in order.

    Made by :meth:`TableEncoder.row`. A key of a dict that is not a column is ignored, and columns
    that are left out need not be there.
    """

    def __init__(
        self, names: Sequence[str], encoders: Sequence[Encoder], dtype: np.dtype[Any]
    ) -> None:
        self._columns = [
            (place, name, _append_of(encoder))
            for place, (name, encoder) in enumerate(zip(names, encoders, strict=True))
            if encoder.outputs
        ]
        self._n, self._dtype = len(names), dtype

    def __call__(self, row: Mapping[str, Any] | Sequence[Any]) -> Array:
        """Return the encoded row, (width,).

        Raises
        ------
        ValueError
            For a dict that lacks columns, a tuple of another length, and values that their columns
            cannot hold.
        """
        out: list[float] = []
        column = None
        try:
            if isinstance(row, dict):
                for column in self._columns:
                    column[2](row[column[1]], out)
            else:
                values = self._in_order(row)
                for column in self._columns:
                    column[2](values[column[0]], out)
        except KeyError:
            raise self._lacking(row) from None
        except ColumnError as error:
            where = "" if column is None else f"column {column[1]!r}: "
            raise ColumnError(f"{where}{error}") from None
        return np.array(out or [0.0], self._dtype)

    def _in_order(self, row: Any) -> Sequence[Any]:
        """Return the values of a row in the order of the columns."""
        if isinstance(row, Mapping):
            names = {place: name for place, name, _ in self._columns}
            return [row[names[place]] if place in names else None for place in range(self._n)]
        if isinstance(row, (str, bytes)) or not hasattr(row, "__len__"):
            raise TypeError(f"a row must be a dict or a tuple, not {show(row)}")
        if len(row) != self._n:
            raise ValueError(f"a row of {self._n} values expected, {len(row)} came")
        return list(row)

    def _lacking(self, row: Any) -> ValueError:
        missing = [name for _, name, _ in self._columns if name not in row]
        return ValueError(f"the row lacks {listed(missing, 20, show)}")


def _append_of(encoder: Encoder) -> Append:
    if isinstance(encoder, CategoryEncoder):
        return _category(encoder)
    if isinstance(encoder, DateEncoder):
        return _date(encoder)
    assert isinstance(encoder, NumberEncoder)
    markers = encoder.markers
    if isinstance(encoder, DurationEncoder):
        return _number(encoder, duration_of)
    return _number(encoder, lambda value: number_of(value, markers))


def _number(encoder: NumberEncoder, convert: Callable[[Any], float]) -> Append:
    """Return what appends the outputs of a number; `convert` reads other types than float."""
    scale = encoder.scale
    knots = None if encoder.knots is None else (encoder.knots / 2).tolist()
    median, flag, finite = encoder.median, encoder.flag, math.isfinite

    def append(value: Any, out: list[float]) -> None:
        if type(value) is not float:
            try:
                value = convert(value)
            except OverflowError:
                value = math.inf
        missing = value != value
        if not missing and not finite(value):
            raise ColumnError(f"{value} is not a finite number")
        if scale is not None:
            out.append(0.0 if missing else scale.of_one(value))
        if knots is not None:
            out.append(place_of_one((median if missing else value) / 2, knots))
        if flag:
            out.append(1.0 if missing else 0.0)

    return append


def place_of_one(value: float, knots: list[float]) -> float:
    """Return where a number is among knots, as :func:`cmlp.data.scales.place_among`."""
    if value <= knots[0]:
        return 0.0
    if value >= knots[-1]:
        return len(knots) - 1.0
    i = bisect_right(knots, value) - 1
    return 1 / (knots[i + 1] - knots[i]) * (value - knots[i]) + i


def _date(encoder: DateEncoder) -> Append:
    """Return what appends the outputs of a date."""
    zone = None if encoder.zone is None else zone_of(encoder.zone)
    seconds_of = _number(encoder.seconds, float)
    order = list(PARTS)
    parts = [
        (
            order.index(part),
            None if encoder.cycles else _number(each, float),
            2 * math.pi / PARTS[part],
        )
        for part, each in encoder.parts.items()
    ]

    def append(value: Any, out: list[float]) -> None:
        seconds, own_zone = moment_of(value)
        clock = seconds == seconds and isinstance(value, (str, datetime.date))
        if clock and (own_zone is None) != (zone is None):
            raise ColumnError(
                f"{value} has {'no' if own_zone is None else 'a'} time zone, unlike the column in "
                "fit; localise or convert it first"
            )
        seconds_of(seconds, out)
        if not parts:
            return
        found = parts_of_one(seconds, zone)
        for place, number, unit in parts:
            if number is not None:
                number(found[place], out)
            elif seconds != seconds:
                out += (0.0, 0.0)
            else:
                out += (math.sin(found[place] * unit), math.cos(found[place] * unit))

    return append


def _category(encoder: CategoryEncoder) -> Append:
    """Return what appends the outputs of a level, found by its value, else by its text."""
    rows = [tuple(row) for row in encoder.table.tolist()]
    by_key = {key: rows[code] for key, code in encoder.places.items()}
    unseen = rows[0]
    by_value: dict[Any, tuple[float, ...]] = {None: unseen}
    for key, row in by_key.items():
        if encoder.level_type in ("int", "float"):
            with suppress(ValueError):
                by_value[int(key) if encoder.level_type == "int" else float(key)] = row
    by_value |= by_key

    def append(value: Any, out: list[float]) -> None:
        try:
            row = by_value.get(value)
            if row is None:
                key = key_of(value)
                row = unseen if key is None else by_key.get(key, unseen)
        except TypeError:
            raise ColumnError(f"a {type(value).__name__} cannot be a category") from None
        out += row

    return append
