"""The ``cmlp`` command: train, predict, evaluate, info, bench and demo.

Whoever types a command gets one line when something is wrong: :func:`main` turns the messages of
the package into ``cmlp: error: ...`` and an exit code. pandas is imported by ``tables`` if a file
is large, ``demo`` and ``_bench`` when they are asked for.
"""

from __future__ import annotations

import argparse
import contextlib
import csv
import io
import os
import platform
import sys
import unicodedata
import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from decimal import Decimal
from typing import Any, TextIO

import numpy as np
from numpy.typing import NDArray

from . import __version__, _dispatch, _scoring, saving, tables, training
from ._arguments import FIT, make_parser
from ._cells import FEW, NUMBER, Task, show
from ._checks import check_integer, check_number
from ._numbers import score, significant
from ._spec import LOSSES, lookup
from ._terminal import confusion_table, printable
from .network import Network, load
from .scaling import Scaling, fold, target_scaling

Array = NDArray[Any]


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command.

    Parameters
    ----------
    argv : sequence of str, optional
        The arguments; by default those of the process.

    Returns
    -------
    int
        0; 1 if training diverged or something failed on the way; 2 for bad input; 130 after Ctrl-C.

    Raises
    ------
    SystemExit
        From argparse: 0 after --help, 2 for arguments that it does not understand.
    """
    args = make_parser().parse_args(argv)
    if args.command != "predict" and isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # a report must not fail at a label
    try:
        with contextlib.ExitStack() as stack:
            if args.core:
                try:
                    stack.enter_context(_dispatch.use_core(args.core))
                except RuntimeError as error:
                    return _fail(error, 2)
            code = COMMANDS[args.command](args)
        sys.stdout.flush()
        return code
    except BrokenPipeError:  # `| head` has enough; the flush when Python ends must not complain
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except KeyboardInterrupt:
        return _fail("interrupted", 130)
    except training.DivergenceError as error:
        return _fail(f"{error} Nothing was saved.", 1)
    except MemoryError as error:
        return _fail(f"not enough memory. {error}", 1)
    except OSError as error:
        return _fail(f"{error.filename}: {error.strerror}" if error.filename else error, 2)
    except UnicodeEncodeError as error:
        return _fail(f"{error}; PYTHONIOENCODING=utf-8 or --out FILE helps", 2)
    except (ImportError, ValueError) as error:
        return _fail(error, 2)


def _fail(message: object, code: int) -> int:
    print("cmlp: error:", " ".join(str(message).splitlines()), file=sys.stderr)
    return code


# train -------------------------------------------------------------------------------------------


def read_as(task: Task, loss: str | None) -> Task:
    """Return what the options say that the target is read for."""
    if task == "auto" and loss and (row := lookup("loss", LOSSES, loss)).name != "squared_error":
        return "classification" if row.classifies else "regression"
    return task


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


def _alike(classes: Array | None) -> list[str]:
    """Return a note on labels that differ only in case, blanks, Unicode form or zeros (02, 2)."""
    seen: dict[str | Decimal, str] = {}
    for label in () if classes is None or classes.dtype.kind != "U" else classes.tolist():
        text = unicodedata.normalize("NFKC", " ".join(label.split())).casefold()
        key = Decimal(text) if NUMBER(text) else text
        if (other := seen.setdefault(key, label)) != label:
            return [
                f"the labels {show(other)} and {show(label)} are two classes; write them alike if "
                "they mean the same"
            ]
    return []


def _split(y: Array, fraction: float, seed: int, labels: bool) -> tuple[Array, Array]:
    """Return training and validation rows; none of the latter where there are too few rows."""
    fraction = check_number("--validation", fraction, 0, 1, open_high=True)
    if not round(len(y) * fraction):
        return np.arange(len(y)), np.arange(0)
    codes = np.unique(y, return_inverse=True)[1] if labels else y.reshape(len(y), -1)
    return _scoring.split(codes, fraction, np.random.default_rng(seed))


class Forgiving:
    """Standard output that may be closed by its reader: a model is not lost to ``| head``."""

    def __init__(self, stream: TextIO) -> None:
        self.stream = stream

    def __getattr__(self, name: str) -> Any:
        return getattr(self.stream, name)

    def write(self, text: str) -> int:
        with contextlib.suppress(BrokenPipeError):
            self.stream.write(text)
        return len(text)

    def flush(self) -> None:
        with contextlib.suppress(BrokenPipeError):
            self.stream.flush()


def _train(args: argparse.Namespace) -> int:
    with contextlib.redirect_stdout(Forgiving(sys.stdout)):
        return _train_and_save(args)


def _train_and_save(args: argparse.Namespace) -> int:
    say: Callable[..., None] = (lambda *words: None) if args.quiet else print
    _check_output(args.out, args.data)
    table = _read(args, args.target, needs_target=True, task=read_as(args.task, args.loss))
    assert table.y is not None
    _check_names(table)
    X, y = table.X, table.y
    classifies, why = choose_task(y, args.task, args.loss)
    net = _make_network(args, X.shape[1], y, classifies)
    rows, held_out = _split(y, args.validation, args.seed, classifies and y.ndim == 1)
    parts = f"{len(rows):,} rows to train, {len(held_out):,} to validate"
    say(f"data    {len(X):,} rows, {X.shape[1]} features: {parts}")
    for note in [*table.notes, *_alike(net.classes)]:
        say(f"note    {note}")
    say(f"task    {'classification' if classifies else 'regression'}, {why}")
    say(f"core    {_dispatch.describe(_dispatch.core.name)}")
    say(net.summary())
    net, stopped = _fit(args, net, table, rows, held_out, say)
    net.feature_names = table.feature_names if table.named else []
    net.target_name = table.target_name
    try:
        net.save(args.out)
    except OSError as error:
        return _fail(f"{args.out}: cannot be written: {error.strerror}", 1)
    say(f"saved   {args.out} ({os.path.getsize(args.out):,} bytes)")
    if stopped == "interrupted":
        print(f"cmlp: interrupted; what was learned is in {args.out}", file=sys.stderr)
        return 130
    part = held_out if len(held_out) else rows
    say(f"\non the {'validation' if len(held_out) else 'training'} rows:")
    say(_report(net, X[part], y[part]))
    return 0


def _fit(
    args: argparse.Namespace,
    net: Network,
    table: tables.Table,
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


def _check_output(path: str, *inputs: str) -> None:
    """Refuse a file that could not be written, before there is anything to lose."""
    folder = os.path.dirname(os.path.realpath(path))
    if os.path.isdir(path or "."):
        raise ValueError(f"--out {path}: this is a folder; name a file in it")
    if not os.path.isdir(folder):
        raise ValueError(f"--out {path}: there is no folder {folder}; make it first")
    if not os.access(path if os.path.exists(path) else folder, os.W_OK):
        raise ValueError(f"--out {path}: this place cannot be written to")
    for other in inputs:
        if os.path.exists(path) and os.path.exists(other) and os.path.samefile(path, other):
            raise ValueError(f"--out {path}: this would replace the file that is read")


def _read(
    args: argparse.Namespace, target: str | None, *, needs_target: bool, **how: Any
) -> tables.Table:
    table, path = None, args.data
    if target or not needs_target or path.lower().endswith(".npz"):
        how = {"leave_out": args.ignore, "use_target": needs_target, **how}
        how["header"] = "auto" if args.header is None else args.header
        table = tables.read_table(path, target, **how)
    if table is None or (needs_target and table.y is None):
        raise ValueError(f"{path}: which column is the target? --target NAME, or number (-1: last)")
    return table


def _check_names(table: tables.Table) -> None:
    """Refuse features that could not be told apart by their names later on."""
    for name, count in Counter(table.feature_names).items():
        if count > 1:
            raise ValueError(
                f"{table.path}: {count} columns are called {show(name)}; rename all but one, or "
                "leave the others out by their numbers, counted from 0: --ignore NUMBERS"
            )


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names[:10]) + (f" and {len(names) - 10} more" if len(names) > 10 else "")


# predict and evaluate ----------------------------------------------------------------------------


def _read_for(
    net: Network, args: argparse.Namespace, target: str | None, *, needs_target: bool
) -> tables.Table:
    """Read DATA, its features in the order of the model's."""
    known = net.feature_names or None
    left_out = [*args.ignore, *([args.target] if args.target and not needs_target else [])]
    table = _read(
        args, target, needs_target=needs_target, features=known, leave_out=left_out, part="test",
        ignore=[net.target_name] if net.target_name and net.target_name != target else [],
        task="auto" if _classifies(net) else "regression", classes=net.classes,
    )  # fmt: skip
    if table.X.shape[1] != net.sizes[0]:
        more = "; --target or --ignore leave columns out" if table.X.shape[1] > net.sizes[0] else ""
        raise ValueError(
            f"{table.path} has {table.X.shape[1]} features, but {args.model} expects "
            f"{net.sizes[0]}{more}"
        )
    if table.named and not known:
        names = _listed(table.feature_names)
        table.notes.append(f"{args.model} knows no names; columns are read in their order: {names}")
    return table


