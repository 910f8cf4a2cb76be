"""What the cells of a table mean: numbers, missing values, labels; and advice on all others.

The cells of a target are read here, for every file format: a column of labels keeps its
text, a column of numbers every digit, and numbers with a bad cell among them are not classes.
"""

from __future__ import annotations

import difflib
import re
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from decimal import Decimal
from math import isfinite
from typing import Any, Literal, NoReturn

import numpy as np

from cmlp.data.frames import listed

FEW = 30
"""Largest number of distinct whole numbers that are taken for class labels."""


Task = Literal["auto", "classification", "regression"]
"""What a target is: labels, numbers, or what its cells suggest."""


Place = Callable[[int], str]
"""Returns the place of a row of the target, as in "line 3, column 'y'"."""


# The grammar of float() without its underscores, foreign digits and words ("nan", "infinity").
NUMBER = re.compile(r"\s*[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?\s*", re.I | re.A).fullmatch


INTEGER = re.compile(r"[+-]?\d+", re.A).fullmatch


GAP = (  # as R, pandas, SQL, SAS and Excel write it
    r"\s*([+-]?(nan|inf|infinity)|n/?a|<na>|null|none|\?|\.|-{1,3}"
    r"|#(n/?a|div/0!|value!|ref!|name\?|num!|null!)|)\s*"
)
MISSING = re.compile(GAP, re.I).fullmatch


PADDED = re.compile(r"[+-]?0\d+", re.A).fullmatch


_SEPARATOR = "[ '\u2019\xa0\u2009\u202f]"


_COMMA = re.compile(r"[+-]?\d*,\d+", re.A).fullmatch


_THOUSANDS = re.compile(
    rf"[+-]?\d{{1,3}}((,\d{{2,3}})+(\.\d+)?|(\.\d{{3}})+,\d+|(\.\d{{3}}){{2,}}"
    rf"|({_SEPARATOR}\d{{3}})+([.,]\d+)?)", re.A,
).fullmatch  # fmt: skip


_CURRENCY = "[$\u20ac\xa3\xa5\u20b9]|USD|EUR|GBP|CHF|JPY"


_DRESSED = re.compile(  # a number with a sign of comparison, a currency, a percent or a unit
    rf"(?:\(|[<>=~\u2264\u2265\xb1]+|{_CURRENCY})?\s*(?P<body>[+-]?[\d.,].*?)\s*"
    rf"(?:\)|[%\u2030*]|{_CURRENCY}|(?<=\s)[A-Za-z\xb0\xb5\u03bc/\xb2\xb3]{{1,5}})?", re.A,
).fullmatch  # fmt: skip


_MONTH = "(jan|feb|mar|apr|may|jun|jul|aug|sep|oct|nov|dec)[a-z]*"


DATE = re.compile(
    r"(\d{4}([-/.])\d{1,2}\2\d{1,2}|\d{1,2}([-/.])\d{1,2}\3\d{4}|\d{1,2}([-/.])\d{1,2}\4\d{2}"
    rf"|\d{{1,2}}[-/. ]*{_MONTH}[-/., ]*\d{{2,4}}|{_MONTH}[. ]*\d{{1,2}},? *\d{{4}})"
    r"([T ]\d{1,2}:\d{2}.*)?|\d{1,2}:\d{2}(:\d{2}(\.\d+)?)?", re.A | re.I,
).fullmatch  # fmt: skip


_MISSING_CELL = "which is missing or infinite; fill it in or remove the row"


_SMALL = 10  # rows of a toy table: fewer are accepted whether or not values repeat


class DataError(ValueError):
    """A file cannot be used as data: one line on what was expected, what was found, what to do."""


def show(text: object) -> str:
    """Quote a cell or a name, shortened."""
    text = str(text)
    return repr(text if len(text) <= 40 else text[:37] + "...")


