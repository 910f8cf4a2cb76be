"""The command's train: a network from a file."""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
import warnings
from collections.abc import Callable

import numpy as np

from cmlp.cli.arguments import FIT
from cmlp.cli.output import Forgiving, check_output, fail
from cmlp.cli.predict import print_report
from cmlp.cli.tables import check_names, note_alike_labels, read, read_as
from cmlp.core import dispatch
from cmlp.core.checks import check_integer, check_number
from cmlp.core.layout import Array
from cmlp.core.vocabulary import LOSSES, lookup
from cmlp.data import split
from cmlp.data.cells import FEW
from cmlp.data.scaling import Scaling, target_scaling
from cmlp.data.table import Table
from cmlp.model.folding import fold
from cmlp.network import Network


def choose_task(y: Array, wanted: str, loss: str | None) -> tuple[bool, str]:
    """Decide between classification (True) and regression, and say why."""
    text = y.dtype.kind == "U"
    if wanted != "auto":
        classifies, why = wanted == "classification", "as --task says"
    elif loss and (row := lookup("loss", LOSSES, loss)).name != "squared_error":
        classifies, why = row.classifies, f"for which the loss {row.name} is"
    elif text:
        classifies, why = True, "because the target is text"
    elif y.dtype.kind == "b":
        classifies, why = True, "because the target is true or false"
    elif y.ndim == 2:
        classifies = bool(np.isin(y, (0, 1)).all())
        why = f"because the target is a matrix of {'0 and 1' if classifies else 'numbers'}"
    elif y.dtype.kind == "f":
        classifies, why = False, "because the target is decimal numbers"
        if len(np.unique(y)) <= min(FEW, len(y) // 2) and not np.any(y != np.rint(y)):
            why += "; --task classification if they are labels"
    else:
        n = len(np.unique(y))
        classifies = n <= min(FEW, len(y) // 2)
        few = "only " if classifies else ""
        why = f"because the target is whole numbers with {few}{n} different values"
    if text and (not classifies or y.ndim == 2):
        what = "regression" if y.ndim == 1 else "a matrix of targets"
        raise ValueError(f"the target is text, such as {str(y.flat[0])!r}: {what} needs numbers")
    if classifies and y.ndim == 1 and y.dtype.kind == "f" and np.any(y != np.rint(y)):
        raise ValueError("the target has fractions: classification needs labels; --task regression")
    return classifies, why


def _make_network(args: argparse.Namespace, n_in: int, y: Array, classifies: bool) -> Network:
    loss, classes = args.loss, None
    n_out = y.shape[1] if y.ndim == 2 else 1
    if classifies and y.ndim == 1:
        classes = np.unique(y)
        if len(classes) < 2:
            raise ValueError(f"the target is {classes[0]} on every row: nothing to learn")
        binary = loss is None or lookup("loss", LOSSES, loss).name == "binary_crossentropy"
        n_out = 1 if len(classes) == 2 and binary else len(classes)
        loss = loss or ("binary_crossentropy" if n_out == 1 else "categorical_crossentropy")
    elif classifies:
        one_each = bool(np.all(y.sum(axis=1) == 1))
        loss = loss or ("categorical_crossentropy" if one_each else "binary_crossentropy")
    loss = loss or "squared_error"
    if lookup("loss", LOSSES, loss).classifies and not classifies:
        raise ValueError(f"--loss {loss} is for classification, not for --task regression")
    activation = args.activation[0] if len(args.activation) == 1 else args.activation
    check_integer("--seed", args.seed, 0)
    net = Network(
        [n_in, *args.hidden, n_out], activation, None, loss, seed=args.seed, quantile=args.quantile
    )
    net.classes = classes
    return net


def _split(y: Array, fraction: float, seed: int, labels: bool) -> tuple[Array, Array]:
    """Return training and validation rows; none of the latter where there are too few rows."""
    fraction = check_number("--validation", fraction, 0, 1, open_high=True)
    if not round(len(y) * fraction):
        return np.arange(len(y)), np.arange(0)
    codes = np.unique(y, return_inverse=True)[1] if labels else y.reshape(len(y), -1)
    return split.split(codes, fraction, np.random.default_rng(seed))


def run(args: argparse.Namespace) -> int:
    with contextlib.redirect_stdout(Forgiving(sys.stdout)):
        return _train_and_save(args)


def _train_and_save(args: argparse.Namespace) -> int:
    say: Callable[..., None] = (lambda *words: None) if args.quiet else print
    check_output(args.out, args.data)
    table = read(args, args.target, needs_target=True, task=read_as(args.task, args.loss))
    assert table.y is not None
    check_names(table)
    X, y = table.X, table.y
    classifies, why = choose_task(y, args.task, args.loss)
    net = _make_network(args, X.shape[1], y, classifies)
    rows, held_out = _split(y, args.validation, args.seed, classifies and y.ndim == 1)
    parts = f"{len(rows):,} rows to train, {len(held_out):,} to validate"
    say(f"data    {len(X):,} rows, {X.shape[1]} features: {parts}")
    for note in [*table.notes, *note_alike_labels(net.classes)]:
        say(f"note    {note}")
    say(f"task    {'classification' if classifies else 'regression'}, {why}")
    say(f"core    {dispatch.describe(dispatch.core.name)}")
    say(net.summary())
    net, stopped = _fit(args, net, table, rows, held_out, say)
    net.feature_names = table.feature_names if table.named else []
    net.target_name = table.target_name
    try:
        net.save(args.out)
    except OSError as error:
        return fail(f"{args.out}: cannot be written: {error.strerror}", 1)
    say(f"saved   {args.out} ({os.path.getsize(args.out):,} bytes)")
    if stopped == "interrupted":
        print(f"cmlp: interrupted; what was learned is in {args.out}", file=sys.stderr)
        return 130
    part = held_out if len(held_out) else rows
    say(f"\non the {'validation' if len(held_out) else 'training'} rows:")
    say(print_report(net, X[part], y[part]))
    return 0


def _fit(
    args: argparse.Namespace,
    net: Network,
    table: Table,
    rows: Array,
    held_out: Array,
    say: Callable[..., None],
) -> tuple[Network, str]:
    """Train on scaled rows; return the network for raw ones, and why training ended."""
    assert table.y is not None
    X, y, X_val, y_val = table.X[rows], table.y[rows], table.X[held_out], table.y[held_out]
    inputs = outputs = None
    sample = X[:1000]
    if not args.no_scale:
        inputs = Scaling.of(X, table.feature_names)
        X, X_val = inputs(X), inputs(X_val)
        if net.activations[-1] == "identity" and net.classes is None:
            outputs = target_scaling(y, table.target_name or "target")
            y, y_val = outputs(y), outputs(y_val)
        what = "features and target are" if outputs else "features are"
        say(f"scaling {what} standardised{'; losses below are of that target' * bool(outputs)}")
    options = {name: getattr(args, name) for name, *_ in FIT}
    if options["learning_rate"] is None:
        options["learning_rate"] = 0.01 if args.solver == "sgd" else 0.001
    options["patience"] = options["patience"] or None
    if len(held_out):
        options |= {"X_val": X_val, "y_val": y_val}
    with warnings.catch_warnings(action="ignore", category=UserWarning):  # Ctrl-C has its own line
        history = net.fit(X, y, **options, n_threads=args.threads, verbose=not args.quiet)
    if history.stopped in ("patience", "max_time"):
        say(f"stopped by --{history.stopped.replace('_', '-')}; best epoch {history.best_epoch}")
    return (fold(net, sample, inputs, outputs) if inputs else net), history.stopped
