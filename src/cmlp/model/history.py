"""The record of a training: one list per quantity, one entry per epoch."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

from cmlp.core.public import set_module

MAX_EPOCHS = 10_000
"""Epochs of a training record that a file keeps, and that a diagnosis reads."""


@set_module("cmlp")
class History(dict[str, list[float]]):
    """A training record: one list per quantity, one entry per epoch.

    Keys: epoch (counted from 1, over all calls), loss (training, with penalties), learning_rate
    (of the last step), seconds, rows_per_second (means, where an estimator trained several epochs
    in one call); with validation data also val_loss and val_score; of a source that does not fit
    into memory also waited (seconds that training waited for rows; with other ranks, also for
    them).

    Attributes
    ----------
    metric : str
        What val_score is: 'accuracy' or 'r2'.
    stopped : str
        Why training ended: 'epochs' (all of them are done), 'patience' (the validation loss or
        score did not improve any more), 'tol' (an estimator's training loss did not), 'max_time',
        'callback', 'interrupted' (Ctrl-C), 'diverged', 'error' (a callback raised one), or for the
        solver 'lbfgs' 'line_search' (no step lowers the loss).
    best_epoch : int or None
        Epoch of the smallest validation loss (without validation data: training loss); with an
        estimator's ``early_stopping`` that of the best validation score.
    restored : bool
        Whether the network has the weights of the best epoch, not those of the last one.
    solver : str
        The rule of the last steps, where the network does not have it any more: after a file
        without the optimizer's state.
    checkpoint_errors : int
        Checkpoints that could not be written.
    """

    restored, solver = False, ""  # of records that were pickled before these were kept
    checkpoint_errors = 0

    def __init__(self, values: dict[str, list[float]] | None = None, metric: str = "") -> None:
        super().__init__(values or {})
        self.metric = metric
        self.stopped = "epochs"
        self.best_epoch: int | None = None
        self.restored = False

    def end(self, stopped: str, best_epoch: int | None, restored: bool) -> None:
        """Record how a training ended.

        Parameters
        ----------
        stopped : str
            What ended it, such as 'epochs' or 'patience'.
        best_epoch : int or None
            The epoch with the best validation.
        restored : bool
            Whether the weights are those of that epoch.
        """
        self.stopped, self.best_epoch, self.restored = stopped, best_epoch, restored

    def __setitem__(self, key: str, column: Any) -> None:
        """Keep a column, as a list: training appends to it."""
        if not isinstance(column, list):
            if isinstance(column, (str, bytes)) or not isinstance(column, Iterable):
                raise TypeError(f"history[{key!r}] must be a list of numbers, not {column!r}")
            column = [float(value) for value in column]
        super().__setitem__(key, column)

    def append(self, values: dict[str, float]) -> None:
        """Add an epoch; what it lacks, or what the epochs before lack, is NaN.

        Parameters
        ----------
        values : dict of str to float
            A number for each column.
        """
        if self.keys() != values.keys():
            done = max(map(len, self.values()), default=0)
            for key in values:
                self.setdefault(key, [math.nan] * done)
        for key, column in self.items():
            column.append(values.get(key, math.nan))

    def thinned(self) -> dict[str, list[float]]:
        """Return MAX_EPOCHS entries at most, evenly spread; the last is one of them."""
        n = max(map(len, self.values()), default=0)
        if n <= MAX_EPOCHS:
            return self
        kept = [i * (n - 1) // (MAX_EPOCHS - 1) for i in range(MAX_EPOCHS)]
        return {key: [column[i] for i in kept if i < len(column)] for key, column in self.items()}

    @property
    def epochs(self) -> int:
        """Number of epochs: more than entries, if a file has thinned them out."""
        numbers, n = self.get("epoch", []), len(self.get("loss", []))
        whole = len(numbers) == n > 0 and math.isfinite(numbers[-1])
        return max(n, int(numbers[-1])) if whole else n
