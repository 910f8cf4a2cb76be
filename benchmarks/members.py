"""Ensembles and folds of small estimators, trained side by side, against one after another.

    python -m benchmarks.members [--part ensembles,folds,grid] [--json FILE]

``ensembles``: ten members by ``n_ensemble=10``, the same estimators one after another, and ten of
scikit-learn's MLPClassifier, where that is installed. ``folds``: five folds by
``cmlp.cross_validate``, by a loop of ``fit`` and ``score``, and by scikit-learn's. ``grid``: the
settings and folds of ``benchmarks.lanes``, by ``cmlp.cross_validate`` and ``GridSearchCV``. All
take the same epochs, batches and Adam, on one thread. Times are the processor's, in all threads.
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
from ._timing import fastest
from ._work import Array
from .lanes import FOLDS, GRID, GRID_BATCH, Grid

SHAPES = (((24, 16), 8, 16), ((24, 16), 8, 32), ((32,), 64, 32), ((32,), 64, 200))
"""Hidden layers, columns, rows of a batch."""

MEMBERS, CV, ROWS, EPOCHS = 10, 5, 2000, 20


def main() -> int:
    """Run the benchmark."""
    parser = _report.parser("members", __doc__, seconds=6)
    parts = _report.list_of(str)
    parser.add_argument("--part", type=parts, default=list(PARTS), help=",".join(PARTS))
    args = parser.parse_args()
    if unknown := set(args.part) - set(PARTS):
        parser.error(f"unknown part {unknown.pop()!r}; known: {', '.join(PARTS)}")
    _report.with_one_thread("members")
    about = _report.machine(["scikit-learn"])
    print(_report.headline(about), end="\n\n")
    results = [row for part in args.part for row in PARTS[part](args)]
    _report.write_json(args.json, about, results)
    return 0


def measure(
    part: str, title: str, ways: dict[str, Callable[[], float]], args: argparse.Namespace
) -> list[dict[str, Any]]:
    """Measure some ways of one work, each of which returns a score; returns a row for each."""
    scores: dict[str, float] = {}

    def turn(way: str) -> float:
        start = time.process_time()
        scores[way] = ways[way]()
        return time.process_time() - start

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        turns: dict[str, Callable[[], float]] = {way: partial(turn, way) for way in ways}
        best = fastest(turns, _report.seconds_of(args), rounds=1 if args.quick else 2)
    first = next(iter(ways))
    results: list[dict[str, Any]] = [
        {
            "part": part, "work": title, "way": way, "seconds": best[way],
            "relative": best[way] / best[first], "score": scores[way],
        }
        for way in ways
    ]  # fmt: skip
    lines = [
        (
            row["way"],
            _report.number(row["seconds"]),
            _report.number(row["relative"]),
            _report.number(row["score"], 4),
        )
        for row in results
    ]
    header = (title, "seconds", f"/ {first}", "score")
    print(_report.table(header, lines), end="\n\n", flush=True)
    return results


def rivals() -> bool:
    """Whether scikit-learn is installed."""
    return importlib.util.find_spec("sklearn") is not None


def data_of(n_columns: int, n_rows: int) -> tuple[Array, Array]:
    """Return the bundled digits, or points in two classes."""
    if n_columns == 64:
        digits = cmlp.load_digits()
        return digits.X_train[:n_rows] / np.float32(16), digits.y_train[:n_rows]
    X = np.random.default_rng(0).normal(size=(n_rows, n_columns)).astype(np.float32)
    return X, (X[:, 0] * X[:, 1] > 0).astype(int)


def parameters(hidden: tuple[int, ...], batch: int, epochs: int) -> dict[str, Any]:
    """Return the parameters of both libraries' estimators."""
    return {
        "hidden_layer_sizes": hidden, "batch_size": batch, "max_iter": epochs, "random_state": 0,
        "n_iter_no_change": epochs,
    }  # fmt: skip


# Ensembles ----------------------------------------------------------------------------------------


def together(X: Array, y: Array, common: dict[str, Any]) -> float:
    """Fit an ensemble."""
    model = cmlp.MLPClassifier(**common, n_ensemble=MEMBERS, n_threads=1)
    return float(np.mean([member.score(X, y) for member in model.fit(X, y).estimators_]))


def one_by_one(kind: Any, X: Array, y: Array, common: dict[str, Any]) -> float:
    """Fit as many estimators."""
    seeds = np.random.RandomState(0).randint(2**31 - 1, size=MEMBERS).tolist()
    return float(
        np.mean([kind(**common | {"random_state": seed}).fit(X, y).score(X, y) for seed in seeds])
    )


