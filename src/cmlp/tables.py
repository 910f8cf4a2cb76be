"""Tables for the command line: CSV (plain or ``.gz``), ``.npz`` and ``.npy`` files.

What a CSV file means is decided in one place, by the ``csv`` module and Python's ``float``
(:func:`_csv_blocks`). pandas, where it is installed, is a faster road to the same answer: whatever
it stumbles over (and every file with quotes) is read again by the first road, which either accepts
it or names the line and the column that are wrong. So the two cannot disagree.
"""

from __future__ import annotations

import csv
import difflib
import gzip
import re
import tokenize
import warnings
import zipfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from io import BytesIO, TextIOWrapper
from itertools import chain, islice
from math import isfinite
from pathlib import Path
from typing import Any, Literal, NoReturn

import numpy as np

# The grammar of float() without its underscores, foreign digits and words ("nan", "infinity").
_NUMBER = re.compile(r"\s*[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?\s*", re.I | re.A).fullmatch
_MISSING = re.compile(r"\s*([+-]?(nan|inf|infinity)|n/?a|null|none|\?|)\s*", re.I).fullmatch
_COLUMN = re.compile(r"\s*-?[0-9]{1,9}\s*").fullmatch
_DELIMITERS = ",;\t|"
_BLOCK = 4096  # rows that are Python strings, or a pandas frame, at one time
_SAMPLE = 20  # rows that delimiter and header are guessed from
_PANDAS_PAYS = 4_000_000  # bytes; below, csv is done before `import pandas` is (0.4 s)
_MAGIC = {
    b"PK\x03\x04": "a zip archive (.npz? an Excel workbook?)",
    b"\x93NUMPY": "a .npy file",
    b"\x89HDF": "an HDF5 file",
    b"PAR1": "a Parquet file",
    b"\xff\xfe": "UTF-16 text",
}
# What np.load raises for damaged files: no shorter list covers what flipped bytes bring about.
_DAMAGE = (ValueError, TypeError, KeyError, EOFError, OSError, SyntaxError, OverflowError,
           MemoryError, RuntimeError, tokenize.TokenError, zipfile.BadZipFile,
           zlib.error)  # fmt: skip


class DataError(ValueError):
    """A file cannot be used as data: one line saying what was expected, what came, what to do."""


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
    """Shape (n,), or (n, outputs) from .npz; int64 or float64, or text unless all are numbers."""


