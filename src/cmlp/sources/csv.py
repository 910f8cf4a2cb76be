"""Sources of CSV files, cut into blocks between lines."""

from __future__ import annotations

import operator
import re
from collections.abc import Sequence
from dataclasses import replace
from itertools import islice
from typing import Any, NamedTuple

import numpy as np

from cmlp.core.layout import Array
from cmlp.data.cells import MISSING, NUMBER, PADDED, DataError, read_target, show
from cmlp.data.source import Block, Source
from cmlp.files.compressed import GZIP, ZSTD
from cmlp.files.csv_columns import read_columns
from cmlp.files.csv_layout import (
    Layout,
    Selection,
    column_of,
    layout_of,
    rows_of,
    text_of,
    without_hint,
)
from cmlp.sources.columns import WITHOUT_TARGET, Missing, check_missing, matrix_of
from cmlp.sources.paths import File, Paths, identity_of, listed_files, open_file
from cmlp.sources.skipping import Skipping
from cmlp.tables.columns import ColumnError, Form, Numbers, as_numbers
from cmlp.tables.forms import FormColumn, FormTable

BLOCK_BYTES, LONGEST_ROW = 1 << 20, 1 << 24
"""Bytes of text of a block, and of a row, at most."""

MOST_OPEN = 64
"""Blocks that are kept after they were read, because not all of their rows were used."""


def csv(
    paths: Paths,
    target: str | int | None = None,
    columns: Sequence[str] | None = None,
    weight: str | int | None = None,
    missing: float | str = "raise",
    *,
    header: bool | str = "auto",
    delimiter: str | None = None,
) -> Source:
    """Return a source of CSV files, in UTF-8.

    Each file is read once when the source is made, to find where its lines begin. Cells are read as
    :class:`cmlp.TabularClassifier` reads them: empty ones and "NA" are missing numbers.

    Parameters
    ----------
    paths : path, pattern or list of them
    target : str or int, optional
        The column of the targets: its name, or its number, counted from 0. Without it the source is
        for predictions alone.
    columns : list of str, optional
        The features, in this order; by default all other columns that have a name.
    weight : str or int, optional
        The column of the sample weights.
    missing : 'raise', 'skip' or float
        What is done where a number is missing, as in :func:`cmlp.data.parquet`.
    header : bool or 'auto'
        Whether the first row names the columns.
    delimiter : str, optional
        One character; by default it is found.

    Returns
    -------
    Source

    Raises
    ------
    DataError
        If a file is missing, is not text or lacks a column, and, when it is read, for a cell that
        is no number; it names file, line and column.
    """
    how = check_missing(missing)
    if isinstance(columns, str):
        raise TypeError(f"columns must be a list of names: [{columns!r}]")
    layout = Reading(target, columns, weight, header, delimiter)
    source = CsvSource([scanned(file, layout) for file in listed_files(paths)], layout, how)
    return Skipping(source) if how == "skip" else source


FIRST = 100
"""Lines that the layout is derived from, at least, where there are so many."""


class Reading(NamedTuple):
    """How a file is read; the arguments of :func:`csv`."""

    target: str | int | None
    columns: Sequence[str] | None
    weight: str | int | None
    header: Any
    delimiter: str | None


class Piece(NamedTuple):
    """Some lines of a file."""

    start: int
    """The first byte."""
    size: int
    line: int
    """The number of the first line, counted from 1."""
    rows: int


class CsvFile(NamedTuple):
    """A file, its layout, and its pieces."""

    file: File
    layout: Layout
    pieces: list[Piece]
    weight: int
    """Column of the weights among the features; -1 without."""


def scanned(file: File, how: Reading) -> CsvFile:
    """Return the layout of a file, and where its pieces are."""
    try:
        with open_file(file.path) as opened:
            return _scanned(file, how, opened)
    except DataError as error:
        raise DataError(f"{file.path}: {error}") from error.__cause__
    except OSError as error:
        raise DataError(f"{file.path}: cannot be read: {error.strerror or error}") from error


