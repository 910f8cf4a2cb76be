"""The steps of a rank: all add up their gradients, or average weights after steps of their own."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cmlp.core import dispatch
from cmlp.core.layout import Array
from cmlp.core.seam import Noise, Objective, Places, places
from cmlp.data.numbers import is_finite
from cmlp.distributed.communicator import RankError, RingBroken
from cmlp.distributed.shards import Shares, some_rows
from cmlp.model import passes
from cmlp.model.state import State
from cmlp.training.recipe import Recipe
from cmlp.training.trainer import Trainer

LOSS, WEIGHT, STOP, ERROR = range(4)
"""Places in the tail of a sum: of losses, of weights, and how many ranks pause or have failed."""


class RankTrainer(Trainer):
    """Takes the steps of one rank of several.

    Attributes
    ----------
    core : str
        What it was made for.
    comm : Communicator
    k : int
        Steps between two sums: of gradients, if it is 1; else of weights, which are averaged.
    most : float
        Sums after which the epoch is paused, to see what they cost.
    pauses : float
        When it is paused, by this rank's clock.
    computed, waited : float
        Seconds of the last call: for steps, and for the other ranks.
    """

    comm: Any
    feed: Shares
    k, most, pauses = 1, math.inf, math.inf
    computed = waited = 0.0

    def __init__(self, net: State, feed: Shares, recipe: Recipe, n_threads: int | None) -> None:
        random = net.rng.bit_generator.state
        super().__init__(net, feed, recipe, feed.batch_size, n_threads)
        net.rng.bit_generator.state = random  # the seed of the noise is that of the shards
        self.total, self.nothing = np.zeros_like(net.params), np.empty((0, 0), net.dtype)
        self.core = dispatch.core.name

    def _epoch(
        self, rows: NDArray[np.int64], rates: Array, out_of_time: Callable[[], bool]
    ) -> tuple[float, int]:
        """Take the steps of an epoch, as far as all ranks come; 0 rows if it is not done then."""
        self.began, self.waited, self.n_sums = time.perf_counter(), 0.0, 0
        self.step, self.tail = -(-self.progressed.rows // self.batch_size), np.zeros(4)
        own = 0 if self.k == 1 else self.feed.place[0]
        self.noise = self.noise._replace(seed=self.feed.seed + own)
        try:
            with dispatch.use_core(self.core):
                loss, n_rows = super()._epoch(rows, rates, out_of_time)
        except (RankError, RingBroken):
            raise
        except Exception as error:  # the others hear of it where they wait
            with suppress(RankError, RingBroken):
                self._sum(error)
            raise
        if not is_finite(self.net.params):
            return math.nan, n_rows
        seconds = time.perf_counter() - self.began
        self.progressed.seconds += seconds
        self.computed = seconds - self.waited
        return loss, n_rows if n_rows == self.feed.n_rows else 0

    def _take(
        self, rows: NDArray[np.int64], rates: Array, n_rows: int, out_of_time: Callable[[], bool]
    ) -> bool:
        """Take this rank's part of a step, and a sum with the others where it is due."""
        net, done, step = self.net, self.progressed, self.step
        self.step += 1
        of_step, end = rates[..., step : step + 1], min(n_rows, (step + 1) * self.batch_size)
        rate, *factors = of_step.ravel().tolist()
        if self.k == 1:
            loss, weight = self._gradient(rows, factors, end - self.progressed.rows)
        else:
            loss, weight = self._alone(rows, of_step)
        self.tail[[LOSS, WEIGHT]] += loss, weight
        if (step + 1) % self.k and end < n_rows:
            return True
        self.tail[STOP] = out_of_time() or time.perf_counter() >= self.pauses
        self._sum()
        loss, weight, stops, _ = self.tail.tolist()
        self.tail[:] = 0
        n, per_batch = end - done.rows, self.objective.per_batch
        if self.k == 1:
            if not weight:  # then the step is against the penalties
                self._backpropagate(rows[:0], self.objective, Noise(), 0.0)
            mean = weight / n or 1.0
            loss = loss / mean * (n if per_batch else weight)
        if not math.isfinite(loss):
            done.loss = math.nan
            return False
        if self.k == 1:
            self._update(mean, rate, factors)
        done.loss, done.weight = done.loss + loss, done.weight + (n if per_batch else weight)
        done.rows = end
        paused = bool(stops) or self.n_sums >= self.most
        if self.k > 1 and (paused or end == n_rows) and len(net.moments):
            self._average(net.moments.reshape(-1))
        return not paused

    def _sum(self, problem: Exception | None = None) -> None:
        """Add up gradients, or average weights, and add up the tail.

        Raises
        ------
        RankError
            If a rank has a problem; this one's own is told to the others.
        """
        self.tail[ERROR], ready = problem is not None, time.perf_counter()
        if self.k == 1:
            self.comm.allreduce(self.total, self.tail)
        else:
            self._average(self.net.params, self.tail)
        waited, self.n_sums = time.perf_counter() - ready, self.n_sums + 1
        self.waited += waited
        self.feed.seconds += waited
        if self.n_sums == 1 and self.most < math.inf:  # the first step may have read files
            self.began, self.waited = time.perf_counter(), 0.0
        if self.tail[ERROR]:
            text = "" if problem is None else f"{type(problem).__name__}: {problem}"
            told = [each.decode() for each in self.comm.gather(text.encode())]
            rank, text = next((i, each) for i, each in enumerate(told) if each)
            raise RankError(f"rank {rank} has failed: {text}")

    def _average(self, array: Array, tail: Array | None = None) -> None:
        """Replace an array by the mean of all ranks'."""
        self.comm.allreduce(array, tail)
        array /= array.dtype.type(self.comm.size)

    def _gradient(
        self, rows: NDArray[np.int64], factors: list[float], n: int
    ) -> tuple[float, float]:
        """Write this rank's part of the gradient of n rows; return that of their loss and weight.

        The sum over all ranks, divided by the mean of the weights, is that of the whole batch.
        """
        weight, whole, noise = self.data.weight(rows), self.objective, self.noise
        share = (1 / self.comm.size if whole.per_batch else weight) / n
        objective = whole._replace(per_batch=False, l1=whole.l1 * share, l2=whole.l2 * share)
        if factors:
            noise = noise._replace(dropout=noise.dropout * factors[0])
        return self._backpropagate(rows, objective, noise, float(n)), weight

    def _backpropagate(
        self, rows: NDArray[np.int64], objective: Objective, noise: Noise, n: float
    ) -> float:
        """Write the gradient of some of n rows, and return their part of the loss."""
        net, data, first = self.net, self.data, self.feed.first
        if net.loss_row is None:
            times = (data.weight(rows) / n if n else 0.0) or 1.0  # it is a mean over these rows
            objective = objective._replace(l1=objective.l1 / times, l2=objective.l2 / times)
            found = passes.backpropagate(
                net, some_rows(data, rows), objective, learns=True, noise=noise, first_row=first
            )
            self.total[:] = found.gradient * found.gradient.dtype.type(times)
            return found.loss * times

        def call(rank: int, team: Places) -> float:
            loss: float = dispatch.core.gradient(
                net.plan, net.params, data.X, data.targets, data.weights, rows, objective, noise,
                net.steps, self.total, self.nothing, self.nothing, self.workspace,
                net.input_scale, False, team, first, rank, self.n_threads, n,
            )  # fmt: skip
            return loss

        return self.team.run(call, places())

    def _update(self, mean: float, rate: float, factors: list[float]) -> None:
        """Take a step with the sum of all ranks' gradients, of rows with that mean weight."""
        optimizer = self.optimizer
        if mean != 1:
            self.total /= self.total.dtype.type(mean)
        if factors:
            optimizer = optimizer._replace(weight_decay=optimizer.weight_decay * factors[1])
        passes.update(self.net, self.total, optimizer, rate)

    def _alone(self, rows: NDArray[np.int64], rates: Array) -> tuple[float, float]:
        """Take a step of this rank's rows; return their loss, times their weight, and that.

        Ranks take the same number of steps, also one without rows.
        """
        if not len(rows):
            self.net.optimizer_state.steps += 1
            return 0.0, 0.0
        loss, taken = self.run(rows, rates)
        weight = float(len(rows)) if self.objective.per_batch else self.data.weight(rows)
        return (loss if taken else math.nan), weight
