"""A run: one network in training that can be stepped, taken back and sent to any batch.

It gives the bits of one :meth:`cmlp.Network.fit`: one :class:`~cmlp.training.trainer.Trainer`
draws the seed of dropout and noise once, each epoch's order is drawn as ``fit`` does, and the
trainer gets pieces of that order. Going back restores the nearest checkpoint and repeats the
batches up to the one that was chosen, exactly: noise is a hash of the seed and the number of the
step.
"""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cmlp.data.numbers import is_finite
from cmlp.data.rows import Data
from cmlp.model.history import History
from cmlp.model.scoring import evaluate
from cmlp.network import Network
from cmlp.page import limits
from cmlp.training.divergence import diverged
from cmlp.training.fit import order_matters
from cmlp.training.recipe import Recipe
from cmlp.training.snapshot import Snapshot
from cmlp.training.trainer import Trainer

BATCHES_BETWEEN = 100
"""Batches between checkpoints, at least: to repeat so many takes a few milliseconds."""

THIN_EVERY = 64
"""Checkpoints after which the older ones are thinned."""


@dataclass(frozen=True)
class Checkpoint:
    """Everything that the next batch depends on.

    Attributes
    ----------
    pinned : bool
        Whether the recipe changed here, so that a replay must not begin before it.
    """

    step: int
    epoch: int
    cursor: int
    order: NDArray[np.int64] | None
    total: float
    generator: dict[str, Any]
    weights: Snapshot
    trainer: Trainer
    recipe: Recipe
    pinned: bool

    @property
    def nbytes(self) -> int:
        """Memory of its arrays."""
        order = 0 if self.order is None else self.order.nbytes
        return int(self.weights.params.nbytes + self.weights.moments.nbytes) + order


def snapshot(net: Network) -> Snapshot:
    """Return a copy of weights and moments in memory of its own, to be kept."""
    return Snapshot(net, np.empty((1 + len(net.moments), len(net.params)), net.dtype))