def _predict(args: argparse.Namespace) -> int:
    if args.out:
        _check_output(args.out, args.model, args.data)
    net = load(args.model)
    table = _read_for(net, args, None, needs_target=False)
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
        values = net.predict_classes(X) if _classifies(net) else net.predict(X)
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


def _classifies(net: Network) -> bool:
    return net.classes is not None or (net.loss_row is not None and net.loss_row.classifies)


def _evaluate(args: argparse.Namespace) -> int:
    net = load(args.model)
    target = args.target or net.target_name
    table = _read_for(net, args, target, needs_target=True)
    assert table.y is not None
    report = _report(net, table.X, table.y)
    print(f"{len(table.X):,} rows of {args.data}")
    for note in table.notes:
        print(f"note      {note}")
    print(report)
    return 0


def _report(net: Network, X: Array, y: Array) -> str:
    """Say how good the predictions are."""
    lines = [f"loss      {net.loss(X, y):.6g} ({net.loss_name})"]
    if not _classifies(net):
        out = net.predict(X).astype(np.float64)
        error = out - y.reshape(out.shape)
        r2 = _scoring.r2_score(y.reshape(out.shape), out, None, warns=False)
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


# info, bench, demo -------------------------------------------------------------------------------


def _info(args: argparse.Namespace) -> int:
    if args.model is None:
        python, core = platform.python_version(), _dispatch.core_info()
        print(f"cmlp       {__version__} (Python {python}, NumPy {np.__version__})\n{core}")
        return 0
    net = load(args.model)
    print(f"{args.model}: {os.path.getsize(args.model):,} bytes, format {saving.FORMAT_VERSION}")
    print(net.summary())
    if net.classes is not None:
        print(f"labels    {printable(_listed([str(label) for label in net.classes]))}")
    if net.target_name:
        print(f"target    {printable(net.target_name)}")
    if net.feature_names:
        print(f"features  {printable(_listed(net.feature_names))}")
    history = net.history
    if not history.get("epoch"):
        print("trained   never")
        return 0
    print(f"trained   {len(history['epoch'])} epochs in {significant(sum(history['seconds']))} s")
    print(f"loss      {history['loss'][-1]:.6g} in the last epoch")
    if "val_loss" in history:
        best = int(np.argmin(history["val_loss"]))
        shown = f"{printable(history.metric) or 'score'} {score(history['val_score'][best])}"
        print(f"val_loss  {history['val_loss'][best]:.6g}, {shown} in the best epoch, {best + 1}")
    return 0


def _bench(args: argparse.Namespace) -> int:
    from . import _bench

    if os.environ.items() >= _bench.ONE_THREAD.items():
        return _bench.run(quick=args.quick)
    import subprocess  # NumPy is loaded here already, with its threads

    command = [sys.executable, "-m", "cmlp", "bench", *(["--quick"] if args.quick else [])]
    return subprocess.call(command, env={**os.environ, **_bench.ONE_THREAD})


def _demo(args: argparse.Namespace) -> int:
    from . import demo

    return demo.run(seed=args.seed, epochs=args.epochs, out=args.out)


COMMANDS: dict[str, Callable[[argparse.Namespace], int]] = {
    "demo": _demo,
    "train": _train,
    "predict": _predict,
    "evaluate": _evaluate,
    "info": _info,
    "bench": _bench,
}
