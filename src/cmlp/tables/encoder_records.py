"""An encoder in a file: entries of JSON and arrays, validated when they are read."""

from __future__ import annotations

import math
from collections.abc import Mapping
from reprlib import repr as short
from typing import Any, NamedTuple

import numpy as np

from cmlp.core.layout import Array
from cmlp.data.cells import INTEGER, NUMBER
from cmlp.data.records import NUMBER as NUMBER_TYPES
from cmlp.data.records import entries
from cmlp.tables.choice import CHOICES, MOST_ONE_HOT
from cmlp.tables.columns import KINDS
from cmlp.tables.dates import PARTS, zone_of
from cmlp.tables.encoders import (
    CategoryEncoder,
    DateEncoder,
    DurationEncoder,
    Encoder,
    NoEncoder,
    NumberEncoder,
)
from cmlp.tables.levels import LEVEL_TYPES
from cmlp.tables.scales import Scale, far_apart

VERSION = 1

MOST = 2**40
"""Rows that an encoder can have been fitted to: sums of counts stay exact."""

LONGEST = 4300
"""Digits of the longest whole number among levels."""

Entries = dict[str, Any]
Arrays = dict[str, Array]

_ENCODERS = {"number": NumberEncoder, "duration": DurationEncoder}


# Writing ------------------------------------------------------------------------------------------


def record_of(encoder: Encoder, name: str, arrays: Arrays) -> Entries | None:
    """Describe the encoder of a column; its arrays are added by `name` and what they are."""
    if isinstance(encoder, NoEncoder):
        return None
    if isinstance(encoder, CategoryEncoder):
        arrays[f"{name}.counts"] = encoder.counts
        if encoder.statistics is not None:
            arrays[f"{name}.statistics"] = encoder.statistics
        return {
            "type": "category",
            "levels": encoder.levels,
            "infrequent": encoder.infrequent,
            "level_type": encoder.level_type,
            "one_hot": encoder.one_hot,
        }
    if isinstance(encoder, DateEncoder):
        return {
            "type": "date",
            "zone": encoder.zone,
            "cycles": encoder.cycles,
            "numeric": encoder.numeric,
            "seconds": record_of(encoder.seconds, f"{name}.seconds", arrays),
            "parts": {
                part: record_of(each, f"{name}.{part}", arrays)
                for part, each in encoder.parts.items()
            },
        }
    assert isinstance(encoder, NumberEncoder)
    if encoder.knots is not None:
        arrays[f"{name}.knots"] = encoder.knots
    return {
        "type": "duration" if isinstance(encoder, DurationEncoder) else "number",
        "scale": None if encoder.scale is None else list(encoder.scale),
        "flag": encoder.flag,
        "median": encoder.median,
        "markers": list(encoder.markers),
    }


# Reading ------------------------------------------------------------------------------------------


def text_of(what: str, value: object) -> str:
    """Check a text of a file."""
    if type(value) is not str:
        raise TypeError(f"{what} must be text, not {short(value)}")
    return value


def encoder_of(kind: str, record: object, name: str, arrays: Arrays) -> Encoder:
    """Return the encoder of a column of a kind; its arrays are taken out of `arrays`.

    Raises
    ------
    ValueError, TypeError
        For entries and arrays that :func:`record_of` does not write.
    """
    if kind not in KINDS:
        raise ValueError(f"unknown kind of a column, {short(kind)}")
    if kind not in ("number", "duration", "date", "category", "bool"):
        if record is not None:
            raise ValueError(f"a column that is {kind} has no encoder")
        return NoEncoder()
    what = "the encoder of a column"
    expected = "category" if kind == "bool" else kind
    if type(record) is not dict or record.get("type") != expected:
        raise ValueError(f"{what} that is {kind} must be of type {expected!r}: {short(record)}")
    if expected == "category":
        return _category(record, name, arrays)
    if expected == "date":
        return _date(record, name, arrays)
    return _number(record, name, arrays, expected)


