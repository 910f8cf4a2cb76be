"""Sources of .npy files, in shards."""

from __future__ import annotations

import os
import re
from typing import Any

import numpy as np

from cmlp.core.errors import warn
from cmlp.core.layout import Array
from cmlp.data.cells import DataError
from cmlp.data.numbers import readable_dtype
from cmlp.data.source import Block, Shards, Source, rows_per_block
from cmlp.sources.paths import File, Opened, Paths, identity_of, listed_files, open_file

MOST_OPEN = 100
"""Files that are kept open, at most: X, y and weights of each block that is being read."""


def npy(X_paths: Paths, y_paths: Paths, weight_paths: Paths | None = None) -> Source:
    """Return a source of .npy files.

    Parameters
    ----------
    X_paths : path, pattern or list of them
        Files of matrices, (rows, n_features), of any real dtype; a pattern such as ``X_*.npy``
        stands for its files in the order of their names. uint8 and float16 are kept as they are: a
        quarter and half of what is read.
    y_paths : path, pattern or list of them
        Files of targets, (rows,) or (rows, n_targets); with as many rows in all, in files of any
        sizes.
    weight_paths : optional
        Files of sample weights, (rows,).

    Returns
    -------
    Source

    Raises
    ------
    DataError
        If a file is missing, is not a .npy file or is cut off, and if numbers of rows or columns
        differ; it names the files.
    """
    weights = None if weight_paths is None else Sharded(weight_paths, "weights", (1,))
    return NpySource(Sharded(X_paths, "X", (2,)), Sharded(y_paths, "y", (1, 2)), weights)


class NpyFile:
    """The shape of an array in a file, and its rows."""

    def __init__(self, file: File) -> None:
        self.file = file
        try:
            with open_file(file.path) as opened:
                version = np.lib.format.read_magic(opened)
                read = (
                    np.lib.format.read_array_header_1_0
                    if version == (1, 0)
                    else np.lib.format.read_array_header_2_0
                )
                self.shape, self.fortran, self.dtype = read(opened)
                self.offset = opened.tell()
        except (ValueError, EOFError) as error:
            raise DataError(f"{file.path}: not a .npy file: {error}") from None
        except OSError as error:
            raise DataError(f"{file.path}: cannot be read: {error.strerror or error}") from error
        if self.dtype.hasobject:
            raise DataError(f"{file.path}: holds Python objects, which are not read; save numbers")
        expected = self.offset + self.dtype.itemsize * int(np.prod(self.shape))
        if 0 <= file.size < expected:
            raise DataError(
                f"{file.path}: is cut off: {file.size:,} bytes, {expected:,} were expected"
            )

    def rows(self, opened: Any, start: int, stop: int) -> Array:
        """Return rows, as an array of their own."""
        if self.fortran and len(self.shape) > 1:
            mapped = np.memmap(self.file.path, self.dtype, "r", self.offset, self.shape, "F")
            return np.array(mapped[start:stop], order="C")
        out = np.empty((stop - start, *self.shape[1:]), self.dtype)
        row_bytes = self.dtype.itemsize * int(np.prod(self.shape[1:]))
        opened.seek(self.offset + start * row_bytes)
        flat: Any = out.reshape(-1).view(np.uint8) if out.size else b""
        view = memoryview(flat)
        done = 0
        while done < len(view):
            n = opened.readinto(view[done:])
            if not n:
                raise DataError(f"{self.file.path}: ends before row {stop}")
            done += n
        return out


class Sharded:
    """Several files as one array.

    Parameters
    ----------
    n_dims : tuple of int
        Numbers of dimensions that the files may have.
    """

    def __init__(self, paths: Paths, what: str, n_dims: tuple[int, ...]) -> None:
        self.files = [NpyFile(file) for file in listed_files(paths, f"{what}_paths")]
        first = self.files[0]
        for each in self.files:
            if len(each.shape) not in n_dims:
                wanted = "(rows, features)" if n_dims == (2,) else "(rows,)"
                raise DataError(
                    f"{each.file.path}: {what} must be {wanted}, but the shape is {each.shape}"
                )
            if each.shape[1:] != first.shape[1:]:
                raise DataError(
                    f"{each.file.path}: rows of the shape {each.shape[1:]}, but those of "
                    f"{first.file.path} are {first.shape[1:]}"
                )
            if (each.dtype.kind in "fiub") != (first.dtype.kind in "fiub"):
                raise DataError(
                    f"{each.file.path}: holds {each.dtype}, but {first.file.path} {first.dtype}"
                )
        if n_dims == (1,) and first.dtype.kind not in "fiub":
            raise DataError(f"{first.file.path}: {what} must be numbers, not {first.dtype}")
        self.lengths = [each.shape[0] for each in self.files]
        self.shards = Shards(self.lengths)
        self.dtype = np.result_type(*(each.dtype for each in self.files))

    @property
    def n_rows(self) -> int:
        """Rows of all files."""
        return sum(self.lengths)

    def expect(self, start: int, stop: int, opened: dict[str, Opened]) -> None:
        """Let the system read rows ahead, of files that are open."""
        for shard, first, last in self.shards.pieces(start, stop):
            file = self.files[shard]
            found = opened.get(file.file.path)
            if found is not None and hasattr(os, "posix_fadvise") and file.file.size >= 0:
                row = file.dtype.itemsize * int(np.prod(file.shape[1:]))
                at, n = file.offset + first * row, (last - first) * row
                os.posix_fadvise(found.file.fileno(), at, n, os.POSIX_FADV_WILLNEED)

    def read(self, start: int, stop: int, opened: dict[str, Opened]) -> Array:
        """Return rows of all files, which are checked to be still the same."""
        parts = []
        for shard, first, last in self.shards.pieces(start, stop):
            file = self.files[shard]
            path = file.file.path
            try:
                file.file.check()
                found = opened.pop(path, None) or Opened(path)
                opened[path] = found  # the latest is the last
                while len(opened) > MOST_OPEN:
                    opened.pop(next(iter(opened)))
                parts.append(file.rows(found.file, first, last))
            except OSError as error:
                raise DataError(f"{path}: cannot be read: {error.strerror or error}") from error
        rows = parts[0] if len(parts) == 1 else np.concatenate(parts)
        return rows if rows.dtype == self.dtype else rows.astype(self.dtype)

    def place(self, row: int) -> str:
        """Return the file and row in it."""
        shard, first, _ = next(self.shards.pieces(row, row + 1))
        return f"{self.files[shard].file.path}, row {first}"


