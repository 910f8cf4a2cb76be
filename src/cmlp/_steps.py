"""Taking steps: what one is made of, the data it uses, the threads and arrays that carry it."""

from __future__ import annotations

import math
import threading
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from . import _dispatch
from ._arrays import refuse_masked
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
    SparseRows,
    aligned,
    lookup,
    unknown,
)
from ._team import TEAM_STEPS, TEAM_STOP, Places, Team, never, places

if TYPE_CHECKING:
    from .network import Network

Array = NDArray[Any]

CALL_FLOPS = 2e9
"""Work of one call of the core: a fraction of a second, then Python sees Ctrl-C and the clock."""

CALL_ROWS = 2**20
"""Rows of one call of several epochs: 8 MB of row numbers."""

COMPILED_FLOPS, PYTHON_FLOPS = 2e4, 5e7
"""What a step costs besides its products, in work that would take as long."""

PASS_ROWS = 1024
"""Rows that the cores take through a network together."""

THREAD_FLOPS = 1e7
"""Work of one step from which a second thread pays for its barriers."""


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
    ema: float = 0.0

    def __post_init__(self) -> None:
        self.rule  # noqa: B018 - an unknown solver is refused here
        for name in ("learning_rate", "l1", "l2", "weight_decay", "input_noise"):
            check_number(name, getattr(self, name), 0)
        check_number("momentum", self.momentum, 0, 1)
        for name in ("beta_1", "beta_2", "label_smoothing", "ema"):
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
        missing = row is not None and net.missing_targets
        return Objective(code, net.loss_parameter, self.label_smoothing, self.l1, self.l2, missing)

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
            float(self.ema),
        )

    def noise(self, net: Network, seed: int) -> Noise:
        """Return what the core disturbs the rows with."""
        n_hidden = len(net.plan) - 1
        refuse_masked("dropout", self.dropout)
        try:
            given = np.asarray(self.dropout, dtype=np.float64)
        except (TypeError, ValueError):
            raise TypeError(f"dropout must be numbers, not {self.dropout!r}") from None
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


def make_recipe(parameters: dict[str, Any]) -> Recipe:
    """Check the names of keyword arguments, and make a recipe of them."""
    known = [field.name for field in fields(Recipe)]
    for name in parameters:
        if name not in known:
            raise TypeError(str(unknown("parameter", name, known, known)))
    return Recipe(**parameters)


@dataclass(frozen=True)
class Data:
    """Checked rows with their targets and weights, as the core takes them."""

    X: Array | SparseRows
    targets: Array
    weights: NDArray[np.float64] | None

    def weight(self, rows: NDArray[np.int64]) -> float:
        """Sum the weights of some rows."""
        return float(len(rows) if self.weights is None else self.weights[rows].sum())


class Snapshot:
    """Weights and optimizer state to go back to."""

    def __init__(self, net: Network) -> None:
        self.net = net
        self.params = net.params.copy()
        self.solver, self.moments, self.steps = net.solver, net.moments.copy(), net.steps
        self.averaged, self.shown_average = net.averaged, net.shown_average

    def take(self) -> None:
        """Remember the present state instead, without a new allocation."""
        np.copyto(self.params, self.net.params)
        np.copyto(self.moments, self.net.moments)
        self.steps, self.averaged = self.net.steps, self.net.averaged
        self.shown_average = self.net.shown_average

    def put_back(self) -> None:
        """Restore what was remembered."""
        np.copyto(self.net.params, self.params)
        self.net.moments = self.moments.copy()
        self.net.solver, self.net.steps = self.solver, self.steps
        self.net.averaged, self.net.shown_average = self.averaged, self.shown_average


def shared_penalties(objective: Objective, weights: NDArray[np.float64] | None) -> Objective:
    """Return an objective for a custom loss, whose weights the core does not see.

    With ``per_batch`` the core divides the penalties by the number of rows, and scikit-learn by
    their weight.
    """
    if weights is None or not objective.per_batch:
        return objective
    factor = len(weights) / float(weights.sum()) if weights.any() else 0.0
    return objective._replace(l1=objective.l1 * factor, l2=objective.l2 * factor)


