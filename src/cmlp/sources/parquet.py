"""Sources of Parquet files: their row groups are the blocks."""

from __future__ import annotations

from collections.abc import Callable, Sequence
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
from cmlp.sources.paths import File, Paths, identity_of, is_address, listed_files, open_file
from cmlp.sources.skipping import Skipping

BATCH_BYTES, BATCH_ROWS = 1 << 20, 4096
"""Size of a batch that is decoded at a time: of many columns it has so many rows at least."""

PAGE = 1 << 20
"""Bytes of a page of a column, at most, in files of most writers."""

MOST_OPEN = 64
"""Blocks that are kept open to be read on, at most."""


def parquet(
    paths: Paths,
    target: str | Sequence[str] | None = None,
    columns: Sequence[str] | None = None,
    weight: str | None = None,
    missing: Missing = "raise",
) -> Source:
    """Return a source of Parquet files. It needs pyarrow.

    Parameters
    ----------
    paths : path, pattern, address or list of them
        Files, of which a pattern such as ``trips/*.parquet`` names several, or addresses such as
        ``s3://bucket/trips.parquet``, with fsspec. All footers are read at once.
    target : str or list of str, optional
        The column of the targets, or several. Without it the source is for predictions alone.
    columns : list of str, optional
        The features, in this order; by default all other columns of the first file. Estimators for
        tables take columns of any type, all others numbers, dates excluded.
    weight : str, optional
        The column of the sample weights.
    missing : 'raise', 'skip' or float
        What is done where a number is missing: an error with its place; leave the row out, for
        which everything is read once; or put this number in.

    Returns
    -------
    Source

    Raises
    ------
    DataError
        If a file is missing, cut off or no Parquet file, lacks a column, or has text in a column
        that has numbers in another file.
    ImportError
        Without pyarrow.
    """
    source = ParquetSource(listed_files(paths), target, columns, weight, check_missing(missing))
    return Skipping(source) if source.missing == "skip" else source


class ParquetSource(Source):
    """Rows of Parquet files."""

    reads_dates = True

    def __init__(
        self, files: list[File], target: Any, columns: Any, weight: str | None, missing: Missing
    ) -> None:
        self.files, self.weight, self.missing = files, weight, missing
        self._open: dict[Any, Any] = {}
        self._open_footers: dict[int, Any] = {}
        self.groups: list[tuple[int, int]] = []  # file, row group
        self.types: list[dict[str, Any]] = []
        blocks: list[int] = []
        largest = 0
        for number, file in enumerate(files):
            metadata, schema = _footer(file)
            found = dict(zip(schema.names, schema.types, strict=True))
            if not number:
                self.feature_names, self.targets = chosen_columns(
                    schema.names, target, columns, weight, file.path
                )
            self.types.append(found)
            self._check_columns(number)
            for group in range(metadata.num_row_groups):
                rows = metadata.row_group(group)
                if rows.num_rows:
                    self.groups.append((number, group))
                    blocks.append(rows.num_rows)
                    largest = max(largest, rows.total_byte_size)
        if not blocks:
            raise DataError(f"{files[0].path}: there are no rows")
        self.blocks, self.n_features = tuple(blocks), len(self.feature_names)
        self.target_name = self.targets[0] if len(self.targets) == 1 else None
        texts = [text_among(types, self.feature_names, file.path)
                 for types, file in zip(self.types, files, strict=True)]  # fmt: skip
        self.text = next(filter(None, texts), "")
        kinds = [types[name] for types in self.types for name in self.feature_names]
        self.dtype = dtype_of([kind for kind in kinds if is_number(kind)])
        self.scratch = min(largest, (self.n_features + 1) * PAGE) + min(
            largest, 16 * self.n_features * batch_rows(self.n_features)
        )

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state, _open={}, _open_footers={})

    def _check_columns(self, number: int) -> None:
        """Check that a file has the columns of the first one, text where that has text."""
        types, path = self.types[number], self.files[number].path
        wanted = [*self.feature_names, *self.targets, *([self.weight] if self.weight else [])]
        for name in wanted:
            if name not in types:
                raise DataError(
                    f"{path}: there is no column {show(name)}, which {self.files[0].path} has as "
                    f"{self.types[0][name]}"
                )
            for other, before in enumerate(self.types[:number]):
                if str(before[name]) == "null" or str(types[name]) == "null":
                    continue
                if is_number(before[name]) != is_number(types[name]):
                    raise DataError(
                        f"{path}: the column {show(name)} holds {types[name]}, but "
                        f"{before[name]} in {self.files[other].path}"
                    )
                break

    def read(self, block: int, start: int = 0, stop: int | None = None) -> Block:
        """Return rows of a block, a row group."""
        if self.text:
            raise DataError(self.text)
        batch = self._rows(block, start, stop, self.feature_names)
        X = rows_of_table(batch.select(self.feature_names), self.dtype, self.missing)
        return Block(X, *self._targets(batch, block, start))

    def read_targets(self, block: int, start: int = 0, stop: int | None = None) -> Block:
        """Return targets of a block."""
        if not self.targets:
            raise DataError(f"{self.files[0].path}: {WITHOUT_TARGET}")
        batch = self._rows(block, start, stop, [])
        X = np.empty((batch.num_rows, 0), self.dtype)
        return Block(X, *self._targets(batch, block, start))

    def read_table(self, block: int, start: int = 0, stop: int | None = None) -> Block:
        """Return rows of a block with X as a table of Arrow."""
        batch = self._rows(block, start, stop, self.feature_names)
        return Block(batch.select(self.feature_names), *self._targets(batch, block, start))

    def _targets(self, batch: Any, block: int, start: int) -> tuple[Any, Any]:
        return targets_of(
            batch, self.targets, self.weight, lambda row: self.place(block, start + row),
            self.keeps_gaps,
        )  # fmt: skip

    def _rows(self, block: int, start: int, stop: int | None, features: Sequence[str]) -> Any:
        """Return rows of some columns as a table of Arrow; they are read on where they can be."""
        assert self.blocks is not None
        stop = self.blocks[block] if stop is None else stop
        key = block, len(features)
        reader = self._open.pop(key, None)
        if reader is None or reader.at > start:
            reader = self._reader(block, features)
        table = reader.rows(start, stop)
        if stop < self.blocks[block]:
            self._open[key] = reader  # the latest is the last
            while len(self._open) > MOST_OPEN:
                self._open.pop(next(iter(self._open)))
        return table

    def _reader(self, block: int, features: Sequence[str]) -> _GroupReader:
        number, group = self.groups[block]
        names = [*features, *self.targets, *([self.weight] if self.weight else [])]
        footer = self._open_footers.pop(number, None)
        reader = _GroupReader(self.files[number], group, names, f"row group {group}", footer)
        self._open_footers[number] = reader.footer  # the latest is the last
        while len(self._open_footers) > MOST_OPEN:
            self._open_footers.pop(next(iter(self._open_footers)))
        return reader

    def place(self, block: int, row: int) -> str:
        """Return the file, the row group and the row in it."""
        number, group = self.groups[block]
        return f"{self.files[number].path}, row group {group}, row {row}"

    def identity(self) -> Any:
        """Return the files and columns."""
        files = [identity_of(file) for file in self.files]
        return files, self.targets, self.weight, self.missing

    def close(self) -> None:
        """Close open files."""
        self._open.clear()
        self._open_footers.clear()


