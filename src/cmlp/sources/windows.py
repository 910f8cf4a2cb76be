"""Windows of rows: a thread reads the next one while the core trains on this one."""

from __future__ import annotations

import itertools
import queue
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from cmlp.core.errors import warn
from cmlp.core.layout import Array
from cmlp.data.cells import DataError
from cmlp.data.rows import Data
from cmlp.data.source import Block, Source, taken
from cmlp.sources.encode import RowEncoder
from cmlp.sources.order import Sortedness
from cmlp.sources.plan import LANES, MOST_LANES, HeldRows, in_words, windows_of
from cmlp.training.feed import Window

PIECE = 1 << 22
"""Bytes that are read at a time: what reading takes in addition to the windows."""

FEWEST = 4
"""Batches that a window has, at least."""

AHEAD = 16
"""Parts of blocks that the system may read before they are due."""

POLL = 0.05
"""Seconds between two checks of a waiting thread whether it is to end."""


class Filled(NamedTuple):
    """A window that was read."""

    data: Data
    order: NDArray[np.int64]
    buffer: Array


@dataclass
class Layout:
    """How the rows of a source become windows.

    Attributes
    ----------
    counts : list of int
        Rows of each block to train on; of a stream, of all of it.
    n_rows : int
        Rows of a window, a multiple of `batch_size`.
    seed : int
        What the order is drawn by.
    lanes : int
        Blocks that are read side by side.
    piece : int
        Bytes that are read at a time.
    """

    counts: list[int]
    n_rows: int
    batch_size: int
    shuffle: bool
    seed: int
    held: HeldRows = field(default_factory=lambda: HeldRows(0, 0.0))
    lanes: int = LANES
    piece: int = PIECE

    def kept(self) -> dict[str, Any]:
        """Return what a resumed training has to have the same of."""
        return {"rows": self.n_rows, "lanes": self.lanes, "held": self.held.fraction}

    @property
    def total(self) -> int:
        """Rows of an epoch."""
        return sum(self.counts)

    def sizes(self, epoch: int) -> Iterator[int]:
        """Yield the rows of each window; the first ones of a training are small, and soon read."""
        for part in (8, 4, 2) if epoch == 0 else ():
            n = self.n_rows // part // self.batch_size * self.batch_size
            yield max(n, FEWEST * self.batch_size)
        yield from itertools.repeat(self.n_rows)

    def order(self, epoch: int, number: int, n: int) -> NDArray[np.int64]:
        """Return the order of the rows of a window."""
        if not self.shuffle:
            return np.arange(n, dtype=np.int64)
        return np.random.default_rng([self.seed, epoch, number]).permutation(n)


def kept_dtype(source: Source, dtype: np.dtype[Any]) -> np.dtype[Any]:
    """Return what numbers of a source are in memory: the network's type, where that is narrower.

    The core converts each number to it in any case, before anything else.
    """
    return dtype if source.dtype.itemsize > dtype.itemsize else source.dtype


def row_bytes(source: Source, dtype: np.dtype[Any], target_bytes: int = 8) -> int:
    """Return the bytes of a row in a window: numbers, target, weight, and place in the order."""
    return source.n_features * kept_dtype(source, dtype).itemsize + target_bytes + 24


