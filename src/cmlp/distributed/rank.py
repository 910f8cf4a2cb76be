"""Rank: one process of a training, which is an ordinary training loop but for what ranks share.

``net.fit(..., comm=comm)`` is :func:`fit`; an engine calls :meth:`Rank.round`.

Its feed (``shards``) yields its part of each batch, its trainer (``steps``) adds up the gradients
of all ranks, and what is decided after an epoch is decided together. An epoch, or part of one, is a
round: what fails before it is recorded restores what was valid before. So each rank holds a state
from which training can continue, and the others get that of the rank that is furthest.
"""

from __future__ import annotations

import contextlib
import json
import math
import signal
import sys
import threading
import time
import zlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np

from cmlp.core import dispatch
from cmlp.core.checks import check_integer
from cmlp.core.errors import warn
from cmlp.data.rows import Data
from cmlp.data.source import Source
from cmlp.distributed.communicator import Communicator, OutOfStepError
from cmlp.distributed.shards import Shares, some_rows
from cmlp.distributed.steps import RankTrainer
from cmlp.formats.checkpoint import Checkpoint
from cmlp.formats.training_records import generator
from cmlp.model.history import History
from cmlp.model.scoring import metric_of
from cmlp.model.state import State
from cmlp.sources.evaluation import Scores
from cmlp.training.divergence import DivergenceError
from cmlp.training.feed import Progressed
from cmlp.training.fit import NetworkRules, Options, rules_of, run_loop
from cmlp.training.loop import Loop
from cmlp.training.recipe import Recipe
from cmlp.training.snapshot import Snapshot
from cmlp.training.stopping import Deadline
from cmlp.training.trainer import in_main_thread

EFFICIENCY, MEASURED = 0.95, 20
"""What sync_every="auto" aims at, and the steps that it measures."""

QUIET: dict[str, Any] = {"callbacks": (), "verbose": 0, "max_time": None}
"""Options of all ranks but the one that has callbacks, output and the clock."""

OWN = (*QUIET, "n_threads", "schedules")
"""Options that a rank may have different from the others."""


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

    def changed(self, **options: Any) -> Settings:
        """Return the same with some other options."""
        return replace(self, options=replace(self.options, **options))

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

    def described(self, net: State, n_rows: int) -> dict[str, str]:
        """Return what all ranks must have the same, by the names in a message."""
        labels = None if net.classes is None else net.classes.tolist()
        given = {
            "cmlp version": sys.modules["cmlp"].__version__, **net.architecture.to_dict(),
            "labels": labels, "rows": n_rows, **vars(self.recipe), **vars(self.options),
            "shards": self.n_shards, "sync_every": self.sync_every, "memory": self.memory,
        }  # fmt: skip
        return {  # the repr of a function has an address
            name: repr(getattr(value, "__qualname__", value))
            for name, value in given.items()
            if name not in OWN
        }


@dataclass
class Round:
    """What a round has done.

    Attributes
    ----------
    position : Position
        Where the training stands after it.
    ended : str
        Why training ends with it; empty if it continues.
    computed, waited : float
        Seconds of this rank: for steps, and for the other ranks.
    """

    position: Position
    ended: str = ""
    computed: float = 0.0
    waited: float = 0.0


