"""Many small networks in one call of ``fit_many``, against the same networks one after another.

    python -m benchmarks.lanes [--part nets,grid] [--json FILE]

``nets``: whole fits of twice as many networks as a vector has lanes, one thread, all work included:
checking, shuffling, the history. Networks differ in seed and learning rate, and share the rows.
Both ways take turns in one process, and the fastest turn of each counts. The step is the mean over
networks and steps; the fraction of the peak is that of its products.

``grid``: 24 settings on the bundled digits, three folds each, one thread: ``fit_many`` with the
rows of the folds; ``Network.fit`` one after another; and ``GridSearchCV`` of scikit-learn's
MLPClassifier, where that is installed. All take the same epochs, batches of 200 and Adam; their
mean scores over settings and folds are in the table.

Times are the processor's of the one thread that works: other programs lengthen them less.
"""

from __future__ import annotations

import argparse
import importlib.util
import sys
import time
import warnings
from collections.abc import Callable
from functools import partial
from itertools import product
from typing import Any

import numpy as np

import cmlp

from . import _report
from ._charts import bars
from ._timing import Peak, fastest
from ._work import Array, Work

WORKS = (
    Work((8, 24, 24, 24, 2), 16, 2048),
    Work((4, 32, 32, 2), 1, 1024),
    Work((4, 32, 32, 2), 16, 2048),
    Work((8, 32, 2), 32, 4096),
    Work((13, 64, 2), 32, 2048),
    Work((16, 32, 32, 2), 32, 2048),
    Work((16, 64, 64, 2), 32, 2048),
    Work((64, 16, 10), 32, 2048),
)

EPOCHS = 10

GRID = list(product([(16,), (32,), (24, 24)], [1e-5, 1e-4, 1e-3, 1e-2], [1e-3, 3e-3]))
"""Hidden layers, L2 penalty, learning rate."""

FOLDS, GRID_BATCH = 3, 200


def main() -> int:
    """Run the benchmark."""
    parser = _report.parser("lanes", __doc__, seconds=8)
    parser.add_argument("--part", type=_report.list_of(str), default=list(PARTS), help="nets,grid")
    args = parser.parse_args()
    if unknown := set(args.part) - set(PARTS):
        parser.error(f"unknown part {unknown.pop()!r}; known: {', '.join(PARTS)}")
    _report.with_one_thread("lanes")
    about = _report.machine(["scikit-learn"])
    print(_report.headline(about), end="\n\n")
    results = [row for part in args.part for row in PARTS[part](args)]
    _report.write_json(args.json, about, results)
    if args.chart:
        gains = {row["net"]: {"gain": row["gain"]} for row in results if row["part"] == "nets"}
        bars(args.chart, about, "One after another / side by side", {"": gains})
    return 0


# Networks -----------------------------------------------------------------------------------------


