"""Sources of arrays, and of whatever has a shape and slices of rows."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from cmlp.core.arrays import refuse_masked
from cmlp.core.checks import check_integer
from cmlp.core.layout import Array
from cmlp.data.checks import check_weights
from cmlp.data.labels import label_array
from cmlp.data.numbers import readable, readable_dtype
from cmlp.data.source import Block, Source, rows_per_block


def arrays(
    X: Any,
    y: Any,
    sample_weight: ArrayLike | None = None,
    *,
    block_rows: int | None = None,
) -> Source:
    """Return a source of arrays in memory or on disk.

    Parameters
    ----------
    X : (n, n_features)
        Anything with a shape, a dtype and slices of rows: an array, a memory map, a dataset of
        h5py or Zarr, or a sparse matrix of SciPy. It has to be numeric.
    y : (n,) or (n, n_targets)
        Targets, as ``fit`` takes them; also stored ones. Text is read at once.
    sample_weight : array-like, (n,), optional
    block_rows : int, optional
        Rows that are read at a time. By default those of a chunk, where the storage has chunks;
        else as many as make 8 MB, 262,144 at most.

    Returns
    -------
    Source

    Raises
    ------
    ValueError, TypeError
        If shapes do not fit each other, or X is not numeric.
    """
    return ArraySource(X, y, sample_weight, block_rows)


class ArraySource(Source):
    """Rows of array-like objects."""

    def __init__(self, X: Any, y: Any, sample_weight: Any, block_rows: int | None) -> None:
        sparse = hasattr(X, "tocsr") and not isinstance(X, np.ndarray)
        X = X.tocsr() if sparse else X if hasattr(X, "shape") else np.asarray(X)
        refuse_masked("X", X)
        if hasattr(X, "iloc"):
            raise TypeError("X is a data frame; pass X.to_numpy(), or cmlp.data.arrow(lambda: X)")
        if len(X.shape) != 2:
            raise ValueError(f"X must be (rows, features), but its shape is {tuple(X.shape)}")
        dtype = np.dtype(X.dtype)
        if dtype.kind not in "fiub":
            raise ValueError(f"X must hold real numbers, but its dtype is {dtype}")
        n, self.n_features = map(int, X.shape)
        if not n:
            raise ValueError("X has no rows")
        self.X, self.sparse, self.y = X, sparse, _targets(y, n)
        self.dtype = readable_dtype(dtype)
        self.weights = check_weights(sample_weight, n)
        rows = _chunk_rows(X) if block_rows is None else check_integer("block_rows", block_rows, 1)
        if rows is None:
            rows = rows_per_block(self.n_features * dtype.itemsize)
        elif block_rows is None:  # a chunk is decoded as a whole
            self.scratch = rows * self.n_features * dtype.itemsize
        self.rows = rows
        self.blocks = tuple(min(rows, n - start) for start in range(0, n, rows))

    def _rows(self, array: Any, start: int, stop: int) -> Array:
        """Return rows of a stored array, as an array of their own or as a view."""
        found = array[start:stop]
        return np.asarray(found.toarray() if hasattr(found, "toarray") else found)

    def _within(self, block: int, start: int, stop: int | None) -> tuple[int, int]:
        assert self.blocks is not None
        first = block * self.rows
        return first + start, first + (self.blocks[block] if stop is None else stop)

    def read(self, block: int, start: int = 0, stop: int | None = None) -> Block:
        """Return rows of a block."""
        X = readable(self._rows(self.X, *self._within(block, start, stop)))  # Zarr's byte order
        return self.read_targets(block, start, stop)._replace(X=X)

    def read_targets(self, block: int, start: int = 0, stop: int | None = None) -> Block:
        """Return targets of a block."""
        first, last = self._within(block, start, stop)
        weight = None if self.weights is None else self.weights[first:last]
        X = np.empty((last - first, 0), self.dtype)
        return Block(X, self._rows(self.y, first, last), weight)

    def place(self, block: int, row: int) -> str:
        """Return where a row is."""
        return f"row {block * self.rows + row} of X"

    def resident(self) -> Block | None:
        """Return the arrays, if they are ordinary ones."""
        in_memory = isinstance(self.X, np.ndarray) and not _is_mapped(self.X)
        if not (in_memory and isinstance(self.y, np.ndarray) and not _is_mapped(self.y)):
            return None
        return Block(self.X, self.y, self.weights)

    def identity(self) -> Any:
        """Return shapes and some of the numbers."""
        import zlib

        assert self.blocks is not None
        ends = [self.read(block, 0, 1) for block in {0, len(self.blocks) - 1}]
        numbers = [zlib.crc32(np.ascontiguousarray(end.X).tobytes()) for end in ends]
        return numbers, tuple(self.y.shape), self.weights is not None


def _targets(y: Any, n: int) -> Any:
    """Return targets with a shape that fits."""
    if y is None:
        raise ValueError("y is missing: a source has its targets")
    stored = hasattr(y, "shape") and hasattr(y, "dtype") and not hasattr(y, "iloc")
    y = y if stored and not isinstance(y, np.ndarray) else label_array("y", y)
    if len(y.shape) not in (1, 2) or y.shape[0] != n:
        raise ValueError(f"y must have {n} rows like X, but its shape is {tuple(y.shape)}")
    return y


def _is_mapped(array: Any) -> bool:
    """Whether an array, or what it is a view of, is a mapped file."""
    while array is not None:
        if isinstance(array, np.memmap):
            return True
        array = getattr(array, "base", None)
    return False


def _chunk_rows(X: Any) -> int | None:
    """Return how many rows the storage keeps together."""
    chunks = getattr(X, "chunks", None)
    if isinstance(chunks, tuple) and chunks and isinstance(chunks[0], int):
        return max(1, chunks[0])
    return None
