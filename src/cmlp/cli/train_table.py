"""``cmlp train``: a tabular estimator from a table as people have it."""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
import warnings
from typing import Any, Literal

import numpy as np

from cmlp.cli.arguments import PARAMETERS
from cmlp.cli.columns import choices_of, notes_on, table_of, training_table
from cmlp.cli.output import PipeSafeStream, check_output, fail
from cmlp.cli.report import report_answers
from cmlp.cli.tables import check_names, note_alike_labels, read_as
from cmlp.cli.train import Tell, choose_task
from cmlp.core import dispatch
from cmlp.core.checks import check_integer, check_number
from cmlp.core.errors import InvalidParameterError
from cmlp.core.formatting import score
from cmlp.core.layout import Array
from cmlp.core.vocabulary import LOSSES, lookup
from cmlp.estimators.tabular.classifier import TabularClassifier
from cmlp.estimators.tabular.estimator import Tabular
from cmlp.estimators.tabular.presets import MEMBERS
from cmlp.estimators.tabular.regressor import TabularRegressor
from cmlp.estimators.tabular.validation import held_out_answers
from cmlp.files.csv_layout import Selection
from cmlp.files.raw_table import RawTable, Reading, read_raw
from cmlp.tables.forms import FormTable
from cmlp.tables.kinds import Choice

METRICS = {"auc": "roc_auc", "log_loss": "loss"}
"""Usual names of metrics that have another name here."""


def run(args: argparse.Namespace) -> int:
    """Train a tabular estimator and save it; return the exit code."""
    with contextlib.redirect_stdout(PipeSafeStream(sys.stdout)):
        return _train_and_save(args)


def _train_and_save(args: argparse.Namespace) -> int:
    tell: Tell = (lambda *words: None) if args.quiet else print
    check_output(args.out, args.data)
    table = _read(args)
    check_names(table.path, table.names or ())
    choices = choices_of(table)
    assert table.y is not None
    classifies, why = choose_task(table.y, args.task, args.loss)
    y = _targets(table.y, classifies)
    model = estimator_of(args, y, classifies)
    n = sum(choice.is_used for choice in choices)
    tell(f"data    {table.n_rows:,} rows, {n} features")
    classes = y if classifies and y.ndim == 1 else None
    for note in [*table.notes, *note_alike_labels(None if classes is None else np.unique(classes)),
                 *notes_on(choices)]:  # fmt: skip
        tell(f"note    {note}")
    if not args.quiet:
        print(table_of(choices))
    tell(f"task    {'classification' if classifies else 'regression'}, {why}")
    tell(f"core    {dispatch.describe(dispatch.core.name)}")
    X = training_table(table, choices)
    for message in fit_model(model, X, y):
        tell(f"note    {message}")
    model.table_ = _about(table, choices)
    try:
        model.save(args.out)
    except OSError as error:
        return fail(f"{args.out}: cannot be written: {error.strerror}", 1)
    tell(summary_of(model))
    tell(f"saved   {args.out} ({os.path.getsize(args.out):,} bytes)")
    if any(net.history.stopped == "interrupted" for net in model.networks_):
        print(f"cmlp: interrupted; what was learned is in {args.out}", file=sys.stderr)
        return 130
    if not args.quiet:
        _report(model, X, y)
    return 0


def _read(args: argparse.Namespace) -> RawTable:
    """Read DATA with a target."""
    wanted: dict[str, str] = {}
    for option, kind in (("categories", "category"), ("numbers", "number"), ("dates", "date")):
        for name in getattr(args, option) or ():
            if wanted.setdefault(name, kind) != kind:
                raise ValueError(f"the column {name} is named twice, as a {wanted[name]} and in "
                                 f"--{option}")  # fmt: skip
    path = args.data
    if args.target or path.lower().endswith(".npz"):
        header: Literal["auto"] | bool = "auto" if args.header is None else args.header
        selection = Selection(args.target, None, (), args.ignore, header, named=list(wanted))
        table = read_raw(path, selection, Reading(wanted, task=read_as(args.task, args.loss)))
        if table.y is not None:
            return table
    raise ValueError(f"{path}: which column is the target? --target NAME, or number (-1: last)")


def _targets(y: Array, classifies: bool) -> Array:
    """Return labels or numbers; one-hot rows become the number of their class."""
    if classifies and y.ndim == 2:
        return y.argmax(axis=1) if bool(np.all(y.sum(axis=1) == 1)) else y
    if classifies and len(np.unique(y)) < 2:
        raise ValueError(f"the target is {y[0]} on every row: nothing to learn")
    return y


def _about(table: RawTable, choices: list[Choice]) -> dict[str, Any]:
    """Return what `predict` and `evaluate` need to know of the table."""
    gaps = {choice.name: list(choice.gaps) for choice in choices if choice.gaps}
    return {"target": table.target_name, "gaps": gaps}


# The estimator ------------------------------------------------------------------------------------