class Fits:
    """The same networks, trained in one call and one after another."""

    def __init__(self, work: Work, epochs: int) -> None:
        random = np.random.default_rng(0)
        self.work, self.epochs = work, epochs
        self.n = 2 * max(4, cmlp.core_info().vector_bytes // 4)
        self.X = random.standard_normal((work.rows, work.sizes[0])).astype(np.float32)
        self.y = random.integers(0, work.sizes[-1], work.rows)
        self.rates = np.geomspace(0.01, 0.0001, self.n).tolist()

    def turn(self, together: bool) -> float:
        """Train new networks; returns the seconds of a step."""
        networks = [cmlp.Network(self.work.sizes, seed=seed) for seed in range(self.n)]
        common: dict[str, Any] = {
            "epochs": self.epochs,
            "batch_size": self.work.batch,
            "n_threads": 1,
        }
        start = time.thread_time()
        if together:
            cmlp.fit_many(networks, self.X, self.y, learning_rate=self.rates, **common)
        else:
            for network, rate in zip(networks, self.rates, strict=True):
                network.fit(self.X, self.y, learning_rate=rate, **common)
        return (time.thread_time() - start) / (self.n * self.epochs * self.work.steps)


def nets(args: argparse.Namespace) -> list[dict[str, Any]]:
    """Measure whole fits; returns a row for each network."""
    results, peak = [], Peak()
    for work in WORKS[:2] if args.quick else WORKS:
        fits = Fits(work, 1 if args.quick else EPOCHS)
        turns: dict[str, Callable[[], float]] = {
            "together": partial(fits.turn, True),
            "one by one": partial(fits.turn, False),
            "peak": peak.turn,
        }
        best = fastest(turns, _report.seconds_of(args))
        results.append(
            {
                "part": "nets",
                "net": str(work),
                "networks": fits.n,
                "us": {way: 1e6 * best[way] for way in ("together", "one by one")},
                "gain": best["one by one"] / best["together"],
                "of_peak": work.step_flops * best["peak"] / best["together"],
            }
        )
    print(_report.table(NETS_HEADER, map(nets_cells, results)), end="\n\n", flush=True)
    return results


NETS_HEADER = ("", "networks", "one by one (us/step)", "side by side", "gain", "of peak")


def nets_cells(row: dict[str, Any]) -> tuple[str, ...]:
    """Return a row as cells of a table."""
    us = row["us"]
    return (
        row["net"], str(row["networks"]), _report.number(us["one by one"]),
        _report.number(us["together"]), _report.number(row["gain"]),
        _report.percent(row["of_peak"]),
    )  # fmt: skip


# A grid -------------------------------------------------------------------------------------------


class Grid:
    """The folds of the digits, and three ways to search the grid."""

    def __init__(self, epochs: int, n_rows: int | None) -> None:
        digits = cmlp.load_digits()
        self.X, self.y = digits.X_train[:n_rows] / np.float32(16), digits.y_train[:n_rows]
        self.epochs, self.scores = epochs, dict[str, float]()
        order = np.random.default_rng(0).permutation(len(self.y))
        self.tests: list[Array] = [np.sort(part) for part in np.array_split(order, FOLDS)]
        self.trains: list[Array] = [np.setdiff1d(order, part) for part in self.tests]

    def networks(self, together: bool) -> float:
        """Fit every setting on every fold; returns the seconds."""
        start = time.thread_time()
        each = [(setting, fold) for setting in GRID for fold in range(FOLDS)]
        networks = [cmlp.Network((64, *hidden, 10), seed=fold) for (hidden, *_), fold in each]
        common: dict[str, Any] = {
            "epochs": self.epochs,
            "batch_size": GRID_BATCH,
            "solver": "adam",
            "n_threads": 1,
        }
        own: list[dict[str, Any]] = [
            {"l2": l2 / GRID_BATCH, "learning_rate": rate} for (_, l2, rate), _ in each
        ]
        rows = [self.trains[fold] for _, fold in each]
        if together:
            cmlp.fit_many(networks, self.X, self.y, rows=rows, settings=own, **common)
        else:
            for network, part, more in zip(networks, rows, own, strict=True):
                network.fit(self.X[part], self.y[part], **common, **more)
        tests = [self.tests[fold] for _, fold in each]
        scores = [
            network.score(self.X[part], self.y[part])
            for network, part in zip(networks, tests, strict=True)
        ]
        spent = time.thread_time() - start
        self.scores["fit_many" if together else "Network.fit"] = float(np.mean(scores))
        return spent

    def sklearn(self) -> float:
        """Search with scikit-learn's own; returns the seconds."""
        from sklearn.model_selection import GridSearchCV
        from sklearn.neural_network import MLPClassifier

        names = "hidden_layer_sizes", "alpha", "learning_rate_init"
        values = [list(dict.fromkeys(column)) for column in zip(*GRID, strict=True)]
        search = GridSearchCV(
            MLPClassifier(
                max_iter=self.epochs,
                batch_size=GRID_BATCH,
                random_state=0,
                n_iter_no_change=self.epochs,
            ),
            dict(zip(names, values, strict=True)),
            cv=list(zip(self.trains, self.tests, strict=True)),
            refit=False,
        )
        start = time.thread_time()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            search.fit(self.X, self.y)
        spent = time.thread_time() - start
        self.scores["scikit-learn"] = float(np.mean(search.cv_results_["mean_test_score"]))
        return spent


def grid(args: argparse.Namespace) -> list[dict[str, Any]]:
    """Measure the grid; returns a row for each way."""
    work = Grid(1, 300) if args.quick else Grid(20, None)
    turns: dict[str, Callable[[], float]] = {
        "fit_many": partial(work.networks, True),
        "Network.fit": partial(work.networks, False),
    }
    if importlib.util.find_spec("sklearn") is not None:
        turns["scikit-learn"] = work.sklearn
    best = fastest(turns, _report.seconds_of(args), rounds=1 if args.quick else 2)
    results = [
        {
            "part": "grid", "way": way, "seconds": best[way],
            "of_fit_many": best[way] / best["fit_many"], "score": work.scores[way],
        }
        for way in turns
    ]  # fmt: skip
    header = (f"{len(GRID)} settings, {FOLDS} folds", "seconds", "/ fit_many", "mean score")
    print(_report.table(header, map(grid_cells, results)), end="\n\n", flush=True)
    return results


def grid_cells(row: dict[str, Any]) -> tuple[str, ...]:
    """Return a row as cells of a table."""
    return (
        row["way"], _report.number(row["seconds"]), _report.number(row["of_fit_many"]),
        _report.number(row["score"], 4),
    )  # fmt: skip


PARTS = {"nets": nets, "grid": grid}


if __name__ == "__main__":
    sys.exit(main())
