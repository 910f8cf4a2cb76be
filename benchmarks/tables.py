"""A table of numbers and text becomes a matrix: time, memory, and one row at a time.

    python -m benchmarks.tables [--rows 1000000] [--containers pandas,polars] [--json FILE]

Half of 20 columns are text, of 2 to 20,000 levels, half of the numbers have gaps. ``TableEncoder``
is fitted to the rows and encodes them; each container in a process of its own, whose largest growth
counts as memory, with table and libraries already loaded. One row is of 14 columns: 7 numbers, 6
categories and a date.
"""

from __future__ import annotations

import argparse
import datetime
import sys
import time
from importlib import import_module
from typing import Any

import numpy as np

from cmlp.tables.encode import TableEncoder

from . import _report
from ._memory import peak_above
from ._timing import fastest, timed
from ._workers import Worker

LEVELS = (2, 5, 8, 20, 50, 100, 300, 1000, 5000, 20000)


def columns(rows: int) -> dict[str, Any]:
    """Return columns of numbers and of text."""
    rng = np.random.default_rng(0)
    found: dict[str, Any] = {}
    for i, n_levels in enumerate(LEVELS):
        numbers = rng.normal(size=rows)
        if i % 2:
            numbers[rng.random(rows) < 0.1] = np.nan
        found[f"number {i}"] = numbers
        words = np.array([f"level {level:05d}" for level in range(n_levels)], object)
        places = (rng.random(rows) ** 2 * n_levels).astype(np.int64)  # some are frequent
        found[f"text {i}"] = words[places]
    return found


def table(container: str, rows: int) -> Any:
    """Return the table in a container; raises ImportError if its library is missing."""
    data = columns(rows)
    if container == "pandas":
        return import_module("pandas").DataFrame(data)
    if container == "polars":
        lists = {name: column.tolist() for name, column in data.items()}
        return import_module("polars").DataFrame(lists)
    if container == "arrow":
        return import_module("pyarrow").table(data)
    if container == "matrix":
        return np.random.default_rng(0).normal(size=(rows, 2 * len(LEVELS))).astype(np.float32)
    if container == "dict":
        return data
    raise ValueError(f"unknown container {container!r}")


class Encoding:
    """A table in memory, and its encoding."""

    def __init__(self, container: str, rows: int) -> None:
        self.table, self.encoder = table(container, rows), TableEncoder()

    def run(self) -> Any:
        """Fit to the table, and encode it."""
        return self.encoder.fit(self.table).transform(self.table)

    def measure(self) -> dict[str, Any]:
        """Return the seconds of a run, its memory, and the size of its matrix, in megabytes."""
        memory, matrix = peak_above(self.run)
        start = time.perf_counter()
        self.encoder.fit(self.table)
        middle = time.perf_counter()
        self.encoder.transform(self.table)
        end = time.perf_counter()
        size = getattr(matrix, "nbytes", 0) / 1e6
        return {
            "fit_seconds": middle - start,
            "transform_seconds": end - middle,
            "memory": memory,
            "matrix": size,
            "of_matrix": None if memory is None else memory / size,
        }


def one_row(seconds: float) -> dict[str, Any]:
    """Return the microseconds of a row of 14 mixed columns, as a dict and as a tuple."""
    rng = np.random.default_rng(0)
    data: dict[str, Any] = {f"number {i}": rng.normal(size=2000).tolist() for i in range(6)}
    data["whole"] = rng.integers(0, 50, 2000).tolist()
    for n_levels in (2, 3, 5, 8, 50, 500):
        data[f"text {n_levels}"] = [f"level {i}" for i in rng.integers(0, n_levels, 2000)]
    start = datetime.date(2024, 1, 1)
    days = rng.integers(0, 900, 2000).tolist()
    data["date"] = [start + datetime.timedelta(day) for day in days]
    encode = TableEncoder().fit(data).row()
    as_dict = {name: column[0] for name, column in data.items()}
    as_tuple = tuple(as_dict.values())
    turns = {"dict": timed(lambda: encode(as_dict)), "tuple": timed(lambda: encode(as_tuple))}
    best = fastest(turns, seconds)
    return {"container": "one row", **{f"us_of_{name}": 1e6 * best[name] for name in best}}


HEADER = ("", "fit (s)", "transform (s)", "memory (MB)", "matrix (MB)", "of matrix")


def main() -> int:
    """Run the benchmark."""
    parser = _report.parser("tables", __doc__, seconds=5)
    parser.add_argument("--rows", type=int, default=1_000_000)
    known = ["pandas", "polars", "arrow", "dict", "matrix"]
    parser.add_argument("--containers", type=_report.list_of(str), default=known)
    args = parser.parse_args()
    _report.with_one_thread("tables")
    about = _report.machine(["pandas", "polars", "pyarrow"])
    print(_report.headline(about))
    print()
    results = [row for each in args.containers if (row := measure(args, each)) is not None]
    print(_report.table(HEADER, map(cells, results)))
    row = one_row(_report.seconds_of(args))
    print(f"\none row: {row['us_of_dict']:.1f} us as a dict, {row['us_of_tuple']:.1f} as a tuple")
    _report.write_json(args.json, about, [*results, row])
    return 0


def measure(args: argparse.Namespace, container: str) -> dict[str, Any] | None:
    """Measure a container in a process of its own; None if its library is missing."""
    rows = min(args.rows, 20_000) if args.quick else args.rows
    with Worker(Encoding, container, rows, threads=1) as worker:
        if worker.missing:
            return None
        return {"container": container, "rows": rows, **worker.call("measure")}


def cells(row: dict[str, Any]) -> tuple[str, ...]:
    """Return a table's row."""
    return (
        row["container"],
        _report.number(row["fit_seconds"]),
        _report.number(row["transform_seconds"]),
        _report.number(row["memory"]),
        _report.number(row["matrix"]),
        _report.percent(row["of_matrix"]),
    )


if __name__ == "__main__":
    sys.exit(main())
