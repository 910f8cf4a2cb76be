"""Tables for the command line: CSV (plain or ``.gz``), ``.npz`` and ``.npy`` files.

What a CSV file means is decided in one place, by the ``csv`` module and Python's ``float``
(:mod:`cmlp.files.csv_file`). pandas, if installed, is a fast path to the same result: files that it
rejects, and every file with quotes, are read again by ``csv``, which accepts them or names the line
and the column of the error. So the two cannot disagree.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np

from cmlp.data.cells import DataError, Task
from cmlp.files.csv_file import csv_notes, largest, read_csv, rounded
from cmlp.files.csv_layout import Selection, layout_of, text_of, without_hint
from cmlp.files.numpy_file import read_numpy


@dataclass(frozen=True)
class Table:
    """Features, and the target if it was requested or has a usual name."""

    path: str
    feature_names: list[str]
    """From the header; "x0", "x1" ... without one."""
    X: np.ndarray
    """Shape (n, d), finite; float64 from CSV, the file's own dtype from .npy and .npz."""
    target_name: str | None
    """None also if the target is a column without a name."""
    y: np.ndarray | None
    """Shape (n,), or (n, outputs) from .npz; int64, uint64 or float64, bool from .npz, or text."""
    named: bool = False
    """Whether `feature_names` are from a header."""
    notes: list[str] = field(default_factory=list)
    """Notes for the user on how the file was read, a line each."""


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
        Whether the first row names the columns. "auto": it does if a name in it is one of those
        above, or if the row differs from those below it: if it has words above numbers, or words
        alone; numbers in quotes, integers or evenly spaced numbers where the rows below have none;
        a word or number above words that repeat while it does not. "NA", "?" and the like are
        missing cells, not words. A note states what was assumed in a close decision.
    delimiter : str, optional
        One character; by default the one of ``, ; tab |`` that a first line such as Excel's
        ``sep=;`` names, or that gives the first 20 rows the same width.
    reader : {"auto", "pandas", "numpy"}
        "auto" takes pandas if it is installed and the file is large enough to repay its import.
        The result is the same.
    part : {"train", "test"}
        Which arrays of an .npz to read if it has both: "X_test" and "y_test" come first for
        "test", last for "train".
    task : {"auto", "classification", "regression"}
        What the target is: labels, which keep their text if a whole number is not written so;
        numbers; or what the cells suggest.
    classes : ndarray, optional
        The labels of a model, which the target's cells are matched to.
    use_target : bool
        Whether to read an .npz's target if `target` is not given.

    Raises
    ------
    DataError
        If the file does not exist, is not readable, or is not a table of finite numbers.
    """
    path = Path(path)
    selection = Selection(target, features, ignore, leave_out, header)
    try:
        if path.is_dir():  # Windows reports "Permission denied"
            raise DataError("expected a file, but this is a directory; name a file in it")
        if path.suffix.lower() in (".npz", ".npy"):
            return _numpy_table(path, selection, part, task, classes, use_target)
        return _csv_table(path, selection, delimiter, reader, task, classes)
    except DataError as error:
        raise DataError(f"{path}: {error}") from error.__cause__
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror or error}") from error


def _numpy_table(
    path: Path,
    selection: Selection,
    part: str,
    task: Task,
    classes: np.ndarray | None,
    use_target: bool,
) -> Table:
    if selection.header != "auto":
        raise DataError("--header and --no-header are for CSV; NumPy's files have no names")
    X, target_name, y = read_numpy(path, selection, part, task, classes, use_target)
    notes = []
    if X.dtype.kind in "iu" and (at := largest(X)):
        notes = [rounded(f"row {at[0]}, column {at[1]} (counted from 0)", X[at])]
    return Table(str(path), _numbered(X), X, target_name or None, y, notes=notes)


def _csv_table(
    path: Path,
    selection: Selection,
    delimiter: str | None,
    reader: str,
    task: Task,
    classes: np.ndarray | None,
) -> Table:
    data, hint = without_hint(text_of(path.read_bytes()))
    layout = layout_of(data, selection, delimiter or hint)
    X, y = read_csv(data, layout, reader, task, classes)
    notes = csv_notes(data, layout, X)
    if not layout.names:
        return Table(str(path), _numbered(X), X, None, y, notes=notes)
    names = [layout.names[i] for i in layout.features]
    target_name = None if y is None else layout.names[layout.target] or None
    return Table(str(path), names, X, target_name, y, named=True, notes=notes)


def _numbered(X: np.ndarray) -> list[str]:
    """Return names for the columns of a table without any."""
    return [f"x{i}" for i in range(X.shape[1])]
