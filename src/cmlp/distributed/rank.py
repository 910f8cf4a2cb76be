"""Rank: one process of a training, which is made of rounds.

A round is an epoch, or some seconds of one. What it changes (weights, moments, statistics, random
state, position, record) becomes valid in one piece, after its last message has arrived; whatever
fails before that restores what was valid before. So each rank holds a state from which training can
continue, and the others get that of the rank that is furthest.
"""

from __future__ import annotations

import json
import math
import sys
import threading
import time
import zlib
from contextlib import nullcontext
from dataclasses import dataclass, replace
from typing import Any, NamedTuple, cast

import numpy as np
from numpy.typing import NDArray

from cmlp.core import dispatch
from cmlp.core.checks import check_integer
from cmlp.core.layout import Array
from cmlp.data.numbers import is_finite
from cmlp.data.rows import Data
from cmlp.data.source import Source
from cmlp.distributed.communicator import Communicator, OutOfStepError, RankError
from cmlp.distributed.shards import Shard, Shares, dealt, merged, some_rows
from cmlp.distributed.steps import ERROR, LOSS, STOP, WEIGHT, Stepper, average
from cmlp.formats.training_records import generator
from cmlp.model.scoring import metric_of
from cmlp.model.state import State
from cmlp.sources.encode import network_encoder
from cmlp.sources.evaluation import Scores
from cmlp.training.divergence import diverged
from cmlp.training.feed import Feed, Progressed
from cmlp.training.fit import Options, rules_of
from cmlp.training.recipe import Recipe
from cmlp.training.snapshot import Snapshot
from cmlp.training.trainer import Trainer

EFFICIENCY, MEASURED = 0.95, 20
"""What sync_every="auto" aims at, and the steps that it measures."""


class Position(NamedTuple):
    """Where a training stands: epochs that are done, and steps of the next one."""

    epoch: int
    step: int


@dataclass
class Settings:
    """What all ranks of a training have the same.

    Attributes
    ----------
    recipe : Recipe
    options : Options
    n_shards : int
        Into which the rows are cut, whatever the number of ranks; at least as many.
    sync_every : int, pair or 'auto'
        Steps between two sums: 1 sums gradients; more average weights. A pair has the epochs before
        which it is 1; 'auto' measures.
    memory : int
        Bytes for the rows.
    """

    recipe: Recipe
    options: Options
    n_shards: int = 8
    sync_every: Any = 1
    memory: int = 10**9

    def __post_init__(self) -> None:
        every, self.warm_up = self.sync_every, 0
        self.k: int | None = None
        if every != "auto":
            pair = every if isinstance(every, tuple) and len(every) == 2 else (0, every)
            self.warm_up = check_integer("the epochs of sync_every", pair[0], 0)
            self.k = check_integer("sync_every", pair[1], 1)

    def check(self, net: State) -> None:
        """Check that they suit a network."""
        self.recipe.check(net.architecture)
        if net.normalization == "batch" and ((self.k or 1) == 1 or self.warm_up):
            raise ValueError(
                "normalization='batch' has statistics of a whole batch, which no rank sees: use "
                "'layer', or sync_every above 1"
            )
        loss = net.architecture.custom_loss
        if loss is not None and not getattr(loss, "row_mean", False):
            raise ValueError(
                "each rank calls the loss on its own rows: if it is a mean over rows, say so by "
                "loss.row_mean = True"
            )

    def described(self) -> str:
        """Return what has to be the same, as text."""
        options = vars(self.options).copy()
        for own in ("callbacks", "verbose", "n_threads", "max_time", "schedules"):
            del options[own]
        for name, value in options.items():  # the repr of a function has an address
            options[name] = getattr(value, "__qualname__", value)
        return repr((self.recipe, options, self.n_shards, self.sync_every, self.memory))


@dataclass
class Round:
    """What a round has done.

    Attributes
    ----------
    position : Position
        Where the training stands after it.
    records : list of dict
        What the history has got: the epoch that was completed, if one was.
    ended : str
        Why training ends with it; empty if it continues.
    rows : int
        That this rank has used.
    computed, waited : float
        Seconds of this rank: for steps, and for the other ranks.
    first : (float, float)
        Those of the first step, which may have read files, and of its sum.
    """

    position: Position
    records: list[dict[str, float]]
    ended: str = ""
    rows: int = 0
    computed: float = 0.0
    waited: float = 0.0
    first: tuple[float, float] = (0.0, 0.0)


