"""The rows of a CSV file as arrays, in blocks: by pandas where it agrees, else by csv."""

from __future__ import annotations

import csv
import warnings
from collections.abc import Callable, Iterator, Sequence
from io import BytesIO
from itertools import chain, islice
from math import isfinite
from typing import Any, NoReturn

import numpy as np

from cmlp.data.cells import (
    INTEGER,
    MISSING,
    NUMBER,
    DataError,
    Task,
    advice,
    known_labels,
    read_target,
    show,
)
from cmlp.files.csv_layout import DELIMITERS, Layout

BLOCK = 4096  # rows held as Python strings, or as a pandas frame, at a time


EXACT = 2**53  # up to here a float64 holds every integer


_PANDAS_PAYS = 4_000_000  # bytes; for fewer, csv takes less time than `import pandas` (0.4 s)


# CSV: from a layout to numbers -------------------------------------------------------------------

_Block = tuple[np.ndarray, list[str]]
"""Some rows: their features, (rows, d), and their targets as text (empty without a target)."""


def read_csv(
    data: bytes, layout: Layout, reader: str, task: Task, classes: np.ndarray | None
) -> tuple[np.ndarray, np.ndarray | None]:
    """Return features and target."""
    blocks = None
    if reader == "pandas" or (reader == "auto" and len(data) >= _PANDAS_PAYS):
        try:
            blocks = _pandas_blocks(data, layout)
        except ImportError as error:
            if reader == "pandas":
                raise DataError(f"no pandas ({error}): pip install cmlp[data]") from error
    if blocks is None:
        blocks = list(_csv_blocks(data, layout))
    X = np.concatenate([X for X, _ in blocks])
    if layout.target < 0:
        return X, None

    def place(row: int) -> str:
        return layout.place(next(layout.rows(data, after=row))[0], layout.target)

    cells = [cell for _, cells in blocks for cell in cells]
    if classes is not None:
        return X, known_labels(cells, classes, place)
    return X, read_target(cells, place, task)


def largest(X: np.ndarray) -> tuple[int, int] | None:
    """Return row and column of a feature so large that float64 rounds whole numbers, or None."""
    low, high = X.min(axis=0), X.max(axis=0)
    columns = np.flatnonzero((high >= EXACT) | (low <= -EXACT))
    if not len(columns):
        return None
    column = int(columns[0])
    values = X[:, column]
    return int(values.argmax() if high[column] >= EXACT else values.argmin()), column


def rounded(place: str, value: object) -> str:
    """Return the note on a whole number that is rounded."""
    return (
        f"{place}: features keep about 16 digits, too few for {show(value)}; leave the column out "
        "if it holds identifiers (--ignore)"
    )


def csv_notes(data: bytes, layout: Layout, X: np.ndarray) -> list[str]:
    """Return notes for the user on how a CSV file was read."""
    if at := largest(X):
        line, row = next(layout.rows(data, after=at[0]))
        column = layout.features[at[1]]
        if INTEGER(cell := row[column].strip()):  # not 1e20, which is a measurement
            return [*layout.notes, rounded(layout.place(line, column), cell)]
    return layout.notes


def _csv_blocks(data: bytes, layout: Layout) -> Iterator[_Block]:
    """Yield the rows of data, read by csv and float()."""
    rows = layout.rows(data)
    strange = b"_" in data or not data.isascii()  # float() takes "1_000" and Arabic digits
    kept = sorted(layout.features)
    dropped = sorted({*range(layout.width)} - {*kept}, reverse=True)
    order = None if kept == layout.features else np.searchsorted(kept, layout.features)
    few = len(kept) < len(dropped)
    done = 0
    while block := [row for _, row in islice(rows, BLOCK)]:
        if any(len(row) != layout.width for row in block):
            _raise_first_error(data, layout, done)
        cells = [row[layout.target] for row in block] if layout.target >= 0 else []
        if few:
            block = [[row[i] for i in kept] for row in block]
        for i in () if few else dropped:  # a copy of the others would touch every cell
            for row in block:
                del row[i]
        words = set(chain.from_iterable(block))
        convert: Callable[[str], float] = float
        try:
            if 4 * len(words) < len(block) * len(layout.features):  # few values (pixels): 3x faster
                convert = dict(zip(words, map(float, words), strict=True)).__getitem__
            X = np.fromiter(map(convert, chain.from_iterable(block)), np.float64)
        except ValueError:
            _raise_first_error(data, layout, done)
        if not np.isfinite(X).all() or (strange and not all(map(NUMBER, words))):
            _raise_first_error(data, layout, done)
        X = X.reshape(len(block), -1)
        yield X if order is None else X[:, order], cells
        done += len(block)