class Rank(Loop):
    """One process of a training; an engine calls :meth:`round` until it has ended.

    By :func:`fit` it trains to the end, as rank 0 with callbacks and checkpoints.

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

    comm: Any = None  # a Communicator, of the present ring
    trainer: Any = None  # a RankTrainer, for the core that all ranks have
    keeper: Any = None  # a Checkpoint
    rules: NetworkRules
    stop = ""  # why training is not to begin

    def __init__(
        self, net: State, rows: Data | Source, settings: Settings, validation: Data | None = None
    ) -> None:
        settings.check(net)
        options = settings.options
        self.net, self.settings, self.validation, self.k = net, settings, validation, settings.k
        self.feed = Shares(net, rows, options, settings.n_shards, settings.memory)
        self.feed.draw(int(net.rng.integers(2**62)))
        self._prepare(dispatch.core.name)
        if validation is None and options.validation_fraction:
            validation = self.feed.latest  # each shard has its own
        rules = rules_of(net, self.feed, settings.recipe, options, validation)
        rules.validate = self._validated  # type: ignore[method-assign]
        self.halt = threading.Event()
        deadline = Deadline(options.max_time, self.halt.is_set)
        super().__init__(self.trainer, rules, rules.state, tuple(options.callbacks), deadline)

    def _prepare(self, core: str) -> None:
        """Make what takes the steps by a core, in place of what has taken them."""
        old, recipe, options = self.trainer, self.settings.recipe, self.settings.options
        with dispatch.use_core(core):
            self.trainer = RankTrainer(self.net, self.feed, recipe, options.n_threads)
        if old is not None:
            old.close()
            self.trainer.progressed, self.trainer.pause = old.progressed, old.pause
        if self.keeper is not None:
            self.keeper.trainer = self.trainer

    def close(self) -> None:
        """End the threads, and leave the mean of the weights in the network, if there is one."""
        self.feed.close()
        self.trainer.close()
        self.comm = self.trainer.comm = None  # the ring is not a part of a circle of references

    # State ---------------------------------------------------------------------------------------

    @property
    def position(self) -> Position:
        """Where this rank stands."""
        done, epoch = self.trainer.progressed, self.state.epoch
        steps = -(-done.rows // self.feed.batch_size)
        return Position(epoch, steps if done.epoch == epoch else 0)

    def saved(self) -> dict[str, Any]:
        """Return all that training continues from: a record, as bytes, and an array of numbers."""
        net, (known, best) = self.net, self.rules.kept()
        record = {
            "seed": self.feed.seed, "k": self.k, "rules": known, "epoch": self.state.epoch,
            "counts": net.optimizer_state.to_dict(), "progressed": vars(self.trainer.progressed),
            "generator": net.rng.bit_generator.state, "before": net.history,
            "history": self.state.history, "best": best is not None,
        }  # fmt: skip
        arrays = [net.params, *net.moments, net.params if best is None else best]
        text = json.dumps(record, default=lambda value: value.tolist())
        return {"record": text.encode(), "numbers": np.stack(arrays)}

    def restore(self, state: dict[str, Any]) -> None:
        """Continue from what :meth:`saved` has returned, here or on another rank."""
        net, record, numbers = self.net, json.loads(state["record"]), state["numbers"]
        if record["seed"] != self.feed.seed:
            self.feed.draw(record["seed"])
            self._prepare(self.trainer.core)
            n = self.rules.n_rows = self.feed.n_rows
            self.rules.n_steps = -(-n // self.feed.batch_size)
        memory, best = net.optimizer_state, numbers[-1].copy() if record["best"] else None
        net.params[:], memory.moments[...] = numbers[0], numbers[1:-1]
        memory.set_counts(record["counts"])
        net.rng, self.k = generator(record["generator"]), record["k"]
        for history, name in ((net.history, "before"), (self.state.history, "history")):
            history.clear()
            history.update(record[name])
        self.trainer.progressed = Progressed(**record["progressed"])
        self.state.epoch = record["epoch"]
        self.rules.restore(record["rules"], best, record["epoch"])

    def _digest(self) -> int:
        """Return a checksum of the weights and what belongs to them."""
        net = self.net
        counts = repr((self.feed.seed, self.k, sorted(net.optimizer_state.to_dict().items())))
        digest = zlib.crc32(counts.encode(), zlib.crc32(np.ascontiguousarray(net.params).data))
        return zlib.crc32(np.ascontiguousarray(net.moments).data, digest)

    # With the other ranks ------------------------------------------------------------------------

    def round(self, comm: Communicator, seconds: float = math.inf) -> Round:
        """Train until the epoch ends, or for some seconds, together with the other ranks.

        Parameters
        ----------
        comm : Communicator
        seconds : float
            Those of rank 0 count.

        Raises
        ------
        RingBroken
            If a rank has left, or does not answer. Like after any error, the network has the state
            from before the round, or from after it, and another ring can continue.
        OutOfStepError
            If the ranks do not fit each other.
        RankError
            If another rank has failed.
        DivergenceError
            If the loss or a weight is not finite; on every rank alike.
        """
        began = time.perf_counter()
        if comm is not self.comm:
            self.meet(comm)
        trainer = self.trainer
        trainer.computed = trainer.waited = 0.0
        trainer.pauses = began + seconds if comm.rank == 0 else math.inf
        if not (ended := self._ended()):
            with contextlib.closing(Snapshot(self.net)) as self.safe:
                ended = self._epochs() or self._ended()
        return Round(self.position, ended, trainer.computed, trainer.waited)

    def _ended(self) -> str:
        """Return why training has ended; empty if it continues."""
        finished = self.state.epoch >= self.state.epochs
        return self.rules.verdict() or ("epochs" if finished else "")

    def run(self) -> str:
        """Train with the ranks of `comm`, and return why training ended; see :class:`Loop`."""
        return self.meet(self.comm) or super().run()

    def meet(self, comm: Communicator) -> str:
        """Compare settings with the ranks of a new ring, and bring all to the furthest state.

        Return why training is not to begin, if one of them knows that.
        """
        self.comm, self.feed.place = comm, (comm.rank, comm.size)
        mine = {
            "same": self.settings.described(self.net, self.feed.n_all)
            | {"a checksum of the first rows (all ranks pass all of them)": self.feed.checksum()},
            "core": dispatch.core.name,
            "position": self.position, "digest": self._digest(), "stop": self.stop,
        }  # fmt: skip
        told = [json.loads(each) for each in comm.gather(json.dumps(mine).encode())]
        for name, value in told[0]["same"].items():
            for rank, theirs in enumerate(told):
                if theirs["same"].get(name) != value:
                    raise OutOfStepError(
                        f"the ranks do not fit each other: {name} is {value} on rank 0, "
                        f"{theirs['same'].get(name)} on rank {rank}"
                    )
        core = max((each["core"] for each in told), key=(*dispatch.COMPILED, "python").index)
        if core != self.trainer.core:
            self._prepare(core)
        root = told.index(max(told, key=lambda each: each["position"]))
        if len({(each["digest"], *each["position"]) for each in told}) > 1:
            state = self.saved()
            state["record"] = comm.gather(state["record"] if comm.rank == root else b"")[root]
            comm.broadcast(state["numbers"], root)
            self.restore(state)
        return next((each["stop"] for each in told if each["stop"]), "")

    def _epochs(self) -> str:
        """Train a round; what fails before its record is undone. Return why all ranks end."""
        self.safe.take()
        trainer, epoch, n = self.trainer, self.state.epoch, self.net.history.epochs
        before, self.rules.drawn = replace(trainer.progressed), epoch
        trainer.comm = self.comm
        trainer.k = 1 if epoch < self.settings.warm_up else self.k or 1
        trainer.most = MEASURED if self.k is None else math.inf
        try:
            reason = super()._epochs()
        except BaseException:
            if self.net.history.epochs == n:
                self.safe.put_back()
                trainer.progressed, self.state.epoch = before, epoch
            raise
        if (reason := self._agreed(reason)) == "interrupted" and not self.comm.rank:
            raise KeyboardInterrupt  # of which rank 0 warns; all end after the same step
        return reason

    def _remember(self, n: int) -> None:
        """Keep the state from before the round until it is recorded."""

    def _agreed(self, reason: str) -> str:
        """Compare the weights of all ranks; return why training ends, if it does on any of them."""
        mine = reason, self._digest(), self.trainer.computed, self.trainer.waited
        told = [json.loads(each) for each in self.comm.gather(json.dumps(mine).encode())]
        reasons, digests, computed, waited = zip(*told, strict=True)
        if len(set(digests)) > 1:
            others = [rank for rank, each in enumerate(digests) if each != digests[0]]
            raise OutOfStepError(f"the weights of ranks {others} are not those of rank 0")
        if self.k is None:
            share = min(waited) * self.comm.size / sum(computed)  # the slowest waits for no other
            self.k = max(1, math.ceil(share * EFFICIENCY / (1 - EFFICIENCY)))
        return next(filter(None, reasons), "")

    def _validated(self, data: Data) -> tuple[float, float]:
        """Return the loss and the score of the rows that are held out, each rank's part of them."""
        net, (rank, size), whole = self.net, self.feed.place, self.validation
        scores, total, metric = Scores(net), Scores(net), metric_of(net, data.targets)
        parts = self.feed.held_out
        if whole is not None:
            ends = [len(whole.X) * each // size for each in (rank, rank + 1)]
            parts = [some_rows(whole, np.arange(*ends))]
        with dispatch.use_core(self.trainer.core):
            for part in parts:
                scores.see(part)
        for told in self.comm.gather(scores.to_bytes()):
            total.add(told, metric)
        return total.result()


def fit(
    net: State, rows: Data | Source, settings: Settings, validation: Data | None,
    comm: Communicator, checkpoint: Checkpoint | None = None, resume: bool = False,
    made: Callable[..., Rank] = Rank,
) -> History:  # fmt: skip
    """Train with the other ranks; see :meth:`cmlp.Network.fit`.

    Callbacks, output and checkpoints are rank 0's, and so is the file that it resumes from: the
    others get its state.
    """
    if comm.rank:
        settings, checkpoint = settings.changed(**QUIET), None
    ended = checkpoint and resume and checkpoint.resume(settings.options.epochs)
    rank = made(net, rows, settings, validation)
    rank.comm = comm

    def halt(number: int, frame: Any) -> None:
        """End all ranks after the same step; at a second Ctrl-C, this one at once."""
        if rank.halt.is_set():
            comm.close(error := KeyboardInterrupt())
            raise error
        rank.halt.set()

    handler = signal.signal(signal.SIGINT, halt) if in_main_thread() else None
    try:
        if checkpoint is not None:
            rank.stop = checkpoint.finished if ended else ""
            begin(checkpoint, rank)
        return run_loop(rank, rank.rules, checkpoint)
    except BaseException as error:
        if not isinstance(error, DivergenceError):  # which all ranks raise alike
            comm.close(error)
        raise
    finally:
        if handler is not None:
            signal.signal(signal.SIGINT, handler)
        rank.close()


def begin(checkpoint: Checkpoint, rank: Rank) -> None:
    """Continue where a checkpoint stood, or begin to write one."""
    other = checkpoint.restored and checkpoint.windows.get("shards") != rank.settings.n_shards
    checkpoint.windows = {"rows": 0, "lanes": 0, "held": 0.0, "shards": rank.settings.n_shards}
    rank.keeper = checkpoint.begin(rank.trainer, rank.state, rank.rules)
    if other and rank.position.step:
        warn(
            "the checkpoint is from the middle of an epoch with another order of the rows: of this "
            "epoch, some rows are used twice and some not at all"
        )