def listed_near(wanted: object, names: Sequence[str]) -> str:
    """List `names`, those most similar to `wanted` first, the tail of a long list left out."""
    wanted = str(wanted).lower()
    near = {name: difflib.SequenceMatcher(None, name.lower(), wanted).ratio() for name in names}
    return listed(sorted(near, key=near.__getitem__, reverse=True), 10, show)


def bare(cell: str) -> str | None:
    """Return the number in a cell such as '$5', '12 %' or '<1,5'; None if there is none."""
    found = _DRESSED(cell.strip().replace("\u2212", "-"))  # the minus of typography
    body = found["body"] if found else ""
    return body if NUMBER(body) or _COMMA(body) or _THOUSANDS(body) else None


def advice(cell: str, otherwise: str) -> str:
    """Return what to do about text where a number is expected."""
    body = bare(cell)
    if body is None:
        return otherwise
    if re.fullmatch(r"[+-]?[1-9]\d{0,2},\d{3}", body):
        plain, point = body.replace(",", ""), body.replace(",", ".")
        return f"write {plain} if the comma separates thousands, {point} if it is a decimal comma"
    if _COMMA(body):
        return "write a decimal point, not a comma"
    if _THOUSANDS(body):
        return "write it without separators of thousands, and with a decimal point"
    return f"write the number alone, as {body}, or remove the row"


# Targets -----------------------------------------------------------------------------------------


def read_target(cells: Sequence[str], place: Place, task: Task = "auto") -> np.ndarray:
    """Return a target's cells as int64, uint64 or float64 if they are numbers, else as text.

    Whole numbers that are labels stay text where a number would not be written in the same way
    ("007", "+1"). "NA" or "none" is missing where the other values are numbers; among words, or if
    `task` is "classification", it is a label. An empty cell is always missing.

    Raises
    ------
    DataError
        If a cell is missing, or text among numbers; if a text target has too many different values
        to be learned, and `task` is "auto".
    """
    cells = [cell.strip() for cell in cells]
    counts = Counter(cells)
    odd = [cell for cell in counts if not NUMBER(cell)]

    def refuse(cell: str, why: str) -> NoReturn:
        raise DataError(f"{place(cells.index(cell))}: the target is {why}")

    if not odd:
        infinite = [cell for cell in counts if not isfinite(float(cell))]
        if infinite:
            refuse(infinite[0], f"{show(infinite[0])}, {_MISSING_CELL}")
        y = _numbers(cells, counts, task)
        if y is not None:
            return y
    elif "" in counts:
        refuse("", f"'', {_MISSING_CELL}")
    elif task == "regression":
        if MISSING(odd[0]):
            refuse(odd[0], f"{show(odd[0])}, {_MISSING_CELL}")
        todo = advice(odd[0], "turn it into a number or remove the row")
        refuse(odd[0], f"text, {show(odd[0])}: regression needs numbers; {todo}")
    elif task == "auto" and all(map(MISSING, odd)):
        more = "--task classification takes it for a label"
        refuse(odd[0], f"{show(odd[0])}, {_MISSING_CELL}; {more}")
    if task == "auto":
        _check_labels(counts, odd, refuse)
    return np.array(cells)