def ensembles(args: argparse.Namespace) -> list[dict[str, Any]]:
    """Measure ensembles of some shapes."""
    results = []
    for hidden, n_columns, batch in SHAPES[:1] if args.quick else SHAPES:
        X, y = data_of(n_columns, 100 if args.quick else ROWS)
        common = parameters(hidden, batch, 1 if args.quick else EPOCHS)
        ours = partial(cmlp.MLPClassifier, n_threads=1)
        ways: dict[str, Callable[[], float]] = {
            "n_ensemble": partial(together, X, y, common),
            "one by one": partial(one_by_one, ours, X, y, common),
        }
        if rivals():
            from sklearn.neural_network import MLPClassifier

            ways["scikit-learn"] = partial(one_by_one, MLPClassifier, X, y, common)
        title = f"{MEMBERS} members, {n_columns}-{'-'.join(map(str, hidden))}, batch {batch}"
        results += measure("ensembles", title, ways, args)
    return results


# Folds --------------------------------------------------------------------------------------------


def pairs_of(n: int) -> list[tuple[Array, Array]]:
    """Return the rows to train on and those to score, of each fold."""
    number = np.arange(n) % CV
    return [(np.flatnonzero(number != fold), np.flatnonzero(number == fold)) for fold in range(CV)]


def mean_score(cross_validate: Callable[..., Any], model: Any, X: Array, y: Array) -> float:
    """Return the mean score of the folds, by one of two functions of that name."""
    return float(cross_validate(model, X, y, cv=pairs_of(len(y)))["test_score"].mean())


def fold_by_fold(X: Array, y: Array, common: dict[str, Any]) -> float:
    """Fit and score an estimator for each fold, in a loop."""
    scores = []
    for train, test in pairs_of(len(y)):
        model = cmlp.MLPClassifier(**common, n_threads=1).fit(X[train], y[train])
        scores.append(model.score(X[test], y[test]))
    return float(np.mean(scores))


def folds(args: argparse.Namespace) -> list[dict[str, Any]]:
    """Measure folds of some shapes."""
    results = []
    for hidden, n_columns, batch in SHAPES[:1] if args.quick else SHAPES:
        X, y = data_of(n_columns, 100 if args.quick else ROWS)
        common = parameters(hidden, batch, 1 if args.quick else EPOCHS)
        ours = cmlp.MLPClassifier(**common, n_threads=1)
        ways: dict[str, Callable[[], float]] = {
            "cross_validate": partial(mean_score, cmlp.cross_validate, ours, X, y),
            "one by one": partial(fold_by_fold, X, y, common),
        }
        if rivals():
            from sklearn.model_selection import cross_validate
            from sklearn.neural_network import MLPClassifier

            theirs = MLPClassifier(**common)
            ways["scikit-learn"] = partial(mean_score, cross_validate, theirs, X, y)
        title = f"{CV} folds, {n_columns}-{'-'.join(map(str, hidden))}, batch {batch}"
        results += measure("folds", title, ways, args)
    return results


# A grid -------------------------------------------------------------------------------------------


def grid(args: argparse.Namespace) -> list[dict[str, Any]]:
    """Measure a grid of settings with folds."""
    work = Grid(1, 300) if args.quick else Grid(EPOCHS, None)
    names = "hidden_layer_sizes", "alpha", "learning_rate_init"
    settings = [dict(zip(names, values, strict=True)) for values in GRID]
    common = parameters((16,), GRID_BATCH, work.epochs)
    pairs = list(zip(work.trains, work.tests, strict=True))

    def ours() -> float:
        model = cmlp.MLPClassifier(**common, n_threads=1)
        found = cmlp.cross_validate(model, work.X, work.y, cv=pairs, settings=settings)
        return float(found["test_score"].mean())

    def one_after_another() -> float:
        scores = []
        for own, (train, test) in product(settings, pairs):
            model = cmlp.MLPClassifier(**common | own, n_threads=1)
            scores.append(model.fit(work.X[train], work.y[train]).score(work.X[test], work.y[test]))
        return float(np.mean(scores))

    ways: dict[str, Callable[[], float]] = {
        "cross_validate": ours, "one by one": one_after_another,
    }  # fmt: skip
    if rivals():

        def searched() -> float:
            work.sklearn()
            return work.scores["scikit-learn"]

        ways["scikit-learn"] = searched
    return measure("grid", f"{len(GRID)} settings, {FOLDS} folds", ways, args)


PARTS = {"ensembles": ensembles, "folds": folds, "grid": grid}


if __name__ == "__main__":
    sys.exit(main())
