"""Trainer: takes the steps of a training, with its scratch arrays and its threads."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from cmlp.core import dispatch
from cmlp.core.layout import Array, layers_of
from cmlp.core.scratch import Scratch
from cmlp.core.seam import MAX_BATCH, TEAM_STEPS, TEAM_STOP, Places, places
from cmlp.core.team import Team, never
from cmlp.data.rows import Data
from cmlp.model import passes
from cmlp.model.passes import flops_of
from cmlp.model.precision import check_first_columns
from cmlp.model.state import State
from cmlp.training.feed import Feed, Progressed
from cmlp.training.recipe import Recipe

CALL_ROWS = 2**20
"""Rows of one call of several epochs: 8 MB of row numbers."""


COMPILED_FLOPS, PYTHON_FLOPS = 2e4, 5e7
"""Overhead of a step in addition to its products, as work that takes as long."""


THREAD_FLOPS = 1e7
"""Work of one step from which a second thread pays for its barriers."""


FUSED_FLOPS = 5e10
"""Work of one step below which the cores write no gradient: its tiles become updates at once."""


def in_main_thread() -> bool:
    """Whether this is the main thread, which receives Ctrl-C."""
    return threading.current_thread() is threading.main_thread()


def check_batch_size(net: State, batch_size: int | None) -> None:
    """Check that a batch has statistics where the network is normalised by them."""
    if net.normalization == "batch" and batch_size == 1:
        raise ValueError(
            "normalization='batch' needs batches of at least 2 rows; 'layer' takes single ones"
        )


class Trainer:
    """Takes steps on a network: holds the scratch arrays and the threads of one fit.

    Parameters
    ----------
    data : Data or Feed
        Rows in memory, or what yields windows of them.
    keeps_steps_whole : bool
        Whether the NumPy core runs in a thread of its own, too, so that Ctrl-C cannot interrupt it
        between two statements of an update.

    Attributes
    ----------
    progressed : Progressed
        What is done of the present epoch.
    pause : callable or None
        Called between two calls of the core, when a checkpoint may be written; with True at the end
        of an epoch that time has cut short.
    """

    data: Data
    pause: Callable[[bool], None] | None = None

    def __init__(
        self,
        net: State,
        data: Data | Feed,
        recipe: Recipe,
        batch_size: int,
        n_threads: int | None,
        *,
        keeps_steps_whole: bool = False,
    ) -> None:
        self.net, self.batch_size, self.feed = net, batch_size, None
        if isinstance(data, Data):
            self.data = data
        else:
            self.feed = data
        self.objective = recipe.objective(net.architecture)
        self.optimizer = recipe.optimizer(net.architecture)
        self.noise = recipe.noise(net.architecture, 0)
        if self.noise.input_noise or len(self.noise.dropout):
            self.noise = self.noise._replace(seed=int(net.rng.integers(2**63)))
        check_batch_size(net, batch_size)
        check_first_columns(net, (data if isinstance(data, Data) else data.latest).X)
        net.optimizer_state.moments_for(recipe.rule, averages=recipe.ema > 0)
        self.progressed = Progressed(first_step=net.steps)
        self.step_flops = flops_of(net) * batch_size
        self.is_long = self.step_flops > passes.CALL_FLOPS
        self.stopped = False
        self.n_threads = self._choose_threads(n_threads)
        size = dispatch.core.workspace_size(net.plan, batch_size, self.n_threads)
        self.scratch = Scratch((size,), net.dtype)
        self.workspace = self.scratch.array
        self.grads = np.zeros(len(net.params) if self._writes_gradients() else 0, net.dtype)
        in_python = dispatch.core.name == "python"
        in_threads = (
            self.n_threads > 1
            or self.is_long
            or (keeps_steps_whole and in_python and in_main_thread())
        )
        self.team = Team(self.n_threads if in_threads else 0)

    def _choose_threads(self, n_threads: int | None) -> int:
        if dispatch.core.name == "python" or self.net.loss_row is None:
            return 1  # NumPy's products have threads of their own
        if self.step_flops < THREAD_FLOPS:
            return 1
        return dispatch.threads_for(n_threads)

    def _writes_gradients(self) -> bool:
        """Whether a whole gradient is needed, as where it is clipped."""
        return (
            dispatch.core.name == "python"
            or self.net.loss_row is None
            or self.optimizer.clip_norm > 0
            or self.batch_size > MAX_BATCH
            or self.step_flops > FUSED_FLOPS
            or len(layers_of(self.net.plan)) < len(self.net.plan)
        )

    def close(self) -> None:
        """End the threads, and leave the mean of the weights in the network, if there is one."""
        try:
            self.net.optimizer_state.show_average(self.net.params)
        finally:
            self.team.close()
            self.scratch.close()

    def run(
        self,
        rows: NDArray[np.int64],
        rates: NDArray[np.float64],
        losses: NDArray[np.float64] | None = None,
        out_of_time: Callable[[], bool] = never,
    ) -> tuple[float, int]:
        """Take one step per batch; return the summed loss, and the number of whole steps.

        `rates` is (n_steps,) learning rates, or (3, n_steps): these, and factors of dropout and
        weight decay.

        There are fewer than batches where a loss is not finite, or where a long step was `stopped`
        by Ctrl-C or `out_of_time`. `rows` may be as many epochs as there are `losses` to write.
        """
        team, n_steps = places(), rates.shape[-1]
        self.stopped = False
        ends = out_of_time if self.is_long else None
        memory = self.net.optimizer_state
        steps = memory.steps
        statistics = [part.copy() for pair in self.net.running for part in pair] if ends else []

        def epoch(rank: int, team: Places) -> tuple[float, int]:
            return self._run_rank(rows, rates, losses, rank, team)

        # The core counts its steps in the team's array: a Ctrl-C may replace its return value.
        try:
            if self.net.loss_row is None:
                return self._run_custom(rows, rates, team, ends)
            return self.team.run(epoch, team, ends)
        finally:
            memory.steps += int(team[TEAM_STEPS])
            self.stopped = bool(team[TEAM_STOP]) and memory.steps - steps < n_steps
            if self.stopped:  # a long step has a call of its own: all passes in it are undone
                running = [part for pair in self.net.running for part in pair]
                for part, before in zip(running, statistics, strict=True):
                    part[...] = before

    def _run_rank(
        self,
        rows: NDArray[np.int64],
        rates: NDArray[np.float64],
        losses: NDArray[np.float64] | None,
        rank: int,
        team: Places,
    ) -> tuple[float, int]:
        net, data = self.net, self.data
        learning_rates, *factors = rates if rates.ndim == 2 else (rates,)
        result: tuple[float, int] = dispatch.core.train_epoch(
            net.plan, net.params, net.moments, data.X, data.targets, data.weights, rows,
            self.batch_size, learning_rates, net.steps, self.objective, self.optimizer, self.noise,
            self.grads, self.workspace, rank, self.n_threads, team, net.input_scale, losses,
            *factors,
        )  # fmt: skip
        return result

    def _run_custom(
        self,
        rows: NDArray[np.int64],
        rates: NDArray[np.float64],
        team: Places,
        ends: Callable[[], bool] | None,
    ) -> tuple[float, int]:
        """The same for a loss in Python: outputs, the callable, then a gradient from its dC/da.

        The callable runs in the thread that called.
        """
        net, data = self.net, self.data
        total, taken = 0.0, 0
        learning_rates, *factors = rates if rates.ndim == 2 else (rates,)
        noise, optimizer = self.noise, self.optimizer

        def forward(rank: int, team: Places) -> Array:
            return passes.evaluate(
                net, data, self.objective, batch, noise=noise, step=net.steps,
                workspace=self.workspace, team=team,
            )[0]  # fmt: skip

        def backward(rank: int, team: Places) -> float:
            return passes.backpropagate_slope(
                net, data.X[batch], slope, objective, self.grads, self.workspace,
                noise=noise, step=net.steps, team=team,
            )  # fmt: skip

        def update(rank: int, team: Places) -> None:
            passes.update(net, self.grads, optimizer, learning_rates[taken])

        for start in range(0, len(rows), self.batch_size):
            batch = rows[start : start + self.batch_size]
            if factors:
                noise = noise._replace(dropout=self.noise.dropout * factors[0][taken])
                decay = self.optimizer.weight_decay * factors[1][taken]
                optimizer = optimizer._replace(weight_decay=decay)
            weights = None if data.weights is None else data.weights[batch]
            y = net.target_matrix(data.targets[batch])
            out = self.team.run(forward, team, ends)
            if team[TEAM_STOP]:
                break
            value, slope = net.architecture.call_loss(out, y, weights)
            objective = passes.shared_penalties(self.objective, weights)
            penalty = self.team.run(backward, team, ends)
            if team[TEAM_STOP]:
                break
            if not math.isfinite(value + penalty):
                return total, taken
            self.team.run(update, team)
            taken += 1
            total += (value + penalty) * (
                len(batch) if weights is None or objective.per_batch else float(weights.sum())
            )
        return total, taken

    def epoch(
        self,
        rows: NDArray[np.int64],
        rates: NDArray[np.float64],
        out_of_time: Callable[[], bool] = never,
    ) -> tuple[float, int]:
        """Take one step per batch of `rows`, in calls short enough for Ctrl-C and the clock.

        Returns
        -------
        loss : float
            Weighted mean over the rows that were used; not finite where training diverged.
        n_rows : int
            Rows that were used: 0 where time was over before the first step was done.

        Notes
        -----
        Steps that `progressed` counts already, from before a training was resumed, are not taken
        again.
        """
        if self.optimizer.ema:
            memory = self.net.optimizer_state
            memory.resume_from_average(self.net.params)
            start = memory.steps - memory.average_steps
            self.optimizer = self.optimizer._replace(ema_start=start)
        try:
            return self._epoch(rows, rates, out_of_time)
        finally:
            if self.optimizer.ema:
                memory = self.net.optimizer_state
                memory.average_steps = memory.steps - self.optimizer.ema_start

    def _epoch(
        self,
        rows: NDArray[np.int64],
        rates: NDArray[np.float64],
        out_of_time: Callable[[], bool],
    ) -> tuple[float, int]:
        done = self.progressed
        n_rows = len(rows) if self.feed is None else self.feed.n_rows
        if self.feed is None:
            self._take(rows[done.rows :], rates, n_rows, out_of_time)
        else:
            for window in self.feed.windows(done.epoch, done.rows, out_of_time):
                self.data = window.data
                if not self._take(window.order, rates, n_rows, out_of_time):
                    break
        if math.isnan(done.loss):
            return math.nan, done.rows
        if done.rows < n_rows:
            self._pause(True)
        return (done.loss / done.weight if done.weight else 0.0), done.rows

    def _take(
        self,
        rows: NDArray[np.int64],
        rates: NDArray[np.float64],
        n_rows: int,
        out_of_time: Callable[[], bool],
    ) -> bool:
        """Take the next steps of an epoch of `n_rows`, one per batch of `rows`.

        Return whether the epoch continues after them.
        """
        per_call, done = self._steps_of_a_call() * self.batch_size, self.progressed
        for start in range(0, len(rows), per_call):
            part, first = rows[start : start + per_call], done.rows // self.batch_size
            wanted = rates[..., first : first + -(-len(part) // self.batch_size)]
            loss, taken = self.run(part, wanted, None, out_of_time)
            if taken < wanted.shape[-1] and not self.stopped:
                done.loss = math.nan
                return False
            part = part[: taken * self.batch_size]
            done.loss += loss
            done.weight += len(part) if self.objective.per_batch else self.data.weight(part)
            done.rows += len(part)
            if self.stopped or (done.rows < n_rows and out_of_time()):
                return False
            if done.rows < n_rows:
                self._pause(False)
        return True

    def _pause(self, ends: bool) -> None:
        if self.pause is not None:
            if self.optimizer.ema:
                memory = self.net.optimizer_state
                memory.average_steps = memory.steps - self.optimizer.ema_start
            self.pause(ends)

    def _steps_of_a_call(self) -> int:
        in_python = self.net.loss_row is None or dispatch.core.name == "python"
        overhead = PYTHON_FLOPS if in_python else COMPILED_FLOPS
        return max(1, int(passes.CALL_FLOPS / (self.step_flops + overhead)))

    def epochs_of_a_call(self, n_rows: int) -> int:
        """How many epochs fit into one call of :meth:`epochs`."""
        if self.net.loss_row is None or self.optimizer.ema or self.feed is not None:
            return 1
        n_steps = -(-n_rows // self.batch_size)
        return max(1, min(self._steps_of_a_call() // n_steps, CALL_ROWS // n_rows))

    def epochs(
        self, orders: NDArray[np.int64], rates: NDArray[np.float64]
    ) -> NDArray[np.float64] | None:
        """Run several epochs in one call of the core; nothing else happens between them.

        Parameters
        ----------
        orders : (n_epochs, n) array
            The same rows, in the order of each epoch.
        rates : (n_epochs, n_steps) or (3, n_epochs, n_steps) array
            As of :meth:`run`.

        Returns
        -------
        losses : (n_epochs,) array, or None where training diverged in one of them
        """
        losses = np.empty(len(orders))
        rates = rates.reshape(*rates.shape[:-2], -1)
        _, taken = self.run(orders.ravel(), rates, losses)
        if taken < rates.shape[-1]:
            return None
        if self.objective.per_batch:
            weights = np.full(len(orders), float(orders.shape[1]))
        else:
            weights = np.array([self.data.weight(order) for order in orders])
        losses /= weights
        return losses
