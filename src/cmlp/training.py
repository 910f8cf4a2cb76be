"""The fit loop: what happens around the epochs that the core runs.

Everything random is drawn here, from the network's generator: the split, the order of every
epoch, the seed of dropout and noise. So the same seed gives the same weights, bit for bit, on the
same core, for any number of threads.
"""

from __future__ import annotations

import math
import time
import warnings
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from . import _dispatch
from ._checks import check_number
from ._spec import (
    EXTERNAL_LOSS,
    N_IN,
    N_OUT,
    SOLVERS,
    Noise,
    Objective,
    Optimizer,
    Solver,
    lookup,
)
from ._terminal import Progress

if TYPE_CHECKING:
    from concurrent.futures import Future, ThreadPoolExecutor

    from .network import Network

Array = NDArray[Any]

CALL_FLOPS = 2e9
"""Work of one call of the core: a fraction of a second, then Python sees Ctrl-C and the clock."""

THREAD_FLOPS = 1e7
"""Work of one step from which a second thread pays for its barriers."""


class DivergenceError(ArithmeticError):
    """Training stopped at a loss or a weight that is not finite; the last finite weights are kept.

    Attributes
    ----------
    history : History
        The epochs before.
    """

    history: History


class History(dict[str, list[float]]):
    """A training record: one list per quantity, one entry per epoch.

    Keys: epoch, loss (training, with penalties), learning_rate (of the last step), seconds,
    rows_per_second; with validation data also val_loss and val_score.

    Attributes
    ----------
    metric : str
        What val_score is: 'accuracy' or 'r2'.
    stopped : str
        Why training ended: 'epochs', 'patience', 'max_time', 'callback' or 'interrupted'.
    best_epoch : int or None
        Epoch of the smallest validation loss (without validation data: training loss).
    """

    def __init__(self, values: dict[str, list[float]] | None = None, metric: str = "") -> None:
        super().__init__(values or {})
        self.metric = metric
        self.stopped = "epochs"
        self.best_epoch: int | None = None

    def append(self, values: dict[str, float]) -> None:
        """Add an epoch; what it lacks, or what the epochs before lack, is NaN."""
        done = max(map(len, self.values()), default=0)
        for key in {**self, **values}:
            column = self.setdefault(key, [math.nan] * done)
            column.append(values.get(key, math.nan))


@dataclass(frozen=True)
class Recipe:
    """What one step does: solver, penalties, noise. Checked when it is made.

    The parameters are those of :meth:`Network.fit`.
    """

    solver: str = "sgd"
    learning_rate: float = 0.01
    momentum: float = 0.9
    nesterov: bool = False
    beta_1: float = 0.9
    beta_2: float = 0.999
    epsilon: float = 1e-8
    l1: float = 0.0
    l2: float = 0.0
    weight_decay: float = 0.0
    dropout: float | Sequence[float] = 0.0
    input_noise: float = 0.0
    label_smoothing: float = 0.0
    clip_norm: float | None = None

    def __post_init__(self) -> None:
        self.rule  # noqa: B018 - an unknown solver is refused here
        for name in ("learning_rate", "l1", "l2", "weight_decay", "input_noise"):
            check_number(name, getattr(self, name), 0)
        for name in ("momentum", "beta_1", "beta_2", "label_smoothing"):
            check_number(name, getattr(self, name), 0, 1, open_high=True)
        check_number("epsilon", self.epsilon, 1e-37)  # above zero also as a float32
        if self.clip_norm is not None and not check_number("clip_norm", self.clip_norm, 0):
            raise ValueError("clip_norm must be above 0, or None for no clipping")

    @property
    def rule(self) -> Solver:
        return lookup("solver", SOLVERS, self.solver)

    def objective(self, net: Network) -> Objective:
        """Return what the core minimises."""
        row = net.loss_row
        if self.label_smoothing and (row is None or not row.classifies):
            raise ValueError(
                f"label_smoothing needs a cross-entropy loss; this network's is {net.loss_name}"
            )
        code = EXTERNAL_LOSS if row is None else row.code
        return Objective(code, net.loss_parameter, self.label_smoothing, self.l1, self.l2)

    def optimizer(self) -> Optimizer:
        """Return how the core moves the parameters."""
        return Optimizer(
            self.rule.code,
            float(self.momentum),
            bool(self.nesterov),
            float(self.beta_1),
            float(self.beta_2),
            float(self.epsilon),
            float(self.weight_decay),
            float(self.clip_norm or 0.0),
        )

    def noise(self, net: Network, seed: int) -> Noise:
        """Return what the core disturbs the rows with."""
        n_hidden = len(net.plan) - 1
        given = np.asarray(self.dropout, dtype=np.float64)
        if given.ndim == 0:
            given = np.full(n_hidden, given)
        if given.shape != (n_hidden,):
            raise ValueError(
                f"dropout must be one number or {n_hidden}, one per hidden layer; {given.size} came"
            )
        for rate in given:
            check_number("dropout", rate, 0, 1, open_high=True)
        if not n_hidden and np.any(np.asarray(self.dropout)):
            raise ValueError("dropout needs a hidden layer; this network has none")
        rates = given if given.any() else given[:0]
        return Noise(seed, float(self.input_noise), np.ascontiguousarray(rates))


