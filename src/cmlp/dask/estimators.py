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
from cmlp.dask.partitions import is_collection
from cmlp.dask.reports import checked_cluster
from cmlp.dask.training import run, settings_of, source_of, validation_of
from cmlp.data.source import Source
from cmlp.estimators import ensemble
from cmlp.estimators.classifier import MLPClassifier
from cmlp.estimators.fit import batch_size_of, recipe_of, threads_of
from cmlp.estimators.parameters import parameters_at_fault
from cmlp.estimators.regressor import MLPRegressor
from cmlp.estimators.sources import SourceFit
from cmlp.estimators.storage import Storage
from cmlp.estimators.train import keep_network, network_of, random_of
from cmlp.sources.encode import RowEncoder
from cmlp.sources.plan import HeldRows
from cmlp.sources.tables import TrainingRows
from cmlp.training.fit import Options
from cmlp.training.many import DEFAULTS
from cmlp.training.rates import RULES

CLUSTER: dict[str, Any] = {each.name: each.default for each in fields(Limits)}
"""Parameters of :func:`cmlp.dask.train` that estimators have, too."""

FITTED_BY = ("client", *CLUSTER)
"""Attributes that a local estimator has not."""


class OnCluster:
    """Parameters, lazy answers and the local form of an estimator that trains on a cluster."""

    local: Any
    client: Any

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

        client = getattr(self, "client", None)
        with contextlib.suppress(ValueError):
            client = get_client() if client is None else client
        return client

    def _cluster(self) -> Cluster:
        limits = Limits(**{name: getattr(self, name) for name in CLUSTER})
        return checked_cluster(self._client(), limits)

    def to_local(self) -> Any:
        """Return an ordinary estimator with the same parameters and the same network."""
        local = self.local.__new__(self.local)
        vars(local).update({k: v for k, v in vars(self).items() if k not in FITTED_BY})
        return local

    def __getstate__(self) -> dict[str, Any]:
        state: dict[str, Any] = super().__getstate__() | {"client": None}  # type: ignore[operator]
        return state

    def _model(self) -> Any:
        """Return what answers in the workers: without callbacks, which stay in this process."""
        local = self.to_local()
        local.callbacks = ()
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


