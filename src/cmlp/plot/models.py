"""What the pictures take from a model: its networks, its labels, its rows."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from cmlp.core.layout import Array
from cmlp.data.rows import Data
from cmlp.diagnosis.sample import encoded, read, some_of
from cmlp.network import Network


def networks_of(model: Any) -> list[Network]:
    """Return a model's networks: itself, or those of a fitted estimator's members."""
    if isinstance(model, Network):
        return [model]
    members = getattr(model, "estimators_", [model])
    if not all(hasattr(member, "network_") for member in members):
        raise ValueError(f"this {type(model).__name__} is not fitted yet: call fit first")
    return [member.network_ for member in members]


def network_of(model: Any) -> Network:
    """Return the one network that a model has."""
    networks = networks_of(model)
    if len(networks) > 1:
        raise ValueError(
            "an ensemble has several networks: pass one member, as in model.estimators_[0]"
        )
    return networks[0]


def rows_of(
    model: Any, X: Any, y: ArrayLike, sample_weight: ArrayLike | None = None
) -> tuple[Network, Data]:
    """Return a copy of a model's network, and some of the rows as it takes them."""
    net = copy.deepcopy(network_of(model))
    rows = some_of(read(X, y, sample_weight))
    return net, encoded(net, getattr(model, "classes_", None), rows)


def classes_of(model: Any) -> Array | None:
    """Return the labels in the order of the outputs, if there are any."""
    classes: Array | None = getattr(model, "classes_", None)
    return getattr(model, "classes", None) if classes is None else classes


def predicted(model: Any, X: Any) -> Array:
    """Return the labels that a model gives rows."""
    predict = model.predict_classes if isinstance(model, Network) else model.predict
    return np.asarray(predict(X))
