"""The command's predict and evaluate."""

from __future__ import annotations

import argparse
import csv
import sys
from collections.abc import Iterable, Sequence
from typing import Any, TextIO

import numpy as np

from cmlp.cli.output import check_output
from cmlp.cli.report import confusion_table
from cmlp.cli.tables import is_classifier, read_for
from cmlp.core.formatting import score
from cmlp.core.layout import Array
from cmlp.model import scoring
from cmlp.network import Network, load


def run(args: argparse.Namespace) -> int:
    if args.out:
        check_output(args.out, args.model, args.data)
    net = load(args.model)
    table = read_for(net, args, None, needs_target=False)
    X = table.X
    name = net.target_name or "prediction"
    if args.proba:
        if net.loss_row is None or not net.loss_row.classifies:
            raise ValueError(f"--proba needs a cross-entropy model; {args.model}'s loss is "
                             f"{net.loss_name}")  # fmt: skip
        values = net.predict(X)
        if net.sizes[-1] == 1:
            values = np.hstack([1 - values, values])
        header = [str(i) for i in (range(values.shape[1]) if net.classes is None else net.classes)]
    else:
        values = net.predict_classes(X) if is_classifier(net) else net.predict(X)
        values = values.reshape(len(X), -1)
        n_out = values.shape[1]
        header = [name] if n_out == 1 else [f"{name}_{i}" for i in range(n_out)]
    if args.out:
        with open(args.out, "w", newline="", encoding="utf-8") as file:
            _write(file, header, values)
    else:
        _write(sys.stdout, header if args.proba else None, values)
    for note in table.notes:
        print(f"cmlp: note: {note}", file=sys.stderr)
    return 0


def _write(file: TextIO, header: Sequence[str] | None, values: Iterable[Any]) -> None:
    writer = csv.writer(file, lineterminator="\n")
    if header:
        writer.writerow(header)
    writer.writerows(values)


def evaluate(args: argparse.Namespace) -> int:
    net = load(args.model)
    target = args.target or net.target_name
    table = read_for(net, args, target, needs_target=True)
    assert table.y is not None
    report = print_report(net, table.X, table.y)
    print(f"{len(table.X):,} rows of {args.data}")
    for note in table.notes:
        print(f"note      {note}")
    print(report)
    return 0


def print_report(net: Network, X: Array, y: Array) -> str:
    """Say how good the predictions are."""
    lines = [f"loss      {net.loss(X, y):.6g} ({net.loss_name})"]
    if not is_classifier(net):
        out = net.predict(X).astype(np.float64)
        error = out - y.reshape(out.shape)
        r2 = scoring.r2_score(y.reshape(out.shape), out, None, warns=False)
        lines.append(f"R2        {score(r2)}" + (" (it needs two rows)" if len(X) < 2 else ""))
        lines.append(f"RMSE      {np.sqrt((error**2).mean()):.6g}")
        return "\n".join([*lines, f"MAE       {np.abs(error).mean():.6g}"])
    lines.append(f"accuracy  {score(net.score(X, y))}")
    read = net.predict_classes(X)
    if read.ndim == 2:
        return "\n".join([*lines, "(a row counts if all its labels are right)"])
    labels = np.arange(net.sizes[-1]) if net.classes is None else net.classes
    truth = labels[y.argmax(axis=1)] if y.ndim == 2 else y
    return "\n".join([*lines, "", confusion_table(truth, read, labels)])
