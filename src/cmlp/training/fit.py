"""The fit of a network: held-out rows, patience, schedules; the epochs are in ``_loop``.

Everything random is drawn here, from the network's generator: the split, the order of every
epoch, the seed of dropout and noise. So the same seed gives the same weights, bit for bit, on the
same core, for any number of threads.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from cmlp.core import dispatch
from cmlp.core.errors import warn
from cmlp.core.layout import Array
from cmlp.data.rows import Data
from cmlp.data.split import split
from cmlp.model.history import History
from cmlp.model.scoring import evaluate, metric_of
from cmlp.training.callbacks import TrainingState, call_back, check_callbacks
from cmlp.training.divergence import DivergenceError, diverged
from cmlp.training.loop import Loop
from cmlp.training.progress import Progress
from cmlp.training.recipe import Recipe
from cmlp.training.snapshot import Snapshot
from cmlp.training.stopping import Best, Deadline
from cmlp.training.trainer import Trainer

if TYPE_CHECKING:
    from cmlp.network import Network
    from cmlp.schedules import Schedule


class NetworkRules:
    """How :meth:`Network.fit` draws, records and stops; see :class:`cmlp._loop.Rules`."""

    def __init__(
        self,
        net: Network,
        data: Data,
        recipe: Recipe,
        state: TrainingState,
        rows: NDArray[np.int64],
        batch_size: int,
        shuffle: bool,
        validation: Data | None,
        held_out: NDArray[np.int64] | None,
        patience: int | None,
        schedule: Schedule,
        progress: Progress,
    ) -> None:
        self.net, self.data, self.recipe, self.state = net, data, recipe, state
        self.rows, self.shuffle = rows, shuffle
        self.n_rows, self.n_steps = len(rows), -(-len(rows) // batch_size)
        self.validation, self.held_out = validation, held_out
        self.patience, self.schedule, self.progress = patience, schedule, progress
        self.best = Best(keep=patience is not None and validation is not None)
        self.drawn = 0

    def draw(self, order: NDArray[np.int64], rates: NDArray[np.float64]) -> None:
        history = self.state.history
        losses = history.get("val_loss", history.get("loss", []))
        rates[:] = self.schedule.rates(
            self.recipe.learning_rate, self.drawn, self.state.epochs, self.n_steps, losses
        )
        order[:] = self.net.rng.permutation(self.rows) if self.shuffle else self.rows
        self.drawn += 1

    def foreseen(self) -> float:
        if self.validation is not None or self.progress.verbose or not self.schedule.foreseeable:
            return 1
        if self.patience is None:
            return math.inf
        return self.patience - (self._last_epoch() - self.best.epoch)

    def _last_epoch(self) -> int:
        return self.net.history.epochs

    def record(
        self, loss: float, n_rows: int, rate: float, seconds: float, finite: bool = True
    ) -> None:
        net, began = self.net, time.perf_counter()
        values = {"epoch": self._last_epoch() + 1.0, "loss": loss}
        if self.validation is not None:
            values["val_loss"], values["val_score"], _ = evaluate(
                net, self.validation, self.held_out
            )
        values["learning_rate"] = rate
        values["seconds"] = seconds + time.perf_counter() - began
        values["rows_per_second"] = n_rows / max(seconds, 1e-9)
        self.state.history.append(values)
        net.history.append(values)
        self.best.see(values.get("val_loss", loss), int(values["epoch"]), net.params)
        self.progress.epoch(values)

    def verdict(self) -> str:
        stalled = self._last_epoch() - self.best.epoch
        return "patience" if self.patience is not None and stalled >= self.patience else ""

    def diverged(self, safe: Snapshot) -> None:
        raise diverged(self.net, self.data, self.recipe, self.state.history, safe)

    def interrupted(self) -> None:
        warn(
            f"training was interrupted after {self.state.epoch} of {self.state.epochs} epochs; "
            "the network keeps what it has learned"
        )


def fit(
    net: Network,
    data: Data,
    recipe: Recipe,
    *,
    epochs: int,
    batch_size: int | None,
    shuffle: bool,
    validation: Data | None,
    validation_fraction: float,
    patience: int | None,
    schedule: Any,
    callbacks: Iterable[Any],
    max_time: float | None,
    n_threads: int | None,
    verbose: int,
) -> History:
    """Train for some epochs; see :meth:`Network.fit`, which has checked everything."""
    from cmlp import schedules  # imported when there is something to fit

    plan = schedules.resolve(schedule)
    callbacks = check_callbacks(callbacks)
    rows = np.arange(len(data.X), dtype=np.int64)
    held_out: NDArray[np.int64] | None = None
    if validation_fraction:
        rows, held_out = split(_strata(net, data.targets), validation_fraction, net.rng)
        validation = data
    batch_size = min(batch_size or len(rows), len(rows))
    trainer = Trainer(net, data, recipe, batch_size, n_threads, keeps_steps_whole=True)
    history = History(metric=metric_of(net, data.targets))
    net.history.metric = history.metric
    state = TrainingState(net, history, 0, epochs)
    progress = Progress(verbose, epochs, history.metric, dispatch.core.name)
    rules = NetworkRules(
        net, data, recipe, state, rows, batch_size, shuffle, validation, held_out, patience, plan,
        progress,
    )  # fmt: skip
    best, stopped = rules.best, "error"
    try:
        stopped = Loop(trainer, rules, state, callbacks, Deadline(max_time)).run()
        if best.params is not None:
            net.params[:] = best.params
    except DivergenceError:
        stopped = "diverged"
        raise
    finally:
        progress.close()
        trainer.close()
        restored = best.params is not None and stopped not in ("error", "diverged")
        for record in (history, net.history):
            record.end(stopped, best.epoch or None, restored)
    call_back(callbacks, "on_train_end", state)
    return history


def _strata(net: Network, targets: Array) -> Array:
    """Return class numbers where there are any, also those of two classes in one column."""
    binary = net.loss_row is not None and net.loss_row.classifies and targets.shape[1:] == (1,)
    return targets[:, 0] if binary else targets
