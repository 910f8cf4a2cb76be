"""How a training step of cmlp grows with the rows, the net's width and depth, batch and threads.

    python -m benchmarks.scaling [--sweep width,batch] [--json FILE]

Each sweep changes one quantity and keeps the rest. Its points take turns in one process, and the
fastest turn of each counts. The fraction of the peak measures the use of the arithmetic units;
the peak is that of as many threads as the step has, float32. Rows: the time per row of a whole
epoch, with the overhead of a call of ``fit``; all else is per step. ReLU, SGD with momentum, one
thread except in the sweep of threads, where the step uses the given number if it is large enough to
gain. Processes: the same step on all processors, in one process and in two at once; if they share
fairly, it takes twice as long.
"""

from __future__ import annotations

import sys
from functools import partial
from typing import Any

import cmlp

from . import _report
from ._charts import lines
from ._steps import Steps
from ._timing import Peak, fastest
from ._work import Work
from ._workers import Worker

ROWS = 4096
"""Rows of an epoch, except in the sweep of rows; four batches at least."""


def _work(sizes: tuple[int, ...], batch: int, rows: int = ROWS) -> Work:
    return Work(sizes, batch, batch * max(4, min(100, rows // batch)))


Point = tuple[float, Work, int]
"""The changed quantity, the work, threads."""


def sweeps(quick: bool) -> dict[str, list[Point]]:
    """Return the points of every sweep."""
    cpus = cmlp.core_info().cpus
    top = 3 if quick else 99
    work = partial(_work, rows=1) if quick else _work
    rows = [100, 1_000, 10_000, 100_000, 1_000_000][:top]
    widths = [16, 32, 64, 128, 256, 512, 1024, 2048][:top]
    depths = [1, 2, 4, 8, 16, 32][:top]
    batches = [1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096][:top]
    threads = [n for n in (1, 2, 4, 8, 16, 32, 64) if n <= cpus][:top]
    return {
        "rows": [(n, Work((64, 64, 10), 32, n), 1) for n in rows],
        "width": [(n, work((n, n, n, 10), 128), 1) for n in widths],
        "depth": [(n, work((64, *[64] * n, 10), 32), 1) for n in depths],
        "batch": [(n, work((256, 256, 256, 10), n), 1) for n in batches],
        "threads, 16-64-64-2": [(n, work((16, 64, 64, 2), 32), n) for n in threads],
        "threads, 784-128-10": [(n, work((784, 128, 10), 128), n) for n in threads],
        "threads, 784-512-512-10": [(n, work((784, 512, 512, 10), 128), n) for n in threads],
    }


def main() -> int:
    """Run the benchmark."""
    parser = _report.parser("scaling", __doc__, seconds=10)
    known = [*dict.fromkeys(name.split(",")[0] for name in sweeps(True)), "processes"]
    parser.add_argument(
        "--sweep", type=_report.list_of(str), default=known, help=",".join(known) + " (all)"
    )
    args = parser.parse_args()
    _report.with_one_thread("scaling")
    if unknown := set(args.sweep) - set(known):
        parser.error(f"unknown sweep {unknown.pop()!r}; known: {', '.join(known)}")
    about = _report.machine()
    print(_report.headline(about), end="\n\n")
    results: list[dict[str, Any]] = []
    for name, points in sweeps(args.quick).items():
        if name.split(",")[0] in args.sweep:
            rows = measure(name, points, _report.seconds_of(args), 0.002 if args.quick else 0.05)
            show(name, rows)
            results += rows
    if "processes" in args.sweep:
        results += processes(_report.seconds_of(args), 0.01 if args.quick else 0.5, args.quick)
    _report.write_json(args.json, about, results)
    if args.chart:
        draw(args.chart, about, results)
    return 0


def measure(name: str, points: list[Point], seconds: float, least: float) -> list[dict[str, Any]]:
    """Measure all points of a sweep; returns a row for each."""
    steps = {str(n): Steps(work, n_threads=threads, least=least) for n, work, threads in points}
    peaks = {threads: Peak(threads) for threads in {threads for _, _, threads in points}}

    turns = {key: one.turn for key, one in steps.items()}
    turns |= {f"peak {n}": peak.pinned_turn for n, peak in peaks.items()}
    best = fastest(turns, seconds)
    return [
        {
            "sweep": name,
            "at": n,
            "net": work.net,
            "batch": work.batch,
            "rows": work.rows,
            "threads": threads,
            **_report.rates(
                work.row_flops * work.rows // work.steps,
                work.rows / work.steps,
                best[str(n)],
                best[f"peak {threads}"],
            ),
        }
        for n, work, threads in points
    ]


def processes(seconds: float, least: float, quick: bool) -> list[dict[str, Any]]:
    """Measure a step on all processors, alone and while other processes do the same."""
    cpus = cmlp.core_info().cpus
    work = _work((784, 512, 512, 10), 128, 1 if quick else ROWS)
    make = partial(Steps, n_threads=cpus, least=least)
    workers = [Worker(make, work, threads=cpus) for _ in range(2)]

    def together(n: int) -> float:
        for worker in workers[:n]:
            worker.ask("turn")
        return max(float(worker.answer()) for worker in workers[:n])

    try:
        best = fastest({str(n): partial(together, n) for n in (1, 2)}, seconds)
    finally:
        for worker in workers:
            worker.close()
    alone, in_two = best["1"], best["2"]
    print(
        f"{work.net}, {work.batch}, {cpus} threads: {_report.number(1e6 * alone)} us a step alone, "
        f"{_report.number(1e6 * in_two)} in each of two processes at once, "
        f"{_report.number(in_two / alone)} times as long\n"
    )
    return [
        {"processes": n, "net": work.net, "batch": work.batch, "threads": cpus, "us": 1e6 * seconds}
        for n, seconds in ((1, alone), (2, in_two))
    ]


def show(name: str, rows: list[dict[str, Any]]) -> None:
    """Print the table of a sweep."""
    header = (name, "net, batch", *_report.RATES, "time/row, first = 1")
    first = rows[0]["rows_per_second"]
    lines = [
        (
            f"{row['at']:,}",
            f"{row['net']}, {row['batch']}" if len(row["net"]) < 40 else f"batch {row['batch']}",
            *_report.rate_cells(row),
            _report.number(first / row["rows_per_second"]),
        )
        for row in rows
    ]
    print(_report.table(header, lines), end="\n\n", flush=True)


def draw(file: str, about: dict[str, Any], results: list[dict[str, Any]]) -> None:
    """Draw the fraction of the peak (or GFLOP/s, if it is unknown) over the changed quantity."""
    results = [row for row in results if "sweep" in row]
    known = all(row["of_peak"] for row in results)
    panels: dict[str, dict[str, list[tuple[float, float]]]] = {}
    for row in results:
        name, _, net = row["sweep"].partition(", ")
        series = panels.setdefault(name, {}).setdefault(net or "training step", [])
        series.append((row["at"], row["of_peak"] if known else row["gflops"]))
    label = "of the peak" if known else "GFLOP/s"
    lines(file, about, "Training steps of cmlp, float32", panels, ("", label), percent=known)


if __name__ == "__main__":
    sys.exit(main())
