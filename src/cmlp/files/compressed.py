"""Files that are compressed with gzip or zstandard."""

from __future__ import annotations

import gzip
import zlib
from importlib import import_module
from typing import Any

from cmlp.data.cells import DataError

GZIP = b"\x1f\x8b"

ZSTD = b"(\xb5/\xfd"


def decompressed(data: bytes) -> bytes:
    """Return what a compressed file holds; any other file as it is.

    Raises
    ------
    DataError
        If it is cut off or damaged, or if nothing that is installed reads its format.
    """
    for magic, name, decompress in ((GZIP, "gzip", gzip.decompress), (ZSTD, "zstd", _of_zstd)):
        if not data.startswith(magic):
            continue
        try:
            return decompress(data)
        except DataError:
            raise
        except Exception as error:  # packages have classes of their own for damage
            damage = (OSError, EOFError, ValueError, zlib.error)
            if not isinstance(error, damage) and type(error).__name__ != "ZstdError":
                raise
            raise DataError(f"the {name} file is cut off or damaged ({error})") from error
    return data


def _of_zstd(data: bytes) -> bytes:
    """Decompress by the first package that can: Python 3.14, zstandard or pyarrow."""
    found: bytes
    if (package := _imported("compression.zstd")) is not None:
        found = package.decompress(data)
        return found
    if (package := _imported("zstandard")) is not None:
        return _by_zstandard(package, data)
    if (package := _imported("pyarrow")) is not None:
        found = package.CompressedInputStream(package.BufferReader(data), "zstd").read()
        return found
    raise DataError(
        "the file is compressed with zstd, which Python reads from 3.14 on: pip install zstandard, "
        "or save it as .csv or .csv.gz"
    )


def _by_zstandard(package: Any, data: bytes) -> bytes:
    """Decompress frame by frame; the package does not report a frame that is cut off."""
    parts, rest = [], data
    while rest:
        frame = package.ZstdDecompressor().decompressobj()
        parts.append(frame.decompress(rest))
        if not frame.eof:
            raise EOFError("its last frame is not complete")
        rest = frame.unused_data
    return b"".join(parts)


def _imported(name: str) -> Any:
    try:
        return import_module(name)
    except ImportError:
        return None
