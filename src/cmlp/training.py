"""The fit loop: what happens around the epochs that the core runs.

Everything random is drawn here, from the network's generator: the split, the order of every
epoch, the seed of dropout and noise. So the same seed gives the same weights, bit for bit, on the
same core, for any number of threads.
"""

from __future__ import annotations

import math
import time
import warnings
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from . import _dispatch
from ._errstate import callers_state
from ._scoring import evaluate, metric_of, split
from ._spec import SparseRows
from ._steps import Data, Recipe, Snapshot, Trainer, show_average
from ._terminal import Progress

if TYPE_CHECKING:
    from .network import Network

Array = NDArray[Any]


class DivergenceError(ArithmeticError, ValueError):
    """Training stopped at a loss or a weight that is not finite; the last finite weights are kept.

    Attributes
    ----------
    history : History
        The epochs before.
    """

    history: History


MAX_EPOCHS = 10_000
"""Epochs of a training record that a file keeps, and that a diagnosis reads."""


class History(dict[str, list[float]]):
    """A training record: one list per quantity, one entry per epoch.

    Keys: epoch (counted from 1, over all calls), loss (training, with penalties), learning_rate
    (of the last step), seconds, rows_per_second (means, where an estimator trained several epochs
    in one call); with validation data also val_loss and val_score.

    Attributes
    ----------
    metric : str
        What val_score is: 'accuracy' or 'r2'.
    stopped : str
        Why training ended: 'epochs', 'patience', 'max_time', 'callback' or 'interrupted'.
    best_epoch : int or None
        Epoch of the smallest validation loss (without validation data: training loss).
    restored : bool
        Whether the best weights were brought back when training ended.
    solver : str
        The rule that the last steps were taken with, where the network does not know it any more:
        after a file without the optimizer's state.
    """

    restored, solver = False, ""  # of records that were pickled before these were kept

    def __init__(self, values: dict[str, list[float]] | None = None, metric: str = "") -> None:
        super().__init__(values or {})
        self.metric = metric
        self.stopped = "epochs"
        self.best_epoch: int | None = None

    def append(self, values: dict[str, float]) -> None:
        """Add an epoch; what it lacks, or what the epochs before lack, is NaN."""
        if self.keys() != values.keys():
            done = max(map(len, self.values()), default=0)
            for key in values:
                self.setdefault(key, [math.nan] * done)
        for key, column in self.items():
            column.append(values.get(key, math.nan))

    def thinned(self) -> dict[str, list[float]]:
        """Return MAX_EPOCHS entries at most, evenly spread; the last is one of them."""
        n = max(map(len, self.values()), default=0)
        if n <= MAX_EPOCHS:
            return self
        kept = np.linspace(0, n - 1, MAX_EPOCHS).astype(np.int64).tolist()
        return {key: [column[i] for i in kept if i < len(column)] for key, column in self.items()}

    @property
    def epochs(self) -> int:
        """How many epochs there were: more than entries, if a file has thinned them out."""
        numbers, n = self.get("epoch", []), len(self.get("loss", []))
        whole = len(numbers) == n > 0 and math.isfinite(numbers[-1])
        return max(n, int(numbers[-1])) if whole else n


def solver_of(net: Network) -> str:
    """Return the rule that a network was trained with last; nothing where it was not trained."""
    trained = net.steps or net.history.get("loss")
    return (net.solver if trained else "") or net.history.solver


@dataclass
class TrainingState:
    """What a callback sees.

    Attributes
    ----------
    network : Network
    history : History
        The epochs so far; the latest is the last entry of each list.
    epoch : int
        Epochs done in this fit.
    epochs : int
        Epochs asked for.
    stop : bool
        Set it to end the training after this epoch.
    """

    network: Network
    history: History
    epoch: int
    epochs: int
    stop: bool = False


EVENTS = ("on_train_begin", "on_epoch_end", "on_train_end")
"""Methods of a callback, each of which it may have."""


def check_callbacks(callbacks: Iterable[Any]) -> tuple[Any, ...]:
    """Return callbacks as a tuple; refuse one that would never be called."""
    if not isinstance(callbacks, Iterable):
        raise TypeError(f"callbacks must be a list, not {callbacks!r}")
    listed = tuple(callbacks)
    for callback in listed:
        if not (callable(callback) or any(hasattr(callback, event) for event in EVENTS)):
            raise TypeError(
                f"a callback must be a function or have a method {', '.join(EVENTS[:-1])} or "
                f"{EVENTS[-1]}; {callback!r} has none"
            )
    return listed


def _call(callbacks: Iterable[Any], event: str, state: TrainingState) -> None:
    """Tell every callback: an object by its method, a plain function of epochs only."""
    for callback in callbacks:
        method = getattr(callback, event, None)
        if method is None and event == "on_epoch_end" and callable(callback):
            method = callback
        if method is not None:
            with callers_state():
                wants_the_end = method(state) is True
            state.stop = state.stop or wants_the_end


