"""Tables in sources: read in pieces, learned from in one pass, and encoded as they are read."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from cmlp.core.layout import Array
from cmlp.data.cells import DataError, show
from cmlp.data.source import Block, Source
from cmlp.data.summary import Labels, Moments
from cmlp.sources.plan import HeldRows
from cmlp.sources.windows import PIECE
from cmlp.tables.columns import ColumnError, Form, Levels, Numbers
from cmlp.tables.columns import Moments as Dates
from cmlp.tables.containers import columns_of
from cmlp.tables.forms import FormColumn, FormTable
from cmlp.tables.readers import read_column

MOST_LEVELS = 100_000
"""Levels of a column that are counted; of a column with more, those of the sample are known."""


class Piece(NamedTuple):
    """Some rows of a table, and where they are: X is a table of any kind."""

    X: Any
    y: Array
    weight: Array | None
    block: int
    start: int


def read_table(source: Source, block: int, start: int, stop: int) -> Block:
    """Return rows of a block with X as a table: of Arrow, of columns, or a matrix of numbers."""
    read = getattr(source, "read_table", source.read)
    return _named(source, read(block, start, stop))


def _named(source: Source, found: Block) -> Block:
    """Return rows with a table as X, also where they are a matrix with names."""
    if isinstance(found.X, np.ndarray) and source.feature_names:
        forms: list[Form] = [Numbers(column) for column in found.X.T]
        return found._replace(X=FormTable(source.feature_names, forms, len(found.X)))
    return found


def pieces_of(source: Source) -> Iterator[Piece]:
    """Yield all rows in order, in pieces."""
    with contextlib.closing(source.reopened()) as own:
        if own.blocks is None:
            start = 0
            for found in getattr(own, "stream_tables", own.stream)():
                yield Piece(*_named(own, found), 0, start)
                start += len(found.y)
            return
        rows = max(256, PIECE // (8 * max(1, own.n_features)))
        for block, n in enumerate(own.blocks):
            for start in range(0, n, rows):
                found = read_table(own, block, start, min(start + rows, n))
                yield Piece(*found, block, start)


# Forms -------------------------------------------------------------------------------------------


def forms_of(X: Any, who: str) -> tuple[list[str] | None, list[Form]]:
    """Return the names and the columns of a table."""
    columns = columns_of(X, who)
    return columns.names, [read_column(columns.label(i), raw) for i, raw in enumerate(columns.raw)]


def joined_forms(parts: Sequence[Form]) -> Form:
    """Return parts of a column as one; numbers among text are levels, as text."""
    first = parts[0]
    if len(parts) == 1:
        return first
    if all(type(part) is type(first) for part in parts) and not isinstance(first, Levels):
        if isinstance(first, Dates) and len({part.zone for part in parts}) > 1:  # type: ignore[union-attr]
            raise DataError("dates of several time zones are in one column; give all of them one")
        whole: Any = {first._fields[0]: np.concatenate([part[0] for part in parts])}
        return first._replace(**whole)
    places: dict[Any, int] = {}
    codes = []
    for part in parts:
        if isinstance(part, Levels):
            values, numbers = part.values, part.codes
        else:
            found, numbers = np.unique(part[0], return_inverse=True)
            values = found.tolist()
            gaps = np.isnan(found) if found.dtype.kind == "f" else np.zeros(len(found), bool)
            numbers = np.where(gaps[numbers], -1, numbers)
        table = np.array(
            [places.setdefault((type(value), value), len(places)) for value in values] + [-1],
            np.int64,
        )
        codes.append(table[numbers])
    declared = any(isinstance(part, Levels) and part.declared for part in parts)
    return Levels(np.concatenate(codes), [value for _, value in places], declared)


def some_rows(form: Form, rows: Any) -> Form:
    """Return some rows of a column."""
    return FormColumn(form)[rows].form


def whole_table(source: Source, who: str) -> tuple[FormTable, Array, Array | None]:
    """Return all rows as one table, with targets and weights."""
    names, parts, targets, weights = None, [], [], []
    for piece in pieces_of(source):
        names, forms = forms_of(piece.X, who)
        parts.append(forms)
        targets.append(piece.y)
        weights += [] if piece.weight is None else [piece.weight]
    joined = [joined_forms(column) for column in zip(*parts, strict=True)]
    y = np.concatenate(targets)
    return FormTable(names, joined, len(y)), y, np.concatenate(weights) if weights else None


# One pass ----------------------------------------------------------------------------------------


@dataclass
class Learned:
    """What one reading has found, in bounded memory.

    Attributes
    ----------
    sample : FormTable
        Rows to train on, drawn at random; columns of levels may be longer: they have each level,
        on as many rows as it has, up to `min_rows`. A column of numbers has a gap if there is one.
    n_rows : int
        Rows to train on.
    labels, counts : ndarray or None
        The distinct targets, and on how many rows they are; None for several targets per row.
    low, high, mean, deviation : ndarray
        Of targets that are numbers, (n_targets,).
    """

    sample: FormTable
    n_rows: int
    labels: Array | None
    counts: NDArray[np.int64] | None
    moments: Moments


def learn(source: Source, who: str, held: HeldRows, most: int, min_rows: int, seed: int) -> Learned:
    """Read a source once, and return a sample of the rows to train on and what all of them hold.

    Parameters
    ----------
    most : int
        Rows of the sample; if there are no more than these, all are in it.
    """
    sample = _Sample(most, seed)
    levels: dict[int, _Rare] = {}
    labels, moments = Labels(), Moments()
    names, n = None, 0
    for piece in pieces_of(source):
        rows = np.arange(piece.start, piece.start + len(piece.y))
        mask = held.mask(piece.block, piece.start, piece.start + len(piece.y))
        kept = np.flatnonzero(~mask)
        names, forms = forms_of(piece.X, who)
        if len(kept) < len(rows):
            forms, y = [some_rows(form, kept) for form in forms], piece.y[kept]
        else:
            y = piece.y
        n += len(y)
        _see_targets(y, labels, moments)
        sample.add(forms, piece.block, rows[kept])
        for place, form in enumerate(forms):
            levels.setdefault(place, _Rare(min_rows)).see(form, piece.block, rows[kept])
    forms = sample.forms()
    for place, rare in levels.items():
        forms[place] = rare.added(forms[place], sample.ids)
    table = FormTable(names, forms, len(sample.ids))
    return Learned(table, n, labels.labels, labels.counts, moments)


def _see_targets(y: Array, labels: Labels, moments: Moments) -> None:
    if y.ndim == 1 or y.shape[1] == 1:
        labels.see(y.reshape(-1))
    if y.dtype.kind in "fiub":
        moments.see(y.reshape(len(y), -1))


class _Sample:
    """The rows with the smallest hashes: a sample that is drawn at random, without replacement."""

    def __init__(self, most: int, seed: int) -> None:
        self.most, self.hashes = most, HeldRows(seed, 0.0)
        self.limit = np.uint64(2**64 - 1)
        self.parts: list[tuple[list[Form], NDArray[np.uint64], Array]] = []
        self.n = 0
        self.ids: Array = np.zeros((0, 2), np.int64)

    def add(self, forms: list[Form], block: int, rows: Array) -> None:
        """Add rows of a block."""
        keys = self.hashes.hashes(block, rows)
        taken = np.flatnonzero(keys <= self.limit)
        if len(taken) < len(rows):
            forms = [some_rows(form, taken) for form in forms]
        ids = np.column_stack([np.full(len(taken), block), rows[taken]])
        self.parts.append((forms, keys[taken], ids))
        self.n += len(taken)
        if self.n > 2 * self.most:
            self._cut()

    def _cut(self) -> None:
        """Keep the rows with the smallest hashes, in their order."""
        forms = [joined_forms(column) for column in zip(*(p[0] for p in self.parts), strict=True)]
        keys = np.concatenate([part[1] for part in self.parts])
        ids = np.concatenate([part[2] for part in self.parts])
        if len(keys) > self.most:
            self.limit = np.partition(keys, self.most - 1)[self.most - 1]
            rows = np.flatnonzero(keys <= self.limit)
            forms = [_pruned(some_rows(form, rows)) for form in forms]
            keys, ids = keys[rows], ids[rows]
        self.parts, self.n = [(forms, keys, ids)], len(keys)

    def forms(self) -> list[Form]:
        """Return the columns of the sample."""
        self._cut()
        forms, _, self.ids = self.parts[0]
        return list(forms)


def _pruned(form: Form) -> Form:
    """Return levels without those that no row has."""
    if not isinstance(form, Levels):
        return form
    used, codes = np.unique(form.codes, return_inverse=True)
    shift = int(len(used) > 0 and used[0] < 0)
    values = [form.values[code] for code in used[shift:].tolist()]
    return form._replace(codes=codes - shift, values=values)


@dataclass
class _Rare:
    """The first rows of each level of a column, and whether it has a gap."""

    min_rows: int
    counts: dict[Any, int] = field(default_factory=dict)
    parts: list[tuple[Form, Array]] = field(default_factory=list)
    gap: bool = False
    gave_up: bool = False

    def see(self, form: Form, block: int, rows: Array) -> None:
        """Add rows of a block."""
        if not isinstance(form, Levels):
            self.gap = self.gap or bool(form[0].dtype.kind == "f" and np.isnan(form[0]).any())
            return
        if self.gave_up:
            return
        present = np.bincount(form.codes[form.codes >= 0], minlength=len(form.values))
        taken = []
        for code in np.flatnonzero(present).tolist():
            value = form.values[code]
            before = self.counts.get(value, 0)
            if before < self.min_rows:
                taken.append(np.flatnonzero(form.codes == code)[: self.min_rows - before])
                self.counts[value] = before + int(present[code])
        if len(self.counts) > MOST_LEVELS:
            self.gave_up, self.parts = True, []
        elif taken:
            where = np.sort(np.concatenate(taken))
            ids = np.column_stack([np.full(len(where), block), rows[where]])
            self.parts.append((_pruned(some_rows(form, where)), ids))

    def added(self, form: Form, ids: Array) -> Form:
        """Return a column of the sample with these rows, but for those that it has already."""
        if self.gap and isinstance(form, Numbers) and not np.isnan(form.values).any():
            return Numbers(np.append(form.values.astype(np.float64), np.nan))
        known = set(map(tuple, ids.tolist())) if self.parts else set()
        parts = [form]
        for found, its_ids in self.parts:
            new = [row for row, key in enumerate(map(tuple, its_ids.tolist())) if key not in known]
            if new:
                parts.append(some_rows(found, np.array(new)))
        return joined_forms(parts)


# Encoded -----------------------------------------------------------------------------------------


class EncodedSource(Source):
    """A source of tables, whose rows an encoder turns into numbers as they are read."""

    def __init__(self, source: Source, encoder: Any, dtype: np.dtype[Any]) -> None:
        self.source, self.encoder = source, encoder
        self.blocks = source.blocks
        self.n_features, self.dtype = len(encoder.outputs_), dtype
        self.scratch = source.scratch
        self.rows = source.n_rows

    @property
    def n_rows(self) -> int | None:
        """Number of rows."""
        return self.rows

    def read(self, block: int, start: int = 0, stop: int | None = None) -> Block:
        """Return encoded rows of a block."""
        assert self.blocks is not None
        stop = self.blocks[block] if stop is None else stop
        found = read_table(self.source, block, start, stop)
        return self._encoded(found, lambda row: self.place(block, start + row))

    def read_targets(self, block: int, start: int = 0, stop: int | None = None) -> Block:
        """Return targets of a block."""
        return self.source.read_targets(block, start, stop)

    def stream(self) -> Iterator[Block]:
        """Yield all rows in order, encoded."""
        for piece in pieces_of(self.source):
            where = _place_of(self.source, piece)
            yield self._encoded(Block(piece.X, piece.y, piece.weight), where)

    def stream_targets(self) -> Iterator[Block]:
        """Yield all targets in order."""
        return self.source.stream_targets()

    def _encoded(self, found: Block, where: Callable[[int], str]) -> Block:
        return found._replace(X=encoded(self.encoder, found.X, where))

    def place(self, block: int, row: int) -> str:
        """Return where a row is."""
        return self.source.place(block, row)

    def identity(self) -> Any:
        """Return the source."""
        return self.source.fingerprint()

    def close(self) -> None:
        """Close open files."""
        self.source.close()

    def reopened(self) -> EncodedSource:
        """Return the same with files of its own."""
        return EncodedSource(self.source.reopened(), self.encoder, self.dtype)


def _place_of(source: Source, piece: Piece) -> Callable[[int], str]:
    return lambda row: source.place(piece.block, piece.start + row)


def encoded(encoder: Any, X: Any, where: Callable[[int], str]) -> Array:
    """Return encoded rows; an error about a value has its place."""
    try:
        found: Array = encoder.transform(X)
        return found
    except ColumnError as error:
        if error.row is None:
            raise
        raise DataError(f"{where(error.row)}, column {show(error.name)}: {error.what}") from None