def _footer(file: File) -> tuple[Any, Any]:
    """Return the metadata and the schema of a file."""
    reader = pyarrow("pyarrow.parquet")
    try:
        with open_file(file.path) as opened:
            found = reader.ParquetFile(opened)
            return found.metadata, found.schema_arrow
    except OSError as error:
        raise DataError(f"{file.path}: {_damage(error)}") from error
    except (ValueError, RuntimeError) as error:
        raise DataError(f"{file.path}: {_damage(error)}") from error


def _damage(error: Exception) -> str:
    if isinstance(error, OSError) and error.strerror:
        return f"cannot be read: {error.strerror}"
    if "crypt" in str(error):
        return f"is encrypted, which is not read ({' '.join(str(error).split())})"
    return f"is cut off, damaged or no Parquet file ({' '.join(str(error).split())})"


def batch_rows(n_columns: int) -> int:
    """Return the rows that are decoded at a time."""
    return min(max(BATCH_ROWS, BATCH_BYTES // (8 * max(1, n_columns))), 1 << 16)


class _GroupReader:
    """Reads the rows of a row group one after the other, a batch at a time.

    Not ``dataset.to_batches``, which reads ahead without a limit; and with a buffer of its own for
    each column, or all of a row group's bytes would be in memory. A footer describes all row groups
    of a file: the first reader parses it, and the next ones get it as `footer`.
    """

    def __init__(
        self, file: File, group: int, names: Sequence[str], what: str, footer: Any
    ) -> None:
        self.arrow, self.path, self.what = pyarrow("pyarrow"), file.path, what
        self.at = 0
        self.left: list[Any] = []  # batches that were decoded and not returned yet
        file.check()

        def begin() -> Any:
            opened = open_file(file.path) if is_address(file.path) else file.path
            reader = pyarrow("pyarrow.parquet").ParquetFile(
                opened, buffer_size=1 << 16, pre_buffer=False, memory_map=False,
                metadata=footer,
            )  # fmt: skip
            self.footer = reader.metadata
            return reader.iter_batches(
                batch_size=batch_rows(len(names)), row_groups=[group], columns=list(names),
                use_threads=False,
            )  # fmt: skip

        self.batches = self._try(begin)

    def _try(self, call: Callable[[], Any]) -> Any:
        try:
            return call()
        except StopIteration:
            raise DataError(f"{self.path}, {self.what}: ends before its last row") from None
        except (OSError, ValueError, RuntimeError) as error:
            raise DataError(f"{self.path}, {self.what}: {_damage(error)}") from error

    def rows(self, start: int, stop: int) -> Any:
        """Return rows, from where the last ones ended on or later."""
        parts: list[Any] = []
        while self.at < stop:
            if not self.left:
                self.left.append(self._try(lambda: next(self.batches)))
            batch = self.left.pop()
            n = batch.num_rows
            first, last = max(start - self.at, 0), min(stop - self.at, n)
            if first < last:
                parts.append(batch.slice(first, last - first))
            used = min(n, stop - self.at)
            if used < n:
                self.left.append(batch.slice(used))
            self.at += used
        if not parts:
            batch = self._try(lambda: self.left[-1] if self.left else next(self.batches))
            self.left[:] = [batch]
            parts = [batch.slice(0, 0)]
        return self.arrow.Table.from_batches(parts)
