"""Tables in sources: read in pieces, and encoded as they are read."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from cmlp.core.layout import Array
from cmlp.data.cells import DataError, show
from cmlp.data.source import Block, Derived, Source, taken
from cmlp.sources.encode import RowEncoder
from cmlp.sources.plan import HeldRows
from cmlp.sources.windows import PIECE
from cmlp.tables.columns import (
    ColumnError,
    Form,
    Levels,
    Numbers,
    are_iso_dates,
    as_moments,
    present_values,
)
from cmlp.tables.columns import Moments as Dates
from cmlp.tables.containers import columns_of
from cmlp.tables.forms import FormColumn, FormTable
from cmlp.tables.readers import read_column


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


def pieces_of(source: Source, blocks: Iterable[int] | None = None) -> Iterator[Piece]:
    """Yield all rows in order, or those of some blocks, in pieces."""
    with contextlib.closing(source.reopened()) as own:
        if own.blocks is None:
            start = 0
            for found in getattr(own, "stream_tables", own.stream)():
                yield Piece(*_named(own, found), 0, start)
                start += len(found.y)
            return
        rows = max(256, PIECE // (8 * max(1, own.n_features)))
        for block in range(len(own.blocks)) if blocks is None else blocks:
            n = own.blocks[block]
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


def about_pieces(source: Source, function: Callable[[Any], Any]) -> list[Any]:
    """Return what a function returns about the rows of each piece; its errors have their place."""
    found = []
    for piece in pieces_of(source):
        with located(place_of(source, piece)):
            found.append(function(piece.X))
    return found


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


def dated(source: Source, table: FormTable, categories: Any) -> FormTable:
    """Return a table with text that is dates as dates, where the source reads such.

    Parameters
    ----------
    categories : list of str or int, or anything else
        Columns that are categories in any case.
    """
    if not source.reads_dates:
        return table
    kept = categories if isinstance(categories, (list, tuple)) else ()
    forms, names = list(table.forms), table.names or list(map(str, range(len(table.forms))))
    for place, (name, form) in enumerate(zip(names, forms, strict=True)):
        if not isinstance(form, Levels) or form.declared or name in kept or place in kept:
            continue
        if are_iso_dates(present_values(form)):
            forms[place] = as_moments(name, form)
    return FormTable(table.names, forms, table.n_rows)


# Encoded -----------------------------------------------------------------------------------------


class EncodedSource(Derived):
    """A source of tables, whose rows an encoder turns into numbers as they are read."""

    def __init__(self, source: Source, encoder: Any, dtype: np.dtype[Any]) -> None:
        super().__init__(source)
        self.encoder, self.rows = encoder, source.n_rows
        self.n_features, self.dtype = len(encoder.outputs_), dtype
        self.feature_names, self.target_name = [], None

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
            where = place_of(self.source, piece)
            yield self._encoded(Block(piece.X, piece.y, piece.weight), where)

    def stream_targets(self) -> Iterator[Block]:
        """Yield all targets in order."""
        return self.source.stream_targets()

    def _encoded(self, found: Block, where: Callable[[int], str]) -> Block:
        with located(where):
            return found._replace(X=self.encoder.transform(found.X))


def place_of(source: Source, piece: Piece) -> Callable[[int], str]:
    """Return what tells the place of a row of a piece."""
    return lambda row: source.place(piece.block, piece.start + row)


class TrainingRows(Derived):
    """Rows of another source with their targets encoded: those to train on, or those held out.

    Parameters
    ----------
    source : Source
        Of numbers, in blocks.
    targets : RowEncoder
    which : HeldRows
    held_out : bool
        Which of the two.
    """

    def __init__(
        self, source: Source, targets: RowEncoder, which: HeldRows, held_out: bool = False
    ) -> None:
        super().__init__(source)
        self.targets, self.which, self.held_out = targets, which, held_out
        whole = source.blocks or ()
        kept = which.n_kept(whole)
        self.blocks = tuple(np.subtract(whole, kept).tolist() if held_out else kept)
        self._of: tuple[int, Array] = (-1, np.empty(0, np.int64))

    def _numbers(self, block: int) -> Array:
        """Return the numbers of the rows among all of their block."""
        of, rows = self._of
        if of != block:
            assert self.source.blocks is not None
            mask = self.which.mask(block, 0, self.source.blocks[block])
            rows = np.flatnonzero(mask if self.held_out else ~mask)
            self._of = block, rows
        return rows

    def _read(self, read: Any, block: int, start: int, stop: int | None) -> Block:
        rows = self._numbers(block)[start:stop]
        first, last = (int(rows[0]), int(rows[-1]) + 1) if len(rows) else (0, 0)
        found = taken(read(block, first, last), rows - first)
        y, weight = self.targets.of_targets(found, lambda row: self.place(block, start + row))
        return Block(found.X, y, weight)

    def place(self, block: int, row: int) -> str:
        """Return where a row is."""
        return self.source.place(block, int(self._numbers(block)[row]))

    def identity(self) -> Any:
        """Return the source, and which of its rows."""
        return self.source.fingerprint(), self.which.seed, self.which.fraction, self.held_out

    def __getstate__(self) -> dict[str, Any]:
        return super().__getstate__() | {"_of": (-1, np.empty(0, np.int64))}


@contextlib.contextmanager
def located(where: Callable[[int], str]) -> Iterator[None]:
    """Give an error about a value of some rows its place."""
    try:
        yield
    except ColumnError as error:
        if error.row is None:
            raise
        raise DataError(f"{where(error.row)}, column {show(error.name)}: {error.what}") from None
