"""What an estimator passes to a diagnosis."""

from __future__ import annotations

from typing import Any

from cmlp.core.layout import Array
from cmlp.diagnosis.model import Model, is_unbounded


def model_of_estimator(estimator: Any) -> Model:
    """Describe an estimator with one network, or one that is not fitted."""
    net = getattr(estimator, "network_", None)
    is_classifier = estimator._estimator_type == "classifier"
    is_regression = not is_classifier and estimator.loss != "poisson"
    names = getattr(estimator, "feature_names_in_", () if net is None else net.feature_names)

    def train(
        X: Array, y: Array, sample_weight: Array | None, *, epochs: int, max_time: float
    ) -> Model:
        trial = type(estimator)(**estimator.get_params(deep=False))
        quiet = {
            "max_iter": min(epochs, estimator.max_iter),
            "max_time": max_time,
            "early_stopping": False,
            "callbacks": (),
            "verbose": 0,
            "n_ensemble": 1,
        }
        known = trial.get_params()  # of a user's subclass: fewer
        trial.set_params(**{name: value for name, value in quiet.items() if name in known})
        trial.fit(X, y, sample_weight=sample_weight)
        return model_of_estimator(trial)

    return Model(
        network=net,
        fitted=net is not None,
        classifies=is_classifier if net is None else net.architecture.classifies,
        unbounded=is_regression if net is None else is_unbounded(net),
        train=train,
        is_estimator=True,
        labels=getattr(estimator, "classes_", None),
        names=names,
        balanced=getattr(estimator, "class_weight", None) is not None,
        solver=estimator.solver,
        rate=float(estimator.learning_rate_init),
        batch_size=200 if estimator.batch_size == "auto" else estimator.batch_size,
        planned=int(estimator.max_iter),
        patience=float(estimator.n_iter_no_change),
    )
