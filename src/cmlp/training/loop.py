"""The training loop, of networks and of estimators: epochs, until a rule ends them.

What differs between the two is passed as :class:`Rules`: the order of the rows, the learning
rates, what is recorded, and when there has been no progress for too long.
"""

from __future__ import annotations

import math
import time
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from cmlp.data.numbers import is_finite
from cmlp.training.callbacks import TrainingState, call_back
from cmlp.training.feed import Keeper, Progressed
from cmlp.training.snapshot import Snapshot
from cmlp.training.stopping import Deadline
from cmlp.training.trainer import Trainer


class Rules(Protocol):
    """What networks and estimators decide differently.

    Attributes
    ----------
    n_rows, n_steps : int
        Rows and steps of an epoch.
    n_rates : int
        Rates of a step: 1, the learning rate; or 3, with factors of dropout and weight decay.
    """

    n_rows: int
    n_steps: int
    n_rates: int

    def draw(self, order: NDArray[np.int64], rates: NDArray[np.float64]) -> None:
        """Write the next epoch's order of the rows, (n_rows,), and rates, (n_rates, n_steps)."""

    def foreseen(self) -> float:
        """Return how many epochs, at least, neither depend on each other nor may end training."""

    def record(self, loss: float, n_rows: int, rate: float, seconds: float, finite: bool) -> None:
        """Record an epoch: its loss, the rows it used, its last rate, the time it trained.

        The loss or the weights are not `finite` where :meth:`diverged` has returned.
        """

    def verdict(self) -> str:
        """Return why training ends with the recorded epoch; empty if it continues."""

    def diverged(self, safe: Snapshot) -> None:
        """Restore the last finite weights; raise an error, or return to end with this epoch."""

    def interrupted(self) -> None:
        """Warn that Ctrl-C has ended the training."""


class Loop:
    """Trains epoch after epoch; see :meth:`run`.

    Parameters
    ----------
    keeper : Keeper, optional
        What writes checkpoints.
    """

    def __init__(
        self,
        trainer: Trainer,
        rules: Rules,
        state: TrainingState,
        callbacks: tuple[Any, ...],
        deadline: Deadline,
        keeper: Keeper | None = None,
    ) -> None:
        self.trainer, self.rules, self.state = trainer, rules, state
        self.callbacks, self.deadline, self.keeper = callbacks, deadline, keeper

    def run(self) -> str:
        """Train, and return why training ended.

        Returns
        -------
        str
            'epochs', 'max_time', 'callback', 'interrupted', 'diverged', or the rules' verdict.

        Raises
        ------
        Exception
            Whatever a callback or :meth:`Rules.diverged` raises.
        """
        safe: Snapshot | None = None
        try:
            self.safe = safe = Snapshot(self.trainer.net)
            self._call_back("on_train_begin")
            reason = "callback" if self.state.stop else ""
            while not reason:
                reason = "epochs" if self.state.epoch >= self.state.epochs else self._epochs()
            return reason
        except KeyboardInterrupt:
            if safe is not None and not is_finite(self.trainer.net.params):
                safe.put_back()
            elif self.keeper is not None:
                self.keeper.save(now=True)
            self.rules.interrupted()
            return "interrupted"
        finally:
            if safe is not None:
                safe.close()

    def _epochs(self) -> str:
        """Train one epoch, or several in one call of the core; return why training ends."""
        rules, n = self.rules, self._ahead()
        began = time.perf_counter()
        if self.keeper is not None:
            self.keeper.mark()
        orders = np.empty((n, rules.n_rows if self.trainer.feed is None else 0), np.int64)
        rates = np.empty((rules.n_rates, n, rules.n_steps))
        for number, order in enumerate(orders):
            rules.draw(order, rates[:, number])
        if rules.n_rates == 1:
            rates = rates[0]
        learning_rates = rates if rates.ndim == 2 else rates[0]
        if n > 1:
            losses = self.trainer.epochs(orders, rates)
            if losses is not None and is_finite(self.trainer.net.params):
                self._remember(n)
                seconds = (time.perf_counter() - began) / n
                reasons = [
                    self._after(loss, rules.n_rows, float(rate[-1]), seconds)
                    for loss, rate in zip(losses.tolist(), learning_rates, strict=True)
                ]
                return reasons[-1]
            self.safe.put_back()  # one by one, to find the epoch that diverged
        for number, order in enumerate(orders):
            reason = self._epoch(order, rates[..., number, :])
            if reason:
                return reason
        return ""

    def _epoch(self, order: NDArray[np.int64], rates: NDArray[np.float64]) -> str:
        began = time.perf_counter()
        trainer, net = self.trainer, self.trainer.net
        if trainer.progressed.epoch < self.state.epoch:
            trainer.progressed = Progressed(self.state.epoch, first_step=net.steps)
        began -= trainer.progressed.seconds
        loss, n_rows = trainer.epoch(order, rates, self.deadline)
        seconds = time.perf_counter() - began
        if not n_rows and not math.isnan(loss):
            return self.deadline.reason  # before the first step was done: there is no epoch
        finite = math.isfinite(loss) and is_finite(net.params)
        if finite:
            self._remember(1)
            net.optimizer_state.show_average(net.params)
        else:
            self.rules.diverged(self.safe)
        return self._after(loss, n_rows, float(rates.flat[rates.shape[-1] - 1]), seconds, finite)

    def _remember(self, n: int) -> None:
        """Return to the weights after these n epochs, should a later one diverge."""
        if self.callbacks or self.state.epoch + n < self.state.epochs:  # else there is no later one
            self.safe.take()

    def _ahead(self) -> int:
        """Return how many epochs can run in one call of the core.

        No callback, deadline or stopping rule may come between them. An epoch of a small table
        takes less time than Python needs around it.
        """
        if self.callbacks or self.deadline.is_set or self.keeper is not None:
            return 1
        in_a_call = self.trainer.epochs_of_a_call(self.rules.n_rows)
        left = self.state.epochs - self.state.epoch
        return int(max(1, min(in_a_call, left, self.rules.foreseen())))

    def _after(
        self, loss: float, n_rows: int, rate: float, seconds: float, finite: bool = True
    ) -> str:
        """Record an epoch, call the callbacks, and return why training ends."""
        self.state.epoch += 1
        self.rules.record(loss, n_rows, rate, seconds, finite)
        self._call_back("on_epoch_end")
        verdict = self.rules.verdict() if finite else "diverged"
        reason = "callback" if self.state.stop and finite else verdict or self.deadline.reason
        if self.keeper is not None and finite and n_rows == self.rules.n_rows:
            self.keeper.save(now=bool(reason) and not verdict and reason != "callback")
        return reason

    def _call_back(self, event: str) -> None:
        """Call the callbacks, which may train the network, but not with another optimizer."""
        state = self.trainer.net.optimizer_state
        before = state.solver, len(state.moments)
        call_back(self.callbacks, event, self.state)
        state = self.trainer.net.optimizer_state
        if (state.solver, len(state.moments)) != before:
            raise RuntimeError(
                f"a callback has trained this network with solver={state.solver!r}, which took the "
                f"place of the state of {before[0]!r}: train a copy (copy.deepcopy(net))"
            )
