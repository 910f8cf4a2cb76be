"""MLPClassifier and MLPRegressor that train on a Dask cluster."""

from __future__ import annotations

import functools
import inspect
from typing import Any

import numpy as np

from cmlp.core.errors import InvalidParameterError
from cmlp.dask.answers import predict, score
from cmlp.dask.cluster import Cluster
from cmlp.dask.partitions import is_collection
from cmlp.dask.rounds import Limits
from cmlp.dask.training import Training, settings_of, source_of, validation_of
from cmlp.dask.versions import common_core
from cmlp.data.source import Source
from cmlp.estimators import ensemble
from cmlp.estimators.classifier import MLPClassifier
from cmlp.estimators.fit import recipe_of, threads_of
from cmlp.estimators.networks import check_continues, first_network, keep
from cmlp.estimators.parameters import parameters_at_fault, random_state
from cmlp.estimators.regressor import MLPRegressor
from cmlp.estimators.sources import SourceFit
from cmlp.estimators.storage import Storage
from cmlp.estimators.targets import Task
from cmlp.sources.encode import RowEncoder
from cmlp.sources.plan import HeldRows, bytes_of
from cmlp.sources.tables import TrainingRows
from cmlp.training.fit import Options
from cmlp.training.many import DEFAULTS
from cmlp.training.rates import RULES

CLUSTER: dict[str, Any] = {
    "sync_every": 1, "workers": None, "min_workers": 1, "wait": 300, "timeout": 60, "retries": 3,
    "round_seconds": 15, "port": 0, "shards": None,
}  # fmt: skip
"""Parameters of :func:`cmlp.dask.train` that estimators have, too."""

FITTED_BY = ("client", *CLUSTER)
"""Attributes that a local estimator has not."""


class OnCluster:
    """Parameters, lazy answers and the local form of an estimator that trains on a cluster."""

    local: Any
    client: Any
    workers: Any

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

        signature = inspect.signature(local.__init__)
        extra = [
            inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default)
            for name, default in CLUSTER.items()
        ]
        begin.__signature__ = signature.replace(  # type: ignore[attr-defined]
            parameters=[*signature.parameters.values(), *extra]
        )
        cls.__init__ = begin  # type: ignore[method-assign]

    def _client(self) -> Any:
        from distributed import get_client

        client = getattr(self, "client", None)
        return get_client() if client is None else client

    def _cluster(self) -> Cluster:
        cluster = Cluster(self._client(), self.workers)
        common_core(cluster, self._limits().timeout)
        return cluster

    def _limits(self) -> Any:
        names = ("min_workers", "wait", "timeout", "retries", "round_seconds")
        return Limits(*(getattr(self, name) for name in names))

    def to_local(self) -> Any:
        """Return an ordinary estimator with the same parameters and the same network."""
        state = vars(self)
        local = self.local.__new__(self.local)
        vars(local).update({key: each for key, each in state.items() if key not in FITTED_BY})
        return local

    def __getstate__(self) -> dict[str, Any]:
        state: dict[str, Any] = super().__getstate__() | {"client": None}  # type: ignore[operator]
        return state

    def predict(self, X: Any, **more: Any) -> Any:
        """Return the answers about rows; of a Dask collection lazily."""
        if is_collection(X):
            return predict(self._client(), self.to_local(), X)
        return super().predict(X, **more)  # type: ignore[misc]

    def score(self, X: Any, y: Any = None, sample_weight: Any = None) -> float:
        """Return the accuracy or R^2, of a Dask collection from sums of its blocks."""
        if not is_collection(X):
            found: float = super().score(X, y, sample_weight)  # type: ignore[misc]
            return found
        return score(self._client(), self.to_local(), X, y, sample_weight)


class Classifies(OnCluster):
    """Lazy answers of a classifier."""

    def predict_proba(self, X: Any, **more: Any) -> Any:
        """Return the probabilities of classes; of a Dask collection lazily."""
        if is_collection(X):
            return predict(self._client(), self.to_local(), X, "predict_proba")
        return super().predict_proba(X, **more)  # type: ignore[misc]