@dataclass(frozen=True)
class Data:
    """Checked rows with their targets and weights, as the core takes them."""

    X: Array
    targets: Array
    weights: NDArray[np.float64] | None

    def weight(self, rows: NDArray[np.int64]) -> float:
        """Sum the weights of some rows."""
        return float(len(rows) if self.weights is None else self.weights[rows].sum())


class Trainer:
    """Takes steps on a network: holds the scratch arrays and the threads of one fit."""

    def __init__(
        self, net: Network, data: Data, recipe: Recipe, batch_size: int, n_threads: int | None
    ) -> None:
        self.net, self.data, self.batch_size = net, data, batch_size
        self.objective, self.optimizer = recipe.objective(net), recipe.optimizer()
        self.noise = recipe.noise(net, int(net.rng.integers(2**63)))
        self.moments = net.moments_for(recipe.rule)
        products = int((net.plan[:, N_IN] * net.plan[:, N_OUT]).sum())
        self.step_flops = 6.0 * products * batch_size
        self.n_threads = self._choose_threads(n_threads)
        size = _dispatch.core.workspace_size(net.plan, batch_size, self.n_threads)
        self.workspace = np.empty(size, net.dtype)
        self.grads = np.zeros_like(net.params)
        self.pool: ThreadPoolExecutor | None = None
        if self.n_threads > 1:
            from concurrent.futures import ThreadPoolExecutor  # slow to import

            self.pool = ThreadPoolExecutor(self.n_threads, thread_name_prefix="cmlp")

    def _choose_threads(self, n_threads: int | None) -> int:
        if _dispatch.core.name == "python" or self.net.loss_row is None:
            return 1  # NumPy's products have threads of their own
        if n_threads is not None:
            return n_threads
        return _dispatch.usable_cpus() if self.step_flops >= THREAD_FLOPS else 1

    def close(self) -> None:
        """End the threads."""
        if self.pool is not None:
            self.pool.shutdown()

    def run(self, rows: NDArray[np.int64], rates: NDArray[np.float64]) -> tuple[float, int]:
        """Take one step per batch. Returns the summed loss, and the steps up to one that failed."""
        if self.net.loss_row is None:
            return self._run_custom(rows, rates)
        if self.pool is None:
            total, taken = self._run_rank(rows, rates, 0, None)
        else:
            # All ranks run in the pool, none in this thread: a Ctrl-C arrives here only, and cannot
            # keep one of them from the barrier that the others wait at.
            team = np.zeros(16, np.int64)
            futures: list[Future[tuple[float, int]]] = []
            try:
                for rank in range(self.n_threads):
                    futures.append(self.pool.submit(self._run_rank, rows, rates, rank, team))
            except BaseException:
                team[TEAM_ABORTED] = 1
                raise
            finally:
                interrupt = wait_for(futures)
            (total, taken), *_ = [future.result() for future in futures]
            if interrupt is not None:
                self.net.steps += taken
                raise interrupt
        self.net.steps += taken
        return total, taken

    def _run_rank(
        self,
        rows: NDArray[np.int64],
        rates: NDArray[np.float64],
        rank: int,
        team: NDArray[np.int64] | None,
    ) -> tuple[float, int]:
        net, data = self.net, self.data
        try:
            result: tuple[float, int] = _dispatch.core.train_epoch(
                net.plan, net.params, self.moments, data.X, data.targets, data.weights, rows,
                self.batch_size, rates, net.steps, self.objective, self.optimizer, self.noise,
                self.grads, self.workspace, rank, self.n_threads, team,
            )  # fmt: skip
        except BaseException:
            if team is not None:
                team[TEAM_ABORTED] = 1
            raise
        return result

    def _run_custom(self, rows: NDArray[np.int64], rates: NDArray[np.float64]) -> tuple[float, int]:
        """The same for a loss in Python: outputs, the callable, then a gradient from its dC/da."""
        core, net, data = _dispatch.core, self.net, self.data
        nothing = np.empty((0, 0), net.dtype)
        total, taken = 0.0, 0
        for start in range(0, len(rows), self.batch_size):
            batch = rows[start : start + self.batch_size]
            y = net.target_matrix(data.targets[batch])
            out = np.empty(y.shape, net.dtype)
            core.evaluate(
                net.plan, net.params, data.X, data.targets, batch, self.objective, self.noise,
                net.steps, out, np.empty(len(batch), net.dtype), self.workspace,
            )  # fmt: skip
            value, slope = net.custom_loss(out, y)
            penalty = core.gradient(
                net.plan, net.params, data.X[batch], slope, None, None, self.objective, self.noise,
                net.steps, self.grads, nothing, nothing, self.workspace,
            )  # fmt: skip
            if not math.isfinite(value + penalty):
                return total, taken
            core.update(
                net.plan, net.params, self.grads, self.moments, self.optimizer, net.steps,
                float(rates[taken]),
            )  # fmt: skip
            net.steps += 1
            total += (value + penalty) * len(batch)
            taken += 1
        return total, taken

    def epoch(
        self,
        rows: NDArray[np.int64],
        rates: NDArray[np.float64],
        out_of_time: Callable[[], bool] = lambda: False,
    ) -> tuple[float, int]:
        """Take one step per batch of `rows`, in calls short enough for Ctrl-C and the clock.

        Returns
        -------
        loss : float
            Weighted mean over the rows that were used; not finite where training diverged.
        n_rows : int
            Rows that were used.
        """
        per_call = max(1, int(CALL_FLOPS / max(self.step_flops, 1.0)))
        total = weight = 0.0
        done = 0
        for first in range(0, len(rates), per_call):
            part = rows[first * self.batch_size : (first + per_call) * self.batch_size]
            wanted = rates[first : first + per_call]
            loss, taken = self.run(part, wanted)
            if taken < len(wanted):
                return math.nan, done
            total += loss
            weight += self.data.weight(part)
            done += len(part)
            if done < len(rows) and out_of_time():
                break
        return (total / weight if weight else 0.0), done


