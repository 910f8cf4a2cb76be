"""Every core of this machine against the NumPy path: training steps and predictions.

    python -m benchmarks.paths [--seconds 4] [--json FILE]

The long form of ``cmlp bench``: more networks, and a JSON file for later comparisons. All cores
take turns in one process, and each one's fastest round counts; ratios within a run mean something,
times of different runs do not. One thread each.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys

import numpy as np

import cmlp
from cmlp._bench import CASES, ONE_THREAD, Case, measure


def main() -> int:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.paths", description=__doc__)
    parser.add_argument("--seconds", type=float, default=4.0, help="time for each case")
    parser.add_argument("--json", metavar="FILE", help="also write the results here")
    args = parser.parse_args()
    if not os.environ.items() >= ONE_THREAD.items():  # NumPy's BLAS asks once, when it is loaded
        command = [sys.executable, "-m", "benchmarks.paths", *sys.argv[1:]]
        os.execve(sys.executable, command, {**os.environ, **ONE_THREAD})
    cases = (
        *CASES,
        Case((16, 64, 64, 2), 32, 100, True),
        Case((64, 256, 256, 256, 2), 256, 5, True),
        Case((784, 512, 512, 10), 128, 3, True),
        Case((4, 32, 32, 2), 1, 300, False),
        Case((784, 512, 512, 10), 1000, 2, False),
    )
    cores = cmlp.core_info().available
    rows = []
    print(f"{'microseconds':33s}" + "".join(f"{core:>12s}" for core in cores) + f"{'ratio':>8s}")
    for case in cases:
        times, difference = measure(case, cores, args.seconds)
        ratio = times["python"] / times[cores[0]]
        cells = "".join(f"{times[core]:12,.1f}" for core in cores)
        print(f"{case!s:33s}{cells}{ratio:7.1f}x", flush=True)
        rows.append({"case": str(case), "us": times, "ratio": ratio, "difference": difference})
    about = {
        "machine": platform.processor() or platform.machine(),
        "cpus": cmlp.core_info().cpus,
        "python": platform.python_version(),
        "numpy": np.__version__,
        "cmlp": cmlp.__version__,
        "threads": 1,
    }
    print(f"largest difference between the cores: {max(row['difference'] for row in rows):.1e}")
    if args.json:
        with open(args.json, "w", encoding="utf-8") as file:
            json.dump({"about": about, "results": rows}, file, indent=1)
    return 0


if __name__ == "__main__":
    sys.exit(main())