def read_table(
    path: str | Path,
    target: str | int | None = None,
    *,
    ignore: Sequence[str] = (),
    leave_out: Sequence[str | int] = (),
    header: Literal["auto"] | bool = "auto",
    delimiter: str | None = None,
    reader: Literal["auto", "pandas", "numpy"] = "auto",
    part: Literal["train", "test"] = "train",
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
    ignore : sequence of str
        Names of columns (.npz: of target arrays) to leave out, if present.
    leave_out : sequence of str or int
        Columns to leave out of a CSV, by name or number: they have to be there.
    header : "auto" or bool
        Whether the first row names the columns. "auto" says yes if the target or an ignored column
        is named in it; if no cell of it is a number, for data have a numeric feature; or if it has
        text above a column whose next cells (20 rows) are all numbers. "NA", "?" and the like are
        missing cells, not text.
    delimiter : str, optional
        One character; by default the one of ``, ; tab |`` that cuts the first 20 rows alike.
    reader : {"auto", "pandas", "numpy"}
        "auto" takes pandas where it is installed and the file is large enough to repay its import.
        The answer is the same.
    part : {"train", "test"}
        Which arrays of an .npz are meant where it has both: "X_test" and "y_test" come first for
        "test", last for "train".

    Raises
    ------
    DataError
        If the file is not there, not readable, or not a table of finite numbers.
    """
    path = Path(path)
    names: list[str] = []
    try:
        if path.is_dir():  # Windows would call it "Permission denied"
            raise DataError("expected a file, but this is a directory; name a file in it")
        if path.suffix.lower() in (".npz", ".npy"):
            X, target_name, y = _read_numpy(path, target, [*ignore, *map(str, leave_out)], part)
        else:
            data = _text(path.read_bytes())
            layout = _layout(data, target, ignore, leave_out, header, delimiter)
            X, y = _read_csv(data, layout, reader)
            all_names = layout.names or []
            names = [all_names[i] for i in layout.features if all_names]
            target_name = all_names[layout.target] if all_names and layout.target >= 0 else None
    except DataError as error:
        raise DataError(f"{path}: {error}") from error.__cause__
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror or error}") from error
    return Table(str(path), names or [f"x{i}" for i in range(X.shape[1])], X, target_name, y)


# CSV: from bytes to a layout ---------------------------------------------------------------------


@dataclass(frozen=True)
class _Layout:
    """Where things are in a CSV file."""

    delimiter: str
    width: int
    names: list[str] | None
    target: int
    """Column of the target; -1 for none."""
    features: list[int]
    first_line: int
    """Line (counted from 1) on which the first row of data starts."""

    def rows(self, data: bytes, after: int = 0) -> Iterator[tuple[int, list[str]]]:
        """Yield line number and cells of the rows of data, from row `after` on."""
        return islice(_rows(data, self.delimiter), after + bool(self.names), None)

    def place(self, line: int, column: int) -> str:
        name = _show(self.names[column]) if self.names else f"{column} (counted from 0)"
        return f"line {line}, column {name}"


def _text(data: bytes) -> bytes:
    """Return UTF-8 without byte order mark, its lines ended by a bare newline."""
    if data.startswith(b"\x1f\x8b"):
        try:
            data = gzip.decompress(data)
        except (OSError, EOFError, zlib.error) as error:
            raise DataError(f"the gzip file is cut off or damaged ({error})") from error
    at = data.find(b"\0")
    try:
        data.isascii() or data.decode()
    except UnicodeDecodeError as error:
        at = error.start if at < 0 else min(at, error.start)
    if at >= 0:
        kind = next((kind for magic, kind in _MAGIC.items() if data.startswith(magic)), "binary")
        raise DataError(
            f"expected CSV text in UTF-8, but byte {at} (0x{data[at]:02x}) is not text: the file "
            f"looks like {kind}; save it as UTF-8 CSV, .npy or .npz"
        )
    data = data.removeprefix(b"\xef\xbb\xbf")
    return data.replace(b"\r\n", b"\n").replace(b"\r", b"\n") if b"\r" in data else data


def _rows(data: bytes, delimiter: str) -> Iterator[tuple[int, list[str]]]:
    """Yield each row that is not blank, with the line that it starts on."""
    lines = TextIOWrapper(BytesIO(data), "utf-8", newline="\n")
    spaced = delimiter != " "  # '1, "a"' is two clean cells, unless blanks are the delimiter
    rows = csv.reader(lines, delimiter=delimiter, skipinitialspace=spaced, strict=True)
    line = 1
    try:
        for row in rows:
            if len(row) > 1 or (row and row[0].strip()):
                yield line, row
            line = rows.line_num + 1
    except csv.Error as error:
        raise DataError(
            f"line {line}: a quoted cell is not closed, or goes on after its closing quote "
            f'({error}); a quote inside a quoted cell is written twice: ""'
        ) from error


def _sniff(data: bytes) -> str:
    """Return the delimiter that cuts most of the first rows alike, and into most numbers."""
    best, scores = ",", (0, 0)
    for delimiter in _DELIMITERS:
        rows: list[list[str]] = []
        with suppress(DataError):  # a quote that only this delimiter misreads
            rows.extend(row for _, row in islice(_rows(data, delimiter), _SAMPLE))
        if rows and len(rows[0]) > 1:
            alike = sum(len(row) == len(rows[0]) for row in rows)
            numbers = sum(_NUMBER(cell) is not None for row in rows for cell in row)
            if (alike, numbers) > scores:
                best, scores = delimiter, (alike, numbers)
    return best


def _has_header(first: list[str], others: list[list[str]], wanted: set[object]) -> bool:
    """Apply the rule of `read_table`'s ``header="auto"``."""
    if wanted & {cell.strip() for cell in first if not _NUMBER(cell)}:
        return True
    text = [i for i, cell in enumerate(first) if not _NUMBER(cell) and not _MISSING(cell)]
    if text and not any(map(_NUMBER, first)):
        return True
    below = ([row[i] for row in others if i < len(row) and not _MISSING(row[i])] for i in text)
    return any(cells and all(map(_NUMBER, cells)) for cells in below)


def _layout(
    data: bytes,
    target: str | int | None,
    ignore: Sequence[str],
    leave_out: Sequence[str | int],
    header: Literal["auto"] | bool,
    delimiter: str | None,
) -> _Layout:
    """Find delimiter, header and columns from the first rows."""
    if delimiter is None:
        delimiter = _sniff(data)
    elif len(delimiter) != 1 or delimiter in '"\r\n':
        raise DataError(f"the delimiter has to be one character, not {_show(delimiter)}")
    sample = list(islice(_rows(data, delimiter), _SAMPLE + 1))
    if not sample:
        raise DataError("the file is empty; expected rows of numbers")
    first = sample[0][1]
    if header == "auto":
        header = _has_header(first, [row for _, row in sample[1:]], {target, *ignore, *leave_out})
    if len(sample) <= header:
        raise DataError("there is only a header; expected rows of numbers below it")
    names = [cell.strip() or f"x{i}" for i, cell in enumerate(first)] if header else None
    column = -1 if target is None else _column(target, names, len(first))
    dropped = {column} | {i for i, name in enumerate(names or []) if name in ignore}
    for name in leave_out:
        if (left_out := _column(name, names, len(first))) == column:
            raise DataError(f"the target {_show(name)} cannot be left out as well")
        dropped.add(left_out)
    features = [i for i in range(len(first)) if i not in dropped]
    if not features:
        raise DataError(
            f"no feature column is left beside target and ignored ones; columns: {len(first)}, "
            f"cut at {_show(delimiter)}"
        )
    return _Layout(delimiter, len(first), names, column, features, sample[header][0])


def _column(target: str | int, names: list[str] | None, width: int) -> int:
    """Return the number of the column called `target`."""
    if names and target in names:
        if (count := names.count(str(target))) > 1:
            raise DataError(
                f"{count} columns are called {_show(target)}; rename all but one, or give the "
                "target's number, counted from 0"
            )
        return names.index(str(target))
    if _COLUMN(str(target)):
        if -width <= int(target) < width:
            return int(target) % width
        raise DataError(f"there is no column {target}: the columns are 0 to {width - 1}")
    known = _listed(target, names) if names else f"no names; give a number, 0 to {width - 1}"
    raise DataError(f"there is no column {_show(target)}; there are {known}")


def _listed(wanted: object, names: Sequence[str]) -> str:
    """List `names`, those like `wanted` first, the tail of a long list left out."""
    wanted = str(wanted).lower()
    near = {name: difflib.SequenceMatcher(None, name.lower(), wanted).ratio() for name in names}
    shown = ", ".join(map(_show, sorted(near, key=near.__getitem__, reverse=True)[:10]))
    return shown + (f" and {len(near) - 10} more" if len(near) > 10 else "")


def _show(text: object) -> str:
    text = str(text)
    return repr(text if len(text) <= 40 else text[:37] + "...")


# CSV: from a layout to numbers -------------------------------------------------------------------

_Block = tuple[np.ndarray, list[str]]
"""Some rows: their features, (rows, d), and their targets as text (empty without a target)."""


def _read_csv(data: bytes, layout: _Layout, reader: str) -> tuple[np.ndarray, np.ndarray | None]:
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
    y, wrong = _as_target([cell for _, cells in blocks for cell in cells])
    if wrong is not None:
        line, row = next(layout.rows(data, after=wrong))
        raise DataError(
            f"{layout.place(line, layout.target)}: the target is {_show(row[layout.target])}, "
            "which is missing or infinite; fill it in or remove the row"
        )
    return X, y


def _csv_blocks(data: bytes, layout: _Layout) -> Iterator[_Block]:
    rows = layout.rows(data)
    strange = b"_" in data or not data.isascii()  # float() takes "1_000" and Arabic digits
    dropped = sorted({*range(layout.width)} - {*layout.features}, reverse=True)
    done = 0
    while block := [row for _, row in islice(rows, _BLOCK)]:
        if any(len(row) != layout.width for row in block):
            _complain(data, layout, done)
        cells = [row[layout.target] for row in block] if layout.target >= 0 else []
        for i in dropped:
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
        if not np.isfinite(X).all() or (strange and not all(map(_NUMBER, words))):
            _complain(data, layout, done)
        yield X.reshape(len(block), -1), cells
        done += len(block)


def _complain(data: bytes, layout: _Layout, after: int) -> NoReturn:
    """Name the first bad cell after so many good rows of data."""
    for line, row in layout.rows(data, after):
        if len(row) != layout.width:
            raise DataError(
                f"line {line} has {len(row)} cells, but the first row has {layout.width}; "
                f"cells are cut at {_show(layout.delimiter)}: mend the line"
            )
        for i in layout.features:
            if _NUMBER(row[i]) and isfinite(float(row[i])):
                continue
            what, todo = "text", "turn it into numbers or remove the column"
            if _NUMBER(row[i]) or _MISSING(row[i]):
                what = "missing or infinite" if row[i].strip() else "an empty cell"
                todo = "fill it in, or remove the row or the column"
            elif re.fullmatch(r"\s*[+-]?[0-9]+,[0-9]+\s*", row[i]):
                todo = "write a decimal point, not a comma"
            raise DataError(
                f"{layout.place(line, i)}: {_show(row[i])} is {what}, but features must be "
                f"numeric and finite; {todo}"
            )
    raise AssertionError("float() and _NUMBER disagree")


def _pandas_blocks(data: bytes, layout: _Layout) -> list[_Block] | None:
    """Return what `_csv_blocks` would yield, or None where pandas cannot be trusted to."""
    import pandas as pd  # type: ignore[import-untyped,unused-ignore]

    body = data.split(b"\n", layout.first_line - 1)[-1]
    # Quotes have dialects; and pandas makes 1.0 of a column of "true", dtype float or not.
    risky = (b'"', b"true", b"True", b"TRUE", b"false", b"False", b"FALSE")
    if layout.delimiter not in _DELIMITERS or any(word in body for word in risky):
        return None
    types = dict.fromkeys(range(layout.width), str) | dict.fromkeys(layout.features, float)
    options: dict[str, Any] = {"names": list(types), "dtype": types, "sep": layout.delimiter}
    if tuple(map(int, pd.__version__.split(".")[:2])) < (3, 1):  # later ones always round right
        options["float_precision"] = "round_trip"
    blocks: list[_Block] = []
    last = layout.width - 1
    try:
        with warnings.catch_warnings(action="ignore"):
            for frame in pd.read_csv(
                BytesIO(body), **options, header=None, index_col=False, na_filter=False,
                skipinitialspace=True, quoting=csv.QUOTE_NONE, chunksize=_BLOCK,
            ):  # fmt: skip
                X = np.ascontiguousarray(frame[layout.features].to_numpy(np.float64))
                if not np.isfinite(X).all() or (types[last] is str and "" in set(frame[last])):
                    return None
                blocks.append((X, frame[layout.target].tolist() if layout.target >= 0 else []))
    except (ValueError, OverflowError):  # ParserError is a ValueError
        return None
    # pandas pads a short row (its last cell is empty: caught above) and may cut a long one.
    n_rows = sum(len(X) for X, _ in blocks)
    return blocks if body.count(layout.delimiter.encode()) == n_rows * last else None


def _as_target(cells: list[str]) -> tuple[np.ndarray, int | None]:
    """Return the targets, and the row of the first that is missing.

    "NA" or "nan" is missing where the other values are numbers; among words it may be a class.
    """
    cells = [cell.strip() for cell in cells]
    others = [i for i, cell in enumerate(cells) if not _NUMBER(cell)]
    if others:
        words = not all(_MISSING(cells[i]) for i in others)
        empty = cells.index("") if "" in cells else None
        return np.array(cells), empty if words else others[0]
    y = np.array(cells, np.float64)
    if not np.isfinite(y).all():
        return y, int(np.argmin(np.isfinite(y)))
    with suppress(ValueError, OverflowError):  # "1.0" and "1e5" are not integers; nor is 2**63
        return np.array([int(cell) for cell in cells], np.int64), None
    return y, None


# NumPy's own files -------------------------------------------------------------------------------

_Arrays = tuple[np.ndarray, str | None, np.ndarray | None]
"""Features, name of the target, target."""


def _read_numpy(path: Path, target: str | int | None, ignore: Sequence[str], part: str) -> _Arrays:
    try:
        with path.open("rb") as file:  # ours: np.load leaves a damaged .npz open
            start = file.read(6)
            file.seek(0)
            if start.startswith(b"PK"):
                X, name, y = _pick(np.load(file, allow_pickle=False), target, ignore, part)
            elif start == b"\x93NUMPY":
                X, name, y = np.load(file, allow_pickle=False), None, None
            else:
                was = f"begins with {start!r}" if start else "is empty"
                raise DataError(f"expected a {path.suffix} file of NumPy, but the file {was}")
    except (DataError, FileNotFoundError, PermissionError):
        raise
    except _DAMAGE as error:
        if "pickle" in str(error):  # NumPy's word for an array of dtype object
            raise DataError("it holds Python objects; save arrays of numbers") from error
        reason = " ".join(str(error).split())
        raise DataError(f"the file is cut off or damaged ({reason}); save it again") from error
    X = _numeric(X, "the features")
    if X.ndim < 2 or 0 in X.shape:
        raise DataError(f"expected features of shape (rows, columns), not {X.shape}; reshape them")
    X = X.reshape(len(X), -1)
    if y is None and target is not None:
        column = _column(target, None, X.shape[1])
        X, y = np.delete(X, column, axis=1), X[:, column]
        if not X.shape[1]:
            raise DataError("no feature column is left beside the target")
        if np.all(np.abs(y) < 2**53) and np.all(y == np.rint(y)):  # X's dtype is not the target's
            y = y.astype(np.int64)
    if not np.isfinite(X).all():
        row, column = np.argwhere(~np.isfinite(X))[0]
        raise DataError(
            f"row {row}, column {column} (counted from 0) of the features is {X[row, column]}, but "
            "features must be finite; fill it in or remove the row"
        )
    return X, name, None if y is None else _array_target(y, len(X))


def _pick(arrays: Any, target: str | int | None, ignore: Sequence[str], part: str) -> _Arrays:
    """Choose features and target from an open .npz file."""
    with arrays:
        names = arrays.files
        usual = ["X", "x", "data", "features", "X_train", "x_train"]
        usual = ["X_test", "x_test", *usual] if part == "test" else [*usual, "X_test", "x_test"]
        x_name = next((name for name in usual if name in names), None)
        if x_name is None:
            raise DataError(f"expected features called 'X'; there are {_listed('X', names)}")
        y_name: str | None = None
        if target is None:
            usual = ["y", "target", "labels"]
            for ending in ("_train", "_test"):
                usual.insert(0 if x_name.endswith(ending) else len(usual), f"y{ending}")
            y_name = next((name for name in usual if name in names and name not in ignore), None)
        elif target in names:
            y_name = str(target)
            twin = y_name.removesuffix("_train") + "_test"  # of a model that learned y_train
            if x_name.endswith("_test") and y_name.endswith("_train") and twin in names:
                y_name = twin
        elif not _COLUMN(str(target)):
            raise DataError(f"there is no {_show(target)}; there are {_listed(target, names)}")
        X, y = arrays[x_name], None if y_name is None else arrays[y_name]
    if isinstance(X, bytes) or isinstance(y, bytes):
        raise DataError("the zip archive does not hold NumPy arrays; save it with numpy.savez")
    return X, y_name, y


def _numeric(array: np.ndarray, what: str) -> np.ndarray:
    """Return the array in this machine's byte order, booleans as 0 and 1."""
    if array.dtype.kind == "b":
        return array.astype(np.uint8)
    if array.dtype.kind not in "iuf":
        raise DataError(f"expected real numbers, but {what} are {array.dtype}; save them as such")
    return array.astype(array.dtype.newbyteorder("="), copy=False)


def _array_target(y: np.ndarray, n_rows: int) -> np.ndarray:
    """Return the target as int64, float64 or text; one column is as good as a vector."""
    if y.ndim not in (1, 2) or len(y) != n_rows or not y.size:
        raise DataError(
            f"the features have {n_rows} rows, but the target's shape is {y.shape}; "
            f"expected ({n_rows},) or ({n_rows}, outputs)"
        )
    y = y[:, 0] if y.shape[1:] == (1,) else y
    if y.dtype.kind in "SU":
        text = np.char.decode(y, "utf-8", "replace") if y.dtype.kind == "S" else y
        values, wrong = _as_target(text.ravel().tolist())
        values = values.reshape(y.shape)
    else:
        values = _numeric(y, "the targets")
        integer = values.dtype.kind in "iu" and np.all(values <= np.iinfo(np.int64).max)
        values = values.astype(np.int64 if integer else np.float64)
        wrong = None if np.isfinite(values).all() else int(np.argmin(np.isfinite(values)))
    if wrong is not None:
        row = wrong * len(y) // y.size
        raise DataError(f"row {row} (counted from 0) of the target is missing or infinite")
    return values
