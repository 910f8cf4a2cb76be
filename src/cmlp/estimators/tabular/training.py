"""The training of one network of a tabular estimator: the loop's rules, and its best epoch."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cmlp.core import dispatch
from cmlp.core.errors import ConvergenceWarning, warn
from cmlp.core.layout import Array
from cmlp.data.records import NUMBER, entries
from cmlp.data.rows import Data, HeldOut
from cmlp.estimators.parameters import parameters_at_fault
from cmlp.estimators.tabular.network import recipe_of
from cmlp.estimators.tabular.presets import Preset
from cmlp.estimators.tabular.temperature import divide_by_temperature, log_loss_at_best
from cmlp.model.history import History
from cmlp.model.scoring import evaluate, metric_of
from cmlp.network import Network
from cmlp.schedules import resolve
from cmlp.training.callbacks import TrainingState, call_back, check_callbacks
from cmlp.training.divergence import DivergenceError, diverged
from cmlp.training.feed import Feed
from cmlp.training.fit import Resumed
from cmlp.training.loop import Loop
from cmlp.training.progress import Progress
from cmlp.training.snapshot import Snapshot
from cmlp.training.stopping import Deadline
from cmlp.training.trainer import Trainer

Scorer = Callable[[Network, HeldOut], float]
"""Scores a network on held-out rows; the larger, the better."""


@dataclass(frozen=True)
class Job:
    """One network to train: its rows, and what ends its training.

    Attributes
    ----------
    data : Data
        Encoded rows; or a feed, which yields windows of those to train on.
    rows : ndarray of int64
        Those to train on.
    held_out : HeldOut or None
        Those to validate on.
    scoring : str or callable
        'loss', 'accuracy', 'r2' or a :data:`Scorer`.
    name : str
        Of the score.
    deadline : Deadline
    checkpoint : Resumed or None
        What writes checkpoints, and continues from one.
    start : dict
        State of the estimator's random generator before the first draw, which a checkpoint keeps.
    ended : str
        How the training that is continued had ended, if nothing is left of it.
    """

    net: Network
    data: Data | Feed
    rows: NDArray[np.int64]
    held_out: HeldOut | None
    preset: Preset
    scoring: str | Scorer
    name: str
    deadline: Deadline
    callbacks: tuple[Any, ...]
    n_threads: int | None
    verbose: int
    checkpoint: Resumed | None = None
    start: dict[str, Any] = field(default_factory=dict)
    ended: str = ""

    def validate(self) -> tuple[float, float]:
        """Return the loss on the held-out rows, and the score."""
        assert self.held_out is not None
        loss, score, _ = validate(self.net, self.held_out)
        if callable(self.scoring):
            return loss, self.scoring(self.net, self.held_out)
        return loss, -loss if self.scoring == "loss" else score


EQUAL_SHARES = 1e-6
"""Accuracies that differ by less are equal: by the rounding of weights, or by those near zero."""


class Best:
    """The epoch with the best score, the latest of equals, and its weights."""

    def __init__(self, job: Job) -> None:
        self.tie = EQUAL_SHARES if job.scoring == "accuracy" else 0.0
        self.patience, self.factor = job.preset.n_iter_no_change, job.preset.stop_factor
        self.score, self.epoch = -math.inf, 0
        self.params: Array | None = None

    def see(self, score: float, epoch: int, params: Array) -> None:
        """Compare the score of an epoch; NaN is never the best."""
        if not score >= self.score - self.tie:
            return
        self.score, self.epoch = max(score, self.score), epoch
        if self.params is None:
            self.params = params.copy()
        else:
            np.copyto(self.params, params)

    def stalled(self, epoch: int) -> bool:
        """Whether the best epoch lies too far back."""
        return epoch > self.factor * self.epoch + self.patience


class MemberRules:
    """How a member draws, records and stops; see :class:`cmlp.training.loop.Rules`."""

    n_rates = 1

    def __init__(self, job: Job, state: TrainingState, batch_size: int) -> None:
        self.job, self.net, self.state = job, job.net, state
        whole = len(job.rows) // batch_size
        self.n_steps = whole  # a short last batch has the noisiest gradient: it is left out
        self.n_rows = whole * batch_size
        if not isinstance(job.data, Data):  # of so many rows it matters no more
            self.n_rows = job.data.n_rows
            self.n_steps = -(-self.n_rows // batch_size)
        self.recipe = recipe_of(job.preset)
        with parameters_at_fault():
            self.schedule = resolve(job.preset.learning_rate)
        self.best = Best(job)
        self.progress = Progress(job.verbose, state.epochs, job.name, dispatch.core.name)
        self.drawn = 0

    def draw(self, order: NDArray[np.int64], rates: NDArray[np.float64]) -> None:
        rates[0] = self.schedule.rates(
            self.recipe.learning_rate, self.drawn, self.state.epochs, self.n_steps,
            self.net.history.get("loss", []),
        )  # fmt: skip
        if isinstance(self.job.data, Data):
            order[:] = self.net.rng.permutation(self.job.rows)[: self.n_rows]
        self.drawn += 1

    def foreseen(self) -> float:
        alone = self.job.held_out is None and not self.job.verbose and self.schedule.foreseeable
        return math.inf if alone else 1

    def record(
        self, loss: float, n_rows: int, rate: float, seconds: float, finite: bool = True
    ) -> None:
        began = time.perf_counter()
        values = {"epoch": self.net.history.epochs + 1.0, "loss": loss}
        if self.job.held_out is not None:
            val_loss, score = self.job.validate() if finite else (math.nan, math.nan)
            values |= {"val_loss": val_loss, "val_score": score}
            self.best.see(score, int(values["epoch"]), self.net.params)
        values["learning_rate"] = rate
        values["seconds"] = seconds + time.perf_counter() - began
        values["rows_per_second"] = n_rows / max(seconds, 1e-9)
        if not isinstance(self.job.data, Data):
            values["waited"] = self.job.data.waited()
        self.net.history.append(values)
        self.progress.epoch(values)
        self._plan(values["seconds"])

    def _plan(self, seconds: float) -> None:
        """Plan as many epochs as there is time for, after the epochs 1, 2, 4, ...

        A schedule that is cut off in the middle would end at a high rate. The first epoch may be
        slow, so later ones correct what it foretells.
        """
        done, left = self.state.epoch, self.job.deadline.left
        if left is None or done & (done - 1):
            return
        fit = int(left / max(seconds, 1e-9))
        self.state.epochs = max(done, min(self.job.preset.max_iter, done + fit))

    def verdict(self) -> str:
        if self.job.held_out is None:
            return ""
        return "patience" if self.best.stalled(self.net.history.epochs) else ""

    def diverged(self, safe: Snapshot) -> None:
        if self.best.params is not None:
            safe.put_back()
            warn(
                f"training diverged in epoch {self.state.epoch + 1}; the weights with the best "
                f"validation score are kept. The learning rate is too high (it was "
                f"{self.recipe.learning_rate:g}).",
                ConvergenceWarning,
            )
            return
        data = self.job.data if isinstance(self.job.data, Data) else self.job.data.latest
        sample = Data(data.X[:256], data.targets[:256], None)
        raise diverged(self.net, sample, self.recipe, self.net.history, safe)

    def interrupted(self) -> None:
        warn(
            f"Training interrupted by user after {self.state.epoch} of {self.state.epochs} "
            "epochs; what was learned is kept."
        )

    # What a checkpoint keeps of it; see `training.fit.Resumed`

    def kept(self) -> tuple[dict[str, Any], Array | None]:
        """Return what is known of earlier epochs, as JSON holds it, and the best parameters."""
        known = {"score": self.best.score, "best_epoch": self.best.epoch, "random": self.job.start}
        return known, self.best.params

    def restore(self, record: dict[str, Any], best: Array | None, epochs: int) -> None:
        """Restore what :meth:`kept` returned, after some epochs."""
        kinds = {"score": NUMBER, "best_epoch": (int,), "random": (dict,)}
        known = entries(record, "the best epoch", kinds, {})
        self.best.score, self.best.epoch = known["score"], known["best_epoch"]
        self.best.params, self.drawn = best, epochs


def validate(net: Network, held_out: HeldOut) -> tuple[float, float, float]:
    """Return the loss on held-out rows, the score, and the temperature, which the loss is at."""
    loss, score, out = evaluate(net, held_out.data, held_out.rows)
    data = held_out.data
    if data.targets.ndim == 2:  # numbers, or several labels per row
        return loss, score, 1.0
    weights = None if data.weights is None else held_out.of(data.weights)
    loss, temperature = log_loss_at_best(out, held_out.of(data.targets), weights)
    return loss, score, temperature


def train_member(job: Job) -> History:
    """Train a network, and leave the weights of its best epoch in it.

    A classifier's sums are divided by the temperature that suits the held-out rows.

    Raises
    ------
    DivergenceError
        If a loss or a weight is not finite before an epoch was validated.
    """
    net, preset = job.net, job.preset
    n_rows = len(job.rows) if isinstance(job.data, Data) else job.data.n_rows
    batch_size = min(preset.batch_size, n_rows)
    state = TrainingState(net, net.history, 0, preset.max_iter)
    with parameters_at_fault():
        callbacks = check_callbacks(job.callbacks)
        recipe_of(preset).check(net.architecture)
    rules = MemberRules(job, state, batch_size)
    trainer = Trainer(
        net, job.data, rules.recipe, batch_size, job.n_threads, keeps_steps_whole=True
    )
    best, stopped, keeper = rules.best, "error", None
    if job.checkpoint is not None:
        keeper = job.checkpoint.begin(trainer, state, rules)
    try:
        loop = Loop(trainer, rules, state, callbacks, job.deadline, keeper)
        stopped = job.ended or loop.run()
        if job.checkpoint is not None:  # before the best weights are restored, and scaled
            job.checkpoint.end(stopped)
    except DivergenceError:
        stopped = "diverged"
        raise
    finally:
        rules.progress.close()
        trainer.close()
        keep_best(job, best, stopped)
    call_back(callbacks, "on_train_end", state)
    net.forget_optimizer()
    return net.history


def keep_best(job: Job, best: Best, stopped: str) -> None:
    """Leave the best epoch's weights in a network, a classifier's at the best temperature."""
    net = job.net
    if best.params is not None:
        net.params[:] = best.params
        if job.held_out is not None:
            divide_by_temperature(net, validate(net, job.held_out)[2])
    net.history.metric = job.name
    net.history.end(stopped, best.epoch or None, best.params is not None)


def name_of_score(scoring: Any, net: Network, targets: Array) -> str:
    """Return what val_score is."""
    if isinstance(scoring, str):
        return "neg_loss" if scoring == "loss" else scoring
    return getattr(scoring, "__name__", None) or metric_of(net, targets)
