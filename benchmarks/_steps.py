"""Training steps of cmlp alone, timed in this process: any net, number type, solver, core."""

from __future__ import annotations

import time
from functools import lru_cache
from typing import Any

import numpy as np

import cmlp

from ._timing import pinned
from ._work import Array, Work, data, first_weights


@lru_cache(maxsize=2)
def _data(sizes: tuple[int, ...], rows: int, dtype: str) -> tuple[Array, Array]:
    """Draw rows and labels once for all measurements of a work."""
    X, y = data(sizes, rows)
    return np.ascontiguousarray(X, dtype), y


class Steps:
    """Epochs of a net, as turns that start from the same weights.

    Parameters
    ----------
    work : Work
    core : str
        The core that runs them.
    n_threads : int
        Threads, and processors that they are pinned to.
    activation, dtype : str
        Of the network; the rows are of the same dtype.
    least : float
        Seconds that a turn should take, in whole epochs.
    **recipe
        More parameters of ``Network.fit``.
    """

    def __init__(
        self,
        work: Work,
        *,
        core: str = "auto",
        n_threads: int = 1,
        activation: str = "relu",
        dtype: str = "float32",
        least: float = 0.05,
        **recipe: Any,
    ) -> None:
        self.work, self.core, self.n_threads = work, core, n_threads
        rate = 0.001 if work.batch == 1 else 0.01
        self.recipe = {"learning_rate": rate, "momentum": 0.9, **recipe}
        self.X, self.y = _data(work.sizes, work.rows, dtype)
        self.net = cmlp.Network(work.sizes, activation, dtype=dtype, seed=0)
        self.first = first_weights(work.sizes)
        self.epochs = 1
        spent = self.turn() * work.steps
        self.epochs = max(1, round(least / spent))

    def turn(self) -> float:
        """Train from the first weights, and return the seconds of a step."""
        for number, (W, b) in enumerate(self.first):
            self.net.weights[number][...] = W
            self.net.biases[number][...] = b
        self.net.moments[...] = 0
        with cmlp.use_core(self.core), pinned(self.n_threads):
            start = time.perf_counter()
            self.net.fit(
                self.X,
                self.y,
                epochs=self.epochs,
                batch_size=self.work.batch,
                n_threads=self.n_threads,
                **self.recipe,
            )
            return (time.perf_counter() - start) / (self.epochs * self.work.steps)
