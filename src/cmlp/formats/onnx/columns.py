"""The columns of a table as inputs of a graph: what the encoder of a tabular model does to them.

All of it is in float64, as in :mod:`cmlp.tables.row_encoder`, until the columns are together.
"""

from __future__ import annotations

import math

import numpy as np

from cmlp.formats.chain import ConversionError
from cmlp.formats.onnx import messages as om
from cmlp.formats.onnx.graph import Graph
from cmlp.formats.raw_rows import CategorySpec, DateSpec, NumberSpec, RawRows
from cmlp.tables.dates import DAY, PARTS, zone_of
from cmlp.tables.levels import key_of
from cmlp.tables.scales import FAR

LARGEST_INTEGER = 2**53
"""Whole numbers up to it are exact as float64."""

MOST_COMPARED = 256
"""Levels that a number is compared with one by one, by operators that every runtime has."""


def columns_of(raw: RawRows) -> list[str]:
    """Return the names of the inputs.

    Raises
    ------
    ConversionError
        If there are none, or a name cannot be an input's.
    """
    names = [str(column.name) for column in raw.columns]
    if not names:
        raise ConversionError("this model uses no column of its table: there is nothing to compute")
    for place, name in enumerate(names):
        if not name or name in names[:place]:
            raise ConversionError(
                f"two columns, or none, are called {name!r}: inputs of a graph are known by their "
                "names"
            )
        try:
            name.encode()
        except UnicodeEncodeError as error:
            raise ConversionError(f"the column {name!r} cannot be encoded: {error}") from error
    return names


def encoded(g: Graph, raw: RawRows) -> str:
    """Add an input for each column, and what makes a row of the network's inputs of them."""
    parts: list[str] = []
    for name, column in zip(columns_of(raw), raw.columns, strict=True):
        spec = column.spec
        if isinstance(spec, CategorySpec):
            parts.append(_category(g, spec, name))
            continue
        x = _number_input(g, name)
        missing = g.op("Not", g.op("Equal", x, x))  # tract's IsNaN is not of truth values
        if isinstance(spec, NumberSpec):
            found = _number(g, spec, x, missing)
        else:
            found = _number(g, spec.seconds, x, missing) + _parts(g, spec, x, missing, name)
        parts += [_narrow(g, each) for each in found]
    return parts[0] if len(parts) == 1 else g.op("Concat", *parts, axis=1)


def _narrow(g: Graph, x: str) -> str:
    return x if g.options.dtype == "float64" else g.op("Cast", x, to=om.CODES[g.options.dtype])


def _number_input(g: Graph, name: str) -> str:
    """Add an input of numbers, and return it in float64."""
    x = g.input(name, om.CODES[g.options.input_dtype], 1)
    return x if g.options.input_dtype == "float64" else g.op("Cast", x, to=om.DOUBLE)


# Numbers -----------------------------------------------------------------------------------------


def _number(g: Graph, spec: NumberSpec, x: str, missing: str) -> list[str]:
    """Return the outputs of a number: its scaled value, its place, and whether it is missing."""
    found: list[str] = []
    if spec.scale is not None:
        center, factor, clips = spec.scale
        value = g.op("Where", missing, g.double(center), x)
        u = g.op("Mul", g.op("Sub", value, g.double(center)), g.double(factor))
        u = g.op("Max", g.op("Min", u, g.double(FAR)), g.double(-FAR))
        if clips:
            t = g.op("Div", u, g.double(3.0))
            u = g.op("Div", u, g.op("Sqrt", g.op("Add", g.op("Mul", t, t), g.double(1.0))))
        found.append(u)
    if spec.knots is not None:
        found.append(_place(g, spec.knots, g.op("Where", missing, g.double(spec.gap), x)))
    if spec.flag:
        found.append(g.op("Cast", missing, to=om.DOUBLE))
    return found


def _place(g: Graph, knots: list[float], x: str) -> str:
    """Return the place of a number among knots, as `place_of_one` does."""
    halves = np.array(knots) / 2
    value, slopes = g.op("Div", x, g.double(2.0)), 1 / np.diff(halves)
    if len(slopes) == 1:
        place = g.op("Mul", g.op("Sub", value, g.double(halves[0])), g.double(slopes[0]))
    else:
        below = g.op("Less", value, g.exactly("knots", halves[1:-1]))
        above = g.op("Cast", g.op("Not", below), to=om.INT64)
        i = g.op("ReduceSum", above, g.whole(1), keepdims=1)
        start = g.op("Gather", g.exactly("starts", halves[:-1]), i)
        slope = g.op("Gather", g.exactly("slopes", slopes), i)
        place = g.op("Mul", slope, g.op("Sub", value, start))
        place = g.op("Add", place, g.op("Cast", i, to=om.DOUBLE))
    return g.op("Min", g.op("Max", place, g.double(0.0)), g.double(len(halves) - 1))


# Categories --------------------------------------------------------------------------------------


def _category(g: Graph, spec: CategorySpec, name: str) -> str:
    """Return the outputs of a level, (N, outputs): a row of a table, 0 for other values."""
    rows = np.array([spec.unseen, *(row for _, row in spec.levels)])
    keys = [key for key, _ in spec.levels]
    numbers = None if spec.level_type in ("text", "bool") else _numbers(keys)
    if numbers is None:
        x = g.input(name, om.STRING, 1)
        code = _labels(g, x, keys_strings=keys, values_int64s=[*range(1, len(keys) + 1)])
    else:
        rows = rows[[0, *(place + 1 for place in numbers.values())]]
        code = _code_of_number(g, list(numbers), _number_input(g, name))
    return g.op("Gather", g.array("levels", rows), g.op("Squeeze", code, g.whole(1)), axis=0)


