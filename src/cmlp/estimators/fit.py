"""The fit of an estimator: split, stopping and curves by scikit-learn's rules.

The epochs are in ``_loop``, as those of a network. Counting is scikit-learn's: alpha is divided by
the batch's weight, training stops after more than ``n_iter_no_change`` epochs without an
improvement by ``tol``, and the best weights are restored if a validation score decides.
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from cmlp.core import formatting
from cmlp.core.errors import ConvergenceWarning, held_warnings, warn
from cmlp.core.errstate import callers_state
from cmlp.core.seam import Noise, Objective
from cmlp.core.vocabulary import SOLVERS
from cmlp.data.rows import Data, HeldOut
from cmlp.estimators.parameters import parameters_at_fault
from cmlp.estimators.protocols import scorer_named
from cmlp.model.architecture import Architecture
from cmlp.model.scoring import defines_r2, evaluate, metric_of
from cmlp.training.callbacks import TrainingState, call_back, check_callbacks
from cmlp.training.divergence import DivergenceError, diverged
from cmlp.training.loop import Loop
from cmlp.training.progress import in_short, live
from cmlp.training.recipe import Recipe
from cmlp.training.snapshot import Snapshot
from cmlp.training.stopping import Deadline
from cmlp.training.trainer import Trainer

if TYPE_CHECKING:
    pass

NOT_FINITE = (
    "Solver produced non-finite parameter weights. The input data may contain large values and "
    "need to be preprocessed."
)
"""What a user of scikit-learn knows; the cause follows."""


STOCHASTIC = tuple(row.name for row in SOLVERS)
"""Solvers that take a step per batch: all but 'lbfgs'."""


@dataclass(frozen=True)
class EstimatorRecipe(Recipe):
    """What a step does, with penalties and losses counted as scikit-learn counts them."""

    cost_scale: float = 1.0

    def objective(self, architecture: Architecture) -> Objective:
        return super().objective(architecture)._replace(per_batch=True, cost_scale=self.cost_scale)

    @parameters_at_fault()
    def noise(self, architecture: Architecture, seed: int) -> Noise:
        return super().noise(architecture, seed)


# Epochs ------------------------------------------------------------------------------------------


class StochasticFit:
    """One call of ``fit`` or ``partial_fit`` with a solver that takes steps: the loop's rules."""

    def __init__(
        self,
        estimator: Any,
        data: Data,
        rows: NDArray[np.int64],
        held_out: HeldOut | None,
        *,
        once: bool,
    ) -> None:
        self.est, self.net, self.data = estimator, estimator.network_, data
        self.order, self.held_out = rows.copy(), held_out  # each epoch shuffles them
        self.recipe: EstimatorRecipe = estimator._recipe()
        with parameters_at_fault():
            self.callbacks = check_callbacks(estimator.callbacks)
        self.batch_size = self._batch_size(len(rows))
        self.n_rows, self.n_steps = len(rows), -(-len(rows) // self.batch_size)
        self.once = once
        self.by_score = held_out is not None and (estimator.early_stopping or once)
        self.by_loss = held_out is not None and self._lacks_a_score(held_out)
        self.best = self.net.params.copy() if self.by_score and not once else None
        self.bar: Any = None
        epochs = 1 if once else estimator.max_iter
        self.state = TrainingState(self.net, self.net.history, 0, epochs)
        self.trainer = Trainer(
            self.net, data, self.recipe, self.batch_size, estimator._threads(),
            keeps_steps_whole=True,
        )  # fmt: skip

    def _lacks_a_score(self, held_out: HeldOut) -> bool:
        """Whether these rows are too few for R^2: the loss then decides in its place."""
        targets = held_out.of(held_out.data.targets)
        by_r2 = self.est.scoring is None and metric_of(self.net, targets) == "r2"
        return by_r2 and not defines_r2(targets)

    def _batch_size(self, n: int) -> int:
        if isinstance(self.est.batch_size, str):
            return min(200, n)
        if self.est.batch_size > n:
            warn(
                "Got `batch_size` less than 1 or larger than sample size. It is going to be clipped"
            )
        return min(int(self.est.batch_size), n)

    def run(self) -> None:
        """Train until it stops: by convergence, the number of epochs, time or a callback."""
        est = self.est
        est.n_iter_ = 0
        if est.verbose == 1 and not self.once:
            self.bar = live(est.max_iter)
        deadline = Deadline(est.max_time, est._is_halted)
        stopped = "error"
        try:
            stopped = Loop(self.trainer, self, self.state, self.callbacks, deadline).run()
            if stopped == "epochs" and not self.once:
                warn(
                    f"Stochastic Optimizer: Maximum iterations ({est.max_iter}) reached "
                    "and the optimization hasn't converged yet.",
                    ConvergenceWarning,
                )
        except DivergenceError:
            stopped = "diverged"
            raise
        finally:
            self._close_bar()
            self.trainer.close()
            found = self.best is not None and bool(est.best_iteration_)
            if found or (self.best is not None and stopped == "diverged"):
                self.net.params[:] = self.best  # not where every score was NaN
            history = self.net.history
            history.metric = self._metric()
            history.end(stopped, est.best_iteration_ or None, found)
        call_back(self.callbacks, "on_train_end", self.state)

    def _metric(self) -> str:
        """Return what val_score is: the name of the scorer, or 'accuracy' or 'r2'."""
        scoring = self.est.scoring
        if scoring is None:
            return metric_of(self.net, self.data.targets)
        return scoring if isinstance(scoring, str) else getattr(scoring, "__name__", "score")

    def _close_bar(self) -> None:
        if self.bar is not None:
            self.bar.close()
            self.bar = None

    def _say(self, text: str) -> None:
        """Print a line of scikit-learn's, where no bar shows the same."""
        if self.est.verbose and self.bar is None:
            print(text)

    def draw(self, order: NDArray[np.int64], rates: NDArray[np.float64]) -> None:
        est = self.est
        if est.shuffle:
            est._random_state.shuffle(self.order)
        order[:] = self.order
        rates[:] = est._optimizer.rates(self.n_steps, est.loss_curve_)

    def foreseen(self) -> float:
        est = self.est
        if self.held_out is not None or est.verbose or not est._optimizer.foreseeable:
            return 1
        return float(est.n_iter_no_change + 1 - est._no_improvement_count)

    def record(self, loss: float, n_rows: int, rate: float, seconds: float, finite: bool) -> None:
        est, began = self.est, time.perf_counter()
        est.n_iter_ += 1
        est.t_ += n_rows
        est.loss_ = loss
        est.loss_curve_.append(loss)
        self._say(f"Iteration {est.n_iter_}, loss = {formatting.number(loss, 8)}")
        values = {"epoch": len(est.loss_curve_) + 0.0, "loss": loss}
        values |= self._validate(finite)
        values["learning_rate"] = rate
        values["seconds"] = seconds + time.perf_counter() - began
        values["rows_per_second"] = n_rows / max(seconds, 1e-9)
        self.net.history.append(values)
        if self.bar is not None:
            self.bar.show(f"epoch {est.n_iter_}", in_short(values, "score"))
        self._count()
        est._optimizer.epoch_ends(est.t_)
        est.should_stop_ = not finite

    def _validate(self, finite: bool) -> dict[str, float]:
        """Loss and score on the rows that are held out."""
        est, held_out = self.est, self.held_out
        if held_out is None:
            return {}
        loss = score = math.nan
        if finite:
            loss, score, _ = evaluate(self.net, held_out.data, held_out.rows)
            loss *= self.recipe.cost_scale
            if est.scoring is not None:
                score = -loss if est.scoring == "loss" else self._scored(held_out)
        est.validation_loss_curve_.append(loss)
        est.validation_scores_.append(score)
        self._say(f"Validation score: {formatting.score(score, 6)}")
        return {"val_loss": loss, "val_score": score}

    def _scored(self, held_out: HeldOut) -> float:
        """Ask a scorer: a function of the estimator, X and y, or one of scikit-learn's."""
        scoring, weights = self.est.scoring, {}
        if isinstance(scoring, str):
            scoring = scorer_named(scoring)
            self._check_order_of_labels(scoring)
            if held_out.data.weights is not None:
                weights = {"sample_weight": held_out.of(held_out.data.weights)}
        with held_warnings() as said, callers_state():
            score = float(scoring(self.est, held_out.X, held_out.y, **weights))
        for message, kind in said:
            if not message.startswith("X does not have valid feature names"):
                warn(message, kind)
        return score

    def _check_order_of_labels(self, scorer: Any) -> None:
        """Refuse a scorer that would take the columns of probabilities for other classes'."""
        classes = getattr(self.est, "classes_", None)
        by_label = getattr(scorer, "_response_method", "predict") == "predict"
        if classes is None or by_label or np.array_equal(np.unique(classes), classes):
            return
        raise ValueError(
            f"scoring={self.est.scoring!r} takes probabilities in the sorted order of labels, but "
            f"classes_ is {classes.tolist()}: use scoring='loss' or 'accuracy', or assign classes_ "
            "after training"
        )

    def _count(self) -> None:
        """Count the epochs without an improvement, and remember the best."""
        est = self.est
        if self.by_score:
            scores = est.validation_scores_
            if self.by_loss:
                scores = [-est.validation_loss_curve_[-1]]
            score, best = scores[-1], est.best_validation_score_
            stalls, improves = score < best + est.tol, score > best
        else:
            score, best = est.loss_curve_[-1], est.best_loss_
            stalls, improves = score > best - est.tol, score < best
        est._no_improvement_count = est._no_improvement_count + 1 if stalls else 0
        if improves:
            est.best_iteration_ = len(est.loss_curve_)
            setattr(est, "best_validation_score_" if self.by_score else "best_loss_", score)
            if self.best is not None:
                np.copyto(self.best, self.net.params)

    def verdict(self) -> str:
        est = self.est
        stalled = self._stalls()
        est.should_stop_ = bool(stalled or self.state.stop)
        return ("patience" if self.by_score else "tol") if stalled else ""

    def _stalls(self) -> bool:
        est = self.est
        if not est._no_improvement_count > est.n_iter_no_change:
            return False
        what = "Validation score" if self.by_score else "Training loss"
        reason = est._optimizer.stops()
        if reason:
            self._close_bar()
        tol, rate = (formatting.number(x, 6) for x in (est.tol, est._optimizer.learning_rate))
        self._say(
            f"{what} did not improve more than tol={tol} for {est.n_iter_no_change} "
            f"consecutive epochs.{reason or f' Setting learning rate to {rate}'}"
        )
        if reason:
            return True
        est._no_improvement_count = 0
        return False

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
        sample = Data(self.data.X[:256], self.data.targets[:256], None)
        history = self.net.history
        try:
            cause = str(diverged(self.net, sample, self.recipe, history, safe))
        except ValueError as too_large:  # for the network's dtype
            safe.put_back()
            cause = str(too_large)
        error = DivergenceError(f"{NOT_FINITE} {cause[0].upper()}{cause[1:]}")
        error.history = history
        raise error

    def interrupted(self) -> None:
        warn("Training interrupted by user.")


def penalties(alpha: float, l1_ratio: float) -> dict[str, float]:
    """Divide alpha between L1 and L2."""
    return {"l1": alpha * l1_ratio, "l2": alpha * (1 - l1_ratio)}
