"""How good a network is: held-out rows, losses and scores."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from cmlp.core.errstate import undisturbed
from cmlp.core.layout import Array
from cmlp.data.labels import places
from cmlp.data.rows import Data
from cmlp.model import passes
from cmlp.model.state import State


@undisturbed
def r2_score(
    y: Array, output: Array, weights: NDArray[np.float64] | None, *, warns: bool = True
) -> float:
    """1 - residual / total sum of squares, averaged over outputs; 1 for a constant met exactly.

    A NaN in y is left out; so is an output of which fewer than two rows are known. Where no output
    is left, the score is NaN.

    Parameters
    ----------
    warns : bool
        Whether that is worth scikit-learn's warning.
    """
    y = np.asarray(y, np.float64)
    if defines_r2(y):
        known = ~np.isnan(y)
        if not known.all():
            return _r2_of_known(y, output, weights, known)
        mean = np.average(y, axis=0, weights=weights)
        residual = np.average((y - output) ** 2, axis=0, weights=weights)
        total = np.average((y - mean) ** 2, axis=0, weights=weights)
        flat = total == 0
        ratio = np.where(flat, residual > 0, residual / np.where(flat, 1, total))
        return float(1 - ratio.mean())
    if warns:
        from cmlp.core.errors import (
            UndefinedMetricWarning,
            warn,  # rarely needed, and slow to import
        )

        message = "R^2 score is not well-defined with less than two samples."
        warn(message, UndefinedMetricWarning)
    return math.nan


def defines_r2(y: Array) -> bool:
    """Whether targets, (n, n_out), have an R^2: it needs two rows that are known of an output."""
    return len(y) >= 2 and bool(((y == y).sum(axis=0) >= 2).any())


def _r2_of_known(
    y: Array, output: Array, weights: NDArray[np.float64] | None, known: Array
) -> float:
    """Average R^2 of the outputs, each over the rows in which it is known."""
    scores = []
    for column, rows in enumerate(known.T):
        part = None if weights is None else weights[rows]
        if rows.sum() >= 2 and (part is None or part.any()):
            scores.append(r2_score(y[rows, column, None], output[rows, column, None], part))
    return float(np.mean(scores)) if scores else math.nan


def accuracy(targets: Array, output: Array, weights: NDArray[np.float64] | None) -> float:
    """Share of the rows that are right; of a multi-label row, all labels that are not missing."""
    if targets.ndim == 1:
        right = output.argmax(axis=1) == targets
    else:
        same = (output > 0.5) == (targets > 0.5)
        right = (same | (targets != targets)).all(axis=1)
    return float(np.average(right, weights=weights))


def evaluate(
    net: State, data: Data, rows: NDArray[np.int64] | None, *, warns: bool = False
) -> tuple[float, float, Array]:
    """Return the mean loss, the score (accuracy or R^2) and the outputs on some rows.

    If it `warns`, it does so of a score that is not defined.
    """
    n = len(data.X) if rows is None else len(rows)
    out, costs = passes.evaluate(
        net, data, net.architecture.objective(), rows,
        parameters=passes.prediction_parameters(net),
    )  # fmt: skip
    targets = data.targets if rows is None else data.targets[rows]
    weights = data.weights if data.weights is None or rows is None else data.weights[rows]
    if weights is not None and not weights.any():
        weights = None  # if no row has a weight, all count alike
    if net.loss_row is None:
        loss = net.architecture.call_loss(out, net.target_matrix(targets), weights)[0]
    else:
        loss = float(np.average(costs.astype(np.float64), weights=weights)) if n else 0.0
    return loss, score(net, targets, out, weights, warns) if n else math.nan, out


def score(
    net: State,
    targets: Array,
    output: Array,
    weights: NDArray[np.float64] | None,
    warns: bool = False,
) -> float:
    """Return the accuracy or R^2 of outputs."""
    if metric_of(net, targets) == "r2":
        return r2_score(targets, output, weights, warns=warns)
    if net.loss_row is not None and net.loss_row.name == "categorical_crossentropy":
        targets = targets if targets.ndim == 1 else targets.argmax(axis=1)
    return accuracy(targets, output, weights)


def metric_of(net: State, targets: Array) -> str:
    """Return which score suits the targets: 'accuracy' for classes, 'r2' for numbers."""
    return "accuracy" if net.architecture.classifies or targets.ndim == 1 else "r2"


def confusion(truth: Array, read: Array, labels: Array) -> NDArray[np.int64]:
    """Count how labels were read: a row per true label, a column per label read."""
    counts = np.zeros((len(labels), len(labels)), np.int64)
    np.add.at(counts, (places(labels, truth), places(labels, read)), 1)
    return counts