TEAM_ABORTED = 9
"""Place in a team's array that tells waiting threads to go on (see _barrier.h)."""


def wait_for(futures: Iterable[Future[Any]]) -> BaseException | None:
    """Wait until every call has returned, also through a Ctrl-C, which is handed back."""
    interrupt: BaseException | None = None
    for future in futures:
        while not future.done():
            try:
                future.exception()
            except KeyboardInterrupt as error:
                interrupt = error
    return interrupt


# Validation --------------------------------------------------------------------------------------


def split(
    targets: Array, fraction: float, rng: np.random.Generator
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Divide the rows into training and validation rows; labels keep their proportions."""
    n = len(targets)
    n_val = round(n * fraction)
    if not 0 < n_val < n:
        raise ValueError(
            f"validation_fraction={fraction:g} of {n} rows leaves {n - n_val} to train and "
            f"{n_val} to validate; both need at least one"
        )
    order = rng.permutation(n)
    if targets.ndim == 1:
        # Spread every class evenly over the line of rows, then cut the line into equal steps.
        by_class = order[np.argsort(targets[order], kind="stable")]
        chosen = np.linspace(0, n, n_val, endpoint=False).astype(np.int64)
        validation = by_class[chosen]
    else:
        validation = order[:n_val]
    training = np.setdiff1d(order, validation, assume_unique=True)
    return training, np.sort(validation)


def r2_score(y: Array, output: Array, weights: NDArray[np.float64] | None) -> float:
    """1 - residual / total sum of squares, averaged over outputs; 1 for a constant met exactly."""
    y = np.asarray(y, np.float64)
    mean = np.average(y, axis=0, weights=weights)
    residual = np.average((y - output) ** 2, axis=0, weights=weights)
    total = np.average((y - mean) ** 2, axis=0, weights=weights)
    flat = total == 0
    ratio = np.where(flat, residual > 0, residual / np.where(flat, 1, total))
    return float(1 - ratio.mean())


def accuracy(targets: Array, output: Array, weights: NDArray[np.float64] | None) -> float:
    """Share of the rows read right; of a multi-label row, every label must be."""
    if targets.ndim == 1:
        right = output.argmax(axis=1) == targets
    else:
        right = ((output > 0.5) == (targets > 0.5)).all(axis=1)
    return float(np.average(right, weights=weights))


def evaluate(
    net: Network, data: Data, rows: NDArray[np.int64] | None
) -> tuple[float, float, Array]:
    """Return the mean loss, the score (accuracy or R^2) and the outputs on some rows."""
    n = len(data.X) if rows is None else len(rows)
    out = np.empty((n, net.sizes[-1]), net.dtype)
    row_loss = np.empty(n, net.dtype)
    objective = Recipe().objective(net)
    with net.scratch() as workspace:
        _dispatch.core.evaluate(
            net.plan, net.params, data.X, data.targets, rows, objective, Recipe().noise(net, 0), 0,
            out, row_loss, workspace,
        )  # fmt: skip
    targets = data.targets if rows is None else data.targets[rows]
    weights = data.weights if data.weights is None or rows is None else data.weights[rows]
    if net.loss_row is None:
        loss = net.custom_loss(out, net.target_matrix(targets))[0]
    else:
        loss = float(np.average(row_loss.astype(np.float64), weights=weights)) if n else 0.0
    if not n:
        return loss, math.nan, out
    if metric_of(net, targets) == "r2":
        return loss, r2_score(targets, out, weights), out
    if net.loss_row is not None and net.loss_row.name == "categorical_crossentropy":
        targets = targets if targets.ndim == 1 else targets.argmax(axis=1)
    return loss, accuracy(targets, out, weights), out


def metric_of(net: Network, targets: Array) -> str:
    """Return which score suits the targets: 'accuracy' for classes, 'r2' for numbers."""
    classifies = net.loss_row is not None and net.loss_row.classifies
    return "accuracy" if classifies or targets.ndim == 1 else "r2"


# The fit loop ------------------------------------------------------------------------------------


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


def _call(callbacks: Iterable[Any], event: str, state: TrainingState) -> None:
    """Tell every callback: an object by its method, a plain function of epochs only."""
    for callback in callbacks:
        method = getattr(callback, event, None)
        if method is None and event == "on_epoch_end" and callable(callback):
            method = callback
        if method is not None and method(state) is True:
            state.stop = True


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
    callbacks = tuple(callbacks)
    rows = np.arange(len(data.X), dtype=np.int64)
    held_out: NDArray[np.int64] | None = None
    if validation_fraction:
        rows, held_out = split(data.targets, validation_fraction, net.rng)
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

    safe = net.params.copy(), trainer.moments.copy()
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
                raise _diverged(net, data, recipe, history, safe, trainer)
            np.copyto(safe[0], net.params)
            np.copyto(safe[1], trainer.moments)
            state.epoch += 1
            values = {"epoch": len(net.history.get("epoch", [])) + 1.0, "loss": loss}
            if validation is not None:
                values["val_loss"], values["val_score"], _ = evaluate(net, validation, held_out)
            values["learning_rate"] = float(rates[-1])
            values["seconds"] = time.perf_counter() - began
            values["rows_per_second"] = n_rows / max(trained, 1e-9)
            history.append(values)
            net.history.append(values)
            best.see(values.get("val_loss", loss), state.epoch, net.params)
            progress.epoch(values)
            _call(callbacks, "on_epoch_end", state)
            if patience is not None and state.epoch - best.epoch >= patience:
                history.stopped = "patience"
                break
            elif out_of_time():
                history.stopped = "max_time"
                break
    except KeyboardInterrupt:
        history.stopped = "interrupted"
        if not _all_finite(net.params):
            np.copyto(net.params, safe[0])
            np.copyto(trainer.moments, safe[1])
        warnings.warn(
            f"training was interrupted after {state.epoch} of {epochs} epochs; "
            "the network keeps what it has learned",
            stacklevel=3,
        )
    finally:
        progress.close()
        trainer.close()
    if state.stop:
        history.stopped = "callback"
    history.best_epoch = best.epoch or None
    if best.params is not None:
        net.params[:] = best.params
    _call(callbacks, "on_train_end", state)
    return history


def _all_finite(values: Array) -> bool:
    """Whether there is no NaN or infinity, without a temporary."""
    return bool(np.isfinite(values.min()) and np.isfinite(values.max()))


def _diverged(
    net: Network,
    data: Data,
    recipe: Recipe,
    history: History,
    safe: tuple[Array, Array],
    trainer: Trainer,
) -> DivergenceError:
    """Find the layer, put the last finite weights back, and say what usually helps."""
    where = _first_bad_layer(net, data.X[:256])
    np.copyto(net.params, safe[0])
    np.copyto(trainer.moments, safe[1])
    largest = max(abs(float(data.X.min())), abs(float(data.X.max())))
    causes = [f"the learning rate is too high (it was {recipe.learning_rate:g}; try a tenth)"]
    if largest > 20:
        causes.append(f"X is not scaled (values up to {largest:.3g}; bring them to about 1)")
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


def _first_bad_layer(net: Network, X: Array) -> str:
    """Name the layer where the numbers stop being finite: in its weights, or in its sums."""
    names = [
        f"layer {number} ({n_in} -> {n_out}, {activation})"
        for number, (n_in, n_out, activation) in enumerate(
            zip(net.sizes, net.sizes[1:], net.activations, strict=False), 1
        )
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
