"""Training step by step from Python: what a call costs above the step, next to PyTorch and JAX.

    python -m benchmarks.calls [--libraries "trainer.step,PyTorch"] [--json FILE]

The same steps of SGD with momentum from the same weights: many in one call of cmlp's core (the bare
step), one a call by `trainer.step`, `net.step` and `fit` of one epoch, by PyTorch, eager, and by a
jitted step in JAX. Each has a process of its own, pinned to one processor, with one thread; they
take turns, and each one's fastest turn counts. Losses are compared: the program returns 1 if one
differs by more than rounding.
"""

from __future__ import annotations

import sys
from contextlib import ExitStack
from typing import Any

from . import _report
from ._callers import CALLERS
from ._timing import fastest
from ._work import Work
from ._workers import Worker

TOLERANCE = 2e-3
"""Largest relative difference of a loss after some steps: float32 rounding, grown."""

WORKS = (
    Work((784, 16, 16, 10), 32, 32),
    Work((4, 64, 64, 2), 32, 32),
    Work((16, 64, 64, 2), 32, 32),
    Work((16, 64, 64, 2), 256, 256),
    Work((4, 32, 32, 2), 1, 1),
    Work((784, 512, 512, 10), 128, 128),
    Work((1024, 2048, 2048, 10), 512, 512),
)


def main() -> int:
    """Run the benchmark; 1 if losses differ."""
    parser = _report.parser("calls", __doc__, seconds=6)
    names = _report.list_of(str)
    parser.add_argument("--libraries", type=names, default=list(CALLERS), help=", ".join(CALLERS))
    args = parser.parse_args()
    if unknown := set(args.libraries) - set(CALLERS):
        parser.error(f"unknown library {unknown.pop()!r}; known: {', '.join(CALLERS)}")
    about = _report.machine(("torch", "jax"))
    print(_report.headline(about), end="\n\n")
    results: list[dict[str, Any]] = []
    with ExitStack() as stack:
        workers = {name: stack.enter_context(Worker(CALLERS[name])) for name in args.libraries}
        for name, worker in workers.items():
            if worker.missing:
                print(f"{name} is left out: {worker.missing} is missing")
        present = {name: worker for name, worker in workers.items() if not worker.missing}
        for work in WORKS[1:2] if args.quick else WORKS:
            results += measure(work, present, _report.seconds_of(args))
    _report.write_json(args.json, about, results)
    agree = all(row["difference"] <= TOLERANCE for row in results)
    print(f"losses {'agree' if agree else 'DISAGREE'}")
    return 0 if agree else 1


def measure(work: Work, workers: dict[str, Worker], seconds: float) -> list[dict[str, Any]]:
    """Measure one net in all ways, print its table; returns a row for each."""
    losses = {name: worker.call("set_up", work, 0.01) for name, worker in workers.items()}
    best = fastest({name: worker.turn for name, worker in workers.items()}, seconds)
    first = next(iter(best))
    unit = "trainer.step" if "trainer.step" in best else first
    results: list[dict[str, Any]] = [
        {
            "net": work.net,
            "batch": work.batch,
            "library": name,
            "us_per_call": 1e6 * spent,
            "us_above": 1e6 * (spent - best[first]),
            "relative": spent / best[unit],
            "difference": abs(losses[name] / losses[first] - 1),
        }
        for name, spent in best.items()
    ]
    lines = [
        (
            row["library"],
            _report.number(row["us_per_call"]),
            f"{row['us_above']:,.1f}",
            _report.number(row["relative"]),
            f"{row['difference']:.0e}",
        )
        for row in results
    ]
    header = (str(work), "us/call", f"above {first}", f"time/{unit}", "difference")
    print(_report.table(header, lines), end="\n\n", flush=True)
    return results


if __name__ == "__main__":
    sys.exit(main())
