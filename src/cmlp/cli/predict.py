"""``cmlp predict`` and ``cmlp evaluate``."""

from __future__ import annotations

import argparse
import csv
import sys
from collections.abc import Iterable, Sequence
from typing import Any, TextIO

import numpy as np

from cmlp.cli.output import check_output
from cmlp.cli.report import report
from cmlp.cli.tables import is_classifier, read_for
from cmlp.core.layout import Array
from cmlp.network import Network, load


def run(args: argparse.Namespace) -> int:
    """Print or write a model's predictions of a table's rows; return the exit code."""
    if args.out:
        check_output(args.out, args.model, args.data)
    net = load(args.model)
    table = read_for(
        net, args.model, args.data, None, needs_target=False,
        leave_out=[*args.ignore, *([args.target] if args.target else [])], header=args.header,
    )  # fmt: skip
    if args.proba:
        header, values = _probabilities(net, args.model, table.X)
    else:
        header, values = _predictions(net, table.X)
    if args.out:
        with open(args.out, "w", newline="", encoding="utf-8") as file:
            _write(file, header, values)
    else:
        _write(sys.stdout, header if args.proba else None, values)
    for note in table.notes:
        print(f"cmlp: note: {note}", file=sys.stderr)
    return 0


def _probabilities(net: Network, model: str, X: Array) -> tuple[list[str], Array]:
    """Return the classes and their probabilities, (n, n_classes)."""
    if net.loss_row is None or not net.loss_row.classifies:
        raise ValueError(f"--proba needs a cross-entropy model; {model}'s loss is {net.loss_name}")
    values = net.predict(X)
    if net.sizes[-1] == 1:
        values = np.hstack([1 - values, values])
    classes = range(values.shape[1]) if net.classes is None else net.classes
    return list(map(str, classes)), values


def _predictions(net: Network, X: Array) -> tuple[list[str], Array]:
    """Return the names of the columns, and labels or numbers, (n, n_columns)."""
    values = net.predict_classes(X) if is_classifier(net) else net.predict(X)
    values = values.reshape(len(X), -1)
    name, n_columns = net.target_name or "prediction", values.shape[1]
    return [name] if n_columns == 1 else [f"{name}_{i}" for i in range(n_columns)], values


def _write(file: TextIO, header: Sequence[str] | None, values: Iterable[Any]) -> None:
    writer = csv.writer(file, lineterminator="\n")
    if header:
        writer.writerow(header)
    writer.writerows(values)


def evaluate(args: argparse.Namespace) -> int:
    """Print how well a model predicts the target of a table; return the exit code."""
    net = load(args.model)
    table = read_for(
        net, args.model, args.data, args.target or net.target_name,
        needs_target=True, leave_out=args.ignore, header=args.header,
    )  # fmt: skip
    assert table.y is not None
    text = report(net, table.X, table.y)
    print(f"{len(table.X):,} rows of {args.data}")
    for note in table.notes:
        print(f"note      {note}")
    print(text)
    return 0
