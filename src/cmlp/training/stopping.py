"""What ends a training: a clock, or epochs without progress."""

from __future__ import annotations

import math
import time
from collections.abc import Callable

from cmlp.core.layout import Array


class Deadline:
    """A clock, and a request from elsewhere: a call returns whether training has to end.

    Parameters
    ----------
    seconds : float or None
        From now; None sets no limit.
    halted : callable
        Whether the training is ended from outside, as an ensemble ends its members.
    """

    def __init__(self, seconds: float | None, halted: Callable[[], bool] = lambda: False) -> None:
        self.end = math.inf if seconds is None else time.perf_counter() + seconds
        self.halted = halted

    @property
    def is_set(self) -> bool:
        """Whether there is a limit of time."""
        return self.end < math.inf

    def __call__(self) -> bool:
        return self.halted() or (self.is_set and time.perf_counter() >= self.end)

    @property
    def left(self) -> float | None:
        """Seconds until then; None without a limit."""
        return max(0.0, self.end - time.perf_counter()) if self.is_set else None

    @property
    def reason(self) -> str:
        """Why training has to end; empty where it has not."""
        return "interrupted" if self.halted() else "max_time" if self() else ""


class Patience:
    """:meth:`cmlp.Network.fit`'s rule: too many epochs since the lowest loss.

    Parameters
    ----------
    epochs : int or None
        How many; None never ends a training.
    keeps : bool
        Whether the parameters of the best epoch are kept, to be restored.
    """

    def __init__(self, epochs: int | None, keeps: bool) -> None:
        self.epochs, self.keeps = epochs, keeps and epochs is not None
        self.lowest, self.best_epoch = math.inf, 0
        self.params: Array | None = None

    def see(self, loss: float, epoch: int, params: Array) -> None:
        """Compare the loss of an epoch with the lowest so far."""
        if loss < self.lowest:
            self.lowest, self.best_epoch = loss, epoch
            if self.keeps:
                self.params = params.copy()

    def left(self, epoch: int) -> float:
        """Return how many epochs after this one may pass without a lower loss; 0 ends training."""
        return math.inf if self.epochs is None else self.epochs - (epoch - self.best_epoch)


class NoImprovement:
    """scikit-learn's rule: too many epochs in a row without a lower loss by at least `tol`.

    A score is counted as a loss: its negative.

    Parameters
    ----------
    tol : float
        An epoch that does not lower the best loss by this much counts as one without improvement.
    patience : float
        How many of them may follow each other; inf sets no limit.
    best : float
        Lowest loss of earlier epochs.
    count : int
        Epochs without an improvement up to now.
    """

    def __init__(self, tol: float, patience: float, best: float = math.inf, count: int = 0) -> None:
        self.tol, self.patience, self.best, self.count = tol, patience, best, count

    def see(self, loss: float) -> bool:
        """Count an epoch; return whether its loss is the lowest so far."""
        self.count = self.count + 1 if loss > self.best - self.tol else 0
        improves = loss < self.best
        if improves:
            self.best = loss
        return improves

    @property
    def stalled(self) -> bool:
        """Whether there were too many epochs without an improvement."""
        return self.count > self.patience

    @property
    def epochs_left(self) -> float:
        """Epochs that can follow, at least, before it is stalled."""
        return self.patience + 1 - self.count
