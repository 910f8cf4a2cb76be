"""Which rows a rank takes in a step: shards of the data, each with an order of its own.

The rows are cut into a fixed number of shards, whatever the number of ranks. Each batch takes rows
from all shards, in proportion; a rank carries whole shards, one after the other, so that its part
of a batch is a piece of it. Then any number of ranks sees the same batches.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cmlp.core.team import never
from cmlp.data.rows import Data
from cmlp.data.source import Block, Part, Shards, Source, joined
from cmlp.sources.encode import RowEncoder
from cmlp.sources.plan import HeldRows
from cmlp.sources.training import read_all, windowed
from cmlp.sources.windows import WindowFeed, kept_dtype, row_bytes
from cmlp.training.feed import Window


def dealt(n: int, counts: Sequence[int]) -> list[int]:
    """Return how many of the first n rows of an epoch each shard has: in proportion to its rows.

    It never falls as n grows, for any shard, and adds up to n.
    """
    left, found = sum(counts), []
    for count in counts:
        found.append(n * count // left if left else 0)
        n, left = n - found[-1], left - count
    return found


class Shares:
    """How the rows of a training are cut into shards.

    Parameters
    ----------
    rows : Data or Source
        All rows, where they are arrays; or what they are read from.
    encoder : RowEncoder, optional
        Of the source.
    memory : int
        Bytes for the rows of all shards, in one process or in several.
    fraction, seed : float, int
        Of the rows that are held out for validation; and what they, and the order, are drawn by.

    Attributes
    ----------
    n_rows : int
        Rows of an epoch.

    Raises
    ------
    TypeError
        For a stream, which has no blocks.
    """

    def __init__(
        self,
        rows: Data | Source,
        encoder: RowEncoder | None,
        options: Any,
        n_shards: int,
        memory: int,
        seed: int,
    ) -> None:
        self.rows, self.encoder, self.options, self.seed = rows, encoder, options, seed
        self.n_shards, self.memory = n_shards, memory
        blocks = (len(rows.X),) if isinstance(rows, Data) else rows.part(0, 1).blocks
        assert blocks is not None  # `part` refuses a stream
        n = sum(blocks)
        cuts = [n * shard // n_shards for shard in range(n_shards + 1)]
        self.spans = [list(Shards(list(blocks)).pieces(*ends)) for ends in pairwise(cuts)]
        self.sizes = [after - before for before, after in pairwise(cuts)]
        self.fits = isinstance(rows, Data) or n * self._row_bytes(rows) <= memory
        parts = [
            [size] if self.fits else [stop - start for _, start, stop in spans]
            for size, spans in zip(self.sizes, self.spans, strict=True)
        ]
        self.counts = [sum(self.held(i).n_kept(part)) for i, part in enumerate(parts)]
        self.n_rows = sum(self.counts)

    def _row_bytes(self, source: Source) -> int:
        assert self.encoder is not None
        targets = source.first(1, targets_only=True).y.nbytes
        return row_bytes(source, self.encoder.dtype, targets)

    def held(self, shard: int) -> HeldRows:
        """Return which rows of a shard are held out."""
        return HeldRows(self.seed + shard, self.options.validation_fraction)

    def open(self, shards: range) -> list[Shard]:
        """Return some consecutive shards, read into memory where all of them would fit."""
        if isinstance(self.rows, Data):
            return self._resident(shards, self.rows, sum(self.sizes[: shards.start]))
        assert self.encoder is not None
        if not self.fits:
            memory, batch_size = self.memory // self.n_shards, self.options.batch_size
            batch_size = batch_size and -(-batch_size // self.n_shards)
            return [
                Windowed(
                    Part(self.rows, self.spans[i]), self.encoder, memory, self.options,
                    self.held(i), self.counts[i], batch_size,
                )
                for i in shards
            ]  # fmt: skip
        union = Part(self.rows, [span for i in shards for span in self.spans[i]])
        found = read_all(union, sum(union.blocks or ()), kept_dtype(union, self.encoder.dtype))
        pieces = Shards(list(union.blocks or ()))

        def where(row: int) -> str:
            block, start, _ = next(pieces.pieces(row, row + 1))
            return union.place(block, start)

        return self._resident(shards, Data(*self.encoder(found, where)), 0)

    def _resident(self, shards: range, data: Data, first: int) -> list[Shard]:
        found: list[Shard] = []
        for i in shards:
            rows = np.arange(first, first + self.sizes[i])
            key = [self.seed, i] if self.options.shuffle else None
            found.append(Resident(data, rows, self.held(i), key))
            first += self.sizes[i]
        return found


def some_rows(data: Data, rows: NDArray[np.int64]) -> Data:
    """Return copies of some rows."""
    weights = None if data.weights is None else data.weights[rows]
    return Data(data.X[rows], data.targets[rows], weights)


def merged(parts: list[tuple[Data, NDArray[np.int64]]]) -> tuple[Data, NDArray[np.int64]]:
    """Return rows of several data as rows of one; copied unless they are the same."""
    data = parts[0][0]
    if all(each is data for each, _ in parts):
        return data, np.concatenate([rows for _, rows in parts])
    blocks = [some_rows(each, rows) for each, rows in parts]
    data = Data(*joined([Block(each.X, each.targets, each.weights) for each in blocks]))
    return data, np.arange(len(data.X))


class Resident:
    """A shard whose rows are in memory.

    Parameters
    ----------
    rows : (n,) array
        Which of the data.
    key : list of int or None
        What the order is drawn by; None keeps that of the data.
    """

    def __init__(
        self, data: Data, rows: NDArray[np.int64], held: HeldRows, key: list[int] | None
    ) -> None:
        kept = ~held.mask(0, 0, len(rows))
        self.data, self.rows, self.key, self.drawn = data, rows[kept], key, -1
        self.order = self.rows
        self.held_out = None if kept.all() else some_rows(data, rows[~kept])

    def piece(self, epoch: int, start: int, stop: int) -> tuple[Data, NDArray[np.int64]]:
        """Return rows of the order of an epoch."""
        if self.key is not None and epoch != self.drawn:
            rng = np.random.default_rng([*self.key, epoch])
            self.order, self.drawn = rng.permutation(self.rows), epoch
        return self.data, self.order[start:stop]

    def waited(self) -> float:
        """Return the seconds that training has waited for rows."""
        return 0.0

    def close(self) -> None:
        """Leave the rows to others."""


class Windowed:
    """A shard that is read in windows, in the order of the training.

    Raises
    ------
    ValueError
        If the memory is too small for windows, or for the rows that are held out.
    """

    def __init__(
        self,
        part: Part,
        encoder: RowEncoder,
        memory: int,
        options: Any,
        held: HeldRows,
        n_rows: int,
        batch_size: int | None,
    ) -> None:
        made = windowed(
            part, encoder, np.random.default_rng(held.seed), memory=memory, batch_size=batch_size,
            shuffle=options.shuffle, validation_fraction=held.fraction, n_epochs=options.epochs,
            held_seed=held.seed,
        )  # fmt: skip
        self.feed, self.held_out = made.feed, made.held_out
        if self.feed.n_rows != n_rows:
            raise ValueError(
                "the rows that are held out do not fit into a quarter of the memory: lower "
                "validation_fraction, or give more memory"
            )
        self.part, self.encoder, self.n_epochs = part, encoder, options.epochs
        self.epoch = self.at = -1
        self.windows: Iterator[Window] = iter(())

    def _begin(self, epoch: int, start: int) -> None:
        """Read on at a place; the next epoch follows by itself, for any other place anew."""
        feed = self.feed
        if (self.at, epoch, start) == (feed.n_rows, self.epoch + 1, 0):
            next(self.windows, None)  # gives the last window back
        elif self.at >= 0:
            feed.close()
            self.feed = WindowFeed(self.part, self.encoder, feed.layout, self.n_epochs, feed.latest)
        self.windows = self.feed.windows(epoch, start, never)
        self.epoch, self.at, self.order = epoch, start, np.empty(0, np.int64)

    def piece(self, epoch: int, start: int, stop: int) -> tuple[Data, NDArray[np.int64]]:
        """Return rows of the order of an epoch, copied: their window may be filled again."""
        if (self.epoch, self.at) != (epoch, start):
            self._begin(epoch, start)
        parts: list[tuple[Data, NDArray[np.int64]]] = []
        while self.at < stop:
            if not len(self.order):
                self.data, self.order = next(self.windows)
            rows, self.order = self.order[: stop - self.at], self.order[stop - self.at :]
            parts.append((some_rows(self.data, rows), np.arange(len(rows))))
            self.at += len(rows)
        return merged(parts) if parts else (self.feed.latest, np.arange(0))

    def waited(self) -> float:
        """Return the seconds that training has waited for rows, since the last call."""
        return self.feed.waited()

    def close(self) -> None:
        """End the reading."""
        self.feed.close()


Shard = Resident | Windowed
"""Some of the rows, in an order of their own."""
