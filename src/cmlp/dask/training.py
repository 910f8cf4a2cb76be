"""``cmlp.dask.train``: rounds, until a rule, a clock, a callback or Ctrl-C ends them."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Iterable
from dataclasses import replace
from typing import Any

from cmlp.core import dispatch
from cmlp.core.checks import check_integer, check_number
from cmlp.core.errors import warn
from cmlp.dask.cluster import Cluster
from cmlp.dask.errors import ClusterLost
from cmlp.dask.partitions import is_collection, partitions_of, scattered
from cmlp.dask.rounds import Limits, Rounds
from cmlp.dask.shares import Shares
from cmlp.dask.versions import common_core
from cmlp.dask.worker import Place
from cmlp.data.rows import Data
from cmlp.data.source import Source, no_targets
from cmlp.distributed.fit import kept
from cmlp.distributed.rank import MEASURED, Rank, Round, Settings
from cmlp.formats.checkpoint import Checkpoint, checkpoint_of
from cmlp.model.history import History
from cmlp.model.state import State
from cmlp.sources.encode import network_encoder
from cmlp.sources.fitting import validation_rows
from cmlp.sources.plan import bytes_of
from cmlp.training.callbacks import call_back
from cmlp.training.divergence import DivergenceError
from cmlp.training.fit import Options, warn_of_interrupt
from cmlp.training.many import DEFAULTS
from cmlp.training.progress import Progress
from cmlp.training.recipe import PARAMETERS, Recipe, chosen
from cmlp.training.stopping import Deadline

POOR, GOOD = 0.7, 0.85
"""Shares of computing in the time, below which a warning names how to come to the other."""

FETCHED = 10.0
"""Seconds from which the state in this process is old: all that is lost if all workers are."""

PER_WORKER, LEAST = 4, 16
"""Shards for each of the first workers, and at least."""


def train(
    client: Any,
    net: State,
    data: Any,
    y: Any = None,
    *,
    epochs: int = 10,
    batch_size: int | None = 32,
    sample_weight: Any = None,
    validation: Any = None,
    sync_every: Any = 1,
    workers: Any = None,
    min_workers: int = 1,
    wait: float = 300,
    timeout: float = 60,
    retries: int = 3,
    round_seconds: float = 15,
    checkpoint: str | os.PathLike[str] | None = None,
    checkpoint_every: float = 60,
    resume: bool = False,
    port: Any = 0,
    shards: int | None = None,
    callbacks: Iterable[Any] = (),
    verbose: int = 0,
    memory: int | str = "1 GB",
    **recipe: Any,
) -> History:
    """Train a network on all workers of a Dask cluster.

    Every step takes rows from all workers, and sums their gradients over plain connections between
    them. A worker that is lost, stopped or added costs a round, which is an epoch or
    `round_seconds`; the result is that of an undisturbed training, up to rounding, and of a source
    the same for any number of workers.

    Parameters
    ----------
    client : distributed.Client
    net : Network
        Trained in place.
    data : Source, dask Array or DataFrame, or array
        A source of :mod:`cmlp.data`, whose files each worker opens itself, is the best choice:
        blocks of a lost worker are read by the others. Of collections the partitions stay where
        they are. An array is sent to the workers, each row to one of them.
    y : dask Array or Series, name of a column, or array
        Targets; a source has its own.
    epochs, batch_size, callbacks, verbose, memory
        As in :meth:`cmlp.Network.fit`; `batch_size` is that of all workers together, `memory` that
        of each. Callbacks and output are here, and see the network of that epoch.
    sample_weight : dask Array or Series, or array, optional
    validation : (X, y) or Source, optional
        Rows to validate on, which have to fit into a quarter of `memory`.
    sync_every : int, (int, int) or 'auto'
        Steps that a worker takes before the weights are averaged; 1 sums the gradients of every
        step. (e, k) does so for e epochs first; 'auto' measures.
    workers : int, list of str or None
        How many, or which; None takes all, also those that come later.
    min_workers : int
        Without so many training waits, `wait` seconds at most.
    wait : float
        Seconds to wait for workers: for busy ones, and for new ones in place of lost ones.
    timeout : float
        Seconds without a sign of a worker after which it counts as lost.
    retries : int
        Rounds that may fail one after another.
    round_seconds : float
        Length of a round, if an epoch is longer.
    checkpoint, checkpoint_every, resume
        As in :meth:`cmlp.Network.fit`, a file of this machine; either continues from the other's.
    port : int or callable
        That workers listen on while they connect, 0: any free one. Of several workers on a host
        each needs its own: a function of the worker returns it.
    shards : int, optional
        Parts that the rows are cut into, of which a worker carries as many as the others; every
        batch has rows of each. Trainings with the same number see the same batches. By default 16,
        and four for each worker at the beginning if those are more.
    **recipe
        Others of :meth:`cmlp.Network.fit`: solver, learning_rate, patience, max_time, n_threads,
        validation_fraction and so on.

    Returns
    -------
    History

    Raises
    ------
    TrainingFailed
        If more than `retries` rounds failed one after another, or there are too few workers. Its
        ``story`` has who was lost, and when; the network holds the last state that was seen whole.
    ClusterLost
        If the scheduler does not answer any more.
    DivergenceError, DataError, ValueError, TypeError
        As :meth:`cmlp.Network.fit` does; an error of a worker names it.
    """
    given = {
        "epochs": epochs, "batch_size": batch_size, "callbacks": callbacks, "verbose": verbose,
    } | recipe  # fmt: skip
    unknown = given.keys() - DEFAULTS.keys() - set(PARAMETERS)
    if unknown:
        raise TypeError(f"train() has no parameters {sorted(unknown)}")
    if resume and checkpoint is None:
        raise ValueError("resume=True needs the file to continue from: checkpoint=...")
    options = Options(**chosen(Options, DEFAULTS | given))
    made = Recipe(**{name: given[name] for name in PARAMETERS if name in given})
    limits = Limits(min_workers, wait, timeout, retries, round_seconds)
    cluster = Cluster(client, workers)
    common_core(cluster, limits.timeout)
    settings = settings_of(cluster, made, options, shards, sync_every, bytes_of(memory))
    settings.check(net)
    classes = net.classes
    with net.exclusive_training():
        try:
            source = source_of(client, data, y, sample_weight)
            network_encoder(net, source)  # finds the labels of all partitions
            held_out = validation_of(net, validation, settings.memory)
        except (TypeError, ValueError):
            net.classes = classes  # a failed call keeps no labels
            raise
        keeper = None
        if checkpoint is not None:
            every = check_number("checkpoint_every", checkpoint_every, 0)
            keeper = checkpoint_of(net, checkpoint, every, source, made, options)
        training = Training(cluster, net, source, settings, held_out, limits, port)
        return training.run(keeper, resume)


def settings_of(
    cluster: Cluster, recipe: Recipe, options: Options, shards: int | None, every: Any, memory: int
) -> Settings:
    """Return what all ranks have the same, with the number of shards."""
    n_shards = max(LEAST, PER_WORKER * len(cluster.members()))
    if shards is not None:
        n_shards = check_integer("shards", shards, 1)
    return Settings(recipe, options, n_shards, every, memory)


def source_of(client: Any, data: Any, y: Any, weight: Any) -> Source:
    """Return data of any kind as a source."""
    if isinstance(data, Source):
        no_targets(y, weight)
        return data
    if is_collection(data):
        return partitions_of(client, data, y, weight)
    return scattered(client, data, y, weight)


def validation_of(net: State, given: Any, memory: int) -> Data | None:
    """Return rows to validate on, encoded."""
    if isinstance(given, Source):
        return validation_rows(net, given, None, memory)
    if given is None:
        return None
    X, y = (part.compute() if is_collection(part) else part for part in given)
    return validation_rows(net, X, y, memory)


class Training:
    """The driver's side of one training.

    Attributes
    ----------
    rank : Rank
        One that takes no steps: the state of the workers is written into it, and so into the
        network.
    """

    def __init__(
        self, cluster: Cluster, net: Any, source: Source, settings: Settings,
        held_out: Data | None, limits: Limits, port: Any,
    ) -> None:  # fmt: skip
        self.cluster, self.net, self.source, self.limits = cluster, net, source, limits
        self.settings, self.options, self.port = settings, settings.options, port
        self.held_out = held_out
        self.rank: Rank = None  # type: ignore[assignment]  # made in `run`
        self.computed = self.waited = self.fetched = 0.0
        self.shown: Any = None
        self.told = 0
        self.advised = False

    def run(self, keeper: Checkpoint | None, resume: bool) -> History:
        """Train until the end, and leave the network in order, however that comes about."""
        options, stopped, ended, rounds = self.options, "error", "", None
        if keeper is not None and resume and keeper.resume(options.epochs):
            ended = keeper.finished
        rank = self.rank = Rank(self.net, self.source, self.settings, self.held_out)
        state = rank.state_of_fit
        deadline, callbacks, lost = Deadline(options.max_time), tuple(options.callbacks), False
        progress = Progress(
            options.verbose, options.epochs, state.history.metric, dispatch.core.name
        )
        try:
            kept(keeper, rank)
            call_back(callbacks, "on_train_begin", state)
            ended = ended or ("epochs" if state.epoch >= options.epochs else "")
            rounds = self._rounds()
            while not ended:
                ended = self._round(rounds, deadline, keeper, progress, callbacks)
            stopped = ended
        except ClusterLost:
            lost = True
            raise
        except DivergenceError:
            stopped = "diverged"
            raise
        except KeyboardInterrupt:
            stopped = "interrupted"
            if rounds is not None:
                rounds.interrupt()
        finally:
            progress.close()
            if rounds is not None:
                rounds.close(lost)
            rank.close()
            if stopped != "error" and rank.rules.patience.params is not None:
                self.net.params[:] = rank.rules.patience.params
            rank.rules.end(stopped)
        if stopped == "interrupted":
            warn_of_interrupt(state.epoch, options.epochs)
        if keeper is not None:
            keeper.end(stopped)
        call_back(callbacks, "on_train_end", state)
        return state.history

    def _rounds(self) -> Rounds:
        first = self.rank.state()
        options = replace(self.options, callbacks=(), verbose=0, max_time=None)  # these stay here
        settings = replace(self.settings, options=options)
        place = Place(self.net, self.source, settings, self.held_out)
        shares = Shares(self.source, self.settings.n_shards, self.options.verbose)
        rounds = Rounds(self.cluster, self.limits, place, shares, self.port)
        rounds.position, rounds.state, self.shown = self.rank.position, first, first
        self.told, self.fetched = self.rank.position.epoch, time.perf_counter()
        return rounds

    def _round(
        self, rounds: Rounds, deadline: Deadline, keeper: Checkpoint | None, progress: Progress,
        callbacks: tuple[Any, ...],
    ) -> str:  # fmt: skip
        """Run a round; return why training ends with it, or nothing."""
        now = time.perf_counter()
        left, due = deadline.end - now, keeper is not None and now - keeper.last >= keeper.every
        old = now - self.fetched > FETCHED or left < 2 * self.limits.round_seconds
        fetches = bool(callbacks) or due or old
        found = rounds.next(min(self.limits.round_seconds, max(0.0, left)), fetches)
        records = found.records
        if rounds.state is not self.shown:
            self._show(rounds.state)
            first, columns = self.told - found.position.epoch, self.net.history.items()
            # workers may be further than the last round that was heard of
            records = [{name: column[i] for name, column in columns} for i in range(first, 0)]
        self.told = max(self.told, found.position.epoch)
        self._advise(found, len(rounds.ring))
        for epoch, values in enumerate(records, self.told - len(records) + 1):
            self.rank.state_of_fit.epoch = epoch  # the end of one before can have been lost
            progress.epoch(values)
            call_back(callbacks, "on_epoch_end", self.rank.state_of_fit)
        if keeper is not None and due:
            keeper.trainer = self.rank.trainer
            keeper.save()
        if found.ended:
            return found.ended
        return "callback" if self.rank.state_of_fit.stop else deadline.reason

    def _show(self, state: Any) -> None:
        """Write a state into the network."""
        self.rank.restore(state)
        self.shown, self.fetched = state, time.perf_counter()

    def _advise(self, found: Round, n_ranks: int) -> None:
        """Warn once, after some steps, if workers wait for each other more than they compute."""
        step = found.position.step or -(-self.rank.n_rows // self.rank.batch_size)
        self.computed, self.waited = self.computed + found.computed, self.waited + found.waited
        if self.advised or n_ranks < 2 or step < MEASURED:
            return
        self.advised, share = True, self.computed / max(1e-9, self.computed + self.waited)
        if share < POOR:
            k = math.ceil(self.waited / max(1e-9, self.computed) * GOOD / (1 - GOOD))
            size = k * self.rank.batch_size
            warn(
                f"workers compute {100 * share:.0f} % of the time, and wait for each other else; "
                f"batch_size={size} or sync_every={k * (self.rank.k or 1)} would make it about "
                f"{100 * GOOD:.0f} %, or one machine is enough"
            )
