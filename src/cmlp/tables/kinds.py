"""What the columns of a file are, once for all rows: the kinds that a model is trained with.

Cells are stricter than values of a data frame: text that is nearly always a number, or a date, is
refused with the row that is not, instead of becoming a category.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from cmlp.core.layout import Array
from cmlp.data.cells import DATE, FEW, INTEGER, MISSING, NUMBER, PADDED, advice, bare, show
from cmlp.data.frames import listed
from cmlp.data.labels import is_missing
from cmlp.tables.columns import (
    ColumnError,
    Decision,
    Durations,
    Form,
    Levels,
    Moments,
    Numbers,
    as_durations,
    as_levels,
    as_moments,
    as_numbers,
    decide,
)
from cmlp.tables.levels import key_of

UNUSED = ("text", "constant", "empty", "ignored")
"""Kinds of columns that a model does not use."""

MOSTLY = 0.9
"""Part of the rows with a value from which the others are taken for mistakes."""

ISO = re.compile(
    r"\d{4}-\d\d-\d\d([T ]\d\d:\d\d(:\d\d([.,]\d{1,9})?)?\s*(Z|[+-]\d\d:?\d\d)?)?", re.A
).fullmatch

_TRUTH = {"true": True, "false": False}


@dataclass(frozen=True)
class Choice:
    """What a column is, and what becomes of it."""

    name: str
    kind: str
    """One of :data:`cmlp.tables.columns.KINDS`."""
    use: str
    """What is done with it, in words."""
    form: Form
    gaps: tuple[str, ...] = ()
    """Words that stand for gaps among its numbers, in addition to the usual ones."""
    note: str = ""

    @property
    def is_used(self) -> bool:
        """Whether a model learns from it."""
        return self.kind not in UNUSED

    def n_missing(self) -> int:
        """Count the rows without a value."""
        return int(missing_rows(self.form).sum())

    def n_distinct(self) -> int:
        """Count the different values."""
        form = self.form
        if isinstance(form, Levels):
            return len({key for key in _keys_of(form) if key is not None})
        return len(np.unique(form[0][~missing_rows(form)]))


def missing_rows(form: Form) -> NDArray[np.bool_]:
    """Return which rows of a column have no value."""
    if isinstance(form, Levels):
        table = np.array([_is_gap(value) for value in form.values] + [True], bool)
        return table[form.codes]
    if form[0].dtype.kind == "f":
        return np.isnan(form[0])
    return np.zeros(len(form[0]), bool)


def _is_gap(value: Any) -> bool:
    return is_missing(value) or (isinstance(value, str) and not value.strip())


def _keys_of(form: Levels) -> list[str | None]:
    """Return the keys of the levels that occur."""
    counts = np.bincount(form.codes + 1, minlength=len(form.values) + 1)[1:]
    found = zip(form.values, counts.tolist(), strict=True)
    return [key_of(value) for value, count in found if count]


# Deciding -----------------------------------------------------------------------------------------


def choose(name: str, form: Form, wanted: str | None) -> Choice:
    """Decide what a column is.

    Parameters
    ----------
    wanted : "number", "category", "date", "ignored" or None
        What the user makes of it; None: what its values are.

    Raises
    ------
    ColumnError
        For values that are not of this kind; it has the column's name and the row.
    """
    if wanted == "ignored":
        return Choice(name, "ignored", "left out, as requested", form)
    found = _CHOOSE[wanted](name, form)
    if not found.is_used:
        return found
    missing = missing_rows(found.form)
    if missing.all():
        return Choice(name, "empty", "left out: no values", found.form)
    if not missing.any() and _is_constant(found.form):
        return Choice(name, "constant", "left out: one value", found.form)
    return found


def _is_constant(form: Form) -> bool:
    if isinstance(form, Levels):
        return len(set(_keys_of(form))) == 1
    return bool((form[0] == form[0][0]).all())


def _as_number(name: str, form: Form) -> Choice:
    return Choice(name, "number", "scaled", Numbers(as_numbers(name, form)))


def _as_date(name: str, form: Form) -> Choice:
    if isinstance(form, Numbers):
        raise ColumnError("it holds numbers; write dates as 2024-05-31 or 2024-05-31T09:30", name)
    return Choice(name, "date", _DATE_USE, as_moments(name, form))


def _as_category(name: str, form: Form) -> Choice:
    if isinstance(form, Numbers):
        values, codes = np.unique(form.values, return_inverse=True)
        form = Levels(codes.astype(np.int32), values.tolist(), True)
    elif not isinstance(form, Levels):
        form = Levels(*as_levels(name, form), True)
    return Choice(name, "category", "levels", level_values(form))


def _by_values(name: str, form: Form) -> Choice:
    """Decide by the values."""
    if isinstance(form, Numbers):
        return _as_number(name, form)
    if isinstance(form, Moments):
        return Choice(name, "date", _DATE_USE, form)
    if isinstance(form, Durations):
        return Choice(name, "duration", "seconds, scaled", form)
    if form.declared:
        return _as_category(name, form)
    texts = _Texts.of(form)
    if texts is not None and texts.n_rows:
        special = _truth(name, texts) or _iso_dates(name, texts)
        if special is not None:
            return special
        _refuse_badly_written(name, texts)
    return _by_decision(name, form, decide(form), texts)


def _by_decision(name: str, form: Levels, decision: Decision, texts: _Texts | None) -> Choice:
    """Return what the encoder's rules make of text and objects."""
    kind, use, gaps, _ = decision
    if kind == "number":
        words = f"; a gap where it is {listed(gaps, 2, show)}" if gaps else ""
        numbers = Numbers(as_numbers(name, form, gaps))
        return Choice(name, "number", f"scaled{words}", numbers, gaps)
    if kind == "date":
        return Choice(name, "date", _DATE_USE, as_moments(name, form))
    if kind == "duration":
        return Choice(name, "duration", "seconds, scaled", Durations(as_durations(name, form)))
    if texts is not None and texts.n_rows:
        _refuse_numbers_with_text(name, texts)
    note = ""
    if texts is not None and texts.n_rows and all(map(DATE, texts.counts)):
        example = show(next(iter(texts.counts)))
        note = (
            f"{show(name)} holds dates or times such as {example}, which are read as text; write "
            "dates as 2024-05-31 or 2024-05-31T09:30 to use them"
        )
    if kind == "text":
        return Choice(name, "text", f"left out: {use}", form, note=note)
    if kind == "bool":
        return Choice(name, "bool", "levels", form)
    return Choice(name, "category", "levels", level_values(form), note=note)


