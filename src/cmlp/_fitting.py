"""The fit of an estimator: split, stopping and curves by scikit-learn's rules.

The epochs are in ``_loop``, as those of a network. Counting is scikit-learn's: alpha is divided by
the batch's weight, training stops after more than ``n_iter_no_change`` epochs without an
improvement by ``tol``, and the best weights are restored if a validation score decides.
"""

from __future__ import annotations

import dataclasses
import math
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from . import _numbers, _scoring, schedules
from ._divergence import diverged
from ._errstate import callers_state
from ._estimator_base import parameters_at_fault
from ._history import DivergenceError, TrainingState, call_back, check_callbacks
from ._lbfgs import Result, minimise_by_best
from ._loop import Deadline, Loop
from ._sklearn import (
    ConvergenceWarning,
    InvalidParameterError,
    held_warnings,
    scorer_named,
    warn,
)
from ._spec import SOLVERS, Noise, Objective
from ._steps import CALL_FLOPS, Data, Recipe, Snapshot, Trainer, flops_of
from ._team import TEAM_STOP, Places, Team, places
from ._terminal import in_short, live

if TYPE_CHECKING:
    from .network import Network

Array = NDArray[Any]

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

    def objective(self, net: Network) -> Objective:
        return super().objective(net)._replace(per_batch=True, cost_scale=self.cost_scale)

    @parameters_at_fault()
    def noise(self, net: Network, seed: int) -> Noise:
        return super().noise(net, seed)


class Pace:
    """The learning rate, from epoch to epoch.

    'invscaling' and 'adaptive' are scikit-learn's and belong to 'sgd' there; with 'adam' they
    leave the rate alone, as there. Everything else acts with every solver.
    """

    @parameters_at_fault()
    def __init__(self, estimator: Any) -> None:
        name, warmup = estimator.learning_rate, estimator.warmup_fraction
        self.learning_rate = self.initial = float(estimator.learning_rate_init)
        self.power_t, self.epochs = float(estimator.power_t), int(estimator.max_iter)
        self.rule = ""
        if isinstance(name, str) and name in ("constant", "invscaling", "adaptive"):
            self.rule = name if estimator.solver != "adam" else "constant"
            name = "constant"
        self.schedule = schedules.resolve(name)
        if warmup:
            self.schedule = dataclasses.replace(self.schedule, warmup_fraction=warmup)
        self.epoch = 0

    def rates(self, n_steps: int, losses: list[float]) -> NDArray[np.float64]:
        """Return the rate of each step of the next epoch."""
        base = self.learning_rate if self.rule else self.initial
        epoch = min(self.epoch, self.epochs - 1)
        rates = self.schedule.rates(base, epoch, self.epochs, n_steps, losses)
        if not self.rule:
            self.learning_rate = float(rates[-1])
        self.epoch += 1
        return rates

    @property
    def foreseeable(self) -> bool:
        """Whether the rates of the next epochs do not depend on how these go, short of a stall."""
        return self.rule in ("constant", "adaptive") or (
            not self.rule and self.schedule.foreseeable
        )

    def epoch_ends(self, n_rows: int) -> None:
        """Count the rows that were seen so far."""
        if self.rule == "invscaling":
            self.learning_rate = self.initial / (n_rows + 1) ** self.power_t

    def stops(self) -> str:
        """Answer a stall: why training stops, or nothing where it goes on with a smaller rate."""
        if self.rule != "adaptive":
            return " Stopping."
        if self.learning_rate <= 1e-6:
            return " Learning rate too small. Stopping."
        self.learning_rate /= 5.0
        return ""


@dataclass
class HeldOut:
    """Rows to validate on: for the core, and as a scorer wants them."""

    data: Data
    rows: NDArray[np.int64] | None
    X: Any
    y: Any

    def of(self, values: Array) -> Array:
        """Return the part of some values that belongs to these rows."""
        return values if self.rows is None else np.asarray(values[self.rows])


