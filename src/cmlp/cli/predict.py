"""``cmlp predict`` and ``cmlp evaluate``."""

from __future__ import annotations

import argparse
import csv
import sys
from collections.abc import Iterable, Sequence
from typing import Any, TextIO

import numpy as np

from cmlp.cli.output import check_output
from cmlp.cli.report import report, report_answers
from cmlp.cli.tables import is_classifier, read_for
from cmlp.core.layout import Array
from cmlp.estimators.loading import load
from cmlp.network import Network


def run(args: argparse.Namespace) -> int:
    """Print or write a model's predictions of a table's rows; return the exit code."""
    if args.out:
        check_output(args.out, args.model, args.data)
    model = load(args.model)
    leave_out = [*args.ignore, *([args.target] if args.target else [])]
    header, values, notes = (_of_network if isinstance(model, Network) else _of_table)(
        model, args, leave_out
    )
    if args.out:
        with open(args.out, "w", newline="", encoding="utf-8") as file:
            _write(file, header, values)
    else:
        _write(sys.stdout, header if args.proba else None, values)
    for note in notes:
        print(f"cmlp: note: {note}", file=sys.stderr)
    return 0


_Answer = tuple[list[str], Iterable[Any], list[str]]
"""Names of columns, rows of values, notes."""


def _of_network(net: Network, args: argparse.Namespace, leave_out: Sequence[str]) -> _Answer:
    table = read_for(
        net, args.model, args.data, None, needs_target=False, leave_out=leave_out,
        header=args.header,
    )  # fmt: skip
    if args.proba:
        return *_probabilities(net, args.model, table.X), table.notes
    return *_predictions(net, table.X), table.notes


def _of_table(model: Any, args: argparse.Namespace, leave_out: Sequence[str]) -> _Answer:
    from cmlp.cli import model_table

    rows = model_table.read_rows(
        model, args.data, args.model, None, needs_target=False, leave_out=leave_out,
        header=args.header,
    )  # fmt: skip
    if args.proba:
        return *model_table.probabilities(model, rows, args.model), rows.notes
    return *model_table.predictions(model, rows), rows.notes


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
    model = load(args.model)
    score = _score_network if isinstance(model, Network) else _score_table
    text, n_rows, notes = score(model, args)
    print(f"{n_rows:,} rows of {args.data}")
    for note in notes:
        print(f"note      {note}")
    print(text)
    return 0


def _score_network(net: Network, args: argparse.Namespace) -> tuple[str, int, list[str]]:
    table = read_for(
        net, args.model, args.data, args.target or net.target_name,
        needs_target=True, leave_out=args.ignore, header=args.header,
    )  # fmt: skip
    assert table.y is not None
    return report(net, table.X, table.y), len(table.X), table.notes


def _score_table(model: Any, args: argparse.Namespace) -> tuple[str, int, list[str]]:
    from cmlp.cli import model_table

    rows = model_table.read_rows(
        model, args.data, args.model, args.target or model_table.target_of(model),
        needs_target=True, leave_out=args.ignore, header=args.header,
    )  # fmt: skip
    assert rows.table.y is not None
    classifies = hasattr(model, "predict_proba")
    answers = rows.answer(model.predict_proba if classifies else model.predict)
    y = model_table.matched_targets(model, rows.table.y)
    return report_answers(model, answers, y), len(y), rows.notes
