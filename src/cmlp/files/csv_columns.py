"""The columns of a CSV file, each for itself: numbers where all its cells are, else text.

Rows are read in blocks, so that only one block is held as Python's strings. A column that turns out
to be text below a first block of numbers is read once more.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Sequence
from itertools import islice
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from cmlp.core.layout import Array
from cmlp.data.cells import INTEGER, MISSING, NUMBER, PADDED
from cmlp.files.csv_arrow import columns_of, numbers_in
from cmlp.files.csv_file import BLOCK, EXACT, rounded, wrong_width
from cmlp.files.csv_layout import Layout
from cmlp.tables.columns import Form, Levels, Numbers

_PADDED_CELL = re.compile(r"(?:^|\n)\s*[+-]?0\d", re.A).search


class CsvColumns(NamedTuple):
    """The columns of a CSV file as they were read."""

    forms: list[Form]
    """Of the features: numbers with NaN for a gap, or text as it was written."""
    target: list[str]
    """Cells of the target; empty without one."""
    n_rows: int
    notes: list[str]


def read_columns(data: bytes, layout: Layout, as_text: Collection[int]) -> CsvColumns:
    """Read the features and the target.

    Parameters
    ----------
    as_text : collection of int
        Columns of the file whose numbers are text, too.

    Raises
    ------
    DataError
        For a line with too many or too few cells.
    """
    body = data.split(b"\n", layout.first_line - 1)[-1]
    strange = b"_" in body or not body.isascii()  # float() takes "1_000" and Arabic digits
    readers: dict[int, _Reader] = {
        i: _Texts() if i in as_text else _Numbers(strange) for i in layout.features
    }
    columns = columns_of(body, layout)
    if columns is None:
        target, n_rows = _read_by_rows(data, layout, readers)
    else:
        target, n_rows = _read_by_columns(columns, layout, readers)
    notes = [
        rounded(layout.place(next(layout.rows(data, after=row))[0], i), cell)
        for i, reader in readers.items()
        if isinstance(reader, _Numbers)
        for row, cell in reader.large
    ]
    return CsvColumns([readers[i].form() for i in layout.features], target, n_rows, notes[:1])


def _read_by_columns(
    columns: list[Any], layout: Layout, readers: dict[int, _Reader]
) -> tuple[list[str], int]:
    """Read columns of Arrow; return the target and the number of rows."""
    for i, reader in readers.items():
        column = columns[i]
        if isinstance(reader, _Numbers):
            values = numbers_in(column)
            if values is not None:
                reader.keep(values, column)
                continue
        cells = column.to_pylist()
        if not reader.add(cells):
            readers[i] = _Texts()
            readers[i].add(cells)
    target = columns[layout.target].to_pylist() if layout.target >= 0 else []
    return target, len(columns[0])


def _read_by_rows(
    data: bytes, layout: Layout, readers: dict[int, _Reader]
) -> tuple[list[str], int]:
    """Read rows of Python's csv; return the target and the number of rows."""
    target: list[str] = []
    late, n_rows = list[int](), 0
    for block in _blocks(data, layout):
        columns = list(zip(*block, strict=True))
        if layout.target >= 0:
            target += columns[layout.target]
        for i in list(readers):
            if readers[i].add(columns[i]):
                continue
            if n_rows:
                late.append(i)
                del readers[i]
            else:
                readers[i] = _Texts()
                readers[i].add(columns[i])
        n_rows += len(block)
    if late:
        texts = {i: _Texts() for i in late}
        for block in _blocks(data, layout):
            for i, reader in texts.items():
                reader.add([row[i] for row in block])
        readers |= texts
    return target, n_rows


def _blocks(data: bytes, layout: Layout) -> Iterator[list[list[str]]]:
    """Yield rows of the width of the first one."""
    rows = layout.rows(data)
    while block := list(islice(rows, BLOCK)):
        for line, row in block:
            if len(row) != layout.width:
                raise wrong_width(layout, line, row)
        yield [row for _, row in block]


class _Numbers:
    """Reads a column whose cells are numbers, or signs of a gap."""

    def __init__(self, strange: bool) -> None:
        self.strange = strange
        self.parts: list[NDArray[np.float64]] = []
        self.n_rows = 0
        self.large: list[tuple[int, str]] = []
        """The first whole number that float64 rounds: its row and its cell."""

    def add(self, cells: Sequence[str]) -> bool:
        """Read some cells, unless one of them is neither."""
        values = self._plain(cells)
        if values is None:
            values = self._with_gaps(cells)
            if values is None:
                return False
        self.keep(values, cells)
        return True

    def keep(self, values: Array, cells: Any) -> None:
        """Add values to those before; the cells are needed for a message."""
        if not self.large and np.nanmax(np.abs(values), initial=0) >= EXACT:
            row = int(np.argmax(np.abs(np.nan_to_num(values)) >= EXACT))
            text = str(cells[row]).strip()
            if INTEGER(text):
                self.large.append((self.n_rows + row, text))
        self.parts.append(values)
        self.n_rows += len(values)

    def _plain(self, cells: Sequence[str]) -> NDArray[np.float64] | None:
        """Return the values of cells that are all finite numbers without zeros in front."""
        try:
            values = np.fromiter(map(float, cells), np.float64, len(cells))
        except ValueError:
            return None
        if not np.isfinite(values).all() or _PADDED_CELL("\n".join(cells)):
            return None
        return values if not self.strange or all(map(NUMBER, cells)) else None

    def _with_gaps(self, cells: Sequence[str]) -> NDArray[np.float64] | None:
        """Return the values of cells that are numbers or signs of a gap."""
        table: dict[str, float] = {}
        for cell in set(cells):
            if NUMBER(cell) and not PADDED(cell.strip()) and np.isfinite(float(cell)):
                table[cell] = float(cell)
            elif MISSING(cell) and "inf" not in cell.lower():
                table[cell] = np.nan
            else:
                return None
        return np.fromiter(map(table.__getitem__, cells), np.float64, len(cells))

    def form(self) -> Form:
        """Return the numbers."""
        return Numbers(np.concatenate(self.parts))


class _Texts:
    """Reads a column as text without blanks around it, each different one once."""

    def __init__(self) -> None:
        self.codes: list[Array] = []
        self.texts: dict[str, int] = {}
        self.of_cell: dict[str, int] = {}

    def add(self, cells: Sequence[str]) -> bool:
        """Read some cells."""
        known, texts = self.of_cell, self.texts
        if not known.keys() >= set(cells):
            for cell in cells:
                if cell not in known:
                    known[cell] = texts.setdefault(cell.strip(), len(texts))
        self.codes.append(np.fromiter(map(known.__getitem__, cells), np.int32, len(cells)))
        return True

    def form(self) -> Form:
        """Return the texts by number."""
        return Levels(np.concatenate(self.codes), list(self.texts))


_Reader = _Numbers | _Texts
