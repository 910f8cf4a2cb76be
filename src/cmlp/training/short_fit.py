"""A fit of one epoch that is one step, again and again: the record of a fit around a step."""

from __future__ import annotations

import dataclasses
import math
import time
from typing import Any, NoReturn

import numpy as np

from cmlp.core import dispatch
from cmlp.core.errstate import undisturbed
from cmlp.core.layout import Array, aligned
from cmlp.data.numbers import is_finite
from cmlp.model import passes
from cmlp.model.history import History
from cmlp.model.state import State
from cmlp.training import fit
from cmlp.training.divergence import diverged
from cmlp.training.recipe import Recipe
from cmlp.training.snapshot import Snapshot
from cmlp.training.stepper import PLAIN, Stepper

FALSE = "ema", "validation_fraction", "verbose", "callbacks", "resume"
NONE = (
    "sample_weight", "X_val", "y_val", "patience", "schedule", "dropout_schedule",
    "weight_decay_schedule", "max_time", "checkpoint",
)  # fmt: skip
"""Arguments that add something to a fit's steps, unless they are these."""

NOTHING = ()
"""The callbacks where none are given: one object in all of Python."""


class ShortFit:
    """Fits a network that has been fitted with the same parameters before; it holds no network.

    Where a step needs a closer look, :func:`cmlp.training.fit.fit` does the same.

    Parameters
    ----------
    arguments : dict
        Of :meth:`cmlp.Network.fit`; see :func:`is_short`.
    recipe : Recipe
        Made of them.
    n_rows : int
        Rows of a step.
    """

    def __init__(self, arguments: dict[str, Any], recipe: Recipe, n_rows: int) -> None:
        self.values, self.recipe = values_of(arguments), recipe
        self.most_rows = arguments["batch_size"] or n_rows
        self.stepper = Stepper(recipe, passes.LARGEST_WORKSPACE)
        self.before: Array = np.empty((0, 0))

    def serves(self, arguments: dict[str, Any]) -> bool:
        """Whether these are the same arguments, apart from the data."""
        values = values_of(arguments)
        return (
            arguments["callbacks"] is NOTHING
            and PLAIN.issuperset(map(type, values.values()))
            and values == self.values
        )

    def fit(self, net: State, X: Any, y: Any, rate: Any) -> History | None:
        """Take one step in a network that no other thread trains, and record it as an epoch.

        None is returned where something needs a closer look; nothing has changed then.

        Raises
        ------
        DivergenceError
            If the loss or a weight is not finite; the network is then what it was.
        """
        began = time.perf_counter()
        if type(X) is not np.ndarray or type(y) is not np.ndarray or X.ndim == 0 or y.ndim == 0:
            return None
        if len(X) > self.most_rows or type(rate) is not float or not 0 <= rate < math.inf:
            return None
        bound = self.stepper.ready(net)
        if bound is None:
            return None
        history = History(metric=self._metric(net, y))
        safe: Snapshot | None = None
        try:
            loss = self.stepper.take(bound, net, X, y, None, rate, False, True)
            if loss is None:  # the weights may be infinite after the step
                safe = Snapshot(net, self._room(net))
                loss = self.stepper.take(bound, net, X, y, None, rate, False)
                if loss is None:
                    return None
            net.history.metric = history.metric
            if not math.isfinite(loss) or (safe is not None and not is_finite(net.params)):
                self._fail(net, X, y, rate, history, safe or Snapshot(net))
            self._record(net, history, loss / len(X), rate, len(X), began)
        except KeyboardInterrupt:
            if safe is not None and not is_finite(net.params):
                safe.put_back()
            fit.warn_of_interrupt(len(history.get("loss", ())), 1)
            end(net, history, "interrupted")
        finally:
            if safe is not None:
                safe.close()
        return history

    def _metric(self, net: State, y: Array) -> str:
        """Return what a score of these targets would be, as of any fit."""
        labels = net.sizes[-1] > 1 and y.size == len(y)
        return "accuracy" if labels or net.architecture.classifies else "r2"

    def _record(
        self, net: State, history: History, loss: float, rate: float, n_rows: int, began: float
    ) -> None:
        """Record the epoch, in its own history and in the network's."""
        number, seconds = net.history.epochs + 1, time.perf_counter() - began
        values = {
            "epoch": float(number),
            "loss": loss,
            "learning_rate": rate,
            "seconds": seconds,
            "rows_per_second": n_rows / max(seconds, 1e-9),
        }
        history.update({name: [value] for name, value in values.items()})
        net.history.append(values)
        end(net, history, "epochs", number)

    def _room(self, net: State) -> Array | None:
        """Return room for a copy of weights and moments; None if it is too much to be kept."""
        shape = len(net.optimizer_state.moments) + 1, len(net.params)
        if self.before.shape != shape or self.before.dtype != net.dtype:
            if math.prod(shape) * net.dtype.itemsize > passes.LARGEST_WORKSPACE:
                return None
            self.before = aligned(shape, net.dtype)
        return self.before

    @undisturbed
    def _fail(
        self, net: State, X: Any, y: Any, rate: float, history: History, safe: Snapshot
    ) -> NoReturn:
        """Raise the error of a training that diverged in its only step."""
        recipe = dataclasses.replace(self.recipe, learning_rate=rate)
        try:
            raise diverged(net, net.encode_rows(X, y), recipe, history, safe)
        finally:
            end(net, history, "diverged")


def end(net: State, history: History, stopped: str, best_epoch: int | None = None) -> None:
    """Record how a fit ended, in its own history and in the network's."""
    for record in (history, net.history):
        record.end(stopped, best_epoch, False)


def values_of(arguments: dict[str, Any]) -> dict[str, Any]:
    """Return the arguments that are compared from call to call."""
    values = arguments.copy()
    del values["self"], values["X"], values["y"], values["learning_rate"], values["callbacks"]
    return values


def is_short(net: State, arguments: dict[str, Any], n_rows: int) -> bool:
    """Whether a fit of so many rows is one step, nothing is around it, and little memory in it."""
    batch_size = arguments["batch_size"]
    return (
        arguments["epochs"] == 1
        and (batch_size is None or n_rows <= batch_size)
        and all(not arguments[name] for name in FALSE)
        and all(arguments[name] is None for name in NONE)
        and PLAIN.issuperset(map(type, values_of(arguments).values()))
        and dispatch.core.workspace_size(net.plan, n_rows) * net.dtype.itemsize
        <= passes.LARGEST_WORKSPACE
    )
