"""Tables for the command line: CSV (plain or ``.gz``), ``.npz`` and ``.npy`` files.

What a CSV file means is decided in one place, by the ``csv`` module and Python's ``float``
(:func:`_csv_blocks`). pandas, where it is installed, is a faster road to the same answer: whatever
it stumbles over (and every file with quotes) is read again by the first road, which either accepts
it or names the line and the column that are wrong. So the two cannot disagree.
"""

from __future__ import annotations

import csv
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from io import BytesIO
from itertools import chain, islice
from math import isfinite
from pathlib import Path
from typing import Any, Literal, NoReturn

import numpy as np

from ._cells import INTEGER, MISSING, NUMBER, Task, advice, known_labels, read_target, show
from ._cells import DataError as DataError
from ._csv_layout import DELIMITERS, Layout, Wanted, layout_of, text_of, without_hint
from ._numpy_files import read_numpy

_BLOCK = 4096  # rows that are Python strings, or a pandas frame, at one time
_EXACT = 2**53  # up to here a float64 holds every integer
_PANDAS_PAYS = 4_000_000  # bytes; below, csv is done before `import pandas` is (0.4 s)


@dataclass(frozen=True)
class Table:
    """Features, and the target if one was asked for or is there by its usual name."""

    path: str
    feature_names: list[str]
    """From the header; "x0", "x1" ... where there is none."""
    X: np.ndarray
    """Shape (n, d), finite; float64 from CSV, the file's own dtype from .npy and .npz."""
    target_name: str | None
    """None too where the target is a column without a name."""
    y: np.ndarray | None
    """Shape (n,), or (n, outputs) from .npz; int64, uint64 or float64, bool from .npz, or text."""
    named: bool = False
    """Whether `feature_names` are from a header."""
    notes: list[str] = field(default_factory=list)
    """What the user should know of how the file was read, a line each."""


def read_table(
    path: str | Path,
    target: str | int | None = None,
    *,
    features: Sequence[str] | None = None,
    ignore: Sequence[str] = (),
    leave_out: Sequence[str | int] = (),
    header: Literal["auto"] | bool = "auto",
    delimiter: str | None = None,
    reader: Literal["auto", "pandas", "numpy"] = "auto",
    part: Literal["train", "test"] = "train",
    task: Task = "auto",
    classes: np.ndarray | None = None,
    use_target: bool = True,
) -> Table:
    """Read a table of numeric features, with or without a target.

    Parameters
    ----------
    path : str or Path
        ``.npz`` and ``.npy`` are NumPy's; everything else has to be CSV in UTF-8, perhaps gzipped.
    target : str or int, optional
        Name of the target; or its column, counted from 0 (from the end if negative), also as text
        if no column has that name. In an .npz: the name of an array, or a column of X; by default
        "y", "target" or "labels" where present ("y_train" where the features are "X_train").
    features : sequence of str, optional
        Names of the columns to read, in this order, where the table has a header: other columns
        may hold anything. By default, and without a header, all columns are read but the target,
        those to leave out, and those without a name.
    ignore : sequence of str
        Names of columns (.npz: of target arrays) to leave out, if present.
    leave_out : sequence of str or int
        Columns to leave out, by name or number (.npz, .npy: of X): they have to be there.
    header : "auto" or bool
        Whether the first row names the columns. "auto" says yes if a name in it is one of those
        above; else if the row is unlike those below it: if it has words above numbers, or words
        alone; numbers in quotes, integers or evenly spaced numbers where the rows below have none;
        a word or number above words that repeat while it does not. "NA", "?" and the like are
        missing cells, not words. The notes say what was assumed where it is a close decision.
    delimiter : str, optional
        One character; by default the one of ``, ; tab |`` that a first line such as ``sep=;`` of
        Excel names, or that cuts the first 20 rows alike.
    reader : {"auto", "pandas", "numpy"}
        "auto" takes pandas where it is installed and the file is large enough to repay its import.
        The answer is the same.
    part : {"train", "test"}
        Which arrays of an .npz are meant where it has both: "X_test" and "y_test" come first for
        "test", last for "train".
    task : {"auto", "classification", "regression"}
        What a target is read for: labels, which keep their text if it is not how a whole number is
        written; numbers; or what the cells suggest.
    classes : ndarray, optional
        The labels of a model: the target is read as these.
    use_target : bool
        Whether an .npz's target is read where no target is given.

    Raises
    ------
    DataError
        If the file is not there, not readable, or not a table of finite numbers.
    """
    path = Path(path)
    wanted = Wanted(target, features, ignore, leave_out, header)
    names: list[str] = []
    notes: list[str] = []
    try:
        if path.is_dir():  # Windows would call it "Permission denied"
            raise DataError("expected a file, but this is a directory; name a file in it")
        if path.suffix.lower() in (".npz", ".npy"):
            if header != "auto":
                raise DataError("--header and --no-header are for CSV; NumPy's files have no names")
            X, target_name, y = read_numpy(path, wanted, part, task, classes, use_target)
            if X.dtype.kind in "iu" and (at := _largest(X)):
                notes = [_rounded(f"row {at[0]}, column {at[1]} (counted from 0)", X[at])]
        else:
            data, hint = without_hint(text_of(path.read_bytes()))
            layout = layout_of(data, wanted, delimiter or hint)
            X, y = _read_csv(data, layout, reader, task, classes)
            all_names, notes = layout.names or [], _csv_notes(data, layout, X)
            names = [all_names[i] for i in layout.features if all_names]
            target_name = all_names[layout.target] if y is not None and all_names else None
    except DataError as error:
        raise DataError(f"{path}: {error}") from error.__cause__
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror or error}") from error
    shown = names or [f"x{i}" for i in range(X.shape[1])]
    return Table(str(path), shown, X, target_name or None, y, bool(names), notes)


