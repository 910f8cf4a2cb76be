"""The fit of a network: held-out rows, patience, schedules; the epochs are in ``loop``.

Everything random is drawn from the network's generator: the split and the order of every epoch
here, the seed of dropout and noise in ``trainer``. So the same seed gives the same weights, bit for
bit, on the same core, for any number of threads.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from cmlp.core import dispatch
from cmlp.core.checks import check_integer, check_number
from cmlp.core.errors import warn
from cmlp.core.layout import Array
from cmlp.core.seam import MAX_BATCH
from cmlp.data.records import NUMBER, entries
from cmlp.data.rows import Data
from cmlp.data.split import split
from cmlp.model.history import History
from cmlp.model.scoring import evaluate, metric_of
from cmlp.model.state import State
from cmlp.schedules import Schedule, resolve
from cmlp.training.callbacks import TrainingState, call_back, check_callbacks
from cmlp.training.divergence import DivergenceError, diverged
from cmlp.training.feed import Feed, Keeper
from cmlp.training.loop import Loop, Rules
from cmlp.training.progress import Progress
from cmlp.training.recipe import Recipe
from cmlp.training.snapshot import Snapshot
from cmlp.training.stopping import Deadline, Patience
from cmlp.training.trainer import Trainer


class NetworkRules:
    """How :meth:`Network.fit` draws, records and stops; see :class:`cmlp.training.loop.Rules`.

    Parameters
    ----------
    rows : ndarray of int64
        The numbers of the rows to train on, where they are in memory; a feed has an order of its
        own.
    """

    def __init__(
        self,
        net: State,
        data: Data | Feed,
        recipe: Recipe,
        state: TrainingState,
        rows: NDArray[np.int64],
        batch_size: int,
        shuffle: bool,
        validation: Data | None,
        held_out: NDArray[np.int64] | None,
        patience: int | None,
        schedules: tuple[Schedule, ...],
        progress: Progress,
    ) -> None:
        self.net, self.recipe, self.state = net, recipe, state
        self.feed = None if isinstance(data, Data) else data
        self.data = data if isinstance(data, Data) else data.latest
        self.rows, self.batch_size = rows, batch_size
        self.n_rows = len(rows) if self.feed is None else self.feed.n_rows
        self.shuffles = shuffle and order_matters(net, self.n_rows, batch_size)
        self.n_steps = -(-self.n_rows // batch_size)
        self.validation, self.held_out = validation, held_out
        self.schedules, self.progress, self.n_rates = schedules, progress, len(schedules)
        self.patience = Patience(patience, keeps=validation is not None)
        self.drawn = 0

    def draw(self, order: NDArray[np.int64], rates: NDArray[np.float64]) -> None:
        history = self.state.history
        losses = history.get("val_loss", history.get("loss", []))
        bases = (self.recipe.learning_rate, 1.0, 1.0)
        for row, base, schedule in zip(rates, bases, self.schedules, strict=False):
            row[:] = schedule.rates(base, self.drawn, self.state.epochs, self.n_steps, losses)
        if self.n_rates > 1:
            check_dropout(self.recipe, rates[1])
        if self.feed is None:
            order[:] = self.net.rng.permutation(self.rows) if self.shuffles else self.rows
        self.drawn += 1

    def foreseen(self) -> float:
        foreseeable = all(schedule.foreseeable for schedule in self.schedules)
        if self.validation is not None or self.progress.verbose or not foreseeable:
            return 1
        return self.patience.left(self._last_epoch())

    def _last_epoch(self) -> int:
        return self.net.history.epochs

    def record(
        self, loss: float, n_rows: int, rate: float, seconds: float, finite: bool = True
    ) -> None:
        net, began = self.net, time.perf_counter()
        values = {"epoch": self._last_epoch() + 1.0, "loss": loss}
        if self.validation is not None:
            values["val_loss"], values["val_score"] = self.validate(self.validation)
        values["learning_rate"] = rate
        values["seconds"] = seconds + time.perf_counter() - began
        values["rows_per_second"] = n_rows / max(seconds, 1e-9)
        if self.feed is not None:
            values["waited"] = self.feed.waited()
        self.state.history.append(values)
        net.history.append(values)
        self.patience.see(values.get("val_loss", loss), int(values["epoch"]), net.params)
        self.progress.epoch(values)

    def validate(self, data: Data) -> tuple[float, float]:
        """Return the loss and the score of the rows that are held out."""
        return evaluate(self.net, data, self.held_out)[:2]

    def verdict(self) -> str:
        return "patience" if self.patience.left(self._last_epoch()) <= 0 else ""

    def diverged(self, safe: Snapshot) -> None:
        data = self.data if self.feed is None else self.feed.latest
        raise diverged(self.net, data, self.recipe, self.state.history, safe)

    def kept(self) -> tuple[dict[str, Any], Array | None]:
        """Return what is known of earlier epochs, as JSON holds it, and the best parameters."""
        patience = self.patience
        known = {"lowest": patience.lowest, "best_epoch": patience.best_epoch}
        return known, patience.params

    def restore(self, record: dict[str, Any], best: Array | None, epochs: int) -> None:
        """Restore what :meth:`kept` returned, after some epochs."""
        kinds = {"lowest": NUMBER, "best_epoch": (int,)}
        known = entries(record, "patience", kinds, {})
        self.patience.lowest, self.patience.best_epoch = known["lowest"], known["best_epoch"]
        self.patience.params, self.drawn = best, epochs

    def end(self, stopped: str) -> None:
        """Record how the training has ended."""
        best = self.patience
        restored = best.params is not None and stopped not in ("error", "diverged")
        for record in (self.state.history, self.net.history):
            record.end(stopped, best.best_epoch or None, restored)

    def interrupted(self) -> None:
        warn_of_interrupt(self.state.epoch, self.state.epochs)


def order_matters(net: State, n_rows: int, batch_size: int) -> bool:
    """Whether the order of the rows decides what an epoch teaches a network.

    The gradient of a single batch is a sum over all rows, in any order; only statistics of
    normalisation are those of its passes, where it is large.
    """
    return batch_size < n_rows or (net.normalization == "batch" and n_rows > MAX_BATCH)


def warn_of_interrupt(epoch: int, epochs: int) -> None:
    """Warn that Ctrl-C has ended a training."""
    warn(
        f"training was interrupted after {epoch} of {epochs} epochs; "
        "the network keeps what it has learned"
    )


def check_dropout(recipe: Recipe, factors: NDArray[np.float64]) -> None:
    """Check that a schedule leaves every rate of dropout below 1."""
    most = float(np.max(recipe.dropout, initial=0.0)) * float(factors.max())
    if not most < 1:
        raise ValueError(
            f"dropout times its schedule must be below 1; it reaches {most:g}: lower dropout, or "
            "the factors of dropout_schedule"
        )


class RestorableRules(Rules, Protocol):
    """Rules of a training that can be resumed."""

    def kept(self) -> tuple[dict[str, Any], Array | None]:
        """Return what is known of earlier epochs, as JSON holds it, and the best parameters."""

    def restore(self, record: dict[str, Any], best: Array | None, epochs: int) -> None:
        """Restore what :meth:`kept` returned, after some epochs."""


class Resumed(Protocol):
    """Checkpoints of a training."""

    def begin(self, trainer: Trainer, state: TrainingState, rules: RestorableRules) -> Keeper:
        """Restore what was done before, if anything; return what writes checkpoints."""

    def end(self, stopped: str) -> None:
        """Write the last checkpoint, unless training was stopped in the middle."""


@dataclass(kw_only=True)
class Options:
    """What :meth:`cmlp.Network.fit` takes in addition to rows and a recipe. Checked when made."""

    epochs: int
    batch_size: int | None
    shuffle: bool
    validation_fraction: float
    patience: int | None
    schedule: Any
    dropout_schedule: Any
    weight_decay_schedule: Any
    callbacks: Iterable[Any]
    max_time: float | None
    n_threads: int | None
    verbose: int

    def __post_init__(self) -> None:
        self.epochs = check_integer("epochs", self.epochs, 0)
        for name in ("batch_size", "patience", "n_threads"):
            if getattr(self, name) is not None:
                check_integer(name, getattr(self, name), 1)
        if self.max_time is not None:
            check_number("max_time", self.max_time, 0)
        check_number("validation_fraction", self.validation_fraction, 0, 1, open_high=True)
        if not isinstance(self.verbose, (int, np.integer, np.bool_)):
            raise TypeError(f"verbose must be a whole number, not {self.verbose!r}")
        scheduled = self.dropout_schedule is not None or self.weight_decay_schedule is not None
        self.schedules: tuple[Schedule, ...] = (resolve(self.schedule),)
        if scheduled:
            self.schedules += resolve(self.dropout_schedule), resolve(self.weight_decay_schedule)
        self.callbacks = check_callbacks(self.callbacks)


def fit(
    net: State,
    data: Data | Feed,
    recipe: Recipe,
    options: Options,
    validation: Data | None,
    resumed: Resumed | None = None,
) -> History:
    """Train for some epochs; see :meth:`cmlp.Network.fit`, which has checked the rows.

    Parameters
    ----------
    data : Data or Feed
        Rows in memory; or what yields windows of rows, and holds rows to validate on out itself.
    resumed : Resumed, optional
        What writes checkpoints, and where a training continues.
    """
    rules = rules_of(net, data, recipe, options, validation)
    return run(rules, options, resumed)


def rules_of(
    net: State,
    data: Data | Feed,
    recipe: Recipe,
    options: Options,
    validation: Data | None,
    rows: NDArray[np.int64] | None = None,
    held_out: NDArray[np.int64] | None = None,
) -> NetworkRules:
    """Return the rules of a fit on some rows (None: all), with those of `held_out` to validate."""
    in_memory = data if isinstance(data, Data) else None
    if rows is None:
        rows = np.arange(0 if in_memory is None else len(in_memory.X), dtype=np.int64)
    if in_memory is not None and options.validation_fraction:
        strata = _strata(net, in_memory.targets)[rows]
        part, rest = split(strata, options.validation_fraction, net.rng)
        rows, held_out, validation = rows[part], rows[rest], in_memory
    n_rows = len(rows) if isinstance(data, Data) else data.n_rows
    batch_size = min(options.batch_size or n_rows, n_rows)
    latest = data if isinstance(data, Data) else data.latest
    history = History(metric=metric_of(net, latest.targets))
    net.history.metric = history.metric
    state = TrainingState(net, history, 0, options.epochs)
    progress = Progress(options.verbose, options.epochs, history.metric, dispatch.core.name)
    return NetworkRules(
        net, data, recipe, state, rows, batch_size, options.shuffle, validation, held_out,
        options.patience, options.schedules, progress,
    )  # fmt: skip


def run(rules: NetworkRules, options: Options, resumed: Resumed | None = None) -> History:
    """Train by these rules until they, or the options, end it."""
    trainer = Trainer(
        rules.net,
        rules.feed or rules.data,
        rules.recipe,
        rules.batch_size,
        options.n_threads,
        keeps_steps_whole=True,
    )
    keeper = None if resumed is None else resumed.begin(trainer, rules.state, rules)
    callbacks, deadline = tuple(options.callbacks), Deadline(options.max_time)
    loop = Loop(trainer, rules, rules.state, callbacks, deadline, keeper)
    return run_loop(loop, rules, resumed)


def run_loop(loop: Loop, rules: NetworkRules, resumed: Resumed | None = None) -> History:
    """Train until the loop ends, and leave the network in order, however that comes about."""
    net, stopped = rules.net, "error"
    try:
        stopped = loop.run()
        loop.trainer.close()  # first: it puts the mean of the weights in place
        if rules.patience.params is not None:
            net.params[:] = rules.patience.params
    except DivergenceError:
        stopped = "diverged"
        raise
    finally:
        rules.progress.close()
        loop.trainer.close()
        rules.end(stopped)
    if resumed is not None:
        resumed.end(stopped)
    call_back(loop.callbacks, "on_train_end", rules.state)
    return rules.state.history


def run_epoch(
    net: State,
    data: Data | Feed,
    recipe: Recipe,
    batch_size: int | None,
    shuffle: bool,
    n_threads: int | None,
) -> float:
    """Use every row once, and return the mean loss.

    Raises
    ------
    DivergenceError
        If the loss is not finite; the step that saw it is not taken.
    """
    n_rows = len(data.X) if isinstance(data, Data) else data.n_rows
    rows = np.arange(n_rows if isinstance(data, Data) else 0, dtype=np.int64)
    batch_size = check_integer("batch_size", n_rows if batch_size is None else batch_size, 1)
    batch_size = min(batch_size, n_rows)
    if n_threads is not None:
        check_integer("n_threads", n_threads, 1)
    trainer = Trainer(net, data, recipe, batch_size, n_threads)
    shuffle = shuffle and order_matters(net, n_rows, batch_size)
    rates = np.full(-(-n_rows // batch_size), float(recipe.learning_rate))
    try:
        loss, _ = trainer.epoch(net.rng.permutation(rows) if shuffle else rows, rates)
    finally:
        trainer.close()
    if not math.isfinite(loss):
        raise not_finite()
    return loss


def not_finite() -> DivergenceError:
    """Return the error for a step that is not taken."""
    return DivergenceError(
        "the loss is not finite; the step that saw it was not taken. Lower the learning "
        "rate, scale X and y, or clip gradients (clip_norm=1)"
    )


def _strata(net: State, targets: Array) -> Array:
    """Return class numbers where there are any, also those of two classes in one column."""
    binary = net.architecture.classifies and targets.shape[1:] == (1,)
    return targets[:, 0] if binary else targets
