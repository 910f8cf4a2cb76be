"""What a training step of cmlp costs in its variants, relative to the plain one.

    python -m benchmarks.variants [--net 784-128-10] [--json FILE]

Plain is ReLU, SGD with momentum, float32, one thread, the fastest core. Each variant changes one of
these: Adam instead; float64; tanh, logistic or gelu; two threads (forced, also where a step is
too small to gain); each slower core, and the NumPy path. All take turns in one process, and the
fastest turn of each counts.
"""

from __future__ import annotations

import sys
from typing import Any

import cmlp

from . import _report
from ._charts import bars
from ._steps import Steps
from ._timing import Peak, fastest
from ._work import Work, choose

PLAIN = "plain"


def variants() -> dict[str, dict[str, Any]]:
    """Return what each variant changes: parameters of Steps."""
    info = cmlp.core_info()
    changes: dict[str, dict[str, Any]] = {
        PLAIN: {},
        "adam": {"solver": "adam", "learning_rate": 0.001},
        "float64": {"dtype": "float64"},
        "tanh": {"activation": "tanh"},
        "logistic": {"activation": "logistic"},
        "gelu": {"activation": "gelu"},
    }
    if info.cpus > 1:
        changes["2 threads"] = {"n_threads": 2}
    return changes | {core: {"core": core} for core in info.available if core != info.core}


def main() -> int:
    """Run the benchmark."""
    parser = _report.parser("variants", __doc__, seconds=8)
    parser.add_argument("--net", action="append", metavar="SIZES", help="this one only; repeatable")
    args = parser.parse_args()
    _report.with_one_thread("variants")
    try:
        works = choose(args.net)
    except ValueError as error:
        parser.error(str(error))
    if args.quick:
        works = tuple(work.smaller(10) for work in (works if args.net else works[:2]))
    about = _report.machine()
    print(_report.headline(about), end="\n\n")
    changes = variants()
    results: list[dict[str, Any]] = []
    for work in works:
        rows = measure(work, changes, _report.seconds_of(args))
        print(work)
        print(_report.table(HEADER, map(cells, rows)), end="\n\n", flush=True)
        results += rows
    _report.write_json(args.json, about, results)
    if args.chart:
        groups: dict[str, dict[str, float]] = {}
        for row in results:
            if row["variant"] != PLAIN:
                group = groups.setdefault(f"{row['net']}\nbatch {row['batch']:,}", {})
                group[row["variant"]] = row["relative"]
        bars(
            args.chart,
            about,
            "Time of a training step, relative to relu, sgd, float32",
            {"": groups},
        )
    return 0


HEADER = ("", *_report.RATES, "time/plain")


def measure(work: Work, changes: dict[str, dict[str, Any]], seconds: float) -> list[dict[str, Any]]:
    """Measure all variants of one net; returns a row for each."""
    steps = {name: Steps(work, **change) for name, change in changes.items()}
    turns = {name: one.turn for name, one in steps.items()}
    best = fastest({**turns, "peak": Peak().pinned_turn}, seconds)
    flop = best.pop("peak")
    return [
        {
            "net": work.net,
            "batch": work.batch,
            "variant": name,
            **_report.rates(work.step_flops, work.batch, spent, flop),
            "relative": spent / best[PLAIN],
        }
        for name, spent in best.items()
    ]


def cells(row: dict[str, Any]) -> tuple[str, ...]:
    """Return a table's row; the fraction is of the float32 peak of one thread."""
    return (row["variant"], *_report.rate_cells(row), _report.number(row["relative"]))


if __name__ == "__main__":
    sys.exit(main())