def flops_of(net: Network) -> float:
    """Return the floating-point operations of a training step, for one row."""
    return 6.0 * int((net.plan[:, N_IN] * net.plan[:, N_OUT]).sum())


def portions(
    X: Array | SparseRows, flops: float
) -> Iterator[tuple[slice, Array | SparseRows, NDArray[np.int64] | None]]:
    """Divide rows between calls of the core that are short enough for Ctrl-C.

    Yields
    ------
    part : slice
        Some of the rows, a multiple of those of a pass.
    X, rows
        What the core takes for them: a part of the array, or all of it and the rows' numbers.
    """
    size = max(1, int(CALL_FLOPS / flops / PASS_ROWS)) * PASS_ROWS
    if len(X) <= size:
        yield slice(None), X, None
        return
    for start in range(0, len(X), size):
        part = slice(start, min(start + size, len(X)))
        if isinstance(X, SparseRows):
            yield part, X, np.arange(part.start, part.stop)
        else:
            yield part, X[part], None


def in_main_thread() -> bool:
    """Whether this is the thread that Ctrl-C arrives in."""
    return threading.current_thread() is threading.main_thread()


def digest(params: Array) -> int:
    """Recognise parameters again."""
    return zlib.crc32(params.data)


def _exchange(net: Network) -> None:
    """Put the mean of the parameters in their place, and them in the place of the mean."""
    kept = net.params.copy()
    net.params[:] = net.moments[-1]
    net.moments[-1] = kept


def show_average(net: Network) -> None:
    """Put the mean of the parameters into the network, if it takes one and does not have it."""
    if net.averaged and net.shown_average is None:
        _exchange(net)
        net.shown_average = digest(net.params)


def resume_from_average(net: Network) -> None:
    """Bring back the parameters that the mean is of, so that training goes on.

    If the network has others than the mean that was left in it, someone has written them:
    training goes on from there, and a new mean begins.
    """
    if net.averaged and net.shown_average is not None:
        if net.shown_average == digest(net.params):
            _exchange(net)
        else:
            net.averaged = 0
    if not net.averaged:
        net.moments[-1] = 0
    net.shown_average = None


