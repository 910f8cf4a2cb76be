"""NumPy's own files as tables: ``.npz`` with arrays by their usual names, ``.npy`` with one."""

from __future__ import annotations

import tokenize
import zipfile
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from cmlp.data.cells import DataError, Task, known_labels, listed_near, read_target, show
from cmlp.files.csv_layout import Selection, column_of, is_number

# Exceptions of np.load for damaged files: flipped bytes were seen to raise each of them.
_DAMAGE = (ValueError, TypeError, KeyError, EOFError, OSError, SyntaxError, OverflowError,
           MemoryError, RuntimeError, tokenize.TokenError, zipfile.BadZipFile,
           zlib.error)  # fmt: skip


_Arrays = tuple[np.ndarray, str | None, np.ndarray | None]
"""Features, name of the target, target."""


def read_numpy(
    path: Path,
    selection: Selection,
    part: str,
    task: Task,
    classes: np.ndarray | None,
    use_target: bool,
) -> _Arrays:
    """Read features and target; see :func:`cmlp.files.table.read_table`."""
    X, name, y = load_arrays(path, selection, part, use_target)
    if not np.isfinite(X).all():
        row, column = np.argwhere(~np.isfinite(X))[0]
        raise DataError(
            f"row {row}, column {column} (counted from 0) of the features is {X[row, column]}, but "
            "features must be finite; fill it in or remove the row"
        )
    return X, name, None if y is None else array_target(y, len(X), task, classes)


def load_arrays(path: Path, selection: Selection, part: str, use_target: bool) -> _Arrays:
    """Read features, (n, d), which may have gaps, and a target as it is."""
    X, name, y = _load(path, selection, part, use_target)
    X = _numeric(X, "the features")
    if X.ndim < 2 or 0 in X.shape:
        raise DataError(f"expected features of shape (rows, columns), not {X.shape}; reshape them")
    X = X.reshape(len(X), -1)
    width = X.shape[1]
    left_out = [column_of(name, None, width) for name in selection.leave_out if is_number(name)]
    if y is None and selection.target is not None:
        column = column_of(selection.target, None, width)
        if column in left_out:
            raise DataError(f"the target {show(selection.target)} cannot be left out as well")
        left_out.append(column)
        y = X[:, column]
        if np.all(np.abs(y) < 2**53) and np.all(y == np.rint(y)):  # integers, whatever X's dtype
            y = y.astype(np.int64)
    if left_out:
        X = np.delete(X, left_out, axis=1)
        if not X.shape[1]:
            raise DataError("no feature column is left after the target and those left out")
    return X, name, y


def _load(path: Path, selection: Selection, part: str, use_target: bool) -> _Arrays:
    """Load the arrays as they are; the target is None unless it is an array of its own."""
    try:
        with path.open("rb") as file:  # opened here: np.load leaves a damaged .npz open
            start = file.read(6)
            file.seek(0)
            if start.startswith(b"PK"):
                return _pick(np.load(file, allow_pickle=False), selection, part, use_target)
            if start == b"\x93NUMPY":
                X = np.load(file, allow_pickle=False)
                _named_columns(selection.leave_out, [])
                return X, None, None
            was = f"begins with {start!r}" if start else "is empty"
            raise DataError(f"expected a {path.suffix} file of NumPy, but the file {was}")
    except (DataError, FileNotFoundError, PermissionError):
        raise
    except _DAMAGE as error:
        if "pickle" in str(error):  # in NumPy's message about an array of dtype object
            raise DataError("it holds Python objects; save arrays of numbers") from error
        reason = " ".join(str(error).split())
        raise DataError(f"the file is cut off or damaged ({reason}); save it again") from error


def _pick(arrays: Any, selection: Selection, part: str, use_target: bool) -> _Arrays:
    """Select features and target from an open .npz file."""
    target, names = selection.target, arrays.files
    _named_columns(selection.leave_out, names)
    ignore = {*selection.ignore, *map(str, selection.leave_out)}
    with arrays:
        usual = ["X", "x", "data", "features", "X_train", "x_train"]
        usual = ["X_test", "x_test", *usual] if part == "test" else [*usual, "X_test", "x_test"]
        x_name = next((name for name in usual if name in names), None)
        if x_name is None:
            raise DataError(f"expected features called 'X'; there are {listed_near('X', names)}")
        y_name: str | None = None
        if not use_target:
            pass
        elif target is None:
            usual = ["y", "target", "labels"]
            for ending in ("_train", "_test"):
                usual.insert(0 if x_name.endswith(ending) else len(usual), f"y{ending}")
            y_name = next((name for name in usual if name in names and name not in ignore), None)
        elif target in names:
            y_name = str(target)
            twin = y_name.removesuffix("_train") + "_test"  # the model was trained on y_train
            if x_name.endswith("_test") and y_name.endswith("_train") and twin in names:
                y_name = twin
        elif not is_number(target):
            raise DataError(f"there is no {show(target)}; there are {listed_near(target, names)}")
        X, y = arrays[x_name], None if y_name is None else arrays[y_name]
    if isinstance(X, bytes) or isinstance(y, bytes):
        raise DataError("the zip archive does not hold NumPy arrays; save it with numpy.savez")
    return X, y_name, y


def _named_columns(columns: Sequence[str | int], names: Sequence[str]) -> None:
    """Reject names to leave out that no array has; numbers are columns of X."""
    for name in columns:
        if not is_number(name) and name not in names:
            there = f"; there are {listed_near(name, names)}" if names else ", nor any other name"
            raise DataError(f"there is no {show(name)} to leave out{there}")


def _numeric(array: np.ndarray, what: str) -> np.ndarray:
    """Return the array in this machine's byte order, booleans as 0 and 1."""
    if array.dtype.kind == "b":
        return array.astype(np.uint8)
    if array.dtype.kind not in "iuf":
        raise DataError(f"expected real numbers, but {what} are {array.dtype}; save them as such")
    return array.astype(array.dtype.newbyteorder("="), copy=False)


def array_target(y: np.ndarray, n_rows: int, task: Task, classes: np.ndarray | None) -> np.ndarray:
    """Return the target as numbers or text, a single column as a vector."""
    if y.ndim not in (1, 2) or len(y) != n_rows or not y.size:
        raise DataError(
            f"the features have {n_rows} rows, but the target's shape is {y.shape}; "
            f"expected ({n_rows},) or ({n_rows}, outputs)"
        )
    y = y[:, 0] if y.shape[1:] == (1,) else y

    def place(i: int) -> str:
        return f"row {i * len(y) // y.size} (counted from 0)"

    if y.dtype.kind in "SU":
        text = np.char.decode(y, "utf-8", "replace") if y.dtype.kind == "S" else y
        cells = text.ravel().tolist()
        if classes is not None and y.ndim == 1:
            return known_labels(cells, classes, place)
        return read_target(cells, place, task).reshape(y.shape)
    values = _numeric(y, "the targets")
    if not np.isfinite(values).all():
        where = place(int(np.argmin(np.isfinite(values))))
        raise DataError(f"{where} of the target is missing or infinite")
    if classes is not None and y.ndim == 1:
        return known_labels(values.tolist(), classes, place)
    if y.dtype.kind == "b" and y.ndim == 1 and task != "regression":
        return y
    if values.dtype.kind in "iu":
        large = values.dtype.kind == "u" and values.max() > np.iinfo(np.int64).max
        return values.astype(np.uint64 if large else np.int64)
    return values.astype(np.float64)