# CSV: from a layout to numbers -------------------------------------------------------------------

_Block = tuple[np.ndarray, list[str]]
"""Some rows: their features, (rows, d), and their targets as text (empty without a target)."""


def _read_csv(
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


def _largest(X: np.ndarray) -> tuple[int, int] | None:
    """Return where a feature is so large that a float64 rounds whole numbers; None if nowhere."""
    low, high = X.min(axis=0), X.max(axis=0)
    columns = np.flatnonzero((high >= _EXACT) | (low <= -_EXACT))
    if not len(columns):
        return None
    column = int(columns[0])
    values = X[:, column]
    return int(values.argmax() if high[column] >= _EXACT else values.argmin()), column


def _rounded(place: str, value: object) -> str:
    return (
        f"{place}: features keep about 16 digits, too few for {show(value)}; leave the column out "
        "if it holds identifiers (--ignore)"
    )


def _csv_notes(data: bytes, layout: Layout, X: np.ndarray) -> list[str]:
    """Return what the user should know of a CSV file."""
    if at := _largest(X):
        line, row = next(layout.rows(data, after=at[0]))
        column = layout.features[at[1]]
        if INTEGER(cell := row[column].strip()):  # not 1e20, which is a measurement
            return [*layout.notes, _rounded(layout.place(line, column), cell)]
    return layout.notes


def _csv_blocks(data: bytes, layout: Layout) -> Iterator[_Block]:
    rows = layout.rows(data)
    strange = b"_" in data or not data.isascii()  # float() takes "1_000" and Arabic digits
    kept = sorted(layout.features)
    dropped = sorted({*range(layout.width)} - {*kept}, reverse=True)
    order = None if kept == layout.features else np.searchsorted(kept, layout.features)
    few = len(kept) < len(dropped)
    done = 0
    while block := [row for _, row in islice(rows, _BLOCK)]:
        if any(len(row) != layout.width for row in block):
            _complain(data, layout, done)
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
            _complain(data, layout, done)
        if not np.isfinite(X).all() or (strange and not all(map(NUMBER, words))):
            _complain(data, layout, done)
        X = X.reshape(len(block), -1)
        yield X if order is None else X[:, order], cells
        done += len(block)


def _complain(data: bytes, layout: Layout, after: int) -> NoReturn:
    """Name the first bad cell after so many good rows of data."""

    def numbers_in(row: list[str]) -> bool:
        return any(NUMBER(row[i]) for i in layout.features if i < len(row))

    rows = layout.rows(data, after)
    for line, row in rows:
        if len(row) != layout.width:
            raise DataError(
                f"line {line} has {len(row)} cells, but the first row has {layout.width}; "
                f"cells are cut at {show(layout.delimiter)}: mend the line"
            )
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
    """Return what `_csv_blocks` would yield, or None where pandas cannot be trusted to."""
    import pandas as pd  # type: ignore[import-untyped,unused-ignore]

    body = data.split(b"\n", layout.first_line - 1)[-1]
    # Quotes have dialects; pandas makes 1.0 of a column of "true", dtype float or not, and passes
    # over a byte order mark below the header, as files that were put together have it.
    risky = (b'"', b"\xef\xbb\xbf", b"true", b"True", b"TRUE", b"false", b"False", b"FALSE")
    if layout.delimiter not in DELIMITERS or any(word in body for word in risky):
        return None
    last = layout.width - 1
    # The last column is read, too: where pandas has padded a row, its cell is empty.
    types: dict[int, type] = {i: str for i in (layout.target, last) if i >= 0}
    types |= dict.fromkeys(layout.features, float)
    options: dict[str, Any] = {"usecols": [*types], "dtype": types, "sep": layout.delimiter}
    if tuple(map(int, pd.__version__.split(".")[:2])) < (3, 1):  # later ones always round right
        options["float_precision"] = "round_trip"
    blocks: list[_Block] = []
    padded = False
    try:
        with warnings.catch_warnings(action="ignore"):
            for frame in pd.read_csv(
                BytesIO(body), **options, names=range(layout.width), header=None, index_col=False,
                na_filter=False, skipinitialspace=True, quoting=csv.QUOTE_NONE, chunksize=_BLOCK,
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
    # pandas may cut a long row, which has a delimiter too many.
    return blocks if body.count(cut) == n_rows * last else None


def _all_alike(body: bytes, cut: bytes, wanted: int) -> bool:
    """Whether every line that is not blank has so many delimiters."""
    counts = ((line.count(cut), line) for line in BytesIO(body))
    return all(count == wanted or not (count or line.strip()) for count, line in counts)
