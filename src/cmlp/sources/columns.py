"""Columns of Arrow become rows of numbers, and targets."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from typing import Any

import numpy as np

from cmlp.core.layout import Array
from cmlp.data.cells import DataError, listed_near, show
from cmlp.data.source import Block, Source

TILE = 1 << 18
"""Bytes of rows that are written at a time: they stay in a cache while all columns are."""

Missing = str | float


def check_missing(missing: Any) -> Missing:
    """Return what is done about missing numbers: "raise", "skip", or the number in their place."""
    if missing in ("raise", "skip"):
        return str(missing)
    if isinstance(missing, (int, float, np.number)) and np.isfinite(missing):
        return float(missing)
    raise ValueError(f"missing must be 'raise', 'skip' or a number, not {missing!r}")


@functools.cache
def pyarrow(what: str) -> Any:
    """Return pyarrow's module for something; raises ImportError that has the way out."""
    try:
        return import_module(what)
    except ImportError as error:
        raise ImportError(f"this needs pyarrow ({error}): pip install pyarrow") from error


def is_number(kind: Any) -> bool:
    """Whether a type of Arrow is one of real numbers; a column of nothing but gaps is."""
    types = pyarrow("pyarrow.types")
    return bool(
        types.is_integer(kind)
        or types.is_floating(kind)
        or types.is_boolean(kind)
        or types.is_decimal(kind)
        or types.is_null(kind)
    )


def dtype_of(kinds: Sequence[Any]) -> np.dtype[Any]:
    """Return float32 where it holds numbers of these types of Arrow exactly, else float64."""
    types = pyarrow("pyarrow.types")
    narrow = all(
        types.is_boolean(kind)
        or types.is_null(kind)
        or (types.is_integer(kind) and kind.bit_width <= 16)
        or (types.is_floating(kind) and kind.bit_width <= 32)
        for kind in kinds
    )
    return np.dtype(np.float32 if narrow else np.float64)


def numbers_of(column: Any) -> Array:
    """Return the numbers of a column of Arrow, NaN where they are missing."""
    types = pyarrow("pyarrow.types")
    if types.is_null(column.type):
        return np.full(len(column), np.nan, np.float32)
    if types.is_decimal(column.type):
        column = column.cast("float64")
    if types.is_boolean(column.type):
        column = column.cast("uint8")
    found: Array = column.to_numpy(zero_copy_only=False)
    return found


