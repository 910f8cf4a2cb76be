"""Small networks of one architecture, trained side by side: one in each lane of a vector.

A lane does what :func:`cmlp.training.fit.run` does: the same draws, the same rules, the same sums
in another order. What a network learns does not depend on the networks next to it. A lane whose
network has ended takes the next one that waits; where too few are left, they continue alone.
"""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from cmlp.core import dispatch
from cmlp.core.errstate import undisturbed
from cmlp.core.layout import Array, aligned, layer_views
from cmlp.core.seam import (
    LANE,
    LANE_LOSSES,
    LANE_ROWS,
    LANE_RULES,
    LANE_SETTINGS,
    MAX_BATCH,
    TEAM_ABORTED,
    TEAM_STOP,
    Places,
    SparseRows,
    lane_memory,
    places,
)  # fmt: skip
from cmlp.core.team import Team, never
from cmlp.core.vocabulary import LOSSES
from cmlp.data.numbers import is_finite
from cmlp.data.rows import Data
from cmlp.model import passes
from cmlp.model.passes import flops_of
from cmlp.model.state import State
from cmlp.training.callbacks import TrainingState
from cmlp.training.divergence import DivergenceError
from cmlp.training.loop import Rules
from cmlp.training.recipe import Recipe
from cmlp.training.snapshot import Snapshot

PYTHON_LANES = 8
"""Networks of a call of the NumPy core, which trains them in one product of stacked matrices."""


CALL_ROWS = 2**16
"""Rows of a network that one call takes at most: several epochs, if nothing comes between them."""


MOST_INPUTS, MOST_PARAMETERS = 2**11, 2**17
"""Inputs and parameters of all lanes: beyond them networks are faster alone: they use whole vectors
by themselves, and all lanes' numbers leave the caches."""


BLOCK = 4
"""Networks that share a queue, as a multiple of the lanes."""


SMALL = 2**15
"""Parameters of all lanes beyond which batches of more than :data:`FEW_ROWS` are faster alone."""


FEW_ROWS = LANE_ROWS // 4


class LaneRules(Rules, Protocol):
    """Rules of a training that a lane can have; see :class:`cmlp.training.loop.Rules`."""

    net: State
    data: Data
    state: TrainingState
    batch_size: int

    @property
    def recipe(self) -> Recipe:
        """What a step does."""

    def end(self, stopped: str) -> None:
        """Restore the best parameters, if they are kept, and record how training has ended."""


class Job:
    """A network's fit: its rules, and the epochs that were drawn for it.

    Attributes
    ----------
    error : DivergenceError or None
        Where it has diverged, and raises.
    """

    def __init__(self, rules: LaneRules) -> None:
        self.rules, self.net = rules, rules.net
        self.epochs: deque[tuple[NDArray[np.int64], NDArray[np.float64]]] = deque()
        self.safe: Snapshot | None = None
        self.careful = False
        self.error: DivergenceError | None = None
        self.per_batch = rules.recipe.objective(rules.net.architecture).per_batch

    def continue_alone(self) -> None:
        """Train the network, or the rest of its epochs, by itself."""
        raise NotImplementedError

    def draw(self) -> int:
        """Draw the epochs that nothing comes between; return how many the next call takes."""
        rules, state = self.rules, self.rules.state
        if not self.epochs:
            n = min(epochs_of_a_call(self), state.epochs - state.epoch, rules.foreseen())
            for _ in range(int(n)):
                order, rates = np.empty(rules.n_rows, np.int64), np.empty((1, rules.n_steps))
                rules.draw(order, rates)
                self.epochs.append((order, rates[0]))
        return 1 if self.careful else len(self.epochs)

    def record(self, losses: list[float], seconds: float) -> str:
        """Record the first of the epochs; return why training ends with them, or ''."""
        rules, verdict = self.rules, ""
        for loss in losses:
            mean, rate = self._next(loss)
            rules.record(mean, rules.n_rows, rate, seconds, True)
            verdict = rules.verdict()
        done = rules.state.epoch >= rules.state.epochs
        return verdict or ("epochs" if done else "")

    def _next(self, loss: float) -> tuple[float, float]:
        """Count an epoch; return its mean loss, and its last rate."""
        order, rates = self.epochs.popleft()
        self.rules.state.epoch += 1
        weight = len(order) if self.per_batch else self.rules.data.weight(order)
        return loss / weight if weight else 0.0, float(rates[-1])

    def diverged(self, loss: float, failed: bool) -> None:
        """End after an epoch with this loss, whose last step `failed` or left such weights."""
        rules = self.rules
        assert self.safe is not None
        try:
            rules.diverged(self.safe)
            mean, rate = self._next(loss)  # the rules have better weights to return to
            rules.record(math.nan if failed else mean, 0 if failed else rules.n_rows, rate, 0.0,
                         False)  # fmt: skip
        except DivergenceError as error:
            self.error = error
        self.end("diverged")

    def end(self, stopped: str) -> None:
        """Record how the training has ended."""
        self.rules.end(stopped)
        self.safe = None  # of many networks, these would fill the memory


