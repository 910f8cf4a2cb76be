"""TabularClassifier and TabularRegressor that train on a Dask cluster."""

from __future__ import annotations

import math
import pickle
from collections.abc import Iterable, Iterator
from typing import Any

import cloudpickle
import numpy as np

from cmlp.core.errors import ConvergenceWarning, InvalidParameterError, warn
from cmlp.core.errstate import undisturbed
from cmlp.dask.cluster import Cluster
from cmlp.dask.estimators import FITTED_BY, Classifies, OnCluster
from cmlp.dask.partitions import is_collection, partitions_in, partitions_of
from cmlp.dask.pool import Pool
from cmlp.dask.training import run, settings_of
from cmlp.data.rows import Data, HeldOut
from cmlp.data.source import Block, Source, joined, no_targets
from cmlp.estimators.parameters import parameters_at_fault
from cmlp.estimators.storage import Storage
from cmlp.estimators.tabular.classifier import TabularClassifier
from cmlp.estimators.tabular.network import recipe_of
from cmlp.estimators.tabular.parameters import threads_of
from cmlp.estimators.tabular.presets import Preset
from cmlp.estimators.tabular.regressor import TabularRegressor
from cmlp.estimators.tabular.sources import StreamedFit, without_gaps
from cmlp.estimators.tabular.training import (
    EQUAL_SHARES,
    Best,
    keep_best,
    name_of_score,
    validate,
)
from cmlp.network import Network
from cmlp.sources.encode import RowEncoder
from cmlp.sources.plan import HeldRows, bytes_of
from cmlp.sources.survey import Seen, Survey
from cmlp.sources.tables import EncodedSource, TrainingRows
from cmlp.sources.training import HELD_SHARE, that_fit
from cmlp.sources.windows import row_bytes
from cmlp.training.callbacks import TrainingState
from cmlp.training.divergence import DivergenceError
from cmlp.training.fit import Options
from cmlp.training.many import DEFAULTS


class OnTables(OnCluster):
    """How TabularClassifier and TabularRegressor train in rounds."""

    callbacks: Any

    @undisturbed
    def fit(
        self, X: Any, y: Any = None, sample_weight: Any = None, *, memory: int | str = "1 GB"
    ) -> Any:
        """Fit the networks to a table and its targets.

        Parameters
        ----------
        X : Source, dask DataFrame or Array
            A source of :mod:`cmlp.data`, which has its own targets and weights, or a collection.
            Its columns are learned in one reading, in parts by all workers.
        y : dask Series or Array, or name of a column
        sample_weight : dask Series or Array, optional
        memory : int or str
            Of each worker for rows, and here for the rows that are held out, a quarter of it.

        Returns
        -------
        self
        """
        local = self.to_local()
        local._check_parameters()
        local.callbacks = ()  # they stay here; the rest is sent to the workers
        cluster = self._cluster()
        if isinstance(X, Source):
            no_targets(y, sample_weight)
            source = without_gaps(local, X)
        elif is_collection(X):
            if local.missing_targets:
                raise InvalidParameterError(
                    "missing_targets=True is for sources; of a frame: X.dropna(subset=[y])"
                )
            source = partitions_of(cluster, X, y, sample_weight, tables=True)
        else:
            name = type(local).__name__
            raise TypeError(
                f"X must be a source of cmlp.data, or a frame or an array of Dask, not "
                f"{type(X).__name__}: dask.dataframe.from_pandas(X, npartitions=8), or fit a "
                f"cmlp.{name} here"
            )
        ClusterFit(local, source, Storage(memory), cluster, self.callbacks).run()
        for name in vars(self).keys() - vars(local).keys() - set(FITTED_BY):
            delattr(self, name)
        vars(self).update(vars(local), callbacks=self.callbacks)
        return self

    def save(self, path: Any) -> None:
        """Write the local form to a file, which :func:`cmlp.load` returns."""
        self.to_local().save(path)