class ByRounds(OnCluster):
    """How MLPClassifier and MLPRegressor train in rounds.

    Training ends when the loss (of held-out rows with ``early_stopping``, else of training) has not
    reached a new low for ``n_iter_no_change`` epochs; ``tol`` has no part in it.
    """

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
        storage = Storage(memory, checkpoint, checkpoint_every, resume)
        given = X, y, sample_weight, (X_val, y_val), storage
        est: Any = self
        if isinstance(est.n_ensemble, int) and est.n_ensemble > 1:
            return self._fit_ensemble(*given)
        self._fit_on_cluster(*given)
        return self

    def _fit_ensemble(self, X: Any, y: Any, weight: Any, validation: Any, how: Storage) -> Any:
        """Train the members one after the other, each on all workers."""
        est: Any = self
        est._check_parameters()
        if est.warm_start or not how.is_plain:
            raise InvalidParameterError("n_ensemble above 1 is without warm_start and checkpoints")
        source = source_of(self._client(), X, y, weight)
        trained = []
        for member in ensemble.members_of(est, [], 1):
            member.set_params(n_threads=est.n_threads, verbose=est.verbose)
            member.client = est.client
            task = member._fit_on_cluster(source, None, None, validation, how)
            trained.append(member.to_local())
            if member.history_.stopped == "interrupted":
                break
        vars(est).pop("_random_state", None)
        ensemble.keep_members(est, trained, task)
        return self

    def partial_fit(
        self, X: Any, y: Any = None, sample_weight: Any = None, classes: Any = None, *,
        memory: int | str = "1 GB",
    ) -> Any:  # fmt: skip
        """Use every row once, and continue where the last call stopped."""
        named = None
        if classes is not None:
            from cmlp.estimators.labels import Labels, read_labels

            named = Labels(np.unique(read_labels(classes, name="classes")))
        self._fit_on_cluster(X, y, sample_weight, (None, None), Storage(memory), named, True)
        return self

    def _fit_on_cluster(
        self, X: Any, y: Any, weight: Any, validation: Any, how: Storage, named: Any = None,
        once: bool = False,
    ) -> Task:  # fmt: skip
        est: Any = self
        est._check_parameters()
        _refuse(est, once)
        cluster = self._cluster()
        source = source_of(cluster.client, X, y, weight)
        of_source = SourceFit(est, source, how)
        first = not (est.warm_start or once) or not est._has_networks()
        known = None if first else getattr(est, "_known_labels", None)
        targets = of_source.targets(named or (known if once else None), once)
        task = of_source.task(targets, (None, None), first, once)
        random = getattr(est, "_random_state", None)
        if task.first or not once or random is None:
            random = random_state(est.random_state)
        start = random.get_state(legacy=False)
        net = first_network(est, task, random) if first else est.network_
        if not first:
            check_continues(est, net, task)
        n = source.n_rows or 0
        size = min(200, n) if isinstance(est.batch_size, str) else min(int(est.batch_size), n)
        with net.exclusive_training(), parameters_at_fault():
            net.classes = task.targets.outputs.classes if net.classes is None else net.classes
            net.rng = np.random.default_rng(int(random.randint(2**31 - 1)))
            options = _options(est, size, once)
            if getattr(est, "class_weight", None) is not None:
                source = of_classes(source, of_source.encoder(task.targets))
            recipe, every = recipe_of(est, net), est.sync_every
            settings = settings_of(
                cluster, recipe, options, est.shards, every, bytes_of(how.memory)
            )
            held_out = None
            if validation[0] is not None:
                held_out = validation_of(net, validation, settings.memory)
            ended = of_source.begin(net, start) if how.checkpoint is not None else False
        training = Training(cluster, net, source, settings, held_out, self._limits(), est.port)
        _keep(est, task, net, random)
        try:
            training.run(of_source.keeper, how.resume and not ended)
        finally:
            self._record(net, n)
        return task

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
    rule = None if isinstance(est.learning_rate, str) and est.learning_rate in RULES else (
        est.learning_rate
    )  # fmt: skip
    patience = None if once or est.n_iter_no_change == np.inf else int(est.n_iter_no_change)
    given = {
        "epochs": 1 if once else est.max_iter, "batch_size": batch_size, "shuffle": est.shuffle,
        "validation_fraction": est.validation_fraction if est.early_stopping else 0.0,
        "patience": patience, "schedule": rule, "callbacks": est.callbacks,
        "max_time": est.max_time, "n_threads": threads_of(est), "verbose": int(est.verbose),
    }  # fmt: skip
    return Options(**(DEFAULTS | given))


def _keep(est: Any, task: Any, net: Any, random: Any) -> None:
    """Make a network, and what it is to learn, the estimator's."""
    more: dict[str, Any] = {"_random_state": random}
    if task.first:
        more |= {"network_": net, "history_": net.history}
    keep(est, task.columns, task.targets.outputs, len(net.sizes), **more)
    for name in ("estimators_", "_assigned"):
        vars(est).pop(name, None)


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
