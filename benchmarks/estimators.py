"""The estimators against scikit-learn's: test scores, and times of fits and predictions.

    python -m benchmarks.estimators --data FOLDER [--part scores,fits,predict,grid] [--json FILE]

FOLDER (or CMLP_DATA in the environment) has the tables of ``_data`` as ``.npz`` files. Both
libraries get the same rows and the same parameters: scikit-learn's defaults (100 hidden units,
Adam, batches of 200), except for ``max_iter``.

``scores``: ten seeds each; the test accuracy or R2 as mean and standard error, and the difference
of the means in standard errors of that difference; the program returns 1 if one is 2 or more. X is
float64, and cmlp computes in float32, its default, and in float64. ``max_iter`` is in the table.

``fits``: a whole fit, one thread, a fixed number of epochs without early stopping, on X of float64
(the dtype in which pandas and NumPy read numbers) and of float32. Each library has a process of its
own, they take turns, and the fastest turn counts. ``Network.fit`` of the same epochs takes turns,
too: the difference to the estimator's time is the estimator's overhead.

``predict``: one row, from Python to probabilities or numbers, all checks included.

``grid``: ``GridSearchCV`` over 24 settings on optdigits with two jobs: cmlp's in threads,
scikit-learn's in processes that have been started before.
"""

from __future__ import annotations

import argparse
import importlib
import importlib.util
import os
import sys
import time
import warnings
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from typing import Any

import numpy as np

import cmlp

from . import _report
from ._data import SOURCES, Table, load, missing
from ._timing import fastest, timed
from ._work import Array
from ._workers import Worker

MODULES = {"cmlp": "cmlp", "scikit-learn": "sklearn.neural_network"}

EPOCHS = {
    "Letter": 60, "Satimage": 100, "Adult": 20, "optdigits": 100,
    "California": 60, "Diamonds": 30, "Wine quality": 100,
}  # fmt: skip
"""Tables to compare scores on, with their `max_iter`: the whole takes minutes, not an hour."""

FITS = {"Adult": 10, "Letter": 20, "California": 20, "MNIST": 3}
"""Tables to time fits on, with their epochs: a second or so of the slower library."""

SEEDS = 10
LIMIT = 2.0
"""Limit of a difference of means, in standard errors."""

GRID = {
    "hidden_layer_sizes": [(50,), (100,), (50, 50)],
    "alpha": [1e-5, 1e-4, 1e-3, 1e-2],
    "learning_rate_init": [1e-3, 3e-3],
}
GRID_TABLE, GRID_EPOCHS = "optdigits", 10


def new(library: str, classifies: bool, **parameters: Any) -> Any:
    """Create an estimator."""
    name = "MLPClassifier" if classifies else "MLPRegressor"
    return getattr(importlib.import_module(MODULES[library]), name)(**parameters)


def be_quiet() -> None:
    """Silence the warning that training ended after `max_iter` epochs, which is intended."""
    warnings.filterwarnings("ignore", "Stochastic Optimizer: Maximum iterations")


def main() -> int:
    """Run the benchmark; 1 if scores differ."""
    parser = _report.parser("estimators", __doc__, seconds=8)
    names = _report.list_of(str)
    parser.add_argument("--data", metavar="FOLDER", default=os.environ.get("CMLP_DATA"))
    parser.add_argument("--part", type=names, default=list(PARTS), help=",".join(PARTS))
    parser.add_argument("--tables", type=names, default=list(SOURCES), help=",".join(SOURCES))
    args = parser.parse_args()
    for given, known in ((args.part, PARTS), (args.tables, SOURCES)):
        if unknown := set(given) - set(known):
            parser.error(f"unknown {unknown.pop()!r}; known: {', '.join(known)}")
    if not args.data:
        parser.error("the folder of the tables is missing; give --data FOLDER, or set CMLP_DATA")
    if files := missing(args.data, args.tables):
        parser.error(f"{args.data} lacks {', '.join(files)}; --tables chooses those to use")
    if importlib.util.find_spec("sklearn") is None:
        parser.error("scikit-learn is not installed; pip install '.[bench]' installs it")
    _report.with_one_thread("estimators")
    be_quiet()
    about = _report.machine(["scikit-learn"])
    print(_report.headline(about), end="\n\n")
    results = [row for part in args.part for row in PARTS[part](args)]
    _report.write_json(args.json, about, results)
    return 0 if all(row.get("alike", True) for row in results) else 1


