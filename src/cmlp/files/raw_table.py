"""Tables of mixed columns for the command: CSV, Parquet, Feather and NumPy's files, as read.

A table has forms (:mod:`cmlp.tables.columns`) that nothing has decided on yet, and the place of
every cell, so that an error about a value names its line.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cmlp.core.layout import Array
from cmlp.data.cells import MISSING, NUMBER, DataError, Task, known_labels, read_target, show
from cmlp.data.frames import listed
from cmlp.files.arrow_file import format_of, read_arrow
from cmlp.files.csv_columns import read_columns
from cmlp.files.csv_file import largest, rounded
from cmlp.files.csv_layout import (
    Layout,
    Selection,
    column_of,
    features_of,
    layout_of,
    text_of,
    without_hint,
)
from cmlp.files.numpy_file import array_target, load_arrays
from cmlp.tables.columns import ColumnError, Form, Levels, Numbers
from cmlp.tables.forms import FormColumn
from cmlp.tables.readers import read_column

AS_TEXT = ("category", "bool", "date")
"""Kinds whose cells are text also where they are numbers."""


@dataclass(frozen=True)
class RawTable:
    """The features of a table, and perhaps its target.

    Attributes
    ----------
    names : list of str or None
        Of the features; None if the file has none.
    forms : list of Form
        The features, which are undecided.
    wanted : dict
        What the user makes of features, by their place.
    y : ndarray or None
        (n,) or (n, outputs).
    place : callable
        From row and feature to words: "line 3, column 'age'".
    """

    path: str
    names: list[str] | None
    forms: list[Form]
    n_rows: int
    target_name: str | None
    y: Array | None
    place: Callable[[int, int], str]
    wanted: dict[int, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    @property
    def labels(self) -> list[str]:
        """Names for the features, also of a file without names."""
        return [f"x{i}" for i in range(len(self.forms))] if self.names is None else self.names

    def error(self, error: ColumnError, names: Sequence[str] = ()) -> DataError:
        """Return the error about a value with its place in the file.

        Parameters
        ----------
        names : sequence of str
            How the error may name the features; by default as this table does.
        """
        labels = names or self.labels
        if error.name in labels and error.row is not None:
            where = self.place(error.row, labels.index(error.name))
            return DataError(f"{self.path}: {where}: {error.what}")
        return DataError(f"{self.path}: {error}")


@dataclass(frozen=True)
class Reading:
    """How a table is read, apart from its columns.

    Attributes
    ----------
    wanted : mapping
        What the user makes of columns, by name or number.
    kinds : mapping, optional
        The kinds of a model's columns by name, in the order in which they are read.
    task, classes, part, use_target
        As in :func:`cmlp.files.table.read_table`.
    """

    wanted: Mapping[str, str] = field(default_factory=dict)
    kinds: Mapping[str, str] = field(default_factory=dict)
    task: Task = "auto"
    classes: Array | None = None
    part: str = "train"
    use_target: bool = True


def read_raw(path: str, selection: Selection, how: Reading) -> RawTable:
    """Read a table of mixed columns.

    Rows without a target are left out, which a note states.

    Raises
    ------
    DataError
        If the file does not exist, or is not a table; the message has the path.
    """
    where = Path(path)
    try:
        if where.is_dir():  # Windows reports "Permission denied"
            raise DataError("expected a file, but this is a directory; name a file in it")
        if where.suffix.lower() in (".npz", ".npy"):
            return _numpy_table(where, selection, how)
        if kind := format_of(where):
            return _arrow_table(where, selection, how, kind)
        return _csv_table(where, selection, how)
    except DataError as error:
        raise DataError(f"{path}: {error}") from error.__cause__
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror or error}") from error


# CSV ----------------------------------------------------------------------------------------------


def _csv_table(path: Path, selection: Selection, how: Reading) -> RawTable:
    data, hint = without_hint(text_of(path.read_bytes()))
    layout = layout_of(data, selection, hint)
    wanted = _wanted(how, layout.features, layout.names, layout.width)
    names = None if layout.names is None else [layout.names[i] for i in layout.features]
    by_name = names is not None and selection.features is not None
    found = read_columns(data, layout, _as_text(how, wanted, layout, names if by_name else None))

    def place(row: int, at: int) -> str:
        return layout.place(next(layout.rows(data, after=row))[0], layout.features[at])

    table = RawTable(
        str(path), names, found.forms, found.n_rows, None, None, place, wanted,
        [*layout.notes, *found.notes],
    )  # fmt: skip
    if layout.target < 0:
        return table
    target_name = (layout.names[layout.target] or None) if layout.names else None

    def place_of_target(row: int) -> str:
        return layout.place(next(layout.rows(data, after=row))[0], layout.target)

    return _with_target(table, target_name, found.target, how, place_of_target)


def _with_target(
    table: RawTable,
    name: str | None,
    cells: Sequence[str],
    how: Reading,
    place: Callable[[int], str],
) -> RawTable:
    """Return a table with the target that is in some cells, without the rows that have none."""
    cells = [cell.strip() for cell in cells]
    gaps = _gaps_in({*cells}, how)
    rows = np.flatnonzero([cell not in gaps for cell in cells])
    table = _with_rows(table, rows, place)
    kept = [cells[row] for row in rows.tolist()] if gaps else cells

    def where(row: int) -> str:
        return place(int(rows[row]))

    y = (
        read_target(kept, where, how.task)
        if how.classes is None
        else known_labels(kept, how.classes, where)
    )
    signs = sorted({cell for cell in kept if MISSING(cell) and not NUMBER(cell)})
    if signs and how.classes is None:
        note = (
            f"the target has the label{'s' * (len(signs) > 1)} {listed(signs, 3, show)}, like any "
            "other; leave such cells empty if they stand for a gap"
        )
        table = replace(table, notes=[*table.notes, note])
    return replace(table, target_name=name, y=y)


def _gaps_in(cells: set[str], how: Reading) -> set[str]:
    """Return the cells that are no target: empty ones, and signs of a gap among numbers."""
    gaps = cells & {""}
    odd = [cell for cell in cells if cell and not NUMBER(cell)]
    if how.classes is None and how.task != "classification" and all(map(MISSING, odd)):
        gaps |= {cell for cell in odd if "inf" not in cell.lower()}
    return gaps


def _with_rows(table: RawTable, rows: NDArray[np.int64], place: Callable[[int], str]) -> RawTable:
    """Return a table with some of its rows, those that have a target."""
    n = table.n_rows - len(rows)
    if not n:
        return table
    if not len(rows):
        raise DataError("the target is missing on every row")
    first = int(np.flatnonzero(~np.isin(np.arange(table.n_rows), rows))[0])
    what = "1 row without a target is" if n == 1 else f"{n:,} rows without a target are"
    forms = [FormColumn(form)[rows].form for form in table.forms]
    return replace(
        table, forms=forms, n_rows=len(rows),
        notes=[*table.notes, f"{what} left out; the first one: {place(first)}"],
        place=lambda row, at: table.place(int(rows[row]), at),
    )  # fmt: skip


def _wanted(
    how: Reading, features: Sequence[int], names: list[str] | None, width: int
) -> dict[int, str]:
    """Return what the user makes of features, by their place among them."""
    found: dict[int, str] = {}
    for name, kind in how.wanted.items():
        column = column_of(name, names, width)
        if column not in features:
            raise DataError(f"the column {show(name)} is the target or left out: it is no {kind}")
        found[features.index(column)] = kind
    return found


def _as_text(
    how: Reading, wanted: Mapping[int, str], layout: Layout, names: list[str] | None
) -> list[int]:
    """Return the columns of a file whose numbers are text; `names` are those of a model."""
    kinds = [*how.kinds.values()] if names is None else [how.kinds[name] for name in names]
    by_place = dict(enumerate(kinds)) | dict(wanted)
    n = len(layout.features)
    return [layout.features[at] for at, kind in by_place.items() if at < n and kind in AS_TEXT]


# Parquet and Feather ------------------------------------------------------------------------------


def _arrow_table(path: Path, selection: Selection, how: Reading, kind: str) -> RawTable:
    if selection.header != "auto":
        raise DataError(f"--header and --no-header are for CSV; {kind} files have names")
    arrow = read_arrow(path, kind)
    if not arrow.num_rows:
        raise DataError("the table has no rows")
    columns = [str(name).strip() for name in arrow.column_names]
    names = ["" if name.startswith("__index_level_") else name for name in columns]
    notes: list[str] = []
    target = -1
    if selection.target is not None:
        target = column_of(selection.target, names, len(names))
    features = features_of(selection, names, len(names), target, notes)
    if not features:
        raise DataError("no feature column is left after the target and those left out")

    def place(row: int, at: int) -> str:
        return f"row {row} (counted from 0), column {show(names[features[at]])}"

    table = RawTable(
        str(path), [names[i] for i in features], [_arrow_form(arrow, i, names) for i in features],
        arrow.num_rows, None, None, place, _wanted(how, features, names, len(names)), notes,
    )  # fmt: skip
    if target < 0:
        return table
    form = _arrow_form(arrow, target, names)
    whole = str(arrow.column(target).type).startswith(("int", "uint"))
    return _with_values(table, names[target] or None, form, how, whole)


def _arrow_form(arrow: Any, column: int, names: Sequence[str]) -> Form:
    try:
        return read_column(names[column], arrow.column(column))
    except ColumnError as error:
        raise DataError(str(error)) from None


def _with_values(
    table: RawTable, name: str | None, form: Form, how: Reading, whole: bool
) -> RawTable:
    """Return a table with a column of Parquet or Feather, perhaps of integers, as its target."""

    def place(row: int) -> str:
        return f"row {row} (counted from 0), column {show(name)}"

    if isinstance(form, Levels):
        kinds = {type(value) for value in form.values}
        if kinds <= {str, type(None)}:
            texts = np.array([*("" if v is None else v for v in form.values), ""], object)
            return _with_target(table, name, texts[form.codes].tolist(), how, place)
        if kinds <= {bool, np.bool_}:
            rows = np.flatnonzero(form.codes >= 0)
            values = np.array([bool(v) for v in form.values])[form.codes[rows]]
            return _with_array(table, name, values, rows, how, place)
    if not isinstance(form, Numbers):
        raise DataError(f"the target {show(name)} holds {type(form).__name__.lower()}; expected "
                        "are labels or numbers")  # fmt: skip
    return _with_numbers(table, name, form.values, how, place, whole)


def _with_numbers(
    table: RawTable,
    name: str | None,
    values: Array,
    how: Reading,
    place: Callable[[int], str],
    whole: bool = False,
) -> RawTable:
    """Return a table with numbers as its target, of which NaN is missing."""
    if values.dtype.kind != "f" or values.ndim != 1:
        return _with_array(table, name, values, np.arange(table.n_rows), how, place)
    rows = np.flatnonzero(~np.isnan(values))
    values = values[rows]
    if whole:  # integers with gaps were read as floats
        values = values.astype(np.int64)
    return _with_array(table, name, values, rows, how, place)


def _with_array(
    table: RawTable,
    name: str | None,
    values: Array,
    rows: NDArray[np.int64],
    how: Reading,
    place: Callable[[int], str],
) -> RawTable:
    table = _with_rows(table, rows, place)
    y = array_target(values, table.n_rows, how.task, how.classes)
    return replace(table, target_name=name, y=y)


# NumPy --------------------------------------------------------------------------------------------


def _numpy_table(path: Path, selection: Selection, how: Reading) -> RawTable:
    if selection.header != "auto":
        raise DataError("--header and --no-header are for CSV; NumPy's files have no names")
    X, name, y = load_arrays(path, selection, how.part, how.use_target)

    def place(row: int, at: int) -> str:
        return f"row {row}, column {at} (counted from 0)"

    notes = []
    if X.dtype.kind in "iu" and (at := largest(X)):
        notes = [rounded(place(*at), X[at])]
    forms: list[Form] = [Numbers(column) for column in X.T]
    wanted = _wanted(how, range(X.shape[1]), None, X.shape[1])
    table = RawTable(str(path), None, forms, len(X), None, None, place, wanted, notes)
    if y is None:
        return table
    if y.dtype.kind == "f" and y.shape == (len(X),):
        return _with_numbers(table, name, y, how, lambda row: f"row {row} (counted from 0)")
    return replace(table, target_name=name, y=array_target(y, len(X), how.task, how.classes))
