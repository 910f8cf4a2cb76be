"""Parquet and Feather files, where pyarrow is installed."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import Any

from cmlp.data.cells import DataError

_MAGIC = {b"PAR1": "Parquet", b"ARROW1": "Feather", b"FEA1": "Feather"}


def format_of(path: Path) -> str:
    """Return "Parquet" or "Feather" by a file's first bytes; else nothing."""
    with path.open("rb") as file:
        start = file.read(6)
    return next((name for magic, name in _MAGIC.items() if start.startswith(magic)), "")


def read_arrow(path: Path, kind: str) -> Any:
    """Return the Arrow table of a file, in memory.

    Raises
    ------
    DataError
        Without pyarrow, or for a damaged file.
    """
    module = "pyarrow.parquet" if kind == "Parquet" else "pyarrow.feather"
    try:
        reader = import_module(module)
    except ImportError as error:
        raise DataError(
            f"{kind} files need pyarrow: pip install pyarrow, or save the table as CSV"
        ) from error
    try:
        return reader.read_table(path, memory_map=False)
    except (OSError, ValueError, KeyError, RuntimeError) as error:
        reason = " ".join(str(error).split())
        raise DataError(f"the {kind} file is cut off or damaged ({reason})") from error
