"""Sources of streams of Arrow: polars, DuckDB, datasets and readers."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from cmlp.data.cells import DataError, show
from cmlp.data.source import Block, Source
from cmlp.sources.columns import (
    WITHOUT_TARGET,
    Missing,
    check_missing,
    chosen_columns,
    dtype_of,
    is_number,
    pyarrow,
    rows_of_table,
    targets_of,
    text_among,
)


def arrow(
    make: Callable[[], Any],
    target: str | Sequence[str] | None = None,
    columns: Sequence[str] | None = None,
    weight: str | None = None,
    missing: float | str = "raise",
) -> Source:
    """Return a source of a stream of Arrow. It needs pyarrow.

    Parameters
    ----------
    make : callable
        Returns a table or a reader: anything with ``__arrow_c_stream__``, such as frames of polars,
        relations of DuckDB and ``pyarrow.RecordBatchReader``. It is called once for each epoch, and
        has to return the same rows each time. A query that runs at each call streams, a table in
        memory does not: ``lambda: duckdb.sql("...")``.
    target, columns, weight
        As in :func:`cmlp.data.parquet`.
    missing : 'raise' or float
        The same, without 'skip'.

    Returns
    -------
    Source
        It has no blocks: rows that are near each other stay near, as windows follow each other.
    """
    if not callable(make):
        raise TypeError(
            f"make must be a function that returns a stream, not {type(make).__name__}: write "
            "lambda: ..."
        )
    how = check_missing(missing)
    if how == "skip":
        raise ValueError("missing='skip' is for files; filter the rows in the query")
    return ArrowSource(make, target, columns, weight, how)


class ArrowSource(Source):
    """Rows of a stream of Arrow."""

    blocks = None

    def __init__(
        self, make: Any, target: Any, columns: Any, weight: str | None, missing: Missing
    ) -> None:
        self.make, self.weight, self.missing = make, weight, missing
        reader = self._reader()
        schema = reader.schema
        self.feature_names, self.targets = chosen_columns(
            schema.names, target, columns, weight, "the stream"
        )
        self.target_name = self.targets[0] if len(self.targets) == 1 else None
        self.n_features = len(self.feature_names)
        self.types = {name: schema.field(name).type for name in schema.names}
        kinds = [self.types[name] for name in self.feature_names]
        self.dtype = dtype_of([kind for kind in kinds if is_number(kind)])

    def _reader(self) -> Any:
        made = self.make()
        if not hasattr(made, "__arrow_c_stream__"):
            raise TypeError(
                f"make() returned a {type(made).__name__}, which is no stream of Arrow: it has no "
                "__arrow_c_stream__. Return x.collect() of a lazy frame of polars, "
                "x.scanner().to_reader() of a dataset, x.read_all() of a file of Arrow"
            )
        return pyarrow("pyarrow").RecordBatchReader.from_stream(made)

    def _checked_reader(self) -> Any:
        """Return a reader whose columns are those of the first call."""
        reader = self._reader()
        schema = reader.schema
        found = dict(zip(schema.names, schema.types, strict=True))
        for name in [*self.feature_names, *self.targets, *([self.weight] if self.weight else [])]:
            if name not in found or is_number(found[name]) != is_number(self.types[name]):
                raise DataError(
                    f"the stream: the column {show(name)}, at first {self.types[name]}, "
                    f"is {found.get(name, 'missing')} now; what makes it must return the same "
                    "columns at each call"
                )
        return reader

    def stream(self) -> Iterator[Block]:
        """Yield all rows, in pieces."""
        text = text_among(self.types, self.feature_names, "the stream")
        if text:
            raise DataError(text)
        for found in self.stream_tables():
            yield found._replace(X=rows_of_table(found.X, self.dtype, self.missing))

    def stream_targets(self) -> Iterator[Block]:
        """Yield all targets."""
        if not self.targets:
            raise DataError(f"the stream: {WITHOUT_TARGET}")
        for batch, first in self._batches():
            yield Block(np.empty((batch.num_rows, 0), self.dtype), *self._targets(batch, first))

    def stream_tables(self) -> Iterator[Block]:
        """Yield all rows with X as a table of Arrow."""
        for batch, first in self._batches():
            table = pyarrow("pyarrow").Table.from_batches([batch]).select(self.feature_names)
            yield Block(table, *self._targets(batch, first))

    def _batches(self) -> Iterator[tuple[Any, int]]:
        n = 0
        try:
            for batch in self._checked_reader():
                for start in range(0, batch.num_rows, self.piece):
                    part = batch.slice(start, self.piece)
                    yield part, n
                    n += part.num_rows
        except (OSError, ValueError) as error:
            if isinstance(error, DataError):
                raise
            raise DataError(f"the stream, from row {n} on: {error}") from error

    def _targets(self, batch: Any, first: int) -> tuple[Any, Any]:
        return targets_of(batch, self.targets, self.weight, lambda row: self.place(0, first + row))

    def place(self, block: int, row: int) -> str:
        """Return where a row is."""
        return f"row {row} of the stream"

    def identity(self) -> Any:
        """Return the columns."""
        return self.targets, self.weight, self.missing
