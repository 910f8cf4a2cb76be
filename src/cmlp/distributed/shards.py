"""Which rows a rank takes in a step: shards of the data, each with an order of its own.

The rows are cut into a fixed number of shards, whatever the number of ranks. Each batch takes rows
from all shards, in proportion; a rank carries whole shards, one after the other, so that its part
of a batch is a piece of it. Then any number of ranks sees the same batches.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator, Sequence
from itertools import count, pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cmlp.core.team import never
from cmlp.data.rows import Data
from cmlp.data.source import Block, Part, Shards, Source, Span, joined
from cmlp.model.state import State
from cmlp.sources.encode import network_encoder
from cmlp.sources.fitting import rows_in_memory
from cmlp.sources.plan import HeldRows
from cmlp.sources.training import windowed
from cmlp.sources.windows import WindowFeed, row_bytes
from cmlp.training.feed import Window

Rows = tuple[Data, NDArray[np.int64]]
"""Data, and which of their rows."""

Begin = Callable[[int, int], Iterator[Window]]
"""Yields the windows of a shard from a row of an epoch on, one epoch after the other."""


def dealt(n: int, counts: Sequence[int]) -> list[int]:
    """Return how many of the first n rows of an epoch each shard has: in proportion to its rows.

    It never falls as n grows, for any shard, and adds up to n.
    """
    left, found = sum(counts), []
    for rows in counts:
        found.append(n * rows // left if left else 0)
        n, left = n - found[-1], left - rows
    return found


class Shares:
    """The rows of a training, cut into shards; the feed of a rank, which carries some of them.

    Parameters
    ----------
    rows : Data or Source
        All rows, where they are arrays; or what they are read from.
    memory : int
        Bytes for the rows of all shards, in one process or in several.

    Attributes
    ----------
    n_all, n_rows, batch_size : int
        Rows, those of an epoch, and of a batch: of all ranks together.
    latest : Data
        Some of the first rows.
    place : (int, int)
        Number of this rank, and of ranks.
    first : int
        Place of this rank's first row in the batch that was yielded last.
    held_out : list of Data
        Rows of this rank to validate on.
    seconds : float
        That training has waited for other ranks, since the last report.

    Raises
    ------
    TypeError
        For a stream, which has no blocks.
    """

    place = (0, 1)
    at: Any = None

    def __init__(
        self, net: State, rows: Data | Source, options: Any, n_shards: int, memory: int
    ) -> None:
        self.rows, self.options, self.n_shards, self.memory = rows, options, n_shards, memory
        self.net, self.fits = net, isinstance(rows, Data)
        if isinstance(rows, Data):
            self.latest, blocks = some_rows(rows, np.arange(min(256, len(rows.X)))), [len(rows.X)]
        else:
            self.encoder = network_encoder(net, rows)
            blocks = list(rows.part(0, 1).blocks or ())  # `part` refuses a stream
            self.latest = Data(*self.encoder(rows.first(), lambda row: rows.place(0, row)))
            size = row_bytes(rows, net.dtype, self.latest.targets[:1].nbytes)
            self.fits = sum(blocks) * size <= memory
        self.n_all, self.seconds = sum(blocks), 0.0
        self.cuts = [self.n_all * shard // n_shards for shard in range(n_shards + 1)]
        self.spans = [list(Shards(blocks).pieces(*ends)) for ends in pairwise(self.cuts)]
        self.feeds: list[WindowFeed] = []
        self.shards: list[Begin] = []
        self.held_out: list[Data] = []

    def draw(self, seed: int) -> None:
        """Draw the order of the shards, and which of their rows are held out."""
        self.close()
        self.seed, fraction = seed, self.options.validation_fraction
        self.held = [HeldRows(seed + shard, fraction) for shard in range(self.n_shards)]
        parts = [[stop - start for _, start, stop in spans] for spans in self.spans]
        self.counts = [
            sum(held.n_kept([sum(rows)] if self.fits else rows))
            for held, rows in zip(self.held, parts, strict=True)
        ]
        self.n_rows = sum(self.counts)
        self.batch_size = min(self.options.batch_size or self.n_rows, self.n_rows)

    def checksum(self) -> int:
        """Return a checksum of the first rows of arrays, which all ranks have; of a source 0."""
        X, y = self.latest.X, self.latest.targets
        if isinstance(self.rows, Source) or not isinstance(X, np.ndarray):
            return 0
        return zlib.crc32(X.astype(self.net.dtype).tobytes() + y.tobytes())

    # See cmlp.training.feed.Feed

    def windows(self, epoch: int, done: int, out_of_time: Any) -> Iterator[Window]:
        """Yield this rank's rows of each batch of an epoch, without those of the first ones."""
        starts = dealt(done, self.counts)
        if self.at != (self.place, epoch, done):
            self._begin(epoch, starts)
        mine, before = self.carried, slice(self.carried.start)
        while done < self.n_rows:
            done = min(done + self.batch_size, self.n_rows)
            stops = dealt(done, self.counts)
            self.first = sum(stops[before]) - sum(starts[before])
            parts = [
                part for i, reader in zip(mine, self.readers, strict=True)
                for part in reader.take(stops[i] - starts[i])
            ]  # fmt: skip
            self.at = self.place, *((epoch, done) if done < self.n_rows else (epoch + 1, 0))
            yield Window(*merged(parts or [(self.latest, np.arange(0))]))
            starts = stops

    def waited(self) -> float:
        """Return the seconds that training has waited for rows or ranks, since the last call."""
        seconds, self.seconds = self.seconds, 0.0
        return seconds + sum(feed.waited() for feed in self.feeds)

    def close(self) -> None:
        """Close what rows are read from."""
        self._close_feeds()
        self.carried, self.shards, self.held_out = range(-1), [], []

    def _close_feeds(self) -> None:
        for feed in self.feeds:
            feed.close()
        self.feeds, self.at = [], None

    # The shards of this rank

    def carried_by(self, rank: int, size: int) -> tuple[range, list[Span]]:
        """Return the shards that a rank of so many carries, and where in the blocks they are."""
        k = self.n_shards
        shards = range(k * rank // size, k * (rank + 1) // size)
        return shards, [span for shard in shards for span in self.spans[shard]]

    def _begin(self, epoch: int, starts: list[int]) -> None:
        """Begin to read this rank's shards, each from some row of an epoch on."""
        mine, spans = self.carried_by(*self.place)
        self._close_feeds()
        if mine != self.carried:
            self.close()
            data, first = self.rows, 0
            if self.fits and mine and isinstance(data, Source):
                part = Part(data, spans)
                read = rows_in_memory(self.net, part, self.memory) if spans else self.latest
                data, first = read or data, self.cuts[mine.start]
            self.shards = [
                self._resident(i, data, first) if isinstance(data, Data) else self._windowed(i)
                for i in mine
            ]
            self.carried = mine
        self.readers = [
            Reader(begin(epoch, starts[i])) for i, begin in zip(mine, self.shards, strict=True)
        ]

    def _resident(self, shard: int, data: Data, first: int) -> Begin:
        """Return how a shard is read that is in memory, where `first` is the first of the rows."""
        start, stop = self.cuts[shard], self.cuts[shard + 1]
        rows, held = np.arange(start, stop) - first, self.held[shard].mask(0, 0, stop - start)
        if held.any():
            self.held_out.append(some_rows(data, rows[held]))

        def begin(epoch: int, start: int) -> Iterator[Window]:
            for number in count(epoch):
                order = rows[~held]
                if self.options.shuffle:
                    order = np.random.default_rng([self.seed, shard, number]).permutation(order)
                yield Window(data, order[start if number == epoch else 0 :])

        return begin

    def _windowed(self, shard: int) -> Begin:
        """Return how a shard is read in windows, in the order of the training.

        Raises
        ------
        ValueError
            If the memory is too small for windows, or for the rows that are held out.
        """
        assert isinstance(self.rows, Source)
        part, options, held = Part(self.rows, self.spans[shard]), self.options, self.held[shard]
        n, encoder = self.n_shards, self.encoder
        made = windowed(
            part, encoder, np.random.default_rng(held.seed), memory=self.memory // n,
            batch_size=options.batch_size and -(-options.batch_size // n), shuffle=options.shuffle,
            validation_fraction=held.fraction, n_epochs=options.epochs, held_seed=held.seed,
        )  # fmt: skip
        if made.feed.n_rows != self.counts[shard]:
            raise ValueError(
                "the rows that are held out do not fit into a quarter of the memory: lower "
                "validation_fraction, or give more memory"
            )
        if made.held_out is not None:
            self.held_out.append(made.held_out)

        def begin(epoch: int, start: int) -> Iterator[Window]:
            feed = WindowFeed(part, encoder, made.feed.layout, options.epochs, made.feed.latest)
            self.feeds.append(feed)
            for number in count(epoch):
                yield from feed.windows(number, start if number == epoch else 0, never)

        return begin


def some_rows(data: Data, rows: NDArray[np.int64]) -> Data:
    """Return a copy of some rows."""
    weights = None if data.weights is None else data.weights[rows]
    return Data(data.X[rows], data.targets[rows], weights)


def merged(parts: list[Rows]) -> Rows:
    """Return rows of several data as rows of one; copied, if they are not all of the same."""
    data = parts[0][0]
    if all(each is data for each, _ in parts):
        return data, np.concatenate([rows for _, rows in parts])
    blocks = [some_rows(*part) for part in parts]
    data = Data(*joined([Block(each.X, each.targets, each.weights) for each in blocks]))
    return data, np.arange(len(data.X))


class Reader:
    """Takes rows of a shard, one piece after the other."""

    def __init__(self, windows: Iterator[Window]) -> None:
        self.windows, self.order = windows, np.empty(0, np.int64)

    def take(self, n: int) -> list[Rows]:
        """Return the next n rows: of one window, or copied from several."""
        parts: list[Rows] = []
        while n:
            if not len(self.order):  # the memory of the last window is filled again
                parts = [(some_rows(*part), np.arange(len(part[1]))) for part in parts]
                self.data, self.order = next(self.windows)
            rows, self.order = self.order[:n], self.order[n:]
            parts.append((self.data, rows))
            n -= len(rows)
        return parts