class Rank:
    """One process of a training; every engine calls :meth:`round` until it has ended.

    Parameters
    ----------
    net : Network
        It has the last valid state at any time between two rounds.
    rows : Data or Source
        All rows, encoded; or what a rank reads its share from. The same on every rank.
    settings : Settings
    validation : Data, optional
        Rows to validate on, of which each rank takes a part.
    """

    def __init__(
        self, net: State, rows: Data | Source, settings: Settings, validation: Data | None = None
    ) -> None:
        settings.check(net)
        self.net, self.rows, self.settings, self.validation = net, rows, settings, validation
        self.options, self.k = settings.options, settings.k
        if isinstance(rows, Data):
            self.encoder, self.latest = None, some_rows(rows, np.arange(min(256, len(rows.X))))
        else:
            self.encoder = network_encoder(net, rows)
            self.latest = Data(*self.encoder(rows.first(), lambda row: rows.place(0, row)))
        self.halt = threading.Event()
        self.seconds = self.waited_for_rows = self.rate = 0.0
        self.carried: tuple[int, int] | None = None
        self.shards: list[Shard] = []
        self._seed(int(net.rng.integers(2**62)))
        if validation is None and self.options.validation_fraction > 0:
            validation = self.latest  # each shard has its own
        self.rules = rules_of(net, cast(Feed, self), settings.recipe, self.options, validation)
        self.rules.validate = lambda data: self.scores  # type: ignore[method-assign]
        self.state_of_fit, self.scores = self.rules.state, (math.nan, math.nan)
        self._prepare()

    def _seed(self, seed: int) -> None:
        """Cut the rows into shards, whose order and held-out rows follow from the seed."""
        self.close_shards()
        self.seed = seed
        given = self.settings
        self.shares = Shares(
            self.rows, self.encoder, self.options, given.n_shards, given.memory, seed
        )
        self.n_rows = self.shares.n_rows
        self.batch_size = min(self.options.batch_size or self.n_rows, self.n_rows)

    def _prepare(self) -> None:
        """Make what takes the steps, for the core in use."""
        net, feed = self.net, cast(Feed, self)
        rng, n_threads = net.rng.bit_generator.state, self.options.n_threads
        self.trainer = Trainer(net, feed, self.settings.recipe, self.batch_size, n_threads)
        net.rng.bit_generator.state = rng  # the seed of the noise is the ranks'
        self.stepper, self.core = Stepper(net, self.trainer), dispatch.core.name

    # The part of a feed: see cmlp.training.feed

    def waited(self) -> float:
        """Return the seconds that training has waited for rows or ranks, since the last call."""
        seconds, self.waited_for_rows = self.waited_for_rows, 0.0
        return seconds + sum(shard.feed.waited() for shard in self.shards)

    def close_shards(self) -> None:
        """Close what rows are read from."""
        for shard in self.shards:
            shard.feed.close()
        self.shards, self.carried = [], None

    def close(self) -> None:
        """End the threads, and leave the mean of the weights in the network, if there is one."""
        self.close_shards()
        self.trainer.close()

    # State ---------------------------------------------------------------------------------------

    @property
    def position(self) -> Position:
        """Where this rank stands."""
        done = self.trainer.progressed
        return Position(done.epoch, -(-done.rows // self.batch_size))

    def state(self) -> dict[str, Any]:
        """Return all that training continues from: a record, as bytes, and an array of numbers."""
        net, (known, best) = self.net, self.rules.kept()
        record = {
            "seed": self.seed, "k": self.k, "rules": known,
            "counts": net.optimizer_state.to_dict(), "progressed": vars(self.trainer.progressed),
            "generator": net.rng.bit_generator.state, "before": net.history,
            "history": self.state_of_fit.history, "best": best is not None,
        }  # fmt: skip
        arrays = [net.params, *net.moments] + ([] if best is None else [best])
        text = json.dumps(record, default=lambda value: value.tolist())
        return {"record": text.encode(), "numbers": np.stack(arrays)}

    def restore(self, state: dict[str, Any]) -> None:
        """Continue from the state of a rank."""
        net, record, numbers = self.net, json.loads(state["record"]), state["numbers"]
        best = numbers[-1].copy() if record["best"] else None
        net.params[:] = numbers[0]
        memory = net.optimizer_state
        memory.moments[...] = numbers[1 : 1 + len(memory.moments)]
        memory.set_counts(record["counts"])
        if record["seed"] != self.seed:
            self._seed(record["seed"])
            self.rules.n_rows, self.rules.n_steps = self.n_rows, -(-self.n_rows // self.batch_size)
        net.rng = generator(record["generator"])
        for history, name in ((net.history, "before"), (self.state_of_fit.history, "history")):
            history.clear()
            history.update(record[name])
        self.trainer.progressed = Progressed(**record["progressed"])
        self.k, self.state_of_fit.epoch = record["k"], self.trainer.progressed.epoch
        self.rules.restore(record["rules"], best, self.state_of_fit.epoch)

    def _digest(self) -> int:
        """Return a checksum of the weights and what belongs to them."""
        net = self.net
        counts = repr((self.seed, self.k, sorted(net.optimizer_state.to_dict().items())))
        digest = zlib.crc32(counts.encode(), zlib.crc32(np.ascontiguousarray(net.params).data))
        return zlib.crc32(np.ascontiguousarray(net.moments).data, digest)

    def _described(self) -> dict[str, Any]:
        """Return what all ranks must have the same, by the names in a message."""
        net, about = self.net, self.net.architecture
        labels = None if net.classes is None else net.classes.tolist()
        n = len(self.rows.X) if isinstance(self.rows, Data) else self.rows.n_rows
        shape = repr((net.plan.tolist(), sorted(about.to_dict().items(), key=str)))
        return {
            "cmlp version": sys.modules["cmlp"].__version__, "dtype": str(net.dtype),
            "architecture": zlib.crc32(shape.encode()), "rows": n,
            "classes": zlib.crc32(repr(labels).encode()), "settings": self.settings.described(),
        }  # fmt: skip

    def _ended(self) -> str:
        """Return why training has ended; empty if it continues."""
        finished = self.state_of_fit.epoch >= self.options.epochs
        return self.rules.verdict() or ("epochs" if finished else "")

    # A round -------------------------------------------------------------------------------------

    def round(self, comm: Communicator, seconds: float = math.inf, stop: str = "") -> Round:
        """Train until the epoch ends, or for some seconds, together with the other ranks.

        Parameters
        ----------
        comm : Communicator
        seconds : float
            Those of rank 0 count.
        stop : str
            Why training is to end: any rank's ends it on all of them, before a step is taken.

        Raises
        ------
        RingBroken
            If a rank has left, or does not answer. Like after any error, the network has the state
            from before the round, and another ring can continue.
        OutOfStepError
            If the ranks do not fit each other.
        RankError
            If another rank has failed.
        DivergenceError
            If the loss or a weight is not finite; on every rank alike.
        """
        began = time.perf_counter()
        core, stops = self._agree(comm, stop)
        if stops := stops or self._ended():
            return Round(self.position, [], ended=stops)
        deadline = began + seconds if comm.rank == 0 else math.inf
        with nullcontext() if core == dispatch.core.name else dispatch.use_core(core):
            if core != self.core:
                done = self.trainer.progressed
                self.trainer.close()
                self._prepare()
                self.trainer.progressed = done
            safe, before = Snapshot(self.net), replace(self.trainer.progressed)
            try:
                found = self._train(comm, deadline, safe)
                k = self._check_in_step(comm, found)
            except BaseException:
                safe.put_back()
                self.trainer.progressed = before
                raise
            finally:
                safe.close()
        return self._commit(found, k, time.perf_counter() - began)

    def _agree(self, comm: Communicator, stop: str) -> tuple[str, str]:
        """Compare versions and settings, bring all to the furthest state; return core and stop."""
        mine = {
            "same": self._described(), "core": dispatch.core.name, "position": self.position,
            "digest": self._digest(), "stop": stop,
        }  # fmt: skip
        all_of_them = [json.loads(each) for each in comm.gather(json.dumps(mine).encode())]
        for name, value in all_of_them[0]["same"].items():
            for rank, theirs in enumerate(all_of_them):
                if theirs["same"].get(name) != value:
                    raise OutOfStepError(
                        f"the ranks do not fit each other: {name} is {value} on rank 0, "
                        f"{theirs['same'].get(name)} on rank {rank}"
                    )
        furthest = max(all_of_them, key=lambda each: each["position"])
        root = all_of_them.index(furthest)
        if len({(each["digest"], *each["position"]) for each in all_of_them}) > 1:
            self._spread(comm, root)
        order = (*dispatch.COMPILED, "python")
        core = max((each["core"] for each in all_of_them), key=order.index)
        return core, next((each["stop"] for each in all_of_them if each["stop"]), "")

    def _spread(self, comm: Communicator, root: int) -> None:
        """Bring all ranks to the state of one of them."""
        state = self.state()
        record = comm.gather(state["record"] if comm.rank == root else b"")[root]
        numbers = state["numbers"]
        if comm.rank != root:
            n = 1 + len(self.net.moments) + json.loads(record)["best"]
            numbers = np.empty((n, numbers.shape[1]), numbers.dtype)
        comm.broadcast(numbers, root)
        if comm.rank != root:
            self.restore({"record": record, "numbers": numbers})

    def _train(self, comm: Communicator, deadline: float, safe: Snapshot) -> Round:
        """Take the steps of a round, and return what it has done."""
        net, trainer, done = self.net, self.trainer, self.trainer.progressed
        found = Round(self.position, [])
        if trainer.optimizer.ema:
            memory = net.optimizer_state
            memory.resume_from_average(net.params)
            start = memory.steps - memory.average_steps
            trainer.optimizer = trainer.optimizer._replace(ema_start=start)
        rates = np.empty((self.rules.n_rates, self.rules.n_steps))
        self.rules.drawn = done.epoch
        self.rules.draw(np.empty(0, np.int64), rates)
        k = 1 if done.epoch < self.settings.warm_up else self.k or 1
        trainer.noise = trainer.noise._replace(seed=self.seed + (comm.rank if k > 1 else 0))
        stop, step = False, found.position.step
        last = step + (MEASURED if self.k is None else self.rules.n_steps)
        while done.rows < self.n_rows and not stop and step < last:
            n = min(k, self.rules.n_steps - step)
            stop = self._steps(comm, range(step, step + n), rates, k == 1, deadline, found, safe)
            if step == found.position.step:
                found.first = found.computed, found.waited
            step += n
        if k > 1 and len(net.moments):
            average(comm, net.moments.reshape(-1))
        if trainer.optimizer.ema:
            memory.average_steps = memory.steps - trainer.optimizer.ema_start
        if not is_finite(net.params):
            raise diverged(net, self.latest, self.rules.recipe, self.state_of_fit.history, safe)
        if done.rows == self.n_rows:
            net.optimizer_state.show_average(net.params)
            self.scores = self._validated(comm)
        self.rate = float(rates[0, step - 1])
        return found

    def _steps(
        self, comm: Communicator, steps: range, rates: Array, together: bool, deadline: float,
        found: Round, safe: Snapshot,
    ) -> bool:  # fmt: skip
        """Take some steps, and one sum with the other ranks; return whether training pauses."""
        net, stepper, done, tail = self.net, self.stepper, self.trainer.progressed, np.zeros(4)
        began, problem = time.perf_counter(), None
        try:
            for step in steps:
                data, rows, first = self._batch(comm, step)
                factors, found.rows = rates[1:, step], found.rows + len(rows)
                if together:
                    loss, weight = stepper.gradient(data, rows, first, comm.size, factors)
                else:
                    loss, weight = stepper.alone(data, rows, rates[:, step : step + 1])
                tail[[LOSS, WEIGHT]] += loss, weight
        except Exception as error:  # the others hear of it where they wait
            problem = error
            tail[ERROR] = 1
        tail[STOP] = self.halt.is_set() or time.perf_counter() >= deadline
        ready = time.perf_counter()
        if together:
            comm.allreduce(stepper.grads, tail)
        else:
            average(comm, net.params, tail)
        found.computed, found.waited = (
            found.computed + ready - began, found.waited + time.perf_counter() - ready
        )  # fmt: skip
        if tail[ERROR]:
            self._fail(comm, problem)
        n = min(self.n_rows, steps.stop * self.batch_size) - done.rows
        weight, loss = float(tail[WEIGHT]), float(tail[LOSS])
        per_batch = self.trainer.objective.per_batch
        if together:
            if not weight:
                stepper.penalties(data)
            loss = loss / (weight or 1.0) * (n if per_batch else weight)
        if not math.isfinite(loss):
            raise diverged(net, data, self.rules.recipe, self.state_of_fit.history, safe)
        if together:
            stepper.update(weight or 1.0, float(rates[0, steps[0]]), factors)
        done.loss, done.weight = done.loss + loss, done.weight + (n if per_batch else weight)
        done.rows += n
        return bool(tail[STOP])

    def _batch(self, comm: Communicator, step: int) -> tuple[Data, NDArray[np.int64], int]:
        """Return this rank's rows of a step, and the place of the first in the whole batch."""
        k, epoch = self.settings.n_shards, self.trainer.progressed.epoch
        mine = range(k * comm.rank // comm.size, k * (comm.rank + 1) // comm.size)
        if self.carried != (comm.rank, comm.size):
            self.close_shards()
            self.shards, self.carried = self.shares.open(mine), (comm.rank, comm.size)
        counts = self.shares.counts
        ends = [min(n * self.batch_size, self.n_rows) for n in (step, step + 1)]
        starts, stops = (dealt(end, counts) for end in ends)
        first = sum(stops[: mine.start]) - sum(starts[: mine.start])
        parts = [
            shard.piece(epoch, starts[i], stops[i])
            for i, shard in zip(mine, self.shards, strict=True)
        ]
        return *merged(parts or [(self.latest, np.arange(0))]), first

    def _fail(self, comm: Communicator, problem: Exception | None) -> None:
        """Raise this rank's error, or an error that names another rank's."""
        text = "" if problem is None else f"{type(problem).__name__}: {problem}"
        try:
            told = comm.gather(text.encode())
        finally:
            if problem is not None:
                raise problem
        rank, text = next((i, each.decode()) for i, each in enumerate(told) if each)
        raise RankError(f"rank {rank} has failed: {text}")

    def _validated(self, comm: Communicator) -> tuple[float, float]:
        """Return the loss and the score of the rows that are held out, each rank's part of them."""
        if self.rules.validation is None:
            return math.nan, math.nan
        scores, metric = Scores(self.net), metric_of(self.net, self.latest.targets)
        parts = [shard.held_out for shard in self.shards]
        if (whole := self.validation) is not None:
            n = len(whole.X)
            ends = [n * rank // comm.size for rank in (comm.rank, comm.rank + 1)]
            parts = [some_rows(whole, np.arange(*ends))]
        for part in parts:
            if part is not None:
                scores.see(part)
        total = Scores(self.net)
        for told in comm.gather(scores.to_bytes()):
            total.add(told, metric)
        return total.result()

    def _check_in_step(self, comm: Communicator, found: Round) -> int | None:
        """Compare the weights of all ranks: the last message of a round; return `sync_every`."""
        costs = found.computed - found.first[0], found.waited - found.first[1]
        mine = [self._digest(), *costs]
        told = [json.loads(each) for each in comm.gather(json.dumps(mine).encode())]
        digests, computed, waited = zip(*told, strict=True)
        if len(set(digests)) > 1:
            others = [rank for rank, each in enumerate(digests) if each != digests[0]]
            raise OutOfStepError(f"the weights of ranks {others} are not those of rank 0")
        if self.k is not None or not sum(computed):
            return self.k
        share: float = min(waited) * comm.size / sum(computed)  # the slowest waits for no other
        return max(1, math.ceil(share * EFFICIENCY / (1 - EFFICIENCY)))

    def _commit(self, found: Round, k: int | None, seconds: float) -> Round:
        """Make a round valid; nothing in here can fail."""
        done, rules = self.trainer.progressed, self.rules
        self.k, self.waited_for_rows = k, self.waited_for_rows + found.waited
        self.seconds += seconds
        if done.rows == self.n_rows:
            loss = done.loss / done.weight if done.weight else 0.0
            rules.record(loss, self.n_rows, self.rate, self.seconds)
            found.records.append({key: column[-1] for key, column in self.net.history.items()})
            self.trainer.progressed = Progressed(done.epoch + 1, first_step=self.net.steps)
            self.state_of_fit.epoch, self.seconds = done.epoch + 1, 0.0
            found.ended = self._ended()
        found.position = self.position
        return found
