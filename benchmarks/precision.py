"""What rounding the operands of products to bfloat16 does to learning: test scores of both.

    python -m benchmarks.precision --data FOLDER [--tables MNIST,Letter] [--seeds 5] [--json FILE]

SGD with momentum 0.9 (California: Adam, for its outliers) and a cosine rate, the same first weights
and order of rows for both. Scores are the accuracy, or R^2 for California, with standard errors;
the difference is paired by seed.
Where the processor has AVX512_BF16 its instructions are used, elsewhere they are emulated: the same
bits, but not the time.
"""

from __future__ import annotations

import sys
from typing import Any, NamedTuple

import numpy as np

import cmlp
from cmlp.core import dispatch

from . import _data, _report


class Training(NamedTuple):
    """A network, and how it is trained."""

    hidden: tuple[int, ...]
    epochs: int
    batch_size: int
    learning_rate: float
    solver: str = "sgd"


TRAININGS = {
    "MNIST": Training((512, 512), 10, 128, 0.05),
    "Letter": Training((256, 256), 30, 64, 0.05),
    "Adult": Training((128, 64), 12, 128, 0.02),
    "California": Training((128, 128), 20, 64, 0.001, "adam"),
}


def score(table: _data.Table, training: Training, seed: int, precision: str | None) -> float:
    """Train a network, and return its score on the test rows."""
    n_out = int(table.y.max()) + 1 if table.classifies else 1
    net = cmlp.Network([table.X.shape[1], *training.hidden, n_out], seed=seed, precision=precision)
    net.fit(
        table.X,
        table.y,
        epochs=training.epochs,
        batch_size=training.batch_size,
        learning_rate=training.learning_rate,
        solver=training.solver,
        schedule="cosine",
        n_threads=1,
    )
    return net.score(table.X_test, table.y_test)


def mean_and_error(values: Any) -> tuple[float, float]:
    """Return the mean and its standard error."""
    return float(np.mean(values)), float(np.std(values, ddof=1) / np.sqrt(len(values)))


def main() -> int:
    """Run the benchmark."""
    parser = _report.parser("precision", __doc__, seconds=0)
    parser.add_argument("--data", metavar="FOLDER", required=True, help="of the tables' files")
    parser.add_argument("--tables", type=_report.list_of(str), default=list(TRAININGS))
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--epochs", type=float, default=1.0, help="as a part of the usual ones")
    args = parser.parse_args()
    if lost := _data.missing(args.data, args.tables):
        parser.error(f"{args.data} lacks {', '.join(lost)}")
    precision = "bfloat16" if dispatch.core.bfloat16 else "bfloat16-emulated"
    about = _report.machine()
    print(f"{_report.headline(about)}\n\n{precision} against float32\n")
    rows, results = [], []
    for name in args.tables:
        training = TRAININGS[name]
        table = _data.load(args.data, name, 500 if args.quick else None).astype("float32")
        training = training._replace(epochs=max(1, round(args.epochs * training.epochs)))
        if args.quick:
            training = training._replace(hidden=(32, 32), epochs=2)
        scores = np.array(
            [
                [score(table, training, seed, p) for p in (None, precision)]
                for seed in range(args.seeds)
            ]
        )
        columns = [scores[:, 0], scores[:, 1], scores[:, 1] - scores[:, 0]]
        found = [mean_and_error(column) for column in columns]
        results.append({"table": name, "scores": scores.tolist(), "mean_and_error": found})
        layers = "-".join(map(str, (table.X.shape[1], *training.hidden)))
        cells = [f"{mean:.4f} +- {error:.4f}" for mean, error in found]
        rows.append((f"{name}, {layers}, {training.epochs} epochs", *cells))
        print(*rows[-1], sep="  ", flush=True)
    print("\n" + _report.table(("", "float32", "bfloat16", "difference"), rows))
    _report.write_json(args.json, about, results)
    return 0


if __name__ == "__main__":
    sys.exit(main())
