"""The fit of an estimator: split, stopping and curves by scikit-learn's rules.

The epochs are in ``training.loop``, as those of a network. Counting is scikit-learn's: alpha is
divided by the batch's weight, training stops after more than ``n_iter_no_change`` epochs without an
improvement by ``tol``, and the best weights are restored if a validation score decides.
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cmlp.core import formatting
from cmlp.core.errors import ConvergenceWarning, warn
from cmlp.core.layout import Array
from cmlp.core.seam import Noise, Objective
from cmlp.data.checks import check_X
from cmlp.data.records import NUMBER, entries
from cmlp.data.rows import Data, HeldOut
from cmlp.estimators.curves import BEST, HELD_OUT, Curves
from cmlp.estimators.parameters import STOCHASTIC, parameters_at_fault
from cmlp.estimators.targets import Task
from cmlp.estimators.validation import Validation, name_of_score
from cmlp.model.architecture import Architecture
from cmlp.model.state import State
from cmlp.training.callbacks import TrainingState, call_back, check_callbacks
from cmlp.training.divergence import DivergenceError, diverged
from cmlp.training.feed import Feed, Keeper
from cmlp.training.fit import Resumed
from cmlp.training.loop import Loop
from cmlp.training.progress import in_short, live
from cmlp.training.rates import RULES, LearningRate
from cmlp.training.recipe import Recipe
from cmlp.training.snapshot import Snapshot
from cmlp.training.stopping import Deadline
from cmlp.training.trainer import Trainer

CURVES = (
    "loss_curve_", "loss_", "n_iter_", "t_", "_no_improvement_count", *BEST, *HELD_OUT,
)  # fmt: skip
"""Attributes of an estimator that a training writes, and a checkpoint keeps."""

ANY = (int, float, list, type(None))

NOT_FINITE = (
    "Solver produced non-finite parameter weights. The input data may contain large values and "
    "need to be preprocessed."
)
"""scikit-learn's message; the cause follows it."""


# Parameters to objects ---------------------------------------------------------------------------


@dataclass(frozen=True)
class EstimatorRecipe(Recipe):
    """What a step does, with penalties and losses counted as scikit-learn counts them."""

    cost_scale: float = 1.0

    def objective(self, architecture: Architecture) -> Objective:
        return super().objective(architecture)._replace(per_batch=True, cost_scale=self.cost_scale)

    @parameters_at_fault()
    def noise(self, architecture: Architecture, seed: int) -> Noise:
        return super().noise(architecture, seed)


@parameters_at_fault()
def recipe_of(estimator: Any, net: State) -> EstimatorRecipe:
    """Return what a step does, by the parameters of an estimator."""
    mean_over_outputs = net.loss_name not in (
        "poisson", "binary_crossentropy", "categorical_crossentropy", "custom",
    )  # fmt: skip
    return EstimatorRecipe(
        solver=estimator.solver if estimator.solver in STOCHASTIC else "sgd",
        learning_rate=estimator.learning_rate_init,
        momentum=estimator.momentum,
        nesterov=estimator.nesterovs_momentum,
        beta_1=estimator.beta_1,
        beta_2=estimator.beta_2,
        epsilon=estimator.epsilon,
        **penalties(estimator.alpha, estimator.l1_ratio),
        weight_decay=estimator.weight_decay,
        dropout=estimator.dropout,
        input_noise=estimator.input_noise,
        label_smoothing=getattr(estimator, "label_smoothing", 0.0),
        clip_norm=estimator.clip_norm,
        ema=estimator.ema,
        cost_scale=1 / net.sizes[-1] if mean_over_outputs else 1.0,
    )


def penalties(alpha: float, l1_ratio: float) -> dict[str, Any]:
    """Divide alpha between L1 and L2."""
    return {"l1": alpha * l1_ratio, "l2": alpha * (1 - l1_ratio)}


@parameters_at_fault()
def learning_rate_of(estimator: Any) -> LearningRate:
    """Return the learning rate by the parameters of an estimator.

    'invscaling' and 'adaptive' belong to 'sgd' in scikit-learn; with 'adam' they leave the rate
    alone, as there. Everything else acts with every solver.
    """
    rule = estimator.learning_rate
    if estimator.solver == "adam" and isinstance(rule, str) and rule in RULES:
        rule = "constant"
    return LearningRate(
        rule, estimator.learning_rate_init, estimator.max_iter,
        power_t=estimator.power_t, warmup_fraction=estimator.warmup_fraction,
    )  # fmt: skip


def threads_of(estimator: Any) -> int | None:
    """Return how many threads may be used; None for as many as there are."""
    n = estimator.n_jobs if estimator.n_threads is None else estimator.n_threads
    return None if n in (None, -1) else int(n)


def batch_size_of(estimator: Any, n: int) -> int:
    """Return how many of n rows a step takes."""
    if isinstance(estimator.batch_size, str):
        return min(200, n)
    if estimator.batch_size > n:
        warn("Got `batch_size` less than 1 or larger than sample size. It is going to be clipped")
    return min(int(estimator.batch_size), n)


