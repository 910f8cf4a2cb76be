"""Which rows a rank takes in a step: shards of the data, each with an order of its own.

The rows are cut into a fixed number of shards, whatever the number of ranks. Each batch takes rows
from all shards, in proportion; a rank carries whole shards, one after the other, so that its part
of a batch is a piece of it. Then any number of ranks sees the same batches.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
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
from cmlp.training.feed import Feed, Window


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
        if not self.fits:
            return [self._windowed(i) for i in shards]
        data, first = self.rows, sum(self.sizes[: shards.start])
        if not isinstance(data, Data):
            data, first = self._read([span for i in shards for span in self.spans[i]]), 0
        found = []
        for i in shards:
            rows = np.arange(first, first + self.sizes[i])
            first += self.sizes[i]
            key = [self.seed, i] if self.options.shuffle else None
            kept = ~self.held(i).mask(0, 0, len(rows))
            held_out = None if kept.all() else some_rows(data, rows[~kept])
            found.append(Shard(Resident(data, rows[kept], key), held_out))
        return found

    def _read(self, spans: list[tuple[int, int, int]]) -> Data:
        """Return rows of the source, encoded."""
        assert self.encoder is not None and not isinstance(self.rows, Data)
        union = Part(self.rows, spans)
        blocks = list(union.blocks or ())
        found = read_all(union, sum(blocks), kept_dtype(union, self.encoder.dtype))

        def where(row: int) -> str:
            block, start, _ = next(Shards(blocks).pieces(row, row + 1))
            return union.place(block, start)

        return Data(*self.encoder(found, where))

    def _windowed(self, shard: int) -> Shard:
        """Return a shard that is read in windows, in the order of the training.

        Raises
        ------
        ValueError
            If the memory is too small for windows, or for the rows that are held out.
        """
        assert self.encoder is not None and not isinstance(self.rows, Data)
        part, options, held = Part(self.rows, self.spans[shard]), self.options, self.held(shard)
        n, encoder = self.n_shards, self.encoder
        made = windowed(
            part, encoder, np.random.default_rng(held.seed), memory=self.memory // n,
            batch_size=options.batch_size and -(-options.batch_size // n), shuffle=options.shuffle,
            validation_fraction=held.fraction, n_epochs=options.epochs, held_seed=held.seed,
        )  # fmt: skip
        feed = made.feed
        if feed.n_rows != self.counts[shard]:
            raise ValueError(
                "the rows that are held out do not fit into a quarter of the memory: lower "
                "validation_fraction, or give more memory"
            )

        def again() -> WindowFeed:
            return WindowFeed(part, encoder, feed.layout, options.epochs, feed.latest)

        return Shard(feed, made.held_out, again)


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
    """A feed of rows that are in memory: one window an epoch.

    Parameters
    ----------
    rows : (n,) array
        Which of the data.
    key : list of int or None
        What the order is drawn by; None keeps that of the data.
    """

    def __init__(self, data: Data, rows: NDArray[np.int64], key: list[int] | None) -> None:
        self.latest, self.rows, self.n_rows, self.key = data, rows, len(rows), key

    def windows(self, epoch: int, done: int, out_of_time: Any) -> Iterator[Window]:
        """Yield the rows of an epoch, in its order, without the first ones."""
        rows = self.rows
        if self.key is not None:
            rows = np.random.default_rng([*self.key, epoch]).permutation(rows)
        yield Window(self.latest, rows[done:])

    def waited(self) -> float:
        """Return the seconds that training has waited for rows."""
        return 0.0

    def close(self) -> None:
        """Leave the rows to others."""


class Shard:
    """Some of the rows, in an order of their own.

    Parameters
    ----------
    feed : Feed
    held_out : Data or None
        Rows to validate on.
    again : callable, optional
        Returns a new feed, where one can be read once only.
    """

    def __init__(
        self, feed: Feed, held_out: Data | None, again: Callable[[], Feed] | None = None
    ) -> None:
        self.feed, self.held_out, self.again = feed, held_out, again
        self.epoch = self.at = -1
        self.data, self.order = feed.latest, np.empty(0, np.int64)
        self.windows: Iterator[Window] = iter(())

    def piece(self, epoch: int, start: int, stop: int) -> tuple[Data, NDArray[np.int64]]:
        """Return rows of the order of an epoch; copied, if their window may be filled again."""
        if (self.epoch, self.at) != (epoch, start):
            self._begin(epoch, start)
        parts: list[tuple[Data, NDArray[np.int64]]] = []
        while self.at < stop:
            if not len(self.order):
                self.data, self.order = next(self.windows)
            rows, self.order = self.order[: stop - self.at], self.order[stop - self.at :]
            part = (some_rows(self.data, rows), np.arange(len(rows))) if self.again else None
            parts.append(part or (self.data, rows))
            self.at += len(rows)
        return merged(parts or [(self.feed.latest, np.arange(0))])

    def _begin(self, epoch: int, start: int) -> None:
        """Continue at a place: the next epoch follows by itself, any other place is read anew."""
        if (self.at, epoch, start) == (self.feed.n_rows, self.epoch + 1, 0):
            next(self.windows, None)  # gives the last window back
        elif self.at >= 0 and self.again is not None:
            self.feed.close()
            self.feed = self.again()
        self.windows = self.feed.windows(epoch, start, never)
        self.epoch, self.at, self.order = epoch, start, np.empty(0, np.int64)