def tables(args: argparse.Namespace, wanted: dict[str, int]) -> list[str]:
    """Return the requested tables of a part."""
    return [name for name in wanted if name in args.tables]


def rows_of(args: argparse.Namespace) -> int | None:
    """Return the limit of rows: few with ``--quick``."""
    return 200 if args.quick else None


# Scores -------------------------------------------------------------------------------------------

VARIANTS: dict[str, tuple[str, dict[str, Any]]] = {
    "scikit-learn": ("scikit-learn", {}),
    "cmlp": ("cmlp", {}),
    "cmlp float64": ("cmlp", {"dtype": "float64"}),
}
"""One side of the comparison: a library, and parameters that only it has."""


def scores(args: argparse.Namespace) -> list[dict[str, Any]]:
    """Compare test scores over seeds; returns a row per table."""
    seeds = 2 if args.quick else SEEDS
    results = []
    for name in tables(args, EPOCHS):
        table = load(args.data, name, rows_of(args))
        epochs = 2 if args.quick else EPOCHS[name]
        found = {
            variant: [_score(table, variant, epochs, seed) for seed in range(seeds)]
            for variant in VARIANTS
        }
        results.append(compare_scores(table, epochs, found))
        print(score_line(results[-1]), flush=True)
    print()
    print(_report.table(SCORE_HEADER, map(score_cells, results)), end="\n\n", flush=True)
    return results


def _score(table: Table, variant: str, epochs: int, seed: int) -> float:
    """Fit one estimator, and return its test score."""
    library, parameters = VARIANTS[variant]
    estimator = new(
        library, table.classifies, max_iter=epochs, random_state=seed, **parameters
    ).fit(table.X, table.y)
    return float(estimator.score(table.X_test, table.y_test))


def compare_scores(table: Table, epochs: int, found: dict[str, list[float]]) -> dict[str, Any]:
    """Return means, standard errors, and differences from scikit-learn's in standard errors."""
    values = {variant: np.array(scores) for variant, scores in found.items()}
    theirs = values["scikit-learn"]
    others = {variant: v for variant, v in values.items() if v is not theirs}
    difference = {variant: in_errors(ours, theirs) for variant, ours in others.items()}
    return {
        "part": "scores",
        "table": table.name,
        "score": "accuracy" if table.classifies else "R2",
        "rows": len(table.X),
        "max_iter": epochs,
        "scores": found,
        "mean": {variant: float(v.mean()) for variant, v in values.items()},
        "error": {variant: standard_error(v) for variant, v in values.items()},
        "difference": difference,
        "largest": {variant: float(abs(v - theirs).max()) for variant, v in others.items()},
        "alike": all(abs(errors) < LIMIT for errors in difference.values()),
    }


def standard_error(values: Array) -> float:
    """Return the standard error of a mean."""
    return float(values.std(ddof=1) / len(values) ** 0.5)


def in_errors(ours: Array, theirs: Array) -> float:
    """Return the difference of two means in its standard errors."""
    error = float(np.hypot(standard_error(ours), standard_error(theirs)))
    difference = float(ours.mean() - theirs.mean())
    return difference / error if error else 0.0 if not difference else np.inf


SCORE_HEADER = (
    "", "score", "epochs", "scikit-learn", "cmlp", "cmlp float64",
    "difference", "float64's", "of a seed", "float64's", "",
)  # fmt: skip


def score_line(row: dict[str, Any]) -> str:
    """Print the result of a table as soon as it is complete."""
    means = ", ".join(f"{variant} {mean:.4f}" for variant, mean in row["mean"].items())
    return f"{row['table']}: {means}"


def score_cells(row: dict[str, Any]) -> tuple[str, ...]:
    """Return a table's row: differences in standard errors, and the largest of a seed."""
    return (
        row["table"],
        row["score"],
        str(row["max_iter"]),
        *(f"{row['mean'][variant]:.4f} ± {row['error'][variant]:.4f}" for variant in VARIANTS),
        *(f"{value:+.2f}" for value in row["difference"].values()),
        *(f"{value:.4f}" for value in row["largest"].values()),
        "alike" if row["alike"] else "DIFFERENT",
    )


# Fits ---------------------------------------------------------------------------------------------


