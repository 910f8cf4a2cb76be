"""Every core of this machine against the NumPy path: training steps and predictions.

    python -m benchmarks.paths [--seconds 4] [--json FILE]

The long form of ``cmlp bench``: more networks, and a JSON file for later comparisons. All cores
take turns in one process, and each one's fastest round counts; compare ratios within a run, not
times of different runs. One thread each, float32. Losses and outputs of the cores are
compared as well: the program returns 1 if they differ by more than rounding.
"""

from __future__ import annotations

import sys
from typing import Any

import cmlp
from cmlp.cli.bench import CASES, TOLERANCE, Case, measure

from . import _report
from ._charts import bars

MORE = (
    Case((16, 64, 64, 2), 32, 100, True),
    Case((64, 256, 256, 256, 2), 256, 5, True),
    Case((784, 512, 512, 10), 128, 3, True),
    Case((4, 32, 32, 2), 1, 300, False),
    Case((784, 512, 512, 10), 1000, 2, False),
)


def main() -> int:
    """Run the benchmark."""
    args = _report.parser("paths", __doc__, seconds=4).parse_args()
    _report.with_one_thread("paths")
    about = _report.machine()
    cores = cmlp.core_info().available  # the NumPy path is the last
    print(_report.headline(about))
    print("\nmicroseconds per step or call, and how many times faster than NumPy (python)\n")
    results: list[dict[str, Any]] = []
    for case in CASES[:3] if args.quick else (*CASES, *MORE):
        times, difference = measure(case, cores, _report.seconds_of(args))
        ratios = {core: times["python"] / times[core] for core in cores}
        results.append({"case": str(case), "us": times, "ratios": ratios, "difference": difference})
    lines = [
        (
            row["case"],
            *(f"{_report.number(row['us'][core])} ({row['ratios'][core]:.1f}x)" for core in cores),
        )
        for row in results
    ]
    print(_report.table(("", *cores), lines))
    worst = max(float(row["difference"]) for row in results)
    verdict = "agree" if worst <= TOLERANCE else "DISAGREE"
    print(f"\nlosses and outputs {verdict}: largest relative difference {worst:.1e}")
    _report.write_json(args.json, about, results)
    if args.chart:
        groups = {
            row["case"].replace("  ", " ").replace(", ", "\n"): {
                core: ratio for core, ratio in row["ratios"].items() if core != "python"
            }
            for row in results
        }
        bars(args.chart, about, "Times faster than the NumPy path, one thread", {"": groups})
    return 0 if worst <= TOLERANCE else 1


if __name__ == "__main__":
    sys.exit(main())
