"""Sources without the rows in which something is missing."""

from __future__ import annotations

import copy
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from cmlp.core.layout import Array
from cmlp.data.labels import is_missing, label_array
from cmlp.data.source import Block, Source


class Skipping(Source):
    """Another source's rows without those in which a number or the target is missing.

    Which these are is found by one reading, when it is made.

    Parameters
    ----------
    source : Source
        In blocks.
    what : 'all' or 'targets'
        Where a row may have no gap: anywhere, or in its target.

    Attributes
    ----------
    n_skipped : int
    """

    def __init__(self, source: Source, what: Literal["all", "targets"] = "all") -> None:
        self.source = source = copy.copy(source)
        source.keeps_gaps = True
        self.n_features, self.dtype = source.n_features, source.dtype
        self.feature_names, self.target_name = source.feature_names, source.target_name
        self.scratch, self.reads_dates = source.scratch, source.reads_dates
        self.skipped: list[NDArray[np.int64]] = []
        read = source.read if what == "all" else source.read_targets
        for block, n in enumerate(source.blocks or ()):
            rows = []
            for start in range(0, n, source.piece):
                found = read(block, start, min(start + source.piece, n))
                rows.append(start + np.flatnonzero(_has_gap(found)))
            self.skipped.append(np.concatenate(rows) if rows else np.empty(0, np.int64))
        source.close()
        self.blocks = tuple(
            n - len(rows) for n, rows in zip(source.blocks or (), self.skipped, strict=True)
        )
        self.n_skipped = sum(map(len, self.skipped))

    def first_skipped(self) -> str:
        """Return where the first row is that is left out; empty without one."""
        found = next((block for block, rows in enumerate(self.skipped) if len(rows)), None)
        return "" if found is None else self.source.place(found, int(self.skipped[found][0]))

    def _raw(self, block: int, row: int) -> int:
        """Return the number of a kept row among all rows of its block."""
        skipped = self.skipped[block]
        before = skipped - np.arange(len(skipped))  # kept rows before each that is skipped
        return row + int(np.searchsorted(before, row, "right"))

    def _read(self, read: Any, block: int, start: int, stop: int | None) -> Block:
        assert self.blocks is not None
        stop = self.blocks[block] if stop is None else stop
        first = last = 0
        if stop > start:
            first, last = self._raw(block, start), self._raw(block, stop - 1) + 1
        X, y, weight = read(block, first, last)
        gaps = self.skipped[block]
        gaps = gaps[(gaps >= first) & (gaps < last)] - first
        if len(gaps):
            kept = np.delete(np.arange(last - first), gaps)
            X = X.take(kept) if hasattr(X, "column_names") else X[kept]  # of Arrow, or others
            y, weight = y[kept], None if weight is None else weight[kept]
        return Block(X, label_array("y", y) if y.dtype == object else y, weight)

    def read(self, block: int, start: int = 0, stop: int | None = None) -> Block:
        """Return rows of a block."""
        return self._read(self.source.read, block, start, stop)

    def read_targets(self, block: int, start: int = 0, stop: int | None = None) -> Block:
        """Return targets of a block."""
        return self._read(self.source.read_targets, block, start, stop)

    def read_table(self, block: int, start: int = 0, stop: int | None = None) -> Block:
        """Return rows of a block with X as a table, where the source has tables."""
        read = getattr(self.source, "read_table", self.source.read)
        return self._read(read, block, start, stop)

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
        other = copy.copy(self)
        other.source = self.source.reopened()
        return other


def _has_gap(found: Block) -> Array:
    """Return which rows have a missing number, or no target."""
    y = found.y.reshape(len(found.y), -1)
    gaps = np.isnan(found.X).any(axis=1)
    if y.dtype.kind == "f":
        gaps |= np.isnan(y).any(axis=1)
    elif y.dtype == object:
        gaps |= np.array([any(map(is_missing, row)) for row in y.tolist()], bool)
    return np.asarray(gaps)


def has_one_target(source: Source) -> bool:
    """Whether rows have one target each, in a source whose targets may be missing."""
    kept = copy.copy(source)
    kept.keeps_gaps = True
    y = kept.first(1, targets_only=True).y
    return y.ndim == 1 or y.shape[1] == 1
