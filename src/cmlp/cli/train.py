"""``cmlp train --plain``: a network from a table of numbers."""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np

from cmlp.cli.arguments import FIT
from cmlp.cli.output import PipeSafeStream, check_output, fail
from cmlp.cli.report import report
from cmlp.cli.tables import check_names, note_alike_labels, read, read_as
from cmlp.core import dispatch
from cmlp.core.checks import check_integer, check_number
from cmlp.core.layout import Array
from cmlp.core.vocabulary import LOSSES, lookup
from cmlp.data import split
from cmlp.data.cells import FEW
from cmlp.data.scaling import Scaling, target_scaling
from cmlp.files.table import Table
from cmlp.model.folding import fold
from cmlp.network import Network

Tell = Callable[..., None]
"""``print``, or nothing with --quiet."""


# What follows from the target --------------------------------------------------------------------


def choose_task(y: Array, task: str, loss: str | None) -> tuple[bool, str]:
    """Decide between classification (True) and regression, and return the reason."""
    classifies, why = _decide(y, task, loss)
    if y.dtype.kind == "U" and (not classifies or y.ndim == 2):
        what = "regression" if y.ndim == 1 else "a matrix of targets"
        raise ValueError(f"the target is text, such as {str(y.flat[0])!r}: {what} needs numbers")
    if classifies and y.ndim == 1 and y.dtype.kind == "f" and np.any(y != np.rint(y)):
        raise ValueError("the target has fractions: classification needs labels; --task regression")
    return classifies, why


def _decide(y: Array, task: str, loss: str | None) -> tuple[bool, str]:
    """Return the answer of the first rule that applies."""
    if task != "auto":
        return task == "classification", "as set by --task"
    if loss and (row := lookup("loss", LOSSES, loss)).name != "squared_error":
        return row.classifies, f"for which the loss {row.name} is"
    if y.dtype.kind == "U":
        return True, "because the target is text"
    if y.dtype.kind == "b":
        return True, "because the target is true or false"
    if y.ndim == 2:
        binary = bool(np.isin(y, (0, 1)).all())
        return binary, f"because the target is a matrix of {'0 and 1' if binary else 'numbers'}"
    n_values = len(np.unique(y))
    few = n_values <= min(FEW, len(y) // 2)
    if y.dtype.kind == "f":
        hint = "; --task classification if they are labels"
        whole = few and not np.any(y != np.rint(y))
        return False, f"because the target is decimal numbers{hint * whole}"
    only = "only " if few else ""
    return few, f"because the target is whole numbers with {only}{n_values} different values"


def choose_loss(y: Array, classifies: bool, loss: str | None) -> tuple[str, int, Array | None]:
    """Return the loss, the number of outputs and the labels, if there are any."""
    classes, n_out = None, y.shape[1] if y.ndim == 2 else 1
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
    return loss, n_out, classes


def _split(y: Array, fraction: float, seed: int, labels: bool) -> tuple[Array, Array]:
    """Return training and validation rows; none of the latter if there are too few rows."""
    fraction = check_number("--validation", fraction, 0, 1, open_high=True)
    if not round(len(y) * fraction):
        return np.arange(len(y)), np.arange(0)
    codes = np.unique(y, return_inverse=True)[1] if labels else y.reshape(len(y), -1)
    return split.split(codes, fraction, np.random.default_rng(seed))


# The command -------------------------------------------------------------------------------------


def run(args: argparse.Namespace) -> int:
    """Train a network on a table and save it; return the exit code."""
    with contextlib.redirect_stdout(PipeSafeStream(sys.stdout)):
        return _train_and_save(args)


def _train_and_save(args: argparse.Namespace) -> int:
    tell: Tell = (lambda *words: None) if args.quiet else print
    check_output(args.out, args.data)
    table = read(
        args.data, args.target, needs_target=True, leave_out=args.ignore, header=args.header,
        task=read_as(args.task, args.loss),
    )  # fmt: skip
    assert table.y is not None
    check_names(table.path, table.feature_names)
    X, y = table.X, table.y
    classifies, why = choose_task(y, args.task, args.loss)
    loss, n_out, classes = choose_loss(y, classifies, args.loss)
    activation = args.activation[0] if len(args.activation) == 1 else args.activation
    check_integer("--seed", args.seed, 0)
    net = Network(
        [X.shape[1], *args.hidden, n_out], activation, None, loss, seed=args.seed,
        quantile=args.quantile,
    )  # fmt: skip
    net.classes = classes
    rows, held_out = _split(y, args.validation, args.seed, classifies and y.ndim == 1)
    parts = f"{len(rows):,} rows to train, {len(held_out):,} to validate"
    tell(f"data    {len(X):,} rows, {X.shape[1]} features: {parts}")
    for note in [*table.notes, *note_alike_labels(net.classes)]:
        tell(f"note    {note}")
    tell(f"task    {'classification' if classifies else 'regression'}, {why}")
    tell(f"core    {dispatch.describe(dispatch.core.name)}")
    tell(net.summary())
    net, stopped = _fit(net, table, rows, held_out, tell, not args.no_scale, _fit_options(args))
    net.feature_names = table.feature_names if table.named else []
    net.target_name = table.target_name
    try:
        net.save(args.out)
    except OSError as error:
        return fail(f"{args.out}: cannot be written: {error.strerror}", 1)
    tell(f"saved   {args.out} ({os.path.getsize(args.out):,} bytes)")
    if stopped == "interrupted":
        print(f"cmlp: interrupted; what was learned is in {args.out}", file=sys.stderr)
        return 130
    part = held_out if len(held_out) else rows
    tell(f"\non the {'validation' if len(held_out) else 'training'} rows:")
    if not args.quiet:
        print(report(net, X[part], y[part]))
    return 0


def _fit_options(args: argparse.Namespace) -> dict[str, Any]:
    """Return the arguments of :meth:`Network.fit` but the data."""
    options = {name: getattr(args, name) for name, *_ in FIT}
    if options["learning_rate"] is None:
        options["learning_rate"] = 0.01 if args.solver == "sgd" else 0.001
    options["patience"] = options["patience"] or None
    return {**options, "n_threads": args.threads, "verbose": not args.quiet}


def _fit(
    net: Network,
    table: Table,
    rows: Array,
    held_out: Array,
    tell: Tell,
    scales: bool,
    options: dict[str, Any],
) -> tuple[Network, str]:
    """Train, on scaled rows if it `scales`; return a network for raw rows, and why it stopped."""
    assert table.y is not None
    X, y, X_val, y_val = table.X[rows], table.y[rows], table.X[held_out], table.y[held_out]
    inputs = outputs = None
    sample = X[:1000]
    if scales:
        inputs = Scaling.of(X, table.feature_names)
        X, X_val = inputs(X), inputs(X_val)
        if net.activations[-1] == "identity" and net.classes is None:
            outputs = target_scaling(y, table.target_name or "target")
            y, y_val = outputs(y), outputs(y_val)
        what = "features and target are" if outputs else "features are"
        tell(f"scaling {what} standardised{'; losses below are of that target' * bool(outputs)}")
    if len(held_out):
        options = {**options, "X_val": X_val, "y_val": y_val}
    with warnings.catch_warnings(action="ignore", category=UserWarning):  # Ctrl-C is reported below
        history = net.fit(X, y, **options)
    if history.stopped in ("patience", "max_time"):
        tell(f"stopped by --{history.stopped.replace('_', '-')}; best epoch {history.best_epoch}")
    return (fold(net, sample, inputs, outputs) if inputs else net), history.stopped