def _scanned(file: File, how: Reading, opened: Any) -> CsvFile:
    layout, pieces, left = None, [], b""
    at, line = 0, 1  # of the first byte that is left
    while True:
        chunk = opened.read(BLOCK_BYTES)
        left += chunk
        size = left.rfind(b"\n") + 1 if chunk else len(left)
        if layout is None and chunk and left.count(b"\n") < FIRST and len(left) < LONGEST_ROW:
            continue  # too few rows to see the layout
        if layout is None and size:
            layout = _layout(left[:size], how)
            head = _end_of_line(left, layout.first_line - 1)
            at, line, left, size = head, layout.first_line, left[head:], max(0, size - head)
        rows = 0
        if layout is not None and size:
            try:
                size, rows = _whole_rows(left[:size], layout, is_last=not chunk)
            except DataError as error:
                raise DataError(_moved(error, line, at)) from error.__cause__
        if rows:
            pieces.append(Piece(at, size, line, rows))
        elif len(left) > LONGEST_ROW:
            raise DataError(f"line {line}: more than {len(left):,} bytes are a row; is a "
                            "quoted cell not closed?")  # fmt: skip
        gone, left = left[:size], left[size:]
        at, line = at + size, line + _n_lines(gone)
        if not chunk:
            break
    if layout is None or not pieces:
        raise DataError("there are no rows")
    weight = -1
    if how.weight is not None:
        column = column_of(how.weight, layout.names, layout.width)
        if column not in layout.features:
            raise DataError(f"the weight {show(how.weight)} is the target, or has no name")
        weight = layout.features.index(column)
    return CsvFile(file, layout, pieces, weight)


def _n_lines(raw: bytes) -> int:
    return raw.count(b"\n") + raw.count(b"\r") - raw.count(b"\r\n")


def _end_of_line(raw: bytes, n: int) -> int:
    """Return where the first n lines end."""
    ends = (found.end() for found in re.finditer(rb"\r\n?|\n", raw))
    return next(islice(ends, n - 1, None), len(raw)) if n else 0


def _whole_rows(raw: bytes, layout: Layout, *, is_last: bool) -> tuple[int, int]:
    """Return the size and the number of the whole rows: a quoted cell may not end in these lines.

    Rows are counted as they are read later.
    """
    if b'"' not in raw and layout.width > 1:
        return len(raw), sum(map(bool, map(bytes.strip, raw.replace(b"\r", b"\n").split(b"\n"))))
    n = 0
    try:
        for _ in rows_of(text_of(raw), layout.delimiter):
            n += 1
    except DataError as error:
        found = re.match(r"line (\d+)", str(error))
        if is_last or found is None or "unexpected end" not in str(error.__cause__):
            raise
        return _end_of_line(raw, int(found[1]) - 1), n
    return len(raw), n


def _layout(raw: bytes, how: Reading) -> Layout:
    if raw.startswith((GZIP, ZSTD)):
        raise DataError("is compressed: decompress it, or store the table as Parquet")
    data, hint = without_hint(text_of(raw))
    features = how.columns
    if features is not None and how.weight in features:
        raise DataError(f"the column {show(how.weight)} is a feature and a weight")
    if features is not None and isinstance(how.weight, str):
        features = [*features, how.weight]
    named = [] if how.weight is None else [how.weight]
    selection = Selection(how.target, features, header=how.header, named=named)
    return layout_of(data, selection, how.delimiter or hint)