class _Best:
    """Remembers the smallest loss, and the weights that gave it if they may be wanted back."""

    def __init__(self, keep: bool) -> None:
        self.keep, self.loss, self.epoch = keep, math.inf, 0
        self.params: Array | None = None

    def see(self, loss: float, epoch: int, params: Array) -> None:
        if loss < self.loss:
            self.loss, self.epoch = loss, epoch
            if self.keep:
                self.params = params.copy()


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
    from . import schedules  # imported when there is something to fit

    plan = schedules.resolve(schedule)
    callbacks = check_callbacks(callbacks)
    rows = np.arange(len(data.X), dtype=np.int64)
    held_out: NDArray[np.int64] | None = None
    if validation_fraction:
        rows, held_out = split(_strata(net, data.targets), validation_fraction, net.rng)
        validation = data
    batch_size = min(batch_size or len(rows), len(rows))
    trainer = Trainer(net, data, recipe, batch_size, n_threads)
    history = History(metric=metric_of(net, data.targets))
    net.history.metric = history.metric
    state = TrainingState(net, history, 0, epochs)
    best = _Best(keep=patience is not None and validation is not None)
    progress = Progress(verbose, epochs, history.metric, _dispatch.core.name)
    n_steps = -(-len(rows) // batch_size)
    start = time.perf_counter()

    def out_of_time() -> bool:
        return max_time is not None and time.perf_counter() - start >= max_time

    safe = Snapshot(net)
    try:
        _call(callbacks, "on_train_begin", state)
        while state.epoch < epochs and not state.stop:
            losses = history.get("val_loss", history.get("loss", []))
            rates = plan.rates(recipe.learning_rate, state.epoch, epochs, n_steps, losses)
            order = net.rng.permutation(rows) if shuffle else rows
            began = time.perf_counter()
            loss, n_rows = trainer.epoch(order, rates, out_of_time)
            trained = time.perf_counter() - began
            if not (math.isfinite(loss) and _all_finite(net.params)):
                raise _diverged(net, data, recipe, history, safe)
            safe.take()
            show_average(net)
            state.epoch += 1
            values = {"epoch": net.history.epochs + 1.0, "loss": loss}
            if validation is not None:
                values["val_loss"], values["val_score"], _ = evaluate(net, validation, held_out)
            values["learning_rate"] = float(rates[-1])
            values["seconds"] = time.perf_counter() - began
            values["rows_per_second"] = n_rows / max(trained, 1e-9)
            history.append(values)
            net.history.append(values)
            best.see(values.get("val_loss", loss), int(values["epoch"]), net.params)
            progress.epoch(values)
            _call(callbacks, "on_epoch_end", state)
            if patience is not None and values["epoch"] - best.epoch >= patience:
                history.stopped = "patience"
                break
            elif out_of_time():
                history.stopped = "max_time"
                break
    except KeyboardInterrupt:
        history.stopped = "interrupted"
        if not _all_finite(net.params):
            safe.put_back()
        warnings.warn(
            f"training was interrupted after {state.epoch} of {epochs} epochs; "
            "the network keeps what it has learned",
            stacklevel=5,
        )
    finally:
        progress.close()
        trainer.close()
    if state.stop:
        history.stopped = "callback"
    history.best_epoch = best.epoch or None
    net.history.stopped, net.history.best_epoch = history.stopped, history.best_epoch
    if best.params is not None:
        net.params[:] = best.params
    history.restored = net.history.restored = best.params is not None
    _call(callbacks, "on_train_end", state)
    return history


def _strata(net: Network, targets: Array) -> Array:
    """Return class numbers where there are any, also those of two classes in one column."""
    binary = net.loss_row is not None and net.loss_row.classifies and targets.shape[1:] == (1,)
    return targets[:, 0] if binary else targets


def _all_finite(values: Array) -> bool:
    """Whether there is no NaN or infinity, without a temporary."""
    return bool(np.isfinite(values.min()) and np.isfinite(values.max()))


def _diverged(
    net: Network,
    data: Data,
    recipe: Recipe,
    history: History,
    safe: Snapshot,
) -> DivergenceError:
    """Find the layer, put the last finite weights back, and say what usually helps."""
    where = _first_bad_layer(net, data.X[:256])
    safe.put_back()
    causes = [f"the learning rate is too high (it was {recipe.learning_rate:g}; try a tenth)"]
    largest = net.input_scale * max(abs(float(data.X.min())), abs(float(data.X.max())))
    if largest > 20:
        pixels = data.X.dtype == np.uint8 and net.input_scale == 1
        how = ", as Network(..., input_scale=1/255) does" if pixels else ""
        causes.append(f"X is not scaled (values up to {largest:.3g}; bring them to about 1{how})")
    if net.loss_row is not None and not net.loss_row.classifies:
        causes.append("y is not scaled")
    if recipe.clip_norm is None:
        causes.append("gradients are not clipped (try clip_norm=1)")
    epoch = len(history.get("epoch", [])) + 1
    error = DivergenceError(
        f"training diverged in epoch {epoch}, {where}. The network has the last finite weights, "
        f"those from the end of epoch {epoch - 1}. Usual causes: {'; '.join(causes)}."
    )
    error.history = history
    return error


def _first_bad_layer(net: Network, X: Array | SparseRows) -> str:
    """Name the layer where the numbers stop being finite: in its weights, or in its sums."""
    names = [
        f"layer {number} ({W.shape[0]} -> {W.shape[1]}, {activation})"
        for number, (W, activation) in enumerate(zip(net.weights, net.activations, strict=True), 1)
    ]
    for name, W, b in zip(names, net.weights, net.biases, strict=True):
        if not (_all_finite(W) and _all_finite(b)):
            return f"first in the weights of {name}"
    with np.errstate(all="ignore"):
        record = net.forward(X, return_all=True)
    for name, z in zip(names, record.z, strict=True):
        if not _all_finite(z):
            return f"first in the weighted sums of {name}"
    return f"in the loss, behind {names[-1]}"
