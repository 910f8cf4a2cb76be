"""The columns of a CSV file as pyarrow reads them, where it is installed: five times as fast.

It is used where Python's csv and float() read the same values; where that is not certain, functions
return None, and csv reads the file or the column.
"""

from __future__ import annotations

import sys
from importlib import import_module
from typing import Any

from cmlp.core.layout import Array
from cmlp.data.cells import GAP
from cmlp.data.numbers import of_arrow
from cmlp.files.csv_layout import Layout

_PAYS = 1 << 19  # bytes; for fewer, csv takes less time than `import pyarrow` (0.3 s)

_MOST = 1 << 31  # bytes; Arrow counts those of a block and of a column of strings in 32 bits

_PADDED = r"^[+-]?0[0-9]"  # as of a postal code


def columns_of(body: bytes, layout: Layout) -> list[Any] | None:
    """Return the columns below the header as strings of Arrow; None where csv is to read them.

    Quoted cells, lines of blanks, and rows of another width are left to csv.
    """
    small = len(body) < _PAYS and "pyarrow.csv" not in sys.modules
    if small or len(body) >= _MOST - 1:
        return None
    if layout.width < 2 or b'"' in body or layout.delimiter == " ":
        return None
    try:
        arrow, csv = import_module("pyarrow"), import_module("pyarrow.csv")
    except ImportError:
        return None
    names = [str(i) for i in range(layout.width)]
    try:
        table = csv.read_csv(
            arrow.BufferReader(body),
            csv.ReadOptions(column_names=names, use_threads=False, block_size=len(body) + 1),
            csv.ParseOptions(delimiter=layout.delimiter, quote_char=False),
            csv.ConvertOptions(column_types=dict.fromkeys(names, arrow.string())),
        )
    except ValueError:
        return None
    return [column.combine_chunks() for column in table.columns]


def numbers_in(column: Any) -> Array | None:
    """Return the numbers of a column, NaN for a sign of a gap; None if it may have other cells."""
    compute = import_module("pyarrow.compute")
    found = _finite(column)
    if found is None:
        column = compute.ascii_trim_whitespace(column)
        gaps = compute.match_substring_regex(column, f"^({GAP})$", ignore_case=True)
        infinite = compute.match_substring(column, "inf", ignore_case=True)
        if compute.any(compute.and_(gaps, infinite)).as_py():
            return None
        nothing = import_module("pyarrow").nulls(len(column), column.type)  # None: imports pandas
        column = compute.if_else(gaps, nothing, column)
        found = _finite(column)
    if found is None or compute.any(compute.match_substring_regex(column, _PADDED)).as_py():
        return None
    return of_arrow(found)


def _finite(column: Any) -> Any:
    """Return a column as numbers; None if one of them is not finite, or a cell is no number."""
    compute = import_module("pyarrow.compute")
    try:
        found = column.cast("float64")
    except ValueError:
        return None
    return None if compute.all(compute.is_finite(found)).as_py() is False else found