class Trainer:
    """Takes steps on a network: holds the scratch arrays and the threads of one fit.

    Parameters
    ----------
    keeps_steps_whole : bool
        Whether the NumPy core runs in a thread of its own, too, so that Ctrl-C cannot interrupt it
        between two statements of an update.
    """

    def __init__(
        self,
        net: Network,
        data: Data,
        recipe: Recipe,
        batch_size: int,
        n_threads: int | None,
        *,
        keeps_steps_whole: bool = False,
    ) -> None:
        self.net, self.data, self.batch_size = net, data, batch_size
        self.objective, self.optimizer = recipe.objective(net), recipe.optimizer()
        self.noise = recipe.noise(net, 0)
        if self.noise.input_noise or len(self.noise.dropout):
            self.noise = self.noise._replace(seed=int(net.rng.integers(2**63)))
        if net.normalization == "batch" and batch_size == 1:
            raise ValueError(
                "normalization='batch' needs batches of at least 2 rows; 'layer' takes single ones"
            )
        net.moments_for(recipe.rule, averages=recipe.ema > 0)
        self.step_flops = flops_of(net) * batch_size
        self.is_long = self.step_flops > CALL_FLOPS
        self.stopped = False
        self.n_threads = self._choose_threads(n_threads)
        size = _dispatch.core.workspace_size(net.plan, batch_size, self.n_threads)
        self.workspace = aligned((size,), net.dtype)
        self.grads = np.zeros_like(net.params)
        in_python = _dispatch.core.name == "python"
        in_threads = (
            self.n_threads > 1
            or self.is_long
            or (keeps_steps_whole and in_python and in_main_thread())
        )
        self.team = Team(self.n_threads if in_threads else 0)

    def _choose_threads(self, n_threads: int | None) -> int:
        if _dispatch.core.name == "python" or self.net.loss_row is None:
            return 1  # NumPy's products have threads of their own
        if self.step_flops < THREAD_FLOPS:
            return 1
        return _dispatch.threads_for(n_threads)

    def close(self) -> None:
        """End the threads, and leave the mean of the weights in the network, if there is one."""
        show_average(self.net)
        self.team.close()

    def run(
        self,
        rows: NDArray[np.int64],
        rates: NDArray[np.float64],
        losses: NDArray[np.float64] | None = None,
        out_of_time: Callable[[], bool] = never,
    ) -> tuple[float, int]:
        """Take one step per batch; return the summed loss, and the number of whole steps.

        There are fewer than batches where a loss is not finite, or where a long step was `stopped`
        by Ctrl-C or `out_of_time`. `rows` may be as many epochs as there are `losses` to write.
        """
        team = places()
        self.stopped = False
        ends = out_of_time if self.is_long else None
        steps = self.net.steps
        statistics = [part.copy() for pair in self.net.running for part in pair] if ends else []

        def epoch(rank: int, team: Places) -> tuple[float, int]:
            return self._run_rank(rows, rates, losses, rank, team)

        # The core counts its steps in the team's array: a Ctrl-C may take the place of its answer.
        try:
            if self.net.loss_row is None:
                return self._run_custom(rows, rates, team, ends)
            return self.team.run(epoch, team, ends)
        finally:
            self.net.steps += int(team[TEAM_STEPS])
            self.stopped = bool(team[TEAM_STOP]) and self.net.steps - steps < len(rates)
            if self.stopped:  # a long step has a call of its own: all passes in it are undone
                running = [part for pair in self.net.running for part in pair]
                for part, before in zip(running, statistics, strict=True):
                    part[...] = before

    def _run_rank(
        self,
        rows: NDArray[np.int64],
        rates: NDArray[np.float64],
        losses: NDArray[np.float64] | None,
        rank: int,
        team: Places,
    ) -> tuple[float, int]:
        net, data = self.net, self.data
        result: tuple[float, int] = _dispatch.core.train_epoch(
            net.plan, net.params, net.moments, data.X, data.targets, data.weights, rows,
            self.batch_size, rates, net.steps, self.objective, self.optimizer, self.noise,
            self.grads, self.workspace, rank, self.n_threads, team, net.input_scale, losses,
        )  # fmt: skip
        return result

    def _run_custom(
        self,
        rows: NDArray[np.int64],
        rates: NDArray[np.float64],
        team: Places,
        ends: Callable[[], bool] | None,
    ) -> tuple[float, int]:
        """The same for a loss in Python: outputs, the callable, then a gradient from its dC/da.

        The callable runs in the thread that called.
        """
        core, net, data = _dispatch.core, self.net, self.data
        nothing = np.empty((0, 0), net.dtype)
        total, taken = 0.0, 0

        def forward(rank: int, team: Places) -> None:
            core.evaluate(
                net.plan, net.params, data.X, data.targets, batch, self.objective, self.noise,
                net.steps, out, np.empty(len(batch), net.dtype), self.workspace, net.input_scale,
                team,
            )  # fmt: skip

        def backward(rank: int, team: Places) -> float:
            penalty: float = core.gradient(
                net.plan, net.params, data.X[batch], slope, None, None, objective, self.noise,
                net.steps, self.grads, nothing, nothing, self.workspace, net.input_scale, True,
                team,
            )  # fmt: skip
            return penalty

        def update(rank: int, team: Places) -> None:
            core.update(
                net.plan, net.params, self.grads, net.moments, self.optimizer, net.steps,
                float(rates[taken]),
            )  # fmt: skip
            net.steps += 1

        for start in range(0, len(rows), self.batch_size):
            batch = rows[start : start + self.batch_size]
            weights = None if data.weights is None else data.weights[batch]
            y = net.target_matrix(data.targets[batch])
            out = np.empty(y.shape, net.dtype)
            self.team.run(forward, team, ends)
            if team[TEAM_STOP]:
                break
            value, slope = net.custom_loss(out, y, weights)
            objective = shared_penalties(self.objective, weights)
            penalty = self.team.run(backward, team, ends)
            if team[TEAM_STOP]:
                break
            if not math.isfinite(value + penalty):
                return total, taken
            self.team.run(update, team)
            taken += 1
            total += (value + penalty) * (
                len(batch) if weights is None or objective.per_batch else float(weights.sum())
            )
        return total, taken

    def epoch(
        self,
        rows: NDArray[np.int64],
        rates: NDArray[np.float64],
        out_of_time: Callable[[], bool] = never,
    ) -> tuple[float, int]:
        """Take one step per batch of `rows`, in calls short enough for Ctrl-C and the clock.

        Returns
        -------
        loss : float
            Weighted mean over the rows that were used; not finite where training diverged.
        n_rows : int
            Rows that were used: 0 where time was over before the first step was done.
        """
        if self.optimizer.ema:
            resume_from_average(self.net)
            start = self.net.steps - self.net.averaged
            self.optimizer = self.optimizer._replace(ema_start=start)
        try:
            return self._epoch(rows, rates, out_of_time)
        finally:
            if self.optimizer.ema:
                self.net.averaged = self.net.steps - self.optimizer.ema_start

    def _epoch(
        self,
        rows: NDArray[np.int64],
        rates: NDArray[np.float64],
        out_of_time: Callable[[], bool],
    ) -> tuple[float, int]:
        per_call = self._steps_of_a_call()
        total = weight = 0.0
        done = 0
        for first in range(0, len(rates), per_call):
            part = rows[first * self.batch_size : (first + per_call) * self.batch_size]
            wanted = rates[first : first + per_call]
            loss, taken = self.run(part, wanted, None, out_of_time)
            if taken < len(wanted) and not self.stopped:
                return math.nan, done
            part = part[: taken * self.batch_size]
            total += loss
            weight += len(part) if self.objective.per_batch else self.data.weight(part)
            done += len(part)
            if self.stopped or (done < len(rows) and out_of_time()):
                break
        return (total / weight if weight else 0.0), done

    def _steps_of_a_call(self) -> int:
        in_python = self.net.loss_row is None or _dispatch.core.name == "python"
        overhead = PYTHON_FLOPS if in_python else COMPILED_FLOPS
        return max(1, int(CALL_FLOPS / (self.step_flops + overhead)))

    def epochs_of_a_call(self, n_rows: int) -> int:
        """How many epochs fit into one call of :meth:`epochs`."""
        if self.net.loss_row is None or self.optimizer.ema:
            return 1
        n_steps = -(-n_rows // self.batch_size)
        return max(1, min(self._steps_of_a_call() // n_steps, CALL_ROWS // n_rows))

    def epochs(
        self, orders: NDArray[np.int64], rates: NDArray[np.float64]
    ) -> NDArray[np.float64] | None:
        """Run several epochs in one call of the core; nothing else happens between them.

        Parameters
        ----------
        orders : (n_epochs, n) array
            The same rows, in the order of each epoch.
        rates : (n_epochs, n_steps) array

        Returns
        -------
        losses : (n_epochs,) array, or None where training diverged in one of them
        """
        losses = np.empty(len(orders))
        _, taken = self.run(orders.ravel(), rates.ravel(), losses)
        if taken < rates.size:
            return None
        if self.objective.per_batch:
            weights = np.full(len(orders), float(orders.shape[1]))
        else:
            weights = np.array([self.data.weight(order) for order in orders])
        losses /= weights
        return losses