def matrix_of(columns: Sequence[Array], n: int, dtype: np.dtype[Any], missing: Missing) -> Array:
    """Return columns of numbers as rows, with missing ones replaced where there is a number."""
    out = np.empty((n, len(columns)), dtype)
    rows = max(1, TILE // max(1, out.itemsize * len(columns)))
    for start in range(0, n, rows):
        for number, column in enumerate(columns):
            out[start : start + rows, number] = column[start : start + rows]
    if isinstance(missing, float):
        out[np.isnan(out)] = missing
    return out


def target_of(column: Any, where: Callable[[int], str]) -> Array:
    """Return a column of Arrow as targets: numbers with NaN where they are missing, or text.

    Raises
    ------
    DataError
        For a label that is missing; `where` gives the place of a row.
    """
    types = pyarrow("pyarrow.types")
    column = column.combine_chunks() if hasattr(column, "combine_chunks") else column
    kind = column.type
    if types.is_dictionary(kind) and is_number(kind.value_type):
        column = column.cast(kind.value_type)
    if is_number(column.type) and not types.is_boolean(column.type):
        return numbers_of(column)
    if types.is_boolean(column.type) and not column.null_count:
        truth: Array = column.to_numpy(zero_copy_only=False)
        return truth
    if column.null_count:
        row = int(np.argmax(column.is_null().to_numpy(zero_copy_only=False)))
        raise DataError(
            f"{where(row)}: the target is missing; give it a value, or leave out the row"
        )
    coded = column if types.is_dictionary(kind) else column.dictionary_encode()
    values = np.array([str(value) for value in coded.dictionary.to_pylist()] or [""])
    texts: Array = values[coded.indices.to_numpy(zero_copy_only=False)]
    return texts


def targets_of(
    batch: Any, names: Sequence[str], weight: str | None, where: Callable[[int], str]
) -> tuple[Array, Array | None]:
    """Return targets, (n,) or (n, n_targets), and weights, of a batch or a table of Arrow.

    Parameters
    ----------
    names : sequence of str
        The columns of the targets.
    """
    found = [target_of(batch.column(name), where) for name in names]
    y = found[0] if len(found) == 1 else np.column_stack(found)
    weights = None if weight is None else numbers_of(batch.column(weight)).astype(np.float64)
    return y, weights


def text_among(types: Mapping[str, Any], names: Sequence[str], path: str) -> str:
    """Return a message about the first column that is no number by its type; "" without one."""
    for name in names:
        if not is_number(types[name]):
            return (
                f"{path}: the column {show(name)} holds {types[name]}, but a network needs "
                "numbers: choose columns=[...], or fit a TabularClassifier or TabularRegressor, "
                "which take such columns"
            )
    return ""


def chosen_columns(
    names: Sequence[str], target: Any, columns: Any, weight: str | None, path: str
) -> tuple[list[str], list[str]]:
    """Return the names of features and targets among those of a table; refuse unknown ones."""
    targets = [target] if isinstance(target, str) else list(target)
    others = [*targets, *([] if weight is None else [weight])]
    features = [name for name in names if name not in others] if columns is None else list(columns)
    for name in [*features, *others]:
        if name not in names:
            raise DataError(
                f"{path}: there is no column {show(name)}; there are "
                f"{listed_near(name, list(names))}"
            )
    for name in others:
        if name in features:
            raise DataError(f"{path}: the column {show(name)} is a feature and a target or weight")
    if not features:
        raise DataError(f"{path}: there are no columns but the target")
    return features, targets


class Skipping(Source):
    """Another source's rows without those in which a number is missing.

    Which these are is found by one reading, when it is made.

    Attributes
    ----------
    n_skipped : int
    """

    def __init__(self, source: Source) -> None:
        self.source = source
        self.n_features, self.dtype = source.n_features, source.dtype
        self.feature_names, self.target_name = source.feature_names, source.target_name
        self.scratch = source.scratch
        self.skipped: list[Array] = []
        for block, n in enumerate(source.blocks or ()):
            rows = []
            for start in range(0, n, source.piece):
                found = source.read(block, start, min(start + source.piece, n))
                rows.append(start + np.flatnonzero(_has_gap(found)))
            self.skipped.append(np.concatenate(rows) if rows else np.empty(0, np.int64))
        source.close()
        self.blocks = tuple(
            n - len(rows) for n, rows in zip(source.blocks or (), self.skipped, strict=True)
        )
        self.n_skipped = sum(map(len, self.skipped))

    def _raw(self, block: int, row: int) -> int:
        """Return the number of a kept row among all rows of its block."""
        skipped = self.skipped[block]
        before = skipped - np.arange(len(skipped))  # kept rows before each that is skipped
        return row + int(np.searchsorted(before, row, "right"))

    def _read(self, read: Any, block: int, start: int, stop: int | None) -> Block:
        assert self.blocks is not None
        stop = self.blocks[block] if stop is None else stop
        if stop <= start:
            found: Block = read(block, 0, 0)
            return found
        first, last = self._raw(block, start), self._raw(block, stop - 1) + 1
        found = read(block, first, last)
        gaps = self.skipped[block]
        gaps = gaps[(gaps >= first) & (gaps < last)] - first
        if not len(gaps):
            return found
        weight = None if found.weight is None else np.delete(found.weight, gaps)
        return Block(np.delete(found.X, gaps, axis=0), np.delete(found.y, gaps, axis=0), weight)

    def read(self, block: int, start: int = 0, stop: int | None = None) -> Block:
        """Return rows of a block."""
        return self._read(self.source.read, block, start, stop)

    def read_targets(self, block: int, start: int = 0, stop: int | None = None) -> Block:
        """Return targets of a block."""
        return self._read(self.source.read_targets, block, start, stop)

    def place(self, block: int, row: int) -> str:
        """Return where a row is."""
        return self.source.place(block, self._raw(block, row))

    def identity(self) -> Any:
        """Return the source, and how many rows are skipped."""
        return self.source.fingerprint(), self.n_skipped

    def close(self) -> None:
        """Close open files."""
        self.source.close()

    def reopened(self) -> Skipping:
        """Return the same with files of its own."""
        other = Skipping.__new__(Skipping)
        vars(other).update(vars(self), source=self.source.reopened())
        return other


def _has_gap(found: Block) -> Array:
    gaps = np.isnan(found.X).any(axis=1)
    if found.y.dtype.kind == "f":
        gaps |= np.isnan(found.y.reshape(len(found.y), -1)).any(axis=1)
    return np.asarray(gaps)