def split(
    targets: Array, fraction: float, stratify: bool, rng: np.random.RandomState
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Divide the rows into training and validation rows, by the draws that scikit-learn makes.

    With `stratify` the two classes in `targets` keep their proportions.
    """
    n = len(targets)
    n_val = math.ceil(n * fraction)
    if n_val < 2:
        raise ValueError(
            "The validation set is too small. Increase 'validation_fraction' or the size of your "
            "dataset."
        )
    if n_val >= n:
        raise ValueError(
            f"validation_fraction={fraction:g} of {n} rows leaves none to train on; lower it"
        )
    if not stratify:
        order = rng.permutation(n)
        return order[n_val:], order[:n_val]
    labels = targets.ravel()
    counts = np.bincount(labels)
    train_counts = _shares(counts, n - n_val, rng)
    val_counts = _shares(counts - train_counts, n_val, rng)
    by_class = np.split(np.argsort(labels, kind="stable"), np.cumsum(counts)[:-1])
    train, val = [], []
    for rows, n_train, n_held in zip(by_class, train_counts, val_counts, strict=True):
        rows = rows[rng.permutation(len(rows))]
        train.append(rows[:n_train])
        val.append(rows[n_train : n_train + n_held])
    return rng.permutation(np.concatenate(train)), rng.permutation(np.concatenate(val))


def _shares(counts: Array, n: int, rng: np.random.RandomState) -> NDArray[np.int64]:
    """Divide n rows between classes by their counts; ties for the last ones are drawn."""
    exact = counts / counts.sum() * n
    shares: NDArray[np.int64] = np.floor(exact).astype(np.int64)
    rest = exact - shares
    for size in np.unique(rest)[::-1]:
        left = n - int(shares.sum())
        if not left:
            break
        tied = np.flatnonzero(rest == size)
        shares[rng.choice(tied, min(left, len(tied)), replace=False)] += 1
    return shares


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
        by_r2 = self.est.scoring is None and _scoring.metric_of(self.net, targets) == "r2"
        return by_r2 and not _scoring.defines_r2(targets)

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
            return _scoring.metric_of(self.net, self.data.targets)
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
        self._say(f"Iteration {est.n_iter_}, loss = {_numbers.number(loss, 8)}")
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
            loss, score, _ = _scoring.evaluate(self.net, held_out.data, held_out.rows)
            loss *= self.recipe.cost_scale
            if est.scoring is not None:
                score = -loss if est.scoring == "loss" else self._scored(held_out)
        est.validation_loss_curve_.append(loss)
        est.validation_scores_.append(score)
        self._say(f"Validation score: {_numbers.score(score, 6)}")
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
        tol, rate = (_numbers.number(x, 6) for x in (est.tol, est._optimizer.learning_rate))
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


# L-BFGS ------------------------------------------------------------------------------------------


class _OutOfTime(Exception):
    """Time is over in the middle of a minimisation."""


class _Objective:
    """The loss of all rows as a function of one vector: every weight and bias, in float64."""

    def __init__(self, estimator: Any, data: Data, deadline: Deadline) -> None:
        net = estimator.network_
        self.net = net if net.dtype == np.float64 else net.astype("float64")
        self.data, self.recipe, self.deadline = data, estimator._recipe(), deadline
        self.parts = self._parts(self.net.params)
        self.start = np.concatenate([part.ravel() for part in self.parts])
        self.n_iter, self.best, self.least = 0, self.start, math.inf
        is_long = flops_of(self.net) * len(data.X) > CALL_FLOPS
        self.team = Team(1 if is_long else 0)

    def _parts(self, flat: Array) -> list[Array]:
        weights, biases = self.net._views(flat)
        return [*weights, *biases, *self.net._scale_views(flat)]

    def put(self, x: NDArray[np.float64]) -> None:
        """Write a vector into the network."""
        cuts = np.cumsum([part.size for part in self.parts])[:-1]
        for part, values in zip(self.parts, np.split(x, cuts), strict=True):
            part[...] = values.reshape(part.shape)

    def __call__(self, x: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        self.put(x)
        team = places()

        def backpropagate(rank: int, team: Places) -> tuple[float, Array]:
            loss, grads, *_ = self.net._backpropagate(self.data, self.recipe, team=team)
            return loss, grads

        loss, grads = self.team.run(backpropagate, team, self.deadline)
        if team[TEAM_STOP]:
            raise _OutOfTime
        if loss < self.least:
            self.least, self.best = loss, x.copy()
        if self.deadline():
            raise _OutOfTime
        return loss, np.concatenate([slope.ravel() for slope in self._parts(grads)])

    def count(self, x: object) -> None:
        """Count an iteration."""
        self.n_iter += 1


def fit_lbfgs(estimator: Any, data: Data) -> None:
    """Minimise the loss of all rows; in float64, whatever the network's dtype is.

    Ctrl-C and ``max_time`` end it with the best weights so far.
    """
    if tuple(estimator.callbacks):
        raise InvalidParameterError(
            "callbacks are called after an epoch, and solver='lbfgs' has none; use another solver"
        )
    net, stopped = estimator.network_, ""
    f = _Objective(estimator, data, Deadline(estimator.max_time, estimator._is_halted))
    try:
        found = minimise_by_best(
            f, f.start, estimator.tol, estimator.max_iter, estimator.max_fun, f.count
        )
        stopped = {0: "tol", 1: "epochs"}.get(found.status, "line_search")
    except (KeyboardInterrupt, _OutOfTime) as ended:
        stopped = f.deadline.reason or "interrupted"
        found = Result(f.best, f.least, f.n_iter, 0, "")
        if isinstance(ended, KeyboardInterrupt):
            warn("Training interrupted by user.")
    finally:
        f.team.close()
        if not stopped:
            f.put(f.start)
    if stopped not in ("interrupted", "max_time") and not (
        math.isfinite(found.value) and np.isfinite(found.x).all()
    ):
        f.put(f.start)
        error = DivergenceError(NOT_FINITE)
        error.history = net.history
        net.history.end("diverged", None, False)
        raise error
    f.put(found.x)
    if f.net is not net:
        for mine, theirs in zip([*net.weights, *net.biases, *net.scales], f.parts, strict=True):
            mine[...] = theirs
    estimator.loss_, estimator.n_iter_ = found.value, min(found.n_iter, estimator.max_iter)
    net.history.end(stopped, None, False)
    net.history.solver = "lbfgs"
    if found.status:
        warn(
            f"lbfgs failed to converge after {found.n_iter} iteration(s) "
            f"(status={found.status}):\n{found.message}\n\nIncrease the number of iterations "
            f"to improve the convergence (max_iter={estimator.max_iter}).\nYou might also want "
            "to scale the data.",
            ConvergenceWarning,
        )


def penalties(alpha: float, l1_ratio: float) -> dict[str, float]:
    """Divide alpha between L1 and L2."""
    return {"l1": alpha * l1_ratio, "l2": alpha * (1 - l1_ratio)}
