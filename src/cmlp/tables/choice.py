"""Which columns are what, by the parameters of an encoder: categories, numbers, dates, ignored."""

from __future__ import annotations

from typing import Any

import numpy as np

from cmlp.core.checks import check_dtype, check_integer, check_number
from cmlp.data.cells import listed_near
from cmlp.tables.columns import (
    ColumnError,
    Decision,
    Form,
    Levels,
    are_iso_dates,
    decide,
    number_of,
    present_values,
)
from cmlp.tables.containers import Columns
from cmlp.tables.encoders import Options
from cmlp.tables.levels import LevelType, type_of_levels

CHOICES = {
    "numbers": ("robust", "standard", None),
    "date_parts": ("numbers", "cycles", None),
    "text": ("drop", "category", "error"),
    "target_statistics": (None, "classification", "regression"),
}
"""Values of the parameters that have a few."""


MOST_ONE_HOT = 1024
"""Largest number of one-hot columns of a category: the rest of them are zeros."""


def options_of(encoder: Any) -> Options:
    """Return the parameters that matter to a column, validated."""
    for name, values in CHOICES.items():
        value = getattr(encoder, name)
        if value not in values:
            raise ValueError(
                f"{name} must be one of {', '.join(map(repr, values))}; it is {value!r}"
            )
    check_dtype(encoder.dtype)
    check_integer("n_permutations", encoder.n_permutations, 1)
    check_number("prior", encoder.prior, 0)
    n_knots, most = encoder.n_knots, encoder.max_categories
    if encoder.numbers is None and n_knots is None:
        raise ValueError("numbers=None leaves nothing of a number, unless n_knots is given")
    if check_integer("max_one_hot", encoder.max_one_hot, 0) > MOST_ONE_HOT:
        raise ValueError(f"max_one_hot must be at most {MOST_ONE_HOT}; it is {encoder.max_one_hot}")
    return Options(
        encoder.numbers,
        None if n_knots is None else check_integer("n_knots", n_knots, 2),
        int(encoder.max_one_hot),
        None if most is None else check_integer("max_categories", most, 2),
        check_integer("min_rows", encoder.min_rows, 1),
        encoder.date_parts,
    )


def wanted_kinds(encoder: Any, columns: Columns) -> dict[int, str]:
    """Return what the parameters make of some columns, by place."""
    n = len(columns.raw)
    wanted: dict[int, str] = {}
    categories = encoder.categorical_features
    if not (isinstance(categories, str) and categories == "from_dtype"):
        named = () if categories is None else categories
        wanted = dict.fromkeys(range(n), "number if it can be")
        wanted |= dict.fromkeys(_places("categorical_features", named, columns), "category")
    for name, what in (
        ("numeric_features", "number"),
        ("date_features", "date"),
        ("ignored_features", "ignored"),
    ):
        named = getattr(encoder, name)
        if what == "date" and isinstance(named, str) and named == "auto":
            wanted |= {place: "date if it can be" for place in range(n) if place not in wanted}
        else:
            wanted |= dict.fromkeys(_places(name, named, columns), what)
    return wanted


def decided(form: Form, wanted: str | None) -> Decision:
    """Decide what a column is, by the parameters where they name it."""
    by_dtype = decide(form)
    if wanted is None:
        return by_dtype
    if wanted == "category":
        if by_dtype.kind in ("category", "bool"):
            return by_dtype
        level_type: LevelType = "text"
        if isinstance(form, Levels):
            level_type = type_of_levels(present_values(form))
        elif by_dtype.kind == "number":
            level_type = "int" if form[0].dtype.kind in "iu" else "float"
        return Decision("category", "", (), level_type)
    if wanted == "date if it can be":
        if isinstance(form, Levels) and are_iso_dates(present_values(form)):
            return Decision("date", "dates written as text: seconds and parts")
        return by_dtype
    if wanted == "date":
        return Decision("date")
    numeric = Decision("number", "", by_dtype.markers)
    if wanted == "number":
        return by_dtype if by_dtype.kind in ("date", "duration") else numeric
    if isinstance(form, Levels) and by_dtype.kind in ("category", "bool", "text"):
        try:
            values = [number_of(value) for value in present_values(form)]
        except ColumnError:
            return by_dtype
        return numeric if values else by_dtype
    return by_dtype


def _places(parameter: str, named: Any, columns: Columns) -> list[int]:
    """Return the places of columns that a parameter names, or numbers, or marks in a mask."""
    n = len(columns.raw)
    if isinstance(named, (str, bytes, int)):
        raise ValueError(f"{parameter} must be a list of names or places of columns, not {named!r}")
    items = [item.item() if isinstance(item, np.generic) else item for item in named]
    kinds = set(map(type, items))
    if kinds == {bool}:
        if len(items) != n:
            raise ValueError(f"{parameter} is a mask of {len(items)} columns, but X has {n}")
        return [place for place, marked in enumerate(items) if marked]
    if kinds <= {int}:
        wrong = [item for item in items if not -n <= item < n]
        if wrong:
            raise ValueError(f"{parameter} holds {wrong[0]}, but X has {n} columns")
        return [item % n for item in items]
    if kinds != {str}:
        raise ValueError(
            f"{parameter} must hold names, places or a mask of columns, all of one type; it is "
            f"{named!r}"
        )
    if columns.names is None:
        raise ValueError(f"{parameter} holds names, but the columns of X have none: pass places")
    places = {name: place for place, name in enumerate(columns.names)}
    for item in items:
        if item not in places:
            raise ValueError(
                f"{parameter} names {item!r}, but X has no such column: "
                f"{listed_near(item, columns.names)}"
            )
    return [places[item] for item in items]