def _number(record: object, name: str, arrays: Arrays, kind: str) -> NumberEncoder:
    kinds: dict[str, tuple[type, ...]] = {
        "type": (str,), "scale": (list, type(None)), "flag": (bool,),
        "median": NUMBER_TYPES, "markers": (list,),
    }  # fmt: skip
    about = entries(record, f"the encoder of a {kind}", kinds, {})
    if about["type"] != kind:
        raise ValueError(f"an encoder of type {kind!r} expected, {short(about['type'])} came")
    scale = about["scale"]
    if scale is not None:
        if [type(value) for value in scale] != [float, float, bool]:
            raise TypeError(f"a scale must be two floats and a truth value, not {short(scale)}")
        scale = Scale(_finite("a center", scale[0]), _finite("a factor", scale[1]), scale[2])
    markers = tuple(text_of("a word for a gap", word) for word in about["markers"])
    knots = arrays.pop(f"{name}.knots", None)
    if knots is not None:
        _check_array(f"{name}.knots", knots, 1)
        if not len(knots) or not far_apart(knots).all():
            raise ValueError(f"{name}.knots must rise")
    median = _finite("a median", about["median"])
    return _ENCODERS[kind](scale, about["flag"], knots, median, markers)


def _finite(what: str, value: float) -> float:
    try:
        number = float(value)
    except OverflowError:
        number = math.inf
    if not math.isfinite(number):
        raise ValueError(f"{what} must be finite, not {short(value)}")
    return number


def _check_array(name: str, array: Array, n_dims: int, dtype: str = "float64") -> None:
    """Check number type, dimensions and that all numbers are finite."""
    if array.dtype != np.dtype(dtype) or array.ndim != n_dims:
        raise ValueError(
            f"{name} must be of {dtype} and {n_dims}-dimensional; it is {array.dtype}, of shape "
            f"{array.shape}"
        )
    if not np.isfinite(array).all():
        raise ValueError(f"{name} holds NaN or infinity")


def _date(record: object, name: str, arrays: Arrays) -> DateEncoder:
    kinds: dict[str, tuple[type, ...]] = {
        "zone": (str, type(None)), "cycles": (bool,), "numeric": (bool,),
        "seconds": (dict,), "parts": (dict,),
    }  # fmt: skip
    about = entries(record, "the encoder of a date", kinds, {})
    if about["zone"] is not None:
        zone_of(about["zone"])
    parts = {}
    for part, each in about["parts"].items():
        if part not in PARTS:
            raise ValueError(f"unknown part of a date, {short(part)}")
        parts[part] = _number(each, f"{name}.{part}", arrays, "number")
        if parts[part].flag or not parts[part].outputs:
            raise ValueError(f"the {part} of a date has numbers, and no flag")
    seconds = _number(about["seconds"], f"{name}.seconds", arrays, "number")
    if parts and not seconds.outputs:
        raise ValueError("a date whose seconds are constant has no parts")
    return DateEncoder(seconds, about["zone"], parts, about["cycles"], about["numeric"])


def _category(record: object, name: str, arrays: Arrays) -> CategoryEncoder:
    kinds: dict[str, tuple[type, ...]] = {
        "levels": (list,), "infrequent": (list,), "level_type": (str,), "one_hot": (bool,),
    }  # fmt: skip
    about = entries(record, "the encoder of a category", kinds, {})
    if about["level_type"] not in LEVEL_TYPES:
        raise ValueError(f"unknown type of levels, {short(about['level_type'])}")
    levels = [*about["levels"], *about["infrequent"]]
    for level in levels:
        _check_level(level, about["level_type"])
    if not levels or len(set(levels)) < len(levels):
        raise ValueError("levels must differ from each other, and there must be one at least")
    counts = arrays.pop(f"{name}.counts", None)
    if counts is None:
        raise ValueError(f"the array {name}.counts is missing")
    _check_array(f"{name}.counts", counts, 1, "int64")
    if len(counts) != len(about["levels"]) + 2:
        raise ValueError(f"{name}.counts must have {len(about['levels']) + 2} numbers")
    if counts.min() < 0 or counts.max() > MOST // len(counts) or not counts[:-1].any():
        raise ValueError(f"{name}.counts must be numbers of rows")
    encoder = CategoryEncoder(
        about["levels"], counts, about["level_type"], about["infrequent"], about["one_hot"]
    )
    if encoder.one_hot and encoder.n_levels > MOST_ONE_HOT:
        raise ValueError(f"{encoder.n_levels:,} one-hot columns of {name} are too many")
    statistics = arrays.pop(f"{name}.statistics", None)
    if statistics is not None:
        _check_array(f"{name}.statistics", statistics, 2)
        rows, columns = statistics.shape
        if encoder.one_hot or rows != encoder.n_levels + 1 or not columns:
            raise ValueError(f"{name}.statistics must have a row for each code")
        encoder.statistics = statistics
    return encoder


