"""What ends a training: a clock, and the best epoch."""

from __future__ import annotations

import math
import time
from collections.abc import Callable

from cmlp.core.layout import Array


class Deadline:
    """A clock, and a request from elsewhere: calling it says whether training has to end.

    Parameters
    ----------
    seconds : float or None
        From now; None sets no limit.
    halted : callable
        Whether somebody else ends the training, as an ensemble does with its members.
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
    def reason(self) -> str:
        """Why training has to end; empty where it has not."""
        return "interrupted" if self.halted() else "max_time" if self() else ""


class Best:
    """The smallest loss, and the weights that gave it if they are to be restored."""

    def __init__(self, keep: bool) -> None:
        self.keep, self.loss, self.epoch = keep, math.inf, 0
        self.params: Array | None = None

    def see(self, loss: float, epoch: int, params: Array) -> None:
        if loss < self.loss:
            self.loss, self.epoch = loss, epoch
            if self.keep:
                self.params = params.copy()