class ClusterFit(StreamedFit):
    """A fit whose source is read by all workers, and whose members are trained in rounds."""

    def __init__(
        self, estimator: Any, source: Source, how: Storage, cluster: Cluster, callbacks: Any
    ) -> None:
        super().__init__(estimator, source, how, bytes_of(how.memory))
        source.part(0, 1)  # refuses a stream
        self.cluster, self.callbacks = cluster, callbacks
        self.divided: tuple[TrainingRows, HeldOut | None] | None = None

    def _parts(self, survey: Survey) -> Iterable[Seen]:
        return _Reading(self, Survey.of, survey, survey.groups()).results()

    def _divide(
        self, encoded: EncodedSource, row_encoder: RowEncoder, seed: int
    ) -> tuple[TrainingRows, HeldOut | None]:
        """Return the rows to train on, and those that are held out, which are fetched."""
        if self.divided is not None:
            return self.divided
        est, blocks = self.estimator, self.source.blocks or ()
        held = HeldRows(seed, est.validation_fraction if est.early_stopping else 0.0)
        held_out = None
        given = encoded, row_encoder
        rows = TrainingRows(*given, held)
        if held.fraction:
            size = row_bytes(rows, rows.dtype, rows.first(1, targets_only=True).y.nbytes)
            held = that_fit(held, sum(blocks), self.memory // HELD_SHARE // size)
            rows, others = TrainingRows(*given, held), TrainingRows(*given, held, True)
            groups = Survey(self.source, "", held, 1, 1, 0).groups()
            parts = _Reading(self, _held_out, others, groups).results()
            found = [part for part in parts if part is not None]
            if not found:
                raise ValueError(
                    f"validation_fraction={held.fraction:g} of the rows leaves none to validate on"
                )
            data = Data(*joined(found))
            held_out = HeldOut(data, None, data.X, data.targets)
        self.divided, self.held = (rows, held_out), held
        return self.divided

    def _train(
        self, net: Network, rows: EncodedSource, row_encoder: RowEncoder, preset: Preset,
        held_seed: int, seconds: float | None,
    ) -> None:  # fmt: skip
        est = self.estimator
        train, held_out = self._divide(rows, row_encoder, held_seed)
        best = Best(preset, EQUAL_SHARES if est.scoring == "accuracy" else 0.0)
        watch = () if held_out is None else (Watch(best, held_out, est.scoring),)
        given = {
            "epochs": preset.max_iter, "batch_size": min(preset.batch_size, train.n_rows or 1),
            "schedule": preset.learning_rate, "callbacks": (*watch, *self.callbacks),
            "max_time": seconds, "n_threads": threads_of(est), "verbose": int(est.verbose),
        }  # fmt: skip
        with parameters_at_fault():
            options, recipe = Options(**(DEFAULTS | given)), recipe_of(preset)
            settings = settings_of(self.cluster, recipe, options, self.memory)
        name = name_of_score(est.scoring, net, train.first(1, targets_only=True).y)
        if est._estimator_type == "classifier":
            net.classes = np.arange(net.sizes[-1])  # the rows have the numbers of classes
        try:
            with net.exclusive_training():
                run(self.cluster, net, train, settings, None)
        except DivergenceError as error:
            if best.params is None:
                raise
            warn(f"{error} The weights with the best score are kept.", ConvergenceWarning)
        finally:
            net.classes = None
            stopped = net.history.stopped
            if stopped == "callback" and best.stalled(net.history.epochs) and watch:
                stopped = "patience"
            keep_best(net, best, held_out, name, stopped)
            net.forget_optimizer()


class _Reading(Pool):
    """Groups of blocks that are read in workers: of partitions where most of them are."""

    def __init__(self, fit: ClusterFit, function: Any, first: Any, groups: Iterable[Any]) -> None:
        self.groups, self.sent = list(groups), cloudpickle.dumps((function, first, fit.source))
        super().__init__(fit.cluster, len(self.groups))
        partitions = partitions_in(fit.source)
        self.futures = [] if partitions is None else partitions.living(fit.cluster.client)

    def take(self, address: str) -> tuple[list[int], tuple[Any, ...]]:
        """Take a group: the next one, or of partitions one of this worker's part of them."""
        share = list(self.slots).index(address) / len(self.slots) if self.futures else 0
        number = self.left.pop(int(share * len(self.left)))
        blocks = self.groups[number]
        held = {block: self.futures[block] for block in blocks if self.futures}
        return [number], (_on_blocks, self.sent, blocks, held)

    def results(self) -> Iterator[Any]:
        """Yield the results in order; until it is their turn they stay in the workers."""
        done, number = {}, 0
        for [i], task in self.tasks():
            done[i] = task
            while number in done:
                task = done.pop(number)
                found = self.result([number], task)
                if found is None:
                    break
                yield found[0]
                number += 1


class Watch:
    """Validates a network after each epoch, here, and ends its training."""

    def __init__(self, best: Best, held_out: HeldOut, scoring: str) -> None:
        self.best, self.held_out, self.scoring = best, held_out, scoring
        self.seen: dict[int, tuple[float, float]] = {}

    def __call__(self, state: TrainingState) -> bool:
        """Write the scores into the records, and return whether the best epoch is long ago."""
        net, epoch = state.network, state.epoch
        if epoch not in self.seen:
            loss, score, _ = validate(net, self.held_out)
            self.seen[epoch] = loss, -loss if self.scoring == "loss" else score
            self.best.see(self.seen[epoch][1], epoch, net.params)
        for history in (state.history, net.history):  # those of the workers have none
            for i, name in enumerate(("val_loss", "val_score")):
                nothing = (math.nan, math.nan)
                history[name] = [self.seen.get(e + 1, nothing)[i] for e in range(history.epochs)]
        return self.best.stalled(epoch)


def _on_blocks(given: bytes, blocks: Any, held: Any) -> tuple[Any]:
    """Run a function in a worker, which has partitions; or none, and reads blocks."""
    function, first, source = pickle.loads(given)  # its own: workers may share a process
    for each in (source, first):
        partitions = partitions_in(each)
        if partitions is not None:
            partitions.held = held
    return (function(first, source, blocks),)


def _held_out(rows: TrainingRows, source: Source, blocks: Iterable[int]) -> Block | None:
    """Return encoded rows that are held out."""
    assert rows.blocks is not None
    found = [rows.read(block) for block in blocks if rows.blocks[block]]
    return joined(found) if found else None


class DaskTabularClassifier(OnTables, Classifies, TabularClassifier):  # type: ignore[misc]
    """:class:`cmlp.TabularClassifier`, trained on all workers of a Dask cluster.

    Columns, levels and scales are learned in one reading, of which each worker does a part; one
    network is trained unless `n_ensemble` is set, on the rows of `validation_fraction` that are
    held out here. `cv` and the scorers of scikit-learn need all rows in one process.

    Parameters
    ----------
    client : distributed.Client, optional
        By default the current one.
    sync_every, workers, min_workers, wait, timeout, retries, round_seconds, port, shards
        As in :func:`cmlp.dask.train`.
    **parameters
        Those of :class:`cmlp.TabularClassifier`; `batch_size` is that of all workers together.

    Examples
    --------
    >>> trips = dask.dataframe.read_parquet("trips/*.parquet")  # doctest: +SKIP
    >>> model = cmlp.dask.DaskTabularClassifier().fit(trips, "tip")  # doctest: +SKIP
    >>> model.to_local().save("tips.cmlp")  # doctest: +SKIP
    """

    local = TabularClassifier


class DaskTabularRegressor(OnTables, TabularRegressor):  # type: ignore[misc]
    """:class:`cmlp.TabularRegressor`, trained on all workers of a Dask cluster.

    What is not listed here is as in :class:`DaskTabularClassifier`.

    Parameters
    ----------
    client : distributed.Client, optional
        By default the current one.
    sync_every, workers, min_workers, wait, timeout, retries, round_seconds, port, shards
        As in :func:`cmlp.dask.train`.
    **parameters
        Those of :class:`cmlp.TabularRegressor`; `batch_size` is that of all workers together.
    """

    local = TabularRegressor