class ByRounds(OnCluster):
    """How MLPClassifier and MLPRegressor train in rounds.

    Training ends when the loss (of held-out rows with ``early_stopping``, else of training) has not
    reached a new low for ``n_iter_no_change`` epochs; ``tol`` has no part in it.
    """

    def _source(self, once: bool, *data: Any) -> Source:
        est: Any = self
        est._check_parameters()
        _refuse(est, once)
        return source_of(self._cluster(), *data)

    def fit(
        self, X: Any, y: Any = None, sample_weight: Any = None, *, X_val: Any = None,
        y_val: Any = None, memory: int | str = "1 GB", checkpoint: Any = None,
        checkpoint_every: float = 60, resume: bool = False,
    ) -> Any:  # fmt: skip
        """Fit the network on all workers; see :func:`cmlp.dask.train` for what X and y may be.

        Returns
        -------
        self
        """
        return super().fit(  # type: ignore[misc]
            self._source(False, X, y, sample_weight), X_val=X_val, y_val=y_val, memory=memory,
            checkpoint=checkpoint, checkpoint_every=checkpoint_every, resume=resume,
        )  # fmt: skip

    def partial_fit(
        self, X: Any, y: Any = None, sample_weight: Any = None, classes: Any = None, *,
        memory: int | str = "1 GB",
    ) -> Any:  # fmt: skip
        """Use every row once, and continue where the last call stopped."""
        named = {} if classes is None else {"classes": classes}
        source = self._source(True, X, y, sample_weight)
        return super().partial_fit(source, memory=memory, **named)  # type: ignore[misc]

    def _fit_source(
        self, X: Source, targets: Any, validation: Any, init: Any = (None, None), *,
        storage: Storage, once: bool = False, named: Any = None,
    ) -> Any:  # fmt: skip
        est: Any = self
        cluster, of_source = self._cluster(), SourceFit(est, X, storage)
        first = not (est.warm_start or once) or not est._has_networks()
        task = of_source.task(of_source.targets(named, once), init, first, once)
        if est.n_ensemble > 1:
            members = ensemble.members_of(est, [], 1)
            for member in members:  # one after the other, each on all workers
                member.set_params(n_threads=est.n_threads, verbose=est.verbose)
                member.client = est.client
                member._fit_source(X, targets, validation, init, storage=storage)
                if member.history_.stopped == "interrupted":
                    break
            vars(est).pop("_random_state", None)
            ensemble.keep_members(est, [member._model() for member in members], task)
            return self
        random, n = random_of(est, task), X.n_rows or 0
        start = random.get_state(legacy=False)
        with network_of(est, task, random) as net:
            net.rng = np.random.default_rng(int(random.randint(2**31 - 1)))
            with parameters_at_fault():
                options = _options(est, batch_size_of(est, n), once)
                settings = settings_of(cluster, recipe_of(est, net), options, storage.memory)
                held_out = validation_of(net, validation[:2], settings.memory, of_source.source)
                of_source.begin(net, start)
            if getattr(est, "class_weight", None) is not None:
                X = of_classes(X, of_source.encoder(task.targets))
            keep_network(est, task, net, random)
            try:
                run(cluster, net, X, settings, held_out, of_source.keeper, storage.resume)
            finally:
                self._record(net, n)
        return self

    def _record(self, net: Any, n_rows: int) -> None:
        """Write the record of the network as attributes of scikit-learn's."""
        losses = list(net.history.get("loss", []))
        scores = list(net.history.get("val_score", [])) or None
        vars(self).update(
            loss_curve_=losses, n_iter_=len(losses), t_=len(losses) * n_rows,
            loss_=losses[-1] if losses else None, best_iteration_=net.history.best_epoch,
            best_loss_=None if scores else min(losses, default=None), validation_scores_=scores,
            best_validation_score_=max(scores) if scores else None,
            validation_loss_curve_=list(net.history.get("val_loss", [])) or None,
        )  # fmt: skip


def of_classes(source: Source, encoder: RowEncoder) -> Source:
    """Return the same rows with their targets, and weights times those of their classes."""
    weighted = RowEncoder(source, encoder.dtype, np.asarray, encoder.weights)
    return TrainingRows(source, weighted, HeldRows(0, 0.0))


def _refuse(est: Any, once: bool) -> None:
    """Refuse parameters that need all rows in one place."""
    reasons = {
        "solver": est.solver == "lbfgs" and "needs all rows in one process: take 'adam'",
        "n_ensemble": once and est.n_ensemble > 1 and "is not for partial_fit",
        "warm_start": est.warm_start and est.n_ensemble > 1 and "is not for an ensemble here",
        "learning_rate": est.learning_rate in RULES[1:]
        and est.solver == "sgd"
        and "changes by the record of one process; take a schedule, such as 'cosine'",
        "early_stopping": once and est.early_stopping and "is not for partial_fit",
    }
    for name, reason in reasons.items():
        if reason:
            raise InvalidParameterError(f"{name}={getattr(est, name)!r} {reason}")


def _options(est: Any, batch_size: int, once: bool) -> Options:
    """Return how training continues and ends, by the parameters of an estimator."""
    rule = est.learning_rate
    patience = None if once or est.n_iter_no_change == np.inf else int(est.n_iter_no_change)
    given = {
        "epochs": 1 if once else est.max_iter, "batch_size": batch_size, "shuffle": est.shuffle,
        "validation_fraction": est.validation_fraction if est.early_stopping else 0.0,
        "patience": patience, "callbacks": est.callbacks, "max_time": est.max_time,
        "schedule": None if isinstance(rule, str) and rule in RULES else rule,
        "n_threads": threads_of(est), "verbose": int(est.verbose),
    }  # fmt: skip
    return Options(**(DEFAULTS | given))


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