def lanes_in(memory: int, source: Source) -> int:
    """Return the blocks that are read side by side: their decoding has a quarter of the memory."""
    if not source.scratch:
        return MOST_LANES
    return max(1, min(LANES, memory // 4 // source.scratch))


def window_rows(
    memory: int, source: Source, size: int, batch_size: int, whole: int, lanes: int
) -> int:
    """Return the rows of a window, a multiple of `batch_size`.

    Two windows, and what reading takes, are within `memory`.

    Parameters
    ----------
    size : int
        Bytes of a row.
    whole : int
        The memory that was given, of which some may be for other rows.

    Raises
    ------
    ValueError
        If a window would have less than four batches.
    """
    scratch = lanes * source.scratch
    left = memory - 2 * piece_bytes(memory) - scratch
    n = max(0, int(left / (2 * size))) // batch_size * batch_size
    if n < FEWEST * batch_size:
        room = 2 * size * FEWEST * batch_size  # with more memory lanes may take a quarter of it
        need = max((room + scratch) * 8 / 7, room * 8 / 5) * whole / memory
        raise ValueError(
            f"windows of {FEWEST} batches of {batch_size} rows need memory={in_words(need)!r}; "
            f"it is {in_words(whole)!r}: give more, or lower batch_size"
        )
    return n


def piece_bytes(memory: int) -> int:
    """Return the bytes that are read at a time."""
    return min(PIECE, memory // 16)


# Reading -----------------------------------------------------------------------------------------


class Stopped(Exception):
    """Reading is to end."""


class Filler:
    """Reads rows of a source into windows, with their targets encoded.

    Parameters
    ----------
    take : callable
        Waits for a buffer, (rows of a window, n_features); raises :class:`Stopped`.
    give : callable
        Takes one that was not needed.
    check : callable
        Called between two pieces; raises :class:`Stopped`.
    """

    def __init__(
        self,
        source: Source,
        encoder: RowEncoder,
        layout: Layout,
        take: Callable[[], Array],
        give: Callable[[Array], None],
        check: Callable[[], None],
    ) -> None:
        self.source, self.encoder, self.layout = source, encoder, layout
        self.take, self.give, self.check = take, give, check
        self.sortedness = Sortedness()

    def windows(self, epoch: int, done: int) -> Iterator[Filled]:
        """Yield the windows of an epoch without its first `done` rows."""
        if self.source.blocks is None:
            yield from self._of_stream(epoch, done)
            return
        layout, before = self.layout, 0
        key = [layout.seed, epoch] if layout.shuffle else None
        lanes = layout.lanes if layout.shuffle else 1
        turned = layout.shuffle and not self.source.scratch
        planned = windows_of(layout.counts, layout.sizes(epoch), lanes, key, turned=turned)
        for number, spans in enumerate(planned):
            n = sum(stop - start for _, start, stop in spans)
            if before + n > done:
                room = _Room(self.take())
                for at, (block, start, stop) in enumerate(spans):
                    if at + AHEAD < len(spans):
                        self.source.expect(*spans[at + AHEAD])
                    for found in self._pieces(block, start, stop):
                        self.check()
                        if layout.shuffle and epoch == 0:
                            self.sortedness.see(block, found.y)
                        room.add(found)
                order = layout.order(epoch, number, n)[max(0, done - before) :]
                yield Filled(room.data(), order, room.buffer)
            before += n

    def _pieces(self, block: int, start: int, stop: int) -> Iterator[Block]:
        """Yield rows to train on, counted among these."""
        held, source, kept = self.layout.held, self.source, None
        assert source.blocks is not None
        if held.fraction:
            kept = held.kept(block, source.blocks[block])[start:stop]
            start, stop = int(kept[0]), int(kept[-1]) + 1
        size = max(1, self.layout.piece // max(1, source.n_features * source.dtype.itemsize))
        for first in range(start, stop, size):
            last = min(first + size, stop)
            found = self._encoded(source.read(block, first, last), block, first)
            yield found if kept is None else taken(found, ~held.mask(block, first, last))

    def _encoded(self, found: Block, block: int, first: int) -> Block:
        return self.encoder(found, lambda row: self.source.place(block, first + row))

    def _of_stream(self, epoch: int, done: int) -> Iterator[Filled]:
        """Yield the same of a stream: of a shuffled window half of the rows stay for the next."""
        layout, before, number, ended = self.layout, 0, 0, False
        pieces = self._stream()
        rest = next(pieces, None)
        kept: tuple[Data, NDArray[np.int64]] | None = None
        while before < layout.total:
            room = _Room(self.take())
            if kept is not None:
                room.add_rows(*kept)
            while not ended and room.left:
                if rest is None or not len(rest.X):
                    rest = next(pieces, None)
                    ended = rest is None
                else:
                    n = min(room.left, len(rest.X))
                    room.add(taken(rest, slice(n)))
                    rest = taken(rest, slice(n, None))
            if not room.at:
                raise self._other_rows(before)
            data, order = room.data(), layout.order(epoch, number, room.at)
            if layout.shuffle and not ended:
                n = len(order) // 2 // layout.batch_size * layout.batch_size
                kept = data, np.sort(order[n:])
                order = order[:n]
            else:
                kept = None
            if before + len(order) > done:
                yield Filled(data, order[max(0, done - before) :], room.buffer)
            else:
                self.give(room.buffer)
            before += len(order)
            number += 1
        if before != layout.total or (rest is not None and len(rest.X)) or next(pieces, None):
            raise self._other_rows(before)

    def _other_rows(self, n: int) -> DataError:
        return DataError(
            f"the stream has other rows than at first: {self.layout.total:,} then, now {n:,} or "
            "more; what makes it must return the same rows at each call"
        )

    def _stream(self) -> Iterator[Block]:
        """Yield the rows of a stream to train on."""
        n, held = 0, self.layout.held
        for found in self.source.stream():
            self.check()
            first, n = n, n + len(found.X)
            found = self._encoded(found, 0, first)
            yield taken(found, ~held.mask(0, first, n)) if held.fraction else found


class _Room:
    """A buffer that is being filled."""

    def __init__(self, buffer: Array) -> None:
        self.buffer, self.at = buffer, 0
        self.targets: list[Array] = []
        self.weights: list[Array] = []

    @property
    def left(self) -> int:
        """Rows that it has room for."""
        return len(self.buffer) - self.at

    def add(self, found: Block) -> None:
        """Copy rows into it."""
        self.buffer[self.at : self.at + len(found.X)] = found.X
        self._count(len(found.X), found.y, found.weight)

    def add_rows(self, data: Data, rows: NDArray[np.int64]) -> None:
        """Copy some rows of another window into it."""
        out = self.buffer[self.at : self.at + len(rows)]
        np.take(data.X, rows, axis=0, out=out, mode="clip")  # type: ignore[call-overload]
        weights = None if data.weights is None else data.weights[rows]
        self._count(len(rows), data.targets[rows], weights)

    def _count(self, n: int, targets: Array, weights: Array | None) -> None:
        self.at += n
        self.targets.append(targets)
        if weights is not None:
            self.weights.append(weights)

    def data(self) -> Data:
        """Return what it holds."""
        weights = np.concatenate(self.weights) if self.weights else None
        return Data(self.buffer[: self.at], np.concatenate(self.targets), weights)


# The thread --------------------------------------------------------------------------------------


class WindowFeed:
    """Yields windows of a source to a training; see :class:`cmlp.training.feed.Feed`.

    Parameters
    ----------
    n_epochs : int
        Epochs that are read, at most.
    latest : Data
        A few rows.
    """

    def __init__(
        self, source: Source, encoder: RowEncoder, layout: Layout, n_epochs: int, latest: Data
    ) -> None:
        self.source, self.layout, self.n_epochs = source.reopened(), layout, n_epochs
        self.filler = Filler(self.source, encoder, layout, self._take, self.give, self._check)
        self.n_rows, self.dtype = layout.total, kept_dtype(source, encoder.dtype)
        self.full: queue.SimpleQueue[Filled | BaseException] = queue.SimpleQueue()
        self.free: queue.SimpleQueue[Array] = queue.SimpleQueue()
        self.halt = threading.Event()
        self.thread: threading.Thread | None = None
        self.seconds = 0.0
        self.warned = not layout.shuffle
        self.latest = latest

    # In the thread that reads

    def _check(self) -> None:
        if self.halt.is_set():
            raise Stopped

    def _take(self) -> Array:
        while True:
            self._check()
            try:
                return self.free.get(timeout=POLL)
            except queue.Empty:
                continue

    def give(self, buffer: Array) -> None:
        """Return a buffer, to be filled again."""
        self.free.put(buffer)

    def _read(self, epoch: int, done: int) -> None:
        try:
            for number in range(epoch, self.n_epochs):
                for filled in self.filler.windows(number, done if number == epoch else 0):
                    self.full.put(filled)
        except Stopped:
            pass
        except BaseException as error:  # it is raised again by the thread that trains
            self.full.put(error)
        finally:
            self.source.close()

    # In the thread that trains

    def windows(self, epoch: int, done: int, out_of_time: Callable[[], bool]) -> Iterator[Window]:
        """Yield the windows of an epoch without its first `done` rows; fewer once time is over."""
        if self.thread is None:
            shape = self.layout.n_rows, self.source.n_features
            for _ in range(2):
                self.free.put(np.empty(shape, self.dtype))
            self.thread = threading.Thread(
                target=self._read, args=(epoch, done), name="cmlp reader", daemon=True
            )
            self.thread.start()
        while done < self.n_rows:
            filled = self._wait(out_of_time)
            if filled is None:
                return
            self.latest = filled.data
            if epoch == 0:
                self._warn_of_order()
            yield Window(filled.data, filled.order)
            done += len(filled.order)
            self.give(filled.buffer)

    def _wait(self, out_of_time: Callable[[], bool]) -> Filled | None:
        began = time.perf_counter()
        try:
            while not out_of_time():
                try:
                    found = self.full.get(timeout=POLL)
                except queue.Empty:
                    continue
                if isinstance(found, BaseException):
                    raise found
                return found
            return None
        finally:
            self.seconds += time.perf_counter() - began

    def _warn_of_order(self) -> None:
        if self.warned or not self.filler.sortedness.is_sorted():
            return
        self.warned = True
        warn(
            "the rows are sorted by their targets: blocks differ, and windows of "
            f"{self.layout.n_rows:,} rows do not mix them all. Training may learn less; "
            "cmlp.data.shuffled writes the rows in random order, once"
        )

    def waited(self) -> float:
        """Return the seconds that training has waited for rows, since the last call."""
        seconds, self.seconds = self.seconds, 0.0
        return seconds

    def close(self) -> None:
        """End the reading; the thread ends at the next piece."""
        self.halt.set()
        if self.thread is not None:
            self.thread.join(1.0)
        self.free, self.full = queue.SimpleQueue(), queue.SimpleQueue()