def _check_order(part: Sharded) -> None:
    """Warn of files in another order than their numbers, where others hold the same rows."""
    paths = [each.file.path for each in part.files]
    by_number = sorted(paths, key=lambda path: re.sub(r"\d+", lambda n: n[0].zfill(20), path))
    if by_number != paths and sorted(paths) == paths:
        before, after = next((a, b) for a, b in zip(paths, by_number, strict=True) if a != b)
        warn(
            f"{before} is read before {after}: files are in the order of their names, not of their "
            "numbers. X and y are in different numbers of files; give a list of paths in the order "
            "of the rows"
        )


class NpySource(Source):
    """Rows of .npy files."""

    def __init__(self, X: Sharded, y: Sharded, weights: Sharded | None) -> None:
        for each, name in ((y, "y"), (weights, "weights")):
            if each is not None and each.n_rows != X.n_rows:
                raise DataError(
                    f"{name} has {each.n_rows:,} rows in {len(each.files)} files, but X has "
                    f"{X.n_rows:,} in {len(X.files)}: from {each.files[0].file.path} and "
                    f"{X.files[0].file.path} on"
                )
            if each is not None and len(each.files) != len(X.files):
                for part in (X, each):
                    _check_order(part)
        if not X.n_rows:
            raise DataError(f"{X.files[0].file.path}: there are no rows")
        if X.dtype.kind not in "fiub":
            raise DataError(f"{X.files[0].file.path}: X must hold numbers, not {X.dtype}")
        self._open: dict[str, Opened] = {}
        self.X, self.y, self.weights = X, y, weights
        self.n_features = X.files[0].shape[1]
        self.dtype = readable_dtype(X.dtype)
        rows = rows_per_block(self.n_features * X.dtype.itemsize)
        self.starts: list[int] = []
        blocks = []
        before = 0
        for n in X.lengths:  # a block lies in one file
            for start in range(0, n, rows):
                self.starts.append(before + start)
                blocks.append(min(rows, n - start))
            before += n
        self.blocks = tuple(blocks)

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state, _open={})

    def _within(self, block: int, start: int, stop: int | None) -> tuple[int, int]:
        assert self.blocks is not None
        first = self.starts[block]
        return first + start, first + (self.blocks[block] if stop is None else stop)

    def read(self, block: int, start: int = 0, stop: int | None = None) -> Block:
        """Return rows of a block."""
        first, last = self._within(block, start, stop)
        X = self.X.read(first, last, self._open)
        found = self.read_targets(block, start, stop)
        return found._replace(X=X if X.dtype == self.dtype else X.astype(self.dtype))

    def expect(self, block: int, start: int, stop: int) -> None:
        """Let the system read these rows ahead, where it can."""
        self.X.expect(*self._within(block, start, stop), self._open)

    def read_targets(self, block: int, start: int = 0, stop: int | None = None) -> Block:
        """Return targets of a block."""
        first, last = self._within(block, start, stop)
        y = self.y.read(first, last, self._open)
        weight = None
        if self.weights is not None:
            weight = self.weights.read(first, last, self._open).astype(np.float64)
        return Block(np.empty((last - first, 0), self.dtype), y, weight)

    def place(self, block: int, row: int) -> str:
        """Return the file and row in it."""
        return self.X.place(self._within(block, row, None)[0])

    def identity(self) -> Any:
        """Return the files of all three."""
        parts = [part for part in (self.X, self.y, self.weights) if part is not None]
        return [identity_of(each.file) for part in parts for each in part.files]

    def close(self) -> None:
        """Close open files."""
        for opened in self._open.values():
            opened.close()
        self._open.clear()
