"""One step of all ranks together, and steps that each takes alone."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from cmlp.core import dispatch
from cmlp.core.layout import Array
from cmlp.core.seam import Noise, Objective, Optimizer, Places, places
from cmlp.data.rows import Data
from cmlp.model import passes
from cmlp.model.state import State
from cmlp.training.trainer import Trainer

LOSS, WEIGHT, STOP, ERROR = range(4)
"""Places in the tail of a sum: of losses, of weights, and how many ranks stop or have failed."""


class Stepper:
    """Computes a rank's part of a step."""

    def __init__(self, net: State, trainer: Trainer) -> None:
        self.net, self.trainer = net, trainer
        self.grads = np.zeros_like(net.params)
        self.nothing = np.empty((0, 0), net.dtype)

    def gradient(
        self, data: Data, rows: NDArray[np.int64], first_row: int, size: int, factors: Array
    ) -> tuple[float, float]:
        """Write the gradient of some rows to `grads`, times their weight; return loss and weight.

        The sum over all ranks, divided by the sum of the weights, is that of the whole batch.

        Parameters
        ----------
        first_row : int
            Place of the first row in the batch of all ranks.
        size : int
            Number of ranks.
        factors : array
            Of dropout and weight decay, or empty.
        """
        weight = data.weight(rows)
        times, whole = weight or 1.0, self.trainer.objective
        penalty = 1 / (size * times) if whole.per_batch else weight / times
        objective = whole._replace(per_batch=False, l1=whole.l1 * penalty, l2=whole.l2 * penalty)
        noise = self.trainer.noise
        if len(factors):
            noise = noise._replace(dropout=noise.dropout * factors[0])
        loss = self._backpropagate(data, rows, objective, noise, first_row)
        if times != 1:
            self.grads *= self.grads.dtype.type(times)
        return loss * times, weight

    def penalties(self, data: Data) -> float:
        """Write the gradient of the penalties alone to `grads`, and return them."""
        return self._backpropagate(data, np.arange(0), self.trainer.objective, Noise(), 0)

    def _backpropagate(
        self, data: Data, rows: NDArray[np.int64], objective: Objective, noise: Noise, first: int
    ) -> float:
        net, trainer = self.net, self.trainer
        if net.loss_row is None:
            return self._of_custom_loss(data, rows, objective, noise, first)

        def call(rank: int, team: Places) -> float:
            loss: float = dispatch.core.gradient(
                net.plan, net.params, data.X, data.targets, data.weights, rows, objective, noise,
                net.steps, self.grads, self.nothing, self.nothing, trainer.workspace,
                net.input_scale, False, team, first, rank, trainer.n_threads,
            )  # fmt: skip
            return loss

        return trainer.team.run(call, places())

    def _of_custom_loss(
        self, data: Data, rows: NDArray[np.int64], objective: Objective, noise: Noise, first: int
    ) -> float:
        """The same of a loss in Python, which is the mean over its rows."""
        net, workspace = self.net, self.trainer.workspace
        value, slope = 0.0, np.zeros((0, net.sizes[-1]), net.dtype)
        if len(rows):
            out, _ = passes.evaluate(
                net, data, objective, rows, noise=noise, step=net.steps, workspace=workspace,
                first_row=first,
            )  # fmt: skip
            weights = None if data.weights is None else data.weights[rows]
            y = net.target_matrix(data.targets[rows])
            value, slope = net.architecture.call_loss(out, y, weights)
        return value + passes.backpropagate_slope(
            net, data.X[rows], slope, objective, self.grads, workspace, noise=noise,
            step=net.steps, first_row=first,
        )  # fmt: skip

    def update(self, weight: float, rate: float, factors: Array) -> None:
        """Take a step with the sum of all ranks' gradients."""
        optimizer: Optimizer = self.trainer.optimizer
        self.grads /= self.grads.dtype.type(weight)
        if len(factors):
            optimizer = optimizer._replace(weight_decay=optimizer.weight_decay * factors[1])
        passes.update(self.net, self.grads, optimizer, rate)

    def alone(self, data: Data, rows: NDArray[np.int64], rates: Array) -> tuple[float, float]:
        """Take a step of this rank's rows alone; return their loss, times their weight, and that.

        Ranks take the same number of steps, also one without rows.
        """
        trainer = self.trainer
        if not len(rows):
            self.net.optimizer_state.steps += 1
            return 0.0, 0.0
        trainer.data = data
        loss, taken = trainer.run(rows, rates)
        weight = float(len(rows)) if trainer.objective.per_batch else data.weight(rows)
        return (loss if taken else np.nan), weight


def average(comm: Any, array: Array, tail: Array | None = None) -> None:
    """Replace an array by the mean of all ranks'."""
    comm.allreduce(array, tail)
    array /= array.dtype.type(comm.size)