def _check_level(level: object, kind: str) -> None:
    text = text_of("a level", level)
    right = bool(text.strip())
    if kind == "bool":
        right = text in ("True", "False")
    elif kind == "int":
        right = INTEGER(text) is not None and len(text) <= LONGEST
    elif kind == "float":
        right = NUMBER(text) is not None and len(text) <= LONGEST
    if not right:
        raise ValueError(f"a level of type {kind} cannot be {short(text)}")


# The whole ----------------------------------------------------------------------------------------


class Stored(NamedTuple):
    """What a file tells of an encoder."""

    parameters: Entries
    named: bool
    columns: list[Entries]
    encoders: list[Encoder]


def write(
    parameters: Mapping[str, Any], named: bool, columns: list[Entries], encoders: list[Encoder]
) -> tuple[Entries, Arrays]:
    """Return entries and arrays that :func:`read` reads."""
    arrays: Arrays = {}
    rows = [
        {**column, "encoder": record_of(encoder, str(place), arrays)}
        for place, (column, encoder) in enumerate(zip(columns, encoders, strict=True))
    ]
    record = {"version": VERSION, "named": named, "parameters": dict(parameters), "columns": rows}
    return record, arrays


def read(record: object, arrays: Mapping[str, Array]) -> Stored:
    """Return what a file tells of an encoder, validated.

    Raises
    ------
    ValueError, TypeError
        For entries and arrays that :func:`write` does not write.
    """
    kinds: dict[str, tuple[type, ...]] = {
        "version": (int,), "named": (bool,), "parameters": (dict,), "columns": (list,),
    }  # fmt: skip
    about = entries(record, "the columns", kinds, {})
    if about["version"] != VERSION:
        raise ValueError(f"columns of version {VERSION} expected, {about['version']} came")
    left = dict(arrays)
    columns, encoders = [], []
    of_column: dict[str, tuple[type, ...]] = {
        "name": (str,), "kind": (str,), "use": (str,), "n_levels": (int,), "n_missing": (int,),
        "encoder": (dict, type(None)),
    }  # fmt: skip
    for place, each in enumerate(about["columns"]):
        column = entries(each, "a column", of_column, {})
        if not (0 <= column["n_levels"] <= MOST and 0 <= column["n_missing"] <= MOST):
            raise ValueError("a column must have numbers of levels and of gaps")
        encoders.append(encoder_of(column["kind"], column.pop("encoder"), str(place), left))
        columns.append(column)
    if left:
        raise ValueError(f"unknown arrays: {short(sorted(left))}")
    names = [column["name"] for column in columns]
    if not names or len(set(names)) < len(names):
        raise ValueError("columns must have names, all different")
    return Stored(_parameters(about["parameters"]), about["named"], columns, encoders)


def _parameters(record: object) -> Entries:
    kinds: dict[str, tuple[type, ...]] = {
        "numbers": (str, type(None)), "n_knots": (int, type(None)), "max_one_hot": (int,),
        "max_categories": (int, type(None)), "min_rows": (int,), "date_parts": (str, type(None)),
        "text": (str,), "dtype": (str,),
    }  # fmt: skip
    about = entries(record, "the parameters", kinds, {})
    for name in ("numbers", "date_parts", "text"):
        if about[name] not in CHOICES[name]:
            raise ValueError(f"unknown {name}, {short(about[name])}")
    if about["dtype"] not in ("float32", "float64"):
        raise ValueError(f"dtype must be float32 or float64, not {short(about['dtype'])}")
    return about
