"""Local steps (``sync_every`` above 1) against a sum at every step: scores after equal epochs.

    PYTHONPATH=src python -m benchmarks.local_steps --data FOLDER

FOLDER has the tables of ``_data``. Four ranks are threads of this process. The same seeds train
with each ``sync_every``; a difference is the mean over the seeds, in points of accuracy or of R2 x
100, with its standard error.
"""

from __future__ import annotations

import argparse
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

import cmlp
from cmlp.distributed import ThreadRing

from ._data import Table, load, missing

NETS = {
    "MNIST": ([128], 5, 0.05), "Letter": ([128, 64], 20, 0.05), "Adult": ([64, 32], 10, 0.02),
    "California": ([64, 64], 40, 0.002),
}  # fmt: skip
"""Hidden layers, epochs, and the learning rate with momentum."""

SOLVERS: dict[str, dict[str, Any]] = {
    "momentum": {"solver": "sgd", "momentum": 0.9},
    "AdamW": {"solver": "adamw", "learning_rate": 0.001, "weight_decay": 0.01},
}


def score(table: Table, hidden: list[int], n_ranks: int, seed: int, **options: Any) -> float:
    """Train on some ranks, and return the score on the test rows, x 100."""
    n_out = int(table.y.max()) + 1 if table.classifies else 1
    n_out = 1 if n_out == 2 else n_out
    loss = "squared_error"
    if table.classifies:
        loss = "binary_crossentropy" if n_out == 1 else "categorical_crossentropy"
    nets = [
        cmlp.Network([table.X.shape[1], *hidden, n_out], loss=loss, seed=seed)
        for _ in range(n_ranks)
    ]

    def train(comm: ThreadRing) -> None:
        nets[comm.rank].fit(table.X, table.y, comm=comm, n_threads=1, **options)

    with ThreadPoolExecutor(n_ranks) as pool:
        list(pool.map(train, ThreadRing.make(n_ranks)))
    return 100 * nets[0].score(table.X_test, table.y_test)


def main() -> None:
    """Print a line for each table and solver."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--data", required=True)
    parser.add_argument("--tables", nargs="+", choices=NETS, default=list(NETS))
    parser.add_argument("--every", nargs="+", type=int, default=[8, 32])
    parser.add_argument("--ranks", type=int, default=4)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--epochs", type=int, help="instead of the table's")
    parser.add_argument("--rows", type=int, help="of each table, at most")
    given = parser.parse_args()
    if lacking := missing(given.data, given.tables):
        parser.error(f"{given.data} has no {', '.join(lacking)}")
    print("| table | solver | every step |", *(f"every {k} |" for k in given.every))
    print("|---|---|---|" + "---|" * len(given.every))
    for name in given.tables:
        table = load(given.data, name, given.rows).astype("float32")
        hidden, epochs, rate = NETS[name]
        for solver, recipe in SOLVERS.items():
            found = np.array([
                [
                    score(table, hidden, given.ranks, seed, sync_every=k, batch_size=128,
                          epochs=given.epochs or epochs, **{"learning_rate": rate} | recipe)
                    for k in (1, *given.every)
                ]
                for seed in range(given.seeds)
            ])  # fmt: skip
            less = found[:, 1:] - found[:, :1]
            error = less.std(axis=0, ddof=min(1, len(less) - 1)) / np.sqrt(len(less))
            cells = [f"{d:+.2f} ± {e:.2f} |" for d, e in zip(less.mean(axis=0), error, strict=True)]
            print(f"| {name} | {solver} | {found[:, 0].mean():.2f} |", *cells, flush=True)


if __name__ == "__main__":
    main()