def estimator_of(args: argparse.Namespace, y: Array, classifies: bool) -> Tabular:
    """Return the estimator with the options that were given."""
    given = {
        name: getattr(args, option)
        for option, name in PARAMETERS.items()
        if getattr(args, option) is not None
    }
    kind = TabularClassifier if classifies else TabularRegressor
    given["loss"] = _loss(args, classifies)
    wrong = {"label_smoothing"} if not classifies else {"quantile"}
    for option, name in PARAMETERS.items():
        if name in wrong and name in given:
            task = "classification" if classifies else "regression"
            raise ValueError(f"--{option.replace('_', '-')} is not for {task}")
    if given["loss"] is None:
        del given["loss"]
    given |= _converted(given, len(y))
    given.setdefault("random_state", 0)
    return kind(**given, verbose=not args.quiet)


def _loss(args: argparse.Namespace, classifies: bool) -> str | None:
    """Return the loss of a regression; labels have one alone."""
    if args.loss is None:
        return None
    row = lookup("loss", LOSSES, args.loss)
    if row.classifies and not classifies:
        raise ValueError(f"--loss {args.loss} is for classification, not for --task regression")
    if classifies and not row.classifies:
        raise ValueError(
            f"--loss {args.loss} is for numbers, but the target is labels; --task regression takes "
            "it for numbers"
        )
    return None if classifies else row.name


def _converted(given: dict[str, Any], n_rows: int) -> dict[str, Any]:
    """Return options in the form that the estimators take."""
    found: dict[str, Any] = {}
    if "activation" in given:
        names = given["activation"]
        found["activation"] = names[0] if len(names) == 1 else names
    if given.get("batch_size") == "all":
        found["batch_size"] = n_rows
    if given.get("n_iter_no_change") == 0:
        found["n_iter_no_change"] = np.inf
    if "validation_fraction" in given:
        part = check_number("--validation", given["validation_fraction"], 0, 1, open_high=True)
        if "cv" in given:
            raise ValueError("--validation holds out a part once, --cv each fold in turn: give one")
        if part:
            found |= {"cv": None, "n_ensemble": given.get("n_ensemble", MEMBERS)}
        found |= {"validation_fraction": part or 0.5, "early_stopping": part > 0}
        if part and "cv" not in given:
            found["cv"] = None  # no folds: one part of the rows is held out
    if "random_state" in given:
        check_integer("--seed", given["random_state"], 0)
    if "scoring" in given:
        found["scoring"] = METRICS.get(given["scoring"], given["scoring"])
    return found


def fit_model(model: Tabular, X: Any, y: Array | None, **how: Any) -> list[str]:
    """Fit, and return what it warned of but Ctrl-C; `how` are further arguments of `fit`."""
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            model.fit(X, y, **how)
    except InvalidParameterError as error:
        raise ValueError(_in_options(str(error))) from None
    except ValueError as error:
        raise type(error)(_in_options(str(error))) from None
    messages = [" ".join(str(warning.message).split()) for warning in caught]
    return [message for message in dict.fromkeys(messages) if "interrupted" not in message]


def _in_options(message: str) -> str:
    """Return an error about parameters with the names of options."""
    for option, name in PARAMETERS.items():
        shown = f"--{option.replace('_', '-')}"
        for kind in ("TabularClassifier", "TabularRegressor"):
            message = message.replace(f"The '{name}' parameter of {kind}", shown)
        if message.startswith(f"{name} ") or message.startswith(f"{name}="):
            message = shown + message[len(name) :]
    return message


# What was learned ---------------------------------------------------------------------------------


def summary_of(model: Tabular) -> str:
    """Return a line on the networks, and on the best epochs."""
    nets = model.networks_
    sizes = "-".join(map(str, nets[0].sizes))
    epochs = [net.history.best_epoch or net.history.epochs for net in nets]
    shown = f"{epochs[0]}" if len(set(epochs)) == 1 else f"{min(epochs)} to {max(epochs)}"
    n = "1 network" if len(nets) == 1 else f"{len(nets)} networks"
    stopped = {net.history.stopped for net in nets} & {"patience", "max_time"}
    why = "".join(f"; stopped by --{reason.replace('_', '-')}" for reason in sorted(stopped))
    return f"model   {n} of {sizes}; best epoch {shown} of {model.n_iter_}{why}"


def _report(model: Tabular, X: FormTable, y: Array) -> None:
    """Print how good the answers about held-out rows are; about all rows where none were."""
    found = held_out_answers(model, X)
    if found is None:
        answers = model.predict_proba(X) if hasattr(model, "predict_proba") else model.predict(X)
        rows = np.arange(len(y))
    else:
        rows, answers = found
    what = "training" if found is None else "validation"
    print(f"\non the {len(rows):,} {what} row{'s' * (len(rows) != 1)}:")
    if found is not None and model.validation_score_ is not None:
        metric = model.history_.metric
        if metric not in ("accuracy", "r2", "neg_loss"):
            print(f"{metric}  {score(model.validation_score_)}")
    print(report_answers(model, answers, y[rows]))
