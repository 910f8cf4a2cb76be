"""Subject: what is examined, the rows and a copy of the network that was trained on them."""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from cmlp.data.rows import Data
from cmlp.diagnosis.model import Model
from cmlp.diagnosis.sample import Rows, Sample, draw, encoded, read, some_of
from cmlp.diagnosis.trial import trial_fit
from cmlp.model.constant import constant_loss
from cmlp.model.scoring import evaluate
from cmlp.model.state import State

MIN_EPOCHS = 5
"""Epochs that a curve needs to be read."""


@dataclass(frozen=True)
class Trained:
    """A network after its training or after a trial, and what it does on the rows."""

    net: State
    """A copy."""
    data: Data
    """The rows as it takes them."""
    validation: Data | None
    curves: dict[str, list[float]]
    """Its history, thinned as a file has it."""
    finite: bool
    """Whether outputs and loss are finite; if not, the numbers below are NaN."""
    loss: float = math.nan
    score: float = math.nan
    constant: float | None = None
    """Loss of the best constant prediction; None for a custom loss."""

    @property
    def level(self) -> float | None:
        """Loss relative to that of a constant prediction."""
        return self.loss / self.constant if self.constant else None

    @property
    def epochs(self) -> int:
        """Epochs of training, of which a long curve does not have all."""
        return self.net.history.epochs

    @property
    def stopped(self) -> str:
        """Why training ended."""
        return self.net.history.stopped

    @property
    def restored(self) -> bool:
        """Whether the weights are the best of the training, not its last."""
        return self.net.history.restored or self.stopped == "patience"


@dataclass(frozen=True)
class Subject:
    """A model and its rows, ready to be examined."""

    model: Model
    sample: Sample
    trained: Trained | None
    """None where values are missing, and where a trial diverged."""

    @property
    def fitted(self) -> bool:
        """Whether the model itself was trained, not only its copy in a trial."""
        return self.model.fitted

    @property
    def rate(self) -> float:
        """The largest learning rate so far, or the one that a trial begins with."""
        rates = [] if self.trained is None else self.trained.curves.get("learning_rate", [])
        return max(rates, default=self.model.rate)

    def looked_at(self) -> str:
        """Return what the findings rest on."""
        n, n_rows = len(self.sample.X), self.sample.n_rows
        rows = f"{n:,} of {n_rows:,}" if n < n_rows else f"all {n_rows:,}"
        text = f"{rows} rows, {len(self.sample.names):,} columns"
        if self.trained is None:
            return text
        epochs, layers = self.trained.epochs, "-".join(map(str, self.trained.net.sizes))
        if not self.fitted:
            return f"{text} and a trial of {epochs} epochs with {layers}"
        return f"{text}, the network {layers} and {epochs} epochs of training"


def collect(
    model: Model,
    X: Any,
    y: ArrayLike,
    sample_weight: ArrayLike | None = None,
    X_val: Any = None,
    y_val: Any = None,
) -> Subject:
    """Draw the rows, train a copy if the model is not fitted, and measure what it does on them."""
    sample = draw(model, X, y, sample_weight)
    if sample.missing:
        return Subject(model, sample, None)
    trained = model if model.fitted else trial_fit(model, sample.rows)
    if trained is None:
        return Subject(model, sample, None)
    return Subject(model, sample, measure(trained, sample.rows, X_val, y_val))


def measure(model: Model, rows: Rows, X_val: Any, y_val: Any) -> Trained:
    """Evaluate a copy of a model's network on the rows."""
    net = copy.deepcopy(model.network)
    assert net is not None  # it was trained
    data, validation = encoded(net, model.labels, rows), None
    with np.errstate(all="ignore"):
        loss, score, out = evaluate(net, data, None)
        finite = bool(np.isfinite(out).all() and math.isfinite(loss))
        numbers = (loss, score, constant_loss(net, data)) if finite else ()
    if X_val is not None:
        validation = encoded(net, model.labels, some_of(read(X_val, y_val, suffix="_val")))
    return Trained(net, data, validation, net.history.thinned(), finite, *numbers)
