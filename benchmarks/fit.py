"""A whole fit: MNIST from its file, ten epochs of 784-128-10, against the training step alone.

    python -m benchmarks.fit --data FOLDER [--threads 1,2] [--json FILE]

FOLDER (or CMLP_DATA in the environment) has ``mnist.npz`` with X_train, y_train, X_test and y_test;
the pixels are uint8. ``Network.fit`` gets the pixels unchanged, and all of its work counts:
checking, shuffling, converting, the history. It takes turns with the step of ``training``, the same
net on as many float32 rows in memory, in the same process; the ratio of their rows per second is
the part of the step's speed that a user gets. The table also has the part of the fit's time that
its epochs took in the core. Memory is the largest growth of a process during the fit, with data,
libraries and the network already loaded.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

import cmlp

from . import _report
from ._charts import lines
from ._memory import peak_above
from ._steps import Steps
from ._timing import fastest, pinned
from ._work import Array, Work
from ._workers import Worker

SIZES, BATCH = (784, 128, 10), 128


class Fit:
    """The data in memory, and the work on it.

    Parameters
    ----------
    folder : str
        Folder that has mnist.npz.
    quick : bool
        Only a tenth of the rows and two epochs.
    n_threads : int
    """

    def __init__(self, folder: str, quick: bool, n_threads: int) -> None:
        with np.load(Path(folder) / "mnist.npz", allow_pickle=False) as file:
            arrays = {name.lower(): file[name] for name in file.files}
        self.X, self.X_test = (_pixels(arrays[f"x_{part}"]) for part in ("train", "test"))
        self.y, self.y_test = arrays["y_train"], arrays["y_test"]
        if quick:
            n = len(self.X) // 10
            self.X, self.y = self.X[:n], self.y[:n]
        self.epochs, self.n_threads = 2 if quick else 10, n_threads
        self.fastest, self.in_epochs = float("inf"), 0.0
        self.new_network()

    def new_network(self) -> None:
        """Create a new network."""
        self.net = cmlp.Network(SIZES, seed=0, input_scale=1 / 255)

    def run(self) -> None:
        """Fit the network."""
        self.net.fit(
            self.X,
            self.y,
            epochs=self.epochs,
            batch_size=BATCH,
            learning_rate=0.05,
            n_threads=self.n_threads,
        )

    def turn(self) -> float:
        """Fit a new network; returns the seconds of a row in an epoch."""
        self.new_network()
        with pinned(self.n_threads):
            start = time.perf_counter()
            self.run()
            spent = time.perf_counter() - start
        if spent < self.fastest:
            epochs = sum(len(self.X) / rate for rate in self.net.history["rows_per_second"])
            self.fastest, self.in_epochs = spent, epochs / spent
        return spent / (self.epochs * len(self.X))

    def memory(self) -> float | None:
        """Return the megabytes of a fit in addition to data and network."""
        return peak_above(self.run)[0]


def _pixels(images: Array) -> Array:
    """Reshape images to rows, in place."""
    return images.reshape(len(images), -1)


def main() -> int:
    """Run the benchmark."""
    parser = _report.parser("fit", __doc__, seconds=30)
    parser.add_argument("--data", metavar="FOLDER", default=os.environ.get("CMLP_DATA"))
    parser.add_argument("--threads", type=_report.list_of(int), default=[1], help="1,2: each (1)")
    args = parser.parse_args()
    _report.with_one_thread("fit")
    if not args.data or not (Path(args.data) / "mnist.npz").exists():
        parser.error("the folder of mnist.npz is missing; give --data FOLDER, or set CMLP_DATA")
    about = _report.machine()
    print(_report.headline(about))
    print()
    results = [measure(args, threads) for threads in args.threads]
    print(_report.table(HEADER, map(cells, results)))
    _report.write_json(args.json, about, results)
    if args.chart:
        series: dict[str, list[tuple[float, float]]] = {
            _report.plural(row["threads"], "thread"): list(enumerate(row["losses"], 1))
            for row in results
        }
        panels = {"MNIST, 784-128-10, batch 128": series}
        lines(args.chart, about, "Training loss", panels, ("epoch", "cross-entropy"))
    return 0


HEADER = ("", "rows/s of fit", "of step", "in core", "seconds", "accuracy", "memory (MB)")


def measure(args: argparse.Namespace, threads: int) -> dict[str, Any]:
    """Measure fit and step with a number of threads."""
    fit = Fit(args.data, args.quick, threads)
    step = Steps(Work(SIZES, BATCH, len(fit.X) // BATCH * BATCH), n_threads=threads)
    best = fastest(
        {"fit": fit.turn, "step": lambda: step.turn() / BATCH}, _report.seconds_of(args), rounds=2
    )
    history = fit.net.history
    with Worker(Fit, args.data, args.quick, threads, threads=threads) as worker:
        memory = worker.call("memory")
    return {
        "threads": threads,
        "rows": len(fit.X),
        "epochs": fit.epochs,
        "rows_per_second": 1 / best["fit"],
        "of_step": best["step"] / best["fit"],
        "in_epochs": fit.in_epochs,
        "seconds": best["fit"] * len(fit.X) * fit.epochs,
        "losses": history["loss"],
        "test_accuracy": fit.net.score(fit.X_test, fit.y_test),
        "memory": memory,
    }


def cells(row: dict[str, Any]) -> tuple[str, ...]:
    """Return a table's row."""
    return (
        _report.plural(row["threads"], "thread"),
        _report.number(row["rows_per_second"]),
        _report.percent(row["of_step"]),
        _report.percent(row["in_epochs"]),
        _report.number(row["seconds"]),
        f"{row['test_accuracy']:.4f}",
        _report.number(row["memory"]),
    )


if __name__ == "__main__":
    sys.exit(main())
