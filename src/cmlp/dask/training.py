"""``cmlp.dask.train``: rounds, until a rule, a clock, a callback or Ctrl-C ends them."""

from __future__ import annotations

import functools
import os
from collections.abc import Hashable, Iterable
from typing import Any

from cmlp.dask.cluster import Cluster, Limits
from cmlp.dask.partitions import is_collection, partitions_in, source_of
from cmlp.dask.reports import checked_cluster
from cmlp.dask.rounds import Rounds
from cmlp.data.rows import Data
from cmlp.data.source import Source
from cmlp.distributed.rank import Settings, fit
from cmlp.distributed.sockets import ThreadRing
from cmlp.formats.checkpoint import Checkpoint, checkpoint_of
from cmlp.model.history import History
from cmlp.model.state import State
from cmlp.sources.encode import network_encoder
from cmlp.sources.fitting import validation_rows
from cmlp.sources.plan import bytes_of
from cmlp.training.fit import Options
from cmlp.training.many import DEFAULTS
from cmlp.training.recipe import Recipe, chosen, make_recipe

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
        Rows to validate on, which have to fit into a quarter of `memory`; y may be the name of a
        column of X, and columns of a frame are found by their names.
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
    if not isinstance(net, State):
        raise TypeError(
            f"net must be a cmlp.Network, not {type(net).__name__}: estimators have fit"
        )
    given = DEFAULTS | locals() | recipe
    made = make_recipe({name: each for name, each in recipe.items() if name not in DEFAULTS})
    if resume and checkpoint is None:
        raise ValueError("resume=True needs the file to continue from: checkpoint=...")
    options = Options(**chosen(Options, given))
    cluster = checked_cluster(client, Limits(**chosen(Limits, given)))
    settings = settings_of(cluster, made, options, memory)
    settings.check(net)
    classes = net.classes
    with net.exclusive_training():
        try:
            source = source_of(cluster, data, y, sample_weight)
            network_encoder(net, source)  # finds the labels of all partitions
            held_out = validation_of(net, validation, settings.memory, source)
        except (TypeError, ValueError):
            net.classes = classes  # a failed call keeps no labels
            raise
        keeper = checkpoint_of(net, checkpoint, checkpoint_every, source, made, options)
        return run(cluster, net, source, settings, held_out, keeper, resume)


def settings_of(cluster: Cluster, recipe: Recipe, options: Options, memory: int | str) -> Settings:
    """Return what all ranks have the same."""
    limits = cluster.limits
    n_shards = limits.shards or max(LEAST, PER_WORKER * len(cluster.members()))
    return Settings(recipe, options, n_shards, limits.sync_every, bytes_of(memory))


def validation_of(net: State, given: Any, memory: int, source: Source) -> Data | None:
    """Return rows to validate on, encoded; of nothing, or of (None, None), nothing.

    Of a frame those columns, in that order, that the source has.
    """
    pair: Any = (given, None) if given is None or isinstance(given, Source) else given
    if not isinstance(pair, tuple | list) or len(pair) != 2:
        raise TypeError("validation must be (X, y), or a source of cmlp.data")
    X, y = (part.compute() if is_collection(part) else part for part in pair)
    if hasattr(X, "iloc"):
        y = X[y] if isinstance(y, Hashable) and y in X.columns else y
        partitions = partitions_in(source)
        names = source.feature_names if partitions is None else partitions.columns
        X = X[names] if names else X
    return validation_rows(net, X, y, memory)


def run(
    cluster: Cluster, net: Any, source: Source, settings: Settings, held_out: Data | None,
    checkpoint: Checkpoint | None = None, resume: bool = False,
) -> History:  # fmt: skip
    """Train until the end, and leave the network in order, however that comes about."""
    alone, made = ThreadRing.make(1)[0], functools.partial(Rounds, cluster)
    return fit(net, source, settings, held_out, alone, checkpoint, resume, made)
