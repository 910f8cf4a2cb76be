"""Predictions from Python: one row and a thousand, cmlp against NumPy and five libraries.

    python -m benchmarks.inference [--libraries "cmlp predict,NumPy"] [--json FILE]

The same net with the same weights in every library, each in a process of its own pinned to one
processor, with one thread; everything that can be prepared is prepared (see ``_predictors``), and
the call is timed, from Python to probabilities. They take turns, and each one's fastest turn
counts. The outputs are compared with float64 NumPy's: the program returns 1 if one differs by more
than rounding.

Then memory: the largest growth of a process while ``Network.predict`` takes a million rows of
uint8 pixels through 784-128-10, in addition to the data and the result.
"""

from __future__ import annotations

import sys
from contextlib import ExitStack
from functools import partial
from typing import Any

import numpy as np

import cmlp

from . import _report
from ._charts import bars
from ._memory import peak_above
from ._predictors import PREDICTORS, row_flops
from ._timing import Peak, fastest
from ._work import first_weights, outputs
from ._workers import Worker

TOLERANCE = 1e-4
"""Largest difference of a probability: float32 rounding."""

CASES = (
    ((784, 16, 16, 10), 1),
    ((4, 32, 32, 2), 1),
    ((784, 512, 512, 10), 1),
    ((784, 128, 10), 1000),
    ((784, 512, 512, 10), 1000),
    ((4, 32, 32, 2), 1000),
)
"""Nets, and rows of a call."""

MILLION = 1_000_000


def main() -> int:
    """Run the benchmark; 1 if outputs differ."""
    parser = _report.parser("inference", __doc__, seconds=6)
    names = _report.list_of(str)
    parser.add_argument(
        "--libraries", type=names, default=list(PREDICTORS), help=", ".join(PREDICTORS)
    )
    args = parser.parse_args()
    if unknown := set(args.libraries) - set(PREDICTORS):
        parser.error(f"unknown library {unknown.pop()!r}; known: {', '.join(PREDICTORS)}")
    about = _report.machine(_report.LIBRARIES)
    print(_report.headline(about), end="\n\n")
    results: list[dict[str, Any]] = []
    with ExitStack() as stack:
        peak = stack.enter_context(Worker(Peak))
        workers = {name: stack.enter_context(Worker(PREDICTORS[name])) for name in args.libraries}
        for name, worker in workers.items():
            if worker.missing:
                print(f"{name} is left out: {worker.missing} is missing")
        present = {name: worker for name, worker in workers.items() if not worker.missing}
        for sizes, rows in CASES[:2] if args.quick else CASES:
            results += measure(sizes, rows, present, peak, _report.seconds_of(args))
    with Worker(Memory) as worker:
        memory = worker.call("measure", 10_000 if args.quick else MILLION)
    print(memory_line(memory))
    _report.write_json(args.json, about | {"memory": memory}, results)
    if args.chart:
        draw(args.chart, about, results)
    agree = all(row["difference"] <= TOLERANCE for row in results)
    print(f"outputs {'agree' if agree else 'DISAGREE'}")
    return 0 if agree else 1


def measure(
    sizes: tuple[int, ...], rows: int, workers: dict[str, Worker], peak: Worker, seconds: float
) -> list[dict[str, Any]]:
    """Measure one case in all libraries, print its table; returns a row per library."""
    layers = first_weights(sizes)
    X = np.random.default_rng(0).standard_normal((rows, sizes[0]), dtype=np.float32)
    exact = outputs([(W.astype(float), b.astype(float)) for W, b in layers], X.astype(float))
    outs = {name: worker.call("set_up", layers, X, 0.02) for name, worker in workers.items()}
    turns = {name: workers[name].turn for name, out in outs.items() if out is not None}
    best = fastest({**turns, "peak": peak.turn}, seconds)
    flop = best.pop("peak")
    unit = next((name for name in PREDICTORS if name in best), "")
    results: list[dict[str, Any]] = [
        {
            "net": "-".join(map(str, sizes)),
            "rows": rows,
            "library": name,
            "us_per_call": 1e6 * spent,
            **_report.rates(rows * row_flops(sizes), rows, spent, flop),
            "relative": spent / best[unit],
            "difference": float(np.abs(outs[name] - exact).max()),
        }
        for name, spent in best.items()
    ]
    header = (f"{results[0]['net']}, {_report.plural(rows, 'row')}", "us/call", *_report.RATES[1:])
    lines = [
        (
            row["library"],
            *_report.rate_cells(row),
            _report.number(row["relative"]),
            f"{row['difference']:.0e}",
        )
        for row in results
    ]
    print(_report.table((*header, f"time/{unit}", "difference"), lines), end="\n\n", flush=True)
    return results


class Memory:
    """Measures the memory of a large prediction; runs in a process of its own."""

    def measure(self, rows: int) -> dict[str, Any]:
        """Return megabytes: of the data, of the result, and in addition to both."""
        net = cmlp.Network([784, 128, 10], seed=0)
        X = np.random.default_rng(0).integers(0, 256, (rows, 784), np.uint8)
        net.predict(X[:1])
        grown, out = peak_above(partial(net.predict, X))
        assert isinstance(out, np.ndarray)
        above = None if grown is None else grown - out.nbytes / 1e6
        return {"rows": rows, "data": X.nbytes / 1e6, "result": out.nbytes / 1e6, "above": above}


def memory_line(memory: dict[str, Any]) -> str:
    """Describe the measured memory."""
    megabytes = {key: _report.number(memory[key]) for key in ("data", "result", "above")}
    return (
        f"predict of {memory['rows']:,} rows of uint8: {megabytes['data']} MB of data, "
        f"{megabytes['result']} MB of results, and at most {megabytes['above']} MB in addition"
    )


def draw(file: str, about: dict[str, Any], results: list[dict[str, Any]]) -> None:
    """Draw every library's time relative to the first one's."""
    groups: dict[str, dict[str, float]] = {}
    unit = results[0]["library"]
    for row in results:
        if row["library"] != unit:
            group = groups.setdefault(f"{row['net']}\n{_report.plural(row['rows'], 'row')}", {})
            group[row["library"]] = row["relative"]
    bars(file, about, f"Time of a prediction, {unit} = 1 (one thread, float32)", {"": groups})


if __name__ == "__main__":
    sys.exit(main())