class Fitter:
    """Fits one library's estimator, or a network; runs in a process of its own.

    Parameters
    ----------
    kind : str
        'scikit-learn', 'cmlp' or 'Network'.
    """

    def __init__(self, kind: str) -> None:
        self.kind = kind
        importlib.import_module(MODULES.get(kind, "cmlp"))
        be_quiet()

    def set_up(self, folder: str, name: str, dtype: str, epochs: int, rows: int | None) -> None:
        """Read a table."""
        self.table, self.epochs = load(folder, name, rows).astype(dtype), epochs

    def turn(self) -> float:
        """Return the seconds of a fit."""
        fit = self._network() if self.kind == "Network" else self._estimator()
        start = time.perf_counter()
        fit(self.table.X, self.table.y)
        return time.perf_counter() - start

    def one_row(self) -> dict[str, float]:
        """Return the microseconds of each method that predicts one row, after a fit."""
        estimator = self._estimator()(self.table.X, self.table.y)
        row = self.table.X_test[:1].copy()
        ways = ("predict_proba", "predict") if self.table.classifies else ("predict",)
        return {way: 1e6 * timed(partial(getattr(estimator, way), row))() for way in ways}

    def _estimator(self) -> Callable[..., Any]:
        fit: Callable[..., Any] = new(
            self.kind,
            self.table.classifies,
            max_iter=self.epochs,
            n_iter_no_change=np.inf,
            random_state=0,
        ).fit
        return fit

    def _network(self) -> Callable[..., Any]:
        table = self.table
        n_classes = len(np.unique(table.y)) if table.classifies else 1
        if n_classes > 2:
            n_out, loss = n_classes, "categorical_crossentropy"
        else:
            n_out, loss = 1, "binary_crossentropy" if table.classifies else "mse"
        net = cmlp.Network([table.X.shape[1], 100, n_out], loss=loss, seed=0)
        return partial(
            net.fit, epochs=self.epochs, batch_size=200, solver="adam", learning_rate=0.001, l2=1e-4
        )


DTYPES = ("float64", "float32")


def fits(args: argparse.Namespace) -> list[dict[str, Any]]:
    """Time whole fits; returns a row per table and dtype of X."""
    results = []
    kinds = ("cmlp", "scikit-learn", "Network")
    with ExitStack() as stack:
        workers = {kind: stack.enter_context(Worker(Fitter, kind)) for kind in kinds}
        for name in tables(args, FITS):
            for dtype in DTYPES:
                epochs = 2 if args.quick else FITS[name]
                for worker in workers.values():
                    worker.call("set_up", args.data, name, dtype, epochs, rows_of(args))
                turns = {kind: worker.turn for kind, worker in workers.items()}
                best = fastest(turns, _report.seconds_of(args))
                results.append(fit_row(name, dtype, epochs, best))
    print(_report.table(FIT_HEADER, map(fit_cells, results)))
    for dtype in DTYPES:
        ratios = [row["ratio"] for row in results if row["dtype"] == dtype]
        if ratios:
            mean = float(np.exp(np.mean(np.log(ratios))))
            print(f"X of {dtype}: {_report.number(mean)} times faster in geometric mean")
    print(flush=True)
    return results


def fit_row(name: str, dtype: str, epochs: int, best: dict[str, float]) -> dict[str, Any]:
    """Return the ratios and rates of a fit's times."""
    return {
        "part": "fits",
        "table": name,
        "dtype": dtype,
        "epochs": epochs,
        "seconds": best,
        "ratio": best["scikit-learn"] / best["cmlp"],
        "overhead": best["cmlp"] / best["Network"] - 1,
        "overhead_ms": 1e3 * (best["cmlp"] - best["Network"]),
    }


FIT_HEADER = (
    "fit", "X", "epochs", "scikit-learn (s)", "cmlp (s)", "ratio",
    "Network (s)", "above it (ms)", "",
)  # fmt: skip


def fit_cells(row: dict[str, Any]) -> tuple[str, ...]:
    """Return a table's row."""
    seconds = row["seconds"]
    return (
        row["table"],
        row["dtype"],
        str(row["epochs"]),
        _report.number(seconds["scikit-learn"]),
        _report.number(seconds["cmlp"]),
        _report.number(row["ratio"]),
        _report.number(seconds["Network"]),
        f"{row['overhead_ms']:+.1f}",
        f"{100 * row['overhead']:+.1f}%",
    )


