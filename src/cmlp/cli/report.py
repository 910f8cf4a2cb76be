"""How good predictions are, as text: loss, scores, and a table of confused labels."""

from __future__ import annotations

from typing import Any

import numpy as np

from cmlp.cli.tables import is_classifier
from cmlp.core.errstate import undisturbed
from cmlp.core.formatting import score
from cmlp.core.layout import Array
from cmlp.data.labels import equal
from cmlp.model import scoring
from cmlp.network import Network
from cmlp.training.progress import cut, printable


@undisturbed
def report(net: Network, X: Array, y: Array) -> str:
    """Return loss and scores of the predictions on some rows, which are evaluated once."""
    loss, value, out = scoring.evaluate(net, net.encode_rows(X, y), None)
    n_out = out.shape[1]
    lines = [f"loss      {loss:.6g} ({net.loss_name})"]
    if not is_classifier(net):
        error = out.astype(np.float64) - y.reshape(out.shape)
        return "\n".join([*lines, *_of_numbers(value, error)])
    lines.append(f"accuracy  {score(value)}")
    if net.classes is None and net.loss_name == "binary_crossentropy":
        return "\n".join([*lines, "(a row counts if all its labels are right)"])
    labels = np.arange(n_out) if net.classes is None else net.classes
    truth = labels[y.argmax(axis=1)] if y.ndim == 2 else y
    read = labels[out.argmax(axis=1) if n_out > 1 else (out[:, 0] > 0.5).astype(np.intp)]
    return "\n".join([*lines, "", confusion_table(truth, read, labels)])


def _of_numbers(r2: float, error: Array) -> list[str]:
    """Return lines on predicted numbers."""
    return [
        f"R2        {score(r2)}" + (" (it needs two rows)" if len(error) < 2 else ""),
        f"RMSE      {np.sqrt((error**2).mean()):.6g}",
        f"MAE       {np.abs(error).mean():.6g}",
    ]


@undisturbed
def report_answers(model: Any, answers: Array, y: Array) -> str:
    """Return scores of a tabular estimator's answers: probabilities, or numbers."""
    if not hasattr(model, "predict_proba"):
        truth = y.reshape(len(y), -1).astype(np.float64)
        out = answers.reshape(truth.shape)
        r2 = scoring.r2_score(truth, out, None) if len(y) > 1 else np.nan
        return "\n".join(_of_numbers(r2, out - truth))
    labels = model.classes_
    if answers.ndim == 2 and y.ndim == 2:
        right = ((answers > 0.5) == (y > 0.5)).all(axis=1)
        lines = [f"accuracy  {score(right.mean())}", "(a row counts if all its labels are right)"]
        return "\n".join(lines)
    read = labels[answers.argmax(axis=1)]
    chosen = equal(y[:, None], labels[None, :])
    proba = np.maximum(answers[chosen], np.finfo(np.float32).tiny)
    lines = [
        f"accuracy  {score(equal(read, y).mean())}",
        f"log loss  {-np.log(proba).mean():.6g}",
    ]
    return "\n".join([*lines, "", confusion_table(y, read, labels)])


def confusion_table(truth: Array, read: Array, labels: Array) -> str:
    """Return a table of predicted labels: a row per true label, a column per predicted one.

    `labels` are in the order of the outputs. For more than 20 of them, return the ten pairs that
    were confused most often.
    """
    counts = scoring.confusion(truth, read, labels)
    names = [printable(str(label)) for label in labels]
    if len(labels) > 20:
        wrong = counts * (1 - np.eye(len(labels), dtype=np.int64))
        worst = [divmod(int(i), len(labels)) for i in np.argsort(-wrong, axis=None)[:10]]
        pairs = [f"  {names[i]}: {names[j]}, {wrong[i, j]}" for i, j in worst if wrong[i, j]]
        head = f"{len(labels)} classes; most often confused (true: read as, times):"
        return "\n".join([head, *pairs])
    short = [cut(name, 12) for name in names]
    if labels.dtype.kind == "U" and len({*short}) == len(short):  # a number keeps its digits
        names = short
    first = max(map(len, [*names, "true"]))
    width = max(len(text) for text in [*names, str(counts.max())])
    lines = [f"{'true':>{first}} | read as", " " * first + " |"]
    lines[1] += "".join(f" {name:>{width}}" for name in names)
    for name, row in zip(names, counts.tolist(), strict=True):
        lines.append(f"{name:>{first}} |" + "".join(f" {n or '.':>{width}}" for n in row))
    return "\n".join(lines)
