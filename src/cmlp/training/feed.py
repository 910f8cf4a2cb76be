"""What a training on rows larger than memory reads: windows of them, one after the other."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from cmlp.data.rows import Data


class Window(NamedTuple):
    """Some rows, and their order in the epoch: whole batches, but for the last of an epoch."""

    data: Data
    order: NDArray[np.int64]


@dataclass
class Progressed:
    """What is done of an epoch: with the state of the network, where a training can continue.

    Attributes
    ----------
    epoch : int
        Epochs before it.
    rows : int
        Rows that were used; whole batches, unless it is done.
    loss, weight : float
        Sums over these rows.
    first_step : int
        Steps of the network before it.
    seconds : float
        Of earlier calls, where it was paused.
    """

    epoch: int = 0
    rows: int = 0
    loss: float = 0.0
    weight: float = 0.0
    first_step: int = 0
    seconds: float = 0.0


class Feed(Protocol):
    """Yields the windows of epochs.

    Attributes
    ----------
    n_rows : int
        Rows of an epoch.
    latest : Data
        The rows of the window that was yielded last, or some rows before there was one.
    """

    n_rows: int
    latest: Data

    def windows(self, epoch: int, done: int, out_of_time: Callable[[], bool]) -> Iterator[Window]:
        """Yield the windows of an epoch without its first `done` rows; fewer once time is over."""

    def waited(self) -> float:
        """Return the seconds that training has waited for rows, since the last call."""

    def close(self) -> None:
        """End the reading."""


class Keeper(Protocol):
    """Writes checkpoints of a training."""

    def mark(self) -> None:
        """Remember the state of the random generator, from which an epoch is to be drawn."""

    def save(self, *, now: bool = False) -> None:
        """Write a checkpoint, if it is time for one or is to be written `now`."""
