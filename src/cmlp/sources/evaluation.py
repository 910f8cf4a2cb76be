"""Losses and scores of sources, from sums over their pieces."""

from __future__ import annotations

import math

import numpy as np

from cmlp.core.errors import UndefinedMetricWarning, warn
from cmlp.core.layout import Array
from cmlp.data.rows import Data
from cmlp.data.source import Source
from cmlp.model import passes
from cmlp.model.scoring import accuracy, metric_of
from cmlp.model.state import State
from cmlp.sources.encode import network_encoder
from cmlp.sources.fitting import blocks_of


class Scores:
    """Sums of losses and scores: weighted means, or what R^2 is computed from.

    The squares of the targets are about the mean of the first rows, so that nothing cancels.
    """

    def __init__(self, net: State) -> None:
        self.net, self.parameters = net, passes.prediction_parameters(net)
        self.loss = self.weight = self.right = 0.0
        self.sums: Array | None = None
        self.metric = ""

    def see(self, data: Data) -> None:
        """Add rows."""
        net, n = self.net, len(data.X)
        if not n:
            return
        out, costs = passes.evaluate(
            net, data, net.architecture.objective(), parameters=self.parameters
        )
        weights = np.ones(n) if data.weights is None else data.weights
        total = float(weights.sum())
        if net.loss_row is None:
            y = net.target_matrix(data.targets)
            self.loss += total * net.architecture.call_loss(out, y, data.weights)[0]
        else:
            self.loss += float(costs.astype(np.float64) @ weights)
        self.weight += total
        self.metric = metric_of(net, data.targets)
        if self.metric == "r2":
            self._see_numbers(np.asarray(data.targets, np.float64), out, weights)
        elif total:
            targets = data.targets
            if targets.ndim == 2 and net.loss_name == "categorical_crossentropy":
                targets = targets.argmax(axis=1)
            self.right += total * accuracy(targets, out, weights)

    def _see_numbers(self, y: Array, out: Array, weights: Array) -> None:
        known = ~np.isnan(y)
        if self.sums is None:
            self.sums = np.zeros((5, y.shape[1]))
            self.near = np.nanmean(np.where(known, y, np.nan), axis=0) if known.any() else 0.0
            self.near = np.nan_to_num(self.near) + np.zeros(y.shape[1])
        w = weights[:, None] * known
        off = np.where(known, y - self.near, 0.0)
        error = np.where(known, y - out, 0.0)
        parts = (known, w, w * off, w * off * off, w * error * error)
        self.sums += np.stack([part.sum(axis=0) for part in parts])

    def to_bytes(self) -> bytes:
        """Return the sums, for :meth:`add` in another process."""
        sums = np.zeros((0, 0)) if self.sums is None else np.vstack([self.near, self.sums])
        return np.array([self.loss, self.weight, self.right, *sums.ravel()]).tobytes()

    def add(self, data: bytes, metric: str) -> None:
        """Add the sums of other rows, with squares about another place."""
        self.metric = metric
        loss, weight, right, *rest = np.frombuffer(data)
        self.loss, self.weight, self.right = (
            self.loss + loss, self.weight + weight, self.right + right
        )  # fmt: skip
        if not rest:
            return
        near, n, w, first, second, residual = np.reshape(rest, (6, -1))
        if self.sums is None:
            self.near, self.sums = near, np.zeros((5, len(near)))
        d = near - self.near
        self.sums += np.stack([n, w, first + w * d, second + 2 * d * first + w * d * d, residual])

    def result(self) -> tuple[float, float]:
        """Return the mean loss and the score."""
        loss = self.loss / self.weight if self.weight else math.nan
        if self.metric != "r2":
            return loss, self.right / self.weight if self.weight else math.nan
        return loss, self._r2()

    def _r2(self) -> float:
        assert self.sums is not None
        n, w, first, second, residual = self.sums
        defined = (n >= 2) & (w > 0)
        if not defined.any():
            message = "R^2 score is not well-defined with less than two samples."
            warn(message, UndefinedMetricWarning)
            return math.nan
        w, first, second, residual = (
            part[defined] for part in (w, first, second, residual)
        )  # fmt: skip
        total = second - first * first / w
        total[total <= 1e-15 * second] = 0.0
        ratio = np.where(total == 0, residual > 0, residual / np.where(total == 0, 1, total))
        return float(1 - ratio.mean())


def evaluate(net: State, source: Source) -> tuple[float, float]:
    """Return the mean loss of a source's rows, and the accuracy or R^2."""
    classes, scores = net.classes, Scores(net)
    try:
        for data in blocks_of(source, network_encoder(net, source)):
            scores.see(data)
    finally:
        net.classes = classes
    return scores.result()
