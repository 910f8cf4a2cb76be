"""Trials: a copy of a model is trained for a few epochs."""

from __future__ import annotations

import contextlib
import math
import warnings
from collections.abc import Iterator

import numpy as np

from cmlp.data.rows import Data
from cmlp.diagnosis.model import Model, untrained
from cmlp.diagnosis.sample import Rows
from cmlp.model.scoring import evaluate
from cmlp.model.state import State
from cmlp.training.fit import run_epoch
from cmlp.training.recipe import Recipe

TRIAL_EPOCHS, TRIAL_STEPS, TRIAL_SECONDS = 5, 200, 2.0
"""How long a trial lasts: so many epochs, more of them if they have few steps, and no longer than
a user waits."""


@contextlib.contextmanager
def _quietly() -> Iterator[None]:
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        yield


def trial_fit(model: Model, rows: Rows) -> Model | None:
    """Train a copy of a model that is not fitted, with its own parameters; None if it diverges."""
    n = len(rows.y)
    n_steps = -(-n // min(model.batch_size or n, n))
    epochs = max(TRIAL_EPOCHS, -(-TRIAL_STEPS // n_steps))
    with _quietly():
        try:
            return model.train(*rows, epochs=epochs, max_time=TRIAL_SECONDS)
        except ArithmeticError:  # DivergenceError
            return None


def trial_loss(net: State, data: Data, rate: float) -> float:
    """Return the loss after a few epochs more on a copy, with the solver of the last training."""
    recipe = Recipe(solver=net.last_solver or "sgd", learning_rate=rate)
    copied = untrained(net)
    with _quietly():
        try:
            for _ in range(TRIAL_EPOCHS):
                run_epoch(copied, data, recipe, 32, True, 1)
        except ArithmeticError:  # DivergenceError
            return math.inf
    return evaluate(copied, data, None)[0]
