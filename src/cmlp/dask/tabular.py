"""TabularClassifier and TabularRegressor that train on a Dask cluster."""

from __future__ import annotations

import functools
import itertools
import math
import pickle
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import cloudpickle
import numpy as np

from cmlp.core.errors import ConvergenceWarning, InvalidParameterError, warn
from cmlp.dask.estimators import Classifies, OnCluster, settings_for
from cmlp.dask.partitions import Partitions, partitions_in
from cmlp.dask.pool import Pool
from cmlp.dask.training import run
from cmlp.data.rows import HeldOut
from cmlp.data.source import Block, Source
from cmlp.estimators.storage import Storage
from cmlp.estimators.tabular.classifier import TabularClassifier
from cmlp.estimators.tabular.network import recipe_of
from cmlp.estimators.tabular.presets import Preset
from cmlp.estimators.tabular.regressor import TabularRegressor
from cmlp.estimators.tabular.sources import StreamedFit
from cmlp.estimators.tabular.training import Best, Job, keep_best
from cmlp.sources.survey import Seen, Survey, groups_of
from cmlp.sources.tables import TrainingRows
from cmlp.sources.training import held_data, that_fit
from cmlp.sources.windows import row_bytes
from cmlp.training.callbacks import TrainingState
from cmlp.training.divergence import DivergenceError


class ClusterFit(StreamedFit):
    """A fit whose source is read by all workers, and whose members are trained in rounds."""

    def __init__(self, estimator: Any, source: Source, how: Storage) -> None:
        if not how.is_plain:
            raise InvalidParameterError("tabular estimators write no checkpoints on a cluster")
        if estimator.missing_targets and isinstance(source, Partitions):
            raise InvalidParameterError(
                "missing_targets=True is for sources; of a frame: X.dropna(subset=[y])"
            )
        source.part(0, 1)  # refuses a stream
        super().__init__(estimator, source, how)
        self.cluster = estimator._cluster()
        self.divided: tuple[TrainingRows, HeldOut | None] | None = None

    def rows(self) -> None:
        """Return none: they are not in this process."""

    def _parts(self, survey: Survey) -> Iterable[Seen]:
        return self._read(survey.of, self.source)

    def _read(self, function: Callable[[Any, Any], Any], source: Source) -> Iterator[Any]:
        """Yield what a function returns about groups of blocks, in order; they are read in workers.

        Partitions are read where most of them are. Until it is their turn the results stay in the
        workers.
        """
        groups, sent = list[Any](groups_of(self.source)), cloudpickle.dumps((function, source))
        partitions = partitions_in(source)
        futures = partitions and partitions.living(self.cluster.client)

        def take(address: str) -> tuple[list[int], tuple[Any, ...]]:
            """Take a group: the next one, or of partitions one of this worker's part of them."""
            share = list(pool.slots).index(address) / len(pool.slots) if futures else 0
            number = pool.left.pop(int(share * len(pool.left)))
            held = {block: futures[block] for block in groups[number] if futures}
            return [number], (on_blocks, sent, groups[number], held)

        pool, done, number = Pool(self.cluster, len(groups), take), {}, 0
        for [i], task in pool.tasks():
            done[i] = task
            while number in done:
                task = done.pop(number)
                found = pool.result([number], task)
                if found is None:
                    break
                yield found
                number += 1

    def _rows(self, net: Any, preset: Preset) -> tuple[Any, HeldOut | None]:
        """Return the rows to train on, and those that are held out, which are fetched once."""
        if self.divided is None:
            made = functools.partial(TrainingRows, self.encoded, self.row_encoder)
            train, held_out = made(self.held), None
            if self.fraction:
                size = row_bytes(train, train.dtype, train.first(1, targets_only=True).y.nbytes)
                self.held = that_fit(self.held, self.source.n_rows or 0, self.memory, size)
                parts = self._read(blocks_of, made(self.held, held_out=True))
                data = held_data(list(itertools.chain(*parts)), self.held)
                train, held_out = made(self.held), HeldOut(data, None, data.X, data.targets)
            self.divided = train, held_out
        return self.divided

    def _run(self, job: Job) -> None:
        """Train a network in rounds, which is validated here after each epoch."""
        net, preset, best = job.net, job.preset, Watch(job)
        rows: Any = job.data
        watch = () if job.held_out is None else (best,)
        settings = settings_for(
            self.cluster, self.estimator, recipe_of(preset), self.memory, epochs=preset.max_iter,
            batch_size=min(preset.batch_size, rows.n_rows or 1), schedule=preset.learning_rate,
            callbacks=(*watch, *job.callbacks), n_threads=job.n_threads,
            max_time=job.deadline.left,
        )  # fmt: skip
        if self.estimator._estimator_type == "classifier":
            net.classes = np.arange(net.sizes[-1])  # the rows have the numbers of classes
        try:
            with net.exclusive_training():
                run(self.cluster, net, rows, settings, None)
        except DivergenceError as error:
            if best.params is None:
                raise
            warn(f"{error} The weights with the best score are kept.", ConvergenceWarning)
        finally:
            net.classes = None
            stopped = net.history.stopped
            if stopped == "callback" and watch and best.stalled(net.history.epochs):
                stopped = "patience"
            keep_best(job, best, stopped)
            net.forget_optimizer()


class Watch(Best):
    """Validates a network after each epoch, here, and ends its training."""

    def __init__(self, job: Job) -> None:
        super().__init__(job)
        self.job, self.scores = job, list[tuple[float, float]]()

    def __call__(self, state: TrainingState) -> bool:
        """Write the scores into the records, and return whether the best epoch is long ago."""
        net, epoch = state.network, state.epoch
        self.scores.append(self.job.validate())
        self.see(self.scores[-1][1], epoch, net.params)
        for history in (state.history, net.history):  # those of the workers have none
            later = [math.nan] * (history.epochs - epoch)  # where several epochs came at once
            for i, name in enumerate(("val_loss", "val_score")):
                history[name] = [each[i] for each in self.scores] + later
        return self.stalled(epoch)


def on_blocks(given: bytes, blocks: Any, held: dict[int, Any]) -> Any:
    """Run a function of some blocks in a worker, which holds these partitions."""
    function, source = pickle.loads(given)  # its own: workers may share a process
    partitions = partitions_in(source)
    if partitions is not None:
        partitions.held = held
    return function(source, blocks)


def blocks_of(source: Source, blocks: Iterable[int]) -> list[Block]:
    """Return the rows of some blocks."""
    return [source.read(block) for block in blocks if (source.blocks or ())[block]]


class OnTables(OnCluster):
    """How TabularClassifier and TabularRegressor train in rounds."""

    tables, _fitting = True, ClusterFit

    def save(self, path: Any) -> None:
        """Write the local form to a file, which :func:`cmlp.load` returns."""
        self.to_local().save(path)


class DaskTabularClassifier(OnTables, Classifies, TabularClassifier):
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


class DaskTabularRegressor(OnTables, TabularRegressor):
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
