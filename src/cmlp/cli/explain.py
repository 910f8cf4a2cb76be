"""``cmlp explain``: what each feature adds to a model's answers."""

from __future__ import annotations

import argparse
import csv
import sys
from collections.abc import Iterator
from typing import Any

import numpy as np

from cmlp.cli import model_table
from cmlp.cli.output import check_output
from cmlp.cli.tables import read_for
from cmlp.estimators.attributions import attributions
from cmlp.estimators.loading import load
from cmlp.explain.attributions import Attributions
from cmlp.network import Network
from cmlp.training.progress import printable


def run(args: argparse.Namespace) -> int:
    """Print or write the attributions of a table's rows; return the exit code."""
    paths = [args.data, *([args.background] if args.background else [])]
    if args.out:
        check_output(args.out, args.model, *paths)
    model = load(args.model)
    X, *others = tables = [_rows(model, args, path) for path in paths]
    found = attributions(
        model, X.X, background=others[0].X if others else None, method=args.method,
        output="probability" if args.proba else "raw",
    )  # fmt: skip
    if args.out:
        with open(args.out, "w", newline="", encoding="utf-8") as file:
            csv.writer(file, lineterminator="\n").writerows(_lines(found))
    else:
        print("\n".join(map(printable, str(found).splitlines())))
    for note in dict.fromkeys(note for table in tables for note in table.notes):
        print(f"cmlp: note: {note}", file=sys.stderr)
    return 0


def _rows(model: Any, args: argparse.Namespace, path: str) -> Any:
    """Return the rows of a file as a model takes them, as X, and notes."""
    how: dict[str, Any] = {
        "needs_target": False, "header": args.header,
        "leave_out": [*args.ignore, *([args.target] if args.target else [])],
    }  # fmt: skip
    if isinstance(model, Network):
        return read_for(model, args.model, path, None, **how)
    rows = model_table.read_rows(model, path, args.model, None, **how)
    rows.answer(model.encoder_.transform)  # an error about a value has its line
    return rows


def _lines(found: Attributions) -> Iterator[list[Any]]:
    """Yield the names of columns, then a line for each row, and each answer if there are several.

    An answer is the sum of its line: the base value, and what the features add.
    """
    several = found.values.ndim == 3
    yield ["row", *(["of"] if several else []), "answer", "base value", *found.feature_names]
    n_answers = found.values.shape[2] if several else 1
    shape = (len(found.values), -1, n_answers)
    bases = np.reshape(found.base_values, shape[::2])
    answers = np.reshape(found.answers, shape[::2])
    for row, values in enumerate(found.values.reshape(shape), 1):
        for number, name in enumerate(found.output_names[:n_answers]):
            numbers = [answers[row - 1, number], bases[row - 1, number], *values[:, number]]
            of = [name] if several else []
            yield [row, *of, *(float(f"{value:.9g}") for value in numbers)]