class CsvSource(Source):
    """Rows of CSV files."""

    reads_dates = True

    def __init__(self, files: list[CsvFile], how: Reading, missing: Missing) -> None:
        self.files, self.how, self.missing = files, how, missing
        self._open: dict[int, tuple[list[Form], Any, Any]] = {}
        first = files[0]
        self.feature_names = _names(first)
        for each in files:
            if _names(each) != self.feature_names:
                other = [name for name in self.feature_names if name not in _names(each)]
                each = self._by_name(each, other)
        self.files = [self._by_name(each, []) for each in files]
        self.pieces = [(number, piece) for number, each in enumerate(files)
                       for piece in each.pieces]  # fmt: skip
        self.blocks = tuple(piece.rows for _, piece in self.pieces)
        self.n_features = len(first.layout.features) - (first.weight >= 0)
        layout = first.layout
        self.has_target = layout.target >= 0
        self.target_name = layout.names[layout.target] if layout.names and self.has_target else None
        self.dtype = np.dtype(np.float64)
        self.scratch = 4 * max(piece.size for _, piece in self.pieces)
        self.texts = self._are_texts([cell.strip() for cell in self._read_cells(0)[1]])

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state, _open={})

    def _by_name(self, each: CsvFile, missing: list[str]) -> CsvFile:
        """Return a file with its columns in the order of the first one's."""
        path, layout = each.file.path, each.layout
        if missing:
            raise DataError(f"{path}: there is no column {show(missing[0])}, as in the first file")
        if not self.feature_names:
            if layout.width != self.files[0].layout.width:
                raise DataError(f"{path}: has {layout.width} columns, the first file "
                                f"{self.files[0].layout.width}")  # fmt: skip
            return each
        features = [c for at, c in enumerate(layout.features) if at != each.weight]
        of_name = dict(zip(_names(each), features, strict=True))
        if len(of_name) < len(features):
            twice = next(name for name in of_name if _names(each).count(name) > 1)
            raise DataError(
                f"{path}: several columns are called {show(twice)}; rename all but one, or choose "
                "others: columns=[...]"
            )
        places = [of_name[name] for name in self.feature_names]
        weight = -1
        if each.weight >= 0:
            places.append(layout.features[each.weight])
            weight = len(places) - 1
        return each._replace(layout=replace(layout, features=places), weight=weight)

    def _read_cells(self, block: int) -> tuple[list[Form], list[str], Any]:
        """Return the columns of a block, the cells of its target, and the weights."""
        number, piece = self.pieces[block]
        each = self.files[number]
        each.file.check()
        try:
            with open_file(each.file.path) as opened:
                opened.seek(piece.start)
                raw = opened.read(piece.size)
            data = text_of(raw)
            layout = replace(each.layout, names=None, first_line=1)
            found = read_columns(data, layout, ())
        except DataError as error:
            raise DataError(f"{each.file.path}: {_moved(error, piece.line, piece.start)}") from None
        except OSError as error:
            path = each.file.path
            raise DataError(f"{path}: cannot be read: {error.strerror or error}") from error
        if found.n_rows != piece.rows:
            raise DataError(f"{each.file.path}: {piece.rows} rows from line {piece.line} on at "
                            f"first, now {found.n_rows}")  # fmt: skip
        forms, weight = list(found.forms), None
        if each.weight >= 0:
            weight = self._numbers(block, forms.pop(each.weight), str(self.how.weight))
        return forms, list(found.target), weight

    def _block(self, block: int) -> tuple[list[Form], Any, Any]:
        """Return the columns, targets and weights of a block, kept until all rows are used."""
        kept = self._open.get(block)
        if kept is None:
            forms, cells, weight = self._read_cells(block)
            y = self._target(block, cells)
            if not self.has_target:
                y = np.empty((self.pieces[block][1].rows, 0))
            kept = self._open[block] = forms, y, weight
            while len(self._open) > MOST_OPEN:
                self._open.pop(next(iter(self._open)))
        return kept

    def _target(self, block: int, cells: list[str]) -> Array:
        cells = [cell.strip() for cell in cells]
        is_gap = operator.not_ if self.texts else MISSING
        if self.keeps_gaps and any(map(is_gap, cells)):
            rows = [row for row, cell in enumerate(cells) if not is_gap(cell)]
            found = np.full(len(cells), None, object)
            if rows:
                found[rows] = self._known(block, [cells[row] for row in rows], rows).tolist()
            return found
        return self._known(block, cells, range(len(cells)))

    def _known(self, block: int, cells: list[str], rows: Sequence[int]) -> Array:
        """Return targets of some rows, none of which may be missing."""

        def place(row: int) -> str:
            return self.place(block, rows[row])

        if self.texts and "" not in cells:
            return np.array(cells)
        odd = {cell for cell in set(cells) if not NUMBER(cell) or PADDED(cell)}
        y = read_target(cells, place, "auto" if odd else "regression")
        if y.dtype.kind == "U":
            row = next(i for i, cell in enumerate(cells) if cell in odd)
            raise DataError(
                f"{place(row)}: the target is {show(cells[row])}, but those of the first rows are "
                "numbers"
            )
        return y

    def _are_texts(self, cells: list[str]) -> bool:
        """Whether a target is labels in words, or numbers that are labels as they are written."""
        if any(not NUMBER(cell) and not MISSING(cell) for cell in set(cells)):
            return True
        rows = [row for row, cell in enumerate(cells) if NUMBER(cell)]
        y = read_target([cells[row] for row in rows], lambda i: self.place(0, rows[i]))
        return y.dtype.kind == "U"

    def _numbers(self, block: int, form: Form, name: str) -> Array:
        try:
            return np.asarray(as_numbers(name, form), np.float64)
        except ColumnError as error:
            where = self.place(block, error.row or 0)
            raise DataError(f"{where}, column {show(name)}: {error.what}") from None

    def read(self, block: int, start: int = 0, stop: int | None = None) -> Block:
        """Return rows of a block."""
        forms = self._block(block)[0]
        names = self.feature_names or [str(i) for i in range(self.n_features)]
        for name, form in zip(names, forms, strict=True):
            if not isinstance(form, Numbers):
                self._numbers(block, form, name)  # an error has its row in the whole block
        found = self.read_table(block, start, stop)
        columns = [
            self._numbers(block, form, name)
            for name, form in zip(names, found.X.forms, strict=True)
        ]
        return found._replace(X=matrix_of(columns, len(found.y), self.dtype, self.missing))

    def read_table(self, block: int, start: int = 0, stop: int | None = None) -> Block:
        """Return rows of a block with X as a table."""
        forms, y, weight = self._block(block)
        n = self.pieces[block][1].rows
        rows = slice(start, n if stop is None else stop)
        if rows.stop >= n:
            self._open.pop(block, None)
        parts = [FormColumn(form)[rows].form for form in forms]
        table = FormTable(self.feature_names or None, parts, len(y[rows]))
        return Block(table, y[rows], None if weight is None else weight[rows])

    def read_targets(self, block: int, start: int = 0, stop: int | None = None) -> Block:
        """Return targets of a block."""
        if not self.has_target:
            raise DataError(f"{self.files[0].file.path}: {WITHOUT_TARGET}")
        return super().read_targets(block, start, stop)

    def place(self, block: int, row: int) -> str:
        """Return the file, and the line of a row."""
        number, piece = self.pieces[block]
        each = self.files[number]
        line = piece.line + row
        try:
            with open_file(each.file.path) as opened:
                opened.seek(piece.start)
                rows = rows_of(text_of(opened.read(piece.size)), each.layout.delimiter)
            for at, (found, _) in enumerate(rows):
                if at == row:
                    line = piece.line + found - 1
                    break
        except (OSError, DataError):  # about an error already
            pass
        return f"{each.file.path}, line {line}"

    def identity(self) -> Any:
        """Return the files and columns."""
        files = [identity_of(each.file) for each in self.files]
        return files, self.how.target, self.how.weight, self.missing

    def close(self) -> None:
        """Forget what was read."""
        self._open.clear()


def _names(each: CsvFile) -> list[str]:
    names, features = each.layout.names, list(each.layout.features)
    if names is None:
        return []
    if each.weight >= 0:
        features.pop(each.weight)
    return [names[column] for column in features]


def _moved(error: DataError, line: int, byte: int) -> str:
    """Return a message about lines from one on, and bytes, as one about the file."""
    moved = re.sub(r"\bline (\d+)", lambda found: f"line {int(found[1]) + line - 1}", str(error))
    return re.sub(r"\bbyte (\d+)", lambda found: f"byte {int(found[1]) + byte}", moved)
