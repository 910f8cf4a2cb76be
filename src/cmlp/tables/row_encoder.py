"""One row at a time, without data frames or arrays: look-ups and a few operations per column."""

from __future__ import annotations

import datetime
import itertools
import math
from bisect import bisect_right
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any

import numpy as np

from cmlp.core.layout import Array
from cmlp.data.cells import show
from cmlp.data.frames import listed
from cmlp.tables.columns import ColumnError, duration_of, moment_of, number_of
from cmlp.tables.dates import DAY, ORDINAL_1970, PARTS, parts_of_one, zone_of
from cmlp.tables.encoders import (
    CategoryEncoder,
    DateEncoder,
    DurationEncoder,
    Encoder,
    NumberEncoder,
)
from cmlp.tables.levels import key_of
from cmlp.tables.scales import FAR, Float64s

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
        self.encoders = list(encoders)

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
        if isinstance(row, np.void) and row.dtype.names:
            row = dict(zip(row.dtype.names, row.item(), strict=True))
        if hasattr(type(row), "keys"):  # another mapping than a dict, or a series of pandas
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
    if isinstance(encoder, DurationEncoder):  # of a float, the unit is not known
        add_seconds = _number(encoder, float)
        return lambda value, out: add_seconds(duration_of(value), out)
    return _number(encoder, lambda value: number_of(value, markers))


def _number(encoder: NumberEncoder, convert: Callable[[Any], float]) -> Append:
    """Return what appends the outputs of a number; `convert` reads other types than float.

    The arithmetic is that of :class:`cmlp.tables.scales.Scale`, written out: a call costs as much.
    """
    scale, place = encoder.scale, None if encoder.knots is None else place_of_one(encoder.knots)
    center, factor, clips = (0.0, 0.0, False) if scale is None else scale
    has_scale, flag, inf, sqrt = scale is not None, encoder.flag, math.inf, math.sqrt
    of_gap = [0.0] * has_scale
    if place is not None:
        of_gap.append(place(encoder.place_of_gap))
    of_gap += [1.0] * flag

    def append(value: Any, out: list[float]) -> None:
        if type(value) is not float:
            try:
                value = float(value) if type(value) is int else convert(value)
            except OverflowError:
                value = inf
        if not -inf < value < inf:
            if value == value:
                raise ColumnError(f"{value} is not a finite number")
            out += of_gap
            return
        if has_scale:
            u = (value - center) * factor
            if not -FAR < u < FAR:
                u = math.copysign(FAR, u)
            if clips:
                t = u / 3
                u /= sqrt(t * t + 1)
            out.append(u)
        if place is not None:
            out.append(place(value))
        if flag:
            out.append(0.0)

    return append


def place_of_one(knots: Float64s) -> Callable[[float], float]:
    """Return what finds a number among knots, as :func:`cmlp.tables.scales.place_among`."""
    halves: list[float] = (knots / 2).tolist()
    slopes = [1 / (above - below) for below, above in itertools.pairwise(halves)]
    first, last, end = halves[0], halves[-1], float(len(halves) - 1)

    def place(value: float) -> float:
        value /= 2
        if value >= last:
            return end
        if value <= first:
            return 0.0
        i = bisect_right(halves, value) - 1
        return slopes[i] * (value - halves[i]) + i

    return place


def _date(encoder: DateEncoder) -> Append:
    """Return what appends the outputs of a date."""
    zone = None if encoder.zone is None else zone_of(encoder.zone)
    add_seconds = _number(encoder.seconds, float)
    order = list(PARTS)
    parts = [
        (order.index(part), _number(each, float), 2 * math.pi / PARTS[part])
        for part, each in encoder.parts.items()
    ]
    cycles, numeric = encoder.cycles, encoder.numeric

    def append(value: Any, out: list[float]) -> None:
        if type(value) is datetime.date:
            seconds, own_zone = (value.toordinal() - ORDINAL_1970) * float(DAY), None
        else:
            seconds, own_zone = moment_of(value, numeric)
        if (own_zone is None) != (zone is None) and seconds == seconds and is_clock(value):
            raise ColumnError(
                f"{value} has {'no' if own_zone is None else 'a'} time zone, unlike the column in "
                "fit; localise or convert it first"
            )
        add_seconds(seconds, out)
        if not parts:
            return
        found = parts_of_one(seconds, zone)
        for place, add, unit in parts:
            if not cycles:
                add(found[place], out)
            elif seconds != seconds:
                out += (0.0, 0.0)
            else:
                out += (math.sin(found[place] * unit), math.cos(found[place] * unit))

    return append


def is_clock(value: Any) -> bool:
    """Whether a value is a time, or its text, and not a number of seconds."""
    return isinstance(value, (str, datetime.date, np.datetime64))


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