# Epochs ------------------------------------------------------------------------------------------


class StochasticFit:
    """One call of ``fit`` or ``partial_fit`` with a solver that takes steps: the loop's rules.

    Parameters
    ----------
    rows : ndarray of int64
        The numbers of the rows to train on.
    feed : Feed or None
        What yields the rows in windows instead.

    Attributes
    ----------
    checkpoints : Checkpoint or None
        What writes checkpoints, and continues from one.
    start : dict
        State of the random generator before the first draw.
    """

    n_rates = 1
    checkpoints: Resumed | None = None
    start: dict[str, Any]

    def __init__(
        self,
        estimator: Any,
        net: State,
        task: Task,
        rate: LearningRate,
        random: np.random.RandomState,
        rows: NDArray[np.int64],
        held_out: HeldOut | None,
        feed: Feed | None = None,
    ) -> None:
        self.est, self.net, self.task, self.data = estimator, net, task, task.data
        self.rate, self.random, self.feed = rate, random, feed
        self.order = rows.copy()  # each epoch shuffles them
        self.recipe = recipe_of(estimator, net)
        with parameters_at_fault():
            self.callbacks = check_callbacks(estimator.callbacks)
        self.n_rows = len(rows) if feed is None else feed.n_rows
        self.batch_size = batch_size_of(estimator, self.n_rows)
        self.n_steps = -(-self.n_rows // self.batch_size)
        self.validation: Validation | None = None
        if held_out is not None:
            self.validation = Validation(estimator, net, held_out, self.recipe.cost_scale)
        self.by_score = held_out is not None and (estimator.early_stopping or task.once)
        self.by_loss = self.validation is not None and self.validation.lacks_score
        self.best = net.params.copy() if self.by_score and not task.once else None
        self.bar: Any = None
        epochs = 1 if task.once else estimator.max_iter
        self.state = TrainingState(net, net.history, 0, epochs)
        self.trainer = Trainer(
            net, feed or self.data, self.recipe, self.batch_size, threads_of(estimator),
            keeps_steps_whole=True,
        )  # fmt: skip

    def run(self, ended: bool = False) -> None:
        """Train until it stops: by convergence, the number of epochs, time or a callback.

        Parameters
        ----------
        ended : bool
            Whether it had stopped before, and only its record is restored.
        """
        self.begin()
        keeper = None
        if self.checkpoints is not None:
            keeper = self.checkpoints.begin(self.trainer, self.state, self)
        if ended:
            self.trainer.close()
            return
        if self.est.verbose == 1 and not self.task.once:
            self.bar = live(self.est.max_iter)
        stopped = self.continue_alone(keeper)
        if self.checkpoints is not None:
            self.checkpoints.end(stopped)
        call_back(self.callbacks, "on_train_end", self.state)

    def begin(self) -> None:
        """Begin the curves, or continue those of earlier calls."""
        self.curves = Curves(
            self.est, validates=self.validation is not None, by_score=self.by_score
        )

    def continue_alone(self, keeper: Keeper | None = None) -> str:
        """Train the epochs that are left, and return why training ended."""
        deadline = Deadline(self.est.max_time, self.task.halted)
        stopped = "error"
        try:
            loop = Loop(self.trainer, self, self.state, self.callbacks, deadline, keeper)
            stopped = loop.run()
        except DivergenceError:
            stopped = "diverged"
            raise
        finally:
            self.end(stopped)
        return stopped

    def end(self, stopped: str) -> None:
        """Restore the best weights, and record how the training has ended."""
        self._close_bar()
        self.trainer.close()
        found = self.best is not None and bool(self.est.best_iteration_)
        if found or (self.best is not None and stopped == "diverged"):
            self.net.params[:] = self.best  # not where every score was NaN
        history = self.net.history
        history.metric = name_of_score(self.est.scoring, self.net, self.data.targets)
        history.end(stopped, self.est.best_iteration_ or None, found)
        if stopped == "epochs" and not self.task.once:
            warn(
                f"Stochastic Optimizer: Maximum iterations ({self.est.max_iter}) reached "
                "and the optimization hasn't converged yet.",
                ConvergenceWarning,
            )

    def _close_bar(self) -> None:
        if self.bar is not None:
            self.bar.close()
            self.bar = None

    def _print(self, text: str) -> None:
        """Print a line of scikit-learn's, where no bar shows the same."""
        if self.est.verbose and self.bar is None:
            print(text)

    # The rules; see `training.loop.Rules`

    def draw(self, order: NDArray[np.int64], rates: NDArray[np.float64]) -> None:
        if self.feed is None:
            if self.est.shuffle:
                self.random.shuffle(self.order)
            order[:] = self.order
        rates[0] = self.rate.rates(self.n_steps, self.est.loss_curve_)

    def foreseen(self) -> float:
        if self.validation is not None or self.est.verbose or not self.rate.foreseeable:
            return 1
        return self.curves.stopping.epochs_left

    def record(self, loss: float, n_rows: int, rate: float, seconds: float, finite: bool) -> None:
        est, began = self.est, time.perf_counter()
        self.curves.add_loss(loss, n_rows)
        self._print(f"Iteration {est.n_iter_}, loss = {formatting.number(loss, 8)}")
        values = {"epoch": len(est.loss_curve_) + 0.0, "loss": loss}
        deciding = loss
        if self.validation is not None:
            val_loss, score = self.validation.evaluate() if finite else (math.nan, math.nan)
            self.curves.add_validation(val_loss, score)
            self._print(f"Validation score: {formatting.score(score, 6)}")
            values |= {"val_loss": val_loss, "val_score": score}
            if self.by_score:
                deciding = -val_loss if self.by_loss else score
        values["learning_rate"] = rate
        values["seconds"] = seconds + time.perf_counter() - began
        values["rows_per_second"] = n_rows / max(seconds, 1e-9)
        if self.feed is not None:
            values["waited"] = self.feed.waited()
        self.net.history.append(values)
        if self.bar is not None:
            self.bar.show(f"epoch {est.n_iter_}", in_short(values, "score"))
        if self.curves.see(deciding) and self.best is not None:
            np.copyto(self.best, self.net.params)
        self.rate.end_epoch(est.t_)
        est.should_stop_ = not finite

    def verdict(self) -> str:
        stalled = self.curves.stopping.stalled and self._ends_at_stall()
        self.est.should_stop_ = bool(stalled or self.state.stop)
        return ("patience" if self.by_score else "tol") if stalled else ""

    def _ends_at_stall(self) -> bool:
        """Whether too many epochs without an improvement end the training."""
        est = self.est
        what = "Validation score" if self.by_score else "Training loss"
        reason = self.rate.end_at_stall()
        if reason:
            self._close_bar()
        tol, rate = (formatting.number(x, 6) for x in (est.tol, self.rate.learning_rate))
        self._print(
            f"{what} did not improve more than tol={tol} for {est.n_iter_no_change} "
            f"consecutive epochs. {reason or f'Setting learning rate to {rate}'}"
        )
        if not reason:
            self.curves.forgive_stall()
        return bool(reason)

    def diverged(self, safe: Snapshot) -> None:
        """Restore the last finite weights and raise, unless there are the best ones to restore."""
        if self.best is not None:
            safe.put_back()
            warn(
                f"training diverged in epoch {self.est.n_iter_ + 1}; the weights with the best "
                "validation score are kept. Usual causes: the learning rate is too high (it "
                f"was {self.recipe.learning_rate:g}), X or y is not scaled.",
                ConvergenceWarning,
            )
            return
        data = self.data if self.feed is None else self.feed.latest
        sample = Data(data.X[:256], data.targets[:256], None)
        history = self.net.history
        try:
            check_X(sample.X, self.net.sizes[0], self.net.dtype)
            cause = str(diverged(self.net, sample, self.recipe, history, safe))
        except ValueError as too_large:  # for the network's dtype
            safe.put_back()
            cause = str(too_large)
        error = DivergenceError(f"{NOT_FINITE} {cause[0].upper()}{cause[1:]}")
        error.history = history
        raise error

    def interrupted(self) -> None:
        warn("Training interrupted by user.")

    # What a checkpoint keeps of it; see `training.fit.Resumed`

    def kept(self) -> tuple[dict[str, Any], Array | None]:
        """Return what is known of earlier epochs, as JSON holds it, and the best parameters."""
        curves = {name: getattr(self.est, name, None) for name in CURVES}
        rate = {"learning_rate": self.rate.learning_rate, "epoch": self.rate.epoch}
        stopping = self.curves.stopping
        return {
            "curves": curves, "rate": rate, "random": self.start,
            "stopping": {"best": stopping.best, "count": stopping.count},
        }, self.best  # fmt: skip

    def restore(self, record: dict[str, Any], best: Array | None, epochs: int) -> None:
        """Restore what :meth:`kept` returned, after some epochs."""
        curves = entries(record.get("curves"), "the curves", dict.fromkeys(CURVES, ANY), {})
        rate = entries(record.get("rate"), "the rate", {"learning_rate": NUMBER, "epoch": (int,)},
                       {})  # fmt: skip
        stopping = entries(record.get("stopping"), "stopping", {"best": NUMBER, "count": (int,)},
                           {})  # fmt: skip
        vars(self.est).update(curves)
        self.rate.learning_rate, self.rate.epoch = rate["learning_rate"], rate["epoch"]
        self.curves.stopping.best, self.curves.stopping.count = stopping["best"], stopping["count"]
        if self.best is not None and best is not None:
            self.best = best
        if self.feed is None and self.est.shuffle:
            for _ in range(epochs):
                self.random.shuffle(self.order)