_DATE_USE = "seconds and parts"

_CHOOSE: dict[str | None, Callable[[str, Form], Choice]] = {
    None: _by_values,
    "number": _as_number,
    "category": _as_category,
    "date": _as_date,
}


def level_values(form: Levels, known: Any = None) -> Levels:
    """Return levels with usual signs of a gap as gaps, and numbers as such if all are numbers.

    Parameters
    ----------
    known : ndarray, optional
        The levels that a model has: its signs of a gap are levels, its type that of the numbers.
    """
    keep = set() if known is None else {key_of(value) for value in known.tolist()}
    values = [
        None if isinstance(value, str) and MISSING(value) and value not in keep else value
        for value in form.values
    ]
    texts = [value for value in values if isinstance(value, str)]
    numeric = known is None or known.dtype.kind in "iuf"
    if known is not None and known.dtype.kind == "b":
        values = [_TRUTH.get(v.lower(), v) if isinstance(v, str) else v for v in values]
    elif numeric and (known is not None or all(map(_is_plain, texts))):
        values = [_number(v) if isinstance(v, str) and _is_plain(v) else v for v in values]
    return Levels(form.codes, values, True)


def _is_plain(text: str) -> bool:
    return bool(NUMBER(text)) and not PADDED(text.strip())


def _number(text: str) -> int | float:
    return int(text) if INTEGER(text.strip()) else float(text)


