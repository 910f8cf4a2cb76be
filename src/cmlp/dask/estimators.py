"""MLPClassifier and MLPRegressor that train on a Dask cluster."""

from __future__ import annotations

import contextlib
import functools
import inspect
from dataclasses import fields
from typing import Any

import numpy as np

from cmlp.core.errors import InvalidParameterError
from cmlp.dask.answers import predict, score
from cmlp.dask.cluster import Cluster, Limits
from cmlp.dask.partitions import is_collection, source_of
from cmlp.dask.reports import checked_cluster
from cmlp.dask.training import run, settings_of
from cmlp.data.source import Source
from cmlp.distributed.rank import Settings
from cmlp.estimators.classifier import MLPClassifier
from cmlp.estimators.fit import batch_size_of, recipe_of, threads_of
from cmlp.estimators.parameters import STOCHASTIC, parameters_at_fault
from cmlp.estimators.regressor import MLPRegressor
from cmlp.estimators.sources import SourceFit
from cmlp.estimators.storage import Storage
from cmlp.estimators.targets import Task
from cmlp.estimators.train import keep_network, network_of, random_of
from cmlp.sources.encode import RowEncoder
from cmlp.sources.plan import HeldRows
from cmlp.sources.tables import TrainingRows
from cmlp.training.fit import Options
from cmlp.training.many import DEFAULTS
from cmlp.training.rates import RULES
from cmlp.training.recipe import Recipe

CLUSTER: dict[str, Any] = {each.name: each.default for each in fields(Limits)}
"""Parameters of :func:`cmlp.dask.train` that estimators have, too."""


class OnCluster:
    """An estimator that trains on a cluster, where the local one trains on a source.

    Attributes
    ----------
    local : type
        The ordinary estimator, which answers, too.
    tables : bool
        Whether it reads columns of any kind.
    """

    local: Any
    _fitting: Any  # a class: what trains on a source
    tables = False
    client: Any
    estimators_: list[Any]

    def __init_subclass__(cls, **more: Any) -> None:
        """Give a class the parameters of the local one, and those of the cluster."""
        super().__init_subclass__(**more)
        if "local" not in vars(cls):
            return
        local = cls.local

        @functools.wraps(local.__init__)
        def begin(self: Any, *given: Any, client: Any = None, **named: Any) -> None:
            own = {name: named.pop(name, default) for name, default in CLUSTER.items()}
            local.__init__(self, *given, **named)
            vars(self).update(own, client=client)

        signature, kind = inspect.signature(begin), inspect.Parameter.KEYWORD_ONLY
        extra = [inspect.Parameter(each, kind, default=CLUSTER[each]) for each in CLUSTER]
        begin.__signature__ = signature.replace(  # type: ignore[attr-defined]
            parameters=[*signature.parameters.values(), *extra]
        )
        cls.__init__ = begin  # type: ignore[method-assign]

    def _client(self) -> Any:
        """Return the client, or the current one; None where there is none: some need no cluster."""
        from distributed import get_client

        with contextlib.suppress(ValueError):
            return self.client or get_client()
        return None

    def _cluster(self) -> Cluster:
        limits = Limits(**{name: getattr(self, name) for name in CLUSTER})
        return checked_cluster(self._client(), limits)

    def to_local(self) -> Any:
        """Return an ordinary estimator with the same parameters and the same network."""
        local, own = self.local.__new__(self.local), {"client", *CLUSTER}
        vars(local).update({name: each for name, each in vars(self).items() if name not in own})
        if "estimators_" in vars(self):
            local.estimators_ = [member.to_local() for member in self.estimators_]
        return local

    def __getstate__(self) -> dict[str, Any]:
        state: dict[str, Any] = super().__getstate__() | {"client": None}  # type: ignore[operator]
        return state

    def _source(self, X: Any, y: Any, sample_weight: Any) -> Source:
        self._check_parameters()  # type: ignore[attr-defined]
        return source_of(self._cluster(), X, y, sample_weight, tables=self.tables)

    def _fit_of(self, source: Source, how: Storage) -> Any:
        return self._fitting(self, source, how)

    def fit(self, X: Any, y: Any = None, sample_weight: Any = None, **how: Any) -> Any:
        """Fit on all workers.

        Parameters
        ----------
        X : Source, dask Array or DataFrame, or array
            A source of :mod:`cmlp.data`, which has its own targets and weights; a collection, whose
            partitions stay where they are; or numbers of this process, which are sent.
        y : dask Series or Array, or name of a column, or array
        sample_weight : dask Series or Array, or array, optional
        **how
            The others of the local ``fit``: `memory`, of each worker for rows; of MLPClassifier and
            MLPRegressor also rows to validate on, first weights, and checkpoints (every 60 s).

        Returns
        -------
        self
        """
        how = {name: each.compute() if is_collection(each) else each for name, each in how.items()}
        how = {"checkpoint_every": 60} | how
        return super().fit(self._source(X, y, sample_weight), **how)  # type: ignore[misc]

    def _model(self) -> Any:
        """Return what answers in the workers: without callbacks, which stay in this process."""
        local = self.to_local()
        for each in (local, *getattr(local, "estimators_", ())):
            each.callbacks = ()
        return local

    def _lazily(self, X: Any, what: str, more: dict[str, Any]) -> Any:
        if more:
            raise TypeError(f"{what} of a Dask collection has no {sorted(more)}; to_local() has")
        return predict(self._client(), self._model(), X, what)

    def predict(self, X: Any, **more: Any) -> Any:
        """Return the answers about rows; of a Dask collection lazily."""
        if is_collection(X):
            return self._lazily(X, "predict", more)
        return super().predict(X, **more)  # type: ignore[misc]

    def score(self, X: Any, y: Any = None, sample_weight: Any = None) -> float:
        """Return the accuracy or R^2, of a Dask collection from sums of its blocks."""
        if is_collection(X):
            return score(self._client(), self._model(), X, y, sample_weight)
        return float(super().score(X, y, sample_weight))  # type: ignore[misc]