def _numbers(cells: list[str], counts: Counter[str], task: Task) -> np.ndarray | None:
    """Return cells that are numbers as such; None for labels that have to stay text."""
    whole = all(map(INTEGER, counts))
    padded = any(map(PADDED, counts))
    few = len(counts) <= min(FEW, len(cells) // 2)
    labels = task == "classification" or (task == "auto" and (padded or (whole and few)))
    if labels and all(map(_is_whole, counts)):
        exact = {cell: int(Decimal(cell)) for cell in counts}
        plain = all(cell == str(value) for cell, value in exact.items())
        if not plain and (padded or len({*exact.values()}) == len(counts)):
            return None
        return whole_numbers([exact[cell] for cell in cells])
    if whole:
        y = whole_numbers(list(map(int, cells)))
        if y is not None or task != "regression":
            return y
    return np.array(cells, np.float64)


def _is_whole(cell: str) -> bool:
    """Whether a cell is a whole number, as 1.0 and 1e3 are, too."""
    return bool(NUMBER(cell)) and float(cell).is_integer()


def whole_numbers(values: list[int]) -> np.ndarray | None:
    """Return integers as int64, or as uint64 if they are too large; None if neither holds them."""
    with suppress(OverflowError):
        return np.array(values, np.int64)
    if min(values) >= 0:
        with suppress(OverflowError):
            return np.array(values, np.uint64)
    return None


def _check_labels(counts: Counter[str], odd: list[str], refuse: Callable[..., NoReturn]) -> None:
    """Reject a target that is text but does not hold labels that can be learned."""
    n, distinct = counts.total(), len(counts)
    anyway = f"--task classification takes all {distinct} different values for labels"
    bodies = {cell: cell if NUMBER(cell) else bare(cell) for cell in counts}
    numbers = {cell: body for cell, body in bodies.items() if body is not None}
    m = sum(counts[cell] for cell in numbers)
    repeat = 2 * len(numbers) <= m
    if odd and (2 * m > n or (m >= _SMALL and not repeat)):  # numbers, and some other cells
        few = distinct <= min(FEW, n // 2)
        stray = n >= 2 * _SMALL and all(counts[cell] == 1 for cell in odd)
        if not few or not repeat or stray or not all(map(_is_whole, numbers.values())):
            todo = advice(odd[0], "turn it into a number or remove the row")
            refuse(odd[0], f"{show(odd[0])} in a column of numbers; {todo}; {anyway}")
    elif all(map(DATE, counts)):
        refuse(odd[0], f"{show(odd[0])}, a date or a time; turn it into a number; {anyway}")
    elif 2 * distinct > n >= _SMALL:
        once = next(cell for cell in counts if counts[cell] == 1)
        wide = "" if odd else "--task regression takes them for numbers, "
        refuse(
            once,
            f"{show(once)}, one of {distinct} different values on {n} rows, but labels have to "
            f"repeat to be learned; {wide}{anyway}",
        )


def known_labels(values: Sequence[Any], classes: np.ndarray, place: Place) -> np.ndarray:
    """Return a target as a model's labels: those that its cells, or numbers, are equal to.

    A cell is a label if it has the label's text; or, if labels are numbers, if it is an equal
    number: 1.0 for 1. Texts such as "0.0" and "1.0" are compared as numbers, too; but 7 is not 007.
    """
    labels = classes.tolist()
    number = classes.dtype.kind in "iufb"
    written = classes.dtype.kind == "U" and all(NUMBER(v) and not PADDED(v) for v in labels)
    values_of = [Decimal(label) for label in labels] if written else []
    if len({*values_of}) < len(labels):
        values_of = []  # "1" and "1.0" are different labels
    places: dict[Any, int] = {}
    for i, label in enumerate(labels):
        text = label.decode("latin-1") if isinstance(label, bytes) else str(label)
        places[text.strip()] = i
        if number:
            places[label] = i
    places.update({value: i for i, value in enumerate(values_of)})

    def find(value: Any) -> int | None:
        text = value.strip() if isinstance(value, str) else str(value)
        if (at := places.get(text if isinstance(value, str) or not number else value)) is not None:
            return at
        if number and NUMBER(text):  # a Decimal has all digits, and is equal to the same integer
            return places.get(float(text) if classes.dtype.kind == "f" else Decimal(text))
        if values_of and NUMBER(text) and not PADDED(text):
            return places.get(Decimal(text))
        return places.get(text.capitalize()) if classes.dtype.kind == "b" else None

    found: dict[Any, int] = {}
    for value in dict.fromkeys(values):
        if (at := find(value)) is not None:
            found[value] = at
        else:
            where = place(list(values).index(value))
            if isinstance(value, str) and MISSING(value):
                raise DataError(f"{where}: the target is {show(value)}, {_MISSING_CELL}")
            known = listed_near(value, [str(label) for label in labels])
            raise DataError(f"{where}: the label {show(value)} is not one of the model's: {known}")
    return classes[[found[value] for value in values]]
