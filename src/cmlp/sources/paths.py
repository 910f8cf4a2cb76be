"""The files of a source: paths, patterns, and whether a file is still the one that was opened."""

from __future__ import annotations

import glob
import os
import re
import zlib
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from cmlp.data.cells import DataError

Paths = str | os.PathLike[str] | Sequence[str | os.PathLike[str]]


class File(NamedTuple):
    """A file as it was when the source was made."""

    path: str
    size: int
    changed: int
    """Time of its last change, in nanoseconds."""

    def check(self) -> None:
        """Check that the file is there, and the same."""
        if file_at(self.path) != self:
            raise DataError(
                f"{self.path}: the file has changed since the source was made; make the source anew"
            )


def file_at(path: str) -> File:
    """Return what is known of a file; of an address, its path alone."""
    if is_address(path):
        return File(path, -1, -1)
    try:
        found = os.stat(path)
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror or error}") from error
    return File(path, found.st_size, found.st_mtime_ns)


def identity_of(file: File) -> tuple[str, int, int]:
    """Return what tells a file from another one, but not when it was written: a copy is the same.

    The last bytes count, which in a Parquet file describe its columns.
    """
    if file.size < 0:
        return file.path, file.size, 0
    try:
        with open_file(file.path) as opened:
            opened.seek(max(0, file.size - 4096))
            return file.path, file.size, zlib.crc32(opened.read(4096))
    except OSError as error:
        raise DataError(f"{file.path}: cannot be read: {error.strerror or error}") from error


def is_address(path: str) -> bool:
    """Whether a path is an address such as s3://bucket/name, for fsspec."""
    return re.match(r"[a-z][a-z0-9+.-]+://", path) is not None


def listed_files(paths: Paths, what: str = "paths") -> list[File]:
    """Return the files that paths and patterns name; those of a pattern sorted by name.

    Raises
    ------
    DataError
        If there are none, or one cannot be read.
    """
    if not isinstance(paths, (str, os.PathLike, Iterable)):
        raise TypeError(f"{what} must be a path, a pattern or a list of them, not {paths!r}")
    given = [paths] if isinstance(paths, (str, os.PathLike)) else list(paths)
    if not given:
        raise DataError(f"{what} is an empty list; name a file, or a pattern such as 'data/*'")
    found: list[str] = []
    for item in given:
        path = os.fspath(item)
        if not isinstance(path, str):
            raise TypeError(f"{what} must be text or paths, not {item!r}")
        if is_address(path):
            found += _at_address(path)
        elif os.path.isdir(path):
            raise DataError(
                f"{path}: is a directory; name the files in it, as {os.path.join(path, '*')}, or "
                f"as {os.path.join(path, '**', '*')} those of its folders, too"
            )
        elif glob.has_magic(path) and not os.path.exists(path):
            matches = filter(os.path.isfile, glob.glob(path, recursive=True))
            found += _of_pattern(path, matches)
        else:
            found.append(path)
    return [file_at(path) for path in found]


def _at_address(path: str) -> list[str]:
    if not glob.has_magic(path):
        return [path]
    system: Any
    system, inside = filesystem(path)
    return _of_pattern(path, map(system.unstrip_protocol, system.glob(inside)))


def _of_pattern(pattern: str, matches: Iterable[str]) -> list[str]:
    """Return files sorted by name, without _SUCCESS, _metadata and others that hold no rows."""
    given = os.path.basename(pattern).startswith("_")
    found = sorted(name for name in matches if given or not os.path.basename(name).startswith("_"))
    if not found:
        raise DataError(f"{pattern}: no file has such a name")
    return found


def filesystem(path: str) -> tuple[Any, str]:
    """Return fsspec's file system of an address, and the path in it."""
    try:
        import fsspec  # type: ignore[import-untyped,import-not-found,unused-ignore]
    except ImportError as error:
        raise ImportError(f"{path} is an address: pip install fsspec ({error})") from error
    system, inside = fsspec.core.url_to_fs(path)
    return system, inside


def open_file(path: str) -> Any:
    """Open a file, or an address, to read bytes."""
    if is_address(path):
        system, inside = filesystem(path)
        return system.open(inside, "rb")
    return open(path, "rb", buffering=0)


class Opened:
    """An open file, which is closed when nothing refers to it any more."""

    def __init__(self, path: str) -> None:
        self.file = open_file(path)

    def close(self) -> None:
        """Close it."""
        self.file.close()

    def __del__(self) -> None:
        if "file" in vars(self):
            self.file.close()
