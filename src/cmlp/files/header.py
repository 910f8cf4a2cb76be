"""Whether the first row of a table names its columns.

A header differs from every row below it: it has words above numbers, integers above decimals,
quotes above none, names that do not recur. A first row of data is like the others.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise
from math import isclose, log10
from typing import NamedTuple

from cmlp.data.cells import INTEGER, MISSING, NUMBER, bare

_ENOUGH = 3  # words above numbers that decide without a search of the whole file


_SURPRISE = 1.5  # -log10 of a chance: one first row of data in 30 is evenly spaced


_SOME = 4  # rows that show what is usual in a column


class _Rows(NamedTuple):
    """The first row and some of those below it, column by column."""

    first: Sequence[str]
    below: Sequence[Sequence[str]]
    columns: Sequence[Sequence[str]]
    """The cells of `below`, by column."""
    known: list[list[str]]
    """The same without missing cells."""
    numbers: list[int]
    """Columns whose first cell is a number."""
    values: list[float]
    """Those first cells."""

    @classmethod
    def of(cls, first: Sequence[str], below: Sequence[Sequence[str]]) -> _Rows:
        columns = list(zip(*below, strict=True)) if below else [()] * len(first)
        known = [
            [cell for cell in column if NUMBER(cell) or not MISSING(cell)] for column in columns
        ]
        numbers = [i for i, cell in enumerate(first) if NUMBER(cell)]
        return cls(first, below, columns, known, numbers, [float(first[i]) for i in numbers])


def has_header(
    first: Sequence[str],
    below: Sequence[Sequence[str]],
    quoted: bool,
    recurs: Callable[[int], bool],
) -> tuple[bool, bool]:
    """Decide from the cells alone.

    Parameters
    ----------
    first : sequence of str
        The first row, stripped.
    below : sequence of sequences of str
        Some of the other rows, stripped and of the same width; those at the start are consecutive.
    quoted : bool
        Whether the numbers of the first row are quoted, and those below are not.
    recurs : callable
        Whether the first cell of a column occurs in it once more, anywhere in the file.

    Returns
    -------
    header, sure : bool
        Whether it is a header; whether that is beyond doubt.
    """
    rows = _Rows.of(first, below)
    known, numbers = rows.known, rows.numbers
    numeric = [_mostly_numbers(cells) for cells in known]
    words = [i for i, cell in enumerate(first) if _is_word(cell, known[i])]
    above = [i for i in words if numeric[i]]
    text = [i for i in (*words, *numbers) if known[i] and not numeric[i]]
    if len(above) >= _ENOUGH:
        repeated = [i for i in text if first[i] in known[i]]
    else:
        repeated = [i for i in (*above, *text) if first[i] in known[i] or recurs(i)]
    above = [i for i in above if i not in repeated]
    against = len(repeated) + _unlike_names(rows)
    if above:
        return len(above) >= against, not against
    if not numbers:
        return bool(words) and not repeated, True
    if quoted:
        return True, True
    unique = [i for i in text if i not in repeated and 2 * len({*known[i]}) <= len(known[i])]
    if against:
        return False, not unique
    return _numbers_are_names(rows, bool(unique))


def _unlike_names(rows: _Rows) -> int:
    """Count the numbers of the first row that are unlikely names: decimals, and equal ones."""
    decimals = 0 if _step(rows.values) else sum(not INTEGER(rows.first[i]) for i in rows.numbers)
    return decimals + len(rows.values) - len(set(rows.values))


def _numbers_are_names(rows: _Rows, unique: bool) -> tuple[bool, bool]:
    """Decide about a first row with numbers that may be names; return (header, sure).

    `unique` is true if it has a cell that does not occur below, where others are repeated.
    """
    values, below = rows.values, rows.below
    several = len(values) > 2
    ranged = len(values) > 1 and values == list(range(len(rows.first)))
    rising = all(a < b for a, b in pairwise(values)) or all(a > b for a, b in pairwise(values))
    if _has_index(rows, rising):
        return True, True
    other_type = (  # integers above decimals, without exception
        len(below) >= 2 * _SOME
        and all(INTEGER(rows.first[i]) for i in rows.numbers)
        and not any(INTEGER(cell) for i in rows.numbers for cell in rows.known[i])
    )
    unlike = bool(below) and _unlike(
        values, rows.numbers, [rows.known[i] for i in rows.numbers], below
    )
    if unique and (rising or other_type):
        return True, unlike
    likely = ranged or other_type or (several and rising)
    if unlike and likely and ((several and ranged) or not _continues(values, rows.numbers, below)):
        return True, False
    return False, not (unique or unlike or (ranged and below))


def _has_index(rows: _Rows, rising: bool) -> bool:
    """Whether the first column is a data frame's index: row numbers below an empty cell."""
    if rows.first[0] or not rows.below or not all(map(INTEGER, rows.columns[0])):
        return False
    index = rows.columns[0]
    return index[:3] == ("0", "1", "2")[: len(index)] or (rising and len({*index}) == len(index))


def _is_word(cell: str, below: Sequence[str]) -> bool:
    """Whether a cell is text, and its column does not hold cells such as '$5', '1,5' or '12 %'."""
    if NUMBER(cell) or MISSING(cell):
        return False
    return bare(cell) is None or not below or any(bare(other) is None for other in below)


def _mostly_numbers(cells: Sequence[str]) -> bool:
    """Whether a column is one of numbers, with a bad cell in ten at most."""
    return bool(cells) and 10 * sum(not NUMBER(cell) for cell in cells) <= len(cells)


def _step(values: Sequence[float]) -> float:
    """Return the step of three numbers or more that are evenly spaced, else 0."""
    steps = [b - a for a, b in pairwise(values)]
    even = len(steps) > 1 and all(isclose(step, steps[0], rel_tol=1e-6) for step in steps)
    return steps[0] if even else 0.0


def _unlike(
    values: Sequence[float],
    numbers: Sequence[int],
    known: Sequence[Sequence[str]],
    below: Sequence[Sequence[str]],
) -> bool:
    """Whether the numbers of the first row are of another kind than all those below them."""
    rows = [[row[i] for i in numbers if NUMBER(row[i])] for row in below]
    decimals = all(rows) and not any(all(map(INTEGER, row)) for row in rows)
    if decimals and all(value.is_integer() for value in values):
        return True
    step = _step(values)
    alike = sum(_step([float(cell) for cell in row]) == step for row in rows)
    if step and 20 * alike <= len(rows):
        counted = values[0] == 0 and step == 1  # 0, 1, 2 is stronger evidence than 5, 7, 9
        chances = known if counted else known[2:]
        if sum(log10(max(len({*cells}), 1)) for cells in chances) >= _SURPRISE:
            return True
    columns = [[float(cell) for cell in cells if NUMBER(cell)] for cells in known]
    return len(below) >= _SOME and all(
        bool(column) and max(column) - min(column) < max(min(column) - value, value - max(column))
        for value, column in zip(values, columns, strict=True)
    )  # as far from all numbers below as these are from each other


def _continues(
    values: Sequence[float], numbers: Sequence[int], below: Sequence[Sequence[str]]
) -> bool:
    """Whether a column continues evenly from its first cell, as times and row numbers do."""
    for value, i in zip(values, numbers, strict=True):
        following = [row[i] for row in below[:3]]
        counted = len(following) == 3 and all(map(NUMBER, following))
        if counted and _step([value, *map(float, following)]):
            return True
    return False
