"""The fit of an estimator: epochs, stopping and curves by scikit-learn's rules.

:mod:`cmlp.training` has the plain loop of a network; this one counts as scikit-learn does: alpha is
divided by the batch's weight, training stops after more than ``n_iter_no_change`` epochs without
an improvement by ``tol``, and the best weights come back if a validation score decides.
"""

from __future__ import annotations

import dataclasses
import math
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from . import _scoring, schedules, training
from ._errstate import callers_state
from ._estimator_base import parameters_at_fault
from ._lbfgs import minimise_by_best
from ._sklearn import ConvergenceWarning, held_warnings, scorer_named, warn
from ._spec import SOLVERS, Noise, Objective
from ._steps import Data, Recipe, Snapshot, Trainer, show_average
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
        return self.rule in ("constant", "adaptive")

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


class Loop:
    """One call of ``fit`` or ``partial_fit`` with a solver that takes steps."""

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
            self.callbacks = training.check_callbacks(estimator.callbacks)
        self.batch_size = self._batch_size(len(rows))
        self.n_steps = -(-len(rows) // self.batch_size)
        self.once = once
        self.by_score = held_out is not None and (estimator.early_stopping or once)
        self.by_loss = held_out is not None and self._lacks_a_score(held_out)
        self.trainer = Trainer(self.net, data, self.recipe, self.batch_size, estimator._threads())
        self.safe = Snapshot(self.net)
        self.best = self.net.params.copy() if self.by_score and not once else None
        self.start = time.perf_counter()
        self.bar: Any = None
        self.state = training.TrainingState(self.net, self.net.history, 0, estimator.max_iter)

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
        try:
            training._call(self.callbacks, "on_train_begin", self.state)
            while self.epochs() and not self.once:
                if est.n_iter_ == est.max_iter:
                    warn(
                        f"Stochastic Optimizer: Maximum iterations ({est.max_iter}) reached "
                        "and the optimization hasn't converged yet.",
                        ConvergenceWarning,
                    )
                    break
        except KeyboardInterrupt:
            if not training._all_finite(self.net.params):
                self.safe.put_back()
            warn("Training interrupted by user.")
        finally:
            self._close_bar()
            self.trainer.close()
            self.net.history.restored = self.best is not None
            if self.best is not None:
                self.net.params[:] = self.best
        training._call(self.callbacks, "on_train_end", self.state)

    def _close_bar(self) -> None:
        if self.bar is not None:
            self.bar.close()
            self.bar = None

    def _say(self, text: str) -> None:
        """Print a line of scikit-learn's, where no bar shows the same."""
        if self.est.verbose and self.bar is None:
            print(text)

    def epochs(self) -> bool:
        """Train one epoch, or several that nobody looks at; False where training ends."""
        est, began, n = self.est, time.perf_counter(), self._unwatched()
        orders = np.empty((n, len(self.order)), np.int64)
        rates = np.empty((n, self.n_steps))
        for order, rate in zip(orders, rates, strict=True):
            if est.shuffle:
                est._random_state.shuffle(self.order)
            order[:] = self.order
            rate[:] = est._optimizer.rates(self.n_steps, est.loss_curve_)
        if n > 1:
            losses = self.trainer.epochs(orders, rates)
            if losses is not None and training._all_finite(self.net.params):
                self.safe.take()
                seconds = (time.perf_counter() - began) / n
                return all(
                    [
                        self._goes_on(loss, orders.shape[1], rate, seconds)
                        for loss, rate in zip(losses.tolist(), rates, strict=True)
                    ]
                )
            self.safe.put_back()  # and find out in which epoch, one by one
        for order, rate in zip(orders, rates, strict=True):
            loss, n_rows = self.trainer.epoch(order, rate, self._out_of_time)
            finite = math.isfinite(loss) and training._all_finite(self.net.params)
            if finite:
                self.safe.take()
                show_average(self.net)
            else:
                self._diverges()
            seconds = time.perf_counter() - began
            if not self._goes_on(loss, n_rows, rate, seconds, finite=finite):
                return False
            began = time.perf_counter()
        return True

    def _unwatched(self) -> int:
        """Return how many epochs can be trained before anybody may look, or training may end.

        One call of the core then takes them all: a small table's epoch is over in less time than
        Python needs around it, and than another thread may keep Python busy.
        """
        est = self.est
        if (
            self.once
            or self.held_out is not None
            or self.callbacks
            or est.verbose
            or est.max_time is not None
            or not est._optimizer.foreseeable
        ):
            return 1
        until_a_stall = est.n_iter_no_change + 1 - est._no_improvement_count
        in_a_call = self.trainer.epochs_of_a_call(len(self.order))
        return max(1, int(min(est.max_iter - est.n_iter_, until_a_stall, in_a_call)))

    def _goes_on(
        self, loss: float, n_rows: int, rates: Array, trained: float, finite: bool = True
    ) -> bool:
        """Note down what an epoch gave; False where training ends with it."""
        est, began = self.est, time.perf_counter()
        est.n_iter_ += 1
        est.t_ += n_rows
        est.loss_ = loss
        est.loss_curve_.append(loss)
        self._say(f"Iteration {est.n_iter_}, loss = {loss:.8f}")
        values = {"epoch": len(est.loss_curve_) + 0.0, "loss": loss}
        values |= self._validate(finite)
        values["learning_rate"] = float(rates[-1])
        values["seconds"] = trained + time.perf_counter() - began
        values["rows_per_second"] = n_rows / max(trained, 1e-9)
        self.net.history.append(values)
        if self.bar is not None:
            self.bar.show(f"epoch {est.n_iter_}", in_short(values, "score"))
        self._count()
        est._optimizer.epoch_ends(est.t_)
        self.state.epoch += 1
        training._call(self.callbacks, "on_epoch_end", self.state)
        est.should_stop_ = not finite or self._stalls() or self.state.stop
        return not (est.should_stop_ or self._out_of_time())

    def _out_of_time(self) -> bool:
        halt, limit = self.est._halt, self.est.max_time
        if halt is not None and halt.is_set():
            return True
        return limit is not None and time.perf_counter() - self.start >= limit

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
        self._say(f"Validation score: {score:f}")
        return {"val_loss": loss, "val_score": score}

    def _scored(self, held_out: HeldOut) -> float:
        """Ask a scorer: a function of the estimator, X and y, or one of scikit-learn's."""
        scoring, weights = self.est.scoring, {}
        if isinstance(scoring, str):
            scoring = scorer_named(scoring)
            if held_out.data.weights is not None:
                weights = {"sample_weight": held_out.of(held_out.data.weights)}
        with held_warnings() as said, callers_state():
            score = float(scoring(self.est, held_out.X, held_out.y, **weights))
        for message, kind in said:
            if not message.startswith("X does not have valid feature names"):
                warn(message, kind)
        return score

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

    def _stalls(self) -> bool:
        est = self.est
        if not est._no_improvement_count > est.n_iter_no_change:
            return False
        what = "Validation score" if self.by_score else "Training loss"
        reason = est._optimizer.stops()
        if reason:
            self._close_bar()
        self._say(
            f"{what} did not improve more than tol={est.tol:f} for {est.n_iter_no_change} "
            "consecutive epochs."
            + (reason or f" Setting learning rate to {est._optimizer.learning_rate:f}")
        )
        if reason:
            return True
        est._no_improvement_count = 0
        return False

    def _diverges(self) -> None:
        """Put the last finite weights back, and say what happened.

        It is an error, unless there are the best weights by a validation score to return to.
        """
        if self.best is not None:
            self.safe.put_back()
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
            cause = str(training._diverged(self.net, sample, self.recipe, history, self.safe))
        except ValueError as too_large:  # for the network's dtype
            self.safe.put_back()
            cause = str(too_large)
        error = training.DivergenceError(f"{NOT_FINITE} {cause[0].upper()}{cause[1:]}")
        error.history = history
        raise error


# L-BFGS ------------------------------------------------------------------------------------------


def fit_lbfgs(estimator: Any, data: Data) -> None:
    """Minimise the loss of all rows; in float64, whatever the network's dtype is."""
    net = estimator.network_
    work = net if net.dtype == np.float64 else net.astype("float64")
    recipe = estimator._recipe()
    parts = [*work.weights, *work.biases, *work.scales]
    cuts = np.cumsum([part.size for part in parts])[:-1]

    def put(x: NDArray[np.float64]) -> None:
        for part, values in zip(parts, np.split(x, cuts), strict=True):
            part[...] = values.reshape(part.shape)

    def value_and_gradient(x: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        if estimator._halt is not None and estimator._halt.is_set():
            raise KeyboardInterrupt
        put(x)
        loss, grads, *_ = work._backpropagate(data, recipe)
        weights, biases = work._views(grads)
        slopes = [*weights, *biases, *work._scale_views(grads)]
        return loss, np.concatenate([slope.ravel() for slope in slopes])

    start = np.concatenate([part.ravel() for part in parts])
    found = minimise_by_best(
        value_and_gradient, start, estimator.tol, estimator.max_iter, estimator.max_fun
    )
    if not (math.isfinite(found.value) and np.isfinite(found.x).all()):
        put(start)
        error = training.DivergenceError(NOT_FINITE)
        error.history = net.history
        raise error
    put(found.x)
    for mine, theirs in zip([*net.weights, *net.biases, *net.scales], parts, strict=True):
        mine[...] = theirs
    estimator.loss_, estimator.n_iter_ = found.value, min(found.n_iter, estimator.max_iter)
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
