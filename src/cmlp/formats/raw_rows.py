"""The encoding of raw rows as plain values, for files that leave without cmlp.

Each column of a table that is encoded is its place, its name, and a :data:`Spec`; the outputs of
all of them, in order, are a row of the network's inputs.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from cmlp.formats.chain import ConversionError
from cmlp.tables.dates import PARTS
from cmlp.tables.encode import TableEncoder
from cmlp.tables.encoders import (
    CategoryEncoder,
    DateEncoder,
    DurationEncoder,
    NumberEncoder,
)


@dataclass(frozen=True)
class NumberSpec:
    """A number.

    Attributes
    ----------
    scale : (center, factor, clips), or None
    flag : bool
        Whether an output tells that the number is missing.
    knots : list of float, or None
    gap : float
        The number whose place among the knots a missing one has.
    markers : list of str
        Words that stand for a missing number.
    duration : bool
    """

    scale: tuple[float, float, bool] | None
    flag: bool
    knots: list[float] | None
    gap: float
    markers: list[str]
    duration: bool = False


@dataclass(frozen=True)
class CategorySpec:
    """A category: the outputs of each level, by its text, and those of any other value.

    The type of the levels is 'text', 'int', 'float' or 'bool'.
    """

    levels: list[tuple[str, list[float]]]
    unseen: list[float]
    level_type: str


@dataclass(frozen=True)
class DateSpec:
    """A date.

    Attributes
    ----------
    seconds : NumberSpec
        Of its seconds since 1970.
    zone : str or None
    numeric : bool
        Whether the column has seconds, and not dates.
    parts : list of (place, length of the cycle or None, NumberSpec)
        Parts of the date, by their place among month, day, weekday and hour.
    """

    seconds: NumberSpec
    zone: str | None
    numeric: bool
    parts: list[tuple[int, int | None, NumberSpec]]


Spec = NumberSpec | CategorySpec | DateSpec


class RawColumn(NamedTuple):
    """A column of the table."""

    place: int
    name: str
    spec: Spec


class RawRows(NamedTuple):
    """The rows that a tabular model takes."""

    names: list[str]
    """Of all columns, also of those that are left out."""
    columns: list[RawColumn]


def raw_rows_of(encoder: TableEncoder) -> RawRows:
    """Return how an encoder turns a row into numbers.

    Raises
    ------
    ConversionError
        For a column of a kind without a neutral form.
    """
    row = encoder.row()
    names = [column.name for column in encoder.columns_]
    found = [
        RawColumn(place, name, _spec(name, each))
        for place, (name, each) in enumerate(zip(names, row.encoders, strict=True))
        if each.outputs
    ]
    return RawRows(names, found)


def _spec(name: str, encoder: object) -> Spec:
    if isinstance(encoder, CategoryEncoder):
        rows = encoder.table.tolist()
        levels = [(key, rows[code]) for key, code in encoder.places.items()]
        return CategorySpec(levels, rows[0], encoder.level_type)
    if isinstance(encoder, DateEncoder):
        order = list(PARTS)
        parts = [
            (order.index(part), PARTS[part] if encoder.cycles else None, _number(each))
            for part, each in encoder.parts.items()
        ]
        return DateSpec(_number(encoder.seconds), encoder.zone, encoder.numeric, parts)
    if isinstance(encoder, NumberEncoder):
        return _number(encoder)
    raise ConversionError(f"column {name!r} ({type(encoder).__name__}) cannot leave with the model")


def _number(encoder: NumberEncoder) -> NumberSpec:
    scale = encoder.scale
    return NumberSpec(
        None if scale is None else (float(scale.center), float(scale.factor), bool(scale.clips)),
        bool(encoder.flag),
        None if encoder.knots is None else encoder.knots.tolist(),
        float(encoder.place_of_gap),
        list(encoder.markers),
        isinstance(encoder, DurationEncoder),
    )