# Predictions of one row ---------------------------------------------------------------------------


def predict(args: argparse.Namespace) -> list[dict[str, Any]]:
    """Time predictions of one row; returns a row per table and method."""
    results = []
    with ExitStack() as stack:
        workers = {kind: stack.enter_context(Worker(Fitter, kind)) for kind in MODULES}
        for name in tables(args, FITS):
            for worker in workers.values():
                worker.call("set_up", args.data, name, "float64", 1, rows_of(args) or 2000)
            results += predict_rows(name, workers, rounds=2 if args.quick else 20)
    print(_report.table(PREDICT_HEADER, map(predict_cells, results)), end="\n\n", flush=True)
    return results


def predict_rows(name: str, workers: dict[str, Worker], rounds: int) -> list[dict[str, Any]]:
    """Run the libraries in turns, and return the fastest of each method."""
    best: dict[str, dict[str, float]] = {}
    for _ in range(rounds):
        for kind, worker in workers.items():
            for way, spent in worker.call("one_row").items():
                times = best.setdefault(way, {})
                times[kind] = min(spent, times.get(kind, np.inf))
    return [
        {"part": "predict", "table": name, "method": way, "us": times}
        for way, times in best.items()
    ]


PREDICT_HEADER = ("one row", "", "scikit-learn (us)", "cmlp (us)", "ratio")


def predict_cells(row: dict[str, Any]) -> tuple[str, ...]:
    """Return a table's row."""
    ours, theirs = row["us"]["cmlp"], row["us"]["scikit-learn"]
    numbers = map(_report.number, (theirs, ours, theirs / ours))
    return (row["table"], row["method"], *numbers)


# Grid search --------------------------------------------------------------------------------------


def grid(args: argparse.Namespace) -> list[dict[str, Any]]:
    """Time a grid search in threads and in processes; returns a row per library and jobs."""
    if GRID_TABLE not in args.tables:
        return []
    table = load(args.data, GRID_TABLE, rows_of(args))
    found: dict[str, Any] = {}
    ways = {"cmlp, 2 threads": ("cmlp", "threading", 2), "cmlp, 1 job": ("cmlp", "threading", 1)}
    ways["scikit-learn, 2 processes"] = ("scikit-learn", "loky", 2)
    epochs = 2 if args.quick else GRID_EPOCHS
    turns = {
        way: partial(search_seconds, table, library, backend, jobs, epochs, found)
        for way, (library, backend, jobs) in ways.items()
    }
    search_seconds(table, "scikit-learn", "loky", 2, 1, {})  # starts the processes
    best = fastest(turns, _report.seconds_of(args), rounds=1 if args.quick else 2)
    results = [
        {
            "part": "grid",
            "table": table.name,
            "epochs": epochs,
            "way": way,
            "seconds": seconds,
            "relative": seconds / best["cmlp, 2 threads"],
            "score": found[ways[way][0]].best_score_,
            "best": found[ways[way][0]].best_params_,
        }
        for way, seconds in best.items()
    ]
    header = (f"24 settings, 3 folds, {epochs} epochs", "seconds", "time/first", "best score")
    lines = [
        (
            row["way"],
            _report.number(row["seconds"]),
            _report.number(row["relative"]),
            f"{row['score']:.4f}",
        )
        for row in results
    ]
    print(_report.table(header, lines), end="\n\n", flush=True)
    return results


def search_seconds(
    table: Table, library: str, backend: str, jobs: int, epochs: int, found: dict[str, Any]
) -> float:
    """Return the seconds of a search, and store its result."""
    from joblib import parallel_config
    from sklearn.model_selection import GridSearchCV

    own = {"n_threads": 1} if library == "cmlp" else {}
    estimator = new(library, table.classifies, max_iter=epochs, random_state=0, **own)
    search = GridSearchCV(estimator, GRID, cv=3, n_jobs=jobs)
    start = time.perf_counter()
    with parallel_config(backend=backend):
        found[library] = search.fit(table.X, table.y)
    return time.perf_counter() - start


PARTS: dict[str, Callable[[argparse.Namespace], list[dict[str, Any]]]] = {
    "scores": scores,
    "fits": fits,
    "predict": predict,
    "grid": grid,
}

if __name__ == "__main__":
    sys.exit(main())