class Classifies(OnCluster):
    """Lazy answers of a classifier."""

    def predict_proba(self, X: Any, **more: Any) -> Any:
        """Return the probabilities of classes; of a Dask collection lazily."""
        if is_collection(X):
            return self._lazily(X, "predict_proba", more)
        return super().predict_proba(X, **more)  # type: ignore[misc]


@parameters_at_fault()
def settings_for(
    cluster: Cluster, est: Any, recipe: Recipe, memory: int, **options: Any
) -> Settings:
    """Return what all ranks have the same, by the parameters of an estimator."""
    given = DEFAULTS | {"verbose": int(est.verbose), "callbacks": est.callbacks} | options
    return settings_of(cluster, recipe, Options(**given), memory)


class RoundsFit(SourceFit):
    """A fit to rows that all workers read."""

    def __init__(self, estimator: Any, source: Source, how: Storage) -> None:
        super().__init__(estimator, source, how)
        self.cluster = estimator._cluster()

    def rows(self) -> None:
        """Return none: they are not in this process; refuse parameters that would need them."""
        est = self.estimator
        if est.solver not in STOCHASTIC:
            why = "needs all rows in one process: take 'adam'"
            raise InvalidParameterError(f"solver={est.solver!r} {why}")
        if est.solver == "sgd" and est.learning_rate in RULES[1:]:
            why = "changes by the record of one process; take a schedule, such as 'cosine'"
            raise InvalidParameterError(f"learning_rate={est.learning_rate!r} {why}")

    def train_one(self, est: Any, task: Task) -> None:
        """Train a network in rounds."""
        random, n, rule = random_of(est, task), self.source.n_rows or 0, est.learning_rate
        with network_of(est, task, random) as net:
            net.rng = np.random.default_rng(int(random.randint(2**31 - 1)))
            endless = task.once or est.n_iter_no_change == np.inf
            settings = settings_for(
                self.cluster, est, recipe_of(est, net), self.memory,
                epochs=1 if task.once else est.max_iter, batch_size=batch_size_of(est, n),
                shuffle=est.shuffle, patience=None if endless else int(est.n_iter_no_change),
                validation_fraction=self.fraction,
                schedule=None if isinstance(rule, str) and rule in RULES else rule,
                max_time=est.max_time, n_threads=threads_of(est),
            )  # fmt: skip
            self.begin(net)
            keep_network(est, task, net, random)
            encoder, rows = self.encoder(task.targets), self.source
            if encoder.weights is not None:
                weighted = RowEncoder(rows, encoder.dtype, np.asarray, encoder.weights)
                rows = TrainingRows(rows, weighted, HeldRows(0, 0.0))
            held_out = None if task.held_out is None else task.held_out.data
            try:
                run(self.cluster, net, rows, settings, held_out, self.keeper, self.how.resume)
            finally:
                record(est, net, n)


def record(est: Any, net: Any, n_rows: int) -> None:
    """Write the record of a network as attributes of scikit-learn's."""
    losses = list(net.history.get("loss", []))
    scores = list(net.history.get("val_score", [])) or None
    vars(est).update(
        loss_curve_=losses, n_iter_=len(losses), t_=len(losses) * n_rows,
        loss_=losses[-1] if losses else None, best_iteration_=net.history.best_epoch,
        best_loss_=None if scores else min(losses, default=None), validation_scores_=scores,
        best_validation_score_=max(scores) if scores else None,
        validation_loss_curve_=list(net.history.get("val_loss", [])) or None,
    )  # fmt: skip


class ByRounds(OnCluster):
    """How MLPClassifier and MLPRegressor train in rounds.

    Training ends when the loss (of held-out rows with ``early_stopping``, else of training) has not
    reached a new low for ``n_iter_no_change`` epochs; ``tol`` has no part in it.
    """

    _fitting = RoundsFit

    def partial_fit(
        self, X: Any, y: Any = None, sample_weight: Any = None, classes: Any = None, **how: Any
    ) -> Any:
        """Use every row once, and continue where the last call stopped."""
        how |= {} if classes is None else {"classes": classes}
        source = self._source(X, y, sample_weight)
        return super().partial_fit(source, **how)  # type: ignore[misc]


class DaskMLPClassifier(ByRounds, Classifies, MLPClassifier):  # type: ignore[misc]
    """:class:`cmlp.MLPClassifier`, trained on all workers of a Dask cluster.

    Parameters
    ----------
    client : distributed.Client, optional
        By default the current one.
    sync_every, workers, min_workers, wait, timeout, retries, round_seconds, port, shards
        As in :func:`cmlp.dask.train`.
    **parameters
        Those of :class:`cmlp.MLPClassifier`; `batch_size` is that of all workers together.

    Examples
    --------
    >>> clf = cmlp.dask.DaskMLPClassifier((64,), max_iter=20)
    >>> clf.fit(X, y).predict(X).compute()  # doctest: +SKIP
    """

    local = MLPClassifier


class DaskMLPRegressor(ByRounds, MLPRegressor):  # type: ignore[misc]
    """:class:`cmlp.MLPRegressor`, trained on all workers of a Dask cluster.

    Parameters
    ----------
    client : distributed.Client, optional
        By default the current one.
    sync_every, workers, min_workers, wait, timeout, retries, round_seconds, port, shards
        As in :func:`cmlp.dask.train`.
    **parameters
        Those of :class:`cmlp.MLPRegressor`; `batch_size` is that of all workers together.
    """

    local = MLPRegressor