# Text ---------------------------------------------------------------------------------------------


class _Texts(NamedTuple):
    """The texts of a column that has nothing else, without signs of a gap."""

    form: Levels
    counts: dict[str, int]
    n_rows: int

    @classmethod
    def of(cls, form: Levels) -> _Texts | None:
        """Count the texts; return None if there are other objects."""
        counts = np.bincount(form.codes + 1, minlength=len(form.values) + 1)[1:].tolist()
        present = {v: n for v, n in zip(form.values, counts, strict=True) if n and not _is_gap(v)}
        if not all(isinstance(value, str) for value in present):
            return None
        words = {text: n for text, n in present.items() if not MISSING(text)}
        return cls(form, words, sum(words.values()))

    def share(self, fits: Callable[[str], Any]) -> float:
        """Return the part of the rows whose text fits."""
        return sum(n for text, n in self.counts.items() if fits(text)) / self.n_rows

    def refuse(self, name: str, fits: Callable[[str], Any], what: str, todo: str = "") -> None:
        """Raise the error of the first row whose text does not fit."""
        unfit = [text for text in self.counts if not fits(text)]
        if not unfit:
            return
        table = np.array([value in unfit for value in self.form.values] + [False], bool)
        row = int(np.argmax(table[self.form.codes]))
        text = self.form.values[int(self.form.codes[row])]
        todo = todo or advice(text, "correct it, or leave it empty where it is missing")
        raise ColumnError(
            f"{show(text)} in a column of {what}; {todo}; --categories takes the column for text",
            name,
            row,
        )


def _truth(name: str, texts: _Texts) -> Choice | None:
    """Return a column of "true" and "false", in letters of any size."""
    if not all(text.lower() in _TRUTH for text in texts.counts):
        return None
    values = [_TRUTH.get(v.lower()) if isinstance(v, str) else None for v in texts.form.values]
    return Choice(name, "bool", "levels", Levels(texts.form.codes, values))


def _iso_dates(name: str, texts: _Texts) -> Choice | None:
    """Return a column of dates in ISO's form."""
    if texts.share(ISO) < MOSTLY:
        return None
    texts.refuse(name, ISO, "dates", "write it as the others, or leave it empty")
    return Choice(name, "date", _DATE_USE, as_moments(name, texts.form))


def _refuse_badly_written(name: str, texts: _Texts) -> None:
    """Refuse numbers that have a decimal comma, a currency or a unit."""
    dressed = [text for text in texts.counts if not NUMBER(text) and bare(text) is not None]
    numbers = [text for text in texts.counts if NUMBER(text)]
    if not dressed or any(PADDED(text) for text in numbers):
        return
    plain = {*dressed, *numbers}
    if len(plain) > FEW and texts.share(plain.__contains__) >= MOSTLY:
        texts.refuse(name, lambda text: text not in dressed, "numbers")


def _refuse_numbers_with_text(name: str, texts: _Texts) -> None:
    """Refuse words in a column that is numbers on nearly all rows, unless they are few."""
    numbers = [text for text in texts.counts if NUMBER(text)]
    if len(numbers) <= FEW or any(PADDED(text) for text in numbers):
        return
    if texts.share(NUMBER) >= MOSTLY:
        texts.refuse(name, NUMBER, "numbers")


def unseen(form: Levels, known: Array) -> dict[str, int]:
    """Return the levels of a column that a model does not have, with the rows they are on."""
    keys = {key_of(value) for value in known.tolist()}
    counts = np.bincount(form.codes + 1, minlength=len(form.values) + 1)[1:].tolist()
    found = {}
    for value, count in zip(form.values, counts, strict=True):
        key = key_of(value)
        if count and key is not None and key not in keys:
            found[key] = count
    return found