class Run:
    """A training that can be stopped at each batch, and be taken back.

    Parameters
    ----------
    net : Network
        Trained in place.
    data, held_out : Data
        Encoded rows; those held out are evaluated after each epoch.
    recipe : Recipe
    batch_size : int
    labels : bool
        Whether the targets are classes, also where they are written as numbers.

    Attributes
    ----------
    step, epoch, cursor : int
        Batches and epochs done, and rows used in the present epoch.
    curve : list of (epoch, step, loss, validation loss, score)
    furthest : int
        The last batch that the run has reached.
    lowest : int
        The least epochs that `curve` had since a reader set it; those after them may be others.
    """

    def __init__(
        self,
        net: Network,
        data: Data,
        held_out: Data | None,
        recipe: Recipe,
        batch_size: int,
        labels: bool,
    ) -> None:
        self.net, self.data, self.held_out, self.labels = net, data, held_out, labels
        self.n_rows = len(data.X)
        self.step = self.epoch = self.cursor = self.furthest = self.lowest = 0
        self.order: NDArray[np.int64] | None = None
        self.total = 0.0
        self.curve: list[tuple[float, ...]] = []
        self.checkpoints: list[Checkpoint] = []
        self._set_recipe(recipe, batch_size)
        self._check_in(pinned=True)

    def _set_recipe(self, recipe: Recipe, batch_size: int) -> None:
        if recipe.ema:
            raise ValueError("ema: the page shows the weights that move, not their mean")
        recipe.check(self.net.architecture)
        self.trainer = Trainer(
            self.net, self.data, recipe, min(batch_size, self.n_rows), n_threads=1
        )
        self.recipe = recipe

    @property
    def batch_size(self) -> int:
        """Rows of a batch."""
        return self.trainer.batch_size

    @property
    def batches_left(self) -> int:
        """Batches until the present epoch ends."""
        return -(-(self.n_rows - self.cursor) // self.batch_size)

    def change(self, recipe: Recipe, batch_size: int) -> None:
        """Continue with another recipe from the next batch on; what came after it is dropped.

        One that differs in its rates alone keeps the trainer, and so the seed of its noise.
        """
        if replace(recipe, learning_rate=self.recipe.learning_rate) == self.recipe and (
            min(batch_size, self.n_rows) == self.batch_size
        ):
            self.recipe = recipe
        else:
            self._set_recipe(recipe, batch_size)
        self._forget_after(self.step)
        self.furthest = self.step
        self._check_in(pinned=True)

    # Forward -------------------------------------------------------------------------------------

    def advance(self, n_batches: int) -> int:
        """Take so many steps, and return the rows that they used.

        Raises
        ------
        DivergenceError
            If a loss or a weight is not finite; the run is then at its last checkpoint.
        """
        used = 0
        with self.net.exclusive_training():
            while n_batches > 0:
                n = min(n_batches, self.batches_left)
                used += self._part(n)
                n_batches -= n
        self.furthest = max(self.furthest, self.step)
        return used

    def _part(self, n: int) -> int:
        """Take steps of one epoch."""
        if self.order is None:
            self.order = np.arange(self.n_rows, dtype=np.int64)
            if order_matters(self.net, self.n_rows, self.batch_size):
                self.order = self.net.rng.permutation(self.order)
        part = self.order[self.cursor : self.cursor + n * self.batch_size]
        loss, taken = self.trainer.run(part, np.full(n, float(self.recipe.learning_rate)))
        if taken < n:
            self._raise_diverged()
        self.total += loss
        self.cursor += len(part)
        self.step += n
        if self.cursor >= self.n_rows:
            self._end_epoch()
        return len(part)

    def _end_epoch(self) -> None:
        if not (math.isfinite(self.total) and is_finite(self.net.params)):
            self._raise_diverged()
        loss = self.total / self.n_rows
        self.epoch += 1
        self.cursor, self.order, self.total = 0, None, 0.0
        held_out, right = self._on_held_out()
        self.curve.append((self.epoch, self.step, loss, held_out, right))
        if self.step - self.checkpoints[-1].step >= BATCHES_BETWEEN:
            self._check_in(pinned=False)

    def _on_held_out(self) -> tuple[float, float]:
        """Return the loss, and the share of rows read right (of numbers: R2)."""
        if self.held_out is None:
            return math.nan, math.nan
        loss, score, out = evaluate(self.net, self.held_out, None)
        targets = self.held_out.targets
        if self.labels and targets.ndim == 2:
            read, truth = (
                (part[:, 0] > 0.5 if part.shape[1] == 1 else part.argmax(axis=1))
                for part in (out, targets)
            )
            score = float(np.mean(read == truth))
        return loss, score

    def _raise_diverged(self) -> None:
        history = History()
        history["epoch"] = [row[0] for row in self.curve]
        last = self.checkpoints[-1]
        error = diverged(self.net, self.data, self.recipe, history, last.weights)
        self._put_back(last)
        raise error

    # Back ----------------------------------------------------------------------------------------

    @property
    def earliest(self) -> int:
        """The earliest batch to which the run can be taken back."""
        return self.checkpoints[0].step

    def seek(self, step: int) -> None:
        """Go to the state after so many batches: back, or forward by training."""
        step = max(step, self.earliest)
        furthest = max(self.furthest, step)
        if step < self.step:
            self._forget_after(step)
            self._put_back(self.checkpoints[-1])
        self.advance(step - self.step)
        self.furthest = furthest

    def _forget_after(self, step: int) -> None:
        kept = [point for point in self.checkpoints if point.step <= step]
        self.checkpoints = kept or self.checkpoints[:1]

    def _put_back(self, point: Checkpoint) -> None:
        point.weights.put_back()
        self.net.rng.bit_generator.state = point.generator
        self.step, self.epoch, self.cursor = point.step, point.epoch, point.cursor
        self.order, self.total = point.order, point.total
        self.trainer, self.recipe = point.trainer, point.recipe
        while self.curve and self.curve[-1][1] > self.step:
            self.curve.pop()
        self.lowest = min(self.lowest, len(self.curve))

    # Checkpoints ---------------------------------------------------------------------------------

    def _check_in(self, pinned: bool) -> None:
        """Remember the present state; a later change at the same batch takes the place of it."""
        point = Checkpoint(
            self.step,
            self.epoch,
            self.cursor,
            self.order,
            self.total,
            copy.deepcopy(dict(self.net.rng.bit_generator.state)),
            snapshot(self.net),
            self.trainer,
            self.recipe,
            pinned,
        )
        if self.checkpoints and self.checkpoints[-1].step == self.step:
            self.checkpoints.pop()
        self.checkpoints.append(point)
        if len(self.checkpoints) % THIN_EVERY == 0:
            self._thin()
        self._bound()

    def _thin(self) -> None:
        """Keep ever fewer checkpoints, the older they are: about eight of each power of two."""
        kept: list[Checkpoint] = []
        for point in self.checkpoints:
            gap = (self.step - point.step) // 16
            near = kept and point.step - kept[-1].step < gap
            if point.pinned or not near:
                kept.append(point)
        self.checkpoints = kept

    def _bound(self) -> None:
        """Drop the oldest above the limit of memory: the run cannot go back so far any more."""
        while len(self.checkpoints) > 2 and (
            len(self.checkpoints) * self.checkpoints[-1].nbytes > limits.HISTORY_BYTES
        ):
            n = len(self.checkpoints)
            self._thin()
            if len(self.checkpoints) == n:
                del self.checkpoints[0]