def epochs_of_a_call(job: Job) -> int:
    """Return how many epochs of a network a call takes at most."""
    return max(1, CALL_ROWS // job.rules.n_rows)


class Kind(NamedTuple):
    """What the networks of a call have in common."""

    plan: bytes
    loss: str
    rule: str
    label_smoothing: float
    input_scale: float
    data: int

    @property
    def rows(self) -> tuple[object, ...]:
        """What decides how the core reads X and y."""
        return self.loss, self.label_smoothing, self.input_scale, self.data


def lanes_of_core() -> int:
    """Return how many networks a call of the present core trains; 1 where there are no lanes."""
    core = dispatch.core
    return PYTHON_LANES if core.name == "python" else max(1, int(core.vector_bytes) // 4)


def kind_of(net: State, recipe: Recipe, data: Data, batch_size: int) -> Kind | None:
    """Return which networks this one can be trained with side by side; None for none.

    Lanes have float32, plain layers, SGD and Adam, the losses with the output activation that
    belongs to them, penalties and decay. Everything else is trained alone: noise, dropout,
    normalisation, parametric activations, other solvers and losses, clipping, means of the weights,
    factors of groups, sparse rows; and what is too large.
    """
    about, rule = net.architecture, recipe.rule.name
    rows = {row.name: row for row in LOSSES}
    plain = (
        lanes_of_core() > 1
        and net.dtype == np.float32
        and net.normalization is None
        and net.precision is None
        and not net.parametric_activation
        and net.inputs is None
        and not (net.missing_targets and not is_finite(data.targets))
        and net.loss_name in LANE_LOSSES
        and net.activations[-1] == rows[net.loss_name].out_activation
        and not isinstance(data.X, SparseRows)
    )
    steps = (
        rule in ("sgd", "adam", "adamw")
        and not np.any(recipe.dropout)
        and not (recipe.input_noise or recipe.clip_norm or recipe.ema)
        and recipe.rate_factors is None
        and recipe.decay_factors is None
    )
    if not (plain and steps):
        return None
    n_lanes, sizes = lanes_of_core(), about.sizes
    small = (
        batch_size <= MAX_BATCH
        and n_lanes * sizes[0] <= MOST_INPUTS
        and n_lanes * about.n_params <= (MOST_PARAMETERS if batch_size <= FEW_ROWS else SMALL)
    )
    weighs = data.weights is not None and recipe.objective(about).per_batch
    if not small or weighs:
        return None
    rule = "adam" if rule != "sgd" else "nesterov" if recipe.nesterov else "momentum"
    return Kind(
        net.plan.tobytes(), net.loss_name, rule, recipe.label_smoothing, net.input_scale, id(data)
    )


def fewest_of(net: State, batch_size: int) -> int:
    """Return how many networks have to share a call: a step takes as long for one as for all.

    With all lanes in use it takes 0.4 to 0.7 of the time of networks alone up to 2,000 parameters,
    up to 0.95 beyond, and more in batches of several passes: see docs/decisions.md.
    """
    n_lanes = lanes_of_core()
    n_params = n_lanes * net.n_params
    part = 0.6 if n_params <= SMALL // 2 else 0.85 if n_params <= SMALL else 1.0
    return math.ceil(n_lanes * min(1.0, part + (0.25 if batch_size > LANE_ROWS else 0.0)))


def train_side_by_side(
    kinds: Mapping[Kind, Sequence[Job]], n_threads: int | None = None
) -> list[Job]:
    """Train the networks of each kind; return those that have to continue alone.

    Blocks of networks are what threads share: which networks have a call in common, and with it
    every bit of the result, does not depend on the number of threads.

    Raises
    ------
    KeyboardInterrupt
        After every network that had begun has the parameters of its last recorded epoch.
    """
    size = BLOCK * lanes_of_core()
    blocks = [
        (kind, jobs[first : first + size])
        for kind, jobs in kinds.items()
        for first in range(0, len(jobs), size)
    ]
    rows = {kind.rows: rows_of(kind, jobs[0]) for kind, jobs in blocks}
    numbers, alone = deque(range(len(blocks))), dict[int, list[Job]]()

    @undisturbed
    def train_blocks(rank: int, places: Places) -> None:
        while numbers:
            try:
                number = numbers.popleft()
            except IndexError:  # another thread has taken the last one
                return
            kind, jobs = blocks[number]
            call = Lanes(kind, jobs, rows[kind.rows])
            call.run(lambda: bool(places[TEAM_STOP] or places[TEAM_ABORTED]))
            alone[number] = call.alone

    n_threads = min(dispatch.threads_for(n_threads), len(blocks))
    team = Team(n_threads if n_threads > 1 and dispatch.core.name != "python" else 0)
    try:
        team.run(train_blocks, places(), never)
    finally:
        team.close()
    return [job for number in sorted(alone) for job in alone[number]]


def rows_of(kind: Kind, job: Job) -> Array:
    """Return X and after it the targets as the core reads them, one flat array."""
    net, data = job.net, job.rules.data
    assert not isinstance(data.X, SparseRows)
    targets = net.target_matrix(data.targets)
    if kind.label_smoothing:
        uniform = 1 / net.sizes[-1] if kind.loss == "categorical_crossentropy" else 0.5
        targets += np.float32(kind.label_smoothing) * (np.float32(uniform) - targets)
    flat = np.empty(data.X.size + targets.size, np.float32)
    X = flat[: data.X.size].reshape(data.X.shape)
    np.multiply(data.X, np.float32(net.input_scale), out=X, casting="same_kind")
    flat[data.X.size :] = targets.ravel()
    return flat


class Lanes:
    """The arrays of the calls of one kind, and who is in which lane."""

    def __init__(self, kind: Kind, jobs: Sequence[Job], rows: Array) -> None:
        first = jobs[0]
        net, data = first.net, first.rules.data
        self.kind, self.waiting, self.alone = kind, deque(jobs), list[Job]()
        self.n_lanes, self.plan = lanes_of_core(), net.plan
        self.jobs: list[Job | None] = [None] * self.n_lanes
        layers = layer_views(net.plan, np.arange(len(net.params)))
        self.places = np.concatenate([part.ravel() for layer in layers for part in layer])
        self.data = rows
        self.weights = data.weights
        n, n_moments = self.n_lanes, 2 if kind.rule == "adam" else 1
        batch = max(job.rules.batch_size for job in jobs)
        self.fewest = fewest_of(net, batch)
        self.memory = aligned((lane_memory(net.plan, n_moments, batch, n),), np.float32)
        state = self.memory[: (1 + n_moments) * len(self.places) * n]
        self.params, *self.moments = state.reshape(1 + n_moments, -1, n)
        self.table = np.zeros((n, len(LANE)), np.int64)
        self.began, self.due = [0.0] * n, [False] * n
        self.most = max(1, int(passes.CALL_FLOPS / (n * (flops_of(net) * batch + 2e4))))
        epochs = [min(epochs_of_a_call(job), job.rules.state.epochs) for job in jobs]
        rules = [job.rules for job in jobs]
        self.rows = np.empty((n, most_of(rules, epochs, "n_rows")), np.int64)
        self.parts = np.cumsum(
            [0, len(LANE_SETTINGS), max(epochs), most_of(rules, epochs, "n_steps")]
        )
        self.numbers = np.zeros((n, self.parts[-1]))  # settings, losses and rates of each lane

    def run(self, stops: Callable[[], bool]) -> None:
        """Train until no network is left that shares a call; `stops`: Ctrl-C came elsewhere."""
        try:
            self._fill()
            while any(self.jobs):
                dispatch.core.train_lanes(
                    self.plan, self.memory, self.data, self.weights, self.rows.ravel(),
                    self.numbers.ravel(), self.table.ravel(), LANE_LOSSES.index(self.kind.loss),
                    LANE_RULES.index(self.kind.rule), self.most,
                )  # fmt: skip
                in_use = sum(job is not None for job in self.jobs)
                for lane, job in enumerate(self.jobs):
                    if job is not None:
                        self._see(lane, job, in_use)
                if stops():
                    raise KeyboardInterrupt
                self._fill()
        except BaseException as error:
            self._leave_all("interrupted" if isinstance(error, KeyboardInterrupt) else "error")
            raise

    def _fill(self) -> None:
        """Begin the next epochs, and give free lanes to networks that wait; or end with too few."""
        in_use = sum(job is not None for job in self.jobs)
        few = in_use + len(self.waiting) < self.fewest
        for lane, job in enumerate(self.jobs):
            if job is not None and self.due[lane]:
                if few and not job.epochs:
                    self.alone.append(job)
                    self._free(lane)
                else:
                    self._begin(lane, job)
        if few:
            self.alone += self.waiting
            self.waiting.clear()
        for lane, job in enumerate(self.jobs):
            if job is None and self.waiting:
                self._take(lane, self.waiting.popleft())

    def _free(self, lane: int) -> None:
        self.jobs[lane], self.table[lane] = None, 0

    def _take(self, lane: int, job: Job) -> None:
        """Give a lane to a network."""
        job.net.optimizer_state.moments_for(job.rules.recipe.rule)
        job.safe = Snapshot(job.net)
        self.numbers[lane, : self.parts[1]] = settings_of(job)
        self.jobs[lane] = job
        self._load(lane, job)
        self._begin(lane, job)

    def _load(self, lane: int, job: Job) -> None:
        self.params[:, lane] = job.net.params[self.places]
        for mine, theirs in zip(self.moments, job.net.moments, strict=True):
            mine[:, lane] = theirs[self.places]

    def _unload(self, lane: int, job: Job) -> None:
        job.net.params[self.places] = self.params[:, lane]
        if self.kind.rule == "adam" or job.rules.recipe.momentum:  # else there are none
            for mine, theirs in zip(self.moments, job.net.moments, strict=True):
                theirs[self.places] = mine[:, lane]

    def _begin(self, lane: int, job: Job) -> None:
        """Write the epochs of the next calls."""
        n, rules = job.draw(), job.rules
        steps = n * rules.n_steps
        for epoch, (order, rates) in enumerate(list(job.epochs)[:n]):
            self.rows[lane, epoch * rules.n_rows :][: rules.n_rows] = order
            self.numbers[lane, self.parts[2] + epoch * rules.n_steps :][: rules.n_steps] = rates
        self.numbers[lane, self.parts[1] :][:n] = 0
        settings, losses, own_rates, end = self.parts.tolist()
        at = lane * end
        self.table[lane] = (
            rules.n_rows, rules.batch_size, steps, 0, job.net.steps, lane * self.rows.shape[1],
            at + own_rates, at + losses, at + settings, 0,
        )  # fmt: skip
        self.began[lane], self.due[lane] = time.perf_counter(), False

    def _see(self, lane: int, job: Job, in_use: int) -> None:
        """Record a network's epochs, if its calls are done; the next ones are due, or it ends."""
        place = dict(zip(LANE, self.table[lane].tolist(), strict=True))
        if place["taken"] < place["steps"] and not place["failed"]:
            return
        net, n = job.net, place["steps"] // job.rules.n_steps
        self._unload(lane, job)
        assert job.safe is not None
        if place["failed"] or not is_finite(net.params):
            if n > 1:  # one by one, to find the epoch that diverged
                job.safe.put_back()
                job.careful = True
                self._load(lane, job)
                self.due[lane] = True
                return
            job.diverged(float(self.numbers[lane, self.parts[1]]), bool(place["failed"]))
            self._free(lane)
            return
        net.optimizer_state.steps += place["taken"]
        job.safe.take()
        seconds = (time.perf_counter() - self.began[lane]) / n / in_use
        losses = self.numbers[lane, self.parts[1] :][:n]
        stopped = job.record(losses.tolist(), seconds)
        self.due[lane] = not stopped
        if stopped:
            job.end(stopped)
            self._free(lane)

    def _leave_all(self, stopped: str) -> None:
        """Give every network the parameters of its last recorded epoch."""
        for job in self.jobs:
            if job is not None and job.safe is not None:
                job.safe.put_back()
                job.end(stopped)


def settings_of(job: Job) -> list[float]:
    """Return the numbers that a lane has of its own."""
    recipe = job.rules.recipe
    objective = recipe.objective(job.net.architecture)
    return [
        float(getattr(objective if hasattr(objective, name) else recipe, name))
        for name in LANE_SETTINGS
    ]


def most_of(rules: Sequence[LaneRules], epochs: list[int], name: str) -> int:
    """Return the largest product of epochs and rows or steps of an epoch."""
    return max(n * int(getattr(rule, name)) for rule, n in zip(rules, epochs, strict=True))
