"""Sources of whatever a function yields."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np

from cmlp.core.checks import check_integer
from cmlp.data.cells import DataError
from cmlp.data.labels import label_array
from cmlp.data.numbers import as_numbers
from cmlp.data.source import Block, Source


def batches(
    make: Callable[[], Iterable[Any]], n_features: int | None = None, n_rows: int | None = None
) -> Source:
    """Return a source of batches that a function yields: the way in for everything else.

    Parameters
    ----------
    make : callable
        Returns an iterator of (X, y) or (X, y, weight), with (n, n_features) numbers and any n. It
        is called once for each epoch, and has to return the same rows each time.
    n_features : int, optional
        By default those of the first batch.
    n_rows : int, optional
        The number of all rows; without it they are counted once, by calling `make`.

    Returns
    -------
    Source
        It has no blocks: rows that are near each other stay near, as windows follow each other.
    """
    if not callable(make):
        raise TypeError(
            f"make must be a function that returns an iterator, not {type(make).__name__}: each "
            "epoch calls it anew"
        )
    return BatchSource(make, n_features, n_rows)


class BatchSource(Source):
    """Rows of an iterator that a function returns."""

    blocks = None

    def __init__(self, make: Any, n_features: int | None, n_rows: int | None) -> None:
        self.make = make
        self.rows = None if n_rows is None else check_integer("n_rows", n_rows, 1)
        made = make()
        if not hasattr(made, "__iter__"):
            raise TypeError(f"make() must return an iterator, not {type(made).__name__}")
        first = next(iter(made), None)
        if first is None:
            raise DataError(
                "make() yields nothing; it must yield batches of (X, y), the same at each call"
            )
        block = _block(first, 0)
        self.n_features = block.X.shape[1]
        if n_features is not None:
            self.n_features = check_integer("n_features", n_features, 1)
        self.dtype, self.form = block.X.dtype, _form(block)

    @property
    def n_rows(self) -> int | None:
        """Number of rows, if it was given."""
        return self.rows

    def stream(self) -> Iterator[Block]:
        """Yield the batches; large ones in pieces."""
        for number, batch in enumerate(self.make()):
            found = _block(batch, number)
            if found.X.shape[1] != self.n_features:
                raise DataError(
                    f"batch {number} has {found.X.shape[1]} features, expected {self.n_features}"
                )
            if found.X.dtype != self.dtype and not np.can_cast(found.X.dtype, self.dtype):
                raise DataError(
                    f"batch {number} holds {found.X.dtype}, but the first one {self.dtype}; yield "
                    "one dtype"
                )
            if _form(found) != self.form:
                raise DataError(f"batch {number} is {_form(found)}, but the first one {self.form}")
            for start in range(0, len(found.X), self.piece):
                part = slice(start, start + self.piece)
                weight = None if found.weight is None else found.weight[part]
                yield Block(found.X[part], found.y[part], weight)

    def place(self, block: int, row: int) -> str:
        """Return where a row is."""
        return f"row {row} of the stream"

    def identity(self) -> Any:
        """Return what is known of the function."""
        return getattr(self.make, "__qualname__", ""), self.rows


def _form(found: Block) -> str:
    """Return what a batch is made of, in words."""
    y = "(n,)" if found.y.ndim == 1 else f"(n, {found.y.shape[1]})"
    what = "numbers" if found.y.dtype.kind in "fiub" else "text"
    return f"(X, y{', weight' * (found.weight is not None)}) with y of the shape {y}, {what}"


def _block(batch: Any, number: int) -> Block:
    """Return a batch as arrays."""
    if not isinstance(batch, (tuple, list)) or len(batch) not in (2, 3):
        raise DataError(f"batch {number} must be (X, y) or (X, y, weight), not {type(batch)}")
    X = as_numbers(f"X of batch {number}", batch[0])
    y = label_array(f"y of batch {number}", batch[1])
    if X.ndim != 2 or y.ndim not in (1, 2) or len(y) != len(X):
        raise DataError(
            f"batch {number} has X of the shape {X.shape} and y of {y.shape}; expected are "
            "(n, n_features), and (n,) or (n, n_targets)"
        )
    weight = None
    if len(batch) == 3 and batch[2] is not None:
        weight = np.asarray(batch[2], np.float64)
        if weight.shape != (len(X),):
            raise DataError(f"the weights of batch {number} must be ({len(X)},): {weight.shape}")
    return Block(X, y, weight)