def _numbers(keys: list[str]) -> dict[float, int] | None:
    """Return the places of levels that are numbers; None if one of them is no exact float64."""
    found: dict[float, int] = {}
    for place, key in enumerate(keys):
        if key in ("True", "False"):  # other names of 1 and 0
            continue
        try:
            value = float(key)
        except ValueError:
            return None
        if not abs(value) <= LARGEST_INTEGER or key_of(value) != key:
            return None
        found[value] = place
    return found


def _labels(g: Graph, x: str, **tables: list[int] | list[str]) -> str:
    """Look values up, by the one operator of ``ai.onnx.ml`` that a graph of columns has."""
    g.ml = 2
    code = g.name("code")
    g.result("LabelEncoder", code, x, domain="ai.onnx.ml", default_int64=0, **tables)
    return code


def _code_of_number(g: Graph, numbers: list[float], x: str) -> str:
    """Return the place of a number among levels, from 1 on; 0 is no level, or missing."""
    if len(numbers) > MOST_COMPARED and all(value.is_integer() for value in numbers):
        known = {int(value) for value in numbers}
        other = next(n for n in range(len(known) + 1) if n not in known)
        whole = g.op("Equal", g.op("Floor", x), x)  # NaN is not equal to itself
        inside = g.op("Less", g.op("Abs", x), g.double(4.0 * LARGEST_INTEGER))
        x = g.op("Where", g.op("And", whole, inside), x, g.double(other))
        keys, codes = [int(value) for value in numbers], [*range(1, len(numbers) + 1)]
        return _labels(g, g.op("Cast", x, to=om.INT64), keys_int64s=keys, values_int64s=codes)
    equal = g.op("Equal", x, g.exactly("numbers", np.array([numbers])))  # one of them at most
    weights = np.arange(1, len(numbers) + 1, dtype=np.float32)[:, None]
    code = g.op("MatMul", g.op("Cast", equal, to=om.FLOAT), g.exactly("codes", weights))
    return g.op("Cast", code, to=om.INT64)


# Dates -------------------------------------------------------------------------------------------


def _parts(g: Graph, spec: DateSpec, seconds: str, missing: str, name: str) -> list[str]:
    """Return the outputs of the parts of a date, from its seconds since 1970."""
    if not spec.parts:
        return []
    values = _calendar(
        g, _local(g, spec.zone, g.op("Where", missing, g.double(0.0), seconds), name)
    )
    found: list[str] = []
    for place, cycle, part in spec.parts:
        value = values[place]
        if cycle is None:
            found += _number(g, part, value, missing)
            continue
        angle = g.op("Mul", value, g.double(2 * math.pi / cycle))
        for shift in (0.0, math.pi / 2):  # runtimes have Sin in float64, but not Cos
            wave = g.op("Sin", g.op("Add", angle, g.double(shift)) if shift else angle)
            found.append(g.op("Where", missing, g.double(0.0), wave))
    return found


def _local(g: Graph, zone: str | None, seconds: str, name: str) -> str:
    """Return the seconds of the clock in a zone that is an offset alone."""
    if zone is None:
        return seconds
    offset = zone_of(zone).utcoffset(None)
    if offset is None:
        raise ConversionError(
            f"column {name!r}: the clock of {zone} changes with the seasons, which ONNX has no "
            "operator for; train on dates without a zone, or of UTC, or without calendar parts"
        )
    return g.op("Add", seconds, g.double(offset.total_seconds())) if offset else seconds


def _calendar(g: Graph, seconds: str) -> list[str]:
    """Return month, day, weekday (0 is Monday) and hour, in the order of PARTS.

    The calendar is that of Hinnant's `civil_from_days`: years begin in March, 400 of them are an
    era of 146,097 days.
    """
    assert [*PARTS] == ["month", "day", "weekday", "hour"]

    def combined(a: str, factor: float, b: str) -> str:
        return g.op("Add", a, g.op("Mul", b, g.double(factor)))

    def floor(a: str, divisor: float) -> str:
        return g.op("Floor", g.op("Div", a, g.double(divisor)))

    def plus(a: str, number: float) -> str:
        return g.op("Add", a, g.double(number))

    day = floor(seconds, DAY)
    hour = g.op("Div", combined(seconds, -DAY, day), g.double(3600.0))
    of_week = plus(day, 3)
    weekday = combined(of_week, -7, floor(of_week, 7))
    shifted = plus(day, 719468)
    of_era = combined(shifted, -146097, floor(shifted, 146097))
    year = combined(of_era, -1, floor(of_era, 1460))
    year = combined(year, 1, floor(of_era, 36524))
    year = floor(combined(year, -1, floor(of_era, 146096)), 365)
    of_year = combined(combined(of_era, -365, year), -1, floor(year, 4))
    of_year = combined(of_year, 1, floor(year, 100))
    month = floor(plus(g.op("Mul", of_year, g.double(5)), 2), 153)
    before = floor(plus(g.op("Mul", month, g.double(153)), 2), 5)
    of_month = plus(combined(of_year, -1, before), 1)
    from_march = plus(month, 2)
    month = plus(combined(from_march, -12, floor(from_march, 12)), 1)
    return [month, of_month, weekday, hour]