def wrong_width(layout: Layout, line: int, row: Sequence[str]) -> DataError:
    """Return the error of a line with too many cells, or too few."""
    return DataError(
        f"line {line} has {len(row)} cells, but the first row has {layout.width}; "
        f"cells are cut at {show(layout.delimiter)}: correct the line"
    )


def _raise_first_error(data: bytes, layout: Layout, after: int) -> NoReturn:
    """Raise the error of the first bad cell after `after` good rows of data."""

    def numbers_in(row: list[str]) -> bool:
        return any(NUMBER(row[i]) for i in layout.features if i < len(row))

    rows = layout.rows(data, after)
    for line, row in rows:
        if len(row) != layout.width:
            raise wrong_width(layout, line, row)
        for i in layout.features:
            if NUMBER(row[i]) and isfinite(float(row[i])):
                continue
            what = "text"
            todo = advice(row[i], "turn it into numbers or leave the column out (--ignore)")
            if NUMBER(row[i]) or MISSING(row[i]):
                what = "missing or infinite" if row[i].strip() else "an empty cell"
                todo = "fill it in, or remove the row or the column"
            elif layout.guessed and layout.names is None and line == layout.first_line:
                todo += f"; --header if line {line} names the columns"
            if layout.names and not numbers_in(row):
                other = next(rows, None) if line == layout.first_line else None
                if line > layout.first_line or (other and numbers_in(other[1])):
                    todo = "no feature here is a number; remove a line of names, units or totals"
            raise DataError(
                f"{layout.place(line, i)}: {show(row[i])} is {what}, but features must be "
                f"numeric and finite; {todo}"
            )
    raise AssertionError("float() and NUMBER disagree")


def _pandas_blocks(data: bytes, layout: Layout) -> list[_Block] | None:
    """Return what `_csv_blocks` yields, or None if pandas might read the file differently."""
    import pandas as pd  # type: ignore[import-untyped,unused-ignore]

    body = data.split(b"\n", layout.first_line - 1)[-1]
    # Quotes have dialects; pandas reads a column of "true" as 1.0 whatever its dtype, and skips a
    # byte order mark below the header, which concatenated files have.
    risky = (b'"', b"\xef\xbb\xbf", b"true", b"True", b"TRUE", b"false", b"False", b"FALSE")
    if layout.delimiter not in DELIMITERS or any(word in body for word in risky):
        return None
    last = layout.width - 1
    # The last column is read, too: if pandas has padded a row, its cell is empty.
    types: dict[int, type] = {i: str for i in (layout.target, last) if i >= 0}
    types |= dict.fromkeys(layout.features, float)
    options: dict[str, Any] = {"usecols": [*types], "dtype": types, "sep": layout.delimiter}
    if tuple(map(int, pd.__version__.split(".")[:2])) < (
        3,
        1,
    ):  # later ones always do so
        options["float_precision"] = "round_trip"
    blocks: list[_Block] = []
    padded = False
    try:
        with warnings.catch_warnings(action="ignore"):
            for frame in pd.read_csv(
                BytesIO(body), **options, names=range(layout.width), header=None, index_col=False,
                na_filter=False, skipinitialspace=True, quoting=csv.QUOTE_NONE, chunksize=BLOCK,
                skip_blank_lines=last > 0,
            ):  # fmt: skip
                X = np.ascontiguousarray(frame[layout.features].to_numpy(np.float64))
                if not np.isfinite(X).all():
                    return None
                padded = padded or (types[last] is str and "" in set(frame[last]))
                blocks.append((X, frame[layout.target].tolist() if layout.target >= 0 else []))
    except (ValueError, OverflowError):  # ParserError is a ValueError
        return None
    n_rows = sum(len(X) for X, _ in blocks)
    cut = layout.delimiter.encode()
    if padded and not _all_alike(body, cut, last):
        return None
    # pandas may truncate a row with too many cells; the number of delimiters shows it.
    return blocks if body.count(cut) == n_rows * last else None


def _all_alike(body: bytes, cut: bytes, n: int) -> bool:
    """Whether every line that is not blank has n delimiters."""
    counts = ((line.count(cut), line) for line in BytesIO(body))
    return all(count == n or not (count or line.strip()) for count, line in counts)
