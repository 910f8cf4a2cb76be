"""Source: rows in blocks that can be read alone, in place of arrays in memory.

The functions of :mod:`cmlp.data` make sources; training reads them through this class alone, and so
can programs with a source of their own.
"""

from __future__ import annotations

import contextlib
import copy
import heapq
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from itertools import accumulate, chain
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from cmlp.core.checks import check_integer
from cmlp.core.layout import Array

if TYPE_CHECKING:
    from cmlp.data.summary import Summary

PIECE_BYTES = 1 << 24
"""Bytes of X that are read at a time where a whole block is not needed."""

BLOCK_BYTES, BLOCK_ROWS = 1 << 23, 1 << 18
"""Size of a block, at most, where the storage has none of its own."""


class Block(NamedTuple):
    """Some rows: X is (n, n_features), y (n,) or (n, n_targets), weight (n,) or None.

    X is an array; or a table with as many rows, where tables are read.
    """

    X: Any
    y: Array
    weight: Array | None = None


class Source:
    """Rows with targets, in blocks that can be read alone; a base class.

    A source can be pickled; files are opened at their first use, in each process anew.

    A class of its own sets the attributes, and has :meth:`read`; a stream, whose `blocks` are None,
    has :meth:`stream` instead. Everything else follows from these.

    Attributes
    ----------
    blocks : tuple of int or None
        Rows of each block; None for a stream, which is only read from its beginning.
    n_rows : int or None
        Rows of all blocks; None if a stream does not know it.
    n_features : int
    dtype : numpy.dtype
        Of X.
    feature_names : list of str
        Empty where columns have no names.
    target_name : str or None
    scratch : int
        Bytes, about, that reading takes for each block that is being read, besides its result; 0 if
        any row of a block is read as fast as the next one.
    keeps_gaps : bool
        Whether targets that are missing are returned, as NaN or None; else they may be refused.
    reads_dates : bool
        Whether text that is dates in ISO's form is dates, as it is in files.
    """

    blocks: tuple[int, ...] | None = None
    n_features: int
    dtype: np.dtype[Any]
    feature_names: list[str] = []  # noqa: RUF012 - replaced, never changed
    target_name: str | None = None
    scratch: int = 0
    keeps_gaps: bool = False
    reads_dates: bool = False

    @property
    def n_rows(self) -> int | None:
        """Number of rows; None if it is not known."""
        return None if self.blocks is None else sum(self.blocks)

    @property
    def near(self) -> Iterable[int]:
        """Blocks that are in this process already."""
        return ()

    def read(self, block: int, start: int = 0, stop: int | None = None) -> Block:
        """Return rows `start` to `stop` of a block.

        Reading on where the last call for this block has stopped is fast for every source.

        Raises
        ------
        DataError
            If a file is missing, damaged or has changed; it names the file and the place.
        """
        raise NotImplementedError

    def read_targets(self, block: int, start: int = 0, stop: int | None = None) -> Block:
        """Return the same with an X that has no columns: only targets and weights are read."""
        found = getattr(self, "read_table", self.read)(block, start, stop)
        return found._replace(X=np.empty((len(found.y), 0), self.dtype))

    def expect(self, block: int, start: int, stop: int) -> None:
        """Prepare to read these rows soon; a source that cannot does nothing."""

    def first(self, n: int = 256, *, targets_only: bool = False) -> Block:
        """Return some of the first rows, `n` at most.

        Raises
        ------
        DataError
            If there are no rows.
        """
        with contextlib.closing(self.reopened()) as own:
            read = own.read_targets if targets_only else own.read
            pieces = own.stream_targets() if targets_only else own.stream()
            if self.blocks is not None:
                blocks = chain(self.near, range(len(self.blocks)))
                pieces = (read(i, 0, min(n, self.blocks[i])) for i in blocks if self.blocks[i])
            for found in pieces:
                if len(found.y):
                    return taken(found, slice(n))
        again = "; what makes it must return the same rows at each call"
        from cmlp.data.cells import DataError  # with decimal, which `import cmlp` does without

        raise DataError(f"the source has no rows{again if self.blocks is None else ''}")

    def stream(self) -> Iterator[Block]:
        """Yield all rows in order, in pieces that fit into memory."""
        for block, n in enumerate(self.blocks or ()):
            for start in range(0, n, self.piece):
                yield self.read(block, start, min(start + self.piece, n))

    def stream_targets(self) -> Iterator[Block]:
        """Yield all targets and weights in order; X has no columns."""
        if self.blocks is None:
            yield from (found._replace(X=found.X[:, :0]) for found in self.stream())
        for block, n in enumerate(self.blocks or ()):
            for start in range(0, n, 1 << 20):
                yield self.read_targets(block, start, min(start + (1 << 20), n))

    @property
    def piece(self) -> int:
        """Rows that are read at a time."""
        return max(1, PIECE_BYTES // max(1, self.n_features * self.dtype.itemsize))

    def place(self, block: int, row: int) -> str:
        """Return where a row is, for a message."""
        return f"block {block}, row {row}"

    def fingerprint(self) -> str:
        """Return text that is another one where the rows are others: of shapes, sizes and names."""
        import hashlib

        described = repr((type(self).__name__, self.blocks, self.n_features, str(self.dtype),
                          self.feature_names, self.target_name, self.identity()))  # fmt: skip
        return hashlib.sha256(described.encode()).hexdigest()[:16]

    def identity(self) -> Any:
        """Return what tells this source from another of the same shape, such as its paths."""
        return None

    def summary(self, features: bool = True) -> Summary:
        """Read everything once, and return what it holds; it is computed once and kept.

        Parameters
        ----------
        features : bool
            False reads the targets only.
        """
        from cmlp.data.summary import summary_of

        kept: Summary | None = vars(self).get("_summary")
        if kept is None or (features and kept.features is None):
            kept = self._summary = summary_of(streamed(self, targets_only=not features), features)
        return kept

    def resident(self) -> Block | None:
        """Return all rows where they are arrays in memory already; None where they are not."""
        return None

    def part(self, rank: int, size: int) -> Source:
        """Return a share of the rows, the same for the same `rank` and `size` in every process.

        The shares of all ranks are disjoint, and together the whole. With four blocks per rank or
        more, a share is whole blocks, which are dealt so that the shares are about equal; else it
        is part of every block.

        Raises
        ------
        TypeError
            For a stream, which cannot be divided.
        """
        check_integer("size", size, 1)
        if not 0 <= check_integer("rank", rank, 0) < size:
            raise ValueError(f"rank must be 0 to {size - 1}, not {rank}")
        if self.blocks is None:
            raise TypeError(
                "a stream has no blocks that could be divided; write it to files first, as "
                "cmlp.data.shuffled does"
            )
        return self if size == 1 else Part(self, shares(self.blocks, size)[rank])

    def close(self) -> None:
        """Close open files; reading opens them again."""

    def reopened(self) -> Source:
        """Return the same source with files of its own, for another thread."""
        return copy.copy(self)

    def __getstate__(self) -> dict[str, Any]:
        """Return the state without open files."""
        return {name: value for name, value in vars(self).items() if not name.startswith("_open")}

    def __repr__(self) -> str:
        rows = "?" if self.n_rows is None else f"{self.n_rows:,}"
        blocks = "a stream" if self.blocks is None else f"{len(self.blocks):,} blocks"
        return f"<{type(self).__name__}: {rows} rows of {self.n_features}, {blocks}>"


def rows_per_block(row_bytes: int) -> int:
    """Return the rows of a block where the storage has no blocks of its own."""
    return max(1, min(BLOCK_ROWS, BLOCK_BYTES // max(1, row_bytes)))


class Shards:
    """Which of several arrays or files a row of all of them is in.

    Parameters
    ----------
    lengths : list of int
    """

    def __init__(self, lengths: list[int]) -> None:
        self.ends = list(accumulate(lengths))

    def pieces(self, start: int, stop: int) -> Iterator[tuple[int, int, int]]:
        """Yield shard, first and last row in it for rows `start` to `stop` of all."""
        while start < stop:
            shard = bisect_right(self.ends, start)
            begins = self.ends[shard - 1] if shard else 0
            end = min(stop, self.ends[shard])
            yield shard, start - begins, end - begins
            start = end


def streamed(source: Source, *, targets_only: bool = False) -> Iterator[Block]:
    """Yield all rows in order, or their targets, from files that are opened for this alone.

    Two threads, or a process and its fork, would move each other's place in a file.
    """
    with contextlib.closing(source.reopened()) as own:
        yield from own.stream_targets() if targets_only else own.stream()


def number_of_rows(source: Source) -> int:
    """Return how many rows there are; those of a stream are counted if it does not know."""
    n = source.n_rows
    return source.summary(features=False).n_rows if n is None else n


def taken(found: Block, rows: Any) -> Block:
    """Return some of the rows."""
    weight = None if found.weight is None else found.weight[rows]
    return Block(found.X[rows], found.y[rows], weight)


def joined(parts: list[Block]) -> Block:
    """Return rows one after the other."""
    if len(parts) == 1:
        return parts[0]
    weights = [part.weight for part in parts if part.weight is not None]
    return Block(
        np.concatenate([part.X for part in parts]),
        np.concatenate([part.y for part in parts]),
        np.concatenate(weights) if weights else None,
    )


def is_source(X: Any) -> bool:
    """Whether this is a source in place of X."""
    return isinstance(X, Source)


def no_targets(y: Any, sample_weight: Any = None, name: str = "y") -> None:
    """Check that what a source has is not passed in addition."""
    for what, value in ((name, y), ("sample_weight", sample_weight)):
        if value is not None:
            raise TypeError(
                f"a source has its own targets and weights: leave {what} out, or use "
                "cmlp.data.arrays(X, y, sample_weight)"
            )


# A share of the rows ------------------------------------------------------------------------------

Span = tuple[int, int, int]
"""Block, first row, row after the last."""


def shares(blocks: Sequence[int], size: int) -> list[list[Span]]:
    """Divide blocks between ranks: whole ones, if there are four for each; else part of each."""
    found: list[list[Span]] = [[] for _ in range(size)]
    if len(blocks) >= 4 * size:
        loads = [(0, rank) for rank in range(size)]
        for block in sorted(range(len(blocks)), key=lambda i: (-blocks[i], i)):
            load, rank = heapq.heappop(loads)  # the least loaded, the first of equals
            found[rank].append((block, 0, blocks[block]))
            heapq.heappush(loads, (load + blocks[block], rank))
        return [sorted(spans) for spans in found]
    before = 0
    for block, n in enumerate(blocks):
        offset = before % size  # so that what is left over does not always fall to the same rank
        cuts = [(n * rank + offset) // size for rank in range(size + 1)]
        for rank in range(size):
            if cuts[rank] < cuts[rank + 1]:
                found[rank].append((block, cuts[rank], cuts[rank + 1]))
        before += n
    return found


class Derived(Source):
    """Rows of another source; a base class.

    A class of its own has :meth:`_read`, which calls what reads rows, targets or tables there.
    """

    def __init__(self, source: Source) -> None:
        self.source, self.blocks = source, source.blocks
        self.n_features, self.dtype, self.scratch = source.n_features, source.dtype, source.scratch
        self.feature_names, self.target_name = source.feature_names, source.target_name
        self.reads_dates = source.reads_dates

    @property
    def near(self) -> Iterable[int]:
        """Blocks that are in this process already."""
        return self.source.near

    def _read(self, read: Any, block: int, start: int, stop: int | None) -> Block:
        raise NotImplementedError

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
        return self.source.place(block, row)

    def identity(self) -> Any:
        """Return the source."""
        return self.source.fingerprint()

    def close(self) -> None:
        """Close open files."""
        self.source.close()

    def reopened(self) -> Derived:
        """Return the same with files of its own."""
        other = copy.copy(self)
        other.source = self.source.reopened()
        return other


class Part(Derived):
    """Some spans of another source's blocks, as blocks of their own."""

    def __init__(self, source: Source, spans: list[Span]) -> None:
        super().__init__(source)
        self.spans, self.blocks = spans, tuple(stop - start for _, start, stop in spans)

    @property
    def near(self) -> Iterable[int]:
        """No blocks: some of its own may be parts of one that is."""
        return ()

    def _within(self, block: int, start: int, stop: int | None) -> Span:
        of, first, last = self.spans[block]
        return of, first + start, last if stop is None else first + stop

    def _read(self, read: Any, block: int, start: int, stop: int | None) -> Block:
        found: Block = read(*self._within(block, start, stop))
        return found

    def place(self, block: int, row: int) -> str:
        """Return where a row is."""
        of, first, _ = self._within(block, row, None)
        return self.source.place(of, first)

    def identity(self) -> Any:
        """Return the whole, and which spans of it."""
        return self.source.fingerprint(), self.spans
